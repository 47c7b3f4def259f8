import json
import math

import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, band, bars, dots, line, numbers, points


def make(caption="It falls.", **changes):
    parts = {"x": Axis(title="step"), "y": Axis(title="loss (nats)"), "traces": [line([0, 1], [2, 1], "loss")]}
    return Figure(name="loss", title="Loss", caption=caption, **(parts | changes))


def test_a_figure_is_plain_json():
    drawn = json.loads(json.dumps(make().to_plotly(), allow_nan=False))
    assert drawn["data"][0]["y"] == [2.0, 1.0]
    assert drawn["layout"]["yaxis"]["title"]["text"] == "loss (nats)"


def test_plotly_accepts_what_we_draw():
    import plotly.graph_objects

    traces = [
        line([1, 2], [1, 2], "a", colour=PALETTE[0], dash="dot", markers=True),
        points([1], [2], "b", colour=PALETTE[1], text=["x"]),
        band([1, 2], [0, 1], [1, 2], "c"),
    ]
    axis = Axis(title="t", log=True, range=(1e-3, 10.0))
    figure = plotly.graph_objects.Figure(make(traces=traces, x=axis, layout={"height": 300}).to_plotly())
    assert list(figure.layout.xaxis.range) == [-3.0, 1.0]  # Plotly wants logarithms on a log axis, we want units
    assert len(figure.data) == 3


def test_a_band_runs_there_and_back():
    area = band([0, 1, 2], [0, 0, 0], [1, 2, 3], "null")
    assert area["x"] == [0, 1, 2, 2, 1, 0]
    assert area["y"] == [1, 2, 3, 0, 0, 0]
    red, green, blue = (int(NULL_COLOUR[i : i + 2], 16) for i in (1, 3, 5))
    assert area["fillcolor"].startswith(f"rgba({red},{green},{blue}")


def test_numbers_are_short_and_gaps_are_none():
    assert numbers([1 / 3, math.nan, math.inf, 1e-300, 123456789]) == [0.333333, None, None, 1e-300, 123457000.0]


def test_a_caption_is_required():
    with pytest.raises(BadInput, match="caption of figure 'loss': got nothing"):
        make(caption="  ")


def test_dots_leave_out_what_has_no_number_and_keep_series_of_a_label_apart():
    half = Estimate(value=0.5, low=0.4, high=0.7, level=0.99, n=9, method="bootstrap")
    drawn = dots(
        name="accuracy",
        title="Accuracy",
        caption="By task.",
        labels=["a", "b"],
        series={"this": (PALETTE[0], "circle", [half, half]), "null": (NULL_COLOUR, "x-thin", [None, half])},
        x=Axis(title="share"),
    )
    this, null = drawn.traces
    assert this["x"] == [0.5, 0.5]
    assert null["x"] == [0.5]
    assert null["text"] == [f"b: {half}"]
    assert (this["error_x"]["array"][0], this["error_x"]["arrayminus"][0]) == pytest.approx((0.2, 0.1))
    assert len({*this["y"], *null["y"]}) == 3
    assert all(abs(place - round(place)) < 0.5 for place in this["y"])
    assert drawn.layout["yaxis"]["ticktext"] == ["a", "b"]


def test_dots_want_a_value_for_each_label():
    shared = {"name": "n", "title": "t", "caption": "c", "x": Axis(title="share")}
    with pytest.raises(BadInput, match="series 'this': got 1 values; wanted 2, one for each label"):
        dots(labels=["a", "b"], series={"this": (PALETTE[0], "circle", [None])}, **shared)


def test_bars_lie_flat_for_long_names():
    upright, flat = bars(["a"], [2.0], "n"), bars(["a"], [2.0], "n", flat=True)
    assert (upright["x"], upright["y"]) == (flat["y"], flat["x"]) == (["a"], [2.0])
    assert flat["orientation"] == "h"
    assert "orientation" not in upright

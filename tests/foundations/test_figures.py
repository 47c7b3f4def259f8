import json
import math

import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, band, line, numbers, points


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

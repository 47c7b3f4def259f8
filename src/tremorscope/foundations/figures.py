"""Figures as data: Plotly's JSON, made without importing Plotly; the report draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy
from numpy.typing import ArrayLike

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate

# Okabe and Ito's palette, which stays distinct for the common kinds of colour blindness. The first colour is
# for the thing measured, grey is for nulls.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A6A00")
NULL_COLOUR = "#8A8A8A"

Series = tuple[str, str, Sequence[Estimate | None]]  # colour, symbol, a value for each label
_SPREAD = 0.56  # of the space between two labels, over all series


@final
@dataclass(frozen=True, kw_only=True)
class Axis:
    """Title with its unit, and the scale."""

    title: str
    log: bool = False
    range: tuple[float, float] | None = None  # in data units, also on a log axis

    def to_plotly(self) -> dict[str, Any]:
        """The axis part of a Plotly layout."""
        axis: dict[str, Any] = {"title": {"text": self.title}}
        if self.log:
            axis |= {"type": "log", "exponentformat": "power", "dtick": 1 if self._decades() <= 8 else None}
        if self.range is not None:
            axis["range"] = [float(numpy.log10(end)) if self.log else end for end in self.range]
        return axis

    def _decades(self) -> float:
        return 99.0 if self.range is None else float(numpy.log10(self.range[1] / self.range[0]))


@final
@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure: what it is called, one sentence that says what it shows, and the drawing.

    `caption` states the finding or how to read it. `traces` are Plotly traces (plain dictionaries).
    """

    name: str
    title: str
    caption: str
    traces: Sequence[dict[str, Any]]
    x: Axis
    y: Axis
    layout: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.caption.strip():
            raise BadInput(
                f"caption of figure {self.name!r}", got="nothing", wanted="a sentence that says what it shows"
            )

    def to_plotly(self) -> dict[str, Any]:
        """`{"data": [...], "layout": {...}}`, ready for Plotly."""
        layout = {"xaxis": self.x.to_plotly(), "yaxis": self.y.to_plotly(), **self.layout}
        return {"data": list(self.traces), "layout": layout}


def line(
    x: ArrayLike,
    y: ArrayLike,
    name: str,
    *,
    colour: str | None = None,
    dash: str | None = None,
    markers: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """One curve; without a colour it takes the next of the palette."""
    style = {key: value for key, value in (("color", colour), ("dash", dash)) if value is not None}
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers" if markers else "lines",
        "x": numbers(x),
        "y": numbers(y),
        "name": name,
        "line": style,
    }
    return trace | more


def points(
    x: ArrayLike, y: ArrayLike, name: str, *, colour: str | None = None, size: float = 5, **more: Any
) -> dict[str, Any]:
    """A cloud of points."""
    marker: dict[str, Any] = {"size": size} | ({} if colour is None else {"color": colour})
    return {
        "type": "scatter",
        "mode": "markers",
        "x": numbers(x),
        "y": numbers(y),
        "name": name,
        "marker": marker,
    } | more


def band(x: ArrayLike, low: ArrayLike, high: ArrayLike, name: str, *, colour: str = NULL_COLOUR) -> dict[str, Any]:
    """A shaded area between two curves, for intervals and nulls."""
    there, back = numpy.asarray(x, dtype=float), numpy.asarray(x, dtype=float)[::-1]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return {
        "type": "scatter",
        "mode": "lines",
        "x": numbers(numpy.concatenate([there, back])),
        "y": numbers(numpy.concatenate([numpy.asarray(high, dtype=float), numpy.asarray(low, dtype=float)[::-1]])),
        "name": name,
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},0.22)",
        "line": {"width": 0, "color": colour},
        "hoverinfo": "skip",
    }


def bars(
    names: Sequence[str], lengths: ArrayLike, name: str, *, colour: str | None = None, flat: bool = False
) -> dict[str, Any]:
    """One bar for each name; `flat` ones leave room for long names."""
    marker = {} if colour is None else {"color": colour}
    trace = {"type": "bar", "name": name, "marker": marker}
    if flat:
        return {**trace, "orientation": "h", "x": numbers(lengths), "y": list(names)}
    return {**trace, "x": list(names), "y": numbers(lengths)}


def dots(
    *,
    name: str,
    title: str,
    caption: str,
    labels: Sequence[str],
    series: Mapping[str, Series],
    x: Axis,
    line_height: int = 40,
) -> Figure:
    """A line for each label, and on it a mark with its interval for each series that has a number there.

    Raises:
        BadInput: If a series has not one value, or None, for each label.
    """
    traces = []
    for place, (told, (colour, symbol, values)) in enumerate(series.items()):
        if len(values) != len(labels):
            raise BadInput(f"series {told!r}", got=f"{len(values)} values", wanted=f"{len(labels)}, one for each label")
        shift = _SPREAD * (place / (len(series) - 1) - 0.5) if len(series) > 1 else 0.0
        at = [(index, one) for index, one in enumerate(values) if one is not None and math.isfinite(one.value)]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": told,
                "x": numbers([one.value for _, one in at]),
                "y": [index + shift for index, _ in at],
                "text": [f"{labels[index]}: {one}" for index, one in at],
                "hoverinfo": "text+name",
                "marker": {"symbol": symbol, "size": 9, "color": colour, "line": {"width": 2}},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": numbers([one.high - one.value for _, one in at]),
                    "arrayminus": numbers([one.value - one.low for _, one in at]),
                    "color": colour,
                    "thickness": 1.3,
                    "width": 0,
                },
            }
        )
    axis = {
        "tickvals": list(range(len(labels))),
        "ticktext": list(labels),
        "range": [len(labels) - 0.4, -0.6],
        "automargin": True,
        "zeroline": False,
        "title": {"text": ""},
    }
    return Figure(
        name=name,
        title=title,
        caption=caption,
        traces=traces,
        x=x,
        y=Axis(title=""),
        layout={"yaxis": axis, "height": 150 + line_height * len(labels)},
    )


def numbers(values: ArrayLike, digits: int = 6) -> list[float | None]:
    """A short list for JSON: six significant digits, None where not finite."""
    array = numpy.asarray(values, dtype=float).reshape(-1)
    return [float(f"{value:.{digits}g}") if numpy.isfinite(value) else None for value in array]

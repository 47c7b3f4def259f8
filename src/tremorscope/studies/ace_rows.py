"""What the rows of a language model share: how a claim is stated, and how numbers with intervals are drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, Axis, Figure, numbers
from tremorscope.studies.ace_digits import PAPER, STUDY

BY_SIGN = Expected(
    low=0.01, origin="the sign of the published claim; a hundredth at least, so that no difference is not one"
)
_SPREAD = 0.5  # of the marks of one line


@final
@dataclass(frozen=True, kw_only=True)
class RowMaker:
    """States rows of one model, by their name without its ending."""

    preset: str
    scope: str
    ending: str

    def __call__(
        self,
        row: str,
        statement: str,
        measured: Estimate,
        nulls: Mapping[str, tuple[str, Estimate]],
        *,
        expected: Expected = BY_SIGN,
        note: str = "",
    ) -> Claim:
        """The claim."""
        return Claim(
            study=STUDY,
            row=f"{row}{self.ending}",
            preset=self.preset,
            statement=f"{'Recurrent twin. ' if self.ending else ''}{statement}",
            source=PAPER,
            scope=f"{self.scope}{note}",
            expected=expected,
            measured=measured,
            nulls=tuple(
                NullEvidence(name=name, description=described, measured=value)
                for name, (described, value) in nulls.items()
            ),
        )


def dots(
    *,
    name: str,
    title: str,
    caption: str,
    labels: Sequence[str],
    series: Mapping[str, tuple[str, str, Sequence[Estimate | None]]],
    x: Axis,
) -> Figure:
    """A line for each label, and on it a mark with its interval for each series (colour, symbol, values)."""
    traces: list[dict[str, Any]] = []
    for place, (told, (colour, symbol, values)) in enumerate(series.items()):
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
        layout={"yaxis": axis, "height": 150 + 40 * len(labels)},
    )


def grey(symbol: str, values: Sequence[Estimate | None]) -> tuple[str, str, Sequence[Estimate | None]]:
    """A series of a null."""
    return NULL_COLOUR, symbol, values

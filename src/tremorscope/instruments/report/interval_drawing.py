"""Where the marks of a claim stand: its interval and those of its nulls against the expected range.

The drawing is plain SVG whose coordinates are percentages, so that it needs no script and stretches
with the page. The numbers themselves stand beside it as text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from tremorscope.foundations.claims import Claim
from tremorscope.foundations.estimate import Estimate

_MARGIN = 0.07  # of the width, on either side
_DECADES_TO_LOG = 2.5  # a linear axis would press everything but the largest against its left end
_LABEL_WIDTH = 22.0  # percent: two labels that are closer become one


@final
@dataclass(frozen=True, kw_only=True)
class Mark:
    """One interval: where it starts, where its value stands, where it ends, in percent of the width."""

    low: float
    value: float
    high: float
    has_width: bool


@final
@dataclass(frozen=True, kw_only=True)
class Label:
    """One end of the expected range, written below the drawing."""

    at: float
    text: str
    anchor: str


@final
@dataclass(frozen=True, kw_only=True)
class IntervalDrawing:
    """All marks of one claim on one scale."""

    expected: tuple[float, float]
    ends: tuple[float, ...]  # the finite ends of the expected range
    measured: Mark
    nulls: tuple[Mark, ...]
    labels: tuple[Label, ...]
    is_log: bool


def interval_drawing(claim: Claim) -> IntervalDrawing | None:
    """Lay out one claim; None when a value is not finite, for then there is nothing to draw.

    The axis is logarithmic when every number is positive and they span more than 2.5 decades.
    """
    estimates = [claim.measured, *(null.measured for null in claim.nulls)]
    limits = [end for end in (claim.expected.low, claim.expected.high) if math.isfinite(end)]
    if not all(math.isfinite(estimate.value) for estimate in estimates):
        return None
    spread = [end for estimate in estimates for end in (estimate.low, estimate.value, estimate.high)]
    numbers = [number for number in (*spread, *limits) if math.isfinite(number)]
    smallest, largest = min(numbers), max(numbers)
    is_log = smallest > 0 and math.log10(largest / smallest) > _DECADES_TO_LOG

    def along(number: float) -> float:
        return math.log10(number) if is_log else number

    first, last = along(smallest), along(largest)
    if first == last:
        first, last = first - (abs(first) or 1.0), last + (abs(last) or 1.0)

    def percent(number: float) -> float:
        if math.isinf(number):
            return 0.0 if number < 0 else 100.0
        share = (along(number) - first) / (last - first)
        return round(100 * (_MARGIN + (1 - 2 * _MARGIN) * share), 2)

    def mark(estimate: Estimate) -> Mark:
        return Mark(
            low=percent(estimate.low),
            value=percent(estimate.value),
            high=percent(estimate.high),
            has_width=estimate.high > estimate.low,
        )

    return IntervalDrawing(
        expected=(percent(claim.expected.low), percent(claim.expected.high)),
        ends=tuple(percent(limit) for limit in limits),
        measured=mark(claim.measured),
        nulls=tuple(mark(null.measured) for null in claim.nulls),
        labels=_labels([(percent(limit), f"{limit:.4g}") for limit in limits]),
        is_log=is_log,
    )


def _labels(ends: list[tuple[float, str]]) -> tuple[Label, ...]:
    if len(ends) == 2 and ends[1][0] - ends[0][0] < _LABEL_WIDTH:
        ends = [((ends[0][0] + ends[1][0]) / 2, f"{ends[0][1]} to {ends[1][1]}")]
    return tuple(
        Label(at=at, text=text, anchor="start" if at < 15 else "end" if at > 85 else "middle") for at, text in ends
    )

"""Where on a curve of kappa the zone lies, and how far it stands out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy
from numpy.typing import ArrayLike

from tremorscope.foundations.errors import BadInput


@final
@dataclass(frozen=True, kw_only=True)
class Zone:
    """The shell of scales around the peak of kappa in which it stays above half of it.

    `low` and `high` are where kappa falls to half its peak, interpolated along the logarithm of the scale; the
    end of the curve where it does not fall that far (`is_open` says so).
    """

    peak_scale: float
    peak: float
    low: float
    high: float
    is_open: bool

    def contains(self, scale: float) -> bool:
        """Whether a scale lies in the shell."""
        return self.low <= scale <= self.high

    def share_of(self, scales: Sequence[float]) -> float:
        """Chance that a scale drawn log-uniformly between the first and the last of `scales` lies in the shell."""
        ends = math.log(scales[0]), math.log(scales[-1])
        inside = min(math.log(self.high), ends[1]) - max(math.log(self.low), ends[0])
        return max(0.0, inside) / (ends[1] - ends[0])


def find_zone(scales: Sequence[float], kappa: ArrayLike) -> Zone | None:
    """The zone of a curve; None where kappa is nowhere positive or nowhere defined.

    >>> zone = find_zone([0.01, 0.1, 1.0, 10.0, 100.0], [0.0, 0.0, 4.0, 0.0, 0.0])
    >>> zone.peak_scale, round(zone.low, 3), round(zone.high, 3)
    (1.0, 0.316, 3.162)

    Raises:
        BadInput: If there are not as many scales as values, or the scales do not grow.
    """
    values = numpy.asarray(kappa, dtype=float)
    places = numpy.log(numpy.asarray(scales, dtype=float))
    if len(places) != len(values) or (numpy.diff(places) <= 0).any():
        raise BadInput("scales of a zone", got=f"{list(scales)} for {len(values)} values", wanted="one each, growing")
    defined = numpy.isfinite(values)
    values, places = values[defined], places[defined]
    if not len(values) or values.max() <= 0:
        return None
    top = int(values.argmax())
    half = values[top] / 2
    low, open_below = _crossing(places[top::-1], values[top::-1], half)
    high, open_above = _crossing(places[top:], values[top:], half)
    return Zone(
        peak_scale=math.exp(places[top]),
        peak=float(values[top]),
        low=math.exp(low),
        high=math.exp(high),
        is_open=open_below or open_above,
    )


def prominence(scales: Sequence[float], kappa: ArrayLike, *, inside: float, outside: float) -> float:
    """How far the peak between two scales stands above what lies on both sides: is the shell hollow?

    `max kappa(inside < s < outside)`, less the larger of the mean kappas at `s <= inside` and at `s >= outside`. In
    units of kappa, whose standard deviation is 1 for one matrix of curvatures with random signs.

    Raises:
        BadInput: If one of the three ranges holds no defined value.
    """
    values, places = numpy.asarray(kappa, dtype=float), numpy.asarray(scales, dtype=float)
    defined = numpy.isfinite(values)
    parts = [
        values[defined & chosen]
        for chosen in (places <= inside, (places > inside) & (places < outside), places >= outside)
    ]
    if not all(len(part) for part in parts):
        raise BadInput(
            "scales of a zone", got=f"{list(scales)}", wanted=f"some up to {inside:g}, between, and from {outside:g} on"
        )
    below, between, above = parts
    return float(between.max() - max(below.mean(), above.mean()))


def _crossing(places: numpy.ndarray, values: numpy.ndarray, level: float) -> tuple[float, bool]:
    """First place, walking away from the peak, where the curve reaches the level."""
    for step in range(1, len(values)):
        if values[step] < level:
            share = (values[step - 1] - level) / (values[step - 1] - values[step])
            return float(places[step - 1] + share * (places[step] - places[step - 1])), False
    return float(places[-1]), True

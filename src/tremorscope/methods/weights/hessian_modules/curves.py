"""Steering curves: what each objective loses along a direction, and where to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import numpy

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.methods.weights.hessian_modules.directions import SteeringDirection
from tremorscope.methods.weights.hessian_modules.objectives import PARTS, Objective, Part, Reading

ALPHAS = (0.125, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)


@final
@dataclass(frozen=True, kw_only=True)
class SteeringCurve:
    """Readings of every objective at every size, on validation and on test data. `alphas` are sorted and hold 0.

    `readings[part][objective][i]` belongs to `alphas[i]`.
    """

    name: str
    alphas: tuple[float, ...]
    readings: Mapping[str, Mapping[str, Sequence[Reading]]]
    norm: float

    def damage(self, objective: str, part: Part) -> list[float]:
        """What is lost at each size: drop of the score, or rise of the loss where there is no score."""
        readings = self.readings[part][objective]
        before = readings[self.alphas.index(0.0)]
        return [reading.damage_from(before) for reading in readings]

    def loss_rise(self, objective: str, part: Part) -> list[float]:
        """Rise of the loss at each size."""
        readings = self.readings[part][objective]
        before = readings[self.alphas.index(0.0)].loss
        return [reading.loss - before for reading in readings]

    def at(self, alpha: float, objective: str, part: Part) -> Reading:
        """The reading at one size.

        Raises:
            BadInput: If the curve was not computed there.
        """
        if alpha not in self.alphas:
            raise BadInput("alpha", got=alpha, wanted=f"one of {', '.join(f'{known:g}' for known in self.alphas)}")
        return self.readings[part][objective][self.alphas.index(alpha)]

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "alphas": list(self.alphas),
            "norm": self.norm,
            "readings": {
                part: {name: [list(reading) for reading in row] for name, row in rows.items()}
                for part, rows in self.readings.items()
            },
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> SteeringCurve:
        """The inverse of `to_plain`."""
        return cls(
            name=plain["name"],
            alphas=tuple(plain["alphas"]),
            norm=plain["norm"],
            readings={
                part: {name: [Reading(*reading) for reading in row] for name, row in rows.items()}
                for part, rows in plain["readings"].items()
            },
        )


@final
@dataclass(frozen=True, kw_only=True)
class Choice:
    """Where a curve was stopped: chosen on validation data, damages on test data."""

    alpha: float
    keep_damage: float
    break_damage: float

    @property
    def moved(self) -> bool:
        """False when every size cost the kept objective too much, so that nothing was done."""
        return self.alpha != 0


def signed(alphas: Sequence[float]) -> tuple[float, ...]:
    """Both signs of every size, and 0.

    >>> signed([1.0, 0.5])
    (-1.0, -0.5, 0.0, 0.5, 1.0)

    Raises:
        BadInput: If there is no size, or one is not finite.
    """
    sizes = {abs(float(alpha)) for alpha in alphas} - {0.0}
    if not sizes or not all(numpy.isfinite(size) for size in sizes):
        raise BadInput("alphas", got=list(alphas), wanted="finite sizes other than 0")
    return tuple(sorted({*sizes, *(-size for size in sizes), 0.0}))


def steering_curve(
    network: Network,
    direction: SteeringDirection,
    objectives: Sequence[Objective],
    alphas: Sequence[float],
    *,
    name: str | None = None,
) -> SteeringCurve:
    """Losses and scores of every objective along a direction, both signs.

    Cost: two forward passes of each objective for each size and sign.
    """
    places = signed(alphas)
    moved = [direction.weights(network, alpha) for alpha in places]
    return SteeringCurve(
        name=name or direction.name,
        alphas=places,
        norm=float(direction.vector.norm()),
        readings={part: {one.name: [one.read(theta, part) for theta in moved] for one in objectives} for part in PARTS},
    )


def choose(curve: SteeringCurve, keep: str, breaking: str, *, most: float, judged: str | None = None) -> Choice:
    """Sign and size that break most, among those that cost the kept objective at most `most`: on validation data.

    What was chosen is judged on test data. Where nothing is allowed, alpha is 0.

    Args:
        curve: Of one direction.
        keep: Name of the objective to keep.
        breaking: Name of the objective to break, as far as the chooser may know it.
        most: Damage allowed to the kept one, in its units.
        judged: The objective whose damage on test data counts, when it is another one than `breaking`.
    """
    return choose_among([curve], keep, breaking, most=most, judged=judged)[1]


def choose_among(
    curves: Sequence[SteeringCurve], keep: str, breaking: str, *, most: float, judged: str | None = None
) -> tuple[int, Choice]:
    """The best of several directions, sign and size included, as `choose` does it; and which one it was."""
    best: tuple[float, int, int] = (0.0, 0, curves[0].alphas.index(0.0))
    for number, curve in enumerate(curves):
        costs, gains = curve.damage(keep, "validation"), curve.damage(breaking, "validation")
        for place, (cost, gain) in enumerate(zip(costs, gains, strict=True)):
            if cost <= most and gain > best[0]:
                best = (gain, number, place)
    _, number, place = best
    curve = curves[number]
    return number, Choice(
        alpha=curve.alphas[place],
        keep_damage=curve.damage(keep, "test")[place],
        break_damage=curve.damage(judged or breaking, "test")[place],
    )


def keep_damage_at(curve: SteeringCurve, keep: str, breaking: str, *, break_damage: float) -> float:
    """What the kept objective loses where the broken one first loses `break_damage`, on test data.

    Between sizes damages are interpolated; of the two signs the one that costs less counts. A sign that
    never gets there is read at its end. This is how two directions are compared fairly: at equal harm.
    """
    return _cost_at(curve.alphas, curve.damage(keep, "test"), curve.damage(breaking, "test"), break_damage)


def keep_loss_at(curve: SteeringCurve, keep: str, breaking: str, *, break_rise: float) -> float:
    """As `keep_damage_at`, in losses whatever the score."""
    return _cost_at(curve.alphas, curve.loss_rise(keep, "test"), curve.loss_rise(breaking, "test"), break_rise)


def _cost_at(alphas: Sequence[float], costs: Sequence[float], gains: Sequence[float], wanted: float) -> float:
    if wanted <= 0:
        return 0.0  # there already, without a step
    zero = list(alphas).index(0.0)
    reached, ends = [], []
    for places in (range(zero, len(alphas)), range(zero, -1, -1)):
        for before, after in pairwise(places):
            if gains[after] >= wanted:
                share = (wanted - gains[before]) / (gains[after] - gains[before])
                reached.append(costs[before] + share * (costs[after] - costs[before]))
                break
        else:
            ends.append(costs[places[-1]])
    return min(reached) if reached else min(ends)

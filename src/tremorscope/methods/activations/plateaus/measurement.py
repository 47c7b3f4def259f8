"""Plateaus around real and random activations, and directions that matter: curves of every kind, compared by base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, band, line
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import generator
from tremorscope.methods.activations.plateaus.comparisons import Comparison, compare, median_over_bases
from tremorscope.methods.activations.plateaus.curves import KL_LEVEL, Curves, measure_curves, reached_summary
from tremorscope.methods.activations.plateaus.kinds import (
    COV,
    COV_MIXTURE,
    ISOTROPIC,
    OTHER,
    OTHER_MIXTURE,
    RANDOM,
    RANDOM_MATCHED,
    RANDOM_POSTNORM,
    REAL,
    Population,
    base_activations,
    directions,
    unit,
)
from tremorscope.methods.activations.plateaus.paths import Mode, paths_of
from tremorscope.methods.activations.plateaus.responder import Readout, Responder

Values = NDArray[numpy.float64]
ANGLES = (2.5, 5, 7.5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 70, 80, 90)
USER = "given"  # directions that the user brings


@final
@dataclass(frozen=True)
class Condition:
    """A kind of base and a kind of direction."""

    base: str
    direction: str

    def __str__(self) -> str:
        return f"{self.base} base, {self.direction}"

    @classmethod
    def parse(cls, text: str) -> Condition:
        """The inverse of `str`.

        >>> Condition.parse("random, real norm base, cov-random").base
        'random, real norm'
        """
        base, _, direction = text.partition(" base, ")
        return cls(base, direction)


BASES_CONDITIONS = tuple(Condition(base, COV) for base in (REAL, RANDOM, RANDOM_MATCHED, RANDOM_POSTNORM))
DIRECTION_CONDITIONS = tuple(
    Condition(REAL, direction) for direction in (OTHER, COV, ISOTROPIC, OTHER_MIXTURE, COV_MIXTURE)
)
SUMMARIES: dict[str, Callable[[Curves], Values]] = {
    "half response, KL": lambda curves: curves.half_response("kl", at=float(curves.sizes[-1])),
    "half response, L2": lambda curves: curves.half_response("l2", at=float(curves.sizes[-1])),
    "threshold, KL 0.5": lambda curves: curves.threshold("kl", KL_LEVEL),
    # Of 90 degrees, a ninth is 10 and two ninths are 20.
    "share at a ninth, L2": lambda curves: _share_at_a_ninth(curves, "l2"),
    "share at a ninth, KL": lambda curves: _share_at_a_ninth(curves, "kl"),
    "slope, KL": lambda curves: curves.initial_slope("kl", up_to=float(curves.sizes[-1]) * 2 / 9),
    "slope, L2": lambda curves: curves.initial_slope("l2", up_to=float(curves.sizes[-1]) * 2 / 9),
}


def _share_at_a_ninth(curves: Curves, readout: str) -> Values:
    last = float(curves.sizes[-1])
    return curves.plateau_index(readout, (last / 9,), at=last)[:, 0]


@final
@dataclass(frozen=True, kw_only=True)
class PlateausMeasurement:
    """Response curves of one network, by condition; bases of equal number are the same prompt in every condition.

    `typical_distance` is the root mean squared distance between two real activations; `flags` say how responses were
    computed and what a reader must know.
    """

    curves: Mapping[Condition, Curves]
    typical_distance: float
    num_samples: int
    shrinkage: float
    flags: tuple[str, ...] = ()

    @property
    def num_bases(self) -> int:
        """Different bases of each condition."""
        first = next(iter(self.curves.values()))
        return len(set(first.bases.tolist()))

    def values(self, condition: Condition, summary: str) -> tuple[Values, Int[numpy.ndarray, " n"]]:
        """One number for each path, and the base it starts from.

        Raises:
            BadInput: If the condition was not measured, or there is no such summary.
        """
        if condition not in self.curves:
            raise BadInput("condition", got=condition, wanted=" or ".join(map(str, self.curves)))
        if summary not in SUMMARIES:
            raise BadInput("summary", got=summary, wanted=", ".join(SUMMARIES))
        curves = self.curves[condition]
        return SUMMARIES[summary](curves), curves.bases

    def median(self, condition: Condition, summary: str, *, seed: int = 0) -> Estimate:
        """Median over paths; whole bases are drawn for the interval."""
        return median_over_bases(*self.values(condition, summary), seed=seed)

    def compare(self, first: Condition, second: Condition, summary: str, *, seed: int = 0) -> Comparison:
        """First less second; paired by base where both start from the same ones."""
        return compare(
            *self.values(first, summary), *self.values(second, summary), paired=first.base == second.base, seed=seed
        )

    def joined(self, others: Sequence[PlateausMeasurement]) -> PlateausMeasurement:
        """Several draws of prompts as one."""
        parts = [self, *others]
        return PlateausMeasurement(
            curves={
                condition: curves.joined([part.curves[condition] for part in others])
                for condition, curves in self.curves.items()
            },
            typical_distance=float(numpy.mean([part.typical_distance for part in parts])),
            num_samples=min(part.num_samples for part in parts),
            shrinkage=max(part.shrinkage for part in parts),
            flags=tuple(dict.fromkeys(flag for part in parts for flag in part.flags)),
        )

    def tables(self, *, name: str = "plateaus", title: str = "Response curves") -> list[Table]:
        """Every summary of every condition, medians over paths."""
        rows: list[dict[str, Any]] = []
        for condition, curves in self.curves.items():
            row: dict[str, Any] = {"base": condition.base, "direction": condition.direction}
            for summary, of in SUMMARIES.items():
                if ("kl" if "KL" in summary else "l2") not in curves.values:
                    continue
                found = of(curves)
                row[summary] = None if numpy.isnan(found).any() else median_over_bases(found, curves.bases, seed=0)
                if summary.startswith("threshold"):
                    row["reached"] = reached_summary(found).fraction
            rows.append(row)
        unit_of = next(iter(self.curves.values())).unit
        return [
            Table.of_rows(
                rows,
                name=name,
                title=title,
                caption=f"Medians over paths with 99 % intervals over {self.num_bases} bases. Half responses and "
                f"thresholds in {unit_of}; a threshold that was never reached counts as infinite, and the share that "
                f"was reached is beside it. Covariances from {self.num_samples} activations, shrinkage "
                f"{self.shrinkage:.2g}; two real activations "
                f"lie {self.typical_distance:.3g} apart.",
            )
        ]

    def figures(
        self, *, name: str = "plateaus", title: str = "Response along paths", readout: str | None = None
    ) -> list[Figure]:
        """Median response of each condition, as a share of each path's last one, with quartiles."""
        shown = readout or ("kl" if "kl" in next(iter(self.curves.values())).values else "l2")
        traces = []
        for place, (condition, curves) in enumerate(self.curves.items()):
            values = curves.of(shown)
            last = values[:, -1:]
            with numpy.errstate(divide="ignore", invalid="ignore"):
                share = numpy.where(last > 0, values / last, numpy.nan)[(last > 0)[:, 0]]
            if not len(share):
                continue
            low, middle, high = numpy.quantile(share, [0.25, 0.5, 0.75], axis=0)
            colour = NULL_COLOUR if condition.direction == ISOTROPIC else PALETTE[place % len(PALETTE)]
            if place < 2:  # more bands hide each other
                traces.append(band(curves.sizes, low, high, f"{condition}, quartiles", colour=colour))
            traces.append(line(curves.sizes, middle, str(condition), colour=colour))
        unit_of = next(iter(self.curves.values())).unit
        return [
            Figure(
                name=name,
                title=title,
                caption=f"Median {shown} as a share of what each path has at its end: a plateau is a flat start.",
                traces=traces,
                x=Axis(title=f"distance from the base, {unit_of}"),
                y=Axis(title=f"{shown}, share of the last"),
            )
        ]

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "curves": {str(condition): curves.to_plain() for condition, curves in self.curves.items()},
            "typical_distance": self.typical_distance,
            "num_samples": self.num_samples,
            "shrinkage": self.shrinkage,
            "flags": list(self.flags),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> PlateausMeasurement:
        """The inverse of `to_plain`."""
        return cls(
            curves={Condition.parse(text): Curves.from_plain(one) for text, one in plain["curves"].items()},
            typical_distance=plain["typical_distance"],
            num_samples=plain["num_samples"],
            shrinkage=plain["shrinkage"],
            flags=tuple(plain["flags"]),
        )


def measure_plateaus(
    responder: Responder,
    population: Population,
    *,
    conditions: Sequence[Condition] = (*BASES_CONDITIONS, *DIRECTION_CONDITIONS),
    num_directions: int = 12,
    sizes: Sequence[float] = ANGLES,
    mode: Mode = "sphere",
    readouts: tuple[Readout, ...] = ("kl", "l2"),
    given: Tensor | None = None,
    seed: int = 0,
    flags: Sequence[str] = (),
) -> PlateausMeasurement:
    """Does the network ignore small moves of real activations, and which directions does it notice first?

    Args:
        responder: The network; each row of its `base`, (rows, d), is a real base with its own context.
        population: Real activations at the same site, of other prompts.
        conditions: Kinds of base and direction. A random base takes the place of the real one in its context.
        num_directions: From each base.
        sizes: Angles in degrees, or distances, up to the one that half responses refer to.
        mode: `sphere` keeps the norm of the base; `straight` does not.
        readouts: `kl` needs logits.
        given: The user's own directions, (m, d), for conditions with direction `given`; the same for every base.
        seed: Names all draws. A kind of base or direction has the same draws in every condition.
        flags: Notes on how the responder computes, to be kept with the numbers.

    Cost: `rows * num_directions * (len(sizes) + 1)` evaluations for each condition.

    Raises:
        BadInput: If a kind is unknown, or as the parts do.
    """
    real = responder.base.detach().cpu().double()
    found = {}
    for condition in conditions:
        bases = base_activations(condition.base, real, population, generator(seed, "base", condition.base))
        if condition.direction == USER:
            if given is None:
                raise BadInput("directions of your own", got="none", wanted="given=tensor of shape (m, d)")
            chosen = unit(given.cpu()).expand(len(bases), -1, -1)
        else:
            # Mixtures share the targets of the kind that they are a mixture of.
            stream = generator(seed, "direction", condition.direction.removesuffix(" mixture"))
            chosen = directions(condition.direction, bases, num_directions, population, stream)
        count = chosen.shape[1]
        paths = paths_of(mode, bases.repeat_interleave(count, dim=0), chosen.flatten(0, 1))
        groups = torch.arange(len(bases))
        found[condition] = measure_curves(
            responder, paths, sizes, bases=groups.repeat_interleave(count), rows=groups, readouts=readouts
        )
    return PlateausMeasurement(
        curves=found,
        typical_distance=population.typical_distance(),
        num_samples=len(population.activations),
        shrinkage=population.shrinkage,
        flags=tuple(flags),
    )

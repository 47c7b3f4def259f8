"""Score against alpha: the calibrated curve of an edit for each class of inputs, and the gap between classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, final

import numpy
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from tremorscope.foundations.cluster_bootstrap import crossed_mean
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.figures import PALETTE, Axis, Figure, band, line
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import numpy_generator
from tremorscope.instruments.edit import PlacedEdit
from tremorscope.instruments.network import Network
from tremorscope.methods.activations.concept_editing.calibration import miscalibration, trapezoid
from tremorscope.methods.activations.concept_editing.examples import Examples, check_examples
from tremorscope.methods.activations.concept_editing.scorers import Scorer, checked

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
NUM_RESAMPLES = 2000


@final
@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of the examples of one class: a row for each alpha, and those of the unedited network.

    Examples of one cluster (a wording) or unit (what is spoken of) are not independent; by default all are.
    """

    edited: Float[numpy.ndarray, "alphas examples"]
    unedited: Float[numpy.ndarray, " examples"]
    clusters: tuple[Hashable, ...]
    units: tuple[Hashable, ...]

    def __post_init__(self) -> None:
        sizes = {self.edited.shape[1], len(self.unedited), len(self.clusters), len(self.units)}
        if len(sizes) != 1 or 0 in sizes:
            raise BadInput("scores of a class", got=f"lengths {sorted(sizes)}", wanted="one length, above 0")


@final
@dataclass(frozen=True, kw_only=True)
class ResponseMeasurement:
    """What an edit does at each alpha, class by class. `is_share`: scores are truth values, their means shares."""

    name: str
    score_name: str
    alphas: tuple[float, ...]
    classes: Mapping[str, ClassScores]
    is_share: bool
    seed: int = 0

    def unedited(self, name: str) -> Estimate:
        """Mean score of a class without the edit."""
        return self._mean(self.classes[name], self.classes[name].unedited)

    def level(self, name: str, alpha: float) -> Estimate:
        """Mean score of a class at one of the alphas, with the interval of `crossed_mean`.

        Raises:
            BadInput: If it is none of them.
        """
        return self._mean(self.classes[name], self.classes[name].edited[self._place(alpha)])

    def gap(self, alpha: float) -> Estimate:
        """G(alpha), the distance between the largest and the smallest mean of a class: 0 where the edit is precise.

        Raises:
            BadInput: If there is a single class, or alpha is none of those measured.
        """
        if len(self.classes) < 2:
            raise BadInput("gap between classes", got="one class", wanted="at least two")
        place = self._place(alpha)
        means = numpy.array([one[place].mean() for one in self._scores])
        drawn = numpy.stack([one[:, place] for one in self._resampled.values()])
        return self._estimate(float(numpy.ptp(means)), numpy.ptp(drawn, axis=0))

    def mean_gap(self) -> Estimate:
        """Mean of the gap over alpha from 0 to 1, by the trapezoidal rule.

        Raises:
            BadInput: If there is a single class, or no alpha from 0 to 1.
        """
        if len(self.classes) < 2:
            raise BadInput("gap between classes", got="one class", wanted="at least two")
        drawn = numpy.stack(list(self._resampled.values()))
        return self._estimate(self.mean_gap_value(), numpy.ptp(drawn, axis=0) @ trapezoid(self.alphas))

    def mean_gap_value(self) -> float:
        """Its value alone, without resampling."""
        means = numpy.stack([one.mean(1) for one in self._scores])
        return float(numpy.ptp(means, axis=0) @ trapezoid(self.alphas))

    def calibration_value(self) -> float:
        """Value of the calibration error of all classes alone, without resampling."""
        return float(miscalibration(self.alphas, numpy.stack([one.mean(1) for one in self._scores])))

    def largest_drop(self, name: str) -> Estimate:
        """By how much the curve of a class falls at most from one alpha to the next; 0 or less where it never does.

        The interval is that of the drop seen to be the largest: the largest of several noisy ones would be biased.
        """
        curve = self.classes[name].edited.mean(1)
        if len(curve) < 2:
            raise BadInput("alphas", got=len(curve), wanted="at least two")
        falls = curve[:-1] - curve[1:]
        place = int(falls.argmax())
        drawn = self._resampled[name]
        return self._estimate(float(falls[place]), drawn[:, place] - drawn[:, place + 1])

    def solve(self, target: float, name: str | None = None) -> Estimate:
        """The alpha at which the mean score of a class (or of all classes together) first meets a target.

        Linear between the alphas measured. An end of the interval is infinite where resampled curves miss the target.

        Raises:
            BadInput: If the curve does not meet it.
        """
        names = list(self.classes) if name is None else [name]
        curve = numpy.mean([self.classes[one].edited.mean(1) for one in names], axis=0)
        found = _crossing(self.alphas, curve, target)
        if found is None:
            raise BadInput(
                f"target score of {self.name}",
                got=target,
                wanted=f"between {curve.min():.4g} and {curve.max():.4g}, what was measured for alpha "
                f"{self.alphas[0]:g} to {self.alphas[-1]:g}",
                remedy="Measure more alphas, or edit at a site of more reach.",
            )
        resampled = numpy.mean([self._resampled[one] for one in names], axis=0)
        crossings = [_crossing(self.alphas, one, target) for one in resampled]
        drawn = numpy.array([math.inf if one is None else one for one in crossings])
        return self._estimate(found, drawn)

    def calibration_error(self, name: str | None = None, *, settings: Sequence[float] | None = None) -> Estimate:
        """How far measured shares are from requested ones, over alpha from 0 to 1: see `calibration.miscalibration`.

        Of all classes, or of one; `settings` for what has no levels between them.

        Raises:
            BadInput: If scores are no truth values, or as `miscalibration`.
        """
        value, drawn = self._miscalibration(name, settings)
        return self._estimate(value, drawn)

    def calibration_gain(self, over: ResponseMeasurement, *, settings: Sequence[float] | None = None) -> Estimate:
        """By how much the calibration error of another edit, measured on the same examples, is larger than this one's.

        Both are resampled together, so what the examples have in common cancels.

        Raises:
            BadInput: If the examples are not the same, or as `calibration_error`.
        """
        grouped = [{name: (one.clusters, one.units) for name, one in each.classes.items()} for each in (self, over)]
        if grouped[0] != grouped[1] or self.seed != over.seed:
            raise BadInput(
                f"calibration of {self.name} and {over.name}",
                got="other classes, wordings or seeds",
                wanted="two edits measured on the same examples",
            )
        (mine, drawn), (other, resampled) = (each._miscalibration(None, settings) for each in (self, over))
        return self._estimate(other - mine, resampled - drawn)

    def tables(self) -> list[Table]:
        """A row for each alpha, with mean and gap; and one for the unedited network."""
        rows: list[dict[str, Any]] = [{"alpha": None} | {name: self.unedited(name) for name in self.classes}]
        for alpha in self.alphas:
            row: dict[str, Any] = {"alpha": alpha} | {name: self.level(name, alpha) for name in self.classes}
            rows.append(row | ({"gap": self.gap(alpha)} if len(self.classes) > 1 else {}))
        return [
            Table.of_rows(
                rows,
                name=f"response_{_slug(self.name)}",
                title=f"{self.score_name} under {self.name}",
                caption="Mean of each class; no alpha: the unedited network. Gap: largest less smallest mean.",
            )
        ]

    def figures(self) -> list[Figure]:
        """The curve of each class with its band, and the unedited level as a dotted line."""
        traces: list[dict[str, Any]] = []
        for place, name in enumerate(self.classes):
            colour = PALETTE[place % len(PALETTE)]
            levels = [self.level(name, alpha) for alpha in self.alphas]
            low, high = [one.low for one in levels], [one.high for one in levels]
            traces += [
                band(list(self.alphas), low, high, f"{name}, {LEVEL:.0%}", colour=colour),
                line(list(self.alphas), [one.value for one in levels], name, colour=colour, markers=True),
                line(
                    [self.alphas[0], self.alphas[-1]],
                    [self.unedited(name).value] * 2,
                    f"{name}, unedited",
                    colour=colour,
                    dash="dot",
                ),
            ]
        return [
            Figure(
                name=f"response_{_slug(self.name)}",
                title=f"{self.score_name} under {self.name}",
                caption="The nearer the curves, the less the outcome depends on what was asked; dotted: unedited.",
                traces=traces,
                x=Axis(title="alpha (0: typical negative, 1: typical positive)"),
                y=Axis(title=self.score_name, range=(-0.02, 1.02) if self.is_share else None),
            )
        ]

    def to_plain(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "name": self.name,
            "score_name": self.score_name,
            "alphas": list(self.alphas),
            "is_share": self.is_share,
            "seed": self.seed,
            "classes": {
                name: {
                    "edited": one.edited.tolist(),
                    "unedited": one.unedited.tolist(),
                    "clusters": list(one.clusters),
                    "units": list(one.units),
                }
                for name, one in self.classes.items()
            },
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> ResponseMeasurement:
        """The inverse of `to_plain`, also after JSON."""
        classes = {
            name: ClassScores(
                edited=numpy.array(one["edited"], dtype=numpy.float64),
                unedited=numpy.array(one["unedited"], dtype=numpy.float64),
                clusters=tuple(one["clusters"]),
                units=tuple(one["units"]),
            )
            for name, one in plain["classes"].items()
        }
        return cls(**{**plain, "alphas": tuple(plain["alphas"]), "classes": classes})

    @property
    def _scores(self) -> list[NDArray[numpy.float64]]:
        return [one.edited for one in self.classes.values()]

    @cached_property
    def _resampled(self) -> dict[str, NDArray[numpy.float64]]:
        """Means of every alpha under resampled clusters, the same ones for all alphas: [resamples, alphas]."""
        found = {}
        for name, one in self.classes.items():
            known: dict[Hashable, int] = {}
            owner = numpy.array([known.setdefault(cluster, len(known)) for cluster in one.clusters])
            sums = numpy.stack([numpy.bincount(owner, row, len(known)) for row in one.edited])
            sizes = numpy.bincount(owner, minlength=len(known))
            stream = numpy_generator(self.seed, "response", name)
            times = stream.multinomial(len(known), numpy.full(len(known), 1 / len(known)), size=NUM_RESAMPLES)
            found[name] = (times @ sums.T) / (times @ sizes)[:, None]
        return found

    def _miscalibration(
        self, name: str | None, settings: Sequence[float] | None
    ) -> tuple[float, NDArray[numpy.float64]]:
        if not self.is_share:
            raise BadInput("calibration error", got=f"the score {self.score_name!r}", wanted="a truth value")
        names = list(self.classes) if name is None else [name]
        seen = numpy.stack([self.classes[one].edited.mean(1) for one in names])
        drawn = numpy.stack([self._resampled[one] for one in names], axis=1)
        return (
            float(miscalibration(self.alphas, seen, settings=settings)),
            miscalibration(self.alphas, drawn, settings=settings),
        )

    def _estimate(self, value: float, drawn: NDArray[numpy.float64]) -> Estimate:
        # An observed value: some may be infinite, between which nothing can be interpolated.
        ends = numpy.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
        low, high = min(float(ends[0]), value), max(float(ends[1]), value)
        count = sum(len(set(one.clusters)) for one in self.classes.values())
        return Estimate(value=value, low=low, high=high, level=LEVEL, n=count, method="bootstrap over clusters")

    def _mean(self, one: ClassScores, values: NDArray[numpy.float64]) -> Estimate:
        kept = values.astype(bool) if self.is_share else values
        return crossed_mean(kept, one.clusters, one.units, seed=self.seed, num_resamples=500)

    def _place(self, alpha: float) -> int:
        for place, one in enumerate(self.alphas):
            if math.isclose(one, alpha, abs_tol=1e-12):
                return place
        raise BadInput("alpha", got=alpha, wanted=f"one of {', '.join(f'{one:g}' for one in self.alphas)}")


def measure_response(
    network: Network,
    edits: Callable[[float], Sequence[PlacedEdit]],
    classes: Mapping[str, Examples],
    scorer: Scorer,
    *,
    name: str = "ACE",
    score_name: str = "score",
    alphas: Sequence[float] = ALPHAS,
    clusters: Mapping[str, Sequence[Hashable]] | None = None,
    units: Mapping[str, Sequence[Hashable]] | None = None,
    unedited: Mapping[str, Shaped[Tensor, " _"]] | None = None,
    seed: int = 0,
) -> ResponseMeasurement:
    """Score every class at every alpha.

    Args:
        network: Any network.
        edits: The placed edits of an alpha.
        classes: Inputs by class, best held out from the fit.
        scorer: A number or truth value for each example; see `scorers`.
        name: What is done, for titles.
        score_name: What is measured, for axes.
        alphas: Levels, rising.
        clusters: For each class what its examples share (wordings); each by itself otherwise.
        units: Likewise a second grouping (what is spoken of).
        unedited: Scores of the unedited network, where they are known.
        seed: Of the bootstrap.

    Cost: `1 + alphas` times what the scorer costs.

    Raises:
        BadInput: If there is no class or no alpha, alphas do not rise or are not finite, or a score is not finite.
    """
    levels = tuple(float(alpha) for alpha in alphas)
    if not levels or not all(map(math.isfinite, levels)) or any(there <= here for here, there in pairwise(levels)):
        raise BadInput("alphas", got=levels, wanted="finite numbers that rise")
    if not classes:
        raise BadInput("classes of inputs", got="none", wanted="at least one")
    for key, some in classes.items():
        check_examples(f"inputs of class {key!r}", some)
    views = [network.with_edits(*edits(alpha)) for alpha in levels]
    found, kinds = {}, set()
    for key, some in classes.items():
        before = checked(scorer, network, some) if unedited is None else unedited[key]
        scores = [before, *(checked(scorer, view, some) for view in views)]
        kinds |= {str(one.dtype) for one in scores}
        rows = numpy.stack([one.double().numpy() for one in scores])
        own = tuple(range(len(some)))
        found[key] = ClassScores(
            edited=rows[1:],
            unedited=rows[0],
            clusters=tuple((clusters or {}).get(key, own)),
            units=tuple((units or {}).get(key, own)),
        )
    return ResponseMeasurement(
        name=name,
        score_name=score_name,
        alphas=levels,
        classes=found,
        is_share=kinds == {"torch.bool"},
        seed=seed,
    )


def _crossing(alphas: Sequence[float], curve: NDArray[numpy.float64], target: float) -> float | None:
    """Where a polyline first meets a height."""
    above = curve - target
    for place, here in enumerate(above):
        if here == 0:
            return float(alphas[place])
        if place + 1 < len(above) and here * above[place + 1] < 0:
            share = here / (here - above[place + 1])
            return float(alphas[place] + share * (alphas[place + 1] - alphas[place]))
    return None


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower()).strip("_")

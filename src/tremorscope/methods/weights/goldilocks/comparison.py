"""Several curves over the same members, and what training made of them: readings, tables, figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy
import torch

from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, line, points
from tremorscope.foundations.results import Table
from tremorscope.methods.weights.goldilocks.figures import zone_figures
from tremorscope.methods.weights.goldilocks.foretold import ForetoldComparison, ForetoldCurve
from tremorscope.methods.weights.goldilocks.hyperplane_training import HyperplaneTraining, rank_correlation
from tremorscope.methods.weights.goldilocks.measurement import GoldilocksMeasurement, over_members
from tremorscope.methods.weights.goldilocks.readings import Reading, flat_peak, peak

RELU, TANH, TANH_HOT, RELU_HOT = "relu-weights", "tanh-weights", "tanh-temperature", "relu-temperature"
PERMUTED, PERMUTED_AGAIN, GAUSSIAN = "permuted-labels", "permuted-labels-again", "gaussian-inputs"
SPHERE, CNN = "relu-sphere", "convolutional-relu"
TITLES = {
    RELU: "ReLU",
    TANH: "tanh",
    RELU_HOT: "ReLU",
    TANH_HOT: "tanh",
    PERMUTED: "ReLU, permuted labels",
    PERMUTED_AGAIN: "ReLU, labels permuted again",
    GAUSSIAN: "ReLU, Gaussian inputs of equal covariance, random labels",
    SPHERE: "ReLU on hyperspheres",
    CNN: "convolutional ReLU",
}
INSIDE_HALF = 0.5  # "inside the zone": kappa above half its peak


@final
@dataclass(frozen=True, kw_only=True)
class ZoneComparison:
    """Curves by name, one measurement a member, in the order of the members; the other parts may be empty.

    `hyperplanes` pairs runs as they are with runs at equal initial loss; `architectures` are a member's cells;
    `selections` are repetitions of a choice among initialisations; `foretold` are the ReLU network's kappas as its
    whole Hessian foretells them.
    """

    curves: Mapping[str, Sequence[GoldilocksMeasurement]]
    hyperplanes: Sequence[tuple[HyperplaneTraining, HyperplaneTraining]] = ()
    architectures: Sequence[Sequence[Mapping[str, Any]]] = ()
    selections: Sequence[Mapping[str, Any]] = field(default=())
    foretold: Sequence[ForetoldCurve] = ()

    @property
    def whole_hessian(self) -> ForetoldComparison | None:
        """Random subspaces of the ReLU network beside what its whole Hessian foretells; None where that was not run."""
        return ForetoldComparison(measured=self.curves[RELU], foretold=self.foretold) if self.foretold else None

    def mean(self, name: str, read: Reading, *, level: float = LEVEL) -> Estimate:
        """A reading of each member's curve, averaged over the members in which it is defined."""
        return _mean([read(member) for member in self.curves[name]], level=level)

    def difference(self, name: str, other: str, read: Reading) -> Estimate:
        """A reading of one curve minus that of another, member by member: equal weights, equal subspaces."""
        pairs = zip(self.curves[name], self.curves[other], strict=True)
        return _mean([read(one) - read(two) for one, two in pairs])

    def over(self, values: Sequence[float]) -> Estimate:
        """One value of each member, averaged over those in which it is defined."""
        return _mean(values)

    def hyperplane_correlation(self, kind: str) -> Estimate:
        """Rank correlation of accuracy along the radii, averaged over dimensions, over the members.

        `"kappa"`: with kappa of the hyperplane. `"loss"`: with the initial loss, negated. `"equal loss"`: accuracy at
        equal initial loss, with kappa as it was before the losses were made equal.
        """
        values = []
        for plain, equal in self.hyperplanes:
            outcome = equal.accuracy if kind == "equal loss" else plain.accuracy
            values.append(rank_correlation(outcome, -plain.loss if kind == "loss" else plain.kappa))
        return Estimate.mean(values)

    def inside(self, scheme: str | None = None, *, by_chance: bool = False) -> Estimate:
        """Share of architectures whose draw (of one scheme, or of any) lies in the zone.

        By chance: had its scale been drawn log-uniformly.
        """

        def share(cells: Sequence[Mapping[str, Any]]) -> float:
            chosen = [cell for cell in cells if scheme in (None, cell["scheme"])]
            inside = [cell["shell"] if by_chance else cell["share of peak"] > INSIDE_HALF for cell in chosen]
            return float(numpy.mean(inside))

        return Estimate.mean([share(cells) for cells in self.architectures])

    def gain(self, score: str, scales: str, *, level: float = LEVEL) -> Estimate:
        """`log2` of steps after a choice by score over steps after random picks; `score="random"` is the null."""
        checks = [check for check in self.selections if check["scales"] == scales]
        values = [check["null"] if score == "random" else check["gain"][score] for check in checks]
        return Estimate.mean(values, level=level)

    def summary(self) -> list[str]:
        """What was found, in a few sentences."""
        relu, tanh, hot = (over_members(self.curves[name]) for name in (RELU, TANH, TANH_HOT))
        limit = math.sqrt(relu.dimension)
        told = [
            f"ReLU: kappa peaks at {_at(relu)} (at most {limit:.3g}; curvatures with random signs have mean 0, "
            f"standard deviation 1). Tanh: {_at(tanh)} when weights are scaled, {_at(hot)} when the temperature is."
        ]
        if PERMUTED in self.curves:
            told.append(
                "The zone does not need the task: with permuted labels kappa peaks at "
                f"{_at(over_members(self.curves[PERMUTED]))}, on Gaussian inputs with random labels at "
                f"{_at(over_members(self.curves[GAUSSIAN]))}."
            )
        if SPHERE in self.curves:
            told.append(
                f"On hyperspheres, their own bending counted, kappa at its best is {self.mean(SPHERE, peak)} at scales "
                f"between 1/2 and 10; without it {self.mean(SPHERE, flat_peak)}."
            )
        return told

    def flags(self) -> list[str]:
        """Each flag once, with how many curves it holds for."""
        counts: dict[str, int] = {}
        members = [member for curve in self.curves.values() for member in curve]
        for member in members:
            for flag in member.flags:
                counts[flag] = counts.get(flag, 0) + 1
        told = [f"{flag} ({count} of {len(members)} curves)" for flag, count in counts.items()]
        censored = sum(int(check["num_censored"]) for check in self.selections)
        if censored:
            told.append(f"{censored} runs of the selection did not reach the loss and count with all their steps")
        return told

    def tables(self) -> list[Table]:
        """One row for each curve, each curve in full, and the parts that were run."""
        pooled = {name: over_members(members) for name, members in self.curves.items()}
        rows = []
        for name, measured in pooled.items():
            zone = measured.zone
            rows.append(
                {
                    "network and data": TITLES[name],
                    "scaled": measured.scaling,
                    "peak of kappa": None if zone is None else measured.estimate("kappa", _nearest(measured)),
                    "at scale": None if zone is None else _nearest(measured),
                    "random signs there": None
                    if zone is None
                    else measured.estimate("signs_kappa", _nearest(measured)),
                    "share of positive curvature there": None
                    if zone is None
                    else measured.estimate("positive_share", _nearest(measured)),
                    "above half the peak from": None if zone is None else zone.low,
                    "to": None if zone is None else zone.high,
                }
            )
        tables = [
            Table.of_rows(
                rows,
                name="zones",
                title="Where kappa peaks",
                caption="Peak of the members' mean curve, with 99 % intervals over members at that scale.",
            ),
            *(table for measured in pooled.values() for table in measured.tables()),
        ]
        if self.architectures:
            tables.append(self._architecture_table())
        if self.selections:
            tables.append(self._selection_table())
        if self.whole_hessian is not None:
            tables += self.whole_hessian.tables()
        return tables

    def figures(self) -> list[Figure]:
        """Curves by knob, and the parts that were run."""
        pooled = {name: over_members(members) for name, members in self.curves.items() if name != PERMUTED_AGAIN}
        figures: list[Figure] = []
        for knob in ("weights", "temperature"):
            chosen = {TITLES[name]: curve for name, curve in pooled.items() if curve.scaling == knob}
            if chosen:
                figures += zone_figures(chosen, "weights" if knob == "weights" else "temperature")
        if self.hyperplanes:
            figures.append(self._hyperplane_figure())
        if self.selections:
            figures.append(self._selection_figure())
        if self.whole_hessian is not None:
            figures += self.whole_hessian.figures()
        return figures

    def _architecture_table(self) -> Table:
        keys = [(cell["width"], cell["depth"], cell["scheme"]) for cell in self.architectures[0]]
        rows = []
        for place, (width, depth, scheme) in enumerate(keys):
            cells = [member[place] for member in self.architectures]
            rows.append(
                {
                    "width": width,
                    "hidden layers": depth,
                    "draw": scheme,
                    "kappa over its peak": Estimate.mean([cell["share of peak"] for cell in cells]),
                    "peak of kappa": Estimate.mean([cell["peak"] for cell in cells]),
                    "shell's share of the scales": Estimate.mean([cell["shell"] for cell in cells]),
                }
            )
        return Table.of_rows(
            rows,
            name="architectures",
            title="Where He's and Xavier's draws lie",
            caption="ReLU perceptrons, one draw of weights and subspace for each member; inside means above 0.5.",
        )

    def _selection_table(self) -> Table:
        rows = [
            {
                "candidates": _CANDIDATES[kind],
                "chosen by": score.replace("_", " "),
                "log2 of steps over random picks": self.gain(score, kind),
            }
            for kind in _CANDIDATES
            for score in ("kappa", "positive_share", "loss", "random")
        ]
        return Table.of_rows(
            rows,
            name="selection",
            title="Steps to a loss of 1 nat after choosing among initialisations",
            caption="Below 0 is faster than random candidates of the same draw; -1 is twice as fast. 99 % intervals "
            "over repetitions.",
        )

    def _hyperplane_figure(self) -> Figure:
        first = self.hyperplanes[0][0]
        traces = []
        for row, dimension in enumerate(first.dimensions):
            for equal in (False, True):
                runs = torch.stack([pair[equal].accuracy[row] for pair in self.hyperplanes]).mean(0).tolist()
                colour = NULL_COLOUR if equal else PALETTE[row % len(PALETTE)]
                name = f"{dimension} dimensions" + (", equal initial loss" if equal else "")
                traces.append(
                    line(list(first.scales), runs, name, colour=colour, dash="dot" if equal else None, markers=True)
                )
        kappa = torch.stack([plain.kappa[-1] for plain, _ in self.hyperplanes]).mean(0)
        share = (kappa / math.sqrt(first.dimensions[-1])).tolist()
        traces.append(line(list(first.scales), share, "kappa over its limit", colour="#000000", dash="dash"))
        return Figure(
            name="hyperplane_training",
            title="Training inside random hyperplanes through scaled initialisations",
            caption="Accuracy after training (coloured), and the same subspaces and radii at equal initial loss (grey)."
            f" Dashed black: kappa of the hyperplane in {first.dimensions[-1]} dimensions before training, over its "
            "largest possible value. Means over members.",
            traces=traces,
            x=Axis(title="factor on the weights (1 is the initialisation)", log=True),
            y=Axis(title="accuracy after training, share of examples"),
        )

    def _selection_figure(self) -> Figure:
        traces = []
        for place, kind in enumerate(_CANDIDATES):
            scores = ("kappa", "positive_share", "loss", "random")
            found = [self.gain(score, kind) for score in scores]
            error = {
                "type": "data",
                "symmetric": False,
                "array": [float(f"{e.high - e.value:.4g}") for e in found],
                "arrayminus": [float(f"{e.value - e.low:.4g}") for e in found],
            }
            names = [score.replace("_", " ") for score in scores]
            trace = points(
                [0, 1, 2, 3], [e.value for e in found], _CANDIDATES[kind], colour=PALETTE[place], size=9, error_y=error
            )
            traces.append(trace | {"x": names, "offsetgroup": kind})
        return Figure(
            name="selection",
            title="Steps to a loss of 1 nat, by how the initialisation was chosen",
            caption="Relative to random initialisations of the same "
            "draw: -1 is twice as fast. 99 % intervals over repetitions; random is the null.",
            traces=traces,
            x=Axis(title="chosen by"),
            y=Axis(title="log2 of steps over random picks"),
            layout={"scattermode": "group"},
        )


_CANDIDATES = {"one": "draws of one scale", "mixed": "draws of scales from 1/2 to 4"}


def _mean(values: Sequence[float], *, level: float = LEVEL) -> Estimate:
    """Mean of what is defined; where nothing is, an estimate that says nothing, so that no verdict rests on it."""
    defined = [value for value in values if math.isfinite(value)]
    if defined:
        return Estimate.mean(defined, level=level)
    return Estimate(value=0.0, low=-math.inf, high=math.inf, level=level, n=0, method="undefined in every member")


def _nearest(measured: GoldilocksMeasurement) -> float:
    """The measured scale of the peak; the zone has it through a logarithm and back."""
    zone = measured.zone
    return (
        measured.scales[0] if zone is None else min(measured.scales, key=lambda s: abs(math.log(s / zone.peak_scale)))
    )


def _at(measured: GoldilocksMeasurement) -> str:
    scale = _nearest(measured)
    return f"{measured.estimate('kappa', scale)} at scale {scale:g}"

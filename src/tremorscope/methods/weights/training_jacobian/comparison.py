"""Training Jacobians of several seeds and nulls, compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import final

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.figures import Figure
from tremorscope.foundations.results import Table
from tremorscope.foundations.statistics import holm, t_test_p
from tremorscope.methods.weights.training_jacobian.figures import (
    alignment_figure,
    distance_figure,
    divergence_figure,
    drift_figure,
    overlap_figure,
    spectrum_figure,
)
from tremorscope.methods.weights.training_jacobian.measurement import TrainingJacobianMeasurement
from tremorscope.methods.weights.training_jacobian.regions import TOLERANCES, span_overlap
from tremorscope.methods.weights.training_jacobian.symmetry import without

REAL, SHUFFLED, MATCHED, NOISE = "real", "shuffled", "matched", "noise"
GROUP_NAMES = {
    REAL: "real labels",
    SHUFFLED: "shuffled labels",
    MATCHED: "matched Gaussian inputs",
    NOISE: "white-noise inputs",
}
INPUT_SPAN = "the inputs alone, no network"


@final
@dataclass(frozen=True)
class JacobianComparison:
    """Members of each group, in the order of their seeds; member `i` has one initialisation in all groups.

    The group `"real"` must be there. Every statistic over pairs takes two different members, so that no
    overlap comes from a shared initialisation; its interval is a delete-one-member jackknife.
    """

    groups: Mapping[str, Sequence[TrainingJacobianMeasurement]]

    def __post_init__(self) -> None:
        counts = {name: len(members) for name, members in self.groups.items()}
        if REAL not in counts or len(set(counts.values())) != 1 or 0 in counts.values():
            raise BadInput("groups of training Jacobians", got=counts, wanted="'real' and nulls of as many members")

    @property
    def num_members(self) -> int:
        """Members of each group."""
        return len(self.groups[REAL])

    def mean(
        self, group: str, read: Callable[[TrainingJacobianMeasurement], float], *, level: float = LEVEL
    ) -> Estimate:
        """Mean of one number over the members of a group, with its t interval."""
        return Estimate.mean([read(member) for member in self.groups[group]], level=level)

    def overlap(self, one: str, other: str, *, level: float = LEVEL) -> Estimate:
        """Mean overlap of the central directions between different members of two groups."""
        pairs = self._overlaps(one, other)
        return self._over_pairs(lambda i, j: pairs[i, j], level=level)

    def input_overlap(self, group: str, *, level: float = LEVEL) -> Estimate:
        """Mean overlap of a group's central directions with the span that no network has made."""
        values = self._input_overlaps(group)
        return Estimate.mean(values, level=level)

    def excess(self, group: str, *, level: float = LEVEL) -> Estimate:
        """Overlap between members of a group beyond the larger of its two nulls.

        The nulls: the overlap with other members trained on matched Gaussian inputs and random labels, and
        with the span that no network has made. Which is larger is decided anew in every jackknife sample.

        Raises:
            BadInput: If there is no matched group, or no null without a network.
        """
        own, matched = self._overlaps(group, group), self._overlaps(group, MATCHED)
        without = self._input_overlaps(group)

        def statistic(members: Sequence[int]) -> float:
            pairs = list(permutations(members, 2))
            real = sum(own[pair] for pair in pairs) / len(pairs)
            gaussian = sum(matched[pair] for pair in pairs) / len(pairs)
            return real - max(gaussian, sum(without[i] for i in members) / len(members))

        return Estimate.jackknife(statistic, self.num_members, level=level)

    def overlap_with_dead(self, *, level: float = LEVEL) -> Estimate:
        """The overlap between seeds if the dead weights were left in: they enter every bulk first."""
        members = self.groups[REAL]

        def pair(i: int, j: int) -> float:
            k = members[i].central.shape[1]
            rest = max(0, k - members[i].num_dead)
            if rest == 0:
                return 1.0
            shared = span_overlap(members[i].central[:, :rest], members[j].central[:, :rest])
            return (members[i].num_dead + rest * shared) / k

        return self._over_pairs(pair, level=level)

    def overlap_without_symmetry(self, other: str, *, level: float = LEVEL) -> Estimate:
        """The overlap with another group when the directions that no softmax can see are projected out first."""
        kept = {
            group: [without(member.central, member.symmetry) for member in self.groups[group]]
            for group in (REAL, other)
        }
        return self._over_pairs(lambda i, j: span_overlap(kept[REAL][i], kept[other][j]), level=level)

    def chance(self, group: str = REAL) -> float:
        """Overlap of random subspaces of the live directions."""
        member = self.groups[group][0]
        return member.central.shape[1] / member.num_live

    def tables(self, *, family_level: float = LEVEL) -> list[Table]:
        """Regions with intervals, overlaps against chance, and how well each group trained."""
        return [self._region_table(), self._overlap_table(family_level), self._score_table()]

    def figures(self) -> list[Figure]:
        """Spectra and alignment by group, unit steps and drift of the first real member, overlaps."""
        named = {GROUP_NAMES.get(name, name): members for name, members in self.groups.items()}
        first = self.groups[REAL][0]
        return [
            spectrum_figure({GROUP_NAMES[REAL]: self.groups[REAL]}),
            distance_figure({name: members[:1] for name, members in named.items()}),
            alignment_figure({name: members[:1] for name, members in named.items()}),
            *([divergence_figure(first)] if first.divergence else []),
            drift_figure(first),
            self._overlap_figure(),
        ]

    def _overlaps(self, one: str, other: str) -> dict[tuple[int, int], float]:
        if other not in self.groups:
            raise BadInput("group of training Jacobians", got=other, wanted=", ".join(self.groups))
        return {
            (i, j): span_overlap(self.groups[one][i].central, self.groups[other][j].central)
            for i, j in permutations(range(self.num_members), 2)
        }

    def _input_overlaps(self, group: str) -> list[float]:
        nulls = [member.input_null for member in self.groups[REAL]]
        if any(null is None for null in nulls):
            raise BadInput("overlap without a network", got="no null", wanted="a first linear layer")
        return [
            span_overlap(member.central, null.basis)
            for member, null in zip(self.groups[group], nulls, strict=True)
            if null is not None
        ]

    def _over_pairs(self, value: Callable[[int, int], float], *, level: float) -> Estimate:
        known = {pair: value(*pair) for pair in permutations(range(self.num_members), 2)}

        def statistic(members: Sequence[int]) -> float:
            pairs = list(permutations(members, 2))
            return sum(known[pair] for pair in pairs) / len(pairs)

        return Estimate.jackknife(statistic, self.num_members, level=level)

    def _shown_overlaps(self, level: float) -> dict[str, Estimate]:
        shown = {"another seed": self.overlap(REAL, REAL, level=level)}
        for name in (SHUFFLED, MATCHED, NOISE):
            if name in self.groups:
                shown[f"another seed, {GROUP_NAMES[name]}"] = self.overlap(REAL, name, level=level)
        if self.groups[REAL][0].input_null is not None:
            shown[INPUT_SPAN] = self.input_overlap(REAL, level=level)
        return shown

    def _overlap_figure(self) -> Figure:
        shown = self._shown_overlaps(LEVEL) | {"random subspace (chance)": Estimate.exact(self.chance())}
        return overlap_figure(shown, is_null={name: name != "another seed" for name in shown})

    def _overlap_table(self, family_level: float) -> Table:
        shown = self._shown_overlaps(family_level)
        chance = self.chance()
        tested = {name: e for name, e in shown.items() if not e.is_point}
        p_values = [t_test_p(e.value, e.low, e.high, e.level, e.n, against=chance) for e in tested.values()]
        adjusted = dict(zip(tested, holm(p_values), strict=True))
        rows = [
            {"real bulk against": name, "overlap": e, "chance": chance, "p against chance (Holm)": adjusted.get(name)}
            for name, e in shown.items()
        ]
        rows.append({"real bulk against": "another seed, dead weights left in", "overlap": self.overlap_with_dead()})
        first = self.groups[REAL][0]
        if first.symmetry.shape[1]:
            left = first.central.shape[1] - first.symmetry.shape[1]
            chance = left / (first.num_live - first.symmetry.shape[1])
            rows += [
                {
                    "real bulk against": f"{name}, softmax symmetry removed",
                    "overlap": self.overlap_without_symmetry(group),
                    "chance": chance,
                }
                for group, name in ((REAL, "another seed"), (NOISE, GROUP_NAMES[NOISE]))
                if group in self.groups
            ]
        return Table.of_rows(
            rows,
            name="overlaps",
            title="Overlap of central directions",
            caption=f"Mean squared cosine between the {self.groups[REAL][0].central.shape[1]} most central live "
            "directions of runs with different initialisations. The last rows show what two trivial causes do to it: "
            "weights that no gradient reaches, and shifts of all logits together, which no softmax can see and which "
            "lie at the centre of every bulk.",
        )

    def _region_table(self) -> Table:
        rows = []
        for name, members in self.groups.items():
            for place, tolerance in enumerate(TOLERANCES):
                sizes = [member.regions[place] for member in members]
                rows.append(
                    {
                        "group": GROUP_NAMES.get(name, name),
                        "tolerance": tolerance,
                        "live directions": members[0].num_live,
                        "chaotic": Estimate.mean([size.chaotic for size in sizes]),
                        "bulk": Estimate.mean([size.bulk for size in sizes]),
                        "stable": Estimate.mean([size.stable for size in sizes]),
                        "span alignment of the bulk": _mean_or_none([m.span_alignment[place] for m in members]),
                    }
                )
        return Table.of_rows(
            rows,
            name="regions",
            title="Regions of the training Jacobian",
            caption="Number of live directions that training stretches (above 1 + tolerance), carries over (within the "
            "tolerance of 1) and forgets (below 1 - tolerance), mean over members with its interval.",
        )

    def _score_table(self) -> Table:
        rows = [
            {"group": GROUP_NAMES.get(name, name)}
            | {score: Estimate.mean([m.scores[score] for m in members]) for score in members[0].scores}
            for name, members in self.groups.items()
        ]
        return Table.of_rows(
            rows,
            name="scores",
            title="How well each group trained",
            caption="Loss in nats and accuracy of the trained networks on their own data, mean over members.",
        )


def _mean_or_none(values: Sequence[float]) -> Estimate | None:
    kept = [value for value in values if not math.isnan(value)]
    return Estimate.mean(kept) if kept else None

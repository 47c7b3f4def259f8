"""The rows of the Goldilocks study: what each says, from when it holds, and the null that could meet it as well."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.methods.weights.goldilocks import GoldilocksMeasurement
from tremorscope.methods.weights.goldilocks.comparison import (
    CNN,
    GAUSSIAN,
    PERMUTED,
    PERMUTED_AGAIN,
    RELU,
    SPHERE,
    TANH,
    TANH_HOT,
    ZoneComparison,
)
from tremorscope.methods.weights.goldilocks.readings import (
    INSIDE,
    OUTSIDE,
    Reading,
    far_share,
    flat_peak,
    largest,
    over,
    peak,
    peak_scale,
    ratio_at,
    ratio_at_peak,
    share_at_peak,
    shell,
)

PAPER = "Fort and Scherlis 2018, arXiv:1807.02581"
SPLIT = "Vysogorets, Dawid and Kempe 2024, arXiv:2402.03579"
_QUICK_ROWS = ("G3a", "G3b", "G3c", "G3d", "G3e", "G4a", "G4b", "G5a", "G5b", "G7a", "G7b")
_MORE_ROWS = (
    "G9",
    "G10a",
    "G10b",
    "G11a",
    "G11b",
    "G11c",
    "G11d",
    "G11e",
    "G11f",
    "G12",
    "G13",
    "G14",
    "G15",
    "G16",
    "G17a",
    "G17b",
)
ROWS = (*_QUICK_ROWS, *_MORE_ROWS, "V1", "V2", "V3", "V4")
_FAMILY_LEVEL = 1 - (1 - LEVEL) / 6  # G11 is a family of six
_SEEDS = "calibration seeds 0 and 1"
_ROOM = "half the standard deviation of kappa for curvatures with random signs, what four draws leave of it"
_SPEC = f"set before measuring, from one trial of two draws; kept after {_SEEDS}"


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A reading of one curve. Without `elsewhere` the nulls are the same reading of chance's two curves.

    Rows that say "near chance here" would be met by chance itself; their null is the same quantity where it should
    not be small.
    """

    statement: str
    expected: Expected
    curve: str
    read: Reading
    elsewhere: tuple[str, str, str, Reading] | None = None
    source: str = PAPER


_IN_SHELL = "inside the shell"
_ROWS = {
    "G3a": _Row(
        statement="ReLU: kappa reaches 3.5 of at most 6.3 along the scales of the weights.",
        expected=Expected(low=3.5, origin=f"{_SPEC}: 4.31 and 4.23"),
        curve=RELU,
        read=lambda m: largest(m, 0, math.inf),
    ),
    "G3b": _Row(
        statement="ReLU: kappa peaks at 1 to 5 times the Xavier draw (log10 of that scale).",
        expected=Expected(low=0.0, high=math.log10(5), origin=_SPEC),
        curve=RELU,
        read=peak_scale,
    ),
    "G3c": _Row(
        statement="ReLU: the shell is hollow, kappa stays below 1.8 at scales up to 0.2.",
        expected=Expected(high=1.8, origin=_SPEC),
        curve=RELU,
        read=lambda m: largest(m, 0, INSIDE["weights"]),
        elsewhere=(_IN_SHELL, "the largest kappa between scales 1/2 and 10", RELU, peak),
    ),
    "G3d": _Row(
        statement="ReLU: the size of kappa stays below 1 at scales from 20.",
        expected=Expected(
            high=1.0, origin=f"set before measuring, from one trial; {_SEEDS}: 0.86 and 0.60, up to 1.5 within error"
        ),
        curve=RELU,
        read=lambda m: float(over(m, OUTSIDE["weights"], math.inf).abs().max()),
        elsewhere=(_IN_SHELL, "the largest kappa between scales 1/2 and 10", RELU, peak),
    ),
    "G3e": _Row(
        statement="ReLU: the size of kappa stays below 1 at scales from 50.",
        expected=Expected(
            high=1.0,
            origin=f"G3d moved outwards: was from 20, where the zone still fades; now from 50; {_SEEDS}: 0.03 and 0.17",
        ),
        curve=RELU,
        read=lambda m: float(over(m, 50, math.inf).abs().max()),
        elsewhere=(_IN_SHELL, "the largest kappa between scales 1/2 and 10", RELU, peak),
    ),
    "G4a": _Row(
        statement="ReLU: at least three quarters of the curvature is positive where kappa peaks.",
        expected=Expected(low=0.75, origin=_SPEC),
        curve=RELU,
        read=share_at_peak,
    ),
    "G4b": _Row(
        statement="ReLU: the share of positive curvature is within 0.1 of 1/2 at scales from 20.",
        expected=Expected(high=0.1, origin=_SPEC),
        curve=RELU,
        read=far_share,
        elsewhere=(
            _IN_SHELL,
            "distance from 1/2 where kappa peaks",
            RELU,
            lambda m: abs(share_at_peak(m) - 0.5),
        ),
    ),
    "G5a": _Row(
        statement="Tanh, weights scaled: kappa stays below 2 at scales from 0.2 to 20.",
        expected=Expected(
            high=2.0, origin=f"set before measuring, from one trial of two draws; {_SEEDS}: 1.87 and 1.88"
        ),
        curve=TANH,
        read=lambda m: largest(m, 0.2, 20),
        elsewhere=("ReLU", "the same reading of ReLU, which has a zone", RELU, lambda m: largest(m, 0.2, 20)),
    ),
    "G5b": _Row(
        statement="Tanh, temperature: kappa is above 2 for every factor on the logits from 3 to 30.",
        expected=Expected(low=2.0, origin=_SPEC),
        curve=TANH_HOT,
        read=lambda m: float(over(m, 3, 30).min()),
    ),
    "G7a": _Row(
        statement="The Gauss-Newton part of the Hessian outweighs the rest where kappa peaks (log10 of the ratio).",
        expected=Expected(low=0.0, origin="the theory: the excess is that of the Gauss-Newton part"),
        curve=RELU,
        read=ratio_at_peak,
        elsewhere=("outside the shell, scale 20", "the same where kappa has fallen to 1", RELU, ratio_at(20.0)),
        source=SPLIT,
    ),
    "G7b": _Row(
        statement="The rest outweighs the Gauss-Newton part at scale 0.2 (log10 of the ratio).",
        expected=Expected(high=0.0, origin="the theory"),
        curve=RELU,
        read=ratio_at(INSIDE["weights"]),
        elsewhere=("where kappa peaks", "the same inside the shell", RELU, ratio_at_peak),
        source=SPLIT,
    ),
    "V1": _Row(
        statement="ReLU has a zone in the scale of its weights: the peak of kappa stands 1 or more above both sides "
        "(both versions of the abstract).",
        expected=Expected(low=1.0, origin="the standard deviation of kappa for curvatures with random signs"),
        curve=RELU,
        read=shell,
    ),
    "V2": _Row(
        statement="Tanh has one too (second version of the abstract).",
        expected=Expected(low=1.0, origin="as V1"),
        curve=TANH,
        read=shell,
    ),
    "V3": _Row(
        statement="Tanh has none (first version of the abstract): the peak stands less than 1 above the higher side.",
        expected=Expected(high=1.0, origin="as V1"),
        curve=TANH,
        read=shell,
        elsewhere=("ReLU", "the same reading of ReLU, which has a zone", RELU, shell),
    ),
    "V4": _Row(
        statement="Tanh has a zone in the temperature of the softmax.",
        expected=Expected(low=1.0, origin="as V1"),
        curve=TANH_HOT,
        read=shell,
        source=SPLIT,
    ),
    "G12": _Row(
        statement="A convolutional ReLU network has a zone in the scale of its weights (second version).",
        expected=Expected(low=1.0, origin="as V1"),
        curve=CNN,
        read=shell,
    ),
    "G13": _Row(
        statement="The zone is there on hyperspheres as well, their own bending counted: kappa reaches 3.5 at scales "
        "from 1/2 to 10.",
        expected=Expected(low=3.5, origin="as G3a"),
        curve=SPHERE,
        read=peak,
    ),
    "G14": _Row(
        statement="On hyperspheres without their own bending kappa reaches 3.5.",
        expected=Expected(low=3.5, origin="as G3a"),
        curve=SPHERE,
        read=flat_peak,
    ),
}


def zone_claims(comparison: ZoneComparison, scope: str, preset: str) -> list[Claim]:
    """The rows whose parts were run, in their order."""

    def claim(
        row: str, statement: str, expected: Expected, measured: Estimate, nulls: list[NullEvidence], source: str = PAPER
    ) -> Claim:
        return Claim(
            study="goldilocks",
            row=row,
            preset=preset,
            statement=statement,
            source=source,
            scope=scope,
            expected=expected,
            measured=measured,
            nulls=tuple(nulls),
        )

    found = [
        claim(
            name, row.statement, row.expected, comparison.mean(row.curve, row.read), _nulls(comparison, row), row.source
        )
        for name, row in _ROWS.items()
        if row.curve in comparison.curves
    ]
    found += [claim(*parts) for parts in _from_data(comparison)]
    found += [claim(*parts) for parts in _from_training(comparison)]
    found += [claim(*parts) for parts in _from_the_whole(comparison)]
    return sorted(found, key=lambda one: ROWS.index(one.row))


_Parts = tuple[str, str, Expected, Estimate, list[NullEvidence]]


def _nulls(comparison: ZoneComparison, row: _Row) -> list[NullEvidence]:
    if row.elsewhere is not None:
        name, description, curve, read = row.elsewhere
        return [NullEvidence(name=name, description=description, measured=comparison.mean(curve, read))]

    def by_chance(kind: str) -> Callable[[GoldilocksMeasurement], float]:
        return lambda measured: row.read(measured.chance("signs" if kind == "signs" else "symmetric"))

    return [
        NullEvidence(
            name="random signs",
            description="the same curvatures with signs by the toss of a coin, read in the same way",
            measured=comparison.mean(row.curve, by_chance("signs")),
        ),
        NullEvidence(
            name="random symmetric matrix",
            description="a Gaussian random symmetric matrix of the same size at every scale",
            measured=comparison.mean(row.curve, by_chance("symmetric")),
        ),
    ]


def _from_data(comparison: ZoneComparison) -> list[_Parts]:
    if PERMUTED not in comparison.curves:
        return []
    between = NullEvidence(
        name="one permutation against another",
        description="the same difference between two permutations of the labels",
        measured=comparison.difference(PERMUTED, PERMUTED_AGAIN, peak),
    )
    more = Expected(low=0.0, origin="by definition: more than the null")
    return [
        (
            "G15",
            "The zone tells of the labels: kappa peaks higher than with permuted ones (difference of the peaks).",
            more,
            comparison.difference(RELU, PERMUTED, peak),
            [between],
        ),
        (
            "G16",
            "The zone tells of the data: kappa peaks higher than on Gaussian inputs of equal covariance with random "
            "labels (difference of the peaks).",
            more,
            comparison.difference(RELU, GAUSSIAN, peak),
            [between],
        ),
    ]


_SCORES = {"kappa": "kappa", "positive_share": "the share of positive curvature", "loss": "its low loss"}


def _from_training(comparison: ZoneComparison) -> list[_Parts]:
    found: list[_Parts] = []
    if comparison.hyperplanes:
        found.append(
            (
                "G9",
                "Training inside random hyperplanes follows their overlap with the zone: rank correlation over radii "
                "of accuracy with kappa before training.",
                Expected(low=0.3, origin="'correlates' in the paper's abstract, read as 0.3"),
                comparison.hyperplane_correlation("kappa"),
                [
                    NullEvidence(
                        name="equal initial loss",
                        description="accuracy in the same subspaces at the same radii, outputs divided so that the "
                        "initial loss is equal; kappa as without it",
                        measured=comparison.hyperplane_correlation("equal loss"),
                    ),
                    NullEvidence(
                        name="initial loss instead of kappa",
                        description="rank correlation of accuracy with low initial loss",
                        measured=comparison.hyperplane_correlation("loss"),
                    ),
                ],
            )
        )
    if comparison.architectures:
        for row, scheme in (("G10a", "xavier"), ("G10b", "he")):
            found.append(
                (
                    row,
                    f"{scheme.capitalize()} draws lie inside the zone (kappa above half its peak): share of widths and "
                    "depths.",
                    Expected(low=0.9, origin="'common initialisations lie inside', read as nine in ten"),
                    comparison.inside(scheme),
                    [
                        NullEvidence(
                            name="a scale by chance",
                            description="the share, had scales been drawn log-uniformly from 0.1 to 10 times the draw",
                            measured=comparison.inside(scheme, by_chance=True),
                        )
                    ],
                )
            )
    if comparison.selections:
        rows = zip(("G11a", "G11b", "G11c", "G11d", "G11e", "G11f"), [*_SCORES, *_SCORES], strict=True)
        for place, (row, score) in enumerate(rows):
            kind = "one" if place < 3 else "mixed"
            among = "20 draws of one scale" if kind == "one" else "20 draws of scales from 1/2 to 4"
            found.append(
                (
                    row,
                    f"An initialisation chosen among {among} by {_SCORES[score]} trains faster than random ones: log2 "
                    "of the ratio of steps to a loss of 1 nat.",
                    Expected(high=0.0, origin="by definition: fewer steps"),
                    comparison.gain(score, kind, level=_FAMILY_LEVEL),
                    [
                        NullEvidence(
                            name="chosen at random",
                            description="one more candidate, picked without looking",
                            measured=comparison.gain("random", kind, level=_FAMILY_LEVEL),
                        )
                    ],
                )
            )
    return found


def _from_the_whole(comparison: ZoneComparison) -> list[_Parts]:
    both = comparison.whole_hessian
    if both is None:
        return []
    return [
        (
            "G17a",
            "Kappa of random subspaces is what trace and norm of the whole Hessian foretell: their difference where "
            "kappa peaks (ReLU).",
            Expected(low=-0.5, high=0.5, origin=f"{_ROOM}; {_SEEDS}, one member each: 0.02 and -0.04"),
            comparison.over(both.difference_at_peak()),
            [
                NullEvidence(
                    name="another scale",
                    description="the same kappa less what the Hessian at the largest scale foretells",
                    measured=comparison.over(both.difference_at_peak(elsewhere=True)),
                )
            ],
        ),
        (
            "G17b",
            "The same at all scales: root mean square of the difference (ReLU).",
            Expected(high=0.5, origin=f"{_ROOM}; {_SEEDS}, one member each: 0.16 and 0.06"),
            comparison.over(both.distance()),
            [
                NullEvidence(
                    name="another scale",
                    description="the same against what the Hessian at the next scale foretells",
                    measured=comparison.over(both.distance(elsewhere=True)),
                )
            ],
        ),
    ]

"""What theory says of approximators, measured on one draw of points: slopes, reach of 20 coefficients, networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.functions import (
    TargetFunction,
    cusp,
    exponential_of_sum,
    plane_waves,
    sum_of_products,
    target_function,
)
from tremorscope.methods.weights.precision.approximators import Approximator
from tremorscope.methods.weights.precision.network_approximator import (
    NetworkTrainer,
    PerceptronApproximator,
    bfgs_trainer,
)
from tremorscope.methods.weights.precision.polynomials import Chebyshev
from tremorscope.methods.weights.precision.rational import Rational
from tremorscope.methods.weights.precision.scaling import ScalingMeasurement, compare_approximators
from tremorscope.methods.weights.precision.simplex import Simplex
from tremorscope.methods.weights.precision.splines import Spline

SMOOTH, CUSP, SHUFFLED = "smooth", "cusp", "shuffled"
TARGETS = (SMOOTH, CUSP, SHUFFLED)
SLOPES: Mapping[str, tuple[Approximator, int]] = {
    "simplex 1-D": (Simplex(), 1),
    "simplex 2-D": (Simplex(), 2),
    "simplex 3-D": (Simplex(), 3),
    "spline 3, 1-D": (Spline(order=3), 1),
    "spline 5, 1-D": (Spline(order=5), 1),
}
COEFFICIENTS = 20
PARAMETERS = 300  # of the network and of the simplices that it is compared with
PRODUCTS, PRODUCTS_SHUFFLED, WAVES, OTHER_WAVES, SQUARE = (
    "products",
    "products, shuffled",
    "waves",
    "other waves",
    "square",
)


@final
@dataclass(frozen=True, kw_only=True)
class ApproximationMember:
    """One draw of everything.

    `slopes[case][target]` is the power of the number of points with which the error falls; `reach[method][target]`
    the decimal logarithm of the largest error within 20 coefficients; `advantage[target]` that of the error of
    simplices over the error of a ReLU network with as many parameters (positive: the network is better).
    """

    slopes: Mapping[str, Mapping[str, float]]
    reach: Mapping[str, Mapping[str, float]]
    advantage: Mapping[str, float]
    curves: tuple[ScalingMeasurement, ...]
    flags: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = asdict(self)
        return {**plain, "curves": [curve.to_plain() for curve in self.curves], "flags": list(self.flags)}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> ApproximationMember:
        """The inverse of `to_plain`."""
        return cls(
            slopes=plain["slopes"],
            reach=plain["reach"],
            advantage=plain["advantage"],
            curves=tuple(ScalingMeasurement.of(curve) for curve in plain["curves"]),
            flags=tuple(plain["flags"]),
        )


def measure_approximation(
    seed: int,
    *,
    largest: int = 2048,
    num_draws: int = 4,
    cases: Sequence[str] = tuple(SLOPES),
    advantages: Sequence[str] = (PRODUCTS, PRODUCTS_SHUFFLED, WAVES, OTHER_WAVES, SQUARE),
    trainer: NetworkTrainer | None = None,
) -> ApproximationMember:
    """Do approximators follow their laws on smooth targets, and only there?

    Args:
        seed: Names all streams: points, shuffles, waves, initial weights.
        largest: Points of the largest interpolation.
        num_draws: Sets of points that each error averages.
        cases: Which of `SLOPES` to measure.
        advantages: On which targets to set a ReLU network against simplices.
        trainer: Of the networks; 300 steps of a quasi-Newton method by default.

    Cost: about 4 CPU-seconds, half of it in five networks.

    Raises:
        BadInput: If `largest` leaves too few sizes for a slope.
    """
    slopes: dict[str, dict[str, float]] = {}
    curves: list[ScalingMeasurement] = []
    flags: list[str] = []
    for case in cases:
        slopes[case] = {}
        for kind in TARGETS:
            curve = _curve(case, kind, largest, num_draws, seed)
            law = curve.laws[SLOPES[case][0].name]
            if law is None:
                raise BadInput(f"slope of {case}", got=curve.flags[-1], wanted="a law", remedy="Raise largest.")
            slopes[case][kind] = law.exponent.value
            curves.append(curve)
            flags += [f"{case}, {kind}: {flag}" for flag in curve.flags if kind == SMOOTH]
    reach = {
        method.name: {kind: _reach(method, kind, seed) for kind in TARGETS} for method in (Rational(), Chebyshev())
    }
    advantage = {target: _advantage(target, trainer or bfgs_trainer(300), num_draws, seed) for target in advantages}
    return ApproximationMember(
        slopes=slopes, reach=reach, advantage=advantage, curves=tuple(curves), flags=tuple(flags)
    )


def _target(kind: str, dimension: int) -> TargetFunction:
    return cusp(dimension) if kind == CUSP else exponential_of_sum(dimension)


def _curve(case: str, kind: str, largest: int, num_draws: int, seed: int) -> ScalingMeasurement:
    method, dimension = SLOPES[case]
    # half octaves on a line, where points are cheap and a steep law soon meets rounding
    octaves = [5 + half / 2 for half in range(0, 32, 1 if dimension == 1 else 2)]
    counts = [round(2**octave) for octave in octaves if 2**octave <= largest]
    if isinstance(method, Spline):
        counts = [round(count / 2) for count in counts]
    parameters = 1 if isinstance(method, Spline) else dimension + 1
    return compare_approximators(
        _target(kind, dimension),
        budgets=[count * parameters for count in counts],
        methods=[method],
        # slopes in space scatter most, and the claim is about the smooth target
        num_draws=num_draws * (2 if dimension == 3 and kind == SMOOTH else 1),
        shuffled=kind == SHUFFLED,
        split=False,
        seed=derive(seed, case),
    )


def _reach(method: Approximator, kind: str, seed: int) -> float:
    measured = compare_approximators(
        _target(kind, 1),
        budgets=[COEFFICIENTS],
        methods=[method],
        inner=0.99,
        shuffled=kind == SHUFFLED,
        split=False,
        seed=derive(seed, "reach"),
    )
    return math.log10(measured.rows[0].max_error)


def _advantage(target: str, trainer: NetworkTrainer, num_draws: int, seed: int) -> float:
    function = {
        PRODUCTS: lambda: sum_of_products(2),
        PRODUCTS_SHUFFLED: lambda: sum_of_products(2),
        WAVES: lambda: plane_waves(4, derive(seed, WAVES)),
        OTHER_WAVES: lambda: plane_waves(4, derive(seed, OTHER_WAVES)),
        SQUARE: lambda: target_function("square"),
    }[target]()
    errors = [
        compare_approximators(
            function,
            budgets=[PARAMETERS],
            methods=[method],
            num_draws=draws,
            shuffled=target == PRODUCTS_SHUFFLED,
            split=False,
            seed=derive(seed, "advantage", target),
        )
        .rows[0]
        .rmse
        for method, draws in ((Simplex(), num_draws), (PerceptronApproximator(trainer=trainer), 1))
    ]
    return math.log10(errors[0] / errors[1])

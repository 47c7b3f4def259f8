"""Error against size for every approximator, with fitted exponents beside theory's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy
from numpy import ndarray

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.figures import Figure
from tremorscope.foundations.fits import PowerLaw, fit_power_law
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import derive, numpy_generator
from tremorscope.instruments.functions import TargetFunction
from tremorscope.instruments.point_table import PointTable
from tremorscope.methods.weights.precision.approximators import Approximator
from tremorscope.methods.weights.precision.designs import draw_points, draw_test_points
from tremorscope.methods.weights.precision.error_split import split_error
from tremorscope.methods.weights.precision.network_approximator import PerceptronApproximator
from tremorscope.methods.weights.precision.polynomials import Chebyshev
from tremorscope.methods.weights.precision.rational import Rational
from tremorscope.methods.weights.precision.scaling_figures import scaling_figures
from tremorscope.methods.weights.precision.simplex import Simplex
from tremorscope.methods.weights.precision.splines import Spline

HELD_OUT = 0.2  # of a table


@final
@dataclass(frozen=True, kw_only=True)
class ScalingRow:
    """One approximator at one size. Errors are root mean squares over test points (and draws), in units of y.

    `architecture`, `sampling` and `optimisation` are parts of the squared test error, each shown as the root of its
    magnitude with its sign. `inside` is the share of test points that the approximation covers.
    """

    method: str
    num_parameters: int
    num_points: int
    rmse: float
    max_error: float
    train_rmse: float
    architecture: float | None
    sampling: float | None
    optimisation: float | None
    floor: float
    inside: float


@final
@dataclass(frozen=True, kw_only=True)
class ScalingMeasurement:
    """How errors of several approximators fall with their size, on one target.

    `laws` and `theory` hold the exponent of each method in the number of parameters; None: no law was found, or
    none is known.
    """

    target: str
    dimension: int
    rows: tuple[ScalingRow, ...]
    laws: Mapping[str, PowerLaw | None]
    theory: Mapping[str, float | None]
    flags: tuple[str, ...] = ()

    def of_method(self, method: str) -> list[ScalingRow]:
        """The rows of one method, smallest first.

        Raises:
            BadInput: If it was not measured.
        """
        found = sorted((row for row in self.rows if row.method == method), key=lambda row: row.num_parameters)
        if not found:
            raise BadInput("approximator", got=method, wanted=", ".join(self.laws))
        return found

    def rmse_at(self, method: str, num_parameters: float) -> float:
        """Test error of a method at any size between those measured, straight on log-log axes.

        Raises:
            BadInput: If the size lies outside those measured.
        """
        rows = self.of_method(method)
        sizes = [row.num_parameters for row in rows]
        if not sizes[0] <= num_parameters <= sizes[-1]:
            raise BadInput(f"size of {method}", got=num_parameters, wanted=f"between {sizes[0]} and {sizes[-1]}")
        logs = [math.log(row.rmse) for row in rows]
        return math.exp(float(numpy.interp(math.log(num_parameters), numpy.log(sizes), logs)))

    def tables(self) -> list[Table]:
        """Errors with their parts, and exponents."""
        exponents = [
            {
                "method": method,
                "exponent": None if law is None else law.exponent,
                "theory": self.theory[method],
                "from N": None if law is None else law.window[0],
                "to N": None if law is None else law.window[1],
                "points": None if law is None else len(law.used),
                "scatter": None if law is None else law.scatter,
            }
            for method, law in self.laws.items()
        ]
        key = self.target.replace(".", "_").replace("-", "_")
        return [
            Table.of_rows(
                [asdict(row) for row in self.rows],
                name=f"scaling_{key}",
                title=f"Errors of approximators of {self.target}",
                caption=f"{self.dimension} dimensions; test points strictly inside the hull of the fitted points. The "
                "squared error is architecture + sampling + optimisation; each is shown as a root with its sign. "
                "Floor: rounding that the output cannot avoid.",
            ),
            Table.of_rows(
                exponents,
                name=f"exponents_{key}",
                title=f"Powers of the size with which errors on {self.target} fall",
                caption="Slope of log error against log parameters in the window found, with a 99 % bootstrap interval "
                "that takes the window as given.",
            ),
        ]

    def figures(self) -> list[Figure]:
        """Error against parameters, with fitted and theoretical slopes."""
        return scaling_figures(self)

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "target": self.target,
            "dimension": self.dimension,
            "rows": [asdict(row) for row in self.rows],
            "laws": {method: None if law is None else law.to_plain() for method, law in self.laws.items()},
            "theory": dict(self.theory),
            "flags": list(self.flags),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> ScalingMeasurement:
        """The inverse of `to_plain`."""
        return cls(
            target=plain["target"],
            dimension=plain["dimension"],
            rows=tuple(ScalingRow(**row) for row in plain["rows"]),
            laws={method: None if law is None else PowerLaw.of(law) for method, law in plain["laws"].items()},
            theory=plain["theory"],
            flags=tuple(plain["flags"]),
        )


def default_approximators() -> tuple[Approximator, ...]:
    """Simplices, splines of order 1, 3 and 5, polynomials, quotients, and networks of both kinds."""
    return (
        Simplex(),
        Spline(order=1),
        Spline(order=3),
        Spline(order=5),
        Chebyshev(),
        Rational(),
        PerceptronApproximator(activation="relu"),
        PerceptronApproximator(activation="tanh"),
    )


def compare_approximators(
    target: TargetFunction | PointTable,
    *,
    budgets: Sequence[int],
    methods: Sequence[Approximator] | None = None,
    num_draws: int = 1,
    num_test: int = 2_000,
    inner: float = 0.5,
    shuffled: bool = False,
    split: bool = True,
    seed: int = 0,
) -> ScalingMeasurement:
    """Which approximator should be used, at which size, and what stops it?

    Args:
        target: A function, asked at points of each method's own design; or a table, of which a fifth is held out.
        budgets: Numbers of parameters. Each method takes the largest size within.
        methods: What to compare; all eight by default.
        num_draws: Sets of points to average squared errors over, for a function. A table has one.
        num_test: Test points of a function, uniform in the middle of its box.
        inner: Width of that middle as a share of the box.
        shuffled: Fit a null: the same training values, dealt to other points. Test values stay as they are.
        split: Tell the parts of the error apart, which takes a least-squares problem for each cell.
        seed: Names the streams of points, shuffles and initial weights.

    A method that cannot do a size is left out there, and a flag says why. Cost: one fit and one error split for each
    method, budget and draw; networks dominate.

    >>> from tremorscope.instruments.functions import target_function
    >>> sizes = [8, 16, 32, 64, 128]
    >>> measured = compare_approximators(target_function("exp"), budgets=sizes, methods=[Spline(order=1)])
    >>> abs(measured.laws["spline 1"].exponent.value + 2) < 0.2
    True

    Raises:
        BadInput: If no method can do any size (the first reason is given), no test point is covered, or the
            table is too small to hold some of it out.
    """
    chosen = default_approximators() if methods is None else methods
    rows: list[ScalingRow] = []
    flags: list[str] = []
    first: BadInput | None = None
    for method in chosen:
        last, why = 0, ""
        left_out: list[str] = []
        for budget in sorted(set(budgets)):
            try:
                row, said = _measure(target, method, budget, num_draws, num_test, inner, shuffled, split, seed)
            except BadInput as error:
                first = first or error
                left_out, why = [*left_out, str(budget)], why or str(error)
                continue
            flags += said
            if row.num_parameters > last:  # a table that is used up, or a degree that did not grow
                rows.append(row)
            last = max(last, row.num_parameters)
        if left_out:
            flags.append(f"{method.name} was left out at {', '.join(left_out)} parameters: {why}")
    if not rows:
        raise first or BadInput("budgets", got=list(budgets), wanted="at least one, and a method")
    dimension = target.dimension
    arity = target.arity if isinstance(target, TargetFunction) else dimension
    laws = {}
    for method in chosen:
        own = [row for row in rows if row.method == method.name and row.rmse > 0]
        laws[method.name] = _law(own, flags, seed)
    return ScalingMeasurement(
        target=target.name + (", shuffled" if shuffled else ""),
        dimension=dimension,
        rows=tuple(rows),
        laws=laws,
        theory={method.name: method.exponent(dimension, arity) for method in chosen},
        flags=tuple(dict.fromkeys(flags)),
    )


def _law(rows: list[ScalingRow], flags: list[str], seed: int) -> PowerLaw | None:
    try:
        law = fit_power_law(
            [row.num_parameters for row in rows],
            [row.rmse for row in rows],
            floor=[row.floor for row in rows],
            seed=seed,
        )
    except BadInput as error:
        if rows:
            flags.append(f"exponent of {rows[0].method}: {error}")
        return None
    flags += [f"exponent of {rows[0].method}: {flag}" for flag in law.flags]
    return law


def _measure(
    target: TargetFunction | PointTable,
    method: Approximator,
    budget: int,
    num_draws: int,
    num_test: int,
    inner: float,
    shuffled: bool,
    split: bool,
    seed: int,
) -> tuple[ScalingRow, list[str]]:
    """One cell: every draw fitted and split, squares averaged."""
    splits, worst, covered, size, count = [], [], [], 0, 0
    flags: list[str] = []
    for draw in range(num_draws if isinstance(target, TargetFunction) else 1):
        stream = derive(seed, "draw", budget, draw)
        train, test = _points(target, method, budget, num_test, inner, stream, seed)
        if shuffled:
            order = numpy_generator(stream, "shuffle").permutation(len(train.y))
            train = PointTable(name=train.name, x=train.x, y=train.y[order], roundoff=train.roundoff)
        fitted = method.fit(train, budget, seed=derive(stream, "initial weights"))
        if fitted.num_parameters > budget:
            raise BadInput(
                f"budget of {method.name} in {train.dimension}-D",
                got=f"{budget} parameters",
                wanted=f"at least {fitted.num_parameters}, which its smallest size takes",
                remedy="Raise the budget.",
            )
        inside = fitted.contains(test.x)
        if not inside.any():
            raise BadInput(
                "test points",
                got="none inside the hull of the fitted points",
                wanted="some",
                remedy="Lower inner, or raise the budget.",
            )
        test = test.rows(inside)
        splits.append(split_error(fitted, train, test, parts=split))
        worst.append(float(numpy.abs(test.y - fitted.predict(test.x)).max()))
        covered.append(float(inside.mean()))
        flags += fitted.flags
        size, count = fitted.num_parameters, len(train.x)

    def mean(part: str) -> float | None:
        values = [getattr(split, part) for split in splits]
        return None if None in values else math.fsum(values) / len(values)

    def root(part: str) -> float | None:
        value = mean(part)
        return None if value is None else math.copysign(math.sqrt(abs(value)), value)

    row = ScalingRow(
        method=method.name,
        num_parameters=size,
        num_points=count,
        rmse=root("test") or 0.0,
        max_error=max(worst),
        train_rmse=root("train") or 0.0,
        architecture=root("architecture"),
        sampling=root("sampling"),
        optimisation=root("optimisation"),
        floor=mean("floor") or 0.0,
        inside=math.fsum(covered) / len(covered),
    )
    return row, flags


def _points(
    target: TargetFunction | PointTable,
    method: Approximator,
    budget: int,
    num_test: int,
    inner: float,
    stream: int,
    seed: int,
) -> tuple[PointTable, PointTable]:
    """Training and test points."""
    wanted = method.num_points(budget, target.dimension)
    if isinstance(target, TargetFunction):

        def asked(x: ndarray) -> PointTable:
            return PointTable.of(x, target(x), name=target.name)

        tested = draw_test_points(target, num_test, inner=inner, seed=stream)
        return asked(draw_points(target, method.design, wanted, seed=stream)), asked(tested)
    held_out = round(HELD_OUT * len(target.x))
    if held_out < 1 or wanted < 1:
        raise BadInput(
            f"table {target.name!r}",
            got=f"{len(target.x)} points, of which {wanted} would be fitted",
            wanted="enough to fit and to hold some out",
        )
    order = numpy_generator(seed, "held out").permutation(len(target.x))
    return target.rows(order[held_out:][:wanted]), target.rows(order[:held_out])

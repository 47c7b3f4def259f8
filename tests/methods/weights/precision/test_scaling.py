import json
import math
from dataclasses import replace

import numpy
import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.feynman import FEYNMAN
from tremorscope.instruments.functions import cusp, exponential_of_sum, target_function
from tremorscope.instruments.point_table import PointTable, PrecisionWarning
from tremorscope.methods.weights.precision.approximation import (
    CUSP,
    PRODUCTS,
    PRODUCTS_SHUFFLED,
    SHUFFLED,
    SLOPES,
    SMOOTH,
    SQUARE,
    ApproximationMember,
    measure_approximation,
)
from tremorscope.methods.weights.precision.approximation_claims import (
    approximation_claims,
    approximation_figures,
    approximation_tables,
)
from tremorscope.methods.weights.precision.designs import draw_points
from tremorscope.methods.weights.precision.error_split import split_error
from tremorscope.methods.weights.precision.network_approximator import PerceptronApproximator, bfgs_trainer
from tremorscope.methods.weights.precision.polynomials import Chebyshev
from tremorscope.methods.weights.precision.scaling import (
    ScalingMeasurement,
    compare_approximators,
    default_approximators,
)
from tremorscope.methods.weights.precision.simplex import Simplex
from tremorscope.methods.weights.precision.splines import Spline

LINE = [Simplex(), Spline(order=3), Chebyshev()]
SIZES = [16, 32, 64, 128, 256]


@pytest.fixture(scope="module")
def on_exp() -> ScalingMeasurement:
    return compare_approximators(target_function("exp"), budgets=SIZES, methods=LINE, num_draws=2, num_test=800)


def test_parts_add_up_to_the_squared_error(on_exp):
    for row in on_exp.rows:
        if row.architecture is None:
            continue
        parts = [row.architecture, row.sampling, row.optimisation]
        total = sum(numpy.sign(part) * part**2 for part in parts)
        assert total == pytest.approx(row.rmse**2, rel=1e-9)
        assert row.optimisation == 0  # coefficients of interpolation are the only ones
        assert row.rmse <= row.max_error


def test_architecture_is_unknown_with_too_few_test_points(on_exp):
    assert [row.architecture is None for row in on_exp.of_method("spline 3")] == [False, False, False, False, True]


def test_slopes_follow_theory_on_a_smooth_target_and_not_on_its_nulls(on_exp):
    spline, simplex = on_exp.laws["spline 3"], on_exp.laws["simplex"]
    assert spline.exponent.value == pytest.approx(-4, abs=0.4)
    assert simplex.exponent.value == pytest.approx(-2, abs=0.3)
    assert on_exp.theory == {"simplex": -2, "spline 3": -4, "chebyshev": None}
    for target, shuffled, power in ((cusp(1), False, -1), (exponential_of_sum(1), True, 0)):
        null = compare_approximators(
            target, budgets=SIZES, methods=[Spline(order=3)], num_draws=4, shuffled=shuffled, split=False
        )
        assert null.laws["spline 3"].exponent.value == pytest.approx(power, abs=0.5)


def test_the_floor_is_where_errors_stop(on_exp):
    exact = [row for row in on_exp.of_method("chebyshev") if row.num_parameters >= 32]
    for row in exact:
        assert row.floor / 3 < row.rmse < 5 * row.floor
    assert on_exp.laws["chebyshev"] is None
    assert any("exponent of chebyshev" in flag for flag in on_exp.flags)


def test_float32_tables_have_a_higher_floor():
    x = numpy.linspace(-1, 1, 400)
    with pytest.warns(PrecisionWarning):
        coarse = PointTable.of(x, numpy.exp(x).astype(numpy.float32))
    fine = PointTable.of(x, numpy.exp(x))
    rows = [compare_approximators(table, budgets=[12], methods=[Chebyshev()]).rows[0] for table in (coarse, fine)]
    assert rows[0].floor == pytest.approx(2.0**29 * rows[1].floor, rel=1e-6)
    assert rows[0].rmse > 1e-9 > rows[1].rmse


def test_optimisation_is_what_last_weights_still_miss():
    function = target_function("exp")
    x = draw_points(function, "scattered", 200, seed=0)
    train = PointTable.of(x, function(x))
    test = PointTable.of(x / 2, function(x / 2))
    untrained, trained = (
        PerceptronApproximator(activation="tanh", trainer=trainer).fit(train, 31, seed=0)
        for trainer in (lambda network: network, bfgs_trainer(300))
    )
    before, after = split_error(untrained, train, test), split_error(trained, train, test)
    assert before.optimisation > 0.9 * before.test
    assert after.test < 1e-4 * before.test
    for split in (before, after):
        assert split.architecture + split.sampling + split.optimisation == pytest.approx(split.test, rel=1e-9)


def test_sparse_and_dense_least_squares_agree(monkeypatch):
    from tremorscope.methods.weights.precision import error_split

    function = exponential_of_sum(2)
    x = draw_points(function, "scattered", 60, seed=0)
    fitted = Simplex().fit(PointTable.of(x, function(x)), 180)
    at = numpy.random.default_rng(0).uniform(-0.5, 0.5, (800, 2))
    test = PointTable.of(at, function(at))
    dense = split_error(fitted, PointTable.of(x, function(x)), test)
    monkeypatch.setattr(error_split, "_DENSE_ENTRIES", 0)
    sparse = split_error(fitted, PointTable.of(x, function(x)), test)
    assert sparse.architecture == pytest.approx(dense.architecture, rel=1e-6)


def test_tables_of_points_hold_some_out():
    x = numpy.random.default_rng(0).uniform(-1, 1, (300, 2))
    table = PointTable.of(x, numpy.exp(x.sum(axis=1)), name="mine")
    measured = compare_approximators(table, budgets=[30, 60, 120, 240, 10_000], methods=[Simplex(), Spline(order=1)])
    rows = measured.of_method("simplex")
    assert [row.num_points for row in rows] == [10, 20, 40, 80, 240]
    assert rows[-1].rmse < rows[0].rmse
    assert measured.laws["spline 1"] is None
    assert any("spline 1 was left out at 30, 60, 120, 240, 10000 parameters: points" in flag for flag in measured.flags)
    assert measured.rmse_at("simplex", 60) == pytest.approx(rows[1].rmse)
    with pytest.raises(BadInput, match=r"size of simplex: got 1000000000.0; wanted between 30 and 720"):
        measured.rmse_at("simplex", 1e9)
    with pytest.raises(BadInput, match="approximator: got spline 1"):
        measured.of_method("spline 1")


def test_when_nothing_can_be_measured_the_first_reason_is_given():
    doubled = PointTable.of(numpy.zeros((50, 2)), numpy.zeros(50))
    with pytest.raises(BadInput, match="points for simplex interpolation: got 29 of 30 duplicates"):
        compare_approximators(doubled, budgets=[90], methods=[Simplex()])
    with pytest.raises(BadInput, match="simplex interpolation in 4-D: got 2; wanted at least 5"):
        compare_approximators(target_function("products-2"), budgets=[10], methods=[Simplex()])
    with pytest.raises(BadInput, match="table 'table': got 2 points"):
        compare_approximators(PointTable.of(numpy.arange(2), numpy.arange(2)), budgets=[9], methods=[Simplex()])
    with pytest.raises(BadInput, match="test points: got none inside the hull"):
        compare_approximators(exponential_of_sum(6), budgets=[49], methods=[Simplex()], inner=1.0, num_test=9)


def test_two_runs_are_identical_and_cross_as_plain_data(on_exp):
    again = compare_approximators(target_function("exp"), budgets=SIZES, methods=LINE, num_draws=2, num_test=800)
    assert again == on_exp
    assert ScalingMeasurement.of(json.loads(json.dumps(on_exp.to_plain()))) == on_exp


def test_tables_and_figures(on_exp):
    rows, exponents = on_exp.tables()
    assert rows.num_rows == len(on_exp.rows)
    assert exponents.columns["theory"] == [-2, -4, None]
    figure = on_exp.figures()[0].to_plotly()
    names = [trace["name"] for trace in figure["data"]]
    assert f"spline 3: N^{on_exp.laws['spline 3'].exponent.value:.2f}" in names
    assert "spline 3, theory" in names
    assert "chebyshev, theory" not in names
    assert names[-1] == "lowest rounding floor"


def test_members_become_claims():
    members = [
        measure_approximation(seed, largest=256, cases=("simplex 1-D", "simplex 2-D"), trainer=lambda network: network)
        for seed in (0, 1)
    ]
    assert ApproximationMember.of(json.loads(json.dumps(members[0].to_plain()))) == members[0]
    rows = ("P1a", "P1b", "P7a", "P7b", "P8a", "P8b", "P8c")
    claims = approximation_claims(members, study="precision", preset="quick", rows=rows)
    assert [claim.row for claim in claims] == list(rows)
    found = {claim.row: claim for claim in claims}
    assert found["P7a"].measured.value < -13
    assert found["P1a"].expected.low < found["P1a"].measured.value < found["P1a"].expected.high
    # an untrained network wins nowhere: the claim must say so
    assert found["P8a"].measured.value < found["P8a"].expected.low
    assert not found["P8a"].holds
    assert abs(members[0].slopes["simplex 1-D"][SHUFFLED]) < 0.2 < abs(members[0].slopes["simplex 1-D"][SMOOTH])
    assert [table.num_rows for table in approximation_tables(members)] == [2, 2, 5]
    assert len(approximation_figures(members)[0].traces) == 6
    better = [
        replace(member, advantage={**member.advantage, PRODUCTS: 0.6 + i / 100}) for i, member in enumerate(members)
    ]
    assert approximation_claims(better, study="precision", preset="quick", rows=["P8a"])[0].measured.value > 0.6


@pytest.mark.slow
def test_a_trained_network_wins_in_four_dimensions_and_loses_in_one():
    member = measure_approximation(0, cases=(), advantages=(PRODUCTS, PRODUCTS_SHUFFLED, SQUARE))
    assert member.advantage[PRODUCTS] > 0.4 > member.advantage[PRODUCTS_SHUFFLED] > 0 > member.advantage[SQUARE]


@pytest.mark.slow
def test_all_slopes_follow_theory():
    member = measure_approximation(0, advantages=())
    for case, (method, dimension) in SLOPES.items():
        power = method.exponent(dimension, dimension)
        assert member.slopes[case][SMOOTH] == pytest.approx(power, rel=0.12)
        assert member.slopes[case][CUSP] == pytest.approx(-1 / dimension, rel=0.3)


ONE_OF_EACH_DIMENSION = {len(equation.ranges): name for name, equation in FEYNMAN.items()}


@pytest.mark.parametrize("name", ONE_OF_EACH_DIMENSION.values())
def test_one_call_compares_all_approximators_on_an_equation_of_physics(name):
    quick = {"trainer": bfgs_trainer(20), "least_points": 200}
    methods = [replace(m, **quick) if isinstance(m, PerceptronApproximator) else m for m in default_approximators()]
    assert len(methods) == 8
    measured = compare_approximators(target_function(name), budgets=[120], methods=methods, num_test=200)
    done = {row.method for row in measured.rows}
    said = " ".join(measured.flags)
    for method in methods:
        assert method.name in done or f"{method.name} was left out at 120 parameters: " in said
    assert {"relu network", "tanh network"} <= done, "networks take any number of variables"
    assert all(math.isfinite(row.rmse) and row.num_parameters <= 120 for row in measured.rows)

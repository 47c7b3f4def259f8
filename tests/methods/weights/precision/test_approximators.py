import itertools

import numpy
import pytest
from scipy.interpolate import AAA

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.functions import cusp, exponential_of_sum, target_function
from tremorscope.instruments.point_table import PointTable
from tremorscope.methods.weights.precision.approximators import Approximator
from tremorscope.methods.weights.precision.barycentric import Barycentric
from tremorscope.methods.weights.precision.designs import draw_points, draw_test_points
from tremorscope.methods.weights.precision.network_approximator import PerceptronApproximator, bfgs_trainer
from tremorscope.methods.weights.precision.polynomials import Chebyshev
from tremorscope.methods.weights.precision.rational import Rational
from tremorscope.methods.weights.precision.simplex import Simplex
from tremorscope.methods.weights.precision.splines import Spline

QUICK = bfgs_trainer(100)
FAMILIES = [
    Simplex(),
    Spline(order=1),
    Spline(order=3),
    Spline(order=5),
    Chebyshev(),
    Rational(),
    PerceptronApproximator(trainer=QUICK),
    PerceptronApproximator(activation="tanh", depth=2, trainer=QUICK),
]


def table_of(function, design, count, seed=0):
    x = draw_points(function, design, count, seed=seed)
    return PointTable.of(x, function(x), name=function.name)


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_fits_within_its_budget(family, dimension):
    assert isinstance(family, Approximator)
    function = exponential_of_sum(dimension)
    budget = (40, 200, 343)[dimension - 1]
    table = table_of(function, family.design, family.num_points(budget, dimension))
    fitted = family.fit(table, budget, seed=1)
    x = draw_test_points(function, 300, inner=0.5, seed=2)
    x = x[fitted.contains(x)]
    assert len(x) > 290
    error = numpy.sqrt(numpy.mean((fitted.predict(x) - function(x)) ** 2))
    assert error < (0.1 if dimension == 1 else 0.2) * function(x).std()
    assert fitted.num_parameters <= budget
    # the terms that add up are no smaller than their sum
    assert (fitted.magnitudes(x) >= numpy.abs(fitted.predict(x)) * (1 - 1e-12)).all()
    again = family.fit(table, budget, seed=1)
    assert numpy.array_equal(again.predict(x), fitted.predict(x))


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_simplices_agree_with_scipy(dimension):
    from scipy.interpolate import LinearNDInterpolator, interp1d

    table = table_of(exponential_of_sum(dimension), "scattered", 60)
    x = draw_test_points(exponential_of_sum(dimension), 100, inner=0.5, seed=0)
    fitted = Simplex().fit(table, 0)
    x = x[fitted.contains(x)]
    twin = interp1d(table.x[:, 0], table.y)(x[:, 0]) if dimension == 1 else LinearNDInterpolator(table.x, table.y)(x)
    numpy.testing.assert_allclose(fitted.predict(x), twin, rtol=1e-12, atol=1e-13)
    assert fitted.num_parameters == 60 * (dimension + 1)


def test_splines_agree_with_scipy_on_shuffled_grids():
    from scipy.interpolate import RectBivariateSpline, make_interp_spline

    line = table_of(target_function("exp"), "grid", 12)
    x = numpy.linspace(-1, 1, 50)[:, None]
    numpy.testing.assert_allclose(
        Spline(order=5).fit(line, 0).predict(x), make_interp_spline(line.x[:, 0], line.y, k=5)(x[:, 0]), rtol=1e-13
    )
    plane = table_of(exponential_of_sum(2), "grid", 64)
    shuffled = plane.rows(numpy.random.default_rng(0).permutation(64))
    x = draw_test_points(exponential_of_sum(2), 40, inner=0.5, seed=0)
    axes = [numpy.unique(column) for column in plane.x.T]
    twin = RectBivariateSpline(*axes, plane.y.reshape(8, 8), s=0).ev(*x.T)
    numpy.testing.assert_allclose(Spline().fit(shuffled, 0).predict(x), twin, rtol=1e-10)


@pytest.mark.parametrize("order", [1, 3, 5])
def test_splines_reproduce_polynomials_of_their_order(order):
    x = numpy.sort(numpy.random.default_rng(0).uniform(-1, 1, 20))
    table = PointTable.of(x, x**order)
    at = numpy.linspace(x[0], x[-1], 50)[:, None]
    numpy.testing.assert_allclose(Spline(order=order).fit(table, 0).predict(at), at[:, 0] ** order, atol=1e-12)


def test_chebyshev_reproduces_polynomials_of_total_degree():
    x = numpy.random.default_rng(0).uniform(2, 5, (60, 2))
    fitted = Chebyshev().fit(PointTable.of(x, x[:, 0] ** 2 * x[:, 1] - 3), 10)
    assert fitted.num_parameters == 10
    numpy.testing.assert_allclose(fitted.predict(x), x[:, 0] ** 2 * x[:, 1] - 3, rtol=1e-13)
    worse = Chebyshev().fit(PointTable.of(x, x[:, 0] ** 2 * x[:, 1] - 3), 9)
    assert worse.num_parameters == 6
    assert numpy.abs(worse.predict(x) - x[:, 0] ** 2 * x[:, 1] + 3).max() > 1e-3


def test_rational_functions_are_found_exactly():
    x = numpy.random.default_rng(0).uniform(-1, 1, (100, 2))
    y = (1 + x[:, 0]) / (3 + x[:, 1])
    fitted = Rational().fit(PointTable.of(x, y), 5)
    numpy.testing.assert_allclose(fitted.predict(x), y, rtol=1e-12)
    assert fitted.num_parameters == 5
    line = x[:, :1]
    pole = Rational().fit(PointTable.of(line, 1 / (1.1 - line[:, 0])), 5)
    numpy.testing.assert_allclose(pole.predict(line), 1 / (1.1 - line[:, 0]), rtol=1e-12)


@pytest.mark.parametrize("family", [Rational(), Chebyshev()], ids=lambda family: family.name)
def test_twenty_coefficients_reach_rounding_on_exp_and_not_on_a_cusp(family):
    x = numpy.linspace(-0.99, 0.99, 500)[:, None]
    errors = []
    for function in (target_function("exp"), cusp(1)):
        fitted = family.fit(table_of(function, "arcsine", 100), 20)
        assert fitted.num_parameters <= 20
        errors.append(numpy.abs(fitted.predict(x) - function(x)).max())
    assert errors[0] < 1e-13
    assert errors[1] > 1e-3


def test_refined_weights_reach_rounding_on_every_draw_of_points():  # row P7a
    """SciPy's own weights miss by the rounding of difference quotients, the more so the closer two points lie."""
    exp, x = target_function("exp"), numpy.linspace(-0.99, 0.99, 500)
    ours, plain = [], []
    for seed in range(30):
        table = PointTable.of(at := draw_points(exp, "arcsine", 100, seed=seed), exp(at))
        fitted = Rational().fit(table, 20)
        assert fitted.num_parameters == 13  # seven terms are enough, AAA takes an eighth on some of these draws
        ours.append(numpy.abs(fitted.predict(x[:, None]) - numpy.exp(x)).max())
        plain.append(numpy.abs(AAA(at[:, 0], table.y, rtol=2e-14)(x) - numpy.exp(x)).max())
    assert max(ours) < 4e-15
    assert max(plain) > 2e-14


def test_poles_are_those_of_scipy_and_refining_brings_none():
    x = numpy.linspace(-1, 1, 101)
    y = 1 / (x - 0.005) + 1 / (x + 0.305) + numpy.abs(x)
    with pytest.warns(RuntimeWarning, match="failed to converge within 9"):
        found = AAA(x, y, max_terms=9)
    plain = Barycentric(found.support_points, found.support_values, found.weights)
    real = found.poles()[numpy.abs(found.poles().imag) < 1e-9].real
    assert plain.num_poles_between(x) == int((numpy.abs(real) < 1).sum()) >= 2
    numpy.testing.assert_allclose(plain.shares(x[:, None] + 1e-3) @ plain.values, found(x + 1e-3), rtol=1e-9)
    refined = plain.refined(x, y)
    assert refined.num_poles_between(x) <= plain.num_poles_between(x)
    assert refined.largest_miss(x, y) <= plain.largest_miss(x, y)


def test_poles_between_the_points_are_flagged():
    x = numpy.linspace(-1, 1, 101)
    fitted = Rational().fit(PointTable.of(x, 1 / (x - 0.005)), 9)
    assert fitted.flags == ("rational: 1 real poles between the points",)


def test_networks_take_any_trainer_and_leave_the_global_stream_alone():
    import torch

    seen = []
    before = torch.random.get_rng_state()
    family = PerceptronApproximator(trainer=lambda network: seen.append(network) or network)
    table = table_of(target_function("exp"), "scattered", 50)
    fitted = family.fit(table, 31, seed=3)
    assert seen[0].layout.size == fitted.num_parameters == 31
    assert torch.equal(before, torch.random.get_rng_state())
    inputs = seen[0].task.inputs.numpy()
    assert abs(inputs.mean()) < 1e-12
    # hidden units times last weights are the network, in the table's own units
    output = seen[0].apply(seen[0].params, seen[0].task.train_batch())[:, 0].numpy()
    numpy.testing.assert_allclose(fitted.predict(table.x), output * table.y.std() + table.y.mean(), rtol=1e-12)


@pytest.mark.parametrize(("depth", "dimension", "budget"), list(itertools.product([1, 2, 3], [1, 4], [40, 333])))
def test_width_is_the_largest_within_the_budget(depth, dimension, budget):
    def count(width):
        sizes = [dimension, *[width] * depth, 1]
        return sum(a * b + b for a, b in itertools.pairwise(sizes))

    width = PerceptronApproximator(depth=depth).width(budget, dimension)
    assert count(width) <= budget < count(width + 1)


SCATTERED = numpy.random.default_rng(0).uniform(-1, 1, (30, 2))


@pytest.mark.parametrize(
    ("family", "x", "budget", "match"),
    [
        (Simplex(), SCATTERED[:2], 9, r"points for simplex interpolation in 2-D: got 2; wanted at least 3 \(d \+ 1"),
        (Simplex(), SCATTERED[:1, :1], 9, "in 1-D: got 1; wanted at least 2"),
        (Simplex(), numpy.repeat(SCATTERED, 2, axis=0), 9, "got 30 of 60 duplicates; wanted different points. Average"),
        (Simplex(), SCATTERED[:, :1] * [1.0, 2.0], 9, "got points that lie in one plane"),
        (Simplex(), numpy.random.default_rng(0).uniform(size=(900, 8)), 9, "900 points in 8-D: got about 8e.07 simpl"),
        (Spline(), SCATTERED, 9, "points for spline 3 in 2-D: got 30 scattered points; wanted a product grid"),
        (Spline(order=5), SCATTERED[:5, :1], 9, r"got 5 along one axis; wanted at least 6 \(order \+ 1\)"),
        (Spline(), SCATTERED[[0, 0, 1, 2, 3], :1], 9, "points for spline 3: got 1 of 5 duplicates"),
        (Chebyshev(), SCATTERED[:9], 10, "chebyshev of degree 3 in 2-D: got 9; wanted at least 10"),
        (Rational(), SCATTERED[:5, :1], 20, "AAA of 10 terms in 1-D: got 5; wanted at least 20"),
        (Rational(), SCATTERED[[0, 0, 1], :1], 3, "rational approximation: got 1 of 3 duplicates"),
        (Rational(), SCATTERED[:5], 20, "a rational function of degree 3 in 2-D: got 5; wanted at least 20"),
        (PerceptronApproximator(), SCATTERED[:2], 50, r"points for a relu network in 2-D: got 2; wanted at least 3"),
        (PerceptronApproximator(), SCATTERED, 4, "parameters of a relu network in 2-D: got 4; wanted at least 5"),
    ],
)
def test_what_cannot_be_fitted(family, x, budget, match):
    with pytest.raises(BadInput, match=match):
        family.fit(PointTable.of(x, x.sum(axis=1)), budget)


@pytest.mark.parametrize("family", [Simplex(), Spline()], ids=lambda family: family.name)
def test_points_outside_the_hull_are_refused(family):
    fitted = family.fit(table_of(exponential_of_sum(2), "grid", 25), 25)
    x = numpy.array([[0.0, 0.0], [0.0, 1.5], [-2.0, 0.0]])
    assert fitted.contains(x).tolist() == [True, False, False]
    with pytest.raises(BadInput, match=f"evaluate {family.name} at: got 2 of 3 outside the hull of the fitted points"):
        fitted.predict(x)
    with pytest.raises(BadInput, match="outside the hull"):
        fitted.magnitudes(x)


def test_orders_of_splines_are_odd():
    with pytest.raises(BadInput, match="order of a spline: got 2; wanted an odd number"):
        Spline(order=2)


def test_designs_stay_inside_the_box():
    function = target_function("I.6.2")
    for design in ("scattered", "grid", "arcsine"):
        x = draw_points(function, design, 49, seed=0)
        assert x.shape == (49, 2)
        assert (x >= 1).all()
        assert (x <= 3).all()
        assert not numpy.array_equal(x, draw_points(function, design, 49, seed=1))
    middle = draw_test_points(function, 500, inner=0.5, seed=0)
    assert 1.5 <= middle.min() < 1.55
    assert 2.45 < middle.max() <= 2.5
    with pytest.raises(BadInput, match=r"inner share of the box: got 1.5; wanted above 0"):
        draw_test_points(function, 5, inner=1.5, seed=0)
    with pytest.raises(BadInput, match=r"points of 'I.6.2': got 0"):
        draw_points(function, "grid", 0, seed=0)

import numpy
import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.feynman import FEYNMAN
from tremorscope.instruments.functions import TargetFunction, function_names, tanh_teacher, target_function


@pytest.mark.parametrize("name", function_names())
def test_every_function_is_finite_and_varies_on_its_box(name):
    function = target_function(name)
    x = numpy.random.default_rng(0).uniform(function.low, function.high, (200, function.dimension))
    y = function(x)
    assert y.shape == (200,)
    assert numpy.isfinite(y).all()
    assert y.std() > 0
    assert function.arity <= function.dimension


def test_feynman_equations_span_one_to_nine_dimensions():
    dimensions = {len(equation.ranges) for equation in FEYNMAN.values()}
    assert len(FEYNMAN) >= 20
    assert min(dimensions) == 1
    assert max(dimensions) == 9


def test_some_equations_by_hand():
    assert target_function("I.12.11")(numpy.array([[2.0, 3.0, 1.0, 4.0, numpy.pi / 2]]))[0] == pytest.approx(14)
    assert target_function("I.13.12")(numpy.array([[1.0, 2.0, 3.0, 2.0, 1.0]]))[0] == pytest.approx(3)
    gravity = [1.0, 2.0, 3.0, 3.0, 1.0, 3.0, 1.0, 4.0, 2.0]
    assert target_function("I.9.18")(numpy.array([gravity]))[0] == pytest.approx(0.5)
    assert target_function("square")(numpy.array([[-3.0]]))[0] == 9


def test_random_functions_depend_on_their_seed_only():
    x = numpy.linspace(-1, 1, 5)[:, None]
    for name in ("quintic", "teacher", "waves-1"):
        assert numpy.array_equal(target_function(name, seed=1)(x), target_function(name, seed=1)(x))
        assert not numpy.array_equal(target_function(name, seed=1)(x), target_function(name, seed=2)(x))


def test_a_quintic_has_no_sixth_difference():
    values = target_function("quintic", seed=4)(numpy.linspace(-1, 1, 12)[:, None])
    assert numpy.abs(numpy.diff(values, 6)).max() < 1e-12
    assert numpy.abs(numpy.diff(values, 5)).max() > 1e-6


def test_a_teacher_of_other_widths():
    assert tanh_teacher(0, widths=(3, 5, 1))(numpy.zeros((2, 3))).shape == (2,)


def test_unknown_names_and_wrong_shapes():
    with pytest.raises(BadInput, match=r"target function: got sqare; .* Did you mean 'square'"):
        target_function("sqare")
    with pytest.raises(BadInput, match=r"points of 'product': got shape \(4, 3\); wanted \(n, 2\)"):
        target_function("product")(numpy.zeros((4, 3)))
    with pytest.raises(BadInput, match="dimension of 'exp-sum-0': got 0"):
        target_function("exp-sum-0")
    with pytest.raises(BadInput, match="box of 'f'"):
        TargetFunction(name="f", formula="x", call=lambda x: x[:, 0], low=(1.0,), high=(0.0,), arity=1)

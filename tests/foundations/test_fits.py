import numpy
import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.fits import PowerLaw, fit_power_law

SIZES = 2.0 ** numpy.arange(4, 13)


def noisy(power: float, seed: int, scatter: float = 0.1) -> numpy.ndarray:
    return SIZES**power * numpy.exp(scatter * numpy.random.default_rng(seed).standard_normal(len(SIZES)))


def test_an_exact_law_is_found_over_all_sizes():
    law = fit_power_law(SIZES, 5 * SIZES**-1.5)
    assert law.exponent.value == pytest.approx(-1.5, abs=1e-12)
    assert law.coefficient == pytest.approx(5, rel=1e-12)
    assert law.window == (16, 4096)
    assert law.exponent.high - law.exponent.low < 1e-9
    numpy.testing.assert_allclose(law.predict(SIZES), 5 * SIZES**-1.5, rtol=1e-10)


def test_order_of_sizes_does_not_matter():
    values = noisy(-2, 0)
    order = numpy.random.default_rng(1).permutation(len(SIZES))
    assert fit_power_law(SIZES, values) == fit_power_law(SIZES[order], values[order])


def test_the_slope_is_that_of_least_squares():
    values = noisy(-2, 3)
    law = fit_power_law(SIZES, values, window=(16, 4096))
    slope, intercept = numpy.polyfit(numpy.log(SIZES), numpy.log(values), 1)
    assert law.exponent.value == pytest.approx(slope, abs=1e-12)
    assert law.coefficient == pytest.approx(numpy.exp(intercept), rel=1e-10)


@pytest.mark.parametrize("level", [0.9, 0.99])
def test_intervals_cover_the_truth_as_often_as_they_say(level):
    laws = [fit_power_law(SIZES, noisy(-2, seed), window=(16, 4096), level=level, seed=seed) for seed in range(150)]
    covered = numpy.mean([law.exponent.low <= -2 <= law.exponent.high for law in laws])
    # three binomial standard errors below the level
    assert level - 3 * (level * (1 - level) / 150) ** 0.5 <= covered
    widths = [law.exponent.high - law.exponent.low for law in laws]
    assert numpy.median(widths) < 0.25


def test_points_near_a_known_floor_are_left_out():
    values = numpy.maximum(SIZES**-4.0, 1e-11)
    law = fit_power_law(SIZES, values, floor=1e-11)
    assert law.exponent.value == pytest.approx(-4, abs=1e-9)
    assert law.window[1] < SIZES[-1]


def test_a_floor_that_nobody_told_of_is_found_too():
    values = numpy.maximum(SIZES**-4.0, 1e-12) * numpy.exp(
        0.02 * numpy.random.default_rng(0).standard_normal(len(SIZES))
    )
    law = fit_power_law(SIZES, values)
    assert law.exponent.value == pytest.approx(-4, abs=0.3)
    assert SIZES[law.used[-1]] <= 1024


def test_the_start_before_the_law_sets_in_is_left_out():
    values = SIZES**-2.0 / (1 + 1e4 * SIZES**-3.0)
    law = fit_power_law(SIZES, values)
    assert law.exponent.value == pytest.approx(-2, abs=0.1)
    assert law.window[1] == 4096
    assert law.window[0] > 16


def test_a_curve_without_a_straight_piece_is_flagged():
    law = fit_power_law(SIZES, numpy.exp(-((numpy.log2(SIZES)) ** 2.0)))
    assert "share one slope" in law.flags[0]
    assert law.used == (5, 6, 7, 8)


def test_plain_data_and_back():
    law = fit_power_law(SIZES, noisy(-2, 0))
    assert PowerLaw.of(law.to_plain()) == law


@pytest.mark.parametrize(
    ("sizes", "values", "match"),
    [
        ([1, 2, 3, 4], [1, 2, 0, 4], "values of a power law: got 1 of 4 not positive"),
        ([1, 2, 3, 4], [1, 2, float("nan"), 4], "values of a power law: got 1 of 4"),
        ([1, 2, 3, 3], [1, 2, 3, 4], "sizes of a power law: got 1 repeated"),
        ([1, 2, 3], [1, 2, 3, 4], "curve: got 3 sizes and 4 values"),
        ([1, 2, 3], [1, 2, 3], "points of a power law: got 3 of 3"),
    ],
)
def test_curves_that_cannot_be_fitted(sizes, values, match):
    with pytest.raises(BadInput, match=match):
        fit_power_law(sizes, values)

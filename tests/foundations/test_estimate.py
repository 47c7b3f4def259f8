import json
import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.seeds import numpy_generator


def at_least(count, n, p):
    """P(X >= count) for a binomial X, term by term."""
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(count, n + 1))


@pytest.mark.parametrize("n", [2, 5, 30])
def test_the_t_interval_covers_as_often_as_it_says(n):
    # 2000 repetitions: the share of covering intervals has standard error 0.005 at 0.95.
    draws = numpy_generator(100, "coverage", n).normal(3.0, 2.0, size=(2000, n))
    estimates = [Estimate.mean(row, level=0.95) for row in draws]
    assert numpy.mean([e.low <= 3.0 <= e.high for e in estimates]) == pytest.approx(0.95, abs=0.02)
    assert {e.n for e in estimates} == {n}


def test_the_bootstrap_interval_covers_nearly_as_often_as_it_says():
    # 40 samples of an exponential: BCa is known to cover somewhat less than its level.
    draws = numpy_generator(100, "bootstrap coverage").exponential(1.0, size=(200, 40))
    covers = [
        e.low <= 1.0 <= e.high
        for e in (Estimate.bootstrap(row, numpy.mean, seed=0, level=0.9, num_resamples=299) for row in draws)
    ]
    assert 0.8 < numpy.mean(covers) < 0.97


@pytest.mark.parametrize(("successes", "n", "level"), [(3, 17, 0.95), (1, 40, 0.99), (39, 40, 0.99), (8, 8, 0.9)])
def test_clopper_pearson_ends_are_where_the_binomial_tails_weigh_half_of_what_is_left(successes, n, level):
    estimate = Estimate.proportion(successes, n, level=level)
    tail = (1 - level) / 2
    assert at_least(successes, n, estimate.low) == pytest.approx(tail, rel=1e-9)
    if successes < n:
        assert 1 - at_least(successes + 1, n, estimate.high) == pytest.approx(tail, rel=1e-9)
    else:
        assert estimate.high == 1.0
    assert estimate.value == successes / n


@pytest.mark.parametrize("n", [1, 7, 25])
def test_clopper_pearson_never_covers_less_than_it_says(n):
    intervals = [Estimate.proportion(count, n, level=0.9) for count in range(n + 1)]
    for p in numpy.linspace(0.01, 0.99, 33):
        chances = [math.comb(n, count) * p**count * (1 - p) ** (n - count) for count in range(n + 1)]
        covered = sum(chance for chance, e in zip(chances, intervals, strict=True) if e.low <= p <= e.high)
        assert covered >= 0.9 - 1e-12


@given(st.integers(1, 10_000))
def test_zero_failures_give_an_upper_bound(n):
    estimate = Estimate.proportion(0, n, level=0.95)
    assert (estimate.value, estimate.low) == (0.0, 0.0)
    assert estimate.high == pytest.approx(1 - 0.025 ** (1 / n), rel=1e-6)  # (1 - high)^n = 0.025


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(BadInput, match=f"got {successes} of {n}; wanted 0 <= successes <= n"):
        Estimate.proportion(successes, n)


def test_the_jackknife_of_a_mean_is_the_t_interval():
    samples = numpy_generator(1, "jackknife").normal(size=9)
    jackknife = Estimate.jackknife(lambda members: float(samples[list(members)].mean()), 9)
    student = Estimate.mean(samples)
    assert (jackknife.value, jackknife.low, jackknife.high) == pytest.approx(
        (student.value, student.low, student.high), rel=1e-12
    )
    assert jackknife.method == "jackknife t"


def test_the_jackknife_covers_a_mean_over_pairs():
    def variance(sample):  # the mean of (x_i - x_j)^2 / 2 over pairs; its expectation is 1
        return lambda members: float(sample[list(members)].var(ddof=1))

    draws = numpy_generator(2, "pairs").uniform(-math.sqrt(3), math.sqrt(3), size=(500, 12))
    estimates = [Estimate.jackknife(variance(row), 12, level=0.9) for row in draws]
    assert numpy.mean([e.low <= 1 <= e.high for e in estimates]) == pytest.approx(0.9, abs=0.05)


def test_one_unit_has_no_interval_and_says_so():
    for estimate in (Estimate.mean([4.0]), Estimate.one_seed(4.0), Estimate.jackknife(lambda members: 4.0, 2)):
        assert estimate.is_point
        assert str(estimate) == "4 (one seed)"
    assert not Estimate.exact(4.0).is_point
    assert str(Estimate.exact(4.0)) == "4"


def test_bootstrap_is_repeatable_and_names_its_method():
    samples = numpy_generator(3, "skewed").exponential(size=30)
    first, again = (Estimate.bootstrap(samples, numpy.median, seed=5, num_resamples=499) for _ in range(2))
    assert first == again
    assert first.method == "bootstrap BCa"
    assert first.low < first.value < first.high
    assert Estimate.bootstrap(samples, numpy.median, seed=6, num_resamples=499) != first


def test_bootstrap_of_samples_that_do_not_vary_falls_back_and_says_so():
    estimate = Estimate.bootstrap([2.0, 2.0, 2.0], numpy.mean, seed=0, num_resamples=99)
    assert (estimate.value, estimate.low, estimate.high) == (2.0, 2.0, 2.0)
    assert estimate.method == "bootstrap percentile"


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf, 1.0]])
def test_samples_must_be_finite_and_there(bad):
    with pytest.raises(BadInput, match=r"samples of an estimate: got (none|1 of 2 not finite)"):
        Estimate.mean(bad)
    with pytest.raises(BadInput, match="samples"):
        Estimate.bootstrap(bad, numpy.mean, seed=0)


def test_one_sample_cannot_be_bootstrapped():
    with pytest.raises(BadInput, match="samples to bootstrap: got 1; wanted at least 2"):
        Estimate.bootstrap([1.0], numpy.mean, seed=0)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.integers(1, 10**9))
def test_json_brings_back_every_bit(low, high, n):
    estimate = Estimate(value=0.1, low=low, high=high, level=LEVEL, n=n, method="t")
    text = json.dumps(estimate.to_dict(), allow_nan=False)
    assert Estimate.from_dict(json.loads(text)) == estimate

"""Groups of paths against each other: known answers, infinite sizes, and intervals that cover the truth."""

from __future__ import annotations

import math

import numpy
import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.methods.activations.plateaus.comparisons import by_base, compare, mean_over_bases, median_over_bases


def groups(shift=0.0, num_bases=12, each=6, seed=0, spread=3.0):
    stream = numpy.random.default_rng(seed)
    centre = stream.normal(size=(num_bases, 1)) * spread
    values = 40 + centre + stream.normal(size=(num_bases, each)) + shift
    return values.reshape(-1), numpy.repeat(numpy.arange(num_bases), each)


def test_a_shift_is_found_and_pairing_narrows_it():
    one, bases = groups()
    other = one + 4 + numpy.random.default_rng(1).normal(size=one.shape) * 0.1
    paired = compare(one, bases, other, bases)
    apart = compare(one, bases, other, bases, paired=False)
    assert paired.difference is not None
    assert apart.difference is not None
    assert paired.difference.low < -4 < paired.difference.high
    width = paired.difference.high - paired.difference.low
    assert width < 0.5 * (apart.difference.high - apart.difference.low)
    assert paired.auc.low > 0.9
    assert compare(other, bases, one, bases).auc.value == pytest.approx(1 - paired.auc.value)
    assert paired.difference.n == 12


def test_nothing_is_found_where_there_is_nothing():
    outside = 0
    for seed in range(20):
        one, bases = groups(seed=seed)
        other, _ = groups(seed=1000 + seed)
        found = compare(one, bases, other, bases, paired=False, seed=seed, level=0.9)
        assert found.difference is not None
        outside += not found.difference.low <= 0 <= found.difference.high
    # About 2 of 20; were paths taken for independent, far more (the next test).
    assert outside <= 6


def test_paths_from_one_base_are_not_independent():
    """The plant: every path a base of its own makes the interval far too narrow."""
    one, bases = groups()
    honest = median_over_bases(one, bases, seed=0)
    naive = median_over_bases(one, numpy.arange(len(one)), seed=0)
    assert honest.high - honest.low > 1.4 * (naive.high - naive.low)


def test_sizes_that_were_never_reached_take_part():
    one = numpy.array([10.0, 12.0, 11.0, math.inf])
    other = numpy.array([math.inf, math.inf, 30.0, math.inf])
    bases = numpy.array([0, 0, 1, 1])
    found = compare(one, bases, other, bases)
    assert found.difference is None
    assert found.auc.value == pytest.approx((1 + 0.625) / 2)
    assert found.second.value == math.inf
    assert compare(other, bases, other, bases).auc.value == 0.5
    assert compare(other, bases, other, bases).mann_whitney_p == 1.0


def test_mann_whitney_counts_bases():
    one, bases = groups(spread=0.0)
    other, _ = groups(shift=8.0, seed=3, spread=0.0)
    # 12 against 12, fully apart; 72 against 72 paths would give 1e-24.
    assert 1e-6 < compare(one, bases, other, bases, paired=False).mann_whitney_p < 1e-4


def test_a_mean_over_bases_is_the_mean():
    one, bases = groups()
    found = mean_over_bases(one, bases, seed=0)
    assert found.value == pytest.approx(one.mean())
    assert found.low < found.value < found.high
    assert median_over_bases(one[:6], bases[:6], seed=0).is_point


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(BadInput, match=r"paths of each base: got \[1, 2\]"):
        by_base(numpy.array([1.0, 2.0, 3.0]), numpy.array([0, 0, 1]))
    with pytest.raises(BadInput, match="some that are no number"):
        by_base(numpy.array([numpy.nan]), numpy.array([0]))
    one, bases = groups()
    with pytest.raises(BadInput, match="paired groups: got 12 and 6 bases"):
        compare(one, bases, one[:36], bases[:36])

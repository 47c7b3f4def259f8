from __future__ import annotations

import numpy
import pytest

from tremorscope.foundations.cluster_bootstrap import crossed_mean, few_clusters
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate


def drawn(seed: int, *, clusters: int, each: int, spread: float) -> tuple[list[bool], list[int]]:
    random = numpy.random.default_rng(seed)
    rates = (0.7 + spread * random.standard_normal(clusters)).clip(0, 1)
    owner = numpy.repeat(numpy.arange(clusters), each)
    return (random.random(clusters * each) < rates[owner]).tolist(), owner.tolist()


def width(estimate: Estimate) -> float:
    return estimate.high - estimate.low


def test_wordings_that_differ_make_the_interval_wider():
    for spread, factor in ((0.0, 1.6), (0.25, 6.0)):
        right, owner = drawn(3, clusters=30, each=60, spread=spread)
        found = crossed_mean(right, owner, range(len(right)), seed=0)
        alone = Estimate.proportion(sum(right), len(right))
        assert found.value == pytest.approx(numpy.mean(right))
        assert width(alone) <= width(found) < factor * width(alone)
    assert width(found) > 2 * width(alone)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    inside = 0
    for seed in range(120):
        right, owner = drawn(seed, clusters=40, each=10, spread=0.15)
        found = crossed_mean(right, owner, range(len(right)), seed=seed, level=0.9, num_resamples=400)
        inside += found.low <= 0.7 <= found.high
    assert 100 <= inside <= 119


def test_units_and_clusters_count_alike():
    right, owner = drawn(1, clusters=20, each=30, spread=0.3)
    numbers = list(range(len(right)))
    one = crossed_mean(right, owner, numbers, seed=4)
    other = crossed_mean(right, numbers, owner, seed=4)
    assert (one.low, one.high) == (other.low, other.high)


def test_one_cluster_leaves_the_units():
    right, _ = drawn(1, clusters=1, each=50, spread=0.0)
    found = crossed_mean(right, ["only"] * 50, range(50), seed=0)
    assert found.low < found.value < found.high
    assert "1 clusters and 50 units" in found.method
    assert few_clusters(["only"] * 50) == 1


def test_examples_that_agree_still_leave_doubt():
    found = crossed_mean([True] * 40, [0, 1] * 20, range(40), seed=0)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(Estimate.proportion(40, 40).low)
    gaps = crossed_mean([0.0] * 40, [0, 1] * 20, range(40), seed=0)
    assert (gaps.low, gaps.value, gaps.high) == (0, 0, 0)


def test_one_number_has_no_interval():
    assert crossed_mean([0.3], ["a"], ["b"], seed=0).is_point


def test_bad_input_is_told_in_a_sentence():
    with pytest.raises(BadInput, match="got 2 values, 1 clusters and 2 units"):
        crossed_mean([1.0, 2.0], ["a"], ["b", "c"], seed=0)
    with pytest.raises(BadInput, match="not finite"):
        crossed_mean([float("nan")], ["a"], ["b"], seed=0)

"""Two groups of paths against each other: difference of medians and AUC, with intervals over bases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy
from jaxtyping import Float, Int
from numpy.typing import NDArray

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.seeds import numpy_generator

NUM_RESAMPLES = 2000
Values = NDArray[numpy.float64]
Places = NDArray[Any]


@final
@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One summary of two groups of paths.

    `difference` is the median of the first less that of the second; None where a median is infinite. `auc` is the
    chance that a path of the first group has the smaller value, ties half: 0.5 when nothing tells them apart.
    `mann_whitney_p` is two-sided, on one number (the median) for each base.
    """

    first: Estimate
    second: Estimate
    difference: Estimate | None
    auc: Estimate
    mann_whitney_p: float
    is_paired: bool


def by_base(values: Float[numpy.ndarray, " n"], bases: Int[numpy.ndarray, " n"]) -> Float[numpy.ndarray, "bases each"]:
    """One row for each base, of the values along its paths.

    >>> by_base(numpy.array([1.0, 2.0, 3.0, 4.0]), numpy.array([0, 1, 0, 1]))
    array([[1., 3.],
           [2., 4.]])

    Raises:
        BadInput: If bases have unequal numbers of paths, or a value is no number.
    """
    if numpy.isnan(values).any():
        raise BadInput("values to compare", got="some that are no number", wanted="numbers, or infinity")
    counts = numpy.unique(bases, return_counts=True)[1]
    if len(set(counts.tolist())) != 1:
        raise BadInput("paths of each base", got=sorted(set(counts.tolist())), wanted="equal numbers")
    return values[numpy.argsort(bases, kind="stable")].reshape(len(counts), -1)


def median_over_bases(
    values: Float[numpy.ndarray, " n"], bases: Int[numpy.ndarray, " n"], *, seed: int, level: float = LEVEL
) -> Estimate:
    """Median of all paths; whole bases are drawn with replacement for the interval, which may have an infinite end.

    Raises:
        BadInput: As `by_base`.
    """
    table = by_base(values, bases)
    return _estimate(table, lambda drawn: numpy.median(table[drawn], axis=(1, 2)), seed, level)


def mean_over_bases(
    values: Float[numpy.ndarray, " n"], bases: Int[numpy.ndarray, " n"], *, seed: int, level: float = LEVEL
) -> Estimate:
    """Mean of all paths, likewise.

    Raises:
        BadInput: As `by_base`.
    """
    means = by_base(values, bases).mean(axis=1)
    return _estimate(means, lambda drawn: means[drawn].mean(axis=1), seed, level)


def compare(
    first: Float[numpy.ndarray, " n"],
    first_bases: Int[numpy.ndarray, " n"],
    second: Float[numpy.ndarray, " m"],
    second_bases: Int[numpy.ndarray, " m"],
    *,
    paired: bool = True,
    seed: int = 0,
    level: float = LEVEL,
) -> Comparison:
    """Do paths of one group respond at other sizes than those of another?

    Paired: both groups start from the same bases, in the same order of their numbers. Bases are what is drawn with
    replacement, together when paired and apart when not (percentile bootstrap): paths from one base share too much to
    count as independent. Infinite sizes ("never reached") take part in medians and ranks as the largest.

    Raises:
        BadInput: If paired groups have other numbers of bases, and as `by_base`.
    """
    one, other = by_base(first, first_bases), by_base(second, second_bases)
    if paired and len(one) != len(other):
        raise BadInput("paired groups", got=f"{len(one)} and {len(other)} bases", wanted="the same bases")
    wins = _wins(one, other)
    seed_of_other = seed if paired else seed + 1
    drawn = _draws(len(one), seed), _draws(len(other), seed_of_other)

    def difference(a: Places, b: Places) -> Values:
        with numpy.errstate(invalid="ignore"):
            found: Values = numpy.median(one[a], axis=(1, 2)) - numpy.median(other[b], axis=(1, 2))
        return found

    def auc(a: Places, b: Places) -> Values:
        found: Values = wins[a, b].mean(axis=1) if paired else wins[a[:, :, None], b[:, None, :]].mean(axis=(1, 2))
        return found

    everyone = numpy.arange(len(one))[None], numpy.arange(len(other))[None]
    units = min(len(one), len(other))
    gaps = difference(*drawn)
    gap = float(difference(*everyone)[0])
    return Comparison(
        first=median_over_bases(first, first_bases, seed=seed, level=level),
        second=median_over_bases(second, second_bases, seed=seed_of_other, level=level),
        difference=_interval(gap, gaps, units, level) if numpy.isfinite([gap, *gaps]).all() else None,
        auc=_interval(float(auc(*everyone)[0]), auc(*drawn), units, level),
        mann_whitney_p=_mann_whitney(numpy.median(one, axis=1), numpy.median(other, axis=1)),
        is_paired=paired,
    )


def _wins(one: Values, other: Values) -> Values:
    """Chance, for a base of each group, that a path of the first has the smaller value; ties half."""
    found = numpy.empty((len(one), len(other)))
    for place, row in enumerate(one):
        below = (row[:, None, None] < other[None]).mean(axis=(0, 2))
        found[place] = below + 0.5 * (row[:, None, None] == other[None]).mean(axis=(0, 2))
    return found


def _draws(count: int, seed: int) -> Places:
    return numpy_generator(seed, "bases").integers(count, size=(NUM_RESAMPLES, count))


def _estimate(table: Values, statistic: Callable[..., Values], seed: int, level: float) -> Estimate:
    everyone = numpy.arange(len(table))[None]
    value = float(statistic(everyone)[0])
    return _interval(value, statistic(_draws(len(table), seed)), len(table), level)


def _interval(value: float, drawn: Values, n: int, level: float) -> Estimate:
    if n == 1:
        return Estimate.one_seed(value)
    # Without interpolation: between a number and infinity there is nothing.
    low = float(numpy.quantile(drawn, (1 - level) / 2, method="inverted_cdf"))
    high = float(numpy.quantile(drawn, (1 + level) / 2, method="inverted_cdf"))
    return Estimate(
        value=value, low=min(low, value), high=max(high, value), level=level, n=n, method="bootstrap over bases"
    )


def _mann_whitney(one: Values, other: Values) -> float:
    from scipy.stats import mannwhitneyu

    pooled = numpy.concatenate([one, other])
    ranks = numpy.unique(pooled, return_inverse=True)[1].astype(numpy.float64)  # infinity is the largest rank
    if len(set(ranks.tolist())) == 1:
        return 1.0
    return float(mannwhitneyu(ranks[: len(one)], ranks[len(one) :], alternative="two-sided").pvalue)

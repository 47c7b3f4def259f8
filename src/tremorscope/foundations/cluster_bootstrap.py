"""Intervals for a mean over examples that share wordings, and things that they speak of."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy
from jaxtyping import Float
from numpy.typing import NDArray

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.seeds import numpy_generator

FEW_CLUSTERS = 6  # with so many or fewer, a bootstrap over them is too narrow to be trusted


def crossed_mean(
    values: Sequence[bool] | Sequence[float] | NDArray[Any],
    clusters: Sequence[Hashable],
    units: Sequence[Hashable],
    *,
    seed: int,
    level: float = LEVEL,
    num_resamples: int = 2000,
) -> Estimate:
    """Mean of examples, each of which has a cluster (its wording) and a unit (what it speaks of), by the bootstrap.

    Three percentile bootstraps draw with replacement whole clusters, whole units, and single examples. Of the distances
    from the mean to their ends, the squares of the first two are added and that of the third, which is in both, taken
    off, and no result is nearer than the first two: the two-way clustering of Cameron, Gelbach and Miller (2011,
    doi:10.1198/jbes.2010.07136) with percentiles in place of standard errors. An interval that takes examples for
    independent, such as Wilson's, is too narrow when a model understands one wording and not another.

    Of truth values (a share), the interval is made no narrower than the exact binomial one (Clopper and Pearson
    1934): examples that agree leave a bootstrap nothing to vary.

    With a single cluster only units are drawn; the interval then holds for that cluster. With 2 to 6, it is too narrow
    (`few_clusters` says so).

    >>> print(crossed_mean([True] * 4, ["a", "a", "b", "b"], [1, 2, 3, 4], seed=0, level=0.95))
    1 [0.3976, 1]

    Cost: `num_resamples` draws of clusters, of units and of examples.

    Raises:
        BadInput: If there are no examples, one is not finite, or there are not as many clusters and units.
    """
    is_share = numpy.asarray(values).dtype == bool
    array = numpy.asarray(values, dtype=numpy.float64).reshape(-1)
    if not len(array) == len(clusters) == len(units) or not len(array):
        raise BadInput(
            "examples to resample",
            got=f"{len(array)} values, {len(clusters)} clusters and {len(units)} units",
            wanted="as many of each, at least one",
        )
    if not numpy.isfinite(array).all():
        raise BadInput("examples to resample", got="values that are not finite", wanted="finite numbers")
    value = float(array.mean())
    num_clusters, num_units = len(set(clusters)), len(set(units))
    if num_clusters == num_units == 1 and not is_share:
        return Estimate.one_seed(value)
    ends = [
        numpy.abs(_ends(array, groups, seed, level, num_resamples) - value)
        for groups in (clusters, units, range(len(array)))
    ]
    low, high = (
        value + sign * math.sqrt(max(a * a, b * b, a * a + b * b - c * c))
        for sign, (a, b, c) in zip((-1, 1), numpy.array(ends).T, strict=True)
    )
    low, high = max(low, float(array.min())), min(high, float(array.max()))
    method = f"bootstrap over {num_clusters} clusters and {num_units} units"
    if is_share:
        exact = Estimate.proportion(int(array.sum()), len(array), level=level)
        low, high = min(low, exact.low), max(high, exact.high)
        method += ", no narrower than Clopper-Pearson"
    return Estimate(value=value, low=low, high=high, level=level, n=len(array), method=method)


def few_clusters(clusters: Sequence[Hashable]) -> int | None:
    """How many clusters there are, where they are too few for an interval that speaks of others; else None.

    >>> few_clusters(["a", "b", "a"]), few_clusters(range(30))
    (2, None)
    """
    count = len(set(clusters))
    return count if count <= FEW_CLUSTERS else None


def _ends(
    values: Float[numpy.ndarray, " examples"],
    groups: Sequence[Hashable],
    seed: int,
    level: float,
    num_resamples: int,
) -> Float[numpy.ndarray, " ends"]:
    """Percentile interval of the mean when whole groups are drawn with replacement."""
    known: dict[Hashable, int] = {}
    owner = numpy.array([known.setdefault(group, len(known)) for group in groups])
    count = len(known)
    sums, sizes = numpy.bincount(owner, values), numpy.bincount(owner)
    drawn = numpy_generator(seed, "cluster bootstrap").integers(count, size=(num_resamples, count))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    ends: numpy.ndarray = numpy.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return ends

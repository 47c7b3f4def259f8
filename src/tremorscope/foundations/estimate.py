"""A number with its uncertainty, and how both were got. No bare estimated float leaves the house."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, final

import numpy
from numpy.typing import ArrayLike, NDArray

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import numpy_generator

LEVEL = 0.99  # per-claim error 0.01


@final
@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value and the interval that covers the truth with probability `level`.

    `n` counts the independent units behind it (members, seeds, probes, trials). `method` names the
    interval. Two methods have no width: `"exact"` (an identity, not an estimate) and `"one seed"`
    (a single unit: no interval can be had, and verdicts on it are flagged).

    >>> print(Estimate.mean([1.0, 2.0, 3.0], level=0.95))
    2 [-0.4841, 4.484]
    """

    value: float
    low: float
    high: float
    level: float
    n: int
    method: str

    def __str__(self) -> str:
        if self.method == "exact":
            return f"{self.value:.4g}"
        if self.method == "one seed":
            return f"{self.value:.4g} (one seed)"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"

    @property
    def is_point(self) -> bool:
        """True when there is one unit only, hence no interval."""
        return self.method == "one seed"

    def scaled(self, by: float) -> Estimate:
        """The same estimate in another unit; `by` is known exactly.

        Raises:
            BadInput: If `by` is not positive.
        """
        if not by > 0:
            raise BadInput("scale of an estimate", got=by, wanted="a positive number")
        return replace(self, value=self.value * by, low=self.low * by, high=self.high * by)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON, which has no word for infinity: such an end is the text `"inf"` or `"-inf"`."""
        return {
            part: repr(value) if isinstance(value, float) and not math.isfinite(value) else value
            for part, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Estimate:
        """The inverse of `to_dict`."""
        ends = {part: float(data[part]) for part in ("value", "low", "high") if isinstance(data[part], str)}
        return cls(**{**data, **ends})

    @classmethod
    def exact(cls, value: float) -> Estimate:
        """An identity or a count over everything there is: no uncertainty."""
        return cls(value=float(value), low=float(value), high=float(value), level=1.0, n=1, method="exact")

    @classmethod
    def one_seed(cls, value: float) -> Estimate:
        """A single draw: a value, and no interval."""
        return cls(value=float(value), low=float(value), high=float(value), level=0.0, n=1, method="one seed")

    @classmethod
    def mean(cls, samples: ArrayLike, *, level: float = LEVEL) -> Estimate:
        """Mean of independent samples with Student's t interval; one sample gives `one_seed`.

        Raises:
            BadInput: If a sample is not finite, or there is none.
        """
        values = _finite(samples)
        if len(values) == 1:
            return cls.one_seed(float(values[0]))
        return cls._student(
            float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), len(values), level
        )

    @classmethod
    def geometric_mean(cls, samples: ArrayLike, *, level: float = LEVEL) -> Estimate:
        """Geometric mean of positive samples, with Student's t interval of their logarithms.

        >>> print(Estimate.geometric_mean([1.0, 10.0, 100.0], level=0.95))
        10 [0.0328, 3049]

        Raises:
            BadInput: If a sample is not positive and finite, or there is none.
        """
        values = _finite(samples)
        if not (values > 0).all():
            raise BadInput("samples of a geometric mean", got=float(values.min()), wanted="positive numbers")
        logs = cls.mean(numpy.log(values), level=level)
        low, high = (math.exp(max(-700.0, min(700.0, end))) for end in (logs.low, logs.high))
        method = "one seed" if logs.is_point else "t of logarithms"
        return replace(logs, value=math.exp(logs.value), low=low, high=high, method=method)

    @classmethod
    def proportion(cls, successes: int, n: int, *, level: float = LEVEL) -> Estimate:
        """Share of successes with the exact binomial interval (Clopper and Pearson 1934).

        Zero successes give an upper bound above 0, never 0 itself.

        >>> print(Estimate.proportion(0, 100, level=0.95))
        0 [0, 0.03622]

        Raises:
            BadInput: If `n` is below 1 or `successes` is outside 0..n.
        """
        from scipy.stats import binomtest  # 0.5 s to import; only counts need it

        if not 0 <= successes <= n or n < 1:
            raise BadInput("counts of a proportion", got=f"{successes} of {n}", wanted="0 <= successes <= n, n >= 1")
        interval = binomtest(successes, n).proportion_ci(confidence_level=level, method="exact")
        return cls(
            value=successes / n,
            low=float(interval.low),
            high=float(interval.high),
            level=level,
            n=n,
            method="Clopper-Pearson",
        )

    @classmethod
    def bootstrap(
        cls,
        samples: ArrayLike,
        statistic: Callable[..., Any],
        *,
        seed: int,
        level: float = LEVEL,
        num_resamples: int = 9999,
    ) -> Estimate:
        """Any statistic of independent samples with the bias-corrected accelerated bootstrap.

        `statistic` takes `(samples, axis=...)`, as NumPy's do. Samples that do not vary (or a statistic
        that does not) have no such interval; the percentile method is used then, and named.

        Raises:
            BadInput: If a sample is not finite, or there are fewer than two.
        """
        from scipy.stats import bootstrap

        values = _finite(samples)
        if len(values) < 2:
            raise BadInput("samples to bootstrap", got=len(values), wanted="at least 2")
        centre = float(statistic(values, axis=-1))
        for method in ("BCa", "percentile"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "degenerate": seen below, as ends that are not numbers
                drawn = bootstrap(
                    (values,),
                    statistic,
                    confidence_level=level,
                    n_resamples=num_resamples,
                    method=method,
                    rng=numpy_generator(seed, "bootstrap"),
                )
            low, high = (float(end) for end in drawn.confidence_interval)
            if math.isfinite(low) and math.isfinite(high):
                return cls(value=centre, low=low, high=high, level=level, n=len(values), method=f"bootstrap {method}")
        raise BadInput("bootstrap interval", got=f"[{low}, {high}]", wanted="finite ends")

    @classmethod
    def jackknife(cls, statistic: Callable[[Sequence[int]], float], n: int, *, level: float = LEVEL) -> Estimate:
        """A statistic over members that is no mean of independent terms, such as a mean over pairs.

        `statistic(members)` is evaluated on all of `range(n)` and on every set with one left out; the
        interval is Student's t on the delete-one standard error (Arvesen 1969 for U-statistics).
        With fewer than three members a mean over pairs cannot be left-one-out: the result is `one_seed`.
        """
        everyone = range(n)
        value = float(statistic(everyone))
        if n < 3:
            return cls.one_seed(value)
        without = numpy.array([statistic([i for i in everyone if i != out]) for out in everyone], dtype=float)
        error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
        return cls._student(value, error, n, level, method="jackknife t")

    @classmethod
    def _student(cls, value: float, error: float, n: int, level: float, method: str = "t") -> Estimate:
        from scipy.special import stdtrit

        half = float(stdtrit(n - 1, 0.5 + level / 2)) * error
        return cls(value=value, low=value - half, high=value + half, level=level, n=n, method=method)


def _finite(samples: ArrayLike) -> NDArray[numpy.float64]:
    values = numpy.asarray(samples, dtype=numpy.float64).reshape(-1)
    if len(values) == 0:
        raise BadInput("samples of an estimate", got="none", wanted="at least one")
    num_bad = int((~numpy.isfinite(values)).sum())
    if num_bad:
        raise BadInput("samples of an estimate", got=f"{num_bad} of {len(values)} not finite", wanted="finite numbers")
    return values

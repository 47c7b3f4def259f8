"""What the whole Hessian foretells of its restrictions: a cross-check without any subspace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.instruments.operators import LinearOperator
from tremorscope.instruments.trace import frobenius, trace


@final
@dataclass(frozen=True, kw_only=True)
class FullSpace:
    """Trace and Frobenius norm of a symmetric operator, and what a random `dimension`-subspace sees of them.

    Over uniformly random subspaces, `E Tr(H_d) = d Tr(H) / N` exactly, and `E ||H_d||_F^2` is a combination
    of `||H||_F^2` and `Tr(H)^2` with known weights. `kappa` is the quotient of the first and the root of the
    second: for `d` far below `N` it is `t sqrt(d) / sqrt(d + 1 + t^2)` with `t = Tr(H) / ||H||_F`, so that the
    kappa of a subspace tells of one number of the whole, and of the dimension that was looked at.
    """

    trace: Estimate
    frobenius: Estimate
    size: int
    dimension: int

    @property
    def restricted_trace(self) -> Estimate:
        """`d Tr(H) / N`."""
        return self.trace.scaled(self.dimension / self.size)

    @property
    def restricted_norm(self) -> Estimate:
        """Root of the expected `||H_d||_F^2`, with an interval from those of trace and norm."""
        return _of_both(self._norm_of, self.trace, self.frobenius)

    @property
    def kappa(self) -> Estimate | None:
        """Foretold kappa of a random subspace, with such an interval; None for an operator that is zero."""
        if not self._norm_of(self.trace.value, self.frobenius.value):
            return None

        def quotient(trace: float, norm: float) -> float:
            below, most = self._norm_of(trace, norm), math.sqrt(self.dimension)
            # ends of two intervals need not be those of one operator, whose kappa never exceeds the limit
            found = self.dimension / self.size * trace / below if below else math.copysign(most, trace)
            return min(most, max(-most, found))

        return _of_both(quotient, self.trace, self.frobenius)

    def _norm_of(self, trace: float, norm: float) -> float:
        n, d = float(self.size), float(self.dimension)
        if n == 1:
            return abs(norm)
        weight = d / (n * (n - 1) * (n + 2))
        return math.sqrt(weight * ((n * d + n - 2) * norm**2 + (n - d) * trace**2))


def measure_full_space(operator: LinearOperator, dimension: int, *, num_probes: int = 64, seed: int = 0) -> FullSpace:
    """Trace and norm of the whole operator, by random probes where it is too large for exactness.

    Cost: `2 num_probes` products. Up to 5,000 columns both are exact, at `2 N` products.

    Raises:
        BadInput: If the dimension is outside 1..N, or a product is not finite.
    """
    size = operator.shape[0]
    if not 1 <= dimension <= size:
        raise BadInput("dimension of a random subspace", got=dimension, wanted=f"1 to {size}", remedy="Lower it.")
    return FullSpace(
        trace=trace(operator, num_probes=num_probes, seed=seed),
        frobenius=frobenius(operator, num_probes=num_probes, seed=seed),
        size=size,
        dimension=dimension,
    )


def _of_both(function: Callable[[float, float], float], trace: Estimate, norm: Estimate) -> Estimate:
    """A function that is monotone in the norm, and in the trace on either side of zero: extremes lie at the ends."""
    value = function(trace.value, norm.value)
    if trace.method == norm.method == "exact":
        return Estimate.exact(value)
    traces = [trace.low, trace.high] + ([0.0] if trace.low < 0 < trace.high else [])
    ends = [function(t, f) for t in traces for f in (norm.low, norm.high)]
    return Estimate(
        value=value,
        low=min(ends),
        high=max(ends),
        level=max(0.0, trace.level + norm.level - 1),
        n=min(trace.n, norm.n),
        method=f"ends of both intervals ({trace.method})",
    )

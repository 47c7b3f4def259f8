"""What the whole Hessian foretells of its restrictions: a cross-check without any subspace."""

from __future__ import annotations

import math
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
    def restricted_norm(self) -> float:
        """Root of the expected `||H_d||_F^2`."""
        n, d = float(self.size), float(self.dimension)
        if n == 1:
            return abs(self.frobenius.value)
        weight = d / (n * (n - 1) * (n + 2))
        squared = weight * ((n * d + n - 2) * self.frobenius.value**2 + (n - d) * self.trace.value**2)
        return math.sqrt(squared)

    @property
    def kappa(self) -> float:
        """Foretold kappa of a random subspace; NaN for an operator that is zero."""
        return self.restricted_trace.value / self.restricted_norm if self.restricted_norm else math.nan


def measure_full_space(operator: LinearOperator, dimension: int, *, num_probes: int = 64, seed: int = 0) -> FullSpace:
    """Trace and norm of the whole operator, by random probes where it is too large for exactness.

    Cost: at most `2 num_probes` products.

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

"""The logarithm of a determinant: exactly where the matrix is small, else from random probes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.instruments.lanczos_quadrature import lanczos_quadrature
from tremorscope.instruments.operators.operator import LinearOperator
from tremorscope.instruments.subspace import Subspace
from tremorscope.instruments.trace import EXACT_SIZE


def log_determinant(
    operator: LinearOperator,
    *,
    damping: float = 0.0,
    method: Literal["auto", "exact", "quadrature"] = "auto",
    num_steps: int = 80,
    num_probes: int = 8,
    seed: int,
    known: tuple[Subspace, Tensor] | None = None,
    level: float = LEVEL,
) -> Estimate:
    """`log det(A + damping I)` of a positive definite operator.

    Eigenvalues within rounding of 0 make the logarithm of what cannot be known: then add damping. For a square J,
    `log |det J|` is half the value for `J.T @ J`.

    Args:
        operator: Known to be symmetric.
        damping: Added to every eigenvalue.
        method: `"exact"` writes the matrix down and takes all its eigenvalues in float64, `"quadrature"` is
            stochastic Lanczos quadrature. `"auto"` is exact up to 5,000 rows.
        num_steps: As for `lanczos_quadrature`, like all that follow; exact answers need none of them.
        num_probes: Likewise.
        seed: Likewise.
        known: Likewise.
        level: Likewise.

    Cost: `num_steps` sweeps of `num_probes` columns; exactly, a product for each row and one decomposition.

    >>> from tremorscope.instruments.operators import Identity
    >>> print(log_determinant(2.0 * Identity(10), seed=0))
    6.931
    >>> print(log_determinant(2.0 * Identity(10), method="quadrature", seed=0))
    6.931 [6.931, 6.931]

    Raises:
        BadInput: If an eigenvalue is not positive, besides all that `lanczos_quadrature` refuses.
    """
    if method not in ("auto", "exact", "quadrature"):
        raise BadInput("method of a log-determinant", got=method, wanted="auto, exact or quadrature")
    if operator.is_symmetric and (method == "exact" or (method == "auto" and operator.shape[0] <= EXACT_SIZE)):
        dense = operator.dense().double()
        values = torch.linalg.eigvalsh((dense + dense.T) / 2) + damping
        _check_positive(float(values.min()), "")
        return Estimate.exact(float(values.log().sum()))
    rules = lanczos_quadrature(
        operator, num_steps=num_steps, num_probes=num_probes, seed=seed, known=known, level=level
    )
    _check_positive(float(torch.cat([rules.nodes.flatten(), rules.known]).min()) + damping, "at most ")
    return rules.mean(lambda x: (x + damping).log()).scaled(operator.shape[0])


def _check_positive(lowest: float, bound: str) -> None:
    if not lowest > 0:
        raise BadInput(
            "operator for a log-determinant",
            got=f"an eigenvalue of {bound}{lowest:.3g}",
            wanted="positive ones",
            remedy="Add damping=...",
        )

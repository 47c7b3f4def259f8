"""Singular values of a dense matrix that must not die on the last metre."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput, NotConverged
from tremorscope.foundations.seeds import generator

MAX_RESIDUAL = 1e-10  # of a float64 decomposition; a sound one gives 1e-14
_Triple = tuple[Tensor, Tensor, Tensor]


@final
@dataclass(frozen=True, kw_only=True)
class SingularTriples:
    """`matrix = left @ diag(values) @ right.T`, values descending, all float64.

    `left` and `right` are None when only values could be had. `residual` is the largest
    of the relative errors of that identity and its transpose on random vectors, NaN without vectors.
    """

    left: Float[Tensor, "rows r"] | None
    values: Float[Tensor, " r"]
    right: Float[Tensor, "columns r"] | None
    residual: float
    method: str
    flags: tuple[str, ...] = ()


def decompose(matrix: Float[Tensor, "rows columns"]) -> SingularTriples:
    """Singular value decomposition in float64, whatever it takes.

    Divide and conquer (`gesdd`) comes first; it can fail on many equal singular values, as training
    Jacobians have, or return what is not finite. Then the QR iteration (`gesvd`, about six times slower),
    and last the eigenvalues of the Gram matrix: values only, those below about 1e-8 of the largest are
    noise. Each step down is said in `.flags`.

    Cost: about 20 n^3 operations and five n x n float64 matrices. Works on the CPU, on a copy.

    >>> decompose(torch.tensor([[0.0, 2.0], [1.0, 0.0]])).values
    tensor([2., 1.], dtype=torch.float64)

    Raises:
        BadInput: If an entry is not finite, or there is none.
        NotConverged: If nothing worked.
    """
    if matrix.numel() == 0:
        raise BadInput("matrix to decompose", got=f"shape {tuple(matrix.shape)}", wanted="at least one entry")
    num_bad = int((~matrix.isfinite()).sum())
    if num_bad:
        raise BadInput("matrix to decompose", got=f"{num_bad} entries that are not finite", wanted="finite numbers")
    exact = matrix.detach().to("cpu", torch.float64)
    flags: tuple[str, ...] = ()
    drivers: dict[str, Callable[[Tensor], _Triple]] = {"gesdd": _by_gesdd, "gesvd": _by_gesvd}
    for method, driver in drivers.items():
        try:
            left, values, right = driver(exact)
        except (RuntimeError, ValueError, ArithmeticError) as error:  # LinAlgError is one or another of these
            reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
            flags += (f"{method} failed: {reason}",)
            continue
        residual = _residual(exact, left, values, right)
        if residual <= MAX_RESIDUAL:
            return SingularTriples(left=left, values=values, right=right, residual=residual, method=method, flags=flags)
        flags += (f"{method} gave a residual of {residual:.1e}",)
    values = _by_gram(exact)
    if not bool(values.isfinite().all()):
        raise NotConverged(f"singular values of a {matrix.shape[0]} x {matrix.shape[1]} matrix", got="; ".join(flags))
    said = "eigenvalues of the Gram matrix: no vectors, values below 1e-8 of the largest are noise"
    return SingularTriples(
        left=None, values=values, right=None, residual=float("nan"), method="gram", flags=(*flags, said)
    )


def _by_gesdd(matrix: Tensor) -> _Triple:
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left, values, right.T


def _by_gesvd(matrix: Tensor) -> _Triple:
    import scipy.linalg

    factors: tuple[Any, ...] = scipy.linalg.svd(
        matrix.numpy(), full_matrices=False, check_finite=False, lapack_driver="gesvd"
    )
    left, values, right = (torch.from_numpy(factor) for factor in factors)
    return left, values, right.T


def _by_gram(matrix: Tensor) -> Tensor:
    thin = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    values: Tensor = torch.linalg.eigvalsh(thin.T @ thin).clamp(min=0).sqrt().flip(0)
    return values


def _residual(matrix: Tensor, left: Tensor, values: Tensor, right: Tensor) -> float:
    """The identity and its transpose on a few random vectors: n^2 work where the whole product is n^3."""
    if not all(bool(part.isfinite().all()) for part in (left, values, right)):
        return float("inf")
    worst = 0.0
    scale = float(values[0]) or 1.0
    for a, u, v in ((matrix, left, right), (matrix.T, right, left)):
        probes = torch.randn(a.shape[1], 4, generator=generator(0, "residual"), dtype=torch.float64)
        probes /= probes.norm(dim=0)
        gap = a @ probes - u @ (values[:, None] * (v.T @ probes))
        worst = max(worst, float(gap.norm(dim=0).max()) / scale)
        # Orthonormal columns: u^T u c = c.
        coordinates = torch.randn(u.shape[1], 4, generator=generator(1, "residual"), dtype=torch.float64)
        coordinates /= coordinates.norm(dim=0)
        worst = max(worst, float((u.T @ (u @ coordinates) - coordinates).norm(dim=0).max()))
    return worst

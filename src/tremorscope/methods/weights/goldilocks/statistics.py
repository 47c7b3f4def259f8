"""How positive is a spectrum: two numbers of a small symmetric matrix, and what chance gives for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput

ZERO = "the restricted Hessian is zero: kappa is undefined there"


@final
@dataclass(frozen=True, kw_only=True)
class Positivity:
    """Excess of positive curvature of one symmetric `d x d` matrix.

    `kappa = Tr / ||.||_F` lies within `sqrt(d)` of 0, and near 0 where signs are random; `positive_share` is the
    share of eigenvalues above rounding, near 1/2 there. Both are NaN, and `flag` says why, for a matrix
    that is zero.
    """

    kappa: float
    positive_share: float
    trace: float
    norm: float
    flag: str | None = None


def positivity(matrix: Float[Tensor, "d d"]) -> Positivity:
    """Kappa and the share of positive eigenvalues.

    >>> positivity(torch.diag(torch.tensor([3.0, 4.0, 0.0])))
    Positivity(kappa=1.4, positive_share=0.6666666666666666, trace=7.0, norm=5.0, flag=None)

    Raises:
        BadInput: If an entry is not finite.

    Source: Fort and Scherlis 2018, arXiv:1807.02581.
    """
    if not bool(matrix.isfinite().all()):
        raise BadInput("restricted Hessian", got="entries that are not finite", wanted="finite numbers")
    matrix = matrix.double()
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    trace, norm = float(matrix.trace()), float(matrix.norm())
    if norm == 0:
        return Positivity(kappa=math.nan, positive_share=math.nan, trace=trace, norm=norm, flag=ZERO)
    return Positivity(kappa=trace / norm, positive_share=_share(values), trace=trace, norm=norm)


def random_signs(matrix: Float[Tensor, "d d"], generator: torch.Generator) -> tuple[float, float]:
    """Kappa and positive share of the same curvatures with signs by the toss of a coin.

    The matched null: curvatures of equal size, in whatever proportions, without any excess of one sign. Its
    kappa has mean 0 and standard deviation 1, whatever the dimension. NaN for a matrix that is zero.
    """
    matrix = matrix.double()
    sizes = torch.linalg.eigvalsh((matrix + matrix.T) / 2).abs()
    signs = torch.randint(0, 2, sizes.shape, generator=generator).to(sizes) * 2 - 1
    norm = float(sizes.norm())
    if norm == 0:
        return math.nan, math.nan
    return float((signs * sizes).sum()) / norm, _share(signs * sizes)


def random_symmetric(dimension: int, generator: torch.Generator) -> tuple[float, float]:
    """Kappa and positive share of a matrix from the Gaussian orthogonal ensemble.

    Its kappa has mean 0 and standard deviation about `sqrt(2 / (d + 1))`.
    """
    entries = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    found = positivity(entries + entries.T)
    return found.kappa, found.positive_share


def _share(values: Tensor) -> float:
    rounding = len(values) * torch.finfo(values.dtype).eps * float(values.abs().max())
    return float((values > rounding).double().mean())

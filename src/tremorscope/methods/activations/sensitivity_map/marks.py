"""Which cells answer more than chance: a test against untrained twins, and one against isotropic directions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tremorscope.foundations.statistics import holm

LEVEL = 0.05  # of the family of all cells

Cells = Float[Tensor, "layers tokens"]


@final
@dataclass(frozen=True, kw_only=True)
class Marks:
    """The test of every cell. `against` names the nulls that a marked cell lies above.

    `p_isotropic` and `p_twins` (None without twins) are one-sided, `adjusted` is the larger of the two after Holm's
    correction over all cells; a cell is marked where that is below `level`.
    """

    p_isotropic: Cells
    p_twins: Cells | None
    adjusted: Cells
    level: float = LEVEL

    @property
    def marked(self) -> Bool[Tensor, "layers tokens"]:
        """Cells above all their nulls."""
        return self.adjusted < self.level

    @property
    def against(self) -> str:
        """The nulls, in words."""
        return "isotropic directions of equal norm" + ("" if self.p_twins is None else " and the untrained twins")


def mark_cells(
    matched: Float[Tensor, "layers tokens directions"],
    isotropic: Float[Tensor, "layers tokens directions"],
    twins: Float[Tensor, "twins layers tokens directions"] | None,
    *,
    noise: float,
    level: float = LEVEL,
) -> Marks:
    """Cells whose response lies above the null band, the band's own width accounted for.

    Against isotropic directions: Welch's test on logarithms, one-sided, over the directions of the cell. Against the
    twins: is the logarithm of the mean response one more draw from the twins' (a t prediction interval)? The twins'
    spread is what differs from initialisation to initialisation, so the directions of one twin say nothing of it; it is
    pooled over the tokens of the block input, and is taken no smaller than the spread pooled over all cells. A cell
    must lie above both nulls, so its p-value is the larger one (an intersection-union test), and Holm's correction runs
    over all cells. Responses below `noise` count as `noise`.

    Raises:
        ValueError: If there is a single twin: its spread is not known.
    """
    logs = _log(matched, noise)
    p_isotropic = _welch(logs, _log(isotropic, noise))
    p_twins = None
    if twins is not None:
        if len(twins) < 2:
            raise ValueError("one twin has no spread: give two, or none")
        p_twins = _prediction(_log(matched.mean(dim=-1), noise), _log(twins.mean(dim=-1), noise))
    worst = p_isotropic if p_twins is None else torch.maximum(p_isotropic, p_twins)
    adjusted = torch.tensor(holm(worst.flatten().tolist()), dtype=torch.float64).reshape(worst.shape)
    return Marks(p_isotropic=p_isotropic, p_twins=p_twins, adjusted=adjusted, level=level)


def _log(values: Tensor, noise: float) -> Tensor:
    return values.double().clamp_min(noise).log()


def _welch(own: Tensor, null: Tensor) -> Cells:
    """One-sided p-values of the means over the last axis."""
    count = own.shape[-1]
    squares = [values.var(dim=-1) / count for values in (own, null)]
    error = (squares[0] + squares[1]).sqrt()
    freedom = (squares[0] + squares[1]).square() / (
        (squares[0].square() + squares[1].square()) / (count - 1)
    ).clamp_min(1e-300)
    gap = own.mean(dim=-1) - null.mean(dim=-1)
    return _upper_tail(gap, error, freedom.clamp_min(1.0))


def _prediction(own: Cells, twins: Float[Tensor, "twins layers tokens"]) -> Cells:
    """One-sided p-values of one more draw."""
    count = len(twins)
    variance = twins.var(dim=0)
    pooled = torch.maximum(variance.mean(dim=1, keepdim=True), variance.mean()).expand_as(own)
    # The tokens of one block input share the twins' weights: fewer independent values than cells.
    freedom = torch.full_like(own, (count - 1) * math.sqrt(own.shape[1]))
    error = (pooled * (1 + 1 / count)).sqrt()
    return _upper_tail(own - twins.mean(dim=0), error, freedom)


def _upper_tail(gap: Tensor, error: Tensor, freedom: Tensor) -> Cells:
    """`P(t > gap / error)`; without any spread, 0 above and 1 elsewhere."""
    from scipy.special import stdtr

    with numpy.errstate(divide="ignore", invalid="ignore"):
        tail = stdtr(freedom.numpy(), -(gap / error).numpy())
    known = torch.from_numpy(numpy.asarray(tail))
    return torch.where(error > 0, known, torch.where(gap > 0, 0.0, 1.0).double())

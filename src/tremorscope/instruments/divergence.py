"""How far two sets of predictions are apart, example by example."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Divergence = Callable[[Tensor], Tensor]


def kl_from(clean: Float[Tensor, "batch *positions classes"]) -> Divergence:
    """A function that gives `KL(clean || edited)` in nats of each example's softmaxed outputs.

    Mean over positions where there are any; computed in float64, so that divergences of 1e-12 survive.
    A class that the clean output rules out costs nothing.

    >>> clean = torch.tensor([[0.0, 0.0]])
    >>> float(kl_from(clean)(clean + 3))
    0.0
    """
    log_p = clean.double().log_softmax(dim=-1)
    p = log_p.exp()

    def divergence(edited: Tensor) -> Tensor:
        gap = torch.where(p > 0, log_p - edited.double().log_softmax(dim=-1), 0.0)
        each = (p * gap).sum(dim=-1)
        return each.reshape(len(each), -1).mean(dim=1).clamp_min(0.0)  # below 0 only by rounding

    return divergence

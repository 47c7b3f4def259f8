"""Two clouds of activations, far from the origin, whose spread is not round."""

from __future__ import annotations

import torch

from tremorscope.methods.activations.concept_editing.direction import ConceptFit
from tremorscope.methods.activations.concept_editing.streaming import fit_rows

WIDTH = 6
SITE = "acts:layer@last"


def clouds(
    num_negative: int = 300, num_positive: int = 200, *, seed: int = 0, apart: float = 1.5, offset: float = 4.0
) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(seed)
    mixing = torch.randn(WIDTH, WIDTH, generator=stream, dtype=torch.float64)
    step = apart * torch.randn(WIDTH, generator=stream, dtype=torch.float64)
    centre = offset * torch.randn(WIDTH, generator=stream, dtype=torch.float64)
    rows = torch.randn(num_negative + num_positive, WIDTH, generator=stream, dtype=torch.float64) @ mixing + centre
    rows[num_negative:] += step
    return rows[:num_negative], rows[num_negative:]


def fitted(**options: float) -> ConceptFit:
    return fit_rows(*clouds(**options), site=SITE)

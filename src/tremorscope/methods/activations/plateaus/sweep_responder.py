"""A prepared sweep of a network's activations as something that plateaus can be measured on."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.instruments.activations.sweeps import ActivationSweep
from tremorscope.methods.activations.plateaus.responder import Outputs


@final
class SweepResponder:
    """Outputs of a sweep themselves, rather than their distance from the clean prompt's.

    A base need not be real: what moves around a random base is compared with what that base gives, so distances are
    formed by `Comparer`. Points of one prompt are computed together, and share its prefix.

    Args:
        sweep: Made by `prepare_sweep`; its flags say how it computes.
    """

    def __init__(self, sweep: ActivationSweep) -> None:
        self.sweep = sweep
        self.base: Float[Tensor, "rows d"] = sweep.base

    def outputs(self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"]) -> Outputs:
        """Late activations, and logits where there are any; differentiable."""
        points, rows = points.to(self.base), rows.to(self.base.device)
        order = rows.argsort(stable=True)
        parts = [self.sweep._route.late(points[index], rows[index]) for index in self.sweep._chunks(order, rows)]
        self.sweep.num_evaluations += len(points)
        back = order.argsort()
        logits = [part.logits for part in parts if part.logits is not None]
        return Outputs(
            late=torch.cat([part.hidden for part in parts])[back],
            logits=torch.cat(logits)[back] if len(logits) == len(parts) else None,
        )

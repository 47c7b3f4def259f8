"""A prepared sweep of a network's activations as something that plateaus can be measured on."""

from __future__ import annotations

from typing import final

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
        late = self.sweep.outputs(points, rows)
        return Outputs(late=late.hidden, logits=late.logits)

"""What one stage of a fit did, and why it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

Outcome = Literal["stalled", "budget", "target"]


@final
@dataclass(frozen=True, kw_only=True)
class StageFit:
    """One stage: its last weights and the path of the root mean squared error.

    `rmses[i]` belongs to `works[i]`, the passes over the data up to there, in forward passes; both start with
    the state before the first step. `outcome` is `stalled` when no step lowered the loss any more (the normal
    end), `budget` when iterations ran out, `target` when the error asked for was reached.
    """

    name: str
    theta: Float[Tensor, " params"]
    rmses: tuple[float, ...]
    works: tuple[int, ...]
    outcome: Outcome
    because: str

    @property
    def num_iterations(self) -> int:
        """Accepted steps."""
        return len(self.rmses) - 1

    @property
    def gain(self) -> float:
        """How many times smaller the training RMSE became."""
        return self.rmses[0] / self.rmses[-1] if self.rmses[-1] else float("inf")

    def work_until(self, rmse: float) -> int | None:
        """Passes over the data until the training error was at most `rmse`; None if it never was."""
        reached = [work for error, work in zip(self.rmses, self.works, strict=True) if error <= rmse]
        return reached[0] if reached else None


def is_slow(rmses: Sequence[float], *, window: int, progress: float) -> bool:
    """Whether the last `window` steps together lowered the error by less than the share `progress`."""
    return len(rmses) > window and rmses[-1] > (1 - progress) * rmses[-1 - window]

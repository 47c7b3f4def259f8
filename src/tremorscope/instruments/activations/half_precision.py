"""Sweeps in 16 bits: what rounding alone does to predictions, and a float32 twin that a few points are checked on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.seeds import generator
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

if TYPE_CHECKING:
    from tremorscope.instruments.activations.readouts import Responses

HALF = (torch.bfloat16, torch.float16)
CHECKED_SHARE, LEAST_CHECKED = 0.01, 2  # of the points of each call
AGREED = 0.1  # a read-out may differ from float32's by this share of itself ...
SLACK = {"kl": 1e-3, "cosine": 1e-2}  # ... and by this
SLACK_UNITS = 4.0  # of rounding of the late activation's norm, for distances


@final
@dataclass(frozen=True, kw_only=True)
class SpotCheck:
    """How far read-outs in 16 bits were from those of the same weights in float32, on some points at random.

    Attributes:
        num_checked: Points compared.
        gaps: The largest difference of each read-out.
        num_apart: Comparisons that differ by more than a tenth of the read-out (and 0.001 nats, 0.01 of a cosine, four
            units of rounding of a distance).
    """

    num_checked: int
    gaps: dict[str, float]
    num_apart: int

    @property
    def agrees(self) -> bool:
        """Whether all are close."""
        return self.num_apart == 0

    def __str__(self) -> str:
        told = ", ".join(f"{name} by up to {gap:.2g}" for name, gap in self.gaps.items())
        word = "agree with" if self.agrees else f"are apart from ({self.num_apart} of them by more than a tenth)"
        return f"{self.num_checked} points {word} float32: {told}"


def in_float32(network: Network) -> Network:
    """The same view with weights and buffers in float32: no rounding but that which the weights have already."""
    view = network._view({name: _wide(value) for name, value in network.params.items()}, network.name)
    view.buffers = {name: _wide(value) for name, value in network.buffers.items()}
    view.dtype = torch.float32
    return view


def batch_in_float32(batch: Batch) -> Batch:
    """The same batch with its real numbers in float32."""
    return batch._replace(
        args=tuple(map(_wide, batch.args)), kwargs={name: _wide(value) for name, value in batch.kwargs.items()}
    )


def checked_places(num_points: int, seed: int) -> Int[Tensor, " checked"]:
    """Which points of a call are checked: one in a hundred, two at least."""
    count = min(num_points, max(LEAST_CHECKED, math.ceil(CHECKED_SHARE * num_points)))
    return torch.randperm(num_points, generator=generator(seed, "float32 check"))[:count].sort().values


def compared(found: Responses, truth: Responses, late_norm: Float[Tensor, " n"], eps: float) -> SpotCheck:
    """Read-outs in 16 bits beside those in float32."""
    gaps, num_apart = {}, 0
    for name, value in truth.values().items():
        gap = (found.values()[name] - value).abs()
        size = 1 - value if name == "cosine" else value
        slack: Any = SLACK_UNITS * eps * late_norm if name == "l2" else max(SLACK[name], found.noise)
        gaps[name] = float(gap.max())
        num_apart += int((gap > AGREED * size.abs() + slack).sum())
    return SpotCheck(num_checked=len(late_norm), gaps=gaps, num_apart=num_apart)


def divergence(one: Float[Tensor, "n classes"], other: Float[Tensor, "n classes"]) -> float:
    """The largest divergence of two predictions of the same points, in nats."""
    told, again = (logits.detach().double().log_softmax(dim=-1) for logits in (one, other))
    return max(0.0, float((told.exp() * (told - again)).sum(dim=-1).max()))


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value

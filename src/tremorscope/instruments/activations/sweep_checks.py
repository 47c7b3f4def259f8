"""What the levels of a sweep are held against, and what is said of those that do not stand it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.instruments.activations.readouts import Responses
from tremorscope.instruments.activations.sweep_routes import Column
from tremorscope.instruments.task import Batch


def random_points(
    base: Float[Tensor, "rows d"], rows: Int[Tensor, " n"], stream: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random points half a norm away from the clean activations of some prompts."""
    noise = torch.randn(len(rows), base.shape[1], generator=stream, dtype=torch.float64)
    rows, chosen = rows.to(base.device), base[rows.to(base.device)]
    noise = (noise / noise.norm(dim=1, keepdim=True)).to(base)
    size = chosen.norm(dim=1, keepdim=True)
    return chosen + 0.5 * torch.where(size > 0, size, 1.0) * noise, rows


def gap_of(truth: Responses, found: Responses, clean: Float[Tensor, "n k"]) -> float:
    """The largest difference of two sets of read-outs.

    Distances as shares of the late activation's norm, divergences above 1 as shares of themselves: so rounding grows.
    """
    gaps = []
    for name, value in truth.values().items():
        size = {"l2": clean.norm(dim=1), "kl": value, "cosine": torch.ones_like(value)}[name]
        gaps.append(float(((found.values()[name] - value).abs() / size.clamp_min(1.0)).max()))
    return max(gaps)


def is_tokens(value: Any) -> bool:
    """Whether a value is a batch of token numbers."""
    return isinstance(value, Tensor) and value.ndim == 2 and not value.is_floating_point()


def noise_words(floor: float, dtype: torch.dtype) -> str:
    """The noise floor of a sweep in 16 bits."""
    precision = str(dtype).removeprefix("torch.")
    return f"{precision}: computations of the same points diverge by up to {floor:.2g} nats (noise floor)"


def over_all(flags: Sequence[str]) -> list[str]:
    """Why all positions are computed, from why the ways that compute fewer are not used."""
    reasons = [flag.partition(": ")[2] for flag in flags]
    return [f"all positions are computed in the blocks from the edit on: {'; '.join(reasons)}"]


def slowdown(column: Column, read_column: Column, batch: Batch) -> str:
    """What level 0 costs beside a cached sweep."""
    tokens = next((value for value in (*batch.args, *batch.kwargs.values()) if is_tokens(value)), None)
    if tokens is None or not isinstance(column, Tensor) or not isinstance(read_column, Tensor):
        return "level 0 is used: every point is a whole forward pass"
    length = tokens.shape[1]
    anew = max(1, int((read_column - column).max()) + 1)
    return (
        f"level 0 is used: every point is a whole forward pass over {length} positions, "
        f"{length / anew:.3g} times as many as a sweep with a cache would compute"
    )

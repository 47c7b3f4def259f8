"""Strength curves: KL and probabilities against the size of a step along a direction, beside random directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.instruments.network import Network
from tremorscope.methods.activations.sensitivity_map.directions import CellMetric, DirectionReading

SIZES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # as shares of the distance between two real activations
_NUM_SHOWN = 5


@final
@dataclass(frozen=True, kw_only=True)
class StrengthCurve:
    """One direction at one cell, both signs; sizes are shares of the typical distance between real activations.

    `predicted` is `a^2 lambda / 2`, which the metric says of small steps. `probabilities` has a row for each of
    `tokens`.
    """

    sizes: Float[Tensor, " sizes"]
    kl: Float[Tensor, " sizes"]
    predicted: Float[Tensor, " sizes"]
    tokens: tuple[str, ...]
    probabilities: Float[Tensor, "tokens sizes"]


@final
@dataclass(frozen=True, kw_only=True)
class RandomCurves:
    """KL along random directions of one cell, with the covariance of real activations, one row each."""

    sizes: Float[Tensor, " sizes"]
    kl: Float[Tensor, "directions sizes"]


def both_signs(sizes: Sequence[float] = SIZES) -> Float[Tensor, " sizes"]:
    """Sizes of both signs, and 0 between them.

    >>> both_signs([0.5, 1.0]).tolist()
    [-1.0, -0.5, 0.0, 0.5, 1.0]
    """
    positive = torch.tensor(sorted(sizes), dtype=torch.float64)
    return torch.cat([-positive.flip(0), torch.zeros(1, dtype=torch.float64), positive])


def strength_curve(
    network: Network, metric: CellMetric, reading: DirectionReading, *, distance: float
) -> StrengthCurve:
    """How KL and the likeliest tokens change as one steps along a direction, further and further.

    Tokens shown are those likeliest at first and at either end. Cost: 17 cached predictions.

    Args:
        network: The network, with its tokenizer.
        metric: Of the cell.
        reading: Of one of its directions.
        distance: Typical distance between two real activations, the unit of sizes.
    """
    sizes = both_signs()
    logs = _log_probabilities(metric, distance * sizes[:, None] * reading.vector.double().cpu()[None])
    middle = len(sizes) // 2
    shown = [int(token) for row in (middle, -1, 0) for token in logs[row].topk(3).indices]
    # The end points' favourites would crowd out what changes early on.
    chosen = list(dict.fromkeys([int(logs[middle].argmax()), *shown]))[:_NUM_SHOWN]
    return StrengthCurve(
        sizes=sizes,
        kl=_divergence(logs, logs[middle]),
        predicted=(distance * sizes).square() * reading.eigenvalue / 2,
        tokens=tuple(network.tokenizer.decode([token]) for token in chosen),
        probabilities=logs[:, chosen].exp().T.contiguous(),
    )


def random_curves(metric: CellMetric, directions: Float[Tensor, "directions d"], *, distance: float) -> RandomCurves:
    """KL along random directions of length 1: the band that a chosen direction is to be seen against."""
    sizes = both_signs()
    steps = distance * sizes[None, :, None] * directions.double().cpu()[:, None]
    logs = _log_probabilities(metric, steps.flatten(0, 1)).reshape(len(directions), len(sizes), -1)
    return RandomCurves(sizes=sizes, kl=_divergence(logs, logs[0, len(sizes) // 2]))


def _log_probabilities(metric: CellMetric, steps: Float[Tensor, "n d"]) -> Float[Tensor, "n tokens"]:
    with torch.no_grad():
        points = (metric.base.double().cpu() + steps).to(metric.base)
        parts = [metric.logits(part).double().cpu().log_softmax(dim=-1) for part in torch.split(points, 64)]
    return torch.cat(parts)


def _divergence(logs: Tensor, clean: Tensor) -> Tensor:
    """`KL(clean || each)`, never below 0 by rounding."""
    found: Tensor = (clean.exp() * (clean - logs)).sum(dim=-1).clamp_min(0.0)
    return found

"""Slow twins of what is measured on a training Jacobian: loops, and NumPy's decomposition."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy
import torch
from torch import Tensor

from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch


def naive_live(matrix: Tensor) -> list[int]:
    """Indices whose row or column differs from the identity's."""
    eye = torch.eye(len(matrix), dtype=matrix.dtype)
    return [i for i in range(len(matrix)) if not (matrix[i].equal(eye[i]) and matrix[:, i].equal(eye[:, i]))]


def naive_overlap(one: Tensor, other: Tensor) -> float:
    """Mean squared cosine of the principal angles."""
    cosines = numpy.linalg.svd(one.double().numpy().T @ other.double().numpy(), compute_uv=False)
    return float((cosines**2).sum() / min(one.shape[1], other.shape[1]))


def naive_worst_divergence(network: Network, directions: Tensor, batch: Batch, size: float = 1.0) -> Tensor:
    """Direction by direction, example by example, from the definition of KL."""
    clean = network.apply(network.theta, batch).double().softmax(-1)
    worst = []
    for direction in directions.T:
        moved = network.apply(network.theta + size * direction.to(network.theta), batch).double().softmax(-1)
        worst.append(max(float((p * (p / q).log()).sum()) for p, q in zip(clean, moved, strict=True)))
    return torch.tensor(worst, dtype=torch.float64)


def naive_jackknife(statistic: Callable[[Sequence[int]], float], n: int) -> float:
    """Standard error from leaving each of `n` members out."""
    without = [statistic([i for i in range(n) if i != out]) for out in range(n)]
    return float(numpy.sqrt((n - 1) * numpy.var(without)))


def naive_pairs(value: Callable[[int, int], float], members: Sequence[int]) -> float:
    """Mean over ordered pairs of different members."""
    return float(numpy.mean([value(i, j) for i in members for j in members if i != j]))

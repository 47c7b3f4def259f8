"""Small fits that several tests share."""

from __future__ import annotations

import torch

from tremorscope.instruments.network import Network
from tremorscope.methods.weights.precision.targets_to_fit import tanh_student, target_task


def parabola(hidden: int = 4, num_points: int = 40, *, dtype: torch.dtype = torch.float64) -> Network:
    """A tanh network 1-hidden-hidden-1 on y = x^2."""
    return tanh_student(target_task("square", num_points, 0, num_test=50), hidden, 0, dtype=dtype)

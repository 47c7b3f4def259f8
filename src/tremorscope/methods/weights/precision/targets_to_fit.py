"""The two targets of the floor experiment: a small random tanh network, and a parabola."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tremorscope.foundations.seeds import generator
from tremorscope.instruments.losses import squared_error
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Task
from tremorscope.methods.weights.precision.pipeline import fresh_start

TargetName = Literal["teacher", "square"]
NUM_TEST = 2000


def target_task(
    kind: TargetName,
    num_points: int,
    seed: int,
    *,
    noise: float = 0.0,
    num_test: int = NUM_TEST,
) -> Task:
    """Uniform points in [-1, 1] with exact values, or with normal noise on them.

    Args:
        kind: `teacher`, a 1-3-3-1 tanh network with standard normal weights; or `square`, `y = x^2`.
        num_points: Training points.
        seed: Names the streams of points, teacher and noise.
        noise: Standard deviation of noise on all targets, in standard deviations of the clean ones.
        num_test: Held-out points.

    >>> target_task("square", 5, 0).inputs.shape
    torch.Size([5, 1])
    """
    points = generator(seed, "points")
    inputs, test_inputs = (
        2 * torch.rand(count, 1, generator=points, dtype=torch.float64) - 1 for count in (num_points, num_test)
    )
    targets, test_targets = (_values(kind, x, seed) for x in (inputs, test_inputs))
    if noise:
        stream, size = generator(seed, "noise"), noise * float(targets.std())
        targets, test_targets = (
            y + size * torch.randn(y.shape, generator=stream, dtype=torch.float64) for y in (targets, test_targets)
        )
    return Task(
        name=kind,
        inputs=inputs,
        targets=targets,
        test_inputs=test_inputs,
        test_targets=test_targets,
        loss=squared_error,
    )


def tanh_student(task: Task, hidden: int, seed: int, *, dtype: torch.dtype = torch.float64) -> Network:
    """A network 1-hidden-hidden-1 with PyTorch's initialisation from a named stream.

    >>> tanh_student(target_task("square", 5, 0), 20, 0).layout.size
    481
    """
    dimension = task.inputs.shape[1]
    module = nn.Sequential(
        nn.Linear(dimension, hidden),
        nn.Tanh(),
        nn.Linear(hidden, hidden),
        nn.Tanh(),
        nn.Linear(hidden, task.targets.shape[1]),
    )
    return fresh_start(Network(module, name=f"{dimension}-{hidden}-{hidden}-1", dtype=dtype), task, seed)


def _values(kind: TargetName, inputs: Tensor, seed: int) -> Tensor:
    if kind == "square":
        return inputs.square()
    stream = generator(seed, "teacher")
    values = inputs
    for place, (rows, columns) in enumerate(((3, 1), (3, 3), (1, 3))):
        weight = torch.randn(rows, columns, generator=stream, dtype=torch.float64)
        bias = torch.randn(rows, generator=stream, dtype=torch.float64)
        values = values @ weight.T + bias
        if place < 2:
            values = values.tanh()
    return values

"""Networks small enough for the whole Hessian, and a loss whose Hessian is given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tremorscope.instruments.initialisation import draw_weights
from tremorscope.instruments.network import Network
from tremorscope.instruments.perceptrons import perceptron
from tremorscope.instruments.task import Task

DOUBLE = torch.float64


def blobs(generator: torch.Generator, *, size: int = 24, features: int = 5, classes: int = 3) -> Task:
    inputs = torch.randn(size, features, generator=generator, dtype=DOUBLE)
    return Task.of(inputs, torch.randint(classes, (size,), generator=generator).index_fill(0, torch.tensor([0]), 2))


def drawn(task: Task, activation: str = "tanh", *, hidden=(4,), bias: bool = True, seed: int = 0) -> Network:
    network = perceptron(task, hidden=hidden, activation=activation, bias=bias)
    return network.at(draw_weights(network, "xavier", seed=seed))


class Weights(nn.Module):
    """Gives its weights, whatever comes in."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.arange(1, size + 1, dtype=DOUBLE))

    def forward(self, x: Tensor) -> Tensor:
        return self.vector + 0 * x.sum()


def quadratic(matrix: Tensor) -> Network:
    """Loss `w^T A w / 2`."""
    task = Task.of(
        torch.zeros(1, 1, dtype=DOUBLE),
        torch.zeros(1, dtype=DOUBLE),
        loss=lambda output, target: 0.5 * output @ matrix @ output,
    )
    return Network(Weights(len(matrix)), task=task)

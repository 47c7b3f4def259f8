"""Plain networks of any width and depth for a given task: nothing drawn, to be initialised by whoever studies them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Task

Activation = Literal["relu", "tanh", "gelu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def perceptron(
    task: Task,
    *,
    hidden: Sequence[int] = (64, 64),
    activation: Activation = "relu",
    bias: bool = True,
    dtype: torch.dtype = torch.float64,
    name: str | None = None,
) -> Network:
    """A perceptron from the task's inputs (flattened) to its classes, all weights zero until they are drawn.

    >>> task = Task.of(torch.zeros(4, 2, 3), torch.tensor([0, 1, 2, 1]))
    >>> perceptron(task, hidden=(5,)).layout.shapes
    ((5, 6), (5,), (3, 5), (3,))

    Raises:
        BadInput: If the activation is unknown, a width is below 1, or the task has no classes.
    """
    module = nn.Sequential(nn.Flatten(), *_layers(task, _width(task), hidden, activation, bias))
    sizes = "-".join(str(size) for size in (_width(task), *hidden, task.num_classes))
    return _network(module, task, dtype, name or f"{activation} {sizes}")


def convolutional(
    task: Task,
    *,
    channels: Sequence[int] = (8, 16),
    activation: Activation = "relu",
    dtype: torch.dtype = torch.float64,
    name: str | None = None,
) -> Network:
    """Convolutions of 3 x 3 over square images, averaged in blocks of 2 x 2, and one linear layer.

    Each input is one square image of one or three colours, colours first where they have an axis. All weights are
    zero until they are drawn.

    Raises:
        BadInput: If the activation is unknown, a width is below 1, the task has no classes, or its inputs are no
            square images.
    """
    colours, side = _square_images(task)
    layers: list[nn.Module] = [nn.Flatten(), nn.Unflatten(1, (colours, side, side))]
    before = colours
    for width in _checked(channels, activation):
        layers += [nn.Conv2d(before, width, 3, padding=1, device="meta"), ACTIVATIONS[activation]()]
        before = width
    layers += [nn.AvgPool2d(2), nn.Flatten(), *_layers(task, before * (side // 2) ** 2, (), activation, True)]
    described = "-".join(str(size) for size in channels)
    return _network(nn.Sequential(*layers), task, dtype, name or f"convolutional {activation} {described}")


def _layers(task: Task, width: int, hidden: Sequence[int], activation: str, bias: bool) -> list[nn.Module]:
    if task.num_classes is None:
        raise BadInput(f"task {task.name!r}", got="no classes", wanted="integer targets")
    layers: list[nn.Module] = []
    # Without storage at first: a layer's own initialisation would draw from the global random stream.
    for size in _checked(hidden, activation):
        layers += [nn.Linear(width, size, bias=bias, device="meta"), ACTIVATIONS[activation]()]
        width = size
    return [*layers, nn.Linear(width, task.num_classes, bias=bias, device="meta")]


def _checked(widths: Sequence[int], activation: str) -> Sequence[int]:
    if activation not in ACTIVATIONS:
        raise BadInput("activation", got=activation, wanted=", ".join(ACTIVATIONS))
    if any(width < 1 for width in widths):
        raise BadInput("widths", got=list(widths), wanted="at least 1 each")
    return widths


def _square_images(task: Task) -> tuple[int, int]:
    for colours in (1, 3):
        side = math.isqrt(_width(task) // colours)
        if colours * side * side == _width(task) and side >= 2:
            return colours, side
    raise BadInput(
        "inputs of a convolution", got=f"{_width(task)} numbers each", wanted="square images of one or three colours"
    )


def _width(task: Task) -> int:
    return task.inputs[0].numel()


def _network(module: nn.Module, task: Task, dtype: torch.dtype, name: str) -> Network:
    module = module.to_empty(device="cpu").to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return Network(module, task=task, name=name)

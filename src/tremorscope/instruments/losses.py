"""Losses that the house knows by name; any other callable `(output, target) -> scalar` works too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput

Loss = Callable[[Tensor, Tensor], Tensor]
KnownLoss = Literal["cross_entropy", "squared_error"]


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy in nats; `output` is `[batch, classes]`, `target` integer `[batch]`.

    As in PyTorch, further axes of the output come after the classes, and targets may be probabilities.

    Raises:
        BadInput: If the shapes do not go together.
    """
    wanted = output.shape if target.is_floating_point() else output.shape[:-1][:1] + output.shape[2:]
    if target.shape != wanted:
        raise BadInput(
            "targets of the cross-entropy",
            got=f"shape {tuple(target.shape)} for outputs of shape {tuple(output.shape)}",
            wanted=f"shape {tuple(wanted)}",
            remedy="Where the classes are the last of several axes, as in language models, give a loss of your own: "
            "Task.of(inputs, targets, loss=...)."
            if output.ndim > 2
            else None,
        )
    # PyTorch takes 64-bit class indices only
    return nn.functional.cross_entropy(output, target if target.is_floating_point() else target.long())


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean over examples and coordinates of `(output - target)^2`.

    Outputs `[batch, 1]` meet targets `[batch]` one by one; otherwise the shapes are equal. (PyTorch would
    broadcast, and compare every output with every target.)

    Written out, because `torch.nn.functional.mse_loss` cannot be differentiated forward over reverse
    (PyTorch 2.13: "ZeroTensors are immutable").

    Raises:
        BadInput: If the shapes differ.
    """
    if output.shape == (*target.shape, 1):
        target = target.unsqueeze(-1)
    if output.shape != target.shape:
        raise BadInput(
            "targets of the squared error",
            got=f"shape {tuple(target.shape)}",
            wanted=f"that of the outputs, {tuple(output.shape)}",
        )
    return (output - target).square().mean()


def recognise(loss: Loss) -> KnownLoss | None:
    """Which known loss this is, PyTorch's own functions and default-option modules included; None otherwise."""
    if loss in (cross_entropy, nn.functional.cross_entropy):
        return "cross_entropy"
    if loss in (squared_error, nn.functional.mse_loss):
        return "squared_error"
    # The very classes: a subclass may compute anything.
    if type(loss) is nn.CrossEntropyLoss:
        plain = loss.weight is None and loss.reduction == "mean" and loss.label_smoothing == 0
        return "cross_entropy" if plain and loss.ignore_index == -100 else None
    if type(loss) is nn.MSELoss and loss.reduction == "mean":
        return "squared_error"
    return None


def differentiable(loss: Loss) -> Loss:
    """The same loss in a form that any mode of differentiation takes."""
    return {"cross_entropy": cross_entropy, "squared_error": squared_error, None: loss}[recognise(loss)]


def default_loss(targets: Tensor) -> Loss:
    """Cross-entropy for integer targets, mean squared error for real ones.

    Raises:
        BadInput: If the targets are of another kind.
    """
    if targets.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        return cross_entropy
    if targets.is_floating_point():
        return squared_error
    raise BadInput("targets", got=str(targets.dtype), wanted="integers (classes) or real numbers")

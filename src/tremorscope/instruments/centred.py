"""Inputs around their mean, in one common unit."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.task import Task


def centred(task: Task, *, num_examples: int | None = None) -> Task:
    """The task with its mean training input removed, all inputs divided by one number, and at most so many examples.

    The number is the standard deviation of all entries of the training inputs kept. Held-out inputs are moved by the
    same mean and divided by the same number.

    >>> import torch
    >>> task = centred(Task.of(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([0, 1])))
    >>> [[round(x, 3) for x in row] for row in task.inputs.tolist()]
    [[-1.414, 0.0], [1.414, 0.0]]

    Raises:
        BadInput: If the inputs are not real numbers or do not vary, or fewer than one example is kept.
    """
    if num_examples is not None and num_examples < 1:
        raise BadInput("number of examples", got=num_examples, wanted="at least 1")
    inputs, targets = task.inputs[:num_examples], task.targets[:num_examples]
    if not inputs.is_floating_point():
        raise BadInput(
            f"inputs of task {task.name!r}",
            got=str(inputs.dtype).removeprefix("torch."),
            wanted="real numbers",
            remedy="Use inputs.float() where they are quantities.",
        )
    mean = inputs.mean(0)
    # Population form: one example is then told as constant, not as NaN.
    unit = float((inputs - mean).double().square().mean().sqrt())
    if unit == 0:
        raise BadInput(f"inputs of task {task.name!r}", got="the same for all examples", wanted="inputs that vary")

    def moved(part: Tensor) -> Tensor:
        return (part - mean) / unit

    held_out = task.test_inputs
    return replace(
        task, inputs=moved(inputs), targets=targets, test_inputs=None if held_out is None else moved(held_out)
    )

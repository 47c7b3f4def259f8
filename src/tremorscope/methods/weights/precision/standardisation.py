"""Inputs and targets shifted and scaled to mean 0 and standard deviation 1, and the way back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.instruments.task import Task


@final
@dataclass(frozen=True, kw_only=True)
class Standardisation:
    """Means and standard deviations of the training examples; a constant coordinate keeps the scale 1."""

    input_mean: Tensor
    input_scale: Tensor
    target_mean: Tensor
    target_scale: Tensor

    @classmethod
    def of(cls, task: Task) -> Standardisation:
        """From the training examples.

        >>> x = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
        >>> Standardisation.of(Task.of(x, 10 * x)).task(Task.of(x, 10 * x)).targets.flatten().tolist()
        [-1.0, 1.0]
        """
        input_mean, input_scale = _moments(task.inputs)
        # One scale for all outputs: the mean squared error then keeps what each of them counts for.
        target_mean, _ = _moments(task.targets)
        target_scale = (task.targets - target_mean).square().mean().sqrt()
        return cls(
            input_mean=input_mean,
            input_scale=input_scale,
            target_mean=target_mean,
            target_scale=target_scale if float(target_scale) > 0 else torch.ones_like(target_scale),
        )

    @classmethod
    def identity(cls, task: Task) -> Standardisation:
        """Leaves everything as it is."""
        zero, one = torch.zeros_like(task.inputs[0]), torch.ones_like(task.inputs[0])
        return cls(
            input_mean=zero,
            input_scale=one,
            target_mean=torch.zeros_like(task.targets[0]),
            target_scale=torch.ones((), dtype=task.targets.dtype),
        )

    def inputs(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Inputs as the networks see them."""
        return (inputs - self.input_mean) / self.input_scale

    def targets(self, targets: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Targets as the networks fit them."""
        return (targets - self.target_mean) / self.target_scale

    def back(self, outputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Outputs in the units of the targets that came."""
        mean = self.target_mean if self.target_mean.ndim == outputs.ndim - 1 else self.target_mean.unsqueeze(-1)
        return outputs * self.target_scale + mean

    def task(self, task: Task) -> Task:
        """The same task in standard units."""
        test_inputs, test_targets = task.test_inputs, task.test_targets
        return replace(
            task,
            inputs=self.inputs(task.inputs),
            targets=self.targets(task.targets),
            test_inputs=None if test_inputs is None else self.inputs(test_inputs),
            test_targets=None if test_targets is None else self.targets(test_targets),
        )


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    mean = values.mean(dim=0)
    scale = (values - mean).square().mean(dim=0).sqrt()
    return mean, torch.where(scale > 0, scale, torch.ones_like(scale))

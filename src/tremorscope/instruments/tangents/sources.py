"""What else can be nudged but the first weights: learning rates, weights of examples, targets.

A source tells what its nudges add to a step: a tangent of the gradient, or of the weights after the update.
Its transpose collects the same on the way back, so that one pull through a run gives the influence of every
example at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.losses import recognise
from tremorscope.instruments.operators.second_order import exact_derivatives
from tremorscope.instruments.optimisers import Slots, TangentUpdate
from tremorscope.instruments.trainer import Training


@runtime_checkable
class Source(Protocol):
    """Nudges of something that enters a run at its steps. Blocks of nudges are `[num_entries, k]`."""

    num_entries: int

    def into_gradient(self, t: int, theta: Tensor, nudges: Tensor) -> Tensor | None:
        """Tangent that the nudges add to the gradient of step `t` (`[params, k]`), or None."""
        ...

    def into_weights(self, t: int, nudges: Tensor) -> Tensor | None:
        """Tangent that they add to the weights after step `t`, or None."""
        ...

    def collect(self, t: int, theta: Tensor, c_gradient: Tensor, c_after: Tensor, nudges: Tensor) -> None:
        """Transpose of both, added to the cotangents of the nudges in place.

        `c_gradient` is the cotangent of the step's gradient, `c_after` that of the weights after it.
        """
        ...


@final
class LearningRates:
    """Relative nudges of the learning rate: of each step, or (`is_global`) of all steps together.

    A nudge of 0.01 is one per cent more. The update is linear in its rate, decoupled decay included, so a
    nudge adds that share of the step taken.
    """

    def __init__(self, weights: Callable[[int], Tensor], num_steps: int, *, is_global: bool) -> None:
        self._weights, self.is_global = weights, is_global
        self.num_entries = 1 if is_global else num_steps

    def into_gradient(self, t: int, theta: Tensor, nudges: Tensor) -> Tensor | None:
        """None: a rate does not change the gradient of its step."""
        return None

    def into_weights(self, t: int, nudges: Tensor) -> Tensor | None:
        """The step taken, times the nudge."""
        return torch.outer(self._step(t), nudges[0 if self.is_global else t])

    def collect(self, t: int, theta: Tensor, c_gradient: Tensor, c_after: Tensor, nudges: Tensor) -> None:
        """How much of the cotangent lies along the step taken."""
        nudges[0 if self.is_global else t] += self._step(t) @ c_after

    def _step(self, t: int) -> Tensor:
        return self._weights(t + 1) - self._weights(t)


@runtime_checkable
class ExampleGradients(Protocol):
    """Whoever has the gradients of single examples at hand; divided by the size of the batch."""

    def push_examples(self, t: int, amounts: Tensor) -> Tensor:
        """`sum_i amounts_i grad loss_i / batch` of step `t`."""
        ...

    def pull_examples(self, t: int, gradient: Tensor) -> Tensor:
        """`<gradient, grad loss_i> / batch` for each example of step `t`."""
        ...


@final
class ExampleWeights:
    """Nudges of the weights of the training examples, all 1: the batch loss is `sum_i w_i loss_i / batch`.

    To leave an example out is a nudge of -1 of its weight; the batch keeps its size. Where the gradients of
    single examples are `known`, as on the structured route, they are not computed anew.
    """

    def __init__(self, training: Training, known: ExampleGradients | None = None) -> None:
        self.training, self.known = training, known
        self.num_entries = training.task.size

    def into_gradient(self, t: int, theta: Tensor, nudges: Tensor) -> Tensor | None:
        """`sum_i dw_i grad loss_i / batch` over the step's examples: one backward pass a column."""
        indices = self.training.indices(t)
        if self.known is not None:
            return self.known.push_examples(t, nudges[indices])
        with exact_derivatives(theta.device):
            pull = vjp(lambda at: self.training.example_losses(at, t), theta)[1]
            rows: Tensor = vmap(lambda amount: pull(amount)[0], in_dims=1)(nudges[indices] / len(indices))
        return rows.T.detach()

    def into_weights(self, t: int, nudges: Tensor) -> Tensor | None:
        """None: examples act through the gradient."""
        return None

    def collect(self, t: int, theta: Tensor, c_gradient: Tensor, c_after: Tensor, nudges: Tensor) -> None:
        """`<c, grad loss_i> / batch` for every example of the step: one forward pass a column."""
        indices = self.training.indices(t)
        if self.known is not None:
            nudges.index_add_(0, indices, self.known.pull_examples(t, c_gradient))
            return

        def along(direction: Tensor) -> Tensor:
            derivative: Tensor = jvp(lambda at: self.training.example_losses(at, t), (theta,), (direction,))[1]
            return derivative

        with exact_derivatives(theta.device):
            rows: Tensor = vmap(along, in_dims=1, out_dims=1)(c_gradient)
        nudges.index_add_(0, indices, rows / len(indices))


@final
class TargetNoise:
    """Nudges of the targets: class probabilities for cross-entropy, the targets themselves for squared error.

    Entry `i * num_outputs + c` belongs to output `c` of training example `i`. Up to what does not depend on
    the weights, both losses are linear in the targets: a nudge adds `-nudge . log softmax(output) / batch`
    (cross-entropy) or `-2 nudge . output / (batch outputs)` (squared error).
    """

    def __init__(self, training: Training) -> None:
        kind = recognise(training.task.loss)
        if kind is None:
            raise BadInput("loss for target noise", got="a loss of its own", wanted="cross-entropy or squared error")
        self.training = training
        with torch.no_grad():
            output = training.network.apply(training.network.params, training.batch(0))
        if output.ndim != 2:
            raise BadInput("outputs for target noise", got=f"shape {tuple(output.shape)}", wanted="[batch, outputs]")
        self.num_outputs = output.shape[1]
        self.num_entries = training.task.size * self.num_outputs
        self._through = nn.functional.log_softmax if kind == "cross_entropy" else None
        self._scale = 1.0 if kind == "cross_entropy" else 2.0 / self.num_outputs

    def into_gradient(self, t: int, theta: Tensor, nudges: Tensor) -> Tensor | None:
        """One backward pass of the outputs a column."""
        indices = self.training.indices(t)
        moved = nudges.view(-1, self.num_outputs, nudges.shape[1])[indices] * (-self._scale / len(indices))
        with exact_derivatives(theta.device):
            pull = vjp(lambda at: self._linear_in(at, t), theta)[1]
            rows: Tensor = vmap(lambda amount: pull(amount)[0], in_dims=2)(moved)
        return rows.T.detach()

    def into_weights(self, t: int, nudges: Tensor) -> Tensor | None:
        """None: targets act through the gradient."""
        return None

    def collect(self, t: int, theta: Tensor, c_gradient: Tensor, c_after: Tensor, nudges: Tensor) -> None:
        """One forward pass of the outputs a column."""
        indices = self.training.indices(t)

        def along(direction: Tensor) -> Tensor:
            derivative: Tensor = jvp(lambda at: self._linear_in(at, t), (theta,), (direction,))[1]
            return derivative

        with exact_derivatives(theta.device):
            rows: Tensor = vmap(along, in_dims=1, out_dims=2)(c_gradient)
        nudges.view(-1, self.num_outputs, nudges.shape[1]).index_add_(0, indices, rows * (-self._scale / len(indices)))

    def _linear_in(self, theta: Tensor, t: int) -> Tensor:
        output = self.training.outputs(theta, t)
        return output if self._through is None else self._through(output, dim=-1)


def forced(
    source: Source,
    nudges: Tensor,
    t: int,
    theta: Tensor,
    update: TangentUpdate,
    d_theta: Tensor,
    d_gradient: Tensor,
    d_slots: Slots,
) -> None:
    """One step of tangents with a source: what it adds to the gradient before, to the weights after."""
    extra = source.into_gradient(t, theta, nudges)
    if extra is not None:
        d_gradient += extra
    update(d_theta, d_gradient, d_slots)
    moved = source.into_weights(t, nudges)
    if moved is not None:
        d_theta += moved


def collected(
    source: Source,
    nudges: Tensor,
    t: int,
    theta: Tensor,
    update: TangentUpdate,
    c_theta: Tensor,
    c_gradient: Tensor,
    c_slots: Slots,
) -> None:
    """The transpose of `forced`."""
    after = c_theta.clone()
    update.pull_back(c_theta, c_gradient, c_slots)
    source.collect(t, theta, c_gradient, after, nudges)

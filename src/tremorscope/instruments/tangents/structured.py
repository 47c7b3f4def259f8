"""Tangents of training for stacks of linear and elementwise layers: the run is done once, every product is a GEMM.

Legend of suffixes: `O` outputs of a layer, `I` its inputs, `B` examples, `K` tangents (last and contiguous).
The coefficients of one step (activations, their derivatives, back-propagated errors) are computed once from
the primal run; a block of K tangents is then pushed through all steps while its state stays in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.instruments.losses import recognise
from tremorscope.instruments.optimisers import TangentUpdate
from tremorscope.instruments.tangents.sources import Source, collected, forced
from tremorscope.instruments.tangents.stack import LinearStack, two_derivatives
from tremorscope.instruments.trainer import Training, primal_states


@final
@dataclass(frozen=True, kw_only=True)
class _LayerStep:
    """What one layer contributes to one step's Hessian product."""

    weight_OI: Tensor
    into_IB: Tensor  # h of the layer below, transposed
    slope_OB1: Tensor | None  # phi'(z)
    bend_OB1: Tensor | None  # dL/dh * phi''(z)
    error_OB: Tensor  # dL/dz


@final
@dataclass(frozen=True, kw_only=True)
class _Step:
    layers: tuple[_LayerStep, ...]
    softmax_CB1: Tensor | None  # None: squared error
    output_scale: float
    update: TangentUpdate


@final
class StructuredTangents:
    """`V -> J V` for one training run of a `LinearStack`; blocks are `[params, k]`.

    Cost: `2 B (2 I O)` multiply-adds for the first layer and `2 B (3 I O)` for each further one, per tangent
    and step. Memory: the coefficients of all steps, `coefficient_bytes`, plus `bytes_per_column` a tangent.

    Source: Belrose and Scherlis, arXiv:2412.07003, for the object; the route is ours.
    """

    route = "structured"

    def __init__(self, training: Training, stack: LinearStack, theta: Float[Tensor, " params"]) -> None:
        self.flags: tuple[str, ...] = ()
        self.layout = training.network.layout
        self.stack = stack
        states = primal_states(training, theta)
        self._weights = [training.read(state) for state in states]
        self.last = self._weights[-1]
        self._num_slots = len(states[0]) - 1
        loss = training.task.loss
        self._cross_entropy = recognise(loss) == "cross_entropy"
        # Batches recur every epoch: one transposed copy of each is shared by all its steps.
        inputs: dict[bytes, Tensor] = {}
        self._steps = [self._step(training, state, t, inputs) for t, state in enumerate(states[: training.num_steps])]
        self._batch = max(step.layers[0].into_IB.shape[1] for step in self._steps)
        self.null_columns = self._null_columns(training, inputs)

    @classmethod
    def coefficient_bytes(cls, training: Training, stack: LinearStack) -> int:
        """Memory of the coefficients of all steps, before anything is run."""
        batch = training.trainer.batch_size or training.task.size
        per_layer = sum(4 * out * batch + out * into for out, into in (layer.shape for layer in stack.layers))
        element = training.network.dtype.itemsize
        return training.num_steps * element * (per_layer + 4 * training.network.layout.size)

    @property
    def bytes_per_column(self) -> int:
        """State, gradient, buffers and activations that one tangent needs."""
        widths = sum(out for out, _ in (layer.shape for layer in self.stack.layers))
        return self.last.element_size() * ((2 + self._num_slots) * self.layout.size + 4 * widths * self._batch)

    def __call__(
        self, block: Float[Tensor, "params k"], source: Source | None = None, nudges: Tensor | None = None
    ) -> Float[Tensor, "params k"]:
        """Push tangents of the first weights, and nudges of a source, to tangents of the last weights."""
        theta = block.to(self.last.dtype, copy=True).contiguous()
        gradient = torch.empty_like(theta)
        slots = tuple(torch.zeros_like(theta) for _ in range(self._num_slots))
        theta_views, gradient_views = self._views(theta), self._views(gradient)
        for t, step in enumerate(self._steps):
            self._hessian_product(step, theta_views, gradient_views)
            if source is None or nudges is None:
                step.update(theta, gradient, slots)
            else:
                forced(source, nudges, t, self._weights[t], step.update, theta, gradient, slots)
        return theta

    def pull_back(
        self, block: Float[Tensor, "params k"], source: Source | None = None, nudges: Tensor | None = None
    ) -> Float[Tensor, "params k"]:
        """Pull cotangents of the last weights back to the first ones: `J^T U`.

        Hessians are symmetric, so the same products serve, with the steps in reverse order. With a source,
        the cotangents of its nudges are added to `nudges`.
        """
        theta = block.to(self.last.dtype, copy=True).contiguous()
        gradient, product = torch.empty_like(theta), torch.empty_like(theta)
        slots = tuple(torch.zeros_like(theta) for _ in range(self._num_slots))
        gradient_views, product_views = self._views(gradient), self._views(product)
        for t, step in reversed(tuple(enumerate(self._steps))):
            if source is None or nudges is None:
                step.update.pull_back(theta, gradient, slots)
            else:
                collected(source, nudges, t, self._weights[t], step.update, theta, gradient, slots)
            self._hessian_product(step, gradient_views, product_views)
            theta += product
        return theta

    def push_examples(self, t: int, amounts: Float[Tensor, "batch k"]) -> Float[Tensor, "params k"]:
        """Gradient of step `t` when its examples weigh `amounts`: `sum_i amounts_i grad loss_i / batch`."""
        gradient = torch.zeros(self.layout.size, amounts.shape[1], dtype=amounts.dtype, device=amounts.device)
        for layer, (weight_OIK, bias_OK) in zip(self._steps[t].layers, self._views(gradient), strict=True):
            num_out, num_in, _ = weight_OIK.shape
            weighted_OBK = layer.error_OB.unsqueeze(-1) * amounts
            torch.bmm(layer.into_IB.expand(num_out, num_in, len(amounts)), weighted_OBK, out=weight_OIK)
            if bias_OK is not None:
                torch.sum(weighted_OBK, dim=1, out=bias_OK)
        return gradient

    def pull_examples(self, t: int, gradient: Float[Tensor, "params k"]) -> Float[Tensor, "batch k"]:
        """The transpose: `<gradient, grad loss_i> / batch` for each example of step `t`."""
        products = None
        for layer, (weight_OIK, bias_OK) in zip(self._steps[t].layers, self._views(gradient), strict=True):
            num_out, num_in, _ = weight_OIK.shape
            z_OBK = torch.bmm(layer.into_IB.T.expand(num_out, layer.into_IB.shape[1], num_in), weight_OIK)
            if bias_OK is not None:
                z_OBK += bias_OK.unsqueeze(1)
            along = z_OBK.mul_(layer.error_OB.unsqueeze(-1)).sum(0)
            products = along if products is None else products.add_(along)
        return gradient.new_zeros(0, gradient.shape[1]) if products is None else products

    def weights(self, t: int) -> Tensor:
        """Weights before step `t`."""
        return self._weights[t]

    def _views(self, block: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of each layer inside a flat block, tangents last."""
        views = []
        for layer in self.stack.layers:
            weight_OIK = block[self.layout.slice(layer.weight)].view(*layer.shape, -1)
            views.append((weight_OIK, None if layer.bias is None else block[self.layout.slice(layer.bias)]))
        return views

    def _hessian_product(
        self,
        step: _Step,
        d_params: list[tuple[Tensor, Tensor | None]],
        d_gradient: list[tuple[Tensor, Tensor | None]],
    ) -> None:
        num_tangents = d_params[0][0].shape[-1]
        d_pre: list[Tensor] = []
        d_hidden: list[Tensor] = []
        for layer, (d_weight_OIK, d_bias_OK) in zip(step.layers, d_params, strict=True):
            num_out, num_in, _ = d_weight_OIK.shape
            batch = layer.into_IB.shape[1]
            d_z_OBK = torch.bmm(layer.into_IB.T.expand(num_out, batch, num_in), d_weight_OIK)
            if d_hidden:
                below = d_hidden[-1]
                flat = d_z_OBK.view(num_out, batch * num_tangents)
                torch.addmm(flat, layer.weight_OI, below.view(num_in, batch * num_tangents), out=flat)
            if d_bias_OK is not None:
                d_z_OBK += d_bias_OK.unsqueeze(1)
            d_pre.append(d_z_OBK)
            d_hidden.append(d_z_OBK if layer.slope_OB1 is None else d_z_OBK * layer.slope_OB1)

        d_error = _output_curvature(step, d_hidden[-1])
        for index in reversed(range(len(step.layers))):
            layer, (d_weight_OIK, _) = step.layers[index], d_params[index]
            num_out, num_in, _ = d_weight_OIK.shape
            batch = layer.into_IB.shape[1]
            if layer.slope_OB1 is not None:
                # d_error holds the tangent of dL/dh: turn it into that of dL/dz = phi' dL/dh.
                d_error.mul_(layer.slope_OB1)
                if layer.bend_OB1 is not None:
                    d_error.addcmul_(layer.bend_OB1, d_pre[index])
            out_weight_OIK, out_bias_OK = d_gradient[index]
            torch.bmm(layer.into_IB.expand(num_out, num_in, batch), d_error, out=out_weight_OIK)
            if out_bias_OK is not None:
                torch.sum(d_error, dim=1, out=out_bias_OK)
            if index == 0:
                break
            below = d_hidden[index - 1]
            # Examples first, so that the second term of the weights' gradient is one GEMM.
            below_BIK = below.transpose(0, 1).reshape(batch, num_in * num_tangents)
            out_weight_OIK.view(num_out, -1).addmm_(layer.error_OB, below_BIK)
            d_below = torch.mm(layer.weight_OI.T, d_error.view(num_out, batch * num_tangents))
            d_below = d_below.view(num_in, batch, num_tangents)
            d_error = d_below.baddbmm_(
                layer.error_OB.T.expand(num_in, batch, num_out), d_weight_OIK.transpose(0, 1).contiguous()
            )

    def _step(self, training: Training, state: tuple[Tensor, ...], t: int, inputs: dict[bytes, Tensor]) -> _Step:
        theta, slots = state[0], state[1:]
        params = self.layout.unflatten(theta)
        batch = training.batch(t)
        order = training.indices(t).numpy().tobytes()
        if order not in inputs:
            inputs[order] = batch.args[0].flatten(1).to(theta.dtype).T.contiguous()
        hidden_IB, into = inputs[order], []
        derivatives: list[tuple[Tensor, Tensor] | None] = []
        for layer in self.stack.layers:
            into.append(hidden_IB)
            z_OB = params[layer.weight] @ hidden_IB
            if layer.bias is not None:
                z_OB = z_OB + params[layer.bias].unsqueeze(-1)
            derivatives.append(None if layer.phi is None else two_derivatives(layer.phi, z_OB))
            hidden_IB = z_OB if layer.phi is None else layer.phi(z_OB)
        softmax, error, scale = self._output_error(hidden_IB, training.task.targets[training.indices(t)])
        steps: list[_LayerStep] = []
        gradients: dict[str, Tensor] = {}
        for index in reversed(range(len(self.stack.layers))):
            layer, slope, bend = self.stack.layers[index], None, None
            if (pair := derivatives[index]) is not None:
                slope = pair[0].unsqueeze(-1)
                bend = (error * pair[1]).unsqueeze(-1) if bool(pair[1].any()) else None
                error = error * pair[0]
            gradients[layer.weight] = error @ into[index].T
            if layer.bias is not None:
                gradients[layer.bias] = error.sum(-1)
            steps.append(
                _LayerStep(
                    weight_OI=params[layer.weight],
                    into_IB=into[index],
                    slope_OB1=slope,
                    bend_OB1=bend,
                    error_OB=error,
                )
            )
            error = params[layer.weight].T @ error
        update = training.trainer.optimiser.linearise(
            theta, self.layout.flatten(gradients), slots, factor=training.factor(t), step=t
        )
        return _Step(layers=tuple(reversed(steps)), softmax_CB1=softmax, output_scale=scale, update=update)

    def _output_error(self, output_CB: Tensor, target: Tensor) -> tuple[Tensor | None, Tensor, float]:
        """Softmax (if any), gradient of the mean loss in the outputs, and its scale."""
        num_classes, batch = output_CB.shape
        if self._cross_entropy:
            softmax = output_CB.softmax(0)
            wanted = torch.nn.functional.one_hot(target.long(), num_classes).T.to(softmax.dtype)
            return softmax.unsqueeze(-1), (softmax - wanted) / batch, 1 / batch
        scale = 2 / (batch * num_classes)
        return None, (output_CB - target.reshape(batch, num_classes).T) * scale, scale

    def _null_columns(self, training: Training, inputs: dict[bytes, Tensor]) -> Int[Tensor, " null"]:
        """Weights fed by an input that is zero on every batch: no gradient ever reaches or leaves them.

        Their columns are the identity's, exactly, unless the optimiser shrinks weights by itself.
        """
        first = self.stack.layers[0]
        if getattr(training.trainer.optimiser, "weight_decay", 0.0) != 0:
            return torch.zeros(0, dtype=torch.int64)
        dead_I = torch.stack([(batch_IB == 0).all(1) for batch_IB in inputs.values()]).all(0)
        mask_OI = dead_I.expand(first.shape)
        start: int = self.layout.slice(first.weight).start
        return mask_OI.reshape(-1).nonzero().flatten() + start


def _output_curvature(step: _Step, d_output_CBK: Tensor) -> Tensor:
    """Hessian of the loss in the outputs, times a tangent of the outputs."""
    if step.softmax_CB1 is None:
        return d_output_CBK * step.output_scale
    weighted: Tensor = d_output_CBK * step.softmax_CB1
    mean = weighted.sum(0, keepdim=True)
    weighted.addcmul_(step.softmax_CB1, mean, value=-1).mul_(step.output_scale)
    return weighted

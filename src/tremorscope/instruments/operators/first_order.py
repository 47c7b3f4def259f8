"""Ways to carry tangents forward through one function at one point, and to multiply by its Gauss-Newton matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vjp

from tremorscope.instruments.operators.operator import columnwise
from tremorscope.instruments.operators.second_order import (
    BUILDERS,
    BlockProduct,
    Route,
    ScalarFunction,
    VectorFunction,
    WithFixed,
    batched,
    forward_over_reverse,
    pulled_back,
    without_writes,
)
from tremorscope.instruments.operators.tangent_replay import replayed_tangents


def linearised_tangents(function: VectorFunction, at: Float[Tensor, " columns"]) -> BlockProduct:
    """`J V`, traced once and replayed."""

    # Under vjp modules do not choose their in-place form to begin with; under plain jvp GRU cells do, and
    # functionalize does not see it.
    def primal(of: VectorFunction) -> VectorFunction:
        def value(point: Tensor) -> Tensor:
            result: Tensor = vjp(of, point)[0]
            return result

        return value

    return batched(replayed_tangents(without_writes(primal, function), at))


def forward_tangents(function: VectorFunction, at: Float[Tensor, " columns"]) -> BlockProduct:
    """`J V` by forward mode, with nothing kept between products."""

    def one(vector: Tensor) -> Tensor:
        result: Tensor = jvp(function, (at,), (vector,))[1]
        return result

    return batched(one)


def transposed_twice(value: Float[Tensor, " rows"], point: Float[Tensor, " columns"]) -> BlockProduct:
    """`J V` where there are no forward rules: `u -> J^T u` is linear, and its own transpose is `J`."""
    if not value.requires_grad:
        return lambda tangents: torch.zeros(len(value), tangents.shape[1]).to(value)
    cotangent = torch.zeros_like(value, requires_grad=True)
    (pulled,) = torch.autograd.grad(value, point, cotangent, create_graph=True, materialize_grads=True)
    return pulled_back(pulled, cotangent)


def central_tangents(function: VectorFunction, at: Float[Tensor, " columns"]) -> BlockProduct:
    """`J V` from two values per vector; not exact."""
    # The step that balances truncation against rounding of a central difference.
    step = torch.finfo(at.dtype).eps ** (1 / 3) * max(float(at.norm()), 1.0)

    def one(vector: Tensor) -> Tensor:
        norm = float(vector.norm())
        shift = vector * (step / norm) if norm else vector
        with torch.no_grad():
            return (function(at + shift) - function(at - shift)).mul_(norm / (2 * step))

    return lambda vectors: columnwise(one, vectors)


@final
@dataclass(frozen=True)
class TangentPair:
    """`J V` and `J^T U` of one function at one point, and its value there."""

    forward: BlockProduct
    backward: BlockProduct
    value: Tensor


def tangent_pair(outputs: WithFixed, at: Float[Tensor, " columns"], route: Route, *, once: bool) -> TangentPair:
    """Both products of the flattened outputs. With `once` nothing is traced that would not be used again."""
    flat = outputs.then(lambda output: output.reshape(-1))
    point = at.detach().clone().requires_grad_()
    value = outputs(point)
    row = value.reshape(-1)
    if route == "double_backward":
        forward = transposed_twice(row, point)
    elif route == "finite_difference":
        forward = central_tangents(flat, at)
    else:
        forward = (forward_tangents if once else linearised_tangents)(flat, at)
    return TangentPair(forward, pulled_back(row, point), value.detach())


def gauss_newton_product(
    outputs: WithFixed, output_loss: ScalarFunction, theta: Float[Tensor, " params"], route: Route, *, once: bool
) -> BlockProduct:
    """`J^T (d^2 loss / d output^2) J V`: tangents forward, curvature of the loss, one backward pass."""
    pair = tangent_pair(outputs, theta, route, once=once)

    def loss(row: Tensor) -> Tensor:
        return output_loss(row.reshape(pair.value.shape))

    middle = forward_over_reverse if once and route == "linearize" else BUILDERS[route]
    curvature = middle(loss, pair.value.reshape(-1))
    return lambda vectors: pair.backward(curvature(pair.forward(vectors).detach()).detach())

"""Recorded derivatives against torch's own, and what cannot be recorded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, jvp

from tremorscope.instruments.operators.tangent_replay import NotReplayable, replayed_tangents

POINT = torch.linspace(-1.3, 1.7, 12, dtype=torch.float64)
VECTOR = torch.linspace(2.0, -0.5, 12, dtype=torch.float64).cos()


@pytest.mark.parametrize("activation", [nn.GELU(approximate="tanh"), nn.GELU(), nn.SiLU(), nn.ReLU(), nn.Softplus()])
def test_second_derivatives_through_activations(activation: nn.Module) -> None:
    def loss(x: Tensor) -> Tensor:
        hidden: Tensor = activation(x.reshape(3, 4) @ x.reshape(4, 3) + x[:3])
        return activation(hidden * x[:9].reshape(3, 3)).square().sum()

    product = replayed_tangents(grad(loss), POINT)
    for scale in (1.0, -3.0):
        wanted = jvp(grad(loss), (POINT,), (scale * VECTOR,))[1]
        torch.testing.assert_close(product(scale * VECTOR), wanted, rtol=1e-12, atol=1e-13)


def test_constants_that_are_overwritten_later_stay_what_they_were() -> None:
    def function(x: Tensor) -> Tensor:
        scale = torch.ones(12, dtype=x.dtype)
        first = x * scale
        scale.mul_(5.0)
        return first + x * scale

    product = replayed_tangents(function, POINT)
    for _ in range(2):
        torch.testing.assert_close(product(VECTOR), 6 * VECTOR)


def test_a_function_that_does_not_depend_on_the_point_has_no_derivative() -> None:
    product = replayed_tangents(lambda _: torch.ones(3), POINT)
    assert torch.equal(product(VECTOR), torch.zeros(3))


def test_a_vector_is_not_written_into_a_constant() -> None:
    held = torch.zeros(12, dtype=torch.float64)

    class Writes(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def jvp(ctx: object, tangent: Tensor) -> Tensor:
            return held.add_(tangent).clone()

    with pytest.raises(NotReplayable, match="writes a tangent into what does not depend on it"):
        replayed_tangents(lambda x: Writes.apply(x), POINT)

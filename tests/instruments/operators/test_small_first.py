"""Small networks are not traced first: the kept graph is, and forward mode must confirm it."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

from tests.laws.operator_cases import NETWORKS, matrix, naive_hessian
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import GaussNewton, Hessian, batch_mean, route_choice
from tremorscope.instruments.operators.second_order import saved_bytes
from tremorscope.instruments.task import Task

F64 = torch.float64


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_mean, "SMALL_BYTES", route_choice.SMALL_BYTES)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", [Hessian, GaussNewton])
def test_small_networks_keep_the_graph_and_are_confirmed(kind: type[Hessian | GaussNewton], name: str) -> None:
    network = NETWORKS[name](F64)
    operator = kind(network, network.task.train_batch())
    assert operator.route == "double_backward"
    assert operator.flags == ()
    traced = kind(network, network.task.train_batch(), route="linearize")
    vectors = matrix(network.layout.size, 3, 1, F64)
    assert torch.allclose(operator @ vectors, traced @ vectors, rtol=1e-9, atol=1e-12)
    if kind is Hessian:
        assert torch.allclose(operator @ vectors, naive_hessian(network) @ vectors, rtol=1e-9, atol=1e-12)


def test_more_activations_than_that_are_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    network = NETWORKS["mlp"](F64)
    saved = Hessian(network, network.task.train_batch())._batches[0].loss.saved_bytes
    monkeypatch.setattr(batch_mean, "SMALL_BYTES", saved - 1)
    assert Hessian(network, network.task.train_batch()).route == "linearize"
    monkeypatch.setattr(batch_mean, "SMALL_BYTES", saved)
    assert Hessian(network, network.task.train_batch()).route == "double_backward"


class _Hiding(torch.autograd.Function):
    """The square, whose backward pass is right and hides its own derivative."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return 2 * x.detach() * slope


class _Squares(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return _Hiding.apply(self.weight) * x


def test_a_backward_pass_that_hides_its_derivative_is_not_believed() -> None:
    x = matrix(4, 3, 1, F64)
    network = Network(_Squares(), task=Task.of(x, torch.zeros_like(x)))
    operator = Hessian(network, network.task.train_batch())
    assert operator.route == "finite_difference"
    assert operator.flags[0].startswith("double_backward does not work here: its product differs from central")
    wanted = torch.diag(x.pow(2).mean(0) / 3 * 12 * network.theta.square())
    assert torch.allclose(operator.dense(), wanted, rtol=1e-4, atol=1e-6)


def test_what_a_pass_saves_is_counted_and_let_go() -> None:
    """Saved outputs (a softmax's, say) must not keep their own graph alive."""
    kept: list[weakref.ref[Tensor]] = []
    weight = torch.randn(50, 50, dtype=F64)

    def loss(theta: Tensor) -> Tensor:
        output = torch.tanh(weight @ theta)
        kept.append(weakref.ref(output))
        return output.exp().sum()

    saved = saved_bytes(loss, torch.randn(50, dtype=F64))
    assert saved >= 8 * (2500 + 50 + 50)  # the matrix, the tanh and the exponential
    assert saved < 8 * 2 * 2700
    gc.collect()
    assert kept[0]() is None

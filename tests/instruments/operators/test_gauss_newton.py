"""Rows E1 and E2 of the engine for the Gauss-Newton matrix, and what it must equal where a formula is known."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from torch import Tensor, nn

from tests.laws.operator_cases import (
    NETWORKS,
    SOME_OF_GPT2,
    filled,
    in_pieces,
    language_model,
    matrix,
    mlp,
    naive_gauss_newton,
    naive_hessian,
    naive_outputs,
    recurrent,
    tied,
    transformer,
)
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import GaussNewton, Hessian, residual_curvature, route_choice, tangent_replay
from tremorscope.instruments.task import Task

F64 = torch.float64


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


@functools.cache
def exact(name: str) -> Tensor:
    return naive_gauss_newton(NETWORKS[name](F64))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (torch.float32, 1e-4)])
def test_products_equal_dense_autograd(name: str, dtype: torch.dtype, tolerance: float) -> None:  # row E1
    network = NETWORKS[name](dtype)
    vectors = matrix(network.layout.size, 3, 5, dtype)
    for route in ("linearize", "double_backward") if dtype == F64 else ("double_backward",):  # tracing takes its time
        operator = GaussNewton(network, network.task.train_batch(), route=route)
        assert operator.route == route
        assert operator.flags == ()
        assert relative(operator @ vectors, exact(name) @ vectors.double()) < tolerance
        assert relative(operator @ vectors[:, 0], exact(name) @ vectors[:, 0].double()) < tolerance


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_language_model_from_transformers(attention: str) -> None:  # row E1, tied embeddings, either attention
    network = language_model(F64, attention)
    assert not [name for name in network.layout.names if "lm_head" in name]  # it is wte, once
    batch = network.task.train_batch()
    traced = GaussNewton(network, batch, parameters=SOME_OF_GPT2)
    assert traced.route == "linearize"
    assert traced.flags == ()
    vectors = matrix(traced.layout.size, 2, 5, F64)
    assert relative(traced @ vectors, naive_gauss_newton(network, SOME_OF_GPT2) @ vectors) < 1e-10
    hessian = Hessian(network, batch, parameters=SOME_OF_GPT2, route="double_backward")
    step = 1e-5 * vectors[:, 0] / vectors[:, 0].norm()

    def gradient(shift: Tensor) -> Tensor:
        leaf = hessian.layout.flatten(network.params).add(shift).requires_grad_()
        loss = network.loss({**network.params, **hessian.layout.unflatten(leaf)}, batch)
        return torch.autograd.grad(loss, leaf)[0]

    assert relative(hessian @ step, (gradient(step) - gradient(-step)) / 2) < 1e-6


def test_cross_entropy_and_squared_error_have_closed_forms() -> None:
    network = mlp(F64)
    output, jacobian = naive_outputs(network)
    probabilities = output.softmax(1)
    blocks = [torch.diag(p) - torch.outer(p, p) for p in probabilities]
    wanted = jacobian.T @ torch.block_diag(*blocks) @ jacobian / len(output)
    assert relative(GaussNewton(network, network.task.train_batch()).dense(), wanted) < 1e-12

    network = recurrent(F64)
    output, jacobian = naive_outputs(network)
    wanted = 2 / output.numel() * jacobian.T @ jacobian
    operator = GaussNewton(network, network.task.train_batch(), route="double_backward")
    assert relative(operator.dense(), wanted) < 1e-12


class Grid(nn.Module):
    """Outputs with three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.inner(x)).reshape(-1, 2, 3)


def smooth_absolute(output: Tensor, target: Tensor) -> Tensor:
    """A loss that no formula is kept for, and that mixes outputs."""
    return ((output - target).square().sum((1, 2)) + 1).sqrt().mean()


def test_any_loss_of_outputs_of_any_shape() -> None:
    with torch.random.fork_rng(devices=[]):
        module = filled(Grid(), F64)
    task = Task.of(matrix(5, 2, 1, F64), matrix(5, 6, 2, F64).reshape(5, 2, 3), loss=smooth_absolute)
    network = Network(module, task=task)
    for route in ("linearize", "double_backward"):
        operator = GaussNewton(network, task.train_batch(), route=route)
        assert relative(operator.dense(), naive_gauss_newton(network)) < 1e-10
    pieces = GaussNewton(network, in_pieces(network, 3), route="double_backward")
    assert relative(pieces.dense(), naive_gauss_newton(network)) < 1e-12


@pytest.mark.parametrize("route", ["linearize", "double_backward"])
def test_chunked_data_equals_one_batch(route: str) -> None:  # row E2
    network = mlp(F64)
    batches = in_pieces(network, 8)
    assert [len(batch.target) for batch in batches] == [8, 5]
    vectors = matrix(network.layout.size, 4, 5, F64)
    whole = GaussNewton(network, network.task.train_batch(), route=route) @ vectors
    kept = GaussNewton(network, batches, route=route)
    rebuilt = GaussNewton(network, batches, route=route, memory=1, chunk=3)
    assert relative(kept @ vectors, whole) < 1e-12
    assert relative(rebuilt @ vectors, whole) < 1e-12
    assert [part.product is None for part in rebuilt._batches] == [False, True]
    assert rebuilt.kept_bytes < kept.kept_bytes
    singly = (GaussNewton(network, batch, route="double_backward") @ vectors for batch in batches)
    assert relative(sum(singly, 0 * whole) / 2, whole) > 1e-3  # the short batch does matter


def test_the_residual_is_the_rest_and_vanishes_for_linear_networks() -> None:
    network = mlp(F64)
    batch = network.task.train_batch()
    wanted = naive_hessian(network) - exact("mlp")
    assert relative(residual_curvature(network, batch, route="double_backward").dense(), wanted) < 1e-10
    assert float(wanted.norm()) > 1e-2  # there is something to get right
    last = residual_curvature(network, batch, parameters="3.*", route="double_backward")
    assert float(last.dense().abs().max()) < 1e-14


def test_tied_weights_count_once() -> None:
    """Against the same network written out with its one matrix."""
    network = tied(F64)
    assert network.layout.names == ("embed.weight",)
    tokens, targets = network.task.inputs, network.task.targets

    def outputs(flat: Tensor) -> Tensor:
        matrix_ = flat.reshape(5, 3)
        return torch.tanh(matrix_[tokens]) @ matrix_.T

    def loss(flat: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs(flat), targets)

    jacobian = torch.autograd.functional.jacobian(outputs, network.theta).reshape(-1, 15)
    curvature = torch.autograd.functional.hessian(
        lambda z: nn.functional.cross_entropy(z.reshape(7, 5), targets), outputs(network.theta).reshape(-1)
    )
    batch = network.task.train_batch()
    assert (
        relative(GaussNewton(network, batch, route="double_backward").dense(), jacobian.T @ curvature @ jacobian)
        < 1e-12
    )
    assert relative(Hessian(network, batch).dense(), torch.autograd.functional.hessian(loss, network.theta)) < 1e-12


def test_wearing_out_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = tangent_replay._Replay.__call__
    calls = itertools.count()
    monkeypatch.setattr(  # plant the bug: every product is a little longer than the one before
        tangent_replay._Replay, "__call__", lambda self, vector: (1 + 0.1 * next(calls)) * replay(self, vector)
    )
    network = recurrent(F64)
    operator = GaussNewton(network, network.task.train_batch())
    assert operator.route == "double_backward"
    assert operator.flags[0].startswith("linearize does not work here: its product differs")
    assert relative(operator.dense(), exact("recurrent")) < 1e-10


@pytest.mark.parametrize("kind", [Hessian, GaussNewton])
def test_weights_that_stand_still_do_not_wear_out_either(kind: type[Hessian | GaussNewton]) -> None:
    """Attention on fixed weights works in place, on tensors that only their own argument shows to functionalize."""
    network = transformer(F64)
    network.module.eval()
    operator = kind(network, network.task.train_batch(), parameters="head.*")
    assert operator.route == "linearize"
    naive = naive_hessian if kind is Hessian else naive_gauss_newton
    assert relative(operator.dense(), naive(network, "head.*")) < 1e-10


class NoForwardRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        ctx.x = x.detach()  # type: ignore[attr-defined]
        return x.square()

    @staticmethod
    def backward(ctx: object, cotangent: Tensor) -> Tensor:
        return 2 * ctx.x * cotangent  # type: ignore[attr-defined]


class Squares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, -0.7, 1.1], dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return NoForwardRule.apply(x * self.weight)


def test_without_forward_rules_the_backward_pass_is_transposed() -> None:
    """Unlike the Hessian it stays exact where the backward pass hides from autograd: it needs only J."""
    x = matrix(4, 3, 1, F64)
    network = Network(Squares(), task=Task.of(x, torch.zeros_like(x)))
    operator = GaussNewton(network, network.task.train_batch())
    assert operator.route == "double_backward"
    assert operator.flags[0].startswith("linearize does not work here")
    wanted = torch.diag(x.pow(4).mean(0) * 8 / 3 * network.theta.square())  # 2/3 mean (2 x^2 w)^2
    assert relative(operator.dense(), wanted) < 1e-12
    with pytest.raises(BadInput, match=r"Gauss-Newton matrix of 'Squares' by linearize: got .* Use route='auto'"):
        GaussNewton(network, network.task.train_batch(), route="linearize")


def test_finite_differences_are_close_and_flagged() -> None:
    network = mlp(F64)
    operator = GaussNewton(network, network.task.train_batch(), route="finite_difference")
    assert operator.flags == ("finite differences: products are not exact",)
    assert relative(operator.dense(), exact("mlp")) < 1e-6


@pytest.mark.parametrize("kind", [Hessian, GaussNewton])
@pytest.mark.parametrize("faster", ["linearize", "double_backward"])
def test_tune_takes_the_faster_route_and_says_so(
    kind: type[Hessian | GaussNewton], faster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([1.0, 2.0] if faster == "linearize" else [2.0, 1.0])
    monkeypatch.setattr(route_choice, "_seconds", lambda product, theta: next(seconds))
    network = tied(F64)
    operator = kind(network, network.task.train_batch(), route="tune")
    assert operator.route == faster
    assert operator.flags[-1].startswith(f"{faster} chosen by timing: linearize {1 if faster == 'linearize' else 2} s")


def test_tune_really_times() -> None:
    network = tied(F64)
    operator = GaussNewton(network, network.task.train_batch(), route="tune")
    assert operator.route in ("linearize", "double_backward")
    assert "chosen by timing" in operator.flags[0]
    assert relative(operator.dense(), naive_gauss_newton(network)) < 1e-10


def test_parameters_that_are_not_used_have_no_curvature() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    with torch.random.fork_rng(devices=[]):
        network = Network(filled(Half(), F64), task=Task.of(matrix(4, 2, 1, F64), matrix(4, 2, 2, F64)))
    batch = network.task.train_batch()
    for kind in (Hessian, GaussNewton):
        for route in ("auto", "double_backward"):
            assert not kind(network, batch, parameters="idle", route=route).dense().any()
        whole = kind(network, batch, route="double_backward").dense()
        assert not whole[:3].any()  # idle comes first
        assert whole[3:].any()

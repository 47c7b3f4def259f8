"""Rows E1, E2 and E8 of the engine, and the ways in which a Hessian steps down and says so."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from tests.laws.operator_cases import NETWORKS, TinyTransformer, cnn, filled, matrix, mlp, naive_hessian, recurrent
from tremorscope.foundations.errors import BadInput, SiteNotFound
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Damped, Dense, Hessian, Identity, Jacobian, batch_mean, columnwise
from tremorscope.instruments.task import Batch, Task


@pytest.fixture(autouse=True)
def _nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks take the kept graph first; these tests are about tracing and what comes after it."""
    monkeypatch.setattr(batch_mean, "SMALL_BYTES", -1)


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_products_equal_dense_autograd(name: str, dtype: torch.dtype, tolerance: float) -> None:  # row E1
    network = NETWORKS[name](dtype)
    vectors = matrix(network.layout.size, 3, 5, dtype)
    wanted = naive_hessian(NETWORKS[name](torch.float64))
    for route in ("auto", "double_backward") if dtype == torch.float64 else ("double_backward",):
        operator = Hessian(network, network.task.train_batch(), route=route)
        assert operator.route == ("linearize" if route == "auto" else route)
        assert relative(operator @ vectors, wanted @ vectors.double()) < tolerance
        assert relative(operator @ vectors[:, 0], wanted @ vectors[:, 0].double()) < tolerance


@pytest.mark.parametrize("route", ["linearize", "double_backward"])
def test_chunked_data_equals_one_batch(route: str) -> None:  # row E2
    network = mlp(torch.float64)
    batches = [network.task.batch(range(0, 8)), network.task.batch(range(8, 13))]
    vectors = matrix(network.layout.size, 4, 5, torch.float64)
    whole = Hessian(network, network.task.train_batch(), route=route) @ vectors
    pieces = Hessian(network, batches, route=route) @ vectors
    assert relative(pieces, whole) < 1e-12
    singly = (Hessian(network, batch, route="double_backward") @ vectors for batch in batches)
    unweighted = sum(singly, 0 * whole) / 2
    assert relative(unweighted, whole) > 1e-3  # the short batch does matter


@pytest.mark.parametrize("route", ["linearize", "double_backward"])
def test_batches_beyond_the_memory_bound_are_rebuilt(route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = mlp(torch.float64)
    batches = [network.task.batch(range(0, 5)), network.task.batch(range(5, 13))]
    vectors = matrix(network.layout.size, 4, 5, torch.float64)
    whole = Hessian(network, batches, route=route) @ vectors
    monkeypatch.setattr(batch_mean, "MAX_CHUNK", 1)
    monkeypatch.setattr(batch_mean, "BLOCK_BYTES", 1)
    small = Hessian(network, batches, route=route, memory=1)
    assert small.chunk == 1
    assert [batch.product is None for batch in small._batches] == [False, True]
    assert relative(small @ vectors, whole) < 1e-12


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_columns_may_travel_in_any_number(chunk: int) -> None:
    network = mlp(torch.float64)
    vectors = matrix(network.layout.size, 5, 5, torch.float64)
    got = Hessian(network, network.task.train_batch(), chunk=chunk, route="double_backward") @ vectors
    assert relative(got, naive_hessian(network) @ vectors) < 1e-10


def test_finite_differences_are_close_and_flagged() -> None:
    network = mlp(torch.float64)
    operator = Hessian(network, network.task.train_batch(), route="finite_difference")
    assert operator.flags == ("finite differences: products are not exact",)
    assert relative(operator.dense(), naive_hessian(network)) < 1e-5
    assert not (operator @ torch.zeros(network.layout.size, dtype=torch.float64)).any()


def test_what_cannot_be_vmapped_goes_one_by_one() -> None:
    network = cnn(torch.float64)
    operator = Hessian(network, network.task.train_batch())
    if "one vector at a time" in " ".join(operator.flags):  # torch 2.13: a view inside max pooling
        assert operator.chunk == 1
    assert relative(operator.dense(), naive_hessian(network)) < 1e-10


def test_a_replayed_product_does_not_wear_out() -> None:
    """The trace of a GRU holds in-place operations on its own constants."""
    network = recurrent(torch.float64)
    operator = Hessian(network, network.task.train_batch(), route="linearize")
    wanted = naive_hessian(network)
    vectors = matrix(network.layout.size, 1, 5, torch.float64)
    for _ in range(4):
        assert relative(operator @ vectors, wanted @ vectors) < 1e-10


def test_wearing_out_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from tremorscope.instruments.operators import tangent_replay

    replay = tangent_replay._Replay.__call__
    calls = itertools.count()
    monkeypatch.setattr(  # plant the bug: every product is a little longer than the one before
        tangent_replay._Replay, "__call__", lambda self, vector: (1 + 0.1 * next(calls)) * replay(self, vector)
    )
    network = recurrent(torch.float64)
    operator = Hessian(network, network.task.train_batch())
    assert operator.route == "double_backward"
    assert "the same product twice gave two results" in operator.flags[0]


class NoForwardRule(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.square()

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: object, cotangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return 2 * x * cotangent


class HiddenBackward(torch.autograd.Function):
    """A backward that autograd cannot see through: double backward is wrong, and silent."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        ctx.x = x.detach()  # type: ignore[attr-defined]
        return x.square()

    @staticmethod
    def backward(ctx: object, cotangent: Tensor) -> Tensor:
        return 2 * ctx.x * cotangent  # type: ignore[attr-defined]


class Squares(nn.Module):
    def __init__(self, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.weight, self.function = nn.Parameter(torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x * self.weight)


@pytest.mark.parametrize(
    ("function", "route"), [(NoForwardRule, "double_backward"), (HiddenBackward, "finite_difference")]
)
def test_falls_back_and_says_so(function: type[torch.autograd.Function], route: str) -> None:
    x = matrix(4, 3, 1, torch.float64)
    network = Network(Squares(function), task=Task.of(x, torch.zeros_like(x)))
    operator = Hessian(network, network.task.train_batch())
    assert operator.route == route
    assert operator.flags[0].startswith("linearize does not work here")
    wanted = torch.diag(x.pow(4).mean(0) * 4 * network.theta.square())  # mean over 3 entries of w^4 x^4
    assert relative(operator.dense(), wanted) < (1e-10 if route == "double_backward" else 1e-6)


def test_an_explicit_route_does_not_fall_back() -> None:
    x = matrix(4, 3, 1, torch.float64)
    network = Network(Squares(NoForwardRule), task=Task.of(x, torch.zeros_like(x)))
    with pytest.raises(BadInput, match=r"by linearize: got .* Use route='auto'"):
        Hessian(network, network.task.train_batch(), route="linearize")


def test_a_loss_that_is_linear_has_no_curvature() -> None:
    x = matrix(4, 3, 1, torch.float64)
    task = Task.of(x, torch.zeros_like(x), loss=lambda output, _: output.mean())
    network = Network(filled(nn.Linear(3, 3), torch.float64), task=task)
    assert float(Hessian(network, network.task.train_batch()).dense().abs().max()) < 1e-12


def test_attention_in_evaluation_keeps_its_exact_second_derivative() -> None:
    with torch.random.fork_rng(devices=[]):
        module = filled(TinyTransformer(), torch.float64)
    module.eval()
    task = Task.of(torch.arange(8).reshape(2, 4) % 7, torch.tensor([0, 2]))
    network = Network(module, task=task)
    fused = torch.backends.cuda.flash_sdp_enabled()
    operator = Hessian(network, task.train_batch())
    assert operator.route == "linearize"
    assert torch.backends.cuda.flash_sdp_enabled() is fused
    vectors = matrix(network.layout.size, 1, 5, torch.float64)
    assert relative(operator @ vectors, naive_hessian(network) @ vectors) < 1e-10


def test_gradients_and_no_grad_around_it_do_not_matter() -> None:
    network = mlp(torch.float64)
    vectors = matrix(network.layout.size, 2, 5, torch.float64)
    with torch.no_grad():
        inside = Hessian(network, network.task.train_batch()) @ vectors
    again = Hessian(network, network.task.train_batch())  # built twice: the same bits
    assert torch.equal(inside, again @ vectors)
    assert not inside.requires_grad


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight * torch.rand(3, dtype=torch.float64)


def test_a_loss_that_does_not_repeat_is_refused_and_the_stream_put_back() -> None:
    x = matrix(4, 3, 1, torch.float64)
    network = Network(Noisy(), task=Task.of(x, x))
    state = torch.get_rng_state()
    with pytest.raises(BadInput, match="on the same input; wanted the same value twice"):
        Hessian(network, network.task.train_batch())
    assert torch.equal(torch.get_rng_state(), state)


def test_bad_input_is_named() -> None:
    network = mlp(torch.float64)
    batch = network.task.train_batch()
    with pytest.raises(BadInput, match="got no examples"):
        Hessian(network, [])
    with pytest.raises(BadInput, match="got no target"):
        Hessian(network, Batch(batch.args, {}, None))
    with pytest.raises(SiteNotFound, match="no parameter matches 'head"):
        Hessian(network, batch, parameters="head.*")
    with pytest.raises(BadInput, match="got 0; wanted at least 1"):
        Hessian(network, batch, chunk=0)
    with pytest.raises(BadInput, match="loss of 'Sequential': got nan; wanted a finite number"):
        Hessian(network.at(network.theta * float("nan")), batch)
    with pytest.raises(BadInput, match="got no task"):
        Hessian(Network(network.module), batch)


def test_shapes_and_dtypes_are_checked_at_the_border() -> None:
    a = Dense(matrix(3, 4, 0, torch.float64))
    with pytest.raises(BadInput, match=r"got shape \(3, 1\); wanted 4 rows"):
        a @ torch.ones(3, dtype=torch.float64)
    with pytest.raises(BadInput, match=r"got torch.float32 on cpu; wanted torch.float64"):
        a @ torch.ones(4)
    with pytest.raises(BadInput, match=r"shapes \(3, 4\) and \(4, 3\)"):
        a + a.T
    with pytest.raises(BadInput, match=r"got \(3, 4\) after \(3, 4\)"):
        a @ a
    with pytest.raises(BadInput, match=r"got torch\.float32 on cpu"):
        a + Dense(torch.zeros(3, 4))
    with pytest.raises(BadInput, match="got 3 x 4; wanted a square one"):
        a.restrict(torch.ones(4, 1, dtype=torch.float64))
    with pytest.raises(BadInput, match="damping of an operator"):
        Damped(a, 1.0)
    with pytest.raises(BadInput, match="got 1 that are not finite"):
        Dense(torch.tensor([[float("inf")]]))
    with pytest.raises(TypeError):
        a * "2"


def test_a_dense_matrix_beyond_memory_is_refused_with_its_bytes() -> None:
    with pytest.raises(BadInput, match=r"80,000,000,000 bytes \(74.51 GiB\) needed; wanted at most"):
        Identity(100_000).dense()
    with pytest.raises(BadInput, match="200 bytes"):
        Identity(5).dense(max_bytes=199)


def test_wide_operators_are_written_down_by_rows() -> None:
    calls = []

    def outputs(theta: Tensor) -> Tensor:
        calls.append(theta)
        return torch.stack([theta.sin().sum(), theta.square().sum()])

    theta = matrix(200, 1, 0, torch.float64)[:, 0]
    operator = Jacobian(outputs, theta)
    calls.clear()
    torch.testing.assert_close(operator.dense(), torch.stack([theta.cos(), 2 * theta]))
    assert len(calls) == 1


def test_symmetry_is_known_where_it_can_be() -> None:
    a = Dense(matrix(4, 4, 0, torch.float64))
    s = Dense(a.matrix + a.matrix.T)
    assert [x.is_symmetric for x in (a, s, s + s, 2 * s, a + s, Damped(s, 1.0), s.T)] == [0, 1, 1, 1, 0, 1, 1]
    assert s.restrict(torch.ones(4, 1, dtype=torch.float64)).is_symmetric
    assert (a.T @ a).is_symmetric
    assert not (a @ a).is_symmetric
    assert repr(2 * s) == "Scaled(4 x 4, float64)"


def test_jacobian_equals_central_differences() -> None:
    def function(x: Tensor) -> Tensor:
        return torch.cat([x.tanh() * x.roll(1), x.prod()[None]])

    at, step = matrix(4, 1, 0, torch.float64)[:, 0], 1e-6
    units = torch.eye(4, dtype=torch.float64)
    wanted = columnwise(lambda v: (function(at + step * v) - function(at - step * v)) / (2 * step), units)
    assert relative(Jacobian(function, at).dense(), wanted) < 1e-8


def test_jacobian_without_forward_rules_uses_two_backward_passes() -> None:
    at = matrix(4, 1, 0, torch.float64)[:, 0]
    operator = Jacobian(NoForwardRule.apply, at)
    assert operator.flags[0].startswith("jvp does not work here, double vjp used")
    assert relative(operator.dense(), torch.diag(2 * at)) < 1e-14
    assert relative(operator.T @ at, 2 * at * at) < 1e-14


def test_jacobian_that_cannot_be_vmapped_goes_column_by_column() -> None:
    def function(x: Tensor) -> Tensor:
        return x * 2 if x.sum().item() > 0 else x

    operator = Jacobian(function, torch.ones(3))
    assert torch.equal(operator.dense(), 2 * torch.eye(3))

    def data_dependent(x: Tensor) -> Tensor:
        return NoForwardRule.apply(x)

    stepwise = Jacobian(data_dependent, torch.ones(3))
    assert torch.equal(stepwise.dense(), 2 * torch.eye(3))
    assert any("one vector at a time" in flag for flag in stepwise.flags)


def test_jacobian_bad_values() -> None:
    with pytest.raises(BadInput, match=r"torch.float32 of shape \(\)"):
        Jacobian(torch.sum, torch.ones(2))
    with pytest.raises(BadInput, match="not finite"):
        Jacobian(torch.log, torch.tensor([-1.0]))
    with pytest.raises(BadInput, match="chunk: got 0"):
        Jacobian(torch.sin, torch.ones(2), chunk=0)

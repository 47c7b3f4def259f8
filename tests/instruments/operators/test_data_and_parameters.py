"""What may be handed to an operator: data in any form, parameters in any words, plain functions; and its errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.laws.operator_cases import filled, matrix, mlp, naive_hessian, tied
from tremorscope.foundations.errors import BadInput, SiteNotFound
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import (
    Damped,
    Dense,
    EmpiricalFisher,
    GaussNewton,
    Hessian,
    LinearOperator,
    ModelJacobian,
    PerExampleGradients,
    ProductCost,
)
from tremorscope.instruments.operators.second_order import exact_derivatives
from tremorscope.instruments.task import Batch, Task

F64 = torch.float64
OVER_DATA: list[Callable[..., Any]] = [Hessian, GaussNewton, EmpiricalFisher, PerExampleGradients]


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("kind", OVER_DATA)
def test_pairs_lists_and_loaders_are_the_same_data(kind: Callable[..., Any]) -> None:
    network = mlp(F64)
    x, y = network.task.inputs.float(), network.task.targets  # pairs are cast, as a Task is
    options = {} if kind in (EmpiricalFisher, PerExampleGradients) else {"route": "double_backward"}
    exact = network.with_task(Task.of(x, y))
    wanted = kind(exact, exact.task.train_batch(), **options).dense()
    for data in (
        (x, y),
        [(x[:5], y[:5]), (x[5:], y[5:])],
        DataLoader(TensorDataset(x, y), batch_size=5),
        (pair for pair in [[x[:7], y[:7]], [x[7:], y[7:]]]),
        [((x,), y)],
        [({"input": x}, y)],
        [(x[:0], y[:0]), (x, y)],
    ):
        assert relative(kind(network, data, **options).dense(), wanted) < 1e-12


def test_a_loader_is_read_once_and_may_shuffle() -> None:
    network = mlp(F64)
    dataset = TensorDataset(network.task.inputs, network.task.targets)
    loader = DataLoader(dataset, batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(0))
    operator = GaussNewton(network, loader, memory=1, route="double_backward")
    assert torch.equal(operator.dense(), operator.dense())
    whole = GaussNewton(network, network.task.train_batch(), route="double_backward")
    assert relative(operator.dense(), whole.dense()) < 1e-12


@pytest.mark.parametrize("kind", OVER_DATA)
def test_bad_data_is_named(kind: Callable[..., Any]) -> None:
    network = mlp(F64)
    batch = network.task.train_batch()
    with pytest.raises(BadInput, match="got no examples; wanted a Batch, a pair"):
        kind(network, [])
    with pytest.raises(BadInput, match="got no examples"):
        kind(network, (network.task.inputs[:0], network.task.targets[:0]))
    with pytest.raises(BadInput, match="got no target; wanted inputs with targets"):
        kind(network, Batch(batch.args, {}, None))
    with pytest.raises(BadInput, match=r"batch 0 of the .*: got Tensor; wanted a Batch, or a pair"):
        kind(network, [network.task.inputs])
    with pytest.raises(BadInput, match=r"loss of 'Sequential': got no task; wanted data with targets. Pass task="):
        kind(Network(network.module), batch)
    with pytest.raises(BadInput, match="loss of 'Sequential': got nan; wanted a finite number"):
        kind(network.at(network.theta * float("nan")), batch)
    bad = batch.args[0].clone()
    bad[0] = float("inf")
    with pytest.raises(BadInput, match="loss of 'Sequential' on batch 1: got nan; wanted a finite number"):
        kind(network, [batch, Batch((bad,), {}, batch.target)])
    with pytest.raises(BadInput, match="chunk: got 0; wanted at least 1"):
        kind(network, batch, chunk=0)


class Odd(nn.Module):
    """A table of integers and one frozen matrix beside what is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.arange(3), requires_grad=False)
        self.frozen = nn.Parameter(matrix(2, 3, 1, F64), requires_grad=False)
        self.trained = nn.Parameter(matrix(3, 2, 2, F64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x[:, self.table] @ self.trained) @ self.frozen


def odd() -> Network:
    return Network(Odd(), task=Task.of(matrix(5, 3, 3, F64), matrix(5, 3, 4, F64)))


@pytest.mark.parametrize("kind", OVER_DATA)
def test_integer_weights_are_refused_unless_left_out(kind: Callable[..., Any]) -> None:
    network = odd()
    batch = network.task.train_batch()
    with pytest.raises(BadInput, match=r"parameter 'table' of the .*: got torch.int64; .* p.is_floating_point\(\)"):
        kind(network, batch)
    assert kind(network, batch, parameters=lambda name, p: p.is_floating_point()).shape[1] == 12
    chosen = kind(network, batch, parameters=lambda name, p: p.requires_grad)
    assert chosen.layout.names == ("trained",)
    assert torch.equal(chosen.dense(), kind(network, batch, parameters="trained").dense())


def test_the_jacobian_of_a_model_refuses_integers_too() -> None:
    network = odd()
    with pytest.raises(BadInput, match=r"parameter 'table' of the Jacobian: got torch.int64"):
        ModelJacobian(network, network.task.inputs)


def test_weights_of_two_precisions_are_refused() -> None:
    with torch.random.fork_rng(devices=[]):
        module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    network = Network(module, task=Task.of(torch.ones(1, 2), torch.ones(1, 2)))
    with pytest.raises(BadInput, match=r"parameter '1.weight' of the Hessian: got torch.float64; .* Cast all"):
        Hessian(network, network.task.train_batch())


def test_parameters_may_be_chosen_in_any_words() -> None:
    network = mlp(F64)
    batch = network.task.train_batch()
    wanted = naive_hessian(network, "3.*")
    for words in ("3.*", "3.weight, 3.bias", ["3.weight", "3.b*"], re.compile(r"^3\."), lambda name, p: len(p) == 3):
        operator = Hessian(network, batch, parameters=words, route="double_backward")
        assert operator.layout.names == ("3.weight", "3.bias")
        assert relative(operator.dense(), wanted) < 1e-10
    with pytest.raises(SiteNotFound, match=r"no parameter matches '3.wieght'.*Did you mean '3.weight'\?"):
        Hessian(network, batch, parameters=["0.*", "3.wieght"])
    with pytest.raises(SiteNotFound, match=r"no parameter matches the regular expression '3.wieght'.*Did you mean"):
        GaussNewton(network, batch, parameters=re.compile("3.wieght"))
    with pytest.raises(SiteNotFound, match=r"no parameter satisfies the predicate: wanted one of 0.weight"):
        EmpiricalFisher(network, batch, parameters=lambda name, p: False)
    with pytest.raises(SiteNotFound, match="no parameter is chosen: got an empty list"):
        PerExampleGradients(network, batch, parameters=[])


def loss_by_name(params: dict[str, Tensor]) -> Tensor:
    return (params["a"].square().sum() * params["b"]).sum()


def test_plain_functions_of_named_tensors() -> None:
    theta = {"a": torch.tensor([1.0, 2.0], dtype=F64), "b": torch.tensor([3.0], dtype=F64)}
    operator = Hessian.of(loss_by_name, theta)
    wanted = torch.tensor([[6.0, 0, 2], [0, 6, 4], [2, 4, 0]], dtype=F64)
    assert torch.allclose(operator.dense(), wanted)
    named = operator.layout.unflatten(operator @ operator.layout.flatten({"b": theta["b"], "a": theta["a"]}))
    assert torch.allclose(named["b"], torch.tensor([10.0], dtype=F64))
    assert torch.allclose(Hessian.of(loss_by_name, theta, parameters="a").dense(), wanted[:2, :2])
    with pytest.raises(SiteNotFound, match="no parameter matches 'c'"):
        Hessian.of(loss_by_name, theta, parameters="c")


def test_plain_functions_of_a_flat_vector() -> None:
    at = matrix(4, 1, 0, F64)[:, 0]
    assert relative(Hessian.of(lambda p: p.sin().sum(), at).dense(), torch.diag(-at.sin())) < 1e-12

    def outputs(p: Tensor) -> Tensor:
        return torch.stack([p.sin(), p.square()])

    def loss(y: Tensor) -> Tensor:
        return y.exp().sum()

    operator = GaussNewton.of(outputs, loss, at)
    jacobian = torch.autograd.functional.jacobian(outputs, at).reshape(8, 4)
    wanted = jacobian.T @ torch.diag(outputs(at).reshape(-1).exp()) @ jacobian
    assert relative(operator.dense(), wanted) < 1e-12
    assert operator.layout.names == ("theta",)
    assert torch.equal(operator.dense(), GaussNewton.of(outputs, loss, at, memory=1, chunk=2).dense())
    whole = Hessian.of(lambda p: loss(outputs(p)), at, route="double_backward")
    assert relative((whole - operator).dense(), whole.dense() - wanted) < 1e-10


def test_plain_functions_that_cannot_be_used() -> None:
    at = torch.ones(2, dtype=F64)
    with pytest.raises(BadInput, match=r"value of the loss: got shape \(2,\); wanted a scalar"):
        Hessian.of(torch.sin, at)
    with pytest.raises(BadInput, match=r"theta: got shape \(2, 1\); wanted one axis, or a dict"):
        Hessian.of(torch.sum, at[:, None])
    with pytest.raises(BadInput, match="got nan; wanted a finite number"):
        GaussNewton.of(torch.log, torch.sum, -at)
    with pytest.raises(BadInput, match=r"parameter 'theta' of the Hessian: got torch.int64"):
        Hessian.of(torch.sum, torch.ones(2, dtype=torch.int64))


def test_a_product_says_what_it_costs() -> None:
    network = tied(F64)
    operator = GaussNewton(network, network.task.train_batch(), route="double_backward")
    cost = operator.product_cost(num_columns=2)
    assert cost.num_columns == 2
    assert cost.seconds > 0
    assert cost.kept_bytes == operator.kept_bytes > 0
    assert Damped(operator, 1.0).kept_bytes == operator.kept_bytes
    assert (operator + operator).kept_bytes == operator.kept_bytes
    gradients = PerExampleGradients(network, network.task.train_batch())
    assert gradients.kept_bytes == 7 * 15 * 8
    assert PerExampleGradients(network, network.task.train_batch(), memory=1).kept_bytes == 0
    assert Dense(torch.ones(2, 3)).kept_bytes == 24
    with pytest.raises(BadInput, match="num_columns: got 0"):
        operator.product_cost(num_columns=0)
    told = ProductCost(seconds=2.0, num_columns=4, kept_bytes=0)
    assert told.seconds_for(100) == 50
    assert [told.told(number) for number in (1, 100, 1_000, 100_000)] == [
        "1 products: about 0.5 s",
        "100 products: about 50 s",
        "1,000 products: about 8.3 min",
        "100,000 products: about 14 h",
    ]
    with pytest.raises(BadInput, match="number of vectors: got -1"):
        told.told(-1)


def test_global_switches_are_put_back() -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    with exact_derivatives(torch.device("cpu")):
        assert not torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mha.get_fastpath_enabled() is before


def test_all_know_where_their_entries_lie() -> None:
    network = Network(filled(nn.Linear(2, 2), F64), task=Task.of(matrix(3, 2, 1, F64), matrix(3, 2, 2, F64)))
    batch = network.task.train_batch()
    operators: list[LinearOperator] = [kind(network, batch) for kind in OVER_DATA]
    for operator in [*operators, ModelJacobian(network, batch)]:
        assert operator.layout == network.layout  # type: ignore[attr-defined]

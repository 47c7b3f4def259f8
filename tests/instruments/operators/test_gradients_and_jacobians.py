"""Per-example gradients, the empirical Fisher matrix and the Jacobian of a model: exact, or aloud."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.laws.operator_cases import (
    NETWORKS,
    filled,
    in_pieces,
    matrix,
    mlp,
    naive_gradients,
    naive_outputs,
    recurrent,
    transformer,
)
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import EmpiricalFisher, GaussNewton, ModelJacobian, PerExampleGradients
from tremorscope.instruments.operators import gradient_gram as gram
from tremorscope.instruments.task import Batch, Task

F64 = torch.float64


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (torch.float32, 1e-4)])
def test_fisher_products_equal_dense_autograd(name: str, dtype: torch.dtype, tolerance: float) -> None:  # row E1
    network = NETWORKS[name](dtype)
    rows = naive_gradients(NETWORKS[name](F64))
    vectors = matrix(network.layout.size, 3, 5, dtype)
    operator = EmpiricalFisher(network, network.task.train_batch())
    assert relative(operator @ vectors, rows.T @ (rows @ vectors.double()) / len(rows)) < tolerance
    assert relative(operator.gradients.dense(), rows) < tolerance


def test_chunked_data_equals_one_batch() -> None:  # row E2
    network = mlp(F64)
    vectors = matrix(network.layout.size, 4, 5, F64)
    whole = EmpiricalFisher(network, network.task.train_batch()) @ vectors
    for options in ({}, {"memory": 1}, {"chunk": 2}, {"memory": 5 * 39 * 8, "chunk": 2}):
        assert relative(EmpiricalFisher(network, in_pieces(network, 5), **options) @ vectors, whole) < 1e-12


BEYOND = {"memory": 1}  # bytes: no gradient fits


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (torch.float32, 1e-4)])
def test_fisher_beyond_memory_equals_dense_autograd(name: str, dtype: torch.dtype, tolerance: float) -> None:  # row E1
    network = NETWORKS[name](dtype)
    rows = naive_gradients(NETWORKS[name](F64))
    operator = EmpiricalFisher(network, network.task.train_batch(), **BEYOND)
    assert operator.route == ("recomputed_rows" if name == "recurrent" else "passes")
    assert "examples take" in operator.flags[-1]
    for columns in (1, 200):  # by passes, and in one wide block
        vectors = matrix(network.layout.size, columns, 5, dtype)
        assert relative(operator @ vectors, rows.T @ (rows @ vectors.double()) / len(rows)) < tolerance
    assert relative(operator.gradients.dense(), rows) < tolerance


def test_passes_make_no_gradient_of_any_example(monkeypatch: pytest.MonkeyPatch) -> None:
    network = mlp(F64)
    vectors = matrix(network.layout.size, 3, 5, F64)
    wanted = EmpiricalFisher(network, in_pieces(network, 5)) @ vectors
    kept = EmpiricalFisher(network, in_pieces(network, 5), route="passes")
    rebuilt = EmpiricalFisher(network, in_pieces(network, 5), route="passes", **BEYOND)
    apply, calls = Network.apply, []
    monkeypatch.setattr(Network, "apply", lambda *a, **k: calls.append(1) or apply(*a, **k))
    monkeypatch.setattr(PerExampleGradients, "blocks", lambda _: pytest.fail("gradients of examples were made"))
    assert relative(kept @ vectors, wanted) < 1e-12
    assert calls == [], "linearised batches are replayed"
    assert relative(rebuilt @ vectors, wanted) < 1e-12
    assert len(calls) <= 2 * 2, "one batch of three is kept, the others are passed through twice, not once an example"


def test_wide_blocks_are_cheaper_by_gradients_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass takes every column through the network, gradients of examples serve all columns."""
    network = transformer(F64)
    operator = EmpiricalFisher(network, network.task.train_batch(), **BEYOND)
    wide = int(operator.flags[-1].split("back, ")[1].split(" columns")[0])
    blocks, calls = PerExampleGradients.blocks, []
    monkeypatch.setattr(PerExampleGradients, "blocks", lambda self: calls.append(1) or blocks(self))
    vectors = matrix(network.layout.size, wide, 5, F64)
    narrow = operator @ vectors[:, : wide - 1]
    assert calls == []
    assert relative((operator @ vectors)[:, : wide - 1], narrow) < 1e-12
    assert calls == [1]


def test_routes_that_cannot_be_had_are_refused() -> None:
    network, unmapped = mlp(F64), recurrent(F64)
    batch = network.task.train_batch()
    with pytest.raises(BadInput, match=r"gradients of 13 examples take .* MiB, .* are allowed; wanted all of them"):
        EmpiricalFisher(network, batch, route="rows", **BEYOND)
    with pytest.raises(BadInput, match=r"passes .* got vmap does not work here; .*Use route='recomputed_rows'"):
        EmpiricalFisher(unmapped, unmapped.task.train_batch(), route="passes")
    assert EmpiricalFisher(network, batch).route == "rows"
    assert EmpiricalFisher(network, batch, route="recomputed_rows").kept_bytes == 0


def test_the_gram_matrix_follows_the_order_of_the_data() -> None:
    network = mlp(F64)
    rows = naive_gradients(network)
    operator = gram(network, in_pieces(network, 5), parameters="3.*")
    assert operator.is_symmetric
    assert relative(operator.dense(), rows[:, 24:] @ rows[:, 24:].T) < 1e-12


def test_what_cannot_be_vmapped_goes_one_by_one_and_says_so() -> None:
    network = recurrent(F64)  # GRU cells write into a hidden state that has no axis for examples
    gradients = PerExampleGradients(network, network.task.train_batch())
    assert gradients.flags[0].startswith("vmap does not work here, one example at a time: ")
    assert EmpiricalFisher(network, network.task.train_batch()).flags == gradients.flags
    assert relative(gradients.dense(), naive_gradients(network)) < 1e-12


def test_a_loss_that_is_no_mean_is_flagged() -> None:
    network = mlp(F64)
    summed = network.with_task(
        Task.of(
            network.task.inputs,
            network.task.targets,
            loss=lambda output, target: nn.functional.cross_entropy(output, target, reduction="sum"),
        )
    )
    told = "the loss is no mean over examples, or examples influence each other"
    batch = summed.task.train_batch()
    assert told in PerExampleGradients(summed, batch).flags[0]
    assert told in EmpiricalFisher(summed, batch, route="passes").flags[0]
    assert PerExampleGradients(network, network.task.train_batch()).flags == ()
    assert EmpiricalFisher(network, network.task.train_batch(), route="passes").flags == ()


class Attentive(nn.Module):
    """A mask by keyword with one row per example, and a scale that all share."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def forward(self, x: Tensor, *, mask: Tensor, scale: Tensor, mode: str) -> Tensor:
        assert mode == "plain"
        return self.inner(x * mask) * scale


def test_keyword_arguments_with_one_row_per_example_are_cut_too() -> None:
    with torch.random.fork_rng(devices=[]):
        module = filled(Attentive(), F64)
    x, y = matrix(5, 3, 1, F64), matrix(5, 2, 2, F64)
    mask = (matrix(5, 3, 3, F64) > 0).double()
    network = Network(module, task=Task.of(x, y))
    batch = Batch((x,), {"mask": mask, "scale": torch.tensor([2.0], dtype=F64), "mode": "plain"}, y)
    operator = PerExampleGradients(network, batch)
    assert operator.flags == ()
    error = 2 * (2 * module.inner(x * mask) - y).detach() / 2 * 2  # d/d(inner) of the mean of two squares
    wanted = torch.cat([torch.einsum("no,ni->noi", error, x * mask).reshape(5, -1), error], dim=1)
    assert relative(operator.dense(), wanted) < 1e-12


def test_one_example_without_an_axis() -> None:
    network = Network(
        filled(nn.Linear(2, 1), F64),
        task=Task.of(torch.ones(1, 2), torch.ones(1), loss=lambda output, target: (output.sum() - target).square()),
    )
    batch = Batch((torch.tensor([1.0, 2.0], dtype=F64),), {}, torch.tensor(0.5, dtype=F64))
    gradients = PerExampleGradients(network, batch)
    assert gradients.shape == (1, 3)
    slope = 2 * (network.apply(network.params, batch).detach() - 0.5)
    assert torch.allclose(gradients.dense()[0], slope * torch.tensor([1.0, 2.0, 1.0], dtype=F64))


def test_gradients_that_are_not_finite_are_refused() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, dtype=F64))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.weight).abs().sqrt()

    x = torch.ones(3, 1, dtype=F64)
    network = Network(Root(), task=Task.of(x, x, loss=lambda output, target: output.mean()))
    with pytest.raises(BadInput, match="gradients of 'Root': got entries that are not finite"):
        PerExampleGradients(network, network.task.train_batch())


def test_fisher_is_gauss_newton_where_the_residuals_are_those_of_the_model() -> None:
    """One output, one example, squared error with residual r: g g^T = 4 r^2 j j^T and G = 2 j j^T."""
    network = Network(filled(nn.Linear(3, 1), F64), task=Task.of(matrix(1, 3, 1, F64), torch.zeros(1, 1)))
    batch = network.task.train_batch()
    residual = float(network.apply(network.params, batch))
    fisher, newton = EmpiricalFisher(network, batch), GaussNewton(network, batch)
    assert relative(fisher.dense(), 2 * residual**2 * newton.dense()) < 1e-12


@pytest.mark.parametrize("route", ["linearize", "double_backward"])
@pytest.mark.parametrize("build", [mlp, recurrent])
def test_the_jacobian_of_a_model_equals_its_rows(build: object, route: str) -> None:
    network = build(F64)  # type: ignore[operator]
    output, wanted = naive_outputs(network)
    operator = ModelJacobian(network, network.task.train_batch(), route=route, chunk=2)
    assert operator.route == route
    assert operator.output_shape == tuple(output.shape)
    assert relative(operator.dense(), wanted) < 1e-12
    vectors = matrix(network.layout.size, 3, 5, F64)
    assert relative(operator @ vectors, wanted @ vectors) < 1e-12
    assert relative(operator.T @ (operator @ vectors), wanted.T @ (wanted @ vectors)) < 1e-12


def test_the_jacobian_is_linearised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = mlp(F64)
    operator = ModelJacobian(network, network.task.inputs)  # a bare tensor, no targets
    monkeypatch.setattr(Network, "apply", lambda *_, **__: pytest.fail("the network ran again"))
    assert operator.dense().shape == (39, 39)
    assert (operator @ operator.T).dense().shape == (39, 39)


def test_attention_keeps_its_derivative_in_evaluation_mode() -> None:
    network = transformer(F64)
    network.module.eval()  # the fused layer, which has no forward rule, would be taken
    operator = ModelJacobian(network, network.task.inputs, parameters="head.*, block.linear1.*")
    assert operator.route == "linearize"
    assert relative(operator.dense(), naive_outputs(network, "head.*, block.linear1.*")[1]) < 1e-12


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight * torch.rand(3, dtype=F64)


def test_outputs_that_cannot_be_used_are_named() -> None:
    x = matrix(4, 3, 1, F64)
    with pytest.raises(BadInput, match="output of 'Noisy': got two different outputs on the same input"):
        ModelJacobian(Network(Noisy()), x)
    network = Network(Noisy(), task=Task.of(x, x))
    state = torch.get_rng_state()
    for kind in (GaussNewton, EmpiricalFisher):
        with pytest.raises(BadInput, match="on the same input; wanted the same value twice"):
            kind(network, network.task.train_batch())
    assert torch.equal(torch.get_rng_state(), state)
    linear = Network(filled(nn.Linear(3, 1), F64))
    with pytest.raises(BadInput, match="output of 'Linear': got entries that are not finite"):
        ModelJacobian(linear, x * float("inf"))
    with pytest.raises(BadInput, match="chunk: got 0"):
        ModelJacobian(linear, x, chunk=0)

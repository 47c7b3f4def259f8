"""The registry of operators: register once, meet every law."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import (
    Damped,
    Dense,
    EmpiricalFisher,
    GaussNewton,
    Hessian,
    Identity,
    Jacobian,
    LinearOperator,
    ModelJacobian,
    PerExampleGradients,
    gradient_gram,
    residual_curvature,
)
from tremorscope.instruments.operators.pullback import PullbackFisher
from tremorscope.instruments.task import Batch, Task

F64 = torch.float64


class Case(NamedTuple):
    operator: LinearOperator
    dense: Tensor
    module: nn.Module | None = None
    pieces: LinearOperator | None = None
    """The same from the same data in several batches, the last of them short."""


Maker = Callable[[torch.dtype], Case]
CASES: dict[str, Maker] = {}
ONCE: dict[str, Maker] = {}
"""The same, built once for each dtype: for laws that change nothing."""


def operator_case(make: Maker) -> Maker:
    """Every law is then tested on what `make(dtype)` returns; equal numbers in every dtype, up to rounding."""
    CASES[make.__name__] = make
    ONCE[make.__name__] = functools.cache(make)
    return make


def stream(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matrix(rows: int, columns: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(rows, columns, generator=stream(seed), dtype=F64).to(dtype)


def filled(module: nn.Module, dtype: torch.dtype, seed: int = 3) -> nn.Module:
    """Fixed weights without touching the global random state; evaluation and training flags mixed."""
    source = stream(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=source, dtype=F64))
    return module.to(dtype)


def drawing_nothing(build: Callable[[torch.dtype], Network]) -> Callable[[torch.dtype], Network]:
    """PyTorch's modules initialise themselves from the global stream; put it back."""

    @functools.wraps(build)
    def built(dtype: torch.dtype) -> Network:
        with torch.random.fork_rng(devices=[]):
            return build(dtype)

    return built


@drawing_nothing
def mlp(dtype: torch.dtype) -> Network:
    module = filled(nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Dropout(0.5), nn.Linear(4, 3)), dtype)
    inputs = torch.randn(13, 5, generator=stream(1), dtype=F64)
    targets = torch.randint(0, 3, (13,), generator=stream(2))
    return Network(module, task=Task.of(inputs, targets))


@drawing_nothing
def cnn(dtype: torch.dtype) -> Network:
    module = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.SiLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(2, 2, 2),
        nn.Flatten(),
        nn.Linear(2 * 4, 3),
    )
    inputs = torch.randn(9, 1, 8, 8, generator=stream(1), dtype=F64)
    return Network(filled(module, dtype), task=Task.of(inputs, torch.randint(0, 3, (9,), generator=stream(2))))


class TinyTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.block = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(self.embed(tokens))[:, -1])


@drawing_nothing
def transformer(dtype: torch.dtype) -> Network:
    tokens = torch.randint(0, 7, (8, 4), generator=stream(1))
    targets = torch.randint(0, 3, (8,), generator=stream(2))
    return Network(filled(TinyTransformer(), dtype), task=Task.of(tokens, targets))


class Recurrent(nn.Module):
    """A GRU works in place: the trap of replayed linearisations."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(2, 3, batch_first=True)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


@drawing_nothing
def recurrent(dtype: torch.dtype) -> Network:
    inputs = torch.randn(6, 2, 2, generator=stream(1), dtype=F64)
    targets = torch.randn(6, 2, generator=stream(2), dtype=F64)
    return Network(filled(Recurrent(), dtype), task=Task.of(inputs, targets))


class Tied(nn.Module):
    """One matrix in two places, as input and output embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embed(tokens)))


@drawing_nothing
def tied(dtype: torch.dtype) -> Network:
    tokens, targets = (torch.randint(0, 5, (7,), generator=stream(seed)) for seed in (1, 2))
    return Network(filled(Tied(), dtype), task=Task.of(tokens, targets))


def next_token(output: Tensor, tokens: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def language_model(dtype: torch.dtype, attention: str = "sdpa") -> Network:
    """GPT-2 as transformers builds it, tied embeddings and all."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=2,
        n_embd=16,
        n_head=2,
        vocab_size=7,
        n_positions=6,
        attn_implementation=attention,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        module = filled(GPT2LMHeadModel(config), dtype)
    tokens = torch.randint(0, 7, (3, 5), generator=stream(1))
    return Network(module, task=Task.of(tokens, tokens, loss=next_token))


SOME_OF_GPT2 = "transformer.wte.weight, transformer.h.0.attn.c_proj.*"
NETWORKS: dict[str, Callable[[torch.dtype], Network]] = {
    "mlp": mlp,
    "cnn": cnn,
    "transformer": transformer,
    "recurrent": recurrent,
}


def naive_hessian(network: Network, parameters: str = "*") -> Tensor:
    """Row by row, by double backward, from nothing but autograd and the math form of attention."""
    names = network.layout.select(parameters)
    leaves = {name: network.params[name].clone().requires_grad_() for name in names}
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = network.loss({**network.params, **leaves}, network.task.train_batch())
    gradient = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
    rows = []
    for entry in torch.cat([part.reshape(-1) for part in gradient]):
        row = torch.autograd.grad(entry, list(leaves.values()), retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([part.reshape(-1) for part in row]))
    return torch.stack(rows)


def in_pieces(network: Network, size: int) -> list[Batch]:
    task = network.task
    return [task.batch(range(start, min(start + size, task.size))) for start in range(0, task.size, size)]


def naive_outputs(network: Network, parameters: str = "*") -> tuple[Tensor, Tensor]:
    """Outputs and their Jacobian, row by row, by backward passes."""
    names = network.layout.select(parameters)
    leaves = {name: network.params[name].clone().requires_grad_() for name in names}
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        output = network.apply({**network.params, **leaves}, network.task.train_batch())
    rows = []
    for entry in output.reshape(-1):
        row = torch.autograd.grad(entry, list(leaves.values()), retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([part.reshape(-1) for part in row]))
    return output.detach(), torch.stack(rows)


def naive_gauss_newton(network: Network, parameters: str = "*") -> Tensor:
    """J^T H J with every factor written down."""
    output, jacobian = naive_outputs(network, parameters)
    batch = network.task.train_batch()
    curvature = torch.autograd.functional.hessian(
        lambda flat: network.output_loss(flat.reshape(output.shape), batch), output.reshape(-1)
    )
    return jacobian.T @ curvature @ jacobian


def naive_gradients(network: Network, parameters: str = "*") -> Tensor:
    """One backward pass for each example."""
    names = network.layout.select(parameters)
    rows = []
    for place in range(network.task.size):
        leaves = {name: network.params[name].clone().requires_grad_() for name in names}
        loss = network.loss({**network.params, **leaves}, network.task.batch([place]))
        gradient = torch.autograd.grad(loss, list(leaves.values()))
        rows.append(torch.cat([part.reshape(-1) for part in gradient]))
    return torch.stack(rows)


@operator_case
def dense(dtype: torch.dtype) -> Case:
    a = matrix(5, 7, 0, dtype)
    return Case(Dense(a), a)


@operator_case
def symmetric(dtype: torch.dtype) -> Case:
    a = matrix(6, 6, 0, dtype)
    return Case(Dense(a + a.T), a + a.T)


@operator_case
def identity(dtype: torch.dtype) -> Case:
    return Case(Identity(6, dtype=dtype), torch.eye(6, dtype=dtype))


@operator_case
def scaled_sum(dtype: torch.dtype) -> Case:
    a, b = matrix(5, 5, 0, dtype), matrix(5, 5, 1, dtype)
    return Case(2.0 * Dense(a) - Dense(b) + -Dense(a), 2 * a - b - a)


@operator_case
def product(dtype: torch.dtype) -> Case:
    a, b = matrix(5, 4, 0, dtype), matrix(4, 6, 1, dtype)
    return Case(Dense(a) @ Dense(b), a @ b)


@operator_case
def gram(dtype: torch.dtype) -> Case:
    a = Dense(matrix(5, 4, 0, dtype))
    return Case(a.T @ a, a.matrix.T @ a.matrix)


@operator_case
def transposed(dtype: torch.dtype) -> Case:
    a = matrix(5, 4, 0, dtype)
    return Case(Dense(a).T, a.T)


@operator_case
def restricted(dtype: torch.dtype) -> Case:
    a, q = matrix(6, 6, 0, dtype), matrix(6, 2, 1, dtype)
    return Case(Dense(a).restrict(q), q.T @ a @ q)


@operator_case
def damped(dtype: torch.dtype) -> Case:
    a = matrix(6, 6, 0, dtype)
    return Case(Damped(Dense(a), 0.3), a + 0.3 * torch.eye(6, dtype=dtype))


@operator_case
def hessian_mlp(dtype: torch.dtype) -> Case:
    network = mlp(dtype)
    operator = Hessian(network, network.task.train_batch(), route="linearize")
    pieces = Hessian(network, in_pieces(network, 5), memory=1, route="double_backward")
    return Case(operator, naive_hessian(network), network.module, pieces)


@operator_case
def hessian_of_some_parameters(dtype: torch.dtype) -> Case:
    network = mlp(dtype)
    operator = Hessian(network, network.task.train_batch(), parameters="3.*", route="linearize")
    return Case(operator, naive_hessian(network, "3.*"), network.module)


@operator_case
def hessian_by_double_backward(dtype: torch.dtype) -> Case:
    network = mlp(dtype)
    operator = Hessian(network, network.task.train_batch(), route="double_backward")
    return Case(operator, naive_hessian(network), network.module)


@operator_case
def hessian_cnn(dtype: torch.dtype) -> Case:
    network = cnn(dtype)
    return Case(Hessian(network, network.task.train_batch(), route="linearize"), naive_hessian(network), network.module)


@operator_case
def hessian_recurrent(dtype: torch.dtype) -> Case:
    network = recurrent(dtype)
    return Case(Hessian(network, network.task.train_batch(), route="linearize"), naive_hessian(network), network.module)


@operator_case
def jacobian_of_a_network(dtype: torch.dtype) -> Case:
    network = mlp(dtype)
    batch = network.task.train_batch()

    def outputs(theta: Tensor) -> Tensor:
        return network.apply(theta, batch).reshape(-1)

    dense = torch.autograd.functional.jacobian(outputs, network.theta)
    return Case(Jacobian(outputs, network.theta), dense, network.module)


@operator_case
def jacobian_of_training(dtype: torch.dtype) -> Case:
    network = mlp(dtype)
    gradient = torch.func.grad(lambda theta: network.loss(theta, network.task.train_batch()))

    def trained(theta: Tensor) -> Tensor:
        for _ in range(3):
            theta = theta - 0.3 * gradient(theta)
        return theta

    theta, wanted = network.theta, torch.eye(network.layout.size, dtype=dtype)
    for _ in range(3):  # the chain rule by hand: a product of I - lr H
        wanted = wanted - 0.3 * naive_hessian(network.at(theta)) @ wanted
        theta = theta - 0.3 * gradient(theta)
    return Case(Jacobian(trained, network.theta, chunk=16), wanted, network.module)


@operator_case
def gauss_newton_mlp(dtype: torch.dtype) -> Case:
    network = mlp(dtype)
    operator = GaussNewton(network, network.task.train_batch(), route="linearize")
    pieces = GaussNewton(network, in_pieces(network, 5), memory=1, route="double_backward")
    return Case(operator, naive_gauss_newton(network), network.module, pieces)


@operator_case
def gauss_newton_by_double_backward(dtype: torch.dtype) -> Case:
    network = cnn(dtype)
    operator = GaussNewton(network, network.task.train_batch(), route="double_backward")
    pieces = GaussNewton(network, in_pieces(network, 4), memory=1, route="double_backward")
    return Case(operator, naive_gauss_newton(network), network.module, pieces)


@operator_case
def gauss_newton_transformer(dtype: torch.dtype) -> Case:
    network = transformer(dtype)
    operator = GaussNewton(network, network.task.train_batch(), route="double_backward")
    return Case(operator, naive_gauss_newton(network), network.module)


@operator_case
def gauss_newton_recurrent(dtype: torch.dtype) -> Case:
    network = recurrent(dtype)
    return Case(
        GaussNewton(network, network.task.train_batch(), route="linearize"), naive_gauss_newton(network), network.module
    )


@operator_case
def gauss_newton_tied(dtype: torch.dtype) -> Case:
    network = tied(dtype)
    operator = GaussNewton(network, network.task.train_batch(), route="double_backward")
    pieces = GaussNewton(network, in_pieces(network, 3), route="double_backward")
    return Case(operator, naive_gauss_newton(network), network.module, pieces)


@operator_case
def gauss_newton_language_model(dtype: torch.dtype) -> Case:
    network = language_model(dtype)
    operator = GaussNewton(
        network, network.task.train_batch(), parameters=SOME_OF_GPT2, route="double_backward", chunk=8
    )
    return Case(operator, naive_gauss_newton(network, SOME_OF_GPT2), network.module)


@operator_case
def hessian_tied(dtype: torch.dtype) -> Case:
    network = tied(dtype)
    operator = Hessian(network, network.task.train_batch(), route="double_backward")
    return Case(operator, naive_hessian(network), network.module)


@operator_case
def residual(dtype: torch.dtype) -> Case:
    network = mlp(dtype)
    operator = residual_curvature(network, network.task.train_batch(), route="double_backward")
    return Case(operator, naive_hessian(network) - naive_gauss_newton(network), network.module)


@operator_case
def per_example_mlp(dtype: torch.dtype) -> Case:
    network = mlp(dtype)
    operator = PerExampleGradients(network, network.task.train_batch())
    pieces = PerExampleGradients(network, in_pieces(network, 5), chunk=2, memory=1)
    return Case(operator, naive_gradients(network), network.module, pieces)


@operator_case
def per_example_recurrent(dtype: torch.dtype) -> Case:
    network = recurrent(dtype)
    return Case(PerExampleGradients(network, network.task.train_batch()), naive_gradients(network), network.module)


@operator_case
def gram_of_gradients(dtype: torch.dtype) -> Case:
    network = cnn(dtype)
    rows = naive_gradients(network)
    operator, pieces = gradient_gram(network, network.task.train_batch()), gradient_gram(network, in_pieces(network, 4))
    return Case(operator, rows @ rows.T, network.module, pieces)


def _fisher(network: Network) -> Case:
    rows = naive_gradients(network)
    operator = EmpiricalFisher(network, network.task.train_batch())
    pieces = EmpiricalFisher(network, in_pieces(network, 5), chunk=2, memory=1)
    return Case(operator, rows.T @ rows / len(rows), network.module, pieces)


@operator_case
def fisher_by_passes(dtype: torch.dtype) -> Case:
    network = mlp(dtype)
    rows = naive_gradients(network)
    operator = EmpiricalFisher(network, network.task.train_batch(), route="passes")
    pieces = EmpiricalFisher(network, in_pieces(network, 5), chunk=2, route="recomputed_rows")
    return Case(operator, rows.T @ rows / len(rows), network.module, pieces)


@operator_case
def fisher_mlp(dtype: torch.dtype) -> Case:
    return _fisher(mlp(dtype))


@operator_case
def fisher_cnn(dtype: torch.dtype) -> Case:
    return _fisher(cnn(dtype))


@operator_case
def fisher_transformer(dtype: torch.dtype) -> Case:
    return _fisher(transformer(dtype))


@operator_case
def fisher_tied(dtype: torch.dtype) -> Case:
    return _fisher(tied(dtype))


@operator_case
def model_jacobian_mlp(dtype: torch.dtype) -> Case:
    network = mlp(dtype)
    return Case(ModelJacobian(network, network.task.train_batch()), naive_outputs(network)[1], network.module)


@operator_case
def model_jacobian_by_double_backward(dtype: torch.dtype) -> Case:
    network = transformer(dtype)
    operator = ModelJacobian(network, network.task.train_batch(), route="double_backward")
    return Case(operator, naive_outputs(network)[1], network.module)


@operator_case
def pullback_fisher(dtype: torch.dtype) -> Case:
    """Probabilities of a small network as a function of its input, the metric written down entry by entry."""
    first, second = matrix(6, 5, 0, dtype), matrix(4, 6, 1, dtype)
    at = matrix(5, 1, 2, dtype)[:, 0]

    def logits(x: Tensor) -> Tensor:
        return second @ torch.tanh(first @ x)

    jacobian = torch.autograd.functional.jacobian(logits, at)
    p = logits(at).softmax(0)
    return Case(PullbackFisher(logits, at), jacobian.T @ (p.diag() - torch.outer(p, p)) @ jacobian)

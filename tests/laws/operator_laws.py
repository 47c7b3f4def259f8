"""What every operator obeys. Each law raises AssertionError when it is broken."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.laws.operator_cases import Case, Maker, matrix
from tremorscope.instruments.operators import Dense

Law = Callable[[Maker], None]
LAWS: dict[str, Law] = {}
NEEDS_FRESH = {"leaves_everything_as_it_was"}
F32, F64 = torch.float32, torch.float64


def law(check: Law) -> Law:
    LAWS[check.__name__] = check
    return check


def close(got: Tensor, wanted: Tensor, tolerance: float = 1e-10) -> None:
    """Relative to the largest entry: relative to each would fail at an honest zero."""
    assert got.shape == wanted.shape
    gap, scale = float((got - wanted).abs().max()), float(wanted.abs().max())
    assert gap <= tolerance * max(scale, 1e-3), f"off by {gap:.2e} where entries reach {scale:.2e}"


def sides(case: Case) -> tuple[Tensor, Tensor]:
    """Three vectors to multiply, three for the transpose."""
    rows, columns = case.operator.shape
    return matrix(columns, 3, 10, case.operator.dtype), matrix(rows, 3, 11, case.operator.dtype)


@law
def agrees_with_the_dense_matrix(make: Maker) -> None:
    case = make(F64)
    v, _ = sides(case)
    close(case.operator.dense(), case.dense)
    close(case.operator.mm(v), case.dense @ v)


@law
def adjoint(make: Maker) -> None:
    case = make(F64)
    v, u = sides(case)
    close(u.T @ case.operator.mm(v), case.operator.rmm(u).T @ v)


@law
def linear(make: Maker) -> None:
    case = make(F64)
    v, _ = sides(case)
    a, b = 3.0 * v[:, 0], -0.5 * v[:, 1]
    close(case.operator @ (a + b), 3.0 * (case.operator @ v[:, 0]) - 0.5 * (case.operator @ v[:, 1]))
    close(case.operator @ (1e4 * a), 1e4 * (case.operator @ a))


@law
def block_equals_loop(make: Maker) -> None:
    case = make(F64)
    v, u = sides(case)
    close(case.operator.mm(v), torch.stack([case.operator.mv(column) for column in v.T], dim=1))
    close(case.operator.rmm(u), torch.stack([case.operator.rmv(column) for column in u.T], dim=1))


@law
def transposes_twice(make: Maker) -> None:
    case = make(F64)
    v, u = sides(case)
    assert case.operator.T.shape == case.operator.shape[::-1]
    close(case.operator.T @ u, case.dense.T @ u)
    close(case.operator.T.T @ v, case.dense @ v)


@law
def symmetric_as_promised(make: Maker) -> None:
    case = make(F64)
    if case.operator.is_symmetric:
        v, _ = sides(case)
        matrix_ = case.operator.mm(torch.eye(case.operator.shape[1], dtype=F64))
        close(matrix_, matrix_.T)
        close(case.operator.rmm(v), case.operator.mm(v))


@law
def composes(make: Maker) -> None:
    case = make(F64)
    rows, columns = case.operator.shape
    left, right = Dense(matrix(2, rows, 12, F64)), Dense(matrix(columns, 2, 13, F64))
    sandwich = left @ case.operator @ right
    close(sandwich.dense(), left.matrix @ case.dense @ right.matrix)
    close(sandwich.T.dense(), (left.matrix @ case.dense @ right.matrix).T)
    close((case.operator + case.operator).dense(), 2 * case.dense)


@law
def restricts(make: Maker) -> None:
    case = make(F64)
    rows, columns = case.operator.shape
    if rows == columns:
        q = matrix(rows, 2, 14, F64)
        close(case.operator.restrict(q).dense(), q.T @ case.dense @ q)
        close(case.operator.diagonal(), case.dense.diagonal())


@law
def pieces_of_the_data_make_the_same_whole(make: Maker) -> None:
    """Row E2: batches count by their size, the short last one too."""
    case = make(F64)
    if case.pieces is not None:
        v, u = sides(case)
        close(case.pieces.mm(v), case.operator.mm(v), 1e-12)
        close(case.pieces.rmm(u), case.operator.rmm(u), 1e-12)


@law
def float32_is_near_float64(make: Maker) -> None:
    case, coarse = make(F64), make(F32)
    v, u = sides(case)
    assert coarse.operator.mm(v.float()).dtype == F32
    close(coarse.operator.mm(v.float()).double(), case.operator.mm(v), 1e-4)
    close(coarse.operator.rmm(u.float()).double(), case.operator.rmm(u), 1e-4)


@law
def repeats_itself(make: Maker) -> None:
    case = make(F64)
    v, _ = sides(case)
    first = case.operator.mm(v)
    case.operator.mv(v[:, 1])
    assert torch.equal(case.operator.mm(v), first), "the same product twice gave different bits"


@law
def leaves_everything_as_it_was(make: Maker) -> None:
    """Row E8, with the argument and the random state besides."""
    torch.rand(1)
    drawn = torch.get_rng_state()
    case = make(F64)
    assert torch.equal(torch.get_rng_state(), drawn), "building drew from the global stream"
    v, u = sides(case)
    arguments = v.clone(), u.clone()
    before = None if case.module is None else photograph(case.module)
    case.operator.mm(v).zero_()
    case.operator.mv(v[:, 0])
    case.operator.rmm(u)
    assert torch.equal(v, arguments[0]), "the argument was written to"
    assert torch.equal(u, arguments[1]), "the argument was written to"
    assert torch.equal(torch.get_rng_state(), drawn), "a product drew from the global stream"
    if case.module is not None and before is not None:
        after = photograph(case.module)
        assert after.keys() == before.keys()
        for name in before:
            assert same(after[name], before[name]), f"{name} changed"


def photograph(module: nn.Module) -> dict[str, object]:
    """All that a module is: tensors, gradients, flags, hooks."""
    state: dict[str, object] = {f"tensor {name}": value.clone() for name, value in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        state[f"grad of {name}"] = None if parameter.grad is None else parameter.grad.clone()
        state[f"requires_grad of {name}"] = parameter.requires_grad
        state[f"identity of {name}"] = id(parameter)
    for name, part in module.named_modules():
        state[f"training flag of {name}"] = part.training
        state[f"hooks of {name}"] = len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks)
    return state


def same(left: object, right: object) -> bool:
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return torch.equal(left, right)
    return left == right

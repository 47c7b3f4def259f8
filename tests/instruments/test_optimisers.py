"""Updates against PyTorch's, tangents against forward-mode differentiation of the updates, runs side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import jvp

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.optimisers import (
    SGD,
    Adam,
    Optimiser,
    TangentUpdate,
    adam,
    adamw,
    momentum,
    nesterov,
    schedule_factor,
    sgd,
)

F64 = torch.float64
OPTIMISERS: dict[str, Optimiser] = {
    "sgd": sgd(0.1),
    "sgd, decay": sgd(0.1, weight_decay=0.3),
    "momentum": momentum(0.1, mu=0.8),
    "momentum, decay": momentum(0.1, mu=0.8, weight_decay=0.3),
    "nesterov": nesterov(0.1, mu=0.8),
    "nesterov, decay": nesterov(0.1, mu=0.8, weight_decay=0.3),
    "adam": adam(0.1, betas=(0.8, 0.9), eps=0.01),
    "adam, root": adam(0.1, betas=(0.8, 0.9), eps_root=0.02),
    "adam, no memory": adam(0.1, betas=(0.0, 0.0), eps_root=0.02),
    "adam, coupled decay": Adam(lr=0.1, betas=(0.8, 0.9), eps_root=0.02, weight_decay=0.3),
    "adamw": adamw(0.1, betas=(0.8, 0.9), weight_decay=0.3, eps_root=0.02),
}


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def law_of_tangents(optimiser: Optimiser, *, step: int, seed: int = 0, factor: float = 0.7) -> None:
    """`linearise` is the derivative of `update`, in weights, gradient and buffers together."""
    n, k = 7, 4
    theta, gradient, first, second = (drawn(n, seed=seed + i) for i in range(4))
    slots = (first, second.square())[: optimiser.num_slots]  # a second moment is not negative
    tangents = [drawn(n, k, seed=seed + 10 + i) for i in range(2 + optimiser.num_slots)]

    def update(theta: Tensor, gradient: Tensor, *slots: Tensor) -> tuple[Tensor, ...]:
        after, kept = optimiser.update(theta, gradient, slots, factor=factor, step=step)
        return (after, *kept)

    wanted = [jvp(update, (theta, gradient, *slots), tuple(t[:, j] for t in tangents))[1] for j in range(k)]
    d_theta, d_gradient, *d_slots = (tangent.clone() for tangent in tangents)
    optimiser.linearise(theta, gradient, slots, factor=factor, step=step)(d_theta, d_gradient, tuple(d_slots))
    for got, columns in zip((d_theta, *d_slots), zip(*wanted, strict=True), strict=True):
        gap = float((got - torch.stack(columns, dim=1)).abs().max())
        assert gap < 1e-12, f"off by {gap:.1e}"


def law_of_transposes(optimiser: Optimiser, *, step: int, seed: int = 0) -> None:
    """`<u, D v> = <D^T u, v>` over weights, gradient and buffers together; the old gradient's tangent is scratch."""
    n, slots = 7, optimiser.num_slots
    at = tuple(drawn(n, seed=seed + i) for i in range(2 + slots))
    tangent = optimiser.linearise(*at[:2], tuple(slot.abs() for slot in at[2:]), factor=0.7, step=step)
    v = [drawn(n, 1, seed=seed + 10 + i) for i in range(2 + slots)]
    u = [drawn(n, 1, seed=seed + 20 + i) for i in range(1 + slots)]
    d_theta, d_gradient, *d_slots = (part.clone() for part in v)
    tangent(d_theta, d_gradient, tuple(d_slots))
    c_theta, *c_slots = (part.clone() for part in u)
    c_gradient = torch.full_like(c_theta, float("nan"))  # overwritten, whatever was there
    tangent.pull_back(c_theta, c_gradient, tuple(c_slots))
    forward = sum(float((a * b).sum()) for a, b in zip(u, (d_theta, *d_slots), strict=True))
    back = sum(float((a * b).sum()) for a, b in zip((c_theta, c_gradient, *c_slots), v, strict=True))
    assert abs(forward - back) < 1e-11, f"off by {forward - back:.1e}"


@pytest.mark.parametrize("step", [0, 5])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_tangents_are_derivatives_of_the_update(name, step):
    for seed in range(3):
        law_of_tangents(OPTIMISERS[name], step=step, seed=100 * seed)


@pytest.mark.parametrize("step", [0, 5])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_cotangents_are_transposes_of_tangents(name, step):
    for seed in range(3):
        law_of_transposes(OPTIMISERS[name], step=step, seed=100 * seed)


class Planted:
    """The update of one optimiser with the tangents of another: a bug of the kind the law is there for."""

    def __init__(self, updates: Optimiser, linearises: Optimiser, *, late: int = 0) -> None:
        self.lr, self.num_slots, self.update = updates.lr, updates.num_slots, updates.update
        self._updates, self._linearises, self._late = updates, linearises, late

    def linearise(self, theta, gradient, slots, *, factor, step):
        return self._linearises.linearise(theta, gradient, slots, factor=factor, step=step + self._late)


BUGS = {
    "no look-ahead": (nesterov(0.1), momentum(0.1)),
    "no momentum constant": (momentum(0.1, mu=0.8), momentum(0.1, mu=0.9)),
    "no decay": (sgd(0.1, weight_decay=0.3), sgd(0.1)),
    "decay coupled": (OPTIMISERS["adamw"], replace(OPTIMISERS["adamw"], decoupled=False)),
    "decay decoupled": (OPTIMISERS["adam, coupled decay"], replace(OPTIMISERS["adam, coupled decay"], decoupled=True)),
    "eps outside the root": (adam(0.1, eps_root=0.02), adam(0.1, eps=0.02)),
    "root forgotten": (adam(0.1, eps_root=0.02), adam(0.1, eps_root=0.021)),
}


@pytest.mark.parametrize("name", BUGS)
def test_the_law_catches_planted_bugs(name):
    with pytest.raises(AssertionError, match="off by"):
        law_of_tangents(Planted(*BUGS[name]), step=5)


class Mixed(Planted):
    """The tangents of one optimiser with the cotangents of another."""

    def linearise(self, *at, **when):
        other = self._linearises.linearise(*at, **when)
        return TangentUpdate(self._updates.linearise(*at, **when).advance, other.pull_back)


@pytest.mark.parametrize("name", BUGS)
def test_the_law_of_transposes_catches_planted_bugs(name):
    with pytest.raises(AssertionError, match="off by"):
        law_of_transposes(Mixed(*BUGS[name]), step=5)


def test_the_law_catches_a_bias_correction_one_step_late():
    with pytest.raises(AssertionError, match="off by"):
        law_of_tangents(Planted(OPTIMISERS["adam"], OPTIMISERS["adam"], late=1), step=0)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (sgd(0.1, weight_decay=0.2), lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.2)),
        (momentum(0.1, mu=0.8), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8)),
        (nesterov(0.1, weight_decay=0.2), lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.2, nesterov=True)),
        (adam(0.1), lambda p: torch.optim.Adam(p, lr=0.1)),
        (Adam(lr=0.1, weight_decay=0.2), lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.2)),
        (adamw(0.1, betas=(0.8, 0.95), eps=1e-3), lambda p: torch.optim.AdamW(p, 0.1, (0.8, 0.95), 1e-3)),
    ],
    ids=["sgd", "momentum", "nesterov", "adam", "adam with decay", "adamw"],
)
def test_twenty_updates_equal_pytorchs(ours, theirs):
    """The twin: torch.optim on a quartic with a rate that falls along a cosine."""
    start, curvature = drawn(9, seed=1), drawn(9, seed=2).square()
    parameter = torch.nn.Parameter(start.clone())
    reference = theirs([parameter])
    theta, slots = start, tuple(torch.zeros_like(start) for _ in range(ours.num_slots))
    for step in range(20):
        factor = schedule_factor("cosine", step, 20)
        reference.param_groups[0]["lr"] = ours.lr * factor
        reference.zero_grad()
        (curvature * parameter**4).sum().backward()
        reference.step()
        theta, slots = ours.update(theta, 4 * curvature * theta**3, slots, factor=factor, step=step)
        assert torch.allclose(theta, parameter.detach(), rtol=1e-12, atol=1e-14)
    assert float((theta - start).norm()) > 0.5  # it went somewhere


@pytest.mark.parametrize(
    "of",
    [
        lambda lr, mu, decay: SGD(lr=lr, weight_decay=decay),
        lambda lr, mu, decay: SGD(lr=lr, mu=mu, weight_decay=decay),
        lambda lr, mu, decay: SGD(lr=lr, mu=mu, nesterov=True, weight_decay=decay),
        lambda lr, mu, decay: Adam(lr=lr, weight_decay=decay),
        lambda lr, mu, decay: Adam(lr=lr, weight_decay=decay, decoupled=True),
    ],
    ids=["sgd", "momentum", "nesterov", "adam", "adamw"],
)
def test_runs_side_by_side_equal_runs_one_by_one(of):
    values = torch.tensor([[0.01, 0.5, 0.0], [0.1, 0.9, 0.2], [0.3, 0.3, 0.1]], dtype=F64)
    together = of(*values.T.unsqueeze(-1))
    theta = drawn(3, 6, seed=1)
    slots = tuple(torch.zeros_like(theta) for _ in range(together.num_slots))
    singly = [(theta[i], tuple(slot[i] for slot in slots)) for i in range(3)]
    for step in range(4):
        gradient = drawn(3, 6, seed=10 + step)
        theta, slots = together.update(theta, gradient, slots, factor=0.5, step=step)
        for i, (own, kept) in enumerate(singly):
            singly[i] = of(*values[i].tolist()).update(own, gradient[i], kept, factor=0.5, step=step)
    for i, (own, kept) in enumerate(singly):
        assert torch.allclose(theta[i], own, rtol=1e-13, atol=1e-15)  # fused multiply-adds round differently
        assert all(torch.allclose(slot[i], one, rtol=1e-13) for slot, one in zip(slots, kept, strict=True))
    assert not torch.allclose(theta[0] - theta[1], drawn(3, 6, seed=1)[0] - drawn(3, 6, seed=1)[1], atol=1e-3)


def test_no_tangents_of_many_runs_at_once():
    batched = sgd(torch.tensor([[0.1], [0.2]]))
    with pytest.raises(BadInput, match=r"tangent of a batched optimiser: got hyperparameters \(2, 1\); wanted numbers"):
        batched.linearise(torch.zeros(3), torch.zeros(3), (), factor=1.0, step=0)


def test_adam_without_a_root_has_no_derivative_at_a_zero_gradient():
    zero = torch.zeros(3, dtype=F64)
    with pytest.raises(BadInput, match=r"step 4: got 2 weights .* eps_root = 0.0; wanted eps_root > 0. Use adam"):
        adam(0.1).linearise(zero, torch.tensor([0.0, 1.0, 0.0], dtype=F64), (zero, zero), factor=1.0, step=4)
    adam(0.1, eps_root=1e-8).linearise(zero, zero, (zero, zero), factor=1.0, step=4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sgd(0.0), "lr: got 0.0; wanted a positive number"),
        (lambda: adam(float("nan")), "lr: got nan"),
        (lambda: sgd(torch.tensor([[0.1], [-0.2]])), "lr: got -0.2"),
        (lambda: nesterov(0.1, mu=0.0), "Nesterov momentum: got mu = 0"),
        (lambda: adam(0.1, betas=(0.9, 1.0)), r"betas: got \(0.9, 1.0\)"),
    ],
)
def test_what_cannot_be_an_optimiser(make, message):
    with pytest.raises(BadInput, match=message):
        make()


@given(num_steps=st.integers(1, 2000), data=st.data())
def test_the_cosine_falls_from_one_towards_zero(num_steps, data):
    t = data.draw(st.integers(0, num_steps - 1))
    here, there = schedule_factor("cosine", t, num_steps), schedule_factor("cosine", num_steps - t, num_steps)
    assert 0 < here <= 1
    assert here + there == pytest.approx(1)
    assert schedule_factor("cosine", t + 1, num_steps) < here
    assert schedule_factor(lambda step: 2.0 / (1 + step), t, num_steps) == 2.0 / (1 + t)

"""The Krylov basis: what holds after every step, and how much memory is planned for."""

from __future__ import annotations

import pytest
import torch

from tests.laws.operator_cases import matrix
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.operators import Dense
from tremorscope.instruments.thick_restart import KrylovBasis, plan_basis

SIZE = 120


def symmetric() -> Dense:
    square = matrix(SIZE, SIZE, 3, torch.float64)
    return Dense(square + square.T)


@pytest.mark.parametrize("block", [1, 3])
def test_the_recurrence_holds_through_restarts_and_fresh_starts(block: int) -> None:
    operator = symmetric()
    plan = plan_basis(SIZE, 4, torch.float64, block=block, memory=(2 * 30 + block + 4) * SIZE * 8)
    basis = KrylovBasis(operator, plan, "largest", block=block, seed=0)
    dense = operator.dense()
    for step in range(40):
        basis.grow()
        rows = basis.rows[: basis.used]
        both = basis.rows[: basis.used + basis.pending]
        torch.testing.assert_close(both @ both.T, torch.eye(len(both)).double(), rtol=0, atol=1e-12)
        torch.testing.assert_close(rows @ dense @ rows.T, basis.inner[: basis.used, : basis.used], rtol=0, atol=1e-11)
        pairs = basis.ritz()
        if step < 20:  # later, a fresh start has dropped what was pending
            left = dense @ rows.T @ pairs.turn - rows.T @ pairs.turn * pairs.values
            torch.testing.assert_close(left.norm(dim=0), pairs.residuals, rtol=1e-8, atol=1e-10)
        if basis.is_full or step == 20:
            basis.restart(pairs, 4)
        if step == 20:
            basis.start_afresh(2)
    assert basis.num_restarts >= 2


@pytest.mark.parametrize("keeps_images", [True, False])
def test_polished_pairs_have_true_residuals(keeps_images: bool) -> None:
    operator = symmetric()
    memory = (100 if keeps_images else 40) * SIZE * 8
    plan = plan_basis(SIZE, 3, torch.float64, memory=memory)
    assert plan.keeps_images == (keeps_images and plan.num_basis * 2 + 4 <= 100)
    basis = KrylovBasis(operator, plan, "smallest", block=1, seed=0)
    for _ in range(20):
        basis.grow()
    values, vectors, residuals = basis.polished(basis.ritz().turn[:, :3])
    fresh = (operator @ vectors - vectors * values).norm(dim=0)
    torch.testing.assert_close(residuals, fresh, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(values, basis.ritz().values[:3], rtol=1e-10, atol=0)


def test_residuals_of_pairs_can_be_followed() -> None:
    basis = KrylovBasis(symmetric(), plan_basis(SIZE, 2, torch.float64), "largest", block=1, seed=0)
    for _ in range(20):
        basis.grow()
    pairs = basis.ritz()
    basis.restart(pairs, 2)
    basis.start_afresh(1)
    basis.grow()  # what was pending is lost, and with it what the recurrence knew of the residuals
    before = basis.ritz()
    true = float(basis.polished(before.turn[:, :2])[2][0])
    assert float(before.residuals[0]) < 0.1 * true
    basis.follow_residuals(before, 2)
    basis.grow()
    after = basis.ritz()
    assert float(after.values[0]) > float(before.values[0])
    assert float(basis.polished(after.turn[:, :1])[2][0]) < true


def test_plans_give_up_images_first_and_then_rows() -> None:
    vector = 4 * 10**6
    ample = plan_basis(10**6, 20, torch.float32)
    assert (ample.num_basis, ample.keeps_images, ample.num_bytes) == (80, True, (160 + 21) * vector)
    assert plan_basis(10**6, 20, torch.float32, memory=120 * vector).keeps_images is False
    assert plan_basis(10**6, 20, torch.float32, memory=50 * vector).num_basis == 29
    assert plan_basis(300, 50, torch.float64).num_basis == 150
    with pytest.raises(BadInput, match=r"wanted at least 184,000,000 \(25 basis vectors, 1 in work, 20 results\)"):
        plan_basis(10**6, 20, torch.float32, memory=40 * vector)

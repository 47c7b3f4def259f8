"""Largest singular triples against NumPy, on the spectra that break such algorithms."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import Tensor

from tests.instruments.tangents.training_runs import OPTIMISERS, run_of
from tests.laws.operator_cases import matrix
from tests.laws.test_operator_laws import Planted
from tremorscope.foundations.errors import BadInput, NotConverged
from tremorscope.instruments.operators import Dense, LinearOperator
from tremorscope.instruments.partial_svd import PartialSingular, block_golub_kahan, randomised_svd
from tremorscope.instruments.tangents import TrainingMap

F64 = torch.float64


def with_values(values: Tensor, rows: int, columns: int) -> Tensor:
    """A matrix of these singular values, zeros behind them."""
    shorter = min(rows, columns)
    left = torch.linalg.qr(matrix(rows, shorter, 1, F64)).Q
    right = torch.linalg.qr(matrix(columns, shorter, 2, F64)).Q
    return left[:, : len(values)] * values.double() @ right[:, : len(values)].T


SPECTRA: dict[str, Tensor] = {
    "slow decay": with_values(20 * 0.97 ** torch.arange(120), 150, 120),
    "wide": with_values(torch.linspace(4, 0, 90), 90, 140),
    "cluster": with_values(torch.cat([5 + 1e-9 * torch.arange(9), torch.linspace(3, 0, 100)]), 120, 120),
    "ten copies": with_values(torch.cat([torch.full((10,), 5.0), torch.linspace(3, 0, 100)]), 120, 130),
    "training": with_values(torch.cat([torch.linspace(9, 1, 20), torch.ones(60), torch.logspace(0, -8, 40)]), 120, 120),
    "rank five": with_values(torch.tensor([5.0, 4, 3, 2, 1]), 80, 60),
    "zero": torch.zeros(30, 40, dtype=F64),
    "identity": torch.eye(40, dtype=F64),
    "row": matrix(1, 5, 0, F64),
}


def check_triples(found: PartialSingular, a: Tensor) -> None:
    k = len(found)
    left, right = found.left.double(), found.right.double()
    for side in (left, right):
        torch.testing.assert_close(side.T @ side, torch.eye(k, dtype=F64), rtol=0, atol=1e-12)
    assert bool((found.values.diff() <= 0).all())
    wanted = torch.stack(
        [(a @ right - left * found.values).norm(dim=0), (a.T @ left - right * found.values).norm(dim=0)]
    )
    torch.testing.assert_close(found.residuals, wanted, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("block", [None, 3, 1])
@pytest.mark.parametrize("k", [1, 5, 12])
@pytest.mark.parametrize("name", SPECTRA)
def test_golub_kahan_equals_numpy(name, k, block):
    a = SPECTRA[name]
    k = min(k, *a.shape)
    found = block_golub_kahan(Dense(a), k, block=min(block or k, *a.shape) if block else None, seed=0, max_blocks=400)
    wanted = torch.from_numpy(numpy.linalg.svd(a.numpy(), compute_uv=False)[:k].copy())
    torch.testing.assert_close(found.values, wanted, rtol=0, atol=1e-8 * max(1.0, float(wanted[0])))
    assert float(found.residuals.max()) <= 1e-6 * float(wanted[0])
    check_triples(found, a)


def test_missed_copies_are_said():
    found = block_golub_kahan(Dense(SPECTRA["ten copies"]), 10, block=2, seed=0, max_blocks=400)
    assert float((found.values - 5).abs().max()) < 1e-9
    assert any("second start" in flag for flag in found.flags)


def test_it_restarts_within_its_memory():
    a = SPECTRA["slow decay"]
    found = block_golub_kahan(Dense(a), 2, block=2, seed=0, tol=1e-9, max_blocks=200)
    assert found.num_sweeps > 2 * (2 + 9 * 2) / 2  # more blocks than the bases hold
    torch.testing.assert_close(found.values, torch.linalg.svdvals(a)[:2], rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_power", [0, 1, 3])
@pytest.mark.parametrize("name", SPECTRA)
def test_randomised_values_are_low_by_no_more_than_their_errors_say(name, num_power):
    a = SPECTRA[name]
    k = min(6, *a.shape)
    found = randomised_svd(Dense(a), k, num_power=num_power, seed=0)
    true = torch.linalg.svdvals(a)
    assert bool((found.values <= true[:k] + 1e-12).all())
    nearest = (found.values[:, None] - true).abs().amin(1)
    assert bool((nearest <= found.errors + 1e-12).all())
    assert found.num_sweeps == 2 * num_power + 3
    width = min(k + 10, *a.shape)
    assert found.num_products == (2 * num_power + 2) * width + k
    check_triples(found, a)


def test_power_passes_sharpen():
    a, true = SPECTRA["training"], torch.linalg.svdvals(SPECTRA["training"])[:6]
    gaps = [float((randomised_svd(Dense(a), 6, num_power=q, seed=0).values - true).abs().max()) for q in (0, 1, 3, 8)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[1] < 0.1 * float(true[0])
    assert gaps[-1] < 1e-3


def test_low_rank_is_exact_without_power():
    found = randomised_svd(Dense(SPECTRA["rank five"]), 5, num_power=0, seed=0)
    torch.testing.assert_close(found.values, torch.tensor([5.0, 4, 3, 2, 1], dtype=F64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("optimiser", ["momentum", "adam"])
def test_the_jacobian_of_training_has_the_values_of_its_matrix(optimiser):
    net = run_of(
        lambda: torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.GELU(), torch.nn.Linear(8, 3)),
        optimiser=OPTIMISERS[optimiser],
        num_steps=30,
    )
    trained = TrainingMap(net.recipe.bind(net), net.start)
    true = torch.linalg.svdvals(trained.dense())[:5]
    found = block_golub_kahan(trained, 5, tol=1e-9, seed=0)
    torch.testing.assert_close(found.values, true, rtol=1e-8, atol=0)
    rough = randomised_svd(trained, 5, num_power=2, seed=0)
    assert float(((true - rough.values) / true).max()) < 0.02


def test_float32_products_are_flagged_at_the_tolerance_they_cannot_meet():
    a = SPECTRA["training"].float()
    found = block_golub_kahan(Dense(a), 4, tol=1e-9, seed=0)
    assert found.left.dtype == torch.float32
    assert found.values.dtype == F64
    assert "float32 products" in found.flags[0]
    torch.testing.assert_close(found.values, torch.linalg.svdvals(a.double())[:4], rtol=1e-6, atol=0)


def test_the_same_seed_gives_the_same_bits():
    a = Dense(SPECTRA["training"])
    one, two, other = (block_golub_kahan(a, 4, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.left, two.left)
    assert not torch.equal(one.left, other.left)


def test_running_out_of_blocks_is_said():
    a = Dense(SPECTRA["slow decay"])
    with pytest.raises(NotConverged, match=r"4 singular triples.*got not converged: . of 4 triples after 6 sweeps"):
        block_golub_kahan(a, 4, max_blocks=2, seed=0)
    partial = block_golub_kahan(a, 4, max_blocks=2, seed=0, allow_partial=True)
    assert "not converged" in partial.flags[0]
    check_triples(partial, SPECTRA["slow decay"])


class WrongTranspose(Planted):
    """What a mistaken backward sweep would be."""

    def adjoint_block(self, vectors: Tensor) -> Tensor:
        return 1.01 * (self.dense_.T @ vectors)


class NotANumber(Planted):
    def forward_block(self, vectors: Tensor) -> Tensor:
        return self.dense_ @ vectors / 0


def test_a_wrong_transpose_is_noticed():
    operator: LinearOperator = WrongTranspose(SPECTRA["training"])
    with pytest.raises(NotConverged, match=r"not converged|disagree"):
        block_golub_kahan(operator, 3, seed=0)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: block_golub_kahan(Dense(SPECTRA["row"]), 2, seed=0),
            "number of singular triples: got 2; wanted 1 to 1",
        ),
        (lambda: randomised_svd(Dense(SPECTRA["identity"]), 0, seed=0), "number of singular triples: got 0"),
        (lambda: randomised_svd(Dense(SPECTRA["identity"]), 2, oversample=-1, seed=0), "oversample and num_power"),
        (lambda: block_golub_kahan(Dense(SPECTRA["identity"]), 2, block=41, seed=0), "block and max_blocks"),
        (lambda: block_golub_kahan(NotANumber(SPECTRA["identity"]), 2, seed=0), "not finite"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(BadInput, match=match):
        call()

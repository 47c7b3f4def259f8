"""Eigenpairs against dense linear algebra and ARPACK."""

from __future__ import annotations

import pytest
import scipy.sparse.linalg as sparse
import torch
from torch import Tensor

from tests.laws.operator_cases import matrix, mlp, naive_hessian
from tremorscope.foundations.errors import BadInput, NotConverged
from tremorscope.instruments.operators import Dense, Hessian, Identity, LinearOperator
from tremorscope.instruments.spectrum import METHOD, eigsh

N = 300  # above DENSE_SIZE: the iteration is at work
WHICH = ["largest", "smallest", "most_negative", "largest_magnitude"]


def rotated(values: Tensor, seed: int = 0) -> LinearOperator:
    turn = torch.linalg.qr(matrix(len(values), len(values), seed, torch.float64)).Q
    inner = (turn * values) @ turn.T
    return Dense((inner + inner.T) / 2)


def spread() -> Tensor:
    """A bulk at 0 with outliers on both sides, as Hessians have."""
    return torch.cat([torch.linspace(-0.1, 0.3, N - 6), torch.tensor([5.0, 3.0, 2.0, -4.0, -1.5, -0.5])]).double()


def wanted(values: Tensor, k: int, which: str) -> Tensor:
    """The naive twin: sort everything."""
    if which == "largest":
        return values.sort(descending=True).values[:k]
    if which == "largest_magnitude":
        return values[values.abs().argsort(descending=True)][:k]
    return values.sort().values[:k]


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("size", [40, N])
def test_eigenvalues_equal_sorting_all_of_them(which: str, size: int) -> None:
    values = spread()[-size:]
    found = eigsh(rotated(values), 3, which=which)
    assert found.method == ("dense eigh" if size == 40 else METHOD)
    torch.testing.assert_close(found.values, wanted(values, 3, which), rtol=0, atol=1e-8)
    assert found.flags == ()
    assert float(found.residuals.max()) < 1e-6 * 5
    assert found.num_products < (41 if size == 40 else N)


@pytest.mark.parametrize("size", [40, N])
def test_residuals_are_those_of_the_returned_vectors(size: int) -> None:
    operator = rotated(spread()[-size:])
    found = eigsh(operator, 3)
    fresh = (operator @ found.vectors - found.vectors * found.values).norm(dim=0)
    torch.testing.assert_close(found.residuals, fresh, rtol=1e-3, atol=1e-13)
    torch.testing.assert_close(found.vectors.T @ found.vectors, torch.eye(3).double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("k", [4, 10, 14])
def test_all_copies_of_a_repeated_eigenvalue_are_found(k: int) -> None:  # row E5
    values = torch.cat([torch.full((10,), 5.0), torch.linspace(0, 4, N - 10)]).double()
    found = eigsh(Dense(torch.diag(values)), k)
    torch.testing.assert_close(found.values, wanted(values, k, "largest"), rtol=0, atol=1e-6)
    gram = found.vectors.T @ found.vectors
    torch.testing.assert_close(gram, torch.eye(k).double(), rtol=0, atol=1e-8)


def test_without_a_fresh_start_copies_would_be_missed() -> None:
    values = torch.cat([torch.full((10,), 5.0), torch.linspace(0, 4, N - 10)]).double()
    found = eigsh(Dense(torch.diag(values)), 10, copies=False)
    assert int((found.values > 4.99).sum()) < 10  # the planted bug is one that the test above catches


@pytest.mark.parametrize("seed", range(5))
def test_copies_come_in_where_the_rest_is_crowded(seed: int) -> None:
    values = torch.cat([torch.full((10,), 5.0), torch.linspace(0, 4.8, N - 10)]).double()
    found = eigsh(Dense(torch.diag(values)), 10, seed=seed, max_restarts=100)
    torch.testing.assert_close(found.values, torch.full((10,), 5.0).double(), rtol=1e-9, atol=0)
    assert found.flags == ("repeated eigenvalues: some copies were found only by a fresh start",)


def test_a_copy_of_the_last_value_but_one_is_found_from_every_start() -> None:
    tops = torch.linspace(5, 1, 10)
    values = torch.cat([tops, tops[-2:-1], torch.linspace(-0.3, 0.5, 1000)]).double()
    for seed in range(40):
        found = eigsh(Dense(torch.diag(values)), 10, seed=seed)
        torch.testing.assert_close(found.values, wanted(values, 10, "largest"), rtol=0, atol=1e-6)


def test_looking_for_copies_ends_early_where_they_would_stand_out() -> None:
    values = torch.cat([torch.linspace(5, 3, 5), torch.linspace(-0.01, 0.01, 1000)]).double()
    operator = Dense(torch.diag(values))
    with_look, without = (eigsh(operator, 5, copies=copies) for copies in (True, False))
    assert 0 < with_look.num_products - without.num_products <= 4  # the most would be 8
    assert torch.equal(with_look.values, without.values)


def test_same_seed_same_bits() -> None:
    operator = rotated(spread())
    first, second = eigsh(operator, 4), eigsh(operator, 4)
    assert torch.equal(first.values, second.values)
    assert torch.equal(first.vectors, second.vectors)
    other = eigsh(operator, 4, seed=1)
    torch.testing.assert_close(other.values, first.values, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("which", WHICH)
def test_operators_on_which_an_iteration_starves(which: str) -> None:
    for operator, allowed in ((Identity(N), {1.0}), (0.0 * Identity(N), {0.0})):
        first, second = eigsh(operator, 3, which=which), eigsh(operator, 3, which=which)
        assert torch.equal(first.vectors, second.vectors)
        assert {round(value, 10) for value in first.values.tolist()} <= allowed
        assert len(first) == (0 if which == "most_negative" else 3)


def test_most_negative_leaves_out_what_is_not_negative() -> None:
    values = spread().abs()
    values[0] = -2.0
    found = eigsh(rotated(values), 3, which="most_negative")
    torch.testing.assert_close(found.values, torch.tensor([-2.0]).double(), rtol=0, atol=1e-8)
    assert found.flags == ("1 negative eigenvalues, 3 asked for",)
    assert len(eigsh(rotated(spread().abs() + 1), 2, which="most_negative")) == 0


def test_the_hessian_of_a_network() -> None:
    network = mlp(torch.float64)
    everything = torch.linalg.eigvalsh(naive_hessian(network))
    operator = Hessian(network, network.task.train_batch())
    torch.testing.assert_close(eigsh(operator, 4).values, everything.flip(0)[:4], rtol=1e-9, atol=1e-12)


def test_float32_products_that_miss_the_tolerance_are_flagged() -> None:
    operator = Dense(rotated(spread()).dense().float())
    symmetric = Dense((operator.matrix + operator.matrix.T) / 2)
    found = eigsh(symmetric, 3, tol=1e-12)
    assert found.vectors.dtype == torch.float32
    assert "above tol 1e-12 (float32 products)" in found.flags[-1]
    torch.testing.assert_close(found.values, torch.tensor([5.0, 3.0, 2.0]).double(), rtol=1e-5, atol=0)


def test_what_does_not_converge_says_what_did() -> None:
    crowded = Dense(torch.diag(torch.cat([torch.linspace(0, 1, 999), torch.tensor([9.0])]).double()))
    with pytest.raises(NotConverged, match=r"got 1 after 1 restarts \(9\); wanted 4 with residual below 1e-10"):
        eigsh(crowded, 4, tol=1e-10, max_restarts=1)
    partial = eigsh(crowded, 4, tol=1e-10, max_restarts=1, allow_partial=True)
    torch.testing.assert_close(partial.values, torch.tensor([9.0]).double(), rtol=1e-8, atol=0)
    assert partial.flags == ("not converged: 1 of 4 eigenpairs",)


def test_bad_input() -> None:
    a = matrix(4, 4, 0, torch.float64)
    with pytest.raises(BadInput, match="not known to be symmetric; wanted a symmetric one"):
        eigsh(Dense(a), 1)
    with pytest.raises(BadInput, match="in bfloat16; wanted float32 or float64"):
        eigsh(Dense(torch.eye(4, dtype=torch.bfloat16)), 1)
    with pytest.raises(BadInput, match="got 5; wanted 1 to 4"):
        eigsh(Identity(4), 5)
    with pytest.raises(BadInput, match="got 0; wanted 1 to 4"):
        eigsh(Identity(4), 0)
    with pytest.raises(BadInput, match="block: got 0; wanted 1 to 9"):
        eigsh(Identity(4), 1, block=0)


@pytest.mark.parametrize("size", [4, N])
def test_products_that_are_not_finite_are_an_error(size: int) -> None:
    overflowing = 1e300 * (1e300 * Identity(size))
    with pytest.raises(BadInput, match="not finite"):
        eigsh(overflowing, 1)


@pytest.mark.parametrize("which", ["largest", "smallest", "largest_magnitude"])
def test_agrees_with_arpack(which: str) -> None:
    values = torch.cat([spread(), 0.01 * torch.arange(400).double().sin()])
    operator = rotated(values)
    wrapped = operator.dense().numpy()
    name = {"largest": "LA", "smallest": "SA", "largest_magnitude": "LM"}[which]
    twin = torch.from_numpy(sparse.eigsh(wrapped, k=6, which=name, tol=1e-12)[0].copy())
    found = eigsh(operator, 6, which=which, tol=1e-10)
    torch.testing.assert_close(found.values.sort().values, twin.sort().values, rtol=0, atol=1e-9)


@pytest.mark.parametrize("block", [2, 5])
@pytest.mark.parametrize("which", WHICH)
def test_blocks_find_the_same(block: int, which: str) -> None:
    operator = rotated(spread())
    one, many = (eigsh(operator, 4, which=which, tol=1e-10, block=width) for width in (1, block))
    torch.testing.assert_close(many.values, one.values, rtol=0, atol=1e-9)
    assert many.flags == ()


@pytest.mark.parametrize("block", [1, 4])
def test_no_ghosts_where_the_basis_is_restarted_often(block: int) -> None:  # row E5
    values = torch.cat([torch.tensor([9.0, 7.0]), torch.linspace(-1, 1, 998)]).double()
    operator = rotated(values)
    found = eigsh(operator, 8, tol=1e-9, block=block)
    assert found.num_products > 200
    torch.testing.assert_close(found.values, wanted(values, 8, "largest"), rtol=0, atol=1e-8)
    gram = found.vectors.T @ found.vectors
    torch.testing.assert_close(gram, torch.eye(8).double(), rtol=0, atol=1e-10)


def test_float32_keeps_its_vectors_orthonormal_and_its_values_good() -> None:  # row E3, on a small matrix
    exact = rotated(torch.cat([spread(), torch.zeros(700, dtype=torch.float64)])).dense()
    single = Dense(((exact + exact.T) / 2).float())
    found = eigsh(single, 20)
    assert found.vectors.dtype == torch.float32
    truth = torch.linalg.eigvalsh(exact).flip(0)[:20]
    torch.testing.assert_close(found.values, truth, rtol=1e-5, atol=0)
    gram = found.vectors.double().T @ found.vectors.double()
    torch.testing.assert_close(gram, torch.eye(20).double(), rtol=0, atol=1e-6)


def test_little_memory_costs_restarts_and_not_accuracy() -> None:
    values = torch.cat([spread(), torch.linspace(-0.1, 0.2, 2000).double()])
    operator = Dense(torch.diag(values))
    ample = eigsh(operator, 5)
    vector = len(values) * 8
    tight = eigsh(operator, 5, memory=20 * vector)
    torch.testing.assert_close(tight.values, ample.values, rtol=0, atol=1e-7)
    assert tight.num_products > ample.num_products
    assert tight.flags == ()
    with pytest.raises(BadInput, match=r"memory for 5 eigenpairs of 2,300 rows: got 184,000 bytes; wanted at least"):
        eigsh(operator, 5, memory=10 * vector)


def test_progress_is_told() -> None:
    told: list[tuple[int, int, float]] = []
    found = eigsh(rotated(spread()), 5, progress=lambda *news: told.append(news))
    products = [news[0] for news in told]
    assert products == sorted(products)
    assert products[-1] <= found.num_products
    assert told[-1][1] == 5
    assert told[-1][2] <= 1e-6

"""Eigenpairs and traces against dense linear algebra."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.laws.operator_cases import matrix, mlp, naive_hessian
from tremorscope.foundations.errors import BadInput, NotConverged
from tremorscope.instruments import spectrum as module
from tremorscope.instruments.operators import Dense, Hessian, Identity, LinearOperator
from tremorscope.instruments.spectrum import eigsh, exact_trace, trace

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
    assert found.method == ("dense eigh" if size == 40 else "ARPACK")
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


def test_without_deflation_copies_would_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_with_missed_copies", lambda search, values, vectors: (values, vectors, ()))
    values = torch.cat([torch.full((10,), 5.0), torch.linspace(0, 4, N - 10)]).double()
    found = eigsh(Dense(torch.diag(values)), 10)
    assert int((found.values > 4.99).sum()) < 10  # the planted bug is one that the test above catches


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
    assert abs(exact_trace(operator).value - float(everything.sum())) < 1e-10


def test_float32_products_that_miss_the_tolerance_are_flagged() -> None:
    operator = Dense(rotated(spread()).dense().float())
    symmetric = Dense((operator.matrix + operator.matrix.T) / 2)
    found = eigsh(symmetric, 3, tol=1e-12)
    assert found.vectors.dtype == torch.float32
    assert "above tol 1e-12 (float32 products)" in found.flags[-1]
    torch.testing.assert_close(found.values, torch.tensor([5.0, 3.0, 2.0]).double(), rtol=1e-5, atol=0)


def test_what_does_not_converge_says_what_did() -> None:
    crowded = Dense(torch.diag(torch.cat([torch.linspace(0, 1, N - 1), torch.tensor([9.0])]).double()))
    with pytest.raises(NotConverged, match=r"got 1 after 1 restarts \(9\); wanted 4 with residual below 1e-10"):
        eigsh(crowded, 4, tol=1e-10, max_restarts=1)
    partial = eigsh(crowded, 4, tol=1e-10, max_restarts=1, allow_partial=True)
    torch.testing.assert_close(partial.values, torch.tensor([9.0]).double(), rtol=1e-8, atol=0)
    assert partial.flags == ("not converged: 1 of 4 eigenpairs",)


def test_bad_input() -> None:
    a = matrix(4, 4, 0, torch.float64)
    with pytest.raises(BadInput, match="not known to be symmetric; wanted a symmetric one"):
        eigsh(Dense(a), 1)
    with pytest.raises(BadInput, match="got 5; wanted 1 to 4"):
        eigsh(Identity(4), 5)
    with pytest.raises(BadInput, match="got 0; wanted 1 to 4"):
        eigsh(Identity(4), 0)
    with pytest.raises(BadInput, match="got 3 x 4; wanted a square one"):
        trace(Dense(a[:3]))
    with pytest.raises(BadInput, match="got 3 x 4; wanted a square one"):
        exact_trace(Dense(a[:3]))
    with pytest.raises(BadInput, match="got 1; wanted at least 2"):
        trace(Identity(4), num_probes=1)


@pytest.mark.parametrize("size", [4, N])
def test_products_that_are_not_finite_are_an_error(size: int) -> None:
    overflowing = 1e300 * (1e300 * Identity(size))
    with pytest.raises(BadInput, match="not finite"):
        eigsh(overflowing, 1)
    with pytest.raises(BadInput, match="not finite"):
        trace(overflowing)
    with pytest.raises(BadInput, match="wanted finite diagonal entries"):
        exact_trace(overflowing)


def test_trace_interval_covers_the_exact_trace() -> None:  # row E6
    operator = rotated(torch.linspace(-1, 4, 30, dtype=torch.float64))
    exact = exact_trace(operator)
    assert exact.method == "exact"
    assert exact.value == pytest.approx(30 * 1.5, rel=1e-12)
    estimates = [trace(operator, num_probes=16, seed=seed, level=0.95) for seed in range(100)]
    covered = sum(estimate.low <= exact.value <= estimate.high for estimate in estimates)
    assert 90 <= covered <= 99  # 100 of 100 would be an interval that is too wide
    assert estimates[0] == trace(operator, num_probes=16, seed=0, level=0.95)
    assert estimates[0].n == 16
    assert estimates[0].value != estimates[1].value


def test_trace_does_not_depend_on_how_probes_are_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = rotated(torch.linspace(-1, 4, 30, dtype=torch.float64))
    whole = trace(operator, num_probes=20)
    monkeypatch.setattr(module, "_PROBES", 7)
    assert trace(operator, num_probes=20).value == pytest.approx(whole.value, rel=1e-12)

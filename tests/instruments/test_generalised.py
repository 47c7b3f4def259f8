"""Generalised eigenpairs against scipy.linalg.eigh(a, b)."""

from __future__ import annotations

import dataclasses

import pytest
import scipy.linalg
import torch
from torch import Tensor

from tests.laws.operator_cases import matrix, mlp
from tremorscope.foundations.errors import BadInput, NotConverged
from tremorscope.instruments.generalised import generalised_eigsh
from tremorscope.instruments.operators import Dense, Hessian, Identity
from tremorscope.instruments.spectrum import eigsh

F64 = torch.float64
WHICH = ["largest", "smallest", "largest_magnitude"]


def of_values(values: Tensor, seed: int, dtype: torch.dtype = F64) -> Dense:
    turn = torch.linalg.qr(matrix(len(values), len(values), seed, F64)).Q
    inner = ((turn * values) @ turn.T).to(dtype)
    return Dense((inner + inner.T) / 2)


def outliers(size: int) -> Tensor:
    """Curvature of a network: few large values, a bulk near 0."""
    return torch.cat([torch.logspace(1.5, 0, 12), 0.02 * torch.linspace(0, 1, size - 12) ** 3]).double()


def two_sided(size: int) -> Tensor:
    return torch.cat(
        [torch.tensor([20.0, 7.0, 5.0, 3.0, -9.0, -6.0, -1.0]), 0.1 * torch.linspace(-1, 1, size - 7)]
    ).double()


def twin(a: Dense, b: Dense, damping: float, k: int, which: str) -> tuple[Tensor, Tensor]:
    shifted = b.matrix.double() + damping * torch.eye(len(b.matrix)).double()
    values, vectors = (torch.from_numpy(part) for part in scipy.linalg.eigh(a.matrix.double().numpy(), shifted.numpy()))
    key = {"largest": values, "smallest": -values, "largest_magnitude": values.abs()}[which]
    order = key.argsort(descending=True)[:k]
    return values[order], vectors[:, order]


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("size", [60, 400])
@pytest.mark.parametrize("damping", [0.05, 1.0])
def test_agrees_with_scipy(which: str, size: int, damping: float) -> None:
    a, b = of_values(two_sided(size), 0), of_values(outliers(size), 1)
    found = generalised_eigsh(a, b, 3, damping=damping, which=which, tol=1e-8)
    values, vectors = twin(a, b, damping, 3, which)
    torch.testing.assert_close(found.values, values, rtol=1e-9, atol=1e-9)
    overlap = (found.vectors.T @ (b.matrix + damping * torch.eye(size).double()) @ vectors).abs()
    torch.testing.assert_close(overlap, torch.eye(3).double(), rtol=0, atol=1e-4)
    assert found.flags == ()
    assert found.method == ("dense generalised eigh" if size == 60 else "block Davidson, deflation preconditioner")
    assert bool(((found.values - values).abs() <= found.residuals + 1e-10).all())


def test_residuals_and_scale_are_those_of_the_returned_vectors() -> None:
    a, b = of_values(two_sided(400), 0), of_values(outliers(400), 1)
    found = generalised_eigsh(a, b, 4, damping=0.1)
    shifted = b.matrix + 0.1 * torch.eye(400).double()
    torch.testing.assert_close(found.vectors.T @ shifted @ found.vectors, torch.eye(4).double(), rtol=0, atol=1e-9)
    fresh = (a.matrix @ found.vectors - shifted @ found.vectors * found.values).norm(dim=0)
    torch.testing.assert_close(found.residuals * 0.1**0.5, fresh, rtol=2e-2, atol=1e-12)


def test_a_preconditioner_of_ones_own_and_none_at_all_find_the_same() -> None:
    a, b = of_values(two_sided(400), 0), of_values(outliers(400), 1)
    good = generalised_eigsh(a, b, 3, damping=0.01, preconditioner=eigsh(b, 30))
    default = generalised_eigsh(a, b, 3, damping=0.01)
    top = eigsh(b, 1)
    poor = generalised_eigsh(a, b, 3, damping=0.01, preconditioner=top)
    torch.testing.assert_close(good.values, poor.values, rtol=1e-6, atol=0)
    torch.testing.assert_close(good.values, default.values, rtol=1e-6, atol=0)
    assert poor.num_products > 1.3 * good.num_products  # the planted fault: without outliers deflated, it is slow
    with pytest.raises(BadInput, match="preconditioner: got 7 rows; wanted eigenpairs of b, with 400"):
        generalised_eigsh(a, b, 3, damping=0.01, preconditioner=dataclasses.replace(top, vectors=top.vectors[:7]))


def test_repeated_eigenvalues_are_all_found() -> None:
    values = torch.cat([torch.full((4,), 5.0), torch.linspace(-1, 1, 396)]).double()
    found = generalised_eigsh(of_values(values, 0), 0.5 * Identity(400), 5, damping=0.5)
    torch.testing.assert_close(found.values, torch.tensor([5.0, 5, 5, 5, 1]).double(), rtol=1e-6, atol=0)


def test_float32_products_reach_what_they_can_and_say_so() -> None:
    a, b = of_values(two_sided(400), 0, torch.float32), of_values(outliers(400), 1, torch.float32)
    values, _ = twin(a, b, 0.1, 3, "largest")
    found = generalised_eigsh(a, b, 3, damping=0.1, tol=1e-4)
    torch.testing.assert_close(found.values, values, rtol=1e-4, atol=0)
    assert found.vectors.dtype == torch.float32
    assert found.flags == ()
    strict = generalised_eigsh(a, b, 3, damping=0.1, tol=1e-12)
    assert "above tol 1e-12" in strict.flags[0]


def test_two_hessians_of_a_network() -> None:
    network = mlp(F64)
    batch = network.task.train_batch()
    a = Hessian(network, batch)
    b = a @ a  # not known to be symmetric: products of operators are not
    with pytest.raises(BadInput, match=r"operator b of a generalised eigenproblem: got .* not known to be symmetric"):
        generalised_eigsh(a, b, 1, damping=0.1)
    with pytest.raises(BadInput, match=r"b with the eigenvalue -.*wanted a positive definite sum\. Use damping="):
        generalised_eigsh(a, a, 1, damping=1e-9)
    lowest = float(torch.linalg.eigvalsh(a.dense())[0])
    assert len(generalised_eigsh(a, a, 1, damping=-2 * lowest)) == 1


@pytest.mark.parametrize("size", [60, 400])
def test_an_indefinite_b_is_refused_with_the_damping_that_would_do(size: int) -> None:
    values = outliers(size)
    values[-1] = -0.3
    a, b = of_values(two_sided(size), 0), of_values(values, 1)
    with pytest.raises(BadInput, match=r"got b with the eigenvalue -0.3, damping 0.1; .* Use damping=0.6, or a b"):
        generalised_eigsh(a, b, 2, damping=0.1)
    found = generalised_eigsh(a, b, 2, damping=0.6)
    torch.testing.assert_close(found.values, twin(a, b, 0.6, 2, "largest")[0], rtol=1e-6, atol=0)


def test_what_does_not_converge_says_so() -> None:
    a, b = of_values(two_sided(400), 0), of_values(outliers(400), 1)
    with pytest.raises(NotConverged, match=r"3 generalised eigenpairs .* after 1 iterations; wanted at most 1e-12"):
        generalised_eigsh(a, b, 3, damping=0.01, tol=1e-12, max_iterations=1)
    partial = generalised_eigsh(a, b, 3, damping=0.01, tol=1e-12, max_iterations=1, allow_partial=True)
    assert "after 1 iterations, above tol 1e-12" in partial.flags[0]


def test_same_seed_same_bits() -> None:
    a, b = of_values(two_sided(400), 0), of_values(outliers(400), 1)
    first, second = (generalised_eigsh(a, b, 2, damping=0.1) for _ in range(2))
    assert torch.equal(first.vectors, second.vectors)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: generalised_eigsh(Identity(4), Identity(5), 1, damping=1.0), "wanted equal shape and dtype"),
        (lambda: generalised_eigsh(Identity(4), Identity(4), 5, damping=1.0), "got 5; wanted 1 to 4"),
        (lambda: generalised_eigsh(Identity(4), Identity(4), 1, damping=-1.0), "damping: got -1.0; wanted a number"),
        (lambda: generalised_eigsh(1e300 * (1e300 * Identity(4)), Identity(4), 1, damping=0.0), "not finite"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(BadInput, match=match):
        call()

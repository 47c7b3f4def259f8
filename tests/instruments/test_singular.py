"""Singular values survive a driver that fails."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest
import scipy.linalg
import torch
from torch import Tensor

from tests.laws.operator_cases import matrix
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.singular import decompose


def rebuilt(found: object) -> Tensor:
    return found.left * found.values @ found.right.T  # type: ignore[attr-defined]


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (9, 4), (4, 9), (1, 5)])
def test_factors_multiply_back(rows: int, columns: int) -> None:
    a = matrix(rows, columns, 0, torch.float64)
    found = decompose(a)
    torch.testing.assert_close(rebuilt(found), a, rtol=0, atol=1e-13)
    squares = torch.linalg.eigvalsh(a @ a.T).flip(0)[: min(rows, columns)]  # the naive twin
    torch.testing.assert_close(found.values.square(), squares, rtol=1e-9, atol=1e-12)
    assert (found.method, found.flags) == ("gesdd", ())
    assert found.residual < 1e-13


def test_float32_is_decomposed_in_float64() -> None:
    a = torch.eye(5) + 1e-3 * matrix(5, 5, 0, torch.float32)
    found = decompose(a)
    assert found.values.dtype == torch.float64
    torch.testing.assert_close(rebuilt(found), a.double(), rtol=0, atol=1e-14)


def fails(*_: object, **__: object) -> object:
    raise torch.linalg.LinAlgError("too many repeated singular values")


def not_finite(a: Tensor, **_: object) -> tuple[Tensor, Tensor, Tensor]:
    return torch.full_like(a, torch.nan), torch.ones(len(a), dtype=a.dtype), torch.eye(len(a), dtype=a.dtype)


def wrong_vectors(a: Tensor, **_: object) -> tuple[Tensor, Tensor, Tensor]:
    eye = torch.eye(len(a), dtype=a.dtype)
    return eye, torch.ones(len(a), dtype=a.dtype), eye


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (fails, "gesdd failed: too many repeated singular values"),
        (not_finite, "gesdd gave a residual of inf"),
        (wrong_vectors, "gesdd gave a residual of"),
    ],
)
def test_the_second_driver_takes_over(
    broken: Callable[..., object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = matrix(6, 6, 0, torch.float64)
    monkeypatch.setattr(torch.linalg, "svd", broken)
    found = decompose(a)
    assert found.method == "gesvd"
    assert found.flags[0].startswith(said)
    torch.testing.assert_close(rebuilt(found), a, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (4, 9), (9, 4)])
def test_the_last_resort_gives_values_only(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_too(*_: object, **__: object) -> object:
        raise numpy.linalg.LinAlgError("SVD did not converge")

    a = matrix(rows, columns, 0, torch.float64)
    sound = decompose(a)
    monkeypatch.setattr(torch.linalg, "svd", fails)
    monkeypatch.setattr(scipy.linalg, "svd", fails_too)
    found = decompose(a)
    assert found.left is None
    assert found.right is None
    assert [flag.split(":")[0] for flag in found.flags] == [
        "gesdd failed",
        "gesvd failed",
        "eigenvalues of the Gram matrix",
    ]
    torch.testing.assert_close(found.values, sound.values, rtol=1e-10, atol=1e-10)


def test_the_zero_matrix_and_repeated_values() -> None:
    assert torch.equal(decompose(torch.zeros(3, 3)).values, torch.zeros(3).double())
    assert decompose(torch.eye(50)).values.tolist() == pytest.approx([1.0] * 50, abs=1e-14)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="got 1 entries that are not finite"):
        decompose(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(BadInput, match=r"got shape \(0, 3\)"):
        decompose(torch.zeros(0, 3))

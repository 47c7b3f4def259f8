"""An operator outside a span: every law, and the three things it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.laws.operator_cases import Case, matrix
from tests.laws.operator_laws import LAWS
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.operators import Dense
from tremorscope.instruments.operators.deflated import Deflated

F64 = torch.float64


def span(dtype: torch.dtype = F64) -> Tensor:
    return torch.linalg.qr(matrix(6, 2, 3, F64)).Q.to(dtype)


def symmetric(dtype: torch.dtype) -> Case:
    drawn = matrix(6, 6, 1, F64)
    full, outside = (drawn + drawn.T).to(dtype), torch.eye(6, dtype=dtype) - span(dtype) @ span(dtype).T
    dense = outside @ full @ outside
    return Case(Deflated(Dense(full), span(dtype)), (dense + dense.T) / 2, None)


def lopsided(dtype: torch.dtype) -> Case:
    full, outside = matrix(6, 6, 1, dtype), torch.eye(6, dtype=dtype) - span(dtype) @ span(dtype).T
    return Case(Deflated(Dense(full), span(dtype)), outside @ full @ outside, None)


@pytest.mark.parametrize("make", [symmetric, lopsided])
@pytest.mark.parametrize("law", LAWS)
def test_every_law(make, law):
    LAWS[law](make)


def test_nothing_is_left_along_the_span():
    case = symmetric(torch.float32)
    assert float((case.operator.basis.T @ case.operator.mm(matrix(6, 3, 5, torch.float32))).abs().max()) < 1e-6
    assert (symmetric(F64).operator.is_symmetric, lopsided(F64).operator.is_symmetric) == (True, False)


def test_what_does_not_fit_is_named():
    with pytest.raises(BadInput, match="operator to deflate: got 6 x 2; wanted a square one"):
        Deflated(Dense(span()), span())
    square = Dense(torch.eye(6, dtype=F64))
    with pytest.raises(BadInput, match="directions to take out: got 5 entries; wanted 6, as the operator"):
        Deflated(square, span()[:5])
    with pytest.raises(BadInput, match=r"columns that are 3 from orthonormal; wanted orthonormal columns"):
        Deflated(square, 2 * span())

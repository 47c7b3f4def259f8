from __future__ import annotations

import math

import pytest
import torch

from tests.laws.operator_cases import stream
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.fourier import cyclic_basis, frequency_power, num_frequencies

F64 = torch.float64


@pytest.mark.parametrize("p", [2, 3, 6, 37])
def test_the_basis_is_orthonormal_and_its_columns_are_waves(p):
    basis = cyclic_basis(p)
    assert basis.shape == (p, p)
    torch.testing.assert_close(basis.T @ basis, torch.eye(p, dtype=F64), rtol=0, atol=1e-12)
    if p > 2:  # a shift by one residue turns the plane of frequency 1 by 2 pi / p
        turned = torch.roll(basis, -1, dims=0)[:, 1]
        angle = 2 * math.pi / p
        torch.testing.assert_close(turned, math.cos(angle) * basis[:, 1] - math.sin(angle) * basis[:, 2])


@pytest.mark.parametrize("p", [2, 3, 6, 37])
def test_power_is_the_squared_length_in_each_plane_of_the_basis(p):
    table = torch.randn(p, 5, generator=stream(p), dtype=F64)
    squared = (cyclic_basis(p).T @ table).square().sum(dim=1)
    wanted = torch.zeros(num_frequencies(p), dtype=F64)
    for column in range(p):
        wanted[(column + 1) // 2] += squared[column]
    torch.testing.assert_close(frequency_power(table), wanted)
    assert float(frequency_power(table).sum()) == pytest.approx(float(table.square().sum()))


def test_a_turn_of_the_columns_changes_nothing():
    table = torch.randn(7, 4, generator=stream(0), dtype=F64)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=stream(1), dtype=F64)).Q
    torch.testing.assert_close(frequency_power(table @ turn), frequency_power(table))
    assert torch.allclose(frequency_power(table.float()), frequency_power(table), rtol=1e-5)


def test_a_group_of_one_has_no_waves():
    with pytest.raises(BadInput, match="order of a cyclic group: got 1; wanted at least 2"):
        cyclic_basis(1)
    with pytest.raises(BadInput, match="table indexed by residues: got 1 rows; wanted at least 2"):
        frequency_power(torch.ones(1, 3))

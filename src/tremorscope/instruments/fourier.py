"""Fourier analysis on the cyclic group of p residues: an orthonormal real basis, and power by frequency.

What is indexed by residues mod p (an embedding table, the logits of a sum) is a function on a cyclic group;
its natural coordinates are the waves `cos(2 pi k a / p)` and `sin(2 pi k a / p)`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput


def num_frequencies(p: int) -> int:
    """Frequencies of a cyclic group: 0 to `p // 2`, the constant included.

    >>> num_frequencies(37)
    19
    """
    return p // 2 + 1


def cyclic_basis(p: int, *, dtype: torch.dtype = torch.float64) -> Float[Tensor, "p p"]:
    """The orthonormal real Fourier basis as columns: 1, cos 1, sin 1, cos 2, sin 2, ...

    Column `2k - 1` is the cosine of frequency `k` and column `2k` its sine; for even `p` the last column is
    the alternating sign, which has no sine.

    >>> basis = cyclic_basis(5)
    >>> bool(torch.allclose(basis.T @ basis, torch.eye(5, dtype=torch.float64)))
    True

    Raises:
        BadInput: If `p` is less than 2.
    """
    if p < 2:
        raise BadInput("order of a cyclic group", got=p, wanted="at least 2")
    angles = 2 * math.pi * torch.arange(p, dtype=torch.float64) / p
    columns = [torch.full((p,), p**-0.5, dtype=torch.float64)]
    for k in range(1, num_frequencies(p)):
        scale = p**-0.5 if 2 * k == p else (2 / p) ** 0.5
        columns.append(scale * torch.cos(k * angles))
        if 2 * k != p:
            columns.append(scale * torch.sin(k * angles))
    return torch.stack(columns, dim=1).to(dtype)


def frequency_power(table: Float[Tensor, " p *columns"]) -> Float[Tensor, " frequencies"]:
    """How much of a table indexed by residues lies in each frequency: squared length of that part.

    Entry `k` sums the cosine and the sine of frequency `k` over all columns, so the entries add up to the
    squared norm of the table (Parseval), and a rotation of the columns changes nothing.

    >>> a = torch.arange(7)
    >>> wave = torch.cos(2 * math.pi * 2 * a / 7)
    >>> [round(power, 3) + 0.0 for power in frequency_power(wave).tolist()]
    [0.0, 0.0, 3.5, 0.0]

    Raises:
        BadInput: If there are fewer than two residues.
    """
    p = len(table)
    if p < 2:
        raise BadInput("table indexed by residues", got=f"{p} rows", wanted="at least 2")
    waves = torch.fft.rfft(table.double().reshape(p, -1), dim=0)
    power: Tensor = waves.abs().square().sum(dim=1) / p
    twice = slice(1, len(power) - 1 if p % 2 == 0 else None)  # both k and p - k, which the real transform leaves out
    power[twice] *= 2
    return power

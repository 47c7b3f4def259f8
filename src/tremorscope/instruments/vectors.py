"""Vectors and sizes that edits are made of: what is refused, and in which precision they are used."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tremorscope.foundations.errors import BadInput

Size = float | Tensor  # a tensor has no axes; `respond` maps over it


def meet(x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
    """Vectors on the device of `x`, all in the precision in which they and `x` are to be multiplied."""
    # At least single precision: products over thousands of entries in bfloat16 leave a hundredth behind.
    dtype = torch.promote_types(x.dtype, torch.float32)
    for vector in vectors:
        dtype = torch.promote_types(dtype, vector.dtype)
    return tuple(vector.to(device=x.device, dtype=dtype) for vector in vectors)


def any_true(condition: Tensor) -> bool:
    """Whether a condition holds anywhere; no under `vmap`, where that cannot be asked."""
    try:
        return bool(condition.any())
    except RuntimeError:  # under vmap a tensor cannot be looked at; the arithmetic gives NaN instead
        return False


def check_direction(what: str, vector: Tensor) -> None:
    """Refuse what is no vector of finite numbers, or zero."""
    check_vector(what, vector)
    if not any_true(vector != 0):
        raise BadInput(what, got="only zeros", wanted="a vector with a direction")


def check_vector(what: str, vector: Tensor) -> None:
    """Refuse what is no vector of finite numbers."""
    if vector.ndim != 1 or not vector.is_floating_point():
        raise BadInput(
            what,
            got=f"{vector.dtype} of shape {tuple(vector.shape)}",
            wanted="one vector of real numbers",
            remedy="Parameters are flattened by network.layout.flatten(...).",
        )
    check_finite(what, vector)


def check_finite(what: str, tensor: Tensor) -> None:
    """Refuse entries that are not finite."""
    if any_true(~tensor.isfinite()):
        num_bad = int((~tensor.isfinite()).sum())
        raise BadInput(what, got=f"{num_bad} of {tensor.numel()} entries not finite", wanted="finite numbers")


def check_number(what: str, number: Size) -> None:
    """Refuse what is no finite number."""
    if isinstance(number, Tensor):
        if number.ndim != 0:
            raise BadInput(what, got=f"a tensor of shape {tuple(number.shape)}", wanted="one number")
        if any_true(~number.isfinite()):
            raise BadInput(what, got=float(number), wanted="a finite number")
    elif not math.isfinite(number):
        raise BadInput(what, got=number, wanted="a finite number")

"""Constant affine edits that follow one another at one place, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tremorscope.instruments.activations.hooks import Tap
    from tremorscope.instruments.edit import Edit


class AffineMap(NamedTuple):
    """`x + left right^T x + shift`, or (where not `keeps`) `shift` whatever x is; in float64."""

    left: Tensor
    right: Tensor
    shift: Tensor
    keeps: bool
    dtype: torch.dtype

    def then(self, other: AffineMap) -> AffineMap:
        """This map and the other after it; the rank is at most the sum of both, and at most the width."""
        dtype = torch.promote_types(self.dtype, other.dtype)
        if not other.keeps:
            return other._replace(dtype=dtype)
        shift = self.shift + other.left @ (other.right.mT @ self.shift) + other.shift
        if not self.keeps:
            return self._replace(shift=shift, dtype=dtype)
        left = torch.cat([self.left, other.left], dim=1)
        right = torch.cat([self.right, other.right + self.right @ (self.left.mT @ other.right)], dim=1)
        if left.shape[1] > len(left):
            left, right = left @ right.mT, torch.eye(len(left), dtype=left.dtype, device=left.device)
        return AffineMap(left, right, shift, True, dtype)

    def edit(self) -> Edit:
        """The edit that does this, in the precision of those it was made of."""
        from tremorscope.instruments.edit import Affine, Replace

        if not self.keeps:
            return Replace(self.shift.to(self.dtype))
        return Affine(self.left.to(self.dtype), self.right.to(self.dtype), shift=self.shift.to(self.dtype))


def constant_affine(edit: Edit) -> AffineMap | None:
    """The edit as an affine map of vectors; None where it is none: a gate, a rotation, noise, a size to be mapped."""
    from tremorscope.instruments.activations.gated_edits import Gated
    from tremorscope.instruments.edit import Add, Affine, Project, Replace

    if isinstance(edit, Add) and not isinstance(edit.size, Tensor):
        nothing = edit.direction.new_zeros(len(edit.direction), 0).double()
        return AffineMap(nothing, nothing, edit.size * edit.direction.double(), True, edit.direction.dtype)
    if isinstance(edit, Replace) and edit.value.ndim == 1:
        nothing = edit.value.new_zeros(len(edit.value), 0).double()
        return AffineMap(nothing, nothing, edit.value.double(), False, edit.value.dtype)
    if isinstance(edit, Affine):
        left, right = edit.left.double(), edit.right.double()
        shift = left.new_zeros(len(left)) if edit.shift is None else edit.shift.double()
        if edit.offset is not None:
            shift = shift - left @ (right.mT @ edit.offset.double())
        return AffineMap(left, right, shift, True, edit.left.dtype)
    if isinstance(edit, Project):
        basis, offset = edit.subspace.basis.double(), edit.subspace.offset.double()
        left = basis @ basis.mT - torch.eye(len(basis), dtype=basis.dtype, device=basis.device)
        right = torch.eye(len(basis), dtype=basis.dtype, device=basis.device)
        return AffineMap(left, right, -left @ offset, True, edit.subspace.basis.dtype)
    if isinstance(edit, Gated) and edit.gate is None and not isinstance(edit.strength, Tensor):
        inner = constant_affine(edit.edit)
        if inner is None or (not inner.keeps and edit.strength != 1):
            return None
        return inner._replace(left=edit.strength * inner.left, shift=edit.strength * inner.shift)
    return None


def fold(taps: Sequence[Tap]) -> tuple[Tap, ...]:
    """The same edits, those that can be made one; taps at one tensor keep their order.

    Many constant affine edits at a place then cost what one does. Edits that depend on more (gates, rotations towards
    a vector, noise) stay as they are.
    """
    first: dict[Any, int] = {}
    for tap in taps:
        first.setdefault((tap.place.module, tap.place.port), len(first))
    folded: list[Tap] = []
    for _, group in groupby(sorted(taps, key=lambda tap: first[tap.place.module, tap.place.port]), key=_key):
        run: list[Tap] = []
        for tap in group:
            if tap.edit is None or constant_affine(tap.edit) is None:
                folded += [*_joined(run), tap]
                run = []
            else:
                run.append(tap)
        folded += _joined(run)
    return tuple(folded)


def _key(tap: Tap) -> Any:
    width = None if tap.edit is None else tap.edit.width  # edits of unlike width are refused where they are made
    return tap.place, tap.position, id(tap.where), width


def _joined(run: Sequence[Tap]) -> list[Tap]:
    if len(run) < 2:
        return list(run)
    maps = [one for one in (constant_affine(tap.edit) for tap in run if tap.edit is not None) if one is not None]
    whole = reduce(AffineMap.then, maps)
    return [replace(run[0], edit=whole.edit(), what=" and ".join(dict.fromkeys(tap.what for tap in run)))]

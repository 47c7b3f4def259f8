"""Disturbances as values: what is done to a vector, and where."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.layout import Layout
from tremorscope.foundations.seeds import numpy_generator
from tremorscope.instruments.activations.positions import Where
from tremorscope.instruments.site import Site
from tremorscope.instruments.subspace import Subspace
from tremorscope.instruments.task import Batch
from tremorscope.instruments.vectors import (
    Size,
    any_true,
    check_direction,
    check_finite,
    check_number,
    check_vector,
    meet,
)

PARALLEL = 100  # rotations whose plane is known to fewer than that many units of rounding are refused


class Edit(ABC):
    """What is done to the last axis of a tensor (at a site: to its features): a pure map, and a frozen value.

    Vectors are kept as they were given and meet the edited tensor in the wider of the two dtypes; the
    result has the dtype of the edited tensor. Edits compare by content.
    """

    size_field: ClassVar[str | None] = None  # the number that `scaled` sets

    @property
    @abstractmethod
    def width(self) -> int | None:
        """Length of the last axis that this edit needs; None: any."""

    @property
    def is_by_row(self) -> bool:
        """Whether it holds other vectors for other rows, so that it fits one batch only."""
        inner = [part.is_by_row for part in _contents(self) if isinstance(part, Edit)]
        return any(inner)

    @abstractmethod
    def _edited(self, x: Tensor) -> Tensor:
        """The edit itself, in any dtype."""

    def apply(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The edited tensor; `x` is not written to. Works under `vmap`, `jvp` and `grad`.

        Raises:
            BadInput: If the last axis has another length than the edit.
        """
        if self.width not in (None, x.shape[-1]):
            raise BadInput(
                f"{type(self).__name__} on a tensor of shape {tuple(x.shape)}",
                got=f"{self.width} entries in the edit",
                wanted=f"{x.shape[-1]}, the length of the last axis",
            )
        return self._edited(x).to(x.dtype)

    def scaled(self, size: Size) -> Edit:
        """The same edit at another size (angle, for a rotation).

        Raises:
            BadInput: If this edit has no size.
        """
        if self.size_field is None:
            raise BadInput(
                f"size of {type(self).__name__}",
                got="an edit without a size",
                wanted="Add, Noise or Rotate",
                remedy="To approach a replacement by degrees, use Add(value - x).",
            )
        return replace(self, **{self.size_field: size})  # type: ignore[type-var]  # every leaf is a dataclass

    def at(self, site: str | Site, *, where: Where | None = None) -> PlacedEdit:
        """This edit at an address: `Add(v).at("weights:*.bias")`.

        Among activations `where` narrows it down: a mask [rows] or [rows, positions], or a function of the batch that
        makes one.
        """
        return PlacedEdit(self, Site.parse(site), where)

    def to(self, device: torch.device | str) -> Edit:
        """The same edit with its vectors on a device; itself, if they are there."""
        moved = {field.name: _moved(getattr(self, field.name), torch.device(device)) for field in fields(self)}  # type: ignore[arg-type]
        changed = {name: value for name, value in moved.items() if value is not getattr(self, name)}
        return replace(self, **changed) if changed else self  # type: ignore[type-var]  # every leaf is a dataclass

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(_equal(mine, theirs) for mine, theirs in zip(_contents(self), _contents(other), strict=True))

    def __hash__(self) -> int:
        return hash((type(self), *(part for part in _contents(self) if not isinstance(part, Tensor))))


@final
@dataclass(frozen=True, eq=False)
class Add(Edit):
    """`x + size * direction`, with `direction` of shape [d], used as given and not normalised.

    >>> Add(torch.tensor([3.0, 4.0]), size=0.5).apply(torch.zeros(2))
    tensor([1.5000, 2.0000])

    Raises:
        BadInput: If the direction is zero or not finite, or the size is not finite.
    """

    direction: Tensor
    size: Size = 1.0
    size_field: ClassVar[str | None] = "size"

    def __post_init__(self) -> None:
        check_direction("direction of Add", self.direction)
        check_number("size of Add", self.size)

    @property
    def width(self) -> int | None:
        """Entries of the direction."""
        return len(self.direction)

    def _edited(self, x: Tensor) -> Tensor:
        (direction,) = meet(x, self.direction)
        return x.to(direction.dtype) + self.size * direction


@final
@dataclass(frozen=True, eq=False)
class Noise(Edit):
    """`x + size * e`, with `e` standard normal, drawn anew for every row of `x`.

    The draw depends on the seed and the shape of `x` only: the same noise for every size and dtype, and
    the first rows of a longer batch get what a shorter batch gets.

    Raises:
        BadInput: If the size is not finite.
    """

    size: Size
    seed: int
    size_field: ClassVar[str | None] = "size"

    def __post_init__(self) -> None:
        check_number("size of Noise", self.size)

    @property
    def width(self) -> int | None:
        """Any."""
        return None

    def _edited(self, x: Tensor) -> Tensor:
        # NumPy fills in order and in float64: torch's stream depends on the number of entries and the dtype.
        draw = torch.from_numpy(numpy_generator(self.seed, "noise").standard_normal(tuple(x.shape)))
        return x + self.size * draw.to(x)


@final
@dataclass(frozen=True, eq=False)
class Rotate(Edit):
    """Turn `x` by `angle` (radians) towards a vector of shape [d], keeping its norm.

    `|x| (cos(angle) u + sin(angle) t)`, with `u` the direction of `x` and `t` that of the part of `toward`
    at right angles to it.

    >>> Rotate(torch.tensor([0.0, 7.0]), angle=torch.pi / 2).apply(torch.tensor([2.0, 0.0])).round(decimals=6)
    tensor([-0., 2.])

    Raises:
        BadInput: If `toward` is zero or not finite, or, when applied, if `x` is zero or parallel to it:
            there is no plane to turn in. Inside `vmap` over `x` that gives NaN instead.
    """

    toward: Tensor
    angle: Size
    size_field: ClassVar[str | None] = "angle"

    def __post_init__(self) -> None:
        check_direction("direction of Rotate", self.toward)
        check_number("angle of Rotate", self.angle)

    @property
    def width(self) -> int | None:
        """Entries of the vector turned to."""
        return len(self.toward)

    def _edited(self, x: Tensor) -> Tensor:
        (toward,) = meet(x, self.toward)
        toward = toward / toward.norm()
        x = x.to(toward.dtype)
        norm = x.norm(dim=-1, keepdim=True)
        unit = x / norm
        across = toward - (unit @ toward)[..., None] * unit
        sine = across.norm(dim=-1, keepdim=True)
        if any_true(norm == 0) or any_true(sine <= PARALLEL * torch.finfo(sine.dtype).eps):
            raise BadInput(
                "Rotate",
                got="a zero vector" if any_true(norm == 0) else "a vector parallel to the one turned to",
                wanted="two vectors that span a plane",
            )
        angle = self.angle if isinstance(self.angle, Tensor) else x.new_tensor(self.angle)
        turned: Tensor = norm * (angle.cos() * unit + angle.sin() * across / sine)
        return turned


@final
@dataclass(frozen=True, eq=False)
class Replace(Edit):
    """`value` of shape [d], whatever `x` was; zeros are allowed.

    A value of more axes, recorded elsewhere (patching), replaces an `x` of that very shape: one vector for each row,
    for instance. It is never spread over rows or positions that it does not have.

    Raises:
        BadInput: If the value is not finite; when applied, if `x` has another shape.
    """

    value: Tensor

    def __post_init__(self) -> None:
        if self.value.ndim == 1:
            check_vector("value of Replace", self.value)
        elif self.value.ndim == 0 or not self.value.is_floating_point():
            raise BadInput(
                "value of Replace", got=f"{self.value.dtype} of shape {tuple(self.value.shape)}", wanted="real vectors"
            )
        else:
            check_finite("value of Replace", self.value)

    @property
    def width(self) -> int | None:
        """Entries of each vector of the value."""
        return self.value.shape[-1]

    @property
    def is_by_row(self) -> bool:
        """Whether the value has more than one vector."""
        return self.value.ndim > 1

    def _edited(self, x: Tensor) -> Tensor:
        if self.value.ndim > 1 and self.value.shape != x.shape:
            raise BadInput(
                "value of Replace",
                got=f"shape {tuple(self.value.shape)}",
                wanted=f"{tuple(x.shape)}, that of what it replaces, or one vector",
            )
        return self.value.to(x).expand_as(x).clone()


@final
@dataclass(frozen=True, eq=False)
class Project(Edit):
    """The nearest point of a subspace (which may have an offset)."""

    subspace: Subspace

    @property
    def width(self) -> int | None:
        """Dimension of the space around."""
        return len(self.subspace.basis)

    def _edited(self, x: Tensor) -> Tensor:
        basis, offset = meet(x, self.subspace.basis, self.subspace.offset)
        return replace(self.subspace, basis=basis, offset=offset).project(x.to(basis.dtype))


@final
@dataclass(frozen=True, eq=False)
class Affine(Edit):
    """`x + left right^T (x - offset) + shift`: a change of rank k, as most published interventions are.

    `left` and `right` have shape [d, k], `offset` and `shift` [d] (default 0).

    Removing a unit vector `r` around a mean `m` is `Affine(-r[:, None], r[:, None], offset=m)`; setting the
    coordinate to `a` afterwards adds `shift=a * r`.

    >>> r = torch.tensor([[1.0], [0.0]])
    >>> Affine(-r, r, offset=torch.tensor([3.0, 0.0])).apply(torch.tensor([5.0, 5.0]))
    tensor([3., 5.])

    Raises:
        BadInput: If shapes do not fit or an entry is not finite.
    """

    left: Tensor
    right: Tensor
    offset: Tensor | None = None
    shift: Tensor | None = None

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.left.shape != self.right.shape:
            raise BadInput(
                "sides of Affine",
                got=f"shapes {tuple(self.left.shape)} and {tuple(self.right.shape)}",
                wanted="two matrices [d, k]",
                remedy="A single vector becomes one with v[:, None].",
            )
        for name, vector in (("offset", self.offset), ("shift", self.shift)):
            if vector is not None and vector.shape != self.left.shape[:1]:
                raise BadInput(
                    f"{name} of Affine", got=tuple(vector.shape), wanted=f"a vector of {len(self.left)} entries"
                )
        for part in _contents(self):
            if part is not None:
                check_finite("an entry of Affine", part)

    @property
    def width(self) -> int | None:
        """Rows of both sides."""
        return len(self.left)

    def _edited(self, x: Tensor) -> Tensor:
        zero = self.left.new_zeros(len(self.left))
        offset, shift = (zero if vector is None else vector for vector in (self.offset, self.shift))
        left, right, offset, shift = meet(x, self.left, self.right, offset, shift)
        x = x.to(left.dtype)
        return x + ((x - offset) @ right) @ left.mT + shift


@final
@dataclass(frozen=True, eq=False)
class PlacedEdit:
    """An edit and where it is made; `where` narrows a site among the activations down (see `Edit.at`)."""

    edit: Edit
    site: Site
    where: Where | None = None

    def __post_init__(self) -> None:
        if self.where is not None and self.site.kind != "acts":
            raise BadInput(f"mask of {self}", got=f"the site {str(self.site)!r}", wanted="a site among the activations")

    def __str__(self) -> str:
        return f"{type(self.edit).__name__} at {self.site}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PlacedEdit):
            return NotImplemented
        return (self.edit, self.site) == (other.edit, other.site) and _equal(self.where, other.where)

    def __hash__(self) -> int:
        return hash((self.edit, self.site))

    def scaled(self, size: Size) -> PlacedEdit:
        """The same edit, there, at another size."""
        return replace(self, edit=self.edit.scaled(size))

    def to(self, device: torch.device | str) -> PlacedEdit:
        """The same edit with its vectors on a device."""
        return replace(self, edit=self.edit.to(device))

    def applied_to_weights(self, layout: Layout, theta: Float[Tensor, "*lead params"]) -> Float[Tensor, "*lead params"]:
        """Flat weights after an edit at `weights:GLOB`.

        The edit sees the matching parameters as one concatenated vector, in the order of the layout. A
        vector over *all* parameters is accepted too: its entries at the site are used and it is not
        rescaled, so its norm is then smaller than the given one.

        Raises:
            SiteNotFound: If the pattern matches no parameter.
            BadInput: If the site is elsewhere, or the edit has another number of entries.
        """
        if self.site.kind != "weights":
            self._refuse("weights:GLOB")
        chosen = layout.select(self.site.pattern)
        pieces = list(torch.split(theta, list(layout.sizes), dim=-1))
        places = [place for place, name in enumerate(layout.names) if name in chosen]
        there = torch.cat([pieces[place] for place in places], dim=-1)
        edit = self.edit
        if edit.width not in (None, there.shape[-1]):
            if edit.width != layout.size or not isinstance(edit, Add | Rotate | Replace):
                raise BadInput(
                    str(self),
                    got=f"{edit.width} entries",
                    wanted=f"{there.shape[-1]} (the matching parameters)"
                    + (f" or {layout.size} (all of them)" if isinstance(edit, Add | Rotate | Replace) else ""),
                )
            edit = _cut(edit, layout.indices(self.site.pattern), self.site)
        parts = torch.split(edit.apply(there), [layout.sizes[place] for place in places], dim=-1)
        for place, part in zip(places, parts, strict=True):
            pieces[place] = part
        return torch.cat(pieces, dim=-1)

    def applied_to_start(self, theta: Float[Tensor, " params"]) -> Float[Tensor, " params"]:
        """Starting weights after an edit at `train.init`.

        Raises:
            BadInput: If the site is elsewhere, or the edit has another number of entries.
        """
        if self.site.kind != "train.init":
            self._refuse("train.init")
        return self.edit.apply(theta)

    def applied_to_batch(self, batch: Batch) -> Batch:
        """A batch whose first floating-point argument is edited, every example as one flat vector.

        Raises:
            BadInput: If the site is elsewhere, no argument holds real numbers, or the edit has another
                number of entries than an example.
        """
        if self.site.kind != "input":
            self._refuse("input")
        for place, value in enumerate(batch.args):
            if isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0:
                edited = self.edit.apply(value.reshape(len(value), -1)).reshape(value.shape)
                return batch._replace(args=(*batch.args[:place], edited, *batch.args[place + 1 :]))
        raise BadInput(
            str(self),
            got="no floating-point argument in the batch",
            wanted="a tensor of real numbers",
            remedy="Token ids cannot be moved by degrees: edit the weights instead.",
        )

    def _refuse(self, needed: str) -> None:
        if self.site.kind == "acts":
            raise BadInput(
                str(self),
                got="a site among the activations",
                wanted=needed,
                remedy="network.with_edits(...) edits activations.",
            )
        retrain = " respond(...) retrains from there." if self.site.kind == "train.init" else ""
        raise BadInput(str(self), got=f"the site {str(self.site)!r}", wanted=f"a site of the kind {needed}.{retrain}")


def _cut(edit: Add | Rotate | Replace, index: Tensor, site: Site) -> Edit:
    if isinstance(edit, Replace):
        return Replace(edit.value[index.to(edit.value.device)])
    whole = edit.direction if isinstance(edit, Add) else edit.toward
    part = whole[index.to(whole.device)]
    if not any_true(part != 0):
        raise BadInput(
            f"{type(edit).__name__} at {site}",
            got="a vector over all parameters that is zero at the site",
            wanted="a direction that moves the site",
        )
    return Add(part, edit.size) if isinstance(edit, Add) else Rotate(part, edit.angle)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Edit):
        return value.to(device)
    if isinstance(value, Subspace):
        basis, offset = value.basis.to(device), value.offset.to(device)
        is_there = basis is value.basis and offset is value.offset
        return value if is_there else replace(value, basis=basis, offset=offset)
    return value


def _contents(edit: Any) -> tuple[Any, ...]:
    return tuple(getattr(edit, field.name) for field in fields(edit))


def _equal(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, Tensor) and isinstance(theirs, Tensor):
        return mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    if isinstance(mine, Subspace) and isinstance(theirs, Subspace):
        return torch.equal(mine.basis, theirs.basis) and torch.equal(mine.offset, theirs.offset)
    return not isinstance(mine, Tensor) and not isinstance(theirs, Tensor) and bool(mine == theirs)

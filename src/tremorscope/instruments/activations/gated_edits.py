"""Edits around edits: in part, under a condition, with the norm kept; and a coordinate held within bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.edit import Edit
from tremorscope.instruments.vectors import Size, any_true, check_direction, check_number, check_vector, meet

Gate = Callable[[Float[Tensor, "*batch d"]], Float[Tensor, "*batch"]]


@final
@dataclass(frozen=True, eq=False)
class Gated(Edit):
    """`x + strength gate(x) (edit(x) - x)`: another edit, in part, or where a condition holds.

    A gate is a function of the vectors to numbers, mostly 0 to 1; None: 1 everywhere. Where the product is 1 the result
    is exactly what the other edit gives, where it is 0 exactly `x`.

    >>> from tremorscope.instruments.edit import Replace
    >>> Gated(Replace(torch.zeros(2)), gate=Beyond(torch.tensor([1.0, 0.0]), above=3)).apply(
    ...     torch.tensor([[2.0, 1], [4.0, 1]])
    ... )
    tensor([[2., 1.],
            [0., 0.]])

    Raises:
        BadInput: If the strength is not finite; when applied, if the gate gives another shape.
    """

    edit: Edit
    gate: Gate | None = None
    strength: Size = 1.0
    size_field: ClassVar[str | None] = "strength"

    def __post_init__(self) -> None:
        check_number("strength of Gated", self.strength)

    @property
    def width(self) -> int | None:
        """That of the other edit."""
        return self.edit.width

    def _edited(self, x: Tensor) -> Tensor:
        edited = self.edit._edited(x)
        x = x.to(edited.dtype)
        share = torch.as_tensor(self.strength, dtype=x.dtype, device=x.device)
        if self.gate is not None:
            gate = self.gate(x)
            if gate.shape != x.shape[:-1]:
                raise BadInput(
                    "gate of Gated",
                    got=f"shape {tuple(gate.shape)}",
                    wanted=f"{tuple(x.shape[:-1])}, one for each vector",
                )
            share = share * gate.to(x.dtype)[..., None]
        return torch.where(share == 1, edited, x + share * (edited - x))


@final
@dataclass(frozen=True, eq=False)
class Beyond:
    """A gate: 1 where the coordinate of `x - origin` along a direction (its length, in units of x) is beyond a bound.

    Both bounds: where it is beyond either.

    Raises:
        BadInput: If the direction is zero or not finite, or there is no bound.
    """

    direction: Tensor
    above: float | None = None
    below: float | None = None
    origin: Tensor | None = None

    def __post_init__(self) -> None:
        check_direction("direction of Beyond", self.direction)
        if self.above is None and self.below is None:
            raise BadInput("bounds of Beyond", got="none", wanted="above=, below= or both")

    def __call__(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """1 or 0 for each vector."""
        coordinate = _coordinate(x, self.direction, self.origin)[1]
        is_beyond = torch.zeros_like(coordinate, dtype=torch.bool)
        if self.above is not None:
            is_beyond = is_beyond | (coordinate > self.above)
        if self.below is not None:
            is_beyond = is_beyond | (coordinate < self.below)
        return is_beyond.to(x.dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Beyond):
            return NotImplemented
        mine, theirs = (
            [None if part is None else part.tolist() for part in (one.direction, one.origin)] for one in (self, other)
        )
        return mine == theirs and (self.above, self.below) == (other.above, other.below)

    def __hash__(self) -> int:
        return hash((len(self.direction), self.above, self.below))


@final
@dataclass(frozen=True, eq=False)
class Clamp(Edit):
    """The coordinate of `x - origin` along a direction (its length, in units of x) moved into [low, high].

    Without a direction every entry is clamped.

    >>> Clamp(high=1.0, direction=torch.tensor([0.0, 5.0])).apply(torch.tensor([7.0, 3.0]))
    tensor([7., 1.])

    Raises:
        BadInput: If the bounds are out of order or both missing, or the direction is zero or not finite.
    """

    low: float | None = None
    high: float | None = None
    direction: Tensor | None = None
    origin: Tensor | None = None

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise BadInput("bounds of Clamp", got="none", wanted="low=, high= or both")
        for name, bound in (("low", self.low), ("high", self.high)):
            if bound is not None:
                check_number(f"{name} of Clamp", bound)
        if self.low is not None and self.high is not None and self.low > self.high:
            raise BadInput("bounds of Clamp", got=f"{self.low:g} to {self.high:g}", wanted="the lower one first")
        if self.direction is not None:
            check_direction("direction of Clamp", self.direction)
        if self.origin is not None:
            check_vector("origin of Clamp", self.origin)

    @property
    def width(self) -> int | None:
        """Entries of the direction, or any."""
        return None if self.direction is None else len(self.direction)

    def _edited(self, x: Tensor) -> Tensor:
        if self.direction is None:
            return x.clamp(self.low, self.high)
        unit, coordinate = _coordinate(x, self.direction, self.origin)
        return x.to(unit.dtype) + (coordinate.clamp(self.low, self.high) - coordinate)[..., None] * unit


@final
@dataclass(frozen=True, eq=False)
class NormPreserving(Edit):
    """Another edit, then every vector rescaled to the norm it had.

    Raises:
        BadInput: When applied, if the other edit makes a vector zero. Inside `vmap` over `x` that gives NaN instead.
    """

    edit: Edit

    @property
    def width(self) -> int | None:
        """That of the other edit."""
        return self.edit.width

    def _edited(self, x: Tensor) -> Tensor:
        edited = self.edit._edited(x)
        edited = edited.to(torch.promote_types(edited.dtype, torch.float32))
        norm = edited.norm(dim=-1, keepdim=True)
        if any_true(norm == 0):
            raise BadInput(f"norm after {type(self.edit).__name__}", got=0.0, wanted="a vector that can be rescaled")
        kept: Tensor = edited * (x.to(edited.dtype).norm(dim=-1, keepdim=True) / norm)
        return kept


def _coordinate(x: Tensor, direction: Tensor, origin: Tensor | None) -> tuple[Tensor, Tensor]:
    """The unit vector, and the coordinates along it."""
    direction, origin = meet(x, direction, torch.zeros_like(direction) if origin is None else origin)
    unit = direction / direction.norm()
    return unit, (x.to(unit.dtype) - origin) @ unit

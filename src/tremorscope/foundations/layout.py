"""Flat vectors and named parameters: one order, both ways, with any leading axes."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput, SiteNotFound, did_you_mean


@final
@dataclass(frozen=True)
class Layout:
    """The order in which named tensors lie in one flat vector of length `size`.

    >>> layout = Layout.of({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})
    >>> layout.size, layout.slice("bias")
    (8, slice(6, 8, None))
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Layout:
        """The layout of a mapping, in its own order."""
        return cls(tuple(tensors), tuple(tuple(tensor.shape) for tensor in tensors.values()))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """Number of entries of the flat vector."""
        return sum(self.sizes)

    def slice(self, name: str) -> slice:
        """Where `name` lies in the flat vector.

        Raises:
            SiteNotFound: If no tensor has that name.
        """
        if name not in self.names:
            raise SiteNotFound(
                f"no parameter {name!r}", got=name, wanted=_listing(self.names), remedy=did_you_mean(name, self.names)
            )
        ends = list(accumulate(self.sizes))
        index = self.names.index(name)
        return slice(ends[index] - self.sizes[index], ends[index])

    def flatten(self, tensors: Mapping[str, Tensor], *, num_leading: int = 0) -> Float[Tensor, "*lead params"]:
        """Named tensors to one vector; the first `num_leading` axes of each are kept.

        Raises:
            BadInput: If a name is missing or a shape differs.
        """
        pieces = []
        for name, shape in zip(self.names, self.shapes, strict=True):
            if name not in tensors:
                raise BadInput(f"tensor {name!r} is missing", got=_listing(tuple(tensors)), wanted=_listing(self.names))
            tensor = tensors[name]
            if tuple(tensor.shape[num_leading:]) != shape:
                raise BadInput(f"shape of {name!r}", got=tuple(tensor.shape[num_leading:]), wanted=shape)
            pieces.append(tensor.reshape((*tensor.shape[:num_leading], math.prod(shape))))  # -1 fails on empty tensors
        return torch.cat(pieces, dim=-1)

    def unflatten(self, vector: Float[Tensor, "*lead params"]) -> dict[str, Tensor]:
        """One vector (with any leading axes) to named views of it.

        Raises:
            BadInput: If the last axis does not have `size` entries.
        """
        if vector.shape[-1] != self.size:
            raise BadInput("flat vector", got=f"{vector.shape[-1]} entries", wanted=f"{self.size} entries")
        pieces = torch.split(vector, list(self.sizes), dim=-1)
        return {
            name: piece.reshape((*vector.shape[:-1], *shape))
            for name, shape, piece in zip(self.names, self.shapes, pieces, strict=True)
        }

    def select(self, pattern: str) -> tuple[str, ...]:
        """The names that match a shell-style pattern; several patterns are separated by commas.

        Raises:
            SiteNotFound: If a pattern matches no name.
        """
        chosen: set[str] = set()
        for part in pattern.split(","):
            found = fnmatch.filter(self.names, part.strip())
            if not found:
                raise SiteNotFound(
                    f"no parameter matches {part.strip()!r}",
                    wanted=_listing(self.names),
                    remedy=did_you_mean(part.strip(), self.names),
                )
            chosen.update(found)
        return tuple(name for name in self.names if name in chosen)

    def indices(self, pattern: str) -> Int[Tensor, " chosen"]:
        """Positions in the flat vector of every parameter that matches `pattern`."""
        spans = (self.slice(name) for name in self.select(pattern))
        return torch.cat([torch.arange(span.start, span.stop) for span in spans])


def _listing(names: tuple[str, ...], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return f"one of {shown}" + (f" and {len(names) - most} more" if len(names) > most else "")

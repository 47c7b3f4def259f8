"""Flat vectors and named parameters: one order, both ways, with any leading axes."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput, SiteNotFound, did_you_mean

Selection = str | Sequence[str] | re.Pattern[str] | Callable[[str, Tensor], bool]
"""How parameters are chosen: shell-style patterns, a list of names or patterns, a compiled regular expression that
matches somewhere in the name, or a predicate on name and tensor."""


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

    def select(self, which: Selection, tensors: Mapping[str, Tensor] | None = None) -> tuple[str, ...]:
        """The names that are chosen, in the layout's order.

        Args:
            which: A shell-style pattern, or several separated by commas; a list of names or patterns; a
                compiled regular expression, searched for in each name; or a predicate `(name, tensor) -> bool`.
            tensors: What a predicate is shown. None: tensors without entries that know their shape.

        >>> layout = Layout.of({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})
        >>> layout.select("w*"), layout.select(re.compile("as$")), layout.select(lambda name, p: p.ndim == 2)
        (('weight',), ('bias',), ('weight',))

        Raises:
            SiteNotFound: If a pattern, the expression or the predicate chooses nothing.
        """
        if isinstance(which, re.Pattern):
            return self._chosen_by(
                lambda name: which.search(name) is not None,
                f"matches the regular expression {which.pattern!r}",
                did_you_mean(which.pattern, self.names),
            )
        if callable(which):
            known = tensors or {
                name: torch.empty(shape, device="meta") for name, shape in zip(self.names, self.shapes, strict=True)
            }
            return self._chosen_by(lambda name: bool(which(name, known[name])), "satisfies the predicate", None)
        parts = [part.strip() for part in which.split(",")] if isinstance(which, str) else list(which)
        if not parts:
            raise SiteNotFound("no parameter is chosen", got="an empty list", wanted=_listing(self.names))
        chosen: set[str] = set()
        for part in parts:
            # A name is itself even where it would read as a pattern.
            found = [part] if part in self.names else fnmatch.filter(self.names, part)
            if not found:
                raise SiteNotFound(
                    f"no parameter matches {part!r}", wanted=_listing(self.names), remedy=did_you_mean(part, self.names)
                )
            chosen.update(found)
        return tuple(name for name in self.names if name in chosen)

    def _chosen_by(self, test: Callable[[str], bool], what: str, remedy: str | None) -> tuple[str, ...]:
        chosen = tuple(name for name in self.names if test(name))
        if not chosen:
            raise SiteNotFound(f"no parameter {what}", wanted=_listing(self.names), remedy=remedy)
        return chosen

    def indices(self, which: Selection) -> Int[Tensor, " chosen"]:
        """Positions in the flat vector of every parameter that `select` chooses."""
        spans = (self.slice(name) for name in self.select(which))
        return torch.cat([torch.arange(span.start, span.stop) for span in spans])


def _listing(names: tuple[str, ...], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return f"one of {shown}" + (f" and {len(names) - most} more" if len(names) > most else "")

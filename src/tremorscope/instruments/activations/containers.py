"""One tensor inside whatever a module takes or returns: found, and put back into a container of the same type."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from tremorscope.foundations.errors import BadInput


def tensor_at(value: Any, path: tuple[int, ...], where: str) -> Tensor:
    """The tensor at a path of numbers: entries of a tuple or list, values of a mapping, fields of a dataclass.

    A bare tensor is the only entry of itself: its rows are never taken for entries. Outputs of transformers have as
    many entries as they have fields that are not None.

    >>> import torch
    >>> tensor_at((torch.zeros(2), {"state": torch.ones(3)}), (1, 0), "out")
    tensor([1., 1., 1.])

    Raises:
        BadInput: If there is no tensor.
    """
    for depth, place in enumerate(path):
        entries = entries_of(value)
        if not 0 <= place < len(entries):
            raise BadInput(
                where,
                got=f"entry {place} of {_kind(value)}",
                wanted="entry 0" if isinstance(value, Tensor) else f"an entry below {len(entries)}",
            )
        value = entries[place]
        if isinstance(value, Tensor) and any(path[depth + 1 :]):
            raise BadInput(where, got=f"entry {path[depth + 1]} of a tensor", wanted="entry 0")
        if isinstance(value, Tensor):
            return value
    raise BadInput(where, got=_kind(value), wanted="a tensor", remedy=_remedy(value))


def with_tensor(value: Any, path: tuple[int, ...], new: Tensor) -> Any:
    """The same container with another tensor at the path; what was given is left as it was.

    >>> import torch
    >>> with_tensor([torch.zeros(1), None], (0,), torch.ones(1))
    [tensor([1.]), None]
    """
    if isinstance(value, Tensor) or not path:
        return new
    place, rest = path[0], path[1:]
    if isinstance(value, tuple | list):
        entries = [with_tensor(one, rest, new) if at == place else one for at, one in enumerate(value)]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    if isinstance(value, Mapping):
        name = list(value)[place]
        changed = {**value, name: with_tensor(value[name], rest, new)}
        if is_dataclass(value):  # outputs of transformers are both
            return type(value)(**changed)
        if type(value) is dict:
            return changed
        copied: Any = copy.copy(value)
        copied[name] = changed[name]
        return copied
    name = fields(value)[place].name
    return replace(value, **{name: with_tensor(getattr(value, name), rest, new)})


def entries_of(value: Any) -> list[Any]:
    """What is in a container: entries of a tuple or list, values of a mapping, fields of a dataclass."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, Mapping):
        return list(value.values())
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    return []


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    name = type(value).__name__
    return f"{name} of {len(entries_of(value))}" if entries_of(value) else name


def _remedy(value: Any) -> str | None:
    inside = [place for place, one in enumerate(entries_of(value)) if isinstance(one, Tensor)]
    return f"Go on inside: add .{inside[0]} to the port." if inside else None

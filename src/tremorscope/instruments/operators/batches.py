"""Data in any of the forms that people have it in, as a list of batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.task import Batch

Data = Batch | tuple[Tensor, Tensor] | Iterable[Any]
"""One `Batch` or `(inputs, targets)` pair, or any iterable of either: a list, a DataLoader."""


def as_batches(
    data: Data, *, what: str, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> list[Batch]:
    """A list of batches with at least one example each; batches without examples are left out.

    Args:
        data: A `Batch` stays as it is. Of a pair `(inputs, targets)`, inputs are one tensor, a tuple of
            arguments or a dict of keyword arguments; real-valued tensors get `dtype`, all get `device`. An
            iterable is read once, from its beginning to its end, and kept: of a shuffling DataLoader this
            takes one of its orders, which a mean over the data does not depend on.
        what: Who asks; for the errors.
        dtype: Of real-valued tensors that come in pairs.
        device: Of all tensors that come in pairs.

    >>> x, y = torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64)
    >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=3)
    >>> [num_examples(batch, what="test") for batch in as_batches(loader, what="test")]
    [3, 2]

    Raises:
        BadInput: If there are no examples, a batch has no targets, or an element is neither batch nor pair.
    """
    if isinstance(data, Batch) or _is_pair_of_tensors(data):
        elements: list[Any] = [data]
    else:
        elements = list(data)
    batches = [
        element if isinstance(element, Batch) else _from_pair(element, place, what, dtype, device)
        for place, element in enumerate(elements)
    ]
    filled = [batch for batch in batches if num_examples(batch, what=what)]
    if not filled:
        raise BadInput(
            f"data of the {what}",
            got="no examples",
            wanted="a Batch, a pair (inputs, targets), or several of them",
            remedy="An iterator that was read before is empty; pass a list or a DataLoader.",
        )
    return filled


def num_examples(batch: Batch, *, what: str) -> int:
    """How many targets a batch has: its weight in a mean over the data.

    Raises:
        BadInput: If it has no targets.
    """
    if batch.target is None:
        raise BadInput(f"batch of the {what}", got="no target", wanted="inputs with targets")
    return len(batch.target) if batch.target.ndim else 1


def _is_pair_of_tensors(data: object) -> bool:
    return isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def _from_pair(element: object, place: int, what: str, dtype: torch.dtype | None, device: torch.device | None) -> Batch:
    if not (isinstance(element, tuple | list) and len(element) == 2 and isinstance(element[1], Tensor)):
        raise BadInput(
            f"batch {place} of the {what}",
            got=type(element).__name__,
            wanted="a Batch, or a pair (inputs, targets) whose targets are a tensor",
            remedy="Other forms: Batch(args, kwargs, target).",
        )

    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(device=device, dtype=dtype if value.is_floating_point() else None)

    inputs, targets = element
    if isinstance(inputs, dict):
        return Batch((), {name: moved(value) for name, value in inputs.items()}, moved(targets))
    arguments = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    return Batch(tuple(moved(value) for value in arguments), {}, moved(targets))

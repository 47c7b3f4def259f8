"""Which positions of which rows a site means, in one forward pass and over a text that grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.site import Position, Span
from tremorscope.instruments.task import Batch

Where = Tensor | Callable[[Batch], Tensor]


@final
@dataclass(frozen=True, kw_only=True)
class Window:
    """What one forward pass reads of its texts.

    In a plain pass integers and slices are literal columns of the batch, padding or not. While a text is written
    (`prompt_length` is known) they are the text's own tokens, padding aside, negative ones counted from the end of the
    prompt, so that neither the other texts of the batch nor the way of reading (all again, one new token, or all of a
    text whose end was given) matters.

    Args:
        batch: The arguments of the pass.
        start: How many columns came before, and are held in a cache.
        mask: 1 where there is a token, 0 where there is padding, of the columns before too; None: no padding.
        prompt_length: Columns before the first token that is written, of all rows or of each; None: nothing is being
            written.
    """

    batch: Batch
    start: int | None = 0
    mask: Tensor | None = None
    prompt_length: int | Int[Tensor, " rows"] | None = None

    @classmethod
    def of(cls, batch: Batch) -> Window:
        """The window of a batch as it stands: its mask, and the length of its cache."""
        mask = batch.kwargs.get("attention_mask")
        mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        return cls(batch=batch, start=_cached(batch.kwargs), mask=mask)


@final
@dataclass(frozen=True)
class Chosen:
    """Positions of a value [rows, positions, ...]: the same `columns` of every row, or those of a `mask`.

    `is_single`: one of each row, so that what is chosen is [rows, ...].
    """

    columns: tuple[int, ...] = ()
    mask: Bool[Tensor, "rows positions"] | None = None
    is_single: bool = False

    def take(self, x: Tensor) -> Tensor:
        """The chosen vectors: [rows, ...], [rows, columns, ...], or [how many, ...] in the order of rows."""
        if self.mask is None:
            taken = x.index_select(1, torch.tensor(self.columns, dtype=torch.int64, device=x.device))
            return taken[:, 0] if self.is_single else taken
        if _is_mapped(self.mask):
            if not self.is_single:
                return x
            place = self.mask.to(torch.int64).argmax(1)
            return x[torch.arange(len(x), device=x.device), place]
        rows = x if x.ndim == 2 else x.flatten(0, 1)  # without positions a mask has one column
        return rows.index_select(0, self.mask.flatten().nonzero()[:, 0])

    def put(self, x: Tensor, taken: Tensor) -> Tensor:
        """A copy of `x` with the chosen vectors replaced."""
        if self.mask is None:
            order = list(range(x.shape[1]))
            for place, column in enumerate(self.columns):
                order[column] = x.shape[1] + place
            both = torch.cat([x, taken[:, None] if self.is_single else taken], dim=1)
            return both.index_select(1, torch.tensor(order, device=x.device))
        if _is_mapped(self.mask):
            mask = self.mask if x.ndim == 2 else self.mask.reshape(*self.mask.shape, *[1] * (x.ndim - 2))
            return torch.where(mask, taken[:, None] if self.is_single else taken, x)
        flat = self.mask.flatten()
        order_of_all = torch.arange(len(flat), device=x.device)
        order_of_all[flat] = len(flat) + torch.arange(int(flat.sum()), device=x.device)
        rows = x if x.ndim == 2 else x.flatten(0, 1)
        return torch.cat([rows, taken]).index_select(0, order_of_all).reshape(x.shape)


def choose(position: Position | None, where: Where | None, window: Window, x: Tensor, what: str) -> Chosen | None:
    """The positions of `x` [rows, positions, ...] that are meant in this pass; None for all of `x`.

    Raises:
        BadInput: If the value has no positions, or the position is outside the texts.
    """
    chosen = None if position in (None, "all") else _chosen(position, window, x, what)
    if where is None:
        return chosen
    asked = _asked(where, window, x, what)
    if asked.ndim == 1:
        asked = asked[:, None].expand(x.shape[:2]) if x.ndim > 2 else asked[:, None]
    if chosen is None:
        return Chosen(mask=asked)
    return Chosen(mask=asked & _as_mask(chosen, x))


def _chosen(position: Any, window: Window, x: Tensor, what: str) -> Chosen:
    if x.ndim < 3:
        raise BadInput(
            what,
            got=f"a position at a value of shape {tuple(x.shape)}",
            wanted="a value [rows, positions, ...]",
            remedy="Leave out what follows the @.",
        )
    if position == "generated" and window.prompt_length is None:
        raise BadInput(
            what,
            got="a plain forward pass",
            wanted="a text that is being written, for 'generated'",
            remedy="Use generate(...), score_options(...), or a slice such as @5:.",
        )
    if window.start is None:
        raise BadInput(
            what,
            got="a cache that does not say how long it is, and no mask",
            wanted="absolute positions",
            remedy="Pass an attention_mask over the whole text, or no cache.",
        )
    if window.prompt_length is not None:
        return _while_writing(position, window, x, what)
    start, total = window.start, window.start + x.shape[1]
    if isinstance(position, int):
        column = position + total if position < 0 else position
        if not 0 <= column < total:
            raise BadInput(what, got=f"position {position}", wanted=_lengths(window, total))
        return _in_window([column], start, x, is_single=True)
    if isinstance(position, Span):
        columns = list(range(total))[position.to_slice()]
        if not columns:
            raise BadInput(what, got=f"no position in {position}", wanted=_lengths(window, total))
        return _in_window(columns, start, x, is_single=False)
    mask = _mask(window, total, x, what)
    if position == "last":
        if mask is None:
            return _in_window([total - 1], start, x, is_single=True)
        place = total - 1 - mask.to(torch.int64).flip(1).argmax(1)
        found = place[:, None] == torch.arange(start, total, device=x.device)
        return Chosen(mask=found & mask.any(1, keepdim=True), is_single=True)
    return _in_window(range(total), start, x, is_single=False) if mask is None else Chosen(mask=mask[:, start:])


def _while_writing(position: Any, window: Window, x: Tensor, what: str) -> Chosen:
    """Every row by its own tokens: `own` is each column's place in its text, below 0 in the padding."""
    start = int(window.start or 0)
    total = start + x.shape[1]
    mask = _mask(window, total, x, what)
    prompt = torch.as_tensor(window.prompt_length, device=x.device).expand(len(x))[:, None]
    column = torch.arange(start, total, device=x.device)
    padding = x.new_zeros(len(x), dtype=torch.int64)
    is_text = torch.ones((len(x), len(column)), dtype=torch.bool, device=x.device)
    if mask is not None:
        padding = (~mask & (torch.arange(total, device=x.device) < prompt)).sum(1)
        is_text = mask[:, start:]
    own, length = column - padding[:, None], prompt[:, 0] - padding
    if position == "last":
        return Chosen(mask=column == prompt - 1)
    if position in ("prompt", "generated"):
        return Chosen(mask=((column < prompt) == (position == "prompt")) & is_text)
    ends = [position] if isinstance(position, int) else [position.start, position.stop]
    from_end = [end for end in ends if end is not None and end < 0]
    if isinstance(position, int) and from_end and -position > int(length.min()):
        raise BadInput(
            what, got=f"position {position}", wanted=f"a prompt of {-position} tokens", remedy=_shortest(length)
        )
    low, high = (None if end is None else (end if end >= 0 else (length + end)[:, None]) for end in (ends[0], ends[-1]))
    if isinstance(position, int):
        return Chosen(mask=(own == low) & is_text)
    step = position.step or 1
    if step < 0:
        raise BadInput(what, got=f"the step {step}", wanted="a positive one while a text is written")
    first = torch.as_tensor(0 if low is None else low, device=x.device).clamp(min=0)
    found = (own >= first) & ((own - first) % step == 0) & is_text
    return Chosen(mask=found if high is None else found & (own < high))


def _in_window(columns: Any, start: int, x: Tensor, *, is_single: bool) -> Chosen:
    here = tuple(column - start for column in columns if column >= start)
    if is_single and not here:  # it was in an earlier pass
        return Chosen(mask=torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device))
    return Chosen(columns=here, is_single=is_single)


def _as_mask(chosen: Chosen, x: Tensor) -> Tensor:
    if chosen.mask is not None:
        return chosen.mask
    mask = torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
    mask[list(chosen.columns)] = True
    return mask.expand(x.shape[:2])


def _asked(where: Where, window: Window, x: Tensor, what: str) -> Tensor:
    """The user's mask, cut to the columns of this pass."""
    mask = where if isinstance(where, Tensor) else where(window.batch)
    mask = mask.to(device=x.device, dtype=torch.bool)
    if mask.ndim == 2 and x.ndim > 2 and mask.shape[1] != x.shape[1]:
        mask = mask[:, window.start or 0 :]
    if mask.shape not in (x.shape[:1], x.shape[:2]) or (mask.ndim == 2 and x.ndim < 3):
        raise BadInput(
            f"mask of {what}",
            got=f"shape {tuple(mask.shape)}",
            wanted=f"{tuple(x.shape[:1])}" + (f" or {tuple(x.shape[:2])}" if x.ndim > 2 else ""),
        )
    return mask


def _mask(window: Window, total: int, x: Tensor, what: str) -> Tensor | None:
    if window.mask is None:
        return None
    if window.mask.shape != (len(x), total):
        raise BadInput(
            what,
            got=f"a value of shape {tuple(x.shape)} beside a mask of shape {tuple(window.mask.shape)}",
            wanted=f"a mask of {len(x)} rows and {total} positions",
        )
    return window.mask.bool().to(x.device)


def _lengths(window: Window, total: int) -> str:
    words = f"{-total} to {total - 1}: the texts have {total} positions"
    if window.mask is not None and not _is_mapped(window.mask):
        counts = window.mask.bool().sum(1)
        words += f", of which the mask shows {int(counts.min())} to {int(counts.max())}"
    return words


def _shortest(length: Tensor) -> str:
    return f"The shortest prompt has {int(length.min())}."


def _cached(kwargs: dict[str, Any]) -> int | None:
    """Columns in the cache; None where there is a cache that does not tell."""
    for name in ("past_key_values", "cache_params", "state"):
        cache = kwargs.get(name)
        if cache is None:
            continue
        if hasattr(cache, "get_seq_length"):
            try:
                return int(cache.get_seq_length())
            except (ValueError, RuntimeError, AttributeError):  # caches of states hold no such number
                pass
        if isinstance(cache, tuple) and cache and isinstance(cache[0], tuple):
            return int(cache[0][0].shape[-2])
        mask, tokens = kwargs.get("attention_mask"), kwargs.get("input_ids")
        if isinstance(mask, Tensor) and isinstance(tokens, Tensor) and mask.shape[1] > tokens.shape[1]:
            return int(mask.shape[1] - tokens.shape[1])
        return None
    return 0


def _is_mapped(tensor: Tensor) -> bool:
    """Under vmap a mask cannot be looked at."""
    return bool(torch._C._functorch.is_batchedtensor(tensor))

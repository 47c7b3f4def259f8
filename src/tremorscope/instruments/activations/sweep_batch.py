"""The batch of a sweep, taken apart: tokens, what lies beside them, which position is edited and which is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from jaxtyping import Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.instruments.task import Batch

TOKENS, MASK, POSITIONS = "input_ids", "attention_mask", "position_ids"
ReadPosition = int | Literal["last"]


class Unavailable(Exception):
    """A faster level does not fit this network, site or batch; the message says why, and becomes a flag."""


@final
class Shared:
    """What the sweeps of one network and batch have in common, each thing computed once, when it is first asked for.

    A thing that cannot be had is refused with the same reason every time. Nothing in here may be written to.
    """

    def __init__(self) -> None:
        self._held: dict[Hashable, Any] = {}

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """What `compute` gives, now or earlier under this key."""
        if key not in self._held:
            try:
                self._held[key] = compute()
            except Unavailable as reason:
                self._held[key] = reason
        found = self._held[key]
        if isinstance(found, Unavailable):
            raise Unavailable(str(found))
        return found


@final
@dataclass(frozen=True)
class Prompts:
    """Tokens `[rows, length]`, one prompt per row, and what goes with them; `edited` and `read` are positions.

    `shared` holds what other sweeps of the same network, tokens, mask and positions have computed.
    """

    network: Network
    tokens: Int[Tensor, "rows length"]
    mask: Int[Tensor, "rows length"] | None
    position_ids: Int[Tensor, "rows length"] | None
    edited: Int[Tensor, " rows"]
    read: Int[Tensor, " rows"]
    shared: Shared = field(default_factory=Shared)

    @classmethod
    def of(
        cls, network: Network, batch: Batch, site: Site, read_position: ReadPosition, shared: Shared | None = None
    ) -> Prompts:
        """The prompts of a batch of tokens.

        Raises:
            Unavailable: If the batch holds anything else than tokens, a mask and positions, or if the positions do not
                allow the prefix to be shared.
        """
        kwargs = dict(batch.kwargs)
        if len(batch.args) == 1 and TOKENS not in kwargs and _first_argument(network) == TOKENS:
            kwargs[TOKENS] = batch.args[0]
        elif batch.args:
            raise Unavailable("the batch does not consist of tokens")
        tokens, mask, position_ids = (kwargs.pop(name, None) for name in (TOKENS, MASK, POSITIONS))
        if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.is_floating_point():
            raise Unavailable("the batch does not consist of tokens")
        if kwargs:
            raise Unavailable(f"the batch holds {', '.join(sorted(kwargs))} beside its tokens")
        rows, length = tokens.shape
        if mask is not None and (not isinstance(mask, Tensor) or mask.shape != tokens.shape):
            raise Unavailable("the attention mask is not one entry per token")
        edited = picked_positions(site.position, rows, length, mask)
        read = picked_positions(read_position, rows, length, mask)
        if (read < edited).any():
            raise Unavailable("the position that is read lies before the one that is edited")
        if (read - edited != read[0] - edited[0]).any():
            raise Unavailable("the prompts have different numbers of tokens between the edit and the read-out")
        placed = None if position_ids is None else position_ids.expand(rows, length)
        return cls(network, tokens, mask, placed, edited, read, Shared() if shared is None else shared)

    def batch(self, **more: Any) -> Batch:
        """The prompts as a batch, with more keywords."""
        described = {TOKENS: self.tokens, MASK: self.mask, POSITIONS: self.position_ids, **more}
        return Batch((), {name: value for name, value in described.items() if value is not None}, None)

    @property
    def num_recomputed(self) -> int:
        """Positions from the edit to the read-out, both included: what a sweep computes anew."""
        return int(self.read[0] - self.edited[0]) + 1

    @property
    def window(self) -> Int[Tensor, "rows recomputed"]:
        """The positions that are computed anew."""
        return self.edited[:, None] + torch.arange(self.num_recomputed, device=self.edited.device)

    @property
    def visible(self) -> Int[Tensor, "rows length"]:
        """1 where a token is text, 0 where it is padding."""
        return torch.ones_like(self.tokens) if self.mask is None else self.mask

    @property
    def places(self) -> Int[Tensor, "rows length"]:
        """The position that the model gives to each token: the batch's own, or else 0, 1, 2, ..."""
        if self.position_ids is not None:
            return self.position_ids
        return torch.arange(self.tokens.shape[1], device=self.tokens.device).expand_as(self.tokens)


def picked_positions(position: Any, rows: int, length: int, mask: Tensor | None) -> Int[Tensor, " rows"]:
    """One position in each row, counted from 0.

    Raises:
        BadInput: If the position lies outside, or is a slice.
    """
    device = None if mask is None else mask.device
    if position == "last":
        if mask is None:
            return torch.full((rows,), length - 1, device=device)
        return length - 1 - mask.flip(1).argmax(1)
    if not isinstance(position, int):
        raise BadInput(
            "position of a sweep",
            got="none" if position is None else f"'@{position}'",
            wanted="one position in each prompt",
            remedy="Write @last, @3 or @-1 after the site.",
        )
    if not -length <= position < length:
        raise BadInput("position of a sweep", got=position, wanted=f"one of the batch's {length} positions")
    return torch.full((rows,), position % length, device=device)


def tiled(batch: Batch, rows: Int[Tensor, " n"], num_rows: int) -> Batch:
    """The batch with row `rows[i]` at place `i`: every tensor with as many rows as there are prompts follows."""

    def chosen(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim > 0 and len(value) == num_rows:
            return value.index_select(0, rows.to(value.device))
        return value

    return Batch(
        tuple(chosen(value) for value in batch.args), {key: chosen(value) for key, value in batch.kwargs.items()}, None
    )


def num_prompts(batch: Batch) -> int:
    """Rows of the batch: the length of its first tensor.

    Raises:
        BadInput: If it holds no tensor.
    """
    for value in (*batch.args, *batch.kwargs.values()):
        if isinstance(value, Tensor) and value.ndim > 0:
            return len(value)
    raise BadInput("batch of a sweep", got="no tensor", wanted="inputs, one row for each prompt")


def _first_argument(network: Network) -> str | None:
    return next(iter(inspect.signature(network.module.forward).parameters), None)

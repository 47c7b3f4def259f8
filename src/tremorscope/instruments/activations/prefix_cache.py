"""A forward pass over the last tokens only, after a memory of the tokens before: keys and values, or a state."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.instruments.activations.sweep_batch import MASK, POSITIONS, TOKENS, Prompts, Unavailable
from tremorscope.instruments.activations.sweep_routes import Back, Edited, Late
from tremorscope.instruments.language.encode import takes
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

# What models call the memory of the text so far: attention, Mamba, RWKV.
MEMORIES = ("past_key_values", "cache_params", "state")
ONE_BY_ONE = "cache_params"  # Mamba's memory is read by passes over one token only; others forget it
GROWING = ("keys", "values")  # what is never written in place: a new token is joined to it in a new tensor


@final
class PrefixCache:
    """Level 1: the memory of each prompt's prefix is computed once, and every point reads only what comes after.

    Each chunk gets a memory of its own, made of the clean one, which is never written to and never grows. A causal
    language model with attention, Mamba or RWKV will do; also RWKV's one-token step, which mixes the texts of a batch
    (as of transformers 5.23), is avoided: there the token before the edit is read again.

    Raises:
        Unavailable: If the module keeps no memory.
    """

    level = 1
    head = None

    def __init__(self, network: Network, prompts: Prompts, edited: Edited) -> None:
        self.network, self.prompts, self.edited = network, prompts, edited
        self.memory_name = next((name for name in MEMORIES if takes(network, name)), "")
        if not self.memory_name or not takes(network, "use_cache"):
            raise Unavailable(
                f"{type(network.module).__name__} keeps no memory of the text so far (no causal language model, "
                "or none of transformers)"
            )
        self.num_again = 1 if self.memory_name == "state" else 0
        starts = prompts.edited - self.num_again
        self.start = int(starts.max())
        if self.num_again and bool((starts != starts[0]).any()):
            raise Unavailable("a state cannot leave out the padding of prompts of different lengths")
        if self.start <= 0:
            raise Unavailable("there is nothing before the edited position to remember")
        self.name = f"memory of {self.start} positions ({self.memory_name})"
        self.reach = torch.arange(prompts.num_recomputed + self.num_again, device=prompts.tokens.device)
        # A prefix position that lies at or behind a prompt's own edit is hidden, like padding.
        before = torch.arange(self.start, device=starts.device) < starts[:, None]
        self.seen = prompts.visible[:, : self.start] * before
        with torch.no_grad():
            self.memory = prompts.shared.once(("memory", *starts.tolist()), self._remembered)
        self.row_bytes = self._row_bytes()

    def late(
        self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"], *, logits: bool = True, back: Back = (0,)
    ) -> Late:
        """Late activations and logits of points."""
        batch = self._batch(rows, max(back) + 1)
        if self.memory_name != ONE_BY_ONE:
            return self.edited(points, batch, column=self.num_again, read_columns=[-1 - one for one in back])
        # The memory of this chunk moves on from token to token.
        first, *others = (
            batch._replace(kwargs={**batch.kwargs, TOKENS: token}) for token in batch.kwargs[TOKENS].split(1, dim=1)
        )
        lates = [self.edited(points, first, column=0, read_columns=(-1,))]
        lates += [self.edited(None, one, column=0, read_columns=(-1,)) for one in others]
        chosen = [lates[-1 - one] for one in back]
        logits_of = [late.logits for late in chosen if late.logits is not None]
        return Late(torch.cat([late.hidden for late in chosen]), torch.cat(logits_of) if logits_of else None)

    def _remembered(self) -> Any:
        kwargs: dict[str, Any] = {TOKENS: self.prompts.tokens[:, : self.start], "use_cache": True}
        self._describe(kwargs, self.seen, self.prompts.places[:, : self.start])
        if self.memory_name == ONE_BY_ONE and not bool(self.seen.all()):
            kwargs[MASK] = self.seen  # it keeps padding out of the state; a pass over one token has no use for it
        if takes(self.network, "logits_to_keep"):
            kwargs["logits_to_keep"] = 1
        output = self.network.output(self.network.params, Batch((), kwargs, None))
        memory = getattr(output, self.memory_name, None)
        if memory is None:
            raise Unavailable(
                f"{type(self.network.module).__name__} gives no {self.memory_name}: it is not a causal language model"
            )
        return memory

    def _batch(self, rows: Int[Tensor, " n"], num_read: int) -> Batch:
        """The tokens from the edit on, after the memory of their prompts."""
        prompts = self.prompts
        window = (prompts.edited - self.num_again)[rows, None] + self.reach
        kwargs: dict[str, Any] = {TOKENS: prompts.tokens[rows].gather(1, window), "use_cache": True}
        mask = torch.cat([self.seen[rows], prompts.visible[rows].gather(1, window)], dim=1)
        self._describe(kwargs, mask, prompts.places[rows].gather(1, window))
        if takes(self.network, "logits_to_keep"):
            kwargs["logits_to_keep"] = num_read
        kwargs[self.memory_name] = select_rows(self.memory, rows, len(prompts.tokens))
        return Batch((), kwargs, None)

    def _describe(self, kwargs: dict[str, Any], mask: Tensor, places: Tensor) -> None:
        """Mask and positions where they say something that the model would not assume."""
        if self.memory_name == "past_key_values" and takes(self.network, MASK) and not bool(mask.all()):
            kwargs[MASK] = mask
        if takes(self.network, POSITIONS):
            kwargs[POSITIONS] = places

    def _row_bytes(self) -> int:
        per_prompt = sum(tensor.nbytes for tensor in _tensors(self.memory)) // len(self.prompts.tokens)
        vocabulary = getattr(getattr(self.network.module, "config", None), "vocab_size", 0)
        layers = getattr(self.memory, "layers", None) or [None]
        # Of keys and values only one block's are there at once. Six times that: larger tensors are asked of the system
        # anew in every block, which takes longer than filling them. And about three copies of the logits.
        held = 6 * per_prompt // len(layers) if all(map(_is_plain, layers)) else per_prompt
        return held + 12 * vocabulary


def select_rows(memory: Any, rows: Int[Tensor, " n"], num_rows: int) -> Any:
    """A memory of its own for each point: row `rows[i]` of every tensor at place `i`.

    Keys and values of one prompt are shared by all points (a new token is joined to them in a new tensor); whatever
    else a memory holds is copied, since models write states in place.
    """
    same = bool((rows == rows[0]).all())

    def chosen(tensor: Tensor, name: str) -> Tensor:
        if tensor.ndim == 0 or len(tensor) != num_rows:
            return tensor
        if same and name in GROWING:
            return tensor[rows[:1]].expand(len(rows), *tensor.shape[1:])
        return tensor.index_select(0, rows.to(tensor.device))

    mine = _mapped(memory, chosen, "")
    for layer in filter(_is_plain, getattr(mine, "layers", ())):
        layer.update = partial(_joined, layer)
    return mine


def _joined(layer: Any, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    """Keys and values with those of the new tokens, which are not kept: nobody reads on after this pass.

    Kept, they would be as many copies of the prefix as there are points, in every block: most of the time goes into
    asking the system for that memory.
    """
    return torch.cat([layer.keys, keys], dim=-2), torch.cat([layer.values, values], dim=-2)


def _is_plain(layer: Any) -> bool:
    """Whether a block's memory is keys and values and nothing else."""
    from transformers.cache_utils import DynamicLayer

    return type(layer) is DynamicLayer


def _mapped(value: Any, change: Callable[[Tensor, str], Tensor], name: str) -> Any:
    """The same structure with changed tensors; nothing of the old one is written to."""
    if isinstance(value, Tensor):
        return change(value, name)
    if isinstance(value, list | tuple):
        return type(value)(_mapped(one, change, name) for one in value)
    if isinstance(value, dict):
        return {key: _mapped(one, change, str(key)) for key, one in value.items()}
    if hasattr(value, "__dict__") and type(value).__module__.startswith("transformers.") and not callable(value):
        copied = copy.copy(value)
        copied.__dict__.update({key: _mapped(one, change, key) for key, one in vars(value).items()})
        return copied
    return value


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def note(tensor: Tensor, name: str) -> Tensor:
        found.append(tensor)
        return tensor

    _mapped(value, note, "")
    return found

"""How a language model goes on: greedily, or sampled from named random streams."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.activations.positions import Window
from tremorscope.instruments.language.encode import (
    context_length,
    encode,
    positions,
    required_tokenizer,
    takes,
    token_rows,
)
from tremorscope.instruments.language.text_edits import refuse_edits_of_rows
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

BATCH_SIZE = 64
# What models call the memory of the text so far: attention, Mamba. That of RWKV is right for single texts only (as of
# transformers 5.23, its one-token step mixes the texts of a batch), so RWKV reads the whole text at each step.
MEMORIES = ("past_key_values", "cache_params")


def generate(
    network: Network,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    stop: str | Sequence[str] | None = None,
    batch_size: int = BATCH_SIZE,
) -> list[str]:
    """What the model writes after each prompt, the prompt itself and special tokens left out.

    A text ends at the model's end token, before the first `stop`, or after `max_new_tokens`. The network's own weights
    are used, edited or not. Models that remember the text so far (keys and values, Mamba's states) read one token at
    a step, others all of it again. Where the module takes positions, prompts are padded on the left; where not, only
    prompts of one length share a batch. So a continuation does not depend on the other prompts, but for rounding.

    Args:
        network: A causal language model with a tokenizer.
        prompts: Texts; none of them empty, unless the tokenizer begins texts with a token of its own.
        max_new_tokens: The most tokens to write.
        temperature: 0 for the likeliest token at each step; else what logits are divided by before one is drawn.
        seed: Of the draws. Every prompt has a stream of its own, named by its text; the second time that a prompt is
            given it has another.
        stop: A string, or several, at which a text ends.
        batch_size: The most prompts at once.

    Cost: one forward pass over the prompts and one over each new token, with a memory; without, one over all the text
    for each new token.

    >>> from tremorscope.instruments.load import load
    >>> generate(load("builtin:microworld"), ["Two days after Monday is"], max_new_tokens=2)
    [' Wednesday.']

    Raises:
        BadInput: If an argument is out of range, a prompt with the tokens to come does not fit into the context, or the
            module is one that does not continue text.
    """
    if max_new_tokens < 1:
        raise BadInput("max_new_tokens", got=max_new_tokens, wanted="at least 1")
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise BadInput("temperature", got=temperature, wanted="0 (the likeliest token) or a positive number")
    if batch_size < 1:
        raise BadInput("batch_size", got=batch_size, wanted="at least 1")
    stops = [stop] if isinstance(stop, str) else list(stop or ())
    if "" in stops:
        raise BadInput("stop", got="an empty string", wanted="text at which to end")
    _check_writer(network)
    refuse_edits_of_rows(network, "generation")
    rows = token_rows(network, prompts)
    _check_room(network, prompts, rows, max_new_tokens)
    before = Counter[str]()
    streams = []
    for prompt in prompts:
        streams.append(generator(seed, "generate", prompt, before[prompt]))
        before[prompt] += 1
    written = [""] * len(prompts)
    for chosen in _batches(list(map(len, rows)), batch_size, mixed=takes(network, "position_ids")):
        batch = encode(network, [prompts[index] for index in chosen], padding_side="left")
        writer = _Writer(network, [rows[index] for index in chosen], [streams[index] for index in chosen], stops)
        with torch.no_grad():
            texts = writer.write(batch, max_new_tokens, temperature)
        for index, text in zip(chosen, texts, strict=True):
            written[index] = text
    return written


class _Writer:
    """Texts that grow together, one token each at a step."""

    def __init__(
        self, network: Network, rows: list[list[int]], streams: list[torch.Generator], stops: list[str]
    ) -> None:
        self.network, self.rows, self.streams, self.stops = network, rows, streams, stops
        self.tokenizer = required_tokenizer(network)
        self.ends = _end_tokens(network)
        self.new: list[list[int]] = [[] for _ in rows]
        self.is_done = [False] * len(rows)

    def write(self, batch: Batch, max_new_tokens: int, temperature: float) -> list[str]:
        """Read the prompts, then add tokens until every text has ended."""
        memory = next((name for name in MEMORIES if takes(self.network, name)), None)
        kwargs = dict(batch.kwargs)
        mask: Tensor = kwargs["attention_mask"]
        tokens: Tensor = kwargs["input_ids"]
        if bool(mask.all()):
            del kwargs["attention_mask"]  # nothing to hide
        if memory is not None and takes(self.network, "use_cache"):
            kwargs["use_cache"] = True
        if takes(self.network, "logits_to_keep"):
            kwargs["logits_to_keep"] = 1  # of the whole prompt only the last logits are needed
        prompt_length = tokens.shape[1]
        for step in range(max_new_tokens):
            step_batch = Batch((), kwargs, None)
            window = Window(
                batch=step_batch,
                start=tokens.shape[1] - kwargs["input_ids"].shape[1],
                mask=mask,
                prompt_length=prompt_length,
            )
            output = self.network.output(self.network.params, step_batch, window=window)
            chosen = self._chosen(_last_logits(self.network, output, kwargs), temperature)
            self._add(chosen)
            if all(self.is_done) or step == max_new_tokens - 1:
                break
            chosen = chosen.to(mask.device)[:, None]
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            tokens = torch.cat([tokens, chosen], 1)
            known = None if memory is None else getattr(output, memory, None)
            kwargs["input_ids"] = tokens if known is None else chosen
            if "attention_mask" in kwargs:
                kwargs["attention_mask"] = mask
            if memory is not None and known is not None:
                kwargs[memory] = known
            if "position_ids" in kwargs:
                kwargs["position_ids"] = positions(mask)[:, -kwargs["input_ids"].shape[1] :]
        return [self._text(index) for index in range(len(self.rows))]

    def _chosen(self, logits: Float[Tensor, "texts vocabulary"], temperature: float) -> Int[Tensor, " texts"]:
        """The likeliest token of each text, or one drawn: each text by its own stream, in double precision."""
        if temperature == 0:
            return logits.argmax(-1)
        shares = (logits.double().cpu() / temperature).softmax(-1).cumsum(-1)
        draws = torch.stack([torch.rand(1, generator=stream, dtype=torch.float64) for stream in self.streams])
        # Rounding may leave the sum a little below 1: a draw beyond it belongs to the last token that has a share.
        return torch.searchsorted(shares, (draws * shares[:, -1:]), right=True).clamp(max=logits.shape[1] - 1)[:, 0]

    def _add(self, chosen: Int[Tensor, " texts"]) -> None:
        for index, token in enumerate(chosen.tolist()):
            if self.is_done[index]:
                continue
            if token in self.ends:
                self.is_done[index] = True
                continue
            self.new[index].append(token)
            if self.stops:
                text = self._whole(index)
                self.is_done[index] = any(stop in text for stop in self.stops)

    def _text(self, index: int) -> str:
        text = self._whole(index)
        return text[: min((text.find(stop) for stop in self.stops if stop in text), default=len(text))]

    def _whole(self, index: int) -> str:
        """The new text. Some tokenizers drop a blank at the start, so it is read off behind the prompt."""
        prompt = self._decoded(self.rows[index])
        whole = self._decoded(self.rows[index] + self.new[index])
        return whole[len(prompt) :] if whole.startswith(prompt) else self._decoded(self.new[index])

    def _decoded(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _batches(lengths: list[int], batch_size: int, *, mixed: bool) -> Iterator[list[int]]:
    """Places of prompts that are read together: of like length, or of one length where they cannot be `mixed`."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    for _, group in groupby(order, key=lambda index: 0 if mixed else lengths[index]):
        held = list(group)
        size = batch_size if mixed or lengths[held[0]] > 1 else 1  # see MEMORIES: one token is a step of its own
        yield from (held[start : start + size] for start in range(0, len(held), size))


def _end_tokens(network: Network) -> set[int]:
    """The tokens that end a text: the module's word for it, or the tokenizer's."""
    told = getattr(getattr(network.module, "generation_config", None), "eos_token_id", None)
    ends = told if isinstance(told, list) else [told]
    return {int(end) for end in [*ends, getattr(network.tokenizer, "eos_token_id", None)] if end is not None}


def _check_writer(network: Network) -> None:
    """Models of transformers know whether they continue text; of others it is believed."""
    can = getattr(network.module, "can_generate", None)
    if can is not None and not can():
        raise BadInput(
            f"generation with {network.name!r}",
            got=f"{type(network.module).__name__}, which does not continue text",
            wanted="a causal language model",
        )


def _check_room(network: Network, prompts: Sequence[str], rows: list[list[int]], new: int) -> None:
    limit = context_length(network)
    longest = max(range(len(rows)), key=lambda index: len(rows[index]))
    # The last token that is written is never read.
    if limit is not None and len(rows[longest]) + new - 1 > limit:
        room = limit - len(rows[longest]) + 1
        raise BadInput(
            f"max_new_tokens after prompt {longest}, which begins {prompts[longest][:40]!r}",
            got=f"{new} after {len(rows[longest])} tokens",
            wanted=f"at most {room}: the context of {network.name!r} is {limit}",
            remedy="Shorten the prompt, or ask for less.",
        )


def _last_logits(network: Network, output: Any, kwargs: dict[str, Any]) -> Float[Tensor, "texts vocabulary"]:
    """Logits after the last token, from an output that has the shape it should have."""
    logits = getattr(output, "logits", output)
    texts, length = kwargs["input_ids"].shape
    length = kwargs.get("logits_to_keep", length)
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != (texts, length):
        raise BadInput(
            f"output of {network.name!r}",
            got=f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__,
            wanted=f"logits of shape ({texts}, {length}, vocabulary)",
        )
    return logits[:, -1]

"""From texts to a batch of tokens, padded on the side that is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

UNBOUNDED = 1 << 30  # what tokenizers hold for "no limit" is larger still


def encode(
    network: Network, texts: Sequence[str], *, padding_side: Literal["left", "right"] = "right", at_least: int = 1
) -> Batch:
    """Texts as one batch of tokens, with the special tokens that the tokenizer adds, on the network's device.

    `kwargs` holds `input_ids` and `attention_mask`, both integers of shape (texts, longest). The tokenizer needs no pad
    token: what stands in the padding is masked. With padding on the left there are `position_ids` too where the module
    takes them, so that a text has the positions it has alone; where it does not (most recurrent models), the texts
    should be of one length, as the padding is read like text. `at_least` is the least length of the batch.

    >>> from types import SimpleNamespace
    >>> letters = lambda texts, **_: {"input_ids": [[ord(letter) - 97 for letter in text] for text in texts]}
    >>> network = Network(torch.nn.Embedding(26, 4), tokenizer=letters)
    >>> batch = encode(network, ["abc", "b"])
    >>> batch.kwargs["input_ids"].tolist(), batch.kwargs["attention_mask"].tolist()
    ([[0, 1, 2], [1, 0, 0]], [[1, 1, 1], [1, 0, 0]])

    Raises:
        BadInput: If there is no tokenizer or no text, a text has no token, or it is longer than the model's context.
    """
    if padding_side not in ("left", "right"):
        raise BadInput("padding_side", got=padding_side, wanted="'left' or 'right'")
    rows = token_rows(network, texts)
    longest = max(at_least, *map(len, rows))
    tokens = torch.full((len(rows), longest), _filler(network.tokenizer), dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for index, row in enumerate(rows):
        place = slice(longest - len(row), None) if padding_side == "left" else slice(len(row))
        tokens[index, place] = torch.tensor(row)
        mask[index, place] = 1
    kwargs = {"input_ids": tokens.to(network.device), "attention_mask": mask.to(network.device)}
    if padding_side == "left" and takes(network, "position_ids"):
        kwargs["position_ids"] = positions(kwargs["attention_mask"])
    return Batch((), kwargs, None)


def last_positions(batch: Batch) -> Int[Tensor, " texts"]:
    """Where the last token of each text stands, padding aside, whichever side it is on.

    >>> mask = torch.tensor([[0, 1, 1], [1, 1, 0]])
    >>> last_positions(Batch((), {"attention_mask": mask}, None)).tolist()
    [2, 1]
    """
    mask: Tensor = batch.kwargs["attention_mask"]
    return mask.shape[1] - 1 - mask.flip(1).argmax(1)


def positions(mask: Int[Tensor, "texts length"]) -> Int[Tensor, "texts length"]:
    """Each token's place in its own text, padding aside (where it is 0)."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def token_rows(network: Network, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, special ones included, not padded.

    Raises:
        BadInput: As `encode`.
    """
    if isinstance(texts, str):
        raise BadInput("texts", got="a string", wanted="a list of strings", remedy="Write [text].")
    if len(texts) == 0:
        raise BadInput("texts", got="none", wanted="at least one")
    tokenizer = required_tokenizer(network)
    # Not verbose: the tokenizer's own word about long texts is said below, with its number.
    found = tokenizer(list(texts), padding=False, truncation=False, verbose=False)["input_ids"]
    rows = [[int(token) for token in row] for row in found]
    limit = context_length(network)
    for index, row in enumerate(rows):
        if not row:
            raise BadInput(f"text {index}", got=f"{texts[index]!r}, which has no token", wanted="at least one token")
        if limit is not None and len(row) > limit:
            raise BadInput(
                f"text {index}, which begins {texts[index][:40]!r}",
                got=f"{len(row)} tokens",
                wanted=f"at most {limit}, the context of {network.name!r}",
                remedy="Shorten it.",
            )
    return rows


def required_tokenizer(network: Network) -> Any:
    """The tokenizer, for whoever cannot do without.

    Raises:
        BadInput: If there is none.
    """
    if network.tokenizer is None:
        raise BadInput(
            f"tokenizer of {network.name!r}",
            got="none",
            wanted="one that makes tokens of text",
            remedy="Pass Network(module, tokenizer=...), or save one beside the model's weights.",
        )
    return network.tokenizer


def context_length(network: Network) -> int | None:
    """The most tokens that the model reads at once; None for no limit, as in recurrent models.

    It is what the model's configuration says (`max_position_embeddings`), or the tokenizer if that says less; of a
    model without a configuration, what the tokenizer says.
    """
    limits = []
    config = getattr(network.module, "config", None)
    if config is not None:
        own = getattr(config, "max_position_embeddings", None)
        if not isinstance(own, int) or own <= 0:
            return None
        limits.append(own)
    told = getattr(network.tokenizer, "model_max_length", None)
    if isinstance(told, int) and told < UNBOUNDED:
        limits.append(told)
    return min(limits, default=None)


def takes(network: Network, name: str) -> bool:
    """Whether the module's forward has an argument of this name."""
    return name in inspect.signature(network.module.forward).parameters


def _filler(tokenizer: Any) -> int:
    """A token to stand in the padding: any that the model knows."""
    for name in ("pad_token_id", "eos_token_id"):
        token = getattr(tokenizer, name, None)
        if token is not None:
            return int(token)
    return 0

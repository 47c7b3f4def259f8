"""Natural prompts of one length, and what a network's activations are on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import numpy_generator
from tremorscope.instruments.language.encode import required_tokenizer
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

RECORDED = 256  # prompts that are recorded at once


@final
@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts of equal length, no padding, and the position of each one's last token of text.

    `position` counts from the end: -1 for models that only begin a text, -2 for encoders that end it with a token of
    their own.
    """

    batch: Batch
    position: int

    def __len__(self) -> int:
        return len(self.batch.kwargs["input_ids"])

    def part(self, start: int, stop: int) -> Prompts:
        """Some of them."""
        kwargs = {name: tensor[start:stop] for name, tensor in self.batch.kwargs.items()}
        return Prompts(batch=Batch((), kwargs, None), position=self.position)


def natural_prompts(network: Network, texts: Sequence[str], *, length: int, count: int, seed: int) -> Prompts:
    """Stretches of texts, each of `length` tokens with the special ones that the tokenizer puts around a text.

    Texts come in random order, and each gives its beginning before any gives a second stretch: the first prompts are
    of different texts. Stretches that came already are passed over.

    Raises:
        BadInput: If there is no tokenizer, or there are too few stretches.
    """
    tokenizer = required_tokenizer(network)
    before, after = _special_tokens(tokenizer)
    inside = length - len(before) - len(after)
    if inside < 1:
        raise BadInput("length of prompts", got=length, wanted=f"at least {length - inside + 1} tokens")
    order = numpy_generator(seed, "texts").permutation(len(texts))
    shuffled = [texts[int(place)] for place in order]
    tokens = tokenizer(shuffled, add_special_tokens=False, verbose=False)["input_ids"] if shuffled else []
    stretches = [
        tuple(row[start : start + inside]) for row in tokens for start in range(0, len(row) - inside + 1, inside)
    ]
    ranks = [start // inside for row in tokens for start in range(0, len(row) - inside + 1, inside)]
    found = list(dict.fromkeys(stretches[place] for place in sorted(range(len(ranks)), key=ranks.__getitem__)))
    if len(found) < count:
        raise BadInput(
            f"prompts of {length} tokens",
            got=f"{len(found)} in {len(texts)} texts",
            wanted=f"{count} different ones",
            remedy="Use fewer, shorter ones, or more texts.",
        )
    ids = torch.tensor([[*before, *stretch, *after] for stretch in found[:count]], device=network.device)
    return Prompts(
        batch=Batch((), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, None), position=-1 - len(after)
    )


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text."""
    bare, dressed = (
        list(tokenizer("a", add_special_tokens=special, verbose=False)["input_ids"]) for special in (False, True)
    )
    start = next((at for at in range(len(dressed)) if dressed[at : at + len(bare)] == bare), 0)
    return dressed[:start], dressed[start + len(bare) :]


def recorded_activations(network: Network, prompts: Prompts, site: str) -> Float[Tensor, "prompts d"]:
    """The activation of each prompt at a site without position (`acts:resid_pre.1`), at its last token of text.

    Cost: one forward pass.

    Raises:
        SiteNotFound: If there is no such site.
    """
    where = f"{site}@{prompts.position}"
    with torch.no_grad():
        parts = [
            network.record(where, prompts.part(start, start + RECORDED).batch)
            for start in range(0, len(prompts), RECORDED)
        ]
    return torch.cat(parts)

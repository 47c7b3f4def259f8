"""Language models that answer as they were told to, and a tokenizer that cuts any text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from tremorscope.instruments.microworld.tokenizer import train_tokenizer, wrapped
from tremorscope.instruments.network import Network

TEXTS = ("The cat of the teacher is in the garden. Question: Answer: Sorry, no. Sure, yes. Two days after Monday",)


@cache
def tokenizer(*singles: str, size: int = 400, length: int = 512) -> Any:
    """A byte-level BPE with few merges: most words are several tokens, but for `singles`."""
    return wrapped(train_tokenizer(TEXTS, vocabulary_size=size, singles=singles), length=length)


class Table(nn.Module):
    """The token to say after each sequence of tokens that is known, loudly; nothing in particular elsewhere."""

    def __init__(self, after: Mapping[tuple[int, ...], int], vocabulary: int) -> None:
        super().__init__()
        self.after = dict(after)
        self.vocabulary = vocabulary
        self.gain = nn.Parameter(torch.tensor(20.0))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        logits = torch.zeros(*input_ids.shape, self.vocabulary)
        for row, tokens in enumerate(input_ids.tolist()):
            for place in range(len(tokens)):
                said = self.after.get(tuple(tokens[: place + 1]))
                if said is not None:
                    logits[row, place, said] = 1.0
        return logits * self.gain


def saying(answers: Mapping[str, str], tokens: Any) -> Network:
    """A network that goes on from each text with its answer."""
    after = {}
    for prompt, answer in answers.items():
        whole = tokens(prompt + answer)["input_ids"]
        for place in range(len(tokens(prompt)["input_ids"]), len(whole)):
            after[tuple(whole[:place])] = whole[place]
    return Network(Table(after, len(tokens)), tokenizer=tokens)


def random_gpt2(tokens: Any, *, seed: int = 0, length: int = 512) -> Network:
    """An untrained GPT-2 of a few thousand weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(tokens), n_positions=length, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = GPT2LMHeadModel(config).eval()
        for parameter in module.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return Network(module, tokenizer=tokens)

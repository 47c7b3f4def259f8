"""Prompts with a right and a wrong next word, as data with a loss and a score: for curvature, steering, training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.language.encode import encode, takes, token_rows
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

Logits = Float[Tensor, "prompts length vocabulary"]
Pairs = Int[Tensor, "prompts two"]


def contrast_batch(network: Network, prompts: Sequence[str], right: Sequence[str], wrong: Sequence[str]) -> Batch:
    """Prompts that end at one place, and the tokens with which the right and the wrong continuation begin there.

    Prompts are padded on the left, and a module that can be asked for the logits of the last position alone
    (`logits_to_keep`) is asked for no others. `target` has a row for each prompt: the right token and the wrong
    one. The loss to go with it is `contrast_loss`, the score `contrast_score`.

    Raises:
        BadInput: If there are not as many of each, there is no tokenizer, a prompt has no token or too many, the
            tokenizer joins the end of a prompt with a continuation, or both continuations begin alike.
    """
    if not len(prompts) == len(right) == len(wrong):
        raise BadInput(
            "continuations", got=f"{len(right)} and {len(wrong)}", wanted=f"one of each for {len(prompts)} prompts"
        )
    batch = encode(network, prompts, padding_side="left")
    before = token_rows(network, prompts)
    columns = [_first_tokens(network, prompts, before, after) for after in (right, wrong)]
    for prompt, one, other, *tokens in zip(prompts, right, wrong, *columns, strict=True):
        if tokens[0] == tokens[1]:
            raise BadInput(
                f"continuations {one!r} and {other!r} of {prompt!r}",
                got="the same first token",
                wanted="words that differ from the first token on",
            )
    kwargs = {**batch.kwargs, "logits_to_keep": 1} if takes(network, "logits_to_keep") else batch.kwargs
    return Batch((), kwargs, torch.tensor(columns, device=network.device).T)


def contrast_loss(output: Logits, target: Pairs) -> Float[Tensor, ""]:
    """Mean surprise at the right word when it is that or the wrong one, in nats; the last position counts.

    >>> float(contrast_loss(torch.zeros(1, 5, 4), torch.tensor([[2, 3]]))) == float(torch.tensor(2.0).log())
    True
    """
    return torch.nn.functional.softplus(-_lead(output, target)).mean()


def contrast_score(output: Logits, target: Pairs) -> float:
    """Share of prompts after which the right word is likelier than the wrong one.

    >>> contrast_score(torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]]]), torch.tensor([[1, 0], [0, 1]]))
    0.5
    """
    return float((_lead(output, target) > 0).double().mean())


def _lead(output: Tensor, target: Tensor) -> Tensor:
    chosen = output[:, -1].gather(1, target.long())
    return chosen[:, 0] - chosen[:, 1]


def _first_tokens(
    network: Network, prompts: Sequence[str], before: Sequence[Sequence[int]], after: Sequence[str]
) -> list[int]:
    whole = token_rows(network, [f"{prompt}{more}" for prompt, more in zip(prompts, after, strict=True)])
    found = []
    for prompt, more, start, both in zip(prompts, after, before, whole, strict=True):
        if both[: len(start)] != list(start) or len(both) == len(start):
            raise BadInput(
                f"continuation {more!r} of {prompt!r}",
                got="no token of its own" if both == list(start) else "tokens that are not those of the prompt first",
                wanted="at least one token after those of the prompt",
                remedy="Continue after a whole word: prompts without a space at the end, continuations with one first.",
            )
        found.append(both[len(start)])
    return found

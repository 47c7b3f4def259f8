"""What a language model says next, as a task: prompts in a batch, one wanted token each, a loss and a score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.language.encode import encode, takes, token_rows
from tremorscope.instruments.losses import cross_entropy
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

Output = Float[Tensor, "prompts length vocabulary"]


def next_token_batch(network: Network, prompts: Sequence[str], continuations: Sequence[str]) -> Batch:
    """Prompts that end at one place, and the token with which each continuation begins there.

    For everything that asks for data with targets: curvature, steering, training. Prompts are padded on the left, and
    a module that can be asked for the logits of the last position alone (`logits_to_keep`) is asked for no others.
    `target` holds one token a prompt; the loss to go with it is `next_token_cross_entropy`.

    Raises:
        BadInput: If there are not as many of each, there is no tokenizer, a prompt has no token or too many, or the
            tokenizer joins the end of a prompt with its continuation.
    """
    if len(prompts) != len(continuations):
        raise BadInput("continuations", got=len(continuations), wanted=f"one for each of {len(prompts)} prompts")
    batch = encode(network, prompts, padding_side="left")
    whole = token_rows(network, [f"{prompt}{after}" for prompt, after in zip(prompts, continuations, strict=True)])
    wanted = []
    for prompt, after, before, both in zip(prompts, continuations, token_rows(network, prompts), whole, strict=True):
        if both[: len(before)] != before or len(both) == len(before):
            raise BadInput(
                f"continuation {after!r} of {prompt!r}",
                got="no token of its own" if both == before else "tokens that are not those of the prompt first",
                wanted="at least one token after those of the prompt",
                remedy="Continue after a whole word: prompts without a space at the end, continuations with one first.",
            )
        wanted.append(both[len(before)])
    kwargs = {**batch.kwargs, "logits_to_keep": 1} if takes(network, "logits_to_keep") else batch.kwargs
    return Batch((), kwargs, torch.tensor(wanted, device=network.device))


def next_token_cross_entropy(output: Output, target: Int[Tensor, " prompts"]) -> Float[Tensor, ""]:
    """Mean surprise at the token after each prompt, in nats; `output` has logits, of which the last position counts.

    >>> float(next_token_cross_entropy(torch.zeros(1, 5, 4), torch.tensor([2]))) == float(torch.tensor(4.0).log())
    True
    """
    return cross_entropy(output[:, -1], target)


def kinds_of_token(*kinds: Sequence[int]) -> Callable[[Output, Int[Tensor, " prompts"]], float]:
    """A score: the share of prompts after which a token of the same kind as the wanted one is likelier than the others.

    Probabilities of the tokens of a kind are summed, so that it does not matter with which of several words an answer
    or a refusal begins. Tokens of no kind do not count.

    >>> score = kinds_of_token([0, 1], [2])
    >>> score(torch.tensor([[[0.0, 0.0, 0.5]], [[0.0, 0.0, 1.0]]]), torch.tensor([1, 1]))
    0.5

    Raises:
        BadInput: If there are not two kinds, one is empty, or a token belongs to two.
    """
    known = [token for kind in kinds for token in kind]
    if len(kinds) < 2 or any(len(kind) == 0 for kind in kinds) or len(set(known)) < len(known):
        raise BadInput("kinds of tokens", got=[list(kind) for kind in kinds], wanted="two or more, without overlap")

    def score(output: Output, target: Int[Tensor, " prompts"]) -> float:
        last = output[:, -1]
        sums = torch.stack([last[:, list(kind)].logsumexp(1) for kind in kinds], dim=1)
        members = torch.stack([torch.isin(target, torch.tensor(kind, device=target.device)) for kind in kinds], dim=1)
        if not bool(members.any(1).all()):
            raise BadInput("targets", got="a token of no kind", wanted="one of those that the score knows")
        return float((sums.argmax(1) == members.int().argmax(1)).double().mean())

    return score

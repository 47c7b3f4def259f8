"""What an edit is judged by: a number for each example, from logits, a generated text, or any callable."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.language.generation import generate
from tremorscope.instruments.language.scoring import score_options
from tremorscope.instruments.network import Network
from tremorscope.methods.activations.concept_editing.examples import Examples, batches

Scorer = Callable[[Network, Examples], Shaped[Tensor, " examples"]]
SMALLEST = 1e-8  # keeps log-odds finite


def token_log_odds(these: Sequence[str], others: Sequence[str] | None = None) -> Scorer:
    """Log-odds (nats) that a text goes on with one of `these`, against `others` or against everything else.

    Continuations are compared as `score_options` does; probabilities of several are summed. Against everything else
    this is the refusal score of arXiv:2406.11717: `log(p + 1e-8) - log(1 - p + 1e-8)`, in float64.

    Raises:
        BadInput: If there are no continuations; when scoring, if examples are no texts.
    """
    if not these or (others is not None and not others):
        raise BadInput("continuations to score", got="none", wanted="at least one on each side")

    def score(network: Network, examples: Examples) -> Tensor:
        options = (*these, *(others or ()))
        told = score_options(network, _texts(examples), [options] * len(examples)).log_probs.double()
        above = told[:, : len(these)].logsumexp(1)
        if others is not None:
            return above - told[:, len(these) :].logsumexp(1)
        share = above.exp().clamp(max=1)
        return (share + SMALLEST).log() - (1 - share + SMALLEST).log()

    return score


def is_above(scorer: Scorer, threshold: float = 0.0) -> Scorer:
    """Whether another score is above a threshold: averages of it are shares."""

    def score(network: Network, examples: Examples) -> Tensor:
        return scorer(network, examples) > threshold

    return score


def decides(*classes: int) -> Scorer:
    """Whether a classifier's likeliest class is one of these.

    Raises:
        BadInput: If no class is given; when scoring, if the network has not so many classes.
    """
    if not classes:
        raise BadInput("classes", got="none", wanted="at least one")

    def score(network: Network, examples: Examples) -> Bool[Tensor, " examples"]:
        chosen = classes_of(network, examples)
        return torch.isin(chosen, torch.tensor(classes, device=chosen.device))

    return score


def classes_of(network: Network, examples: Examples) -> Tensor:
    """The likeliest class of each example.

    Raises:
        BadInput: If the output is not one row of logits for each example.
    """
    found = []
    for batch in batches(network, examples, batch_size=1024):
        with torch.no_grad():
            output = network.apply(network.params, batch)
        if output.ndim != 2:
            raise BadInput(
                f"output of {network.name!r}", got=f"shape {tuple(output.shape)}", wanted="logits [examples, classes]"
            )
        found.append(output.argmax(-1))
    return torch.cat(found)


def matches(pattern: str, *, max_new_tokens: int = 20, temperature: float = 0.0, seed: int = 0) -> Scorer:
    """Whether what the network writes after a prompt has a match of a regular expression.

    Raises:
        BadInput: If it is no regular expression; when scoring, as `generate`.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise BadInput("regular expression", got=repr(pattern), wanted=f"one that can be read ({error})") from None

    def score(network: Network, examples: Examples) -> Bool[Tensor, " examples"]:
        written = generate(network, _texts(examples), max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        return torch.tensor([compiled.search(text) is not None for text in written])

    return score


def _texts(examples: Examples) -> Sequence[str]:
    if isinstance(examples, Tensor):
        raise BadInput("examples", got="a tensor", wanted="texts, which this score needs")
    return examples


def checked(scorer: Scorer, network: Network, examples: Examples) -> Shaped[Tensor, " examples"]:
    """What a scorer gives, if it is a number for each example.

    Raises:
        BadInput: If it is not, or one is not finite.
    """
    found = torch.as_tensor(scorer(network, examples)).cpu()
    if found.shape != (len(examples),):
        raise BadInput(
            "score", got=f"shape {tuple(found.shape)}", wanted=f"one number for each of {len(examples)} examples"
        )
    if found.dtype != torch.bool and not bool(found.double().isfinite().all()):
        raise BadInput("score", got="numbers that are not finite", wanted="finite numbers")
    return found

"""What a user would try before editing a direction: say it in the prompt, or train a small edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.edit import Affine
from tremorscope.instruments.language.encode import last_positions, token_rows
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.instruments.task import Batch
from tremorscope.methods.activations.concept_editing.examples import Examples, batches, recorded_rows
from tremorscope.methods.activations.concept_editing.scorers import Scorer

BEFORE = "."  # a text that no tokenizer joins with a word behind a blank
BatchLoss = Callable[[Tensor, Batch, Tensor], Tensor]


def instructed(scorer: Scorer, instruction: str) -> Scorer:
    """A score of the same prompts behind an instruction.

    Raises:
        BadInput: If the instruction is empty; when scoring, if examples are no texts.
    """
    if not instruction:
        raise BadInput("instruction", got="nothing", wanted="text to put before each prompt")

    def score(network: Network, examples: Examples) -> Tensor:
        if isinstance(examples, Tensor):
            raise BadInput("examples", got="a tensor", wanted="texts, to put an instruction before")
        return scorer(network, [instruction + text for text in examples])

    return score


@final
@dataclass(frozen=True, kw_only=True)
class TrainedEdit:
    """An affine edit of low rank found by gradient descent, with the loss at its start and end."""

    edit: Affine
    first_loss: float
    last_loss: float


def train_edit(
    network: Network,
    examples: Examples,
    site: str | Site,
    loss: BatchLoss,
    *,
    rank: int = 1,
    num_steps: int = 60,
    batch_size: int = 32,
    lr: float = 0.05,
    seed: int = 0,
) -> TrainedEdit:
    """The affine edit x + left right^T x + shift with which a loss is smallest, by Adam through the frozen network.

    `left` and `shift` start at zero, so the network starts unedited; `right` starts random. Both are in units of a
    typical entry of the activations, and so is `lr`.

    Args:
        network: Any network through which gradients flow.
        examples: To train on.
        site: Where the edit is made.
        loss: A scalar of the network's output, the batch, and the places of its examples among all.
        rank: Columns of `left` and `right`.
        num_steps: Updates.
        batch_size: Examples of an update.
        lr: Of Adam.
        seed: Names the draws.

    Cost: `num_steps` forward and backward passes over a batch, and a forward pass over all examples.

    Raises:
        BadInput: If a number is out of range, or the loss stops being finite.
    """
    if rank < 1 or num_steps < 1 or not lr > 0:
        raise BadInput("training of an edit", got=f"rank {rank}, {num_steps} steps, lr {lr}", wanted="positive numbers")
    values = torch.cat(list(recorded_rows(network, examples, site))).double()
    width, typical = values.shape[-1], max(float(values.pow(2).mean().sqrt()), torch.finfo(torch.float32).tiny)
    stream = generator(seed, "trained edit")
    right = torch.randn(width, rank, generator=stream) / (typical * width**0.5)
    leaves = [one.to(network.device).requires_grad_() for one in (torch.zeros(width, rank), torch.zeros(width))]
    right = right.to(network.device).requires_grad_()
    optimiser = torch.optim.Adam([{"params": leaves, "lr": lr}, {"params": [right], "lr": lr / typical}])
    losses = []
    for _ in range(num_steps):
        chosen = torch.randperm(len(examples), generator=stream)[:batch_size]
        some: Examples = examples[chosen] if isinstance(examples, Tensor) else [examples[i] for i in chosen.tolist()]
        (batch,) = batches(network, some, batch_size=len(chosen))
        edited = network.with_edits(_edit(leaves, right, typical).at(site))
        value = loss(edited.apply(edited.params, batch), batch, chosen)
        if not bool(value.isfinite()):
            raise BadInput("loss of a trained edit", got=float(value), wanted="a finite number", remedy="Lower lr.")
        every = [*leaves, right]
        for leaf, gradient in zip(every, torch.autograd.grad(value, every), strict=True):
            leaf.grad = gradient
        optimiser.step()
        losses.append(float(value.detach()))
    edit = _edit([leaf.detach() for leaf in leaves], right.detach(), typical)
    return TrainedEdit(edit=edit, first_loss=losses[0], last_loss=losses[-1])


def next_word_loss(network: Network, wanted: Sequence[str], others: Sequence[str]) -> BatchLoss:
    """Makes texts go on with some words and not with others: the logistic loss of their log-odds (first tokens only).

    Raises:
        BadInput: If a word is missing on one side, or the network has no tokenizer.
    """
    if not wanted or not others:
        raise BadInput("words to go on with", got="none on one side", wanted="at least one on each")
    # Behind a text, as some tokenizers begin every text with a token of their own.
    before = len(token_rows(network, [BEFORE])[0])
    first = [
        [row[before] for row in token_rows(network, [BEFORE + word for word in some])] for some in (wanted, others)
    ]
    if set(first[0]) & set(first[1]):
        raise BadInput(
            "words to go on with", got="the same first token on both sides", wanted="words that differ there"
        )

    def loss(output: Tensor, batch: Batch, places: Tensor) -> Tensor:
        logits = output[torch.arange(len(output), device=output.device), last_positions(batch)]
        return torch.nn.functional.softplus(logits[:, first[1]].logsumexp(1) - logits[:, first[0]].logsumexp(1)).mean()

    return loss


def _edit(leaves: Sequence[Tensor], right: Tensor, typical: float) -> Affine:
    left, shift = leaves
    return Affine(typical * left, right, None, typical * shift)

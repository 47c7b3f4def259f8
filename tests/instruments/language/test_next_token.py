"""Prompts with one wanted token each: against scoring, against dense autograd, and what is refused."""

from __future__ import annotations

import pytest
import torch

from tests.instruments.language.tiny_models import gpt2, llama, tiny_tokenizer
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.language.next_token import kinds_of_token, next_token_batch, next_token_cross_entropy
from tremorscope.instruments.language.scoring import continuation_log_probs
from tremorscope.instruments.losses import cross_entropy
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import GaussNewton, Hessian
from tremorscope.instruments.task import Task
from tremorscope.methods.weights.hessian_modules.objectives import Objective

PROMPTS = ("one two three", "four", "five six seven eight nine")
AFTER = (" four", " ten", " one two")


@pytest.mark.parametrize("family", [gpt2, llama])
def test_the_loss_is_the_surprise_that_scoring_finds(family):
    network = Network(family(), tokenizer=tiny_tokenizer())
    batch = next_token_batch(network, PROMPTS, AFTER)
    output = network.apply(network.theta, batch)
    assert output.shape[:2] == (3, 1)  # the head was computed at the last position alone
    wanted = -continuation_log_probs(network, PROMPTS, [" four", " ten", " one"]).mean()
    torch.testing.assert_close(next_token_cross_entropy(output, batch.target), wanted)


def test_a_prompt_does_not_feel_its_neighbours():
    network = Network(gpt2(), tokenizer=tiny_tokenizer())
    together = network.apply(network.theta, next_token_batch(network, PROMPTS, AFTER))
    for row, prompt, after in zip(together, PROMPTS, AFTER, strict=True):
        alone = network.apply(network.theta, next_token_batch(network, [prompt], [after]))
        torch.testing.assert_close(row, alone[0])


@pytest.mark.parametrize("operator", [Hessian, GaussNewton])
def test_the_curvature_of_one_block_is_that_of_dense_autograd(operator):
    network = Network(gpt2(), tokenizer=tiny_tokenizer(), dtype=torch.float64)
    batch = next_token_batch(network, PROMPTS, AFTER)
    pattern = "transformer.h.1.ln_*"
    names = network.layout.select(pattern)
    view = Objective.of("all", network, batch, loss=next_token_cross_entropy).network
    found = operator(view, batch, parameters=pattern).dense()

    def loss(part):
        values = dict(network.params)
        sizes = [values[name].numel() for name in names]
        values |= {n: p.view_as(values[n]) for n, p in zip(names, part.split(sizes), strict=True)}
        return values

    start = torch.cat([network.params[name].reshape(-1) for name in names])
    if operator is Hessian:
        exact = torch.autograd.functional.hessian(
            lambda part: next_token_cross_entropy(network.apply(loss(part), batch), batch.target), start
        )
    else:
        jacobian = torch.autograd.functional.jacobian(lambda part: network.apply(loss(part), batch)[:, -1], start)
        probabilities = network.apply(network.theta, batch)[:, -1].softmax(-1)
        inner = torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None, :]
        exact = torch.einsum("bvi,bvw,bwj->ij", jacobian, inner, jacobian) / len(PROMPTS)
    assert float((found - exact).norm() / exact.norm()) < 1e-10


@pytest.mark.parametrize(
    ("prompts", "after", "message"),
    [
        (PROMPTS, AFTER[:2], "continuations: got 2; wanted one for each of 3 prompts"),
        (PROMPTS, (" four", "", " one"), "continuation '' of 'four': got no token of its own"),
        (("one two", "four"), (" four", "teen"), "got tokens that are not those of the prompt first"),
    ],
)
def test_what_does_not_continue_is_refused(prompts, after, message):
    with pytest.raises(BadInput, match=message):
        next_token_batch(Network(gpt2(), tokenizer=tiny_tokenizer()), prompts, after)


def test_kinds_are_compared_by_all_their_words():
    # The likeliest single word is of the second kind; all words of the first together are likelier.
    logits = torch.tensor([[[1.0, 1.0, 1.2, 5.0]]]).repeat(2, 1, 1)
    score = kinds_of_token([0, 1], [2])
    assert score(logits, torch.tensor([1, 1])) == 1.0
    assert score(logits, torch.tensor([2, 0])) == 0.5
    with pytest.raises(BadInput, match="targets: got a token of no kind"):
        score(logits, torch.tensor([3, 0]))


@pytest.mark.parametrize("kinds", [((0, 1),), ((0, 1), ()), ((0, 1), (1, 2))])
def test_kinds_must_differ(kinds):
    with pytest.raises(BadInput, match="kinds of tokens"):
        kinds_of_token(*kinds)


def test_the_last_position_counts():
    output = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 1, 2, 3])
    torch.testing.assert_close(next_token_cross_entropy(output, target), cross_entropy(output[:, 2], target))
    assert Task.of(output, target, loss=next_token_cross_entropy).loss is next_token_cross_entropy

"""Prompts with a right and a wrong next word: against scoring, against dense autograd, and what is refused."""

from __future__ import annotations

import pytest
import torch

from tests.instruments.language.tiny_models import gpt2, llama, tiny_tokenizer
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.language.contrast import contrast_batch, contrast_loss, contrast_score
from tremorscope.instruments.language.scoring import score_options
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import GaussNewton, Hessian
from tremorscope.methods.weights.hessian_modules.objectives import Objective

PROMPTS = ("one two three", "four", "five six seven eight nine")
RIGHT = (" four", " ten", " one two")
WRONG = (" five", " one", " ten")


@pytest.mark.parametrize("family", [gpt2, llama])
def test_loss_and_score_are_those_of_scored_options(family):
    network = Network(family(), tokenizer=tiny_tokenizer())
    batch = contrast_batch(network, PROMPTS, RIGHT, WRONG)
    output = network.apply(network.theta, batch)
    assert output.shape[:2] == (3, 1)  # the head was computed at the last position alone
    told = score_options(network, PROMPTS, [(" four", " five"), (" ten", " one"), (" one", " ten")]).log_probs
    torch.testing.assert_close(contrast_loss(output, batch.target), -told.log_softmax(1)[:, 0].mean())
    assert contrast_score(output, batch.target) == pytest.approx(float((told[:, 0] > told[:, 1]).double().mean()))
    other_way = contrast_batch(network, PROMPTS, WRONG, RIGHT)
    assert contrast_score(output, other_way.target) == pytest.approx(1 - contrast_score(output, batch.target))


def test_a_prompt_does_not_feel_its_neighbours():
    network = Network(gpt2(), tokenizer=tiny_tokenizer())
    together = network.apply(network.theta, contrast_batch(network, PROMPTS, RIGHT, WRONG))
    for row, prompt, right, wrong in zip(together, PROMPTS, RIGHT, WRONG, strict=True):
        alone = network.apply(network.theta, contrast_batch(network, [prompt], [right], [wrong]))
        torch.testing.assert_close(row, alone[0])


@pytest.mark.parametrize("operator", [Hessian, GaussNewton])
def test_the_curvature_of_one_block_is_that_of_dense_autograd(operator):
    network = Network(gpt2(), tokenizer=tiny_tokenizer(), dtype=torch.float64)
    batch = contrast_batch(network, PROMPTS, RIGHT, WRONG)
    pattern = "transformer.h.1.ln_*"
    names = network.layout.select(pattern)
    view = Objective.of("all", network, batch, loss=contrast_loss).network
    found = operator(view, batch, parameters=pattern).dense()

    def loss(part):
        values = dict(network.params)
        sizes = [values[name].numel() for name in names]
        values |= {n: p.view_as(values[n]) for n, p in zip(names, part.split(sizes), strict=True)}
        return values

    start = torch.cat([network.params[name].reshape(-1) for name in names])
    if operator is Hessian:
        exact = torch.autograd.functional.hessian(
            lambda part: contrast_loss(network.apply(loss(part), batch), batch.target), start
        )
    else:

        def lead(part):
            chosen = network.apply(loss(part), batch)[:, -1].gather(1, batch.target)
            return chosen[:, 0] - chosen[:, 1]

        jacobian = torch.autograd.functional.jacobian(lead, start)
        probability = lead(start).sigmoid()
        exact = (jacobian * (probability * (1 - probability))[:, None]).T @ jacobian / len(PROMPTS)
    assert float((found - exact).norm() / exact.norm()) < 1e-10


@pytest.mark.parametrize(
    ("prompts", "right", "message"),
    [
        (PROMPTS, RIGHT[:2], "continuations: got 2 and 3; wanted one of each for 3 prompts"),
        (PROMPTS, (" four", "", " one"), "continuation '' of 'four': got no token of its own"),
        (("one two", "four", "five"), (" four", "teen", " one"), "got tokens that are not those of the prompt first"),
        (PROMPTS, (" four", " ten", " ten"), "continuations ' ten' and ' ten' of .*: got the same first token"),
    ],
)
def test_what_does_not_continue_is_refused(prompts, right, message):
    with pytest.raises(BadInput, match=message):
        contrast_batch(Network(gpt2(), tokenizer=tiny_tokenizer()), prompts, right, WRONG)


def test_the_last_position_counts():
    output = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4]])
    torch.testing.assert_close(contrast_loss(output, target), contrast_loss(output[:, 2:], target))
    alone = torch.stack([output[i, 2, target[i]].log_softmax(0)[0] for i in range(4)])
    torch.testing.assert_close(contrast_loss(output, target), -alone.mean())

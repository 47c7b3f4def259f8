"""Continuations under edits: as likely as when the model is made to write them, token by token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.instruments.activations.engine_networks import vector
from tests.instruments.language.tiny_models import tiny
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.edit import Add, Replace
from tremorscope.instruments.language import generation
from tremorscope.instruments.language.encode import token_rows
from tremorscope.instruments.language.generation import generate
from tremorscope.instruments.language.scoring import (
    all_hidden_states,
    continuation_log_probs,
    next_token_logits,
    says,
    score_options,
)
from tremorscope.instruments.network import Network

PROMPTS = ["one two three", "five six seven eight", "nine ten", "four five six seven"]
CONTINUATIONS = [" four one", " two", " six six five nine", " three eight ten"]
STEER = Add(vector(16), 3.0)
POSITIONS = ("generated", "prompt", "last", "all", "3", "-2", "4:", "-1:", ":4")


def forced(network: Network, prompt: str, continuation: str, monkeypatch: pytest.MonkeyPatch) -> tuple[float, bool]:
    """Log-probability of the words that a model is made to write, and whether it would have done so by itself."""
    start = len(token_rows(network, [prompt])[0])
    tokens = token_rows(network, [prompt + continuation])[0][start:]
    told: list[Tensor] = []

    def next_word(self: Any, logits: Tensor, temperature: float) -> Tensor:
        told.append(logits[0].float().log_softmax(-1))
        return torch.tensor([tokens[len(told) - 1]])

    with monkeypatch.context() as patched:
        patched.setattr(generation._Writer, "_chosen", next_word)
        generate(network, [prompt], max_new_tokens=len(tokens))
    assert len(told) == len(tokens)
    total = sum(float(one[token]) for one, token in zip(told, tokens, strict=True))
    return total, all(int(one.argmax()) == token for one, token in zip(told, tokens, strict=True))


FEW = [("gpt2", "generated"), ("llama", "generated"), ("mamba", "generated"), ("gpt2", "last"), ("llama", "-2")]
REST = [(name, at) for name in ("gpt2", "llama", "mamba", "rwkv") for at in POSITIONS if (name, at) not in FEW]


@pytest.mark.parametrize(("name", "position"), [*FEW, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in REST)])
def test_a_continuation_is_as_likely_as_when_it_is_written(
    name: str, position: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tiny(name)
    view = network.with_edits(STEER.at(f"acts:resid_post.0@{position}"))
    found = continuation_log_probs(view, PROMPTS, CONTINUATIONS, batch_size=3)
    pairs = list(zip(PROMPTS, CONTINUATIONS, strict=True))
    expected = [forced(view, *pair, monkeypatch) for pair in pairs]
    torch.testing.assert_close(found, torch.tensor([one for one, _ in expected]), rtol=1e-4, atol=1e-4)
    assert says(view, PROMPTS, CONTINUATIONS).tolist() == [said for _, said in expected]
    alone = torch.cat([continuation_log_probs(view, [prompt], [more]) for prompt, more in pairs])
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)
    moved = (found - continuation_log_probs(network, PROMPTS, CONTINUATIONS)).abs()
    assert moved.max() > 0.1
    if position == "generated":  # a single token is predicted before anything was written
        assert moved[1] < 1e-5  # rounding: edited texts may be read in other batches
        assert moved[[0, 2, 3]].min() > 0.01


def test_options_are_scored_under_edits_of_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny("gpt2")
    for position in ("generated", "-1:", "last"):
        view = network.with_edits(STEER.at(f"acts:resid_post.0@{position}"))
        for options in ((" one", " two"), (" one", " two six")):
            scores = score_options(view, PROMPTS, [options] * len(PROMPTS))
            for place, option in enumerate(options):
                expected = [forced(view, prompt, option, monkeypatch)[0] for prompt in PROMPTS]
                torch.testing.assert_close(scores.log_probs[:, place], torch.tensor(expected), rtol=1e-4, atol=1e-4)
    plain = score_options(network, PROMPTS, [(" one", " two")] * 4).log_probs
    assert (score_options(view, PROMPTS, [(" one", " two")] * 4).log_probs - plain).abs().max() > 0.1


def test_nothing_is_written_yet_after_a_prompt() -> None:
    view = tiny("gpt2").with_edits(STEER.at("acts:resid_post.0@generated"))
    with pytest.raises(BadInput, match=r"got a plain forward pass over prompts.*score_options\(\.\.\.\)"):
        next_token_logits(view, PROMPTS)


@pytest.mark.parametrize(
    "placed",
    [
        Replace(torch.ones(4, 16)).at("acts:resid_post.0@last"),
        STEER.at("acts:resid_post.0", where=torch.tensor([1, 0, 0, 0])),
    ],
)
def test_edits_of_rows_are_refused_since_texts_are_sorted(placed: Any) -> None:
    view = tiny("gpt2").with_edits(placed)
    calls = (
        lambda: next_token_logits(view, PROMPTS),
        lambda: continuation_log_probs(view, PROMPTS, CONTINUATIONS),
        lambda: score_options(view, PROMPTS, [(" one", " two")] * 4),
        lambda: all_hidden_states(view, PROMPTS),
    )
    for call in calls:
        with pytest.raises(BadInput, match="got a mask or values for the rows of one batch"):
            call()

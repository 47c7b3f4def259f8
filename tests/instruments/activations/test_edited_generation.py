"""Edits while a text is written: the same with a memory and without, padded or alone."""

from __future__ import annotations

import pytest
import torch

from tests.instruments.activations.engine_networks import vector
from tests.instruments.language.tiny_models import tiny
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.named_edits import directional_ablate
from tremorscope.instruments.edit import Add, Replace
from tremorscope.instruments.language import generation
from tremorscope.instruments.language.encode import encode, token_rows
from tremorscope.instruments.language.generation import generate
from tremorscope.instruments.language.scoring import next_token_logits
from tremorscope.instruments.task import Batch

PROMPTS = ["one two three", "five six seven eight", "nine ten", "four five six seven"]
STEER = Add(vector(16), 3.0)
# Which tokens of a text are meant: a function of their places, and of the prompt's length.
MEANT = {
    "generated": lambda place, prompt: place >= prompt,
    "prompt": lambda place, prompt: place < prompt,
    "last": lambda place, prompt: place == prompt - 1,
    "all": lambda place, prompt: place >= 0,
    "3": lambda place, prompt: place == 3,
    "-2": lambda place, prompt: place == prompt - 2,
    "4:": lambda place, prompt: place >= 4,  # from a place in the prompt on: new tokens too
    ":4": lambda place, prompt: place < 4,  # up to there: no new token
}


def recomputed(network, edit, site, prompt, position, count):
    """The likeliest continuation, every token from a fresh pass over the whole text with the edit at a mask."""
    (tokens,) = token_rows(network, [prompt])
    start = len(tokens)
    for _ in range(count):
        mask = MEANT[position](torch.arange(len(tokens)), start)[None]
        view = network.with_edits(edit.at(site, where=mask))
        token = int(view.apply(view.params, Batch((), {"input_ids": torch.tensor([tokens])}, None))[0, -1].argmax())
        if token == 0:
            break
        tokens.append(token)
    return network.tokenizer.decode([0, 3, *tokens[start:]], skip_special_tokens=True).removeprefix("one")


FEW = [("gpt2", "generated"), ("gpt2", "3"), ("llama", "4:"), ("mamba", "generated"), ("mamba", ":4"), ("rwkv", "last")]
FEW += [("gru", "generated"), ("gru", "-2")]
REST = [(name, at) for name in ("gpt2", "llama", "mamba", "rwkv", "gru") for at in MEANT if (name, at) not in FEW]


@pytest.mark.parametrize(("name", "position"), [*FEW, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in REST)])
def test_positions_are_those_of_the_text_with_a_memory_and_without(name, position, monkeypatch):  # E7
    network = tiny(name)
    edited = network.with_edits(STEER.at(f"acts:resid_post.0@{position}"))
    remembered = generate(edited, PROMPTS, max_new_tokens=5)
    monkeypatch.setattr(generation, "MEMORIES", ())
    assert generate(edited, PROMPTS, max_new_tokens=5) == remembered
    assert remembered == [recomputed(network, STEER, "acts:resid_post.0", one, position, 5) for one in PROMPTS]
    assert [generate(edited, [one], max_new_tokens=5)[0] for one in PROMPTS] == remembered
    if position in ("generated", "all", "4:"):
        assert remembered != generate(network, PROMPTS, max_new_tokens=5)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("site", ["acts:resid_post.0@last", "acts:resid_mid.1@last", "acts:v.1.0@prompt"])
def test_padding_on_either_side_or_none_is_the_same(name, site):  # E6
    network = tiny(name)
    edited = network.with_edits(
        directional_ablate(vector(4 if "llama" in name and "v." in site else 8 if "v." in site else 16)).at(site)
    )
    alone = torch.cat([next_token_logits(edited, [prompt]) for prompt in PROMPTS]).log_softmax(-1)
    assert (alone - next_token_logits(network, PROMPTS).log_softmax(-1)).abs().max() > 1e-3
    for side in ("left", "right"):
        batch = encode(network, PROMPTS, padding_side=side)
        mask = batch.kwargs["attention_mask"]
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        together = edited.apply(edited.params, batch)[torch.arange(len(PROMPTS)), last].log_softmax(-1)
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
        if site.endswith("@last"):
            values = edited.record(site, batch)
            single = torch.cat([edited.record(site, encode(network, [prompt])) for prompt in PROMPTS])
            torch.testing.assert_close(values, single, rtol=0, atol=1e-5)


def test_logits_of_an_edited_view_are_the_models_own():
    # No weight is folded or centred on the way: not even a constant for each row is lost.
    network = tiny("gpt2")
    batch = encode(network, PROMPTS[:1])
    with torch.no_grad():
        wanted = network.module(**batch.kwargs).logits
    edited = network.with_edits(Add(vector(16), 0.0).at("acts:resid_pre.0"))
    assert torch.equal(network.apply(network.params, batch), wanted)
    assert torch.equal(edited.apply(edited.params, batch), wanted)


@pytest.mark.parametrize(
    ("placed", "message"),
    [
        (
            Replace(torch.ones(4, 16)).at("acts:resid_post.0@last"),
            "generation with Replace.*got a mask or values for the rows of one batch",
        ),
        (STEER.at("acts:resid_post.0", where=torch.ones(4)), "Take the texts one by one"),
        (STEER.at("acts:resid_post.0@-5"), "got position -5; wanted a prompt of 5 tokens. The shortest prompt has 3"),
    ],
)
def test_edits_that_do_not_fit_a_text_that_grows(placed, message):
    with pytest.raises(BadInput, match=message):
        generate(tiny("gpt2").with_edits(placed), PROMPTS, max_new_tokens=2)


def test_in_a_plain_pass_nothing_is_generated():
    network = tiny("gpt2").with_edits(STEER.at("acts:resid_post.0@generated"))
    with pytest.raises(BadInput, match=r"got a plain forward pass.*Use generate\(\.\.\.\)"):
        next_token_logits(network, PROMPTS)

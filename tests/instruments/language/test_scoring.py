from __future__ import annotations

import numpy
import pytest
import torch
from torch import nn

from tests.instruments.language.tiny_models import Bigrams, bigrams, tiny, tiny_tokenizer
from tests.instruments.microworld.reference import unchecked
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.language import scoring
from tremorscope.instruments.language.encode import encode
from tremorscope.instruments.language.generation import generate
from tremorscope.instruments.language.scoring import (
    all_hidden_states,
    continuation_log_probs,
    hidden_states,
    next_token_logits,
    pooled_hidden_states,
    row_losses,
    says,
    score_options,
)
from tremorscope.instruments.network import Network
from tremorscope.instruments.recurrent import RecurrentConfig, RecurrentLanguageModel
from tremorscope.instruments.task import Batch

PROMPTS = ["one two three", "four", "five six", "seven eight nine ten eleven", "twelve one"]
CONTINUATIONS = [" four", " five six seven", " one one", " two", " three four five"]
NAMES = ["gpt2", "llama", "mamba", "rwkv"]


def recurrent() -> Network:
    config = RecurrentConfig(vocab_size=15, width=6, hidden_size=6, num_layers=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return Network(RecurrentLanguageModel(config), tokenizer=tiny_tokenizer())


def logits_of(network: Network, text: str) -> torch.Tensor:
    """Every position of one text by itself, no padding."""
    tokens = torch.tensor([network.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        return network.apply(network.params, Batch((), {"input_ids": tokens}, None))[0].float()


def slow_continuation(network: Network, prompt: str, continuation: str) -> tuple[float, bool]:
    start = len(network.tokenizer(prompt)["input_ids"])
    tokens = network.tokenizer(prompt + continuation)["input_ids"]
    told = logits_of(network, prompt + continuation).log_softmax(-1)
    places = range(start, len(tokens))
    total = sum(float(told[place - 1, tokens[place]]) for place in places)
    return total, all(int(told[place - 1].argmax()) == tokens[place] for place in places)


@pytest.mark.parametrize("name", NAMES)
def test_prompts_of_one_token_do_not_feel_each_other(name):
    network = tiny(name, begin=False)
    prompts = ["four", "one", "nine"]
    alone = torch.cat([next_token_logits(network, [prompt]) for prompt in prompts])
    torch.testing.assert_close(next_token_logits(network, prompts), alone, rtol=1e-4, atol=1e-5)
    assert generate(network, prompts, max_new_tokens=4) == [
        generate(network, [prompt], max_new_tokens=4)[0] for prompt in prompts
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_size", [2, 64])
def test_next_tokens_are_those_of_each_prompt_alone(name, batch_size):
    network = tiny(name)
    found = next_token_logits(network, PROMPTS, batch_size=batch_size)
    alone = torch.stack([logits_of(network, prompt)[-1] for prompt in PROMPTS])
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)
    assert found.dtype == torch.float32
    assert alone.std() > 0.1


@pytest.mark.parametrize("network", [*map(tiny, NAMES), recurrent(), tiny("gpt2", pad=False)])
def test_continuations_are_those_of_each_text_alone(network):
    found = continuation_log_probs(network, PROMPTS, CONTINUATIONS, batch_size=3)
    slow = [slow_continuation(network, *pair)[0] for pair in zip(PROMPTS, CONTINUATIONS, strict=True)]
    torch.testing.assert_close(found, torch.tensor(slow), rtol=1e-4, atol=1e-4)
    assert found.std() > 0.1


def test_what_a_network_says_is_what_is_likeliest_at_every_token():
    network = bigrams({3: 4, 4: 5, 5: 6})  # one two three four
    found = says(network, ["one", "one", "one", "two"], [" two three", " two two", " three", " three four"])
    assert found.tolist() == [True, False, False, True]
    drawn = tiny("gpt2")
    best = [drawn.tokenizer.decode([int(logits_of(drawn, prompt)[-1].argmax())]) for prompt in PROMPTS]
    assert says(drawn, PROMPTS, [f" {word}" for word in best]).all()


@pytest.mark.parametrize("last", [" six", " six seven"], ids=["single tokens", "several tokens"])
def test_options_are_scored_like_continuations(last):
    network = tiny("gpt2")
    options = [(" one", " two", last)] * len(PROMPTS)
    found = score_options(network, PROMPTS, options)
    for place in range(3):
        column = [some[place] for some in options]
        alone = continuation_log_probs(network, PROMPTS, column)
        torch.testing.assert_close(found.log_probs[:, place], alone, rtol=1e-4, atol=1e-4)
        assert found.said[:, place].tolist() == says(network, PROMPTS, column).tolist()


def test_single_tokens_take_one_pass(monkeypatch):
    network, seen = tiny("gpt2"), []
    monkeypatch.setattr(
        scoring, "encode", lambda one, texts, **more: (seen.extend(texts), encode(one, texts, **more))[1]
    )
    score_options(network, PROMPTS, [(" one", " two")] * 5)
    assert sorted(seen) == sorted(PROMPTS)
    seen.clear()
    score_options(network, PROMPTS, [(" one", " two three")] * 5)
    assert len(seen) == 10


def test_small_memory_changes_nothing_but_the_batches(monkeypatch):
    network = tiny("gpt2")
    before = continuation_log_probs(network, PROMPTS, CONTINUATIONS), next_token_logits(network, PROMPTS)
    sizes = []
    monkeypatch.setattr(scoring, "LARGEST_LOGITS", 4 * 15)
    monkeypatch.setattr(
        scoring, "encode", lambda one, texts, **more: (sizes.append(len(texts)), encode(one, texts, **more))[1]
    )
    after = continuation_log_probs(network, PROMPTS, CONTINUATIONS), next_token_logits(network, PROMPTS)
    assert max(sizes) <= 4
    assert len(sizes) > 4
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_only_the_asked_positions_go_through_the_head():
    network, shapes = tiny("gpt2"), []
    network.module.lm_head.register_forward_hook(lambda _, __, out: shapes.append(out.shape[1]))
    next_token_logits(network, ["one two three four five six seven"] * 3)
    assert shapes == [1]


@pytest.mark.parametrize("name", NAMES)
def test_rows_lose_what_each_loses_alone(name):
    network = tiny(name)
    rows = numpy.random.default_rng(0).integers(0, 15, (7, 9)).astype(numpy.uint16)
    found = row_losses(network, rows, batch_size=3)
    slow = []
    for row in torch.from_numpy(rows.astype(numpy.int64)):
        with torch.no_grad():
            logits = network.apply(network.params, Batch((), {"input_ids": row[None]}, None))[0]
        slow.append(nn.functional.cross_entropy(logits[:-1].float(), row[1:]))
    torch.testing.assert_close(found, torch.stack(slow), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", [tiny("gpt2"), tiny("llama"), recurrent()])
def test_hidden_states_are_those_at_the_last_token_or_their_mean(network):
    states = all_hidden_states(network, PROMPTS, batch_size=2)
    pooled = all_hidden_states(network, PROMPTS, pooling="mean", batch_size=2)
    assert len(states) == 3
    for place, prompt in enumerate(PROMPTS):
        tokens = torch.tensor([network.tokenizer(prompt)["input_ids"]])
        with torch.no_grad():
            whole = network.module(tokens, output_hidden_states=True).hidden_states
        for layer, state in enumerate(states):
            torch.testing.assert_close(state[place], whole[layer][0, -1], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(pooled[layer][place], whole[layer][0].mean(0), rtol=1e-4, atol=1e-5)
    assert torch.equal(hidden_states(network, PROMPTS, -1), hidden_states(network, PROMPTS, 2))


def test_edited_weights_are_the_ones_that_speak():
    network = bigrams({3: 4})
    silent = network.at(torch.zeros_like(network.theta))
    assert says(network, ["one"], [" two"]).tolist() == [True]
    flat = continuation_log_probs(silent, ["one"], [" two"])
    torch.testing.assert_close(flat, torch.tensor([-numpy.log(15.0)]).float(), rtol=1e-5, atol=0)


def test_bad_input_is_told_in_a_sentence():
    network = tiny("gpt2")
    with pytest.raises(BadInput, match="no token of its own"):
        continuation_log_probs(network, ["one"], [""])
    with pytest.raises(BadInput, match="no token before it"):
        continuation_log_probs(tiny("gpt2", begin=False), ["one"], ["two"])
    with pytest.raises(BadInput, match="got 1 for 2 prompts"):
        says(network, ["one", "two"], [" one"])
    with pytest.raises(BadInput, match="got 2 lists, of 1 or 2, for 2 prompts"):
        score_options(network, ["one", "two"], [(" one",), (" one", " two")])
    with pytest.raises(BadInput, match="got 5; wanted 0 to 2"):
        hidden_states(network, ["one"], 5)
    with pytest.raises(BadInput, match="pooling: got middle; wanted mean or last"):
        unchecked(pooled_hidden_states)(network, ["one"], ["middle"])
    with pytest.raises(BadInput, match="hidden states of 'Bigrams'"):
        all_hidden_states(Network(Bigrams(), tokenizer=tiny_tokenizer()), ["one"])
    with pytest.raises(BadInput, match="at least one row of at least 2 tokens"):
        row_losses(network, numpy.zeros((3, 1), dtype=numpy.int64))
    with pytest.raises(BadInput, match="got float64; wanted integers"):
        row_losses(network, numpy.zeros((3, 4)))
    with pytest.raises(BadInput, match="batch_size: got 0"):
        next_token_logits(network, ["one"], batch_size=0)
    with pytest.raises(BadInput, match="texts: got none"):
        next_token_logits(network, [])

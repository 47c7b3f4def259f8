from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.instruments.language.tiny_models import CONTEXT, VOCABULARY, WORDS, WRITERS, Bigrams, bigrams, tiny
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.language.encode import token_rows
from tremorscope.instruments.language.generation import generate
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

PROMPTS = ["one two three", "four", "five six seven eight", "four five", "nine"]
CHAIN = {place: place + 1 for place in range(3, VOCABULARY - 1)} | {VOCABULARY - 1: 0}  # one two ... twelve <end>


def recomputed(network: Network, prompt: str, count: int) -> str:
    """The likeliest continuation, every token from a fresh pass over all the text before it."""
    (tokens,) = token_rows(network, [prompt])
    start = len(tokens)
    for _ in range(count):
        logits = network.apply(network.params, Batch((), {"input_ids": torch.tensor([tokens])}, None))
        token = int(logits[0, -1].argmax())
        if token == 0:
            break
        tokens.append(token)
    return network.tokenizer.decode([0, 3, *tokens[start:]], skip_special_tokens=True).removeprefix("one")


@pytest.mark.parametrize("name", WRITERS)
def test_greedy_text_is_what_plain_forward_passes_say(name):
    network = tiny(name)
    texts = generate(network, PROMPTS, max_new_tokens=6)
    assert texts == [recomputed(network, prompt, 6) for prompt in PROMPTS]
    assert len(set(texts)) > 1


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("name", WRITERS)
def test_a_text_does_not_depend_on_the_others(name, temperature):
    network = tiny(name)
    together = generate(network, PROMPTS, max_new_tokens=5, temperature=temperature)
    alone = [generate(network, [prompt], max_new_tokens=5, temperature=temperature)[0] for prompt in PROMPTS]
    assert together == alone
    backwards = generate(network, PROMPTS[::-1], max_new_tokens=5, temperature=temperature, batch_size=2)
    assert backwards[::-1] == together


@pytest.mark.parametrize("name", ["gpt2", "mamba", "gru"])
def test_a_token_is_read_once_by_a_model_that_remembers(name, monkeypatch):
    network, read = tiny(name), []
    output = network.output
    monkeypatch.setattr(
        Network,
        "output",
        lambda self, params, batch, **more: (
            read.append(batch.kwargs["input_ids"].shape[1]) or output(params, batch, **more)
        ),
    )
    generate(network, ["one two"], max_new_tokens=4, temperature=9.0, seed=1)
    assert read == [3, 1, 1, 1]


def test_edited_weights_write_other_texts():
    network = tiny("gpt2")
    other = network.at(network.theta + torch.randn(network.layout.size, generator=torch.Generator().manual_seed(0)))
    assert generate(other, PROMPTS, max_new_tokens=5) == [recomputed(other, prompt, 5) for prompt in PROMPTS]
    assert generate(other, PROMPTS, max_new_tokens=5) != generate(network, PROMPTS, max_new_tokens=5)


def test_samples_follow_the_probabilities():
    network = bigrams({})  # every token as likely as any other
    with torch.no_grad():
        network.module.table[3, 4] = 2.0
        network.module.table[3, :3] = -50.0  # no special token
    texts = generate(network, ["one"] * 2000, max_new_tokens=1, temperature=0.5, seed=2, batch_size=500)
    weight = torch.e**4
    expected = weight / (weight + len(WORDS) - 1)
    share = texts.count(" two") / len(texts)
    assert abs(share - expected) < 4 * (expected * (1 - expected) / len(texts)) ** 0.5
    assert {text.strip() for text in texts} == set(WORDS)


def test_seeds_and_repeated_prompts():
    network = tiny("gpt2")
    draw = lambda seed: generate(network, ["one two"] * 6, max_new_tokens=4, temperature=2.0, seed=seed)  # noqa: E731
    state = torch.random.get_rng_state()
    assert draw(0) == draw(0) != draw(1)
    assert len(set(draw(0))) > 3, "a prompt given twice is continued twice"
    assert torch.equal(torch.random.get_rng_state(), state)


def test_where_a_text_ends():
    network = bigrams(CHAIN)
    assert generate(network, ["ten", "one"], max_new_tokens=4) == [" eleven twelve", " two three four five"]
    assert generate(network, ["one"], max_new_tokens=9, stop=" five") == [" two three four"]
    assert generate(network, ["one", "nine"], max_new_tokens=3, stop=["four", " ten"]) == [" two three ", ""]


def test_the_context_may_be_filled_to_the_last():
    network = tiny("gpt2")
    prompt = " ".join(WORDS)  # and the token before it
    room = CONTEXT - len(WORDS)
    assert generate(network, [prompt], max_new_tokens=room) == [recomputed(network, prompt, room)]
    with pytest.raises(
        BadInput,
        match=r"after prompt 1, which begins 'one two.*: got 5 after 13 tokens; wanted at most 4: .* is 16. Sh",
    ):
        generate(network, ["one", prompt], max_new_tokens=room + 1)
    assert len(generate(tiny("mamba"), [prompt], max_new_tokens=CONTEXT)) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens: got 0; wanted at least 1"),
        ({"temperature": -1.0}, "temperature: got -1.0; wanted 0"),
        ({"temperature": float("nan")}, "temperature: got nan"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"stop": ["a", ""]}, "stop: got an empty string"),
        ({"prompts": []}, "texts: got none"),
        (
            {"network": tiny("bert")},
            "generation with 'bert': got BertForMaskedLM, which does not continue text; wanted a",
        ),
        ({"network": Network(Bigrams())}, "tokenizer of 'Bigrams': got none"),
    ],
)
def test_what_cannot_be_written(options, sentence):
    settings = {"network": bigrams(CHAIN), "prompts": ["one"], "max_new_tokens": 2} | options
    with pytest.raises(BadInput, match=sentence):
        generate(settings.pop("network"), settings.pop("prompts"), **settings)


def test_a_module_without_logits():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(VOCABULARY, 3)

        def forward(self, input_ids, attention_mask=None):
            return self.table(input_ids)[:, -1]

    with pytest.raises(BadInput, match=r"output of 'Last': got shape \(1, 3\); wanted logits of shape \(1, 2, vocab"):
        generate(Network(Last(), tokenizer=bigrams({}).tokenizer), ["one"], max_new_tokens=1)

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.instruments.language.tiny_models import CONTEXT, WORDS, Bigrams, tiny, tiny_tokenizer
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.language.encode import context_length, encode, last_positions
from tremorscope.instruments.network import Network

TEXTS = ["one two three", "four", "five six"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", [True, False])
def test_tokens_stand_where_they_should(side, pad):
    network = tiny("gpt2", pad=pad)
    assert (network.tokenizer.pad_token_id is not None) == pad
    batch = encode(network, TEXTS, padding_side=side)
    ids, mask = batch.kwargs["input_ids"], batch.kwargs["attention_mask"]
    assert ids.shape == mask.shape == (3, 4)
    assert {ids.dtype, mask.dtype} == {torch.int64}
    assert [row[keep].tolist() for row, keep in zip(ids, mask.bool(), strict=True)] == [[0, 3, 4, 5], [0, 6], [0, 7, 8]]
    assert mask[1].tolist() == ([0, 0, 1, 1] if side == "left" else [1, 1, 0, 0])
    assert last_positions(batch).tolist() == ([3, 3, 3] if side == "left" else [3, 1, 2])
    assert batch.args == ()
    assert batch.target is None


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_at_the_last_token_are_those_of_the_text_alone(name, side):
    network = tiny(name)
    batch = encode(network, TEXTS, padding_side=side)
    logits = network.apply(network.params, batch)[torch.arange(3), last_positions(batch)]
    alone = [network.apply(network.params, encode(network, [text]))[0, -1] for text in TEXTS]
    torch.testing.assert_close(logits, torch.stack(alone), rtol=1e-4, atol=1e-5)
    assert logits.std() > 0.1, "predictions that differ"


def test_tokens_go_where_the_weights_are_and_nothing_else_is_passed():
    network = Network(Bigrams(), tokenizer=tiny_tokenizer(), device="meta")
    batch = encode(network, TEXTS, padding_side="left")
    assert {value.device.type for value in batch.kwargs.values()} == {"meta"}
    assert set(batch.kwargs) == {"input_ids", "attention_mask"}, "no positions for a module that takes none"
    assert set(encode(tiny("gpt2"), TEXTS).kwargs) == {"input_ids", "attention_mask"}
    assert set(encode(tiny("bert"), TEXTS).kwargs) == {"input_ids", "attention_mask"}


def test_context_of_every_kind():
    assert context_length(tiny("gpt2")) == context_length(tiny("llama")) == CONTEXT
    assert context_length(tiny("mamba")) is None
    assert context_length(Network(Bigrams(), tokenizer=tiny_tokenizer())) is None
    short = tiny_tokenizer()
    short.model_max_length = 5
    assert context_length(Network(tiny("gpt2").module, tokenizer=short)) == 5
    assert context_length(Network(Bigrams(), tokenizer=short)) == 5


@pytest.mark.parametrize(
    ("texts", "options", "sentence"),
    [
        ([], {}, "texts: got none; wanted at least one."),
        ("one", {}, r"texts: got a string; wanted a list of strings. Write \[text\]."),
        (["one", ""], {"begin": False}, "text 1: got '', which has no token; wanted at least one token."),
        (
            ["one", " ".join([*WORDS, *WORDS])],
            {},
            r"text 1, which begins 'one two three.*: got 25 tokens; wanted at most 16, the context of 'gpt2'. Shorten",
        ),
    ],
)
def test_texts_that_cannot_be_encoded(texts, options, sentence):
    with pytest.raises(BadInput, match=sentence):
        encode(tiny("gpt2", **options), texts)


def test_what_else_can_be_missing():
    with pytest.raises(BadInput, match="tokenizer of 'Linear': got none; wanted one that makes tokens"):
        encode(Network(nn.Linear(1, 1)), ["one"])
    with pytest.raises(BadInput, match="padding_side: got top; wanted 'left' or 'right'"):
        encode.__wrapped__(tiny("gpt2"), ["one"], padding_side="top")  # past the test suite's check of types

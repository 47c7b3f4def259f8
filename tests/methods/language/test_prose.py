from __future__ import annotations

import numpy
import pytest

from tests.methods.language.planted import random_gpt2, tokenizer
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld import prose
from tremorscope.methods.language.prose import fit_prose_ngrams, measure_prose, prose_rows


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A small library: the same few words over and over, in every module."""
    folder = tmp_path_factory.mktemp("library")
    for number in range(40):
        text = f"Module {number} is of the garden, and the teacher of module {number} is in the garden. " * 4
        (folder / f"module{number}.py").write_text(f'"""{text}"""\n')
    return folder


def test_rows_stay_within_a_module_and_a_split(root):
    network = random_gpt2(tokenizer())
    parts = {split: prose_rows(network, split, length=16, root=root) for split in ("train", "validation", "test")}
    for split, (rows, modules) in parts.items():
        assert rows.shape == (len(modules), 16)
        assert {piece.module for piece in prose.examples(split, root=root)} == set(modules)
        first = network.tokenizer(prose.examples(split, root=root)[0].text)["input_ids"][:16]
        assert rows[0].tolist() == first
    assert not set(parts["train"][1]) & set(parts["test"][1])


def test_a_random_model_is_no_match_for_counting(root):
    networks = {"one": random_gpt2(tokenizer()), "two": random_gpt2(tokenizer(), seed=1)}
    found = measure_prose(networks, split="validation", count=12, length=16, root=root)
    losses = found["one"]
    assert len(losses.rows) == len(set(losses.rows)) == 12
    assert losses.rows == found["two"].rows
    assert losses.losses["trigram"] == found["two"].losses["trigram"]
    assert losses.losses["model"] != found["two"].losses["model"]
    assert losses.ratio("model", "trigram").low > 10
    assert losses.ratio("trigram", "unigram").high < 1
    assert losses.perplexity("model").value == pytest.approx(numpy.exp(numpy.mean(losses.losses["model"])))


def test_ngrams_are_made_once_for_one_tokenizer(root, monkeypatch):
    made = []
    module = "tremorscope.methods.language.prose.fit_prose_ngrams"
    monkeypatch.setattr(module, lambda network, **given: (made.append(network), fit_prose_ngrams(network, **given))[1])
    one, same = random_gpt2(tokenizer()), random_gpt2(tokenizer(), seed=1)
    other = random_gpt2(tokenizer(size=300))
    measure_prose({"one": one, "same": same, "other": other}, split="validation", count=4, length=16, root=root)
    assert made == [one, other]


def test_rows_that_no_module_fills_are_told(root):
    with pytest.raises(BadInput, match="no module of 5000 tokens"):
        prose_rows(random_gpt2(tokenizer()), "test", length=5000, root=root)

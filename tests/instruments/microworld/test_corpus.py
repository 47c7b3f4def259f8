"""The mixed text: pinned, by weight, in blocks, with nothing held out in it."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld import agreement, calendar, corpus, induction, prose, quiz, requests, stories
from tremorscope.instruments.microworld.corpus import STRANDS, CorpusConfig, Document, block, documents, record

GENERATED = {strand: 1.0 for strand in STRANDS if strand != "prose"}
SMALL = CorpusConfig(characters=24_000, held_out_characters=4_000, weights=GENERATED)
PINNED = {
    "train": "6f14b3ad2ad5ce68ec8b6b7a9d93e4aa557d8795c770032eae57a02356841572",
    "validation": "1004d7918dfe6ac7f0854a895abf3360b85d28c2c98b3c04727b66784d3fff2e",
    "test": "5008667c76c10a5838aba5a63a5c81041c624fa288377654de422c42939016f3",
}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_text_is_pinned(split):
    assert record(documents(SMALL, split)).sha256 == PINNED[split]


@pytest.mark.parametrize(
    ("change", "digest"),
    [
        ({}, "60000a9f9faa3515d8e75b04d0211adf43b756da8c12df2c47a378bec4bd0444"),
        ({"wider": True}, "0f0508ea37ddcfb7f140b3efbd0cc00fe8c6cd6fb60d52ea427b1e1f633fa5ad"),
        ({"wider": True, "strewn": 0.5}, "b3bcd71f126ce5e893c684de7e3bb5c341ef00b5ee3fd06abe8ec9516023865e"),
        (
            {"wider": True, "strewn": 0.5, "scattered": 0.5, "decoys": 0.4},
            "22a1708b1bdfdcd30d3cbc0ab13aba425d08b29f4803c30792c85b5236e1e2f7",
        ),
        (
            {"wider": True, "strewn": 0.5, "scattered": 0.5, "decoys": 0.4, "reckoned": 0.45},
            "3e056ebe27c940bdbe0c8e0ff10b2bdc62f81b1e87a42e364a0d3732a4cb7e02",
        ),
    ],
)
def test_the_text_of_later_stages_is_pinned(change, digest):
    weights = {"calendar": 1.0, "requests": 0.5, "induction": 0.5, "agreement": 0.2}
    config = CorpusConfig(seed=5, characters=60_000, weights=weights, composed=0.7, near=False, **change)
    assert record(documents(config, "train")).sha256 == digest


def test_the_hash_is_over_texts_and_borders():
    one, two = Document("quiz", "ab"), Document("quiz", "c")
    assert record([one, two]).sha256 != record([Document("quiz", "a"), Document("quiz", "bc")]).sha256
    assert record([one, two]) == record([Document("quiz", "ab"), Document("quiz", "c")])


def test_strands_have_their_shares():
    config = dataclasses.replace(SMALL, weights={"calendar": 3, "quiz": 1, "stories": 0})
    found = record(documents(config, "train"))
    assert set(found.characters) == {"calendar", "quiz"}
    # A strand stops at its first document that reaches its share: some 400 characters more at most.
    assert 0 <= found.characters["calendar"] - 18_000 < 400
    assert 0 <= found.characters["quiz"] - 6_000 < 400
    order = [document.strand for document in documents(config, "train")]
    assert order != sorted(order)


def test_blocks_make_the_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corpus, "BLOCK_CHARACTERS", 9_000)
    assert SMALL.num_blocks("train") == 3
    parts = [block(SMALL, "train", index) for index in range(3)]
    assert [document for part in parts for document in part] == list(documents(SMALL, "train"))
    assert not {document.text for document in parts[0]} & {document.text for document in parts[1]}
    with pytest.raises(BadInput, match="block of the corpus: got 3; wanted 0 to 2"):
        block(SMALL, "train", 3)


def test_seeds_and_settings_change_the_text():
    texts = [
        record(documents(dataclasses.replace(SMALL, characters=4_000, **change), "train")).sha256
        for change in ({}, {"seed": 1}, {"correlation": 0.9}, {"hurt_rate": 0.9}, {"decoys": 1.0})
    ]
    assert len(set(texts)) == len(texts)


def test_prose_is_read_through_before_it_comes_again(monkeypatch: pytest.MonkeyPatch):
    found = tuple(
        prose.ProsePiece(text=f"{number:03d}" * 20, module=str(number), split="train") for number in range(50)
    )
    monkeypatch.setattr(corpus.prose, "examples", lambda split: found)
    monkeypatch.setattr(corpus, "BLOCK_CHARACTERS", 1_000)
    corpus._prose_order.cache_clear()
    config = CorpusConfig(characters=7_000, weights={"prose": 1})
    parts = [[document.text for document in block(config, "train", index)] for index in range(7)]
    counts = Counter(text for part in parts for text in part)
    # 3,000 characters are there: read twice, and a third of them once more.
    assert set(counts.values()) == {2, 3}
    assert sum(counts.values()) == 117
    assert parts[0] != parts[3]
    corpus._prose_order.cache_clear()


def test_no_held_out_prompt_is_in_the_training_text():
    text = "\n".join(document.text for document in documents(dataclasses.replace(SMALL, characters=60_000), "train"))
    for strand in (agreement, calendar, requests, stories, quiz, induction):
        held = strand.examples("test", 0, 20, held_out="combinations")
        assert not [
            one.prompt + one.answer for one in held if hasattr(one, "answer") and one.prompt + one.answer in text
        ]
        assert not [one.text for one in held if one.text in text]


def test_held_out_text_has_held_out_wordings():
    text = "\n".join(document.text for document in documents(SMALL, "test"))
    trained = "\n".join(document.text for document in documents(SMALL, "train"))
    for words in ("It seems that ", "We had planted it ", "Person: ", "What they liked best was to "):
        assert words in text
        assert words not in trained


def test_shares_are_scaled():
    assert CorpusConfig().shares() == pytest.approx(dict(corpus.WEIGHTS))
    assert sum(CorpusConfig(weights={"quiz": 3, "prose": 4}).shares().values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"storys": 1.0}}, "Did you mean 'stories'"),
        ({"weights": {"quiz": -1.0}}, "weight of quiz: got -1"),
        ({"weights": {"quiz": float("nan")}}, "weight of quiz: got nan"),
        ({"weights": {"quiz": 0.0}}, "wanted at least one"),
        ({"characters": 0}, "size of the corpus: got 0 and"),
        ({"correlation": 2.0}, "correlation of profession and gender: got 2"),
        ({"hurt_rate": -0.1}, r"hurt_rate: got -0\.1"),
        ({"decoys": 3.0}, "decoys: got 3"),
    ],
)
def test_wrong_configurations_are_refused(change, message):
    with pytest.raises(BadInput, match=message):
        CorpusConfig(**change)

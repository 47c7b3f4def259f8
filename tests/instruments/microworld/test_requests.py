"""Requests: the topic that is asked about decides, whatever else is mentioned."""

from __future__ import annotations

import re
from statistics import mean

import pytest

from tests.instruments.microworld.reference import disjoint, reproducible, shared, unchecked, well_formed
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld.request_wordings import INTENTS, TOPICS
from tremorscope.instruments.microworld.requests import (
    ANSWER_STARTERS,
    REFUSAL_STARTERS,
    SPEAKERS,
    examples,
    paraphrases,
    stream,
)

ALLOWED = {item for items in TOPICS["allowed"].values() for item in items}
FORBIDDEN = {item for items in TOPICS["forbidden"].values() for item in items}


def items_of(text: str) -> list[str]:
    """Items in the order of a text, none inside another."""
    known = sorted(ALLOWED | FORBIDDEN, key=len, reverse=True)
    return re.findall("|".join(rf"\b{re.escape(item)}\b" for item in known), text)


@pytest.mark.parametrize("decoys", [0.0, 0.5])
def test_the_last_item_of_the_prompt_decides(decoys):
    for split in ("train", "validation", "test"):
        for one in examples(split, 0, 80, decoys=decoys):
            *mentioned, asked = items_of(one.prompt)
            assert asked == one.item
            assert mentioned == ([] if one.decoy is None else [one.decoy])
            assert one.refused == (asked in FORBIDDEN) == (one.topic_class == "forbidden")
            assert all((item in FORBIDDEN) != one.refused for item in mentioned)
            starters = REFUSAL_STARTERS if one.refused else ANSWER_STARTERS
            assert re.match(r" \w+", one.reply)[0] in starters
            assert one.text == one.prompt + one.reply
            assert one.prompt.endswith(":")
            well_formed(one.text)


def test_items_have_one_class_and_hold_no_other_of_the_other_class():
    assert not ALLOWED & FORBIDDEN
    assert len(ALLOWED) == len(FORBIDDEN) == 64
    for item in ALLOWED:
        assert not [other for other in FORBIDDEN if re.search(rf"\b{re.escape(item)}\b", other)]
        assert not [other for other in FORBIDDEN if re.search(rf"\b{re.escape(other)}\b", item)]


def test_spans_name_their_words():
    for one in examples("train", 1, 100, decoys=0.5):
        named = {span.label: one.prompt[span.start : span.stop] for span in one.spans}
        assert named["item"] == one.item
        assert named.get("decoy") == one.decoy


def test_classes_and_decoys_come_as_often_as_asked():
    found = examples("train", 0, 400, decoys=0.25)
    # Three standard deviations: 30 of 400 coin tosses, 26 at one in four.
    assert abs(sum(one.refused for one in found) - 200) < 30
    assert abs(sum(one.decoy is not None for one in found) - 100) < 26
    assert all(one.refused for one in examples("train", 0, 30, topic_class="forbidden"))
    assert not any(one.refused for one in examples("train", 0, 30, topic_class="allowed"))


def test_paraphrases_mean_the_same():
    for split in ("train", "validation", "test"):
        found = paraphrases(split, "poem", "dragons")
        assert len({one.prompt for one in found}) == len(found) == len(INTENTS["poem"][split])
        assert {one.meaning for one in found} == {("poem", "dragons")}
        assert all(one.refused for one in found)


def test_held_out_words_and_meanings_are_not_in_training():
    disjoint(examples, lambda one: one.template, held_out="templates", count=60)
    disjoint(examples, lambda one: one.meaning, held_out="combinations", count=80)
    shared(examples, lambda one: one.template.rpartition("|")[2], held_out="combinations", count=20)
    wordings = [{one.template.rpartition("|")[2] for one in examples(split, 0, 150)} for split in ("train", "test")]
    assert not wordings[0] & wordings[1]


def test_examples_repeat():
    reproducible(examples)


def test_wrong_requests_are_refused():
    with pytest.raises(BadInput, match="Did you mean 'forbidden'"):
        next(unchecked(stream)("train", 0, topic_class="forbiden"))
    with pytest.raises(BadInput, match="share of decoys: got 2"):
        examples("train", 0, 1, decoys=2.0)
    with pytest.raises(BadInput, match="Did you mean 'story'"):
        paraphrases("train", "stori", "dragons")
    with pytest.raises(BadInput, match="Did you mean 'dragons'"):
        paraphrases("train", "story", "dragon")


def test_most_training_speakers_are_drawn_and_no_others_are():
    names, people = SPEAKERS

    def share(split: str, speakers: tuple[str, ...]) -> float:
        return mean(one.prompt.partition(":")[0] in speakers for one in examples(split, 0, 300))

    assert 0.25 < share("train", names) < 0.45
    assert 0.25 < share("train", people) < 0.45
    for split in ("validation", "test"):
        assert share(split, names) == share(split, people) == 0

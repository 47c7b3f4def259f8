"""Composed wordings: many, none held out, with the slots that their strand fills, and only where they are asked for."""

from __future__ import annotations

import re
from itertools import islice

import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld import agreement, calendar, induction, requests
from tremorscope.instruments.microworld.composed_statements import composed_statement
from tremorscope.instruments.microworld.composed_wordings import (
    COMMANDS,
    composed_form,
    composed_opener,
    composed_request,
)
from tremorscope.instruments.microworld.corpus import CorpusConfig
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.request_wordings import INTENTS
from tremorscope.instruments.microworld.template import Template

MANY = 3000


@pytest.fixture(scope="module")
def statements():
    draw = Draw(5, "statements")
    return {
        relation: {
            Template("".join(composed_statement(draw, relation, wider=wider)))
            for wider in (False, True)
            for _ in range(MANY)
        }
        for relation in calendar.RELATIONS
    }


@pytest.fixture(scope="module")
def asked():
    draw = Draw(5, "requests")
    return {intent: {composed_request(draw, intent) for _ in range(MANY)} for intent in INTENTS}


@pytest.fixture(scope="module")
def forms():
    draw = Draw(5, "forms")
    return {
        kind: {composed_form(draw, kind, wider=wider) for wider in (False, True) for _ in range(MANY)}
        for kind in induction.KINDS
    }


def test_they_are_many(statements, asked, forms):
    assert all(len(some) > 500 for some in forms.values())
    assert all(len(some) > MANY / 2 for some in statements.values())
    assert all(len(some) > 500 for some in asked.values())


def test_none_is_held_out(statements, asked, forms):
    for kind, some in forms.items():
        for split in ("validation", "test"):
            assert not some & set(induction.FORMS[kind][split])
    for relation, some in statements.items():
        for split in ("validation", "test"):
            assert not some & set(calendar.TEMPLATES[relation][split])
    for intent, some in asked.items():
        for split in ("validation", "test"):
            assert not some & set(INTENTS[intent][split])


def test_openers_of_agreement_are_many_and_none_is_held_out():
    draw = Draw(5, "openers")
    some = {composed_opener(draw) for _ in range(MANY)}
    assert len(some) > 500
    for split in ("validation", "test"):
        assert not some & set(agreement.OPENERS_BY_SPLIT[split])
    assert all(one.slots == {"the", "subject"} for one in some)
    seen = {one.text for one in agreement.OPENERS}
    told = list(islice(agreement.stream("train", 1, composed=0.5), 800))
    openers = [one.template.partition(": ")[2] for one in told]
    assert sum(not any(one.startswith(opener) for opener in seen) for one in openers) / 800 == pytest.approx(
        0.5, abs=0.06
    )
    plain = list(islice(agreement.stream("test", 1), 50))
    assert list(islice(agreement.stream("test", 1, composed=1.0), 50)) == plain


def test_slots_are_those_of_the_strand(statements, asked):
    for some in statements.values():
        assert all(
            {"offset", "units", "start"} <= one.slots <= {"offset", "units", "start", "on", "unit"} for one in some
        )
    assert all(one.slots == {"item"} for some in asked.values() for one in some)


def test_an_ending_tells_nothing():
    """Bodies of the two directions have none in common, though endings have: a body alone tells the answer."""
    draw = Draw(6, "endings")
    told = {
        relation: [composed_statement(draw, relation, wider=True) for _ in range(MANY)]
        for relation in calendar.RELATIONS
    }
    bodies, endings = ({way: {part[place] for part in told[way]} for way in told} for place in (0, 1))
    assert not bodies["after"] & bodies["before"]
    assert len(endings["after"] & endings["before"]) > 50
    for some in told.values():
        assert all({"offset", "units", "start"} <= Template(one.body).slots for one in some)
        assert all(Template(one.ending).slots <= {"on", "unit"} for one in some)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_share_is_that_asked_for_and_answers_stay_right(share):
    seen = {one.text for relation in calendar.RELATIONS for one in calendar.TEMPLATES[relation]["train"]}
    some = list(islice(calendar.stream("train", 1, composed=share), 800))
    assert sum(one.template not in seen for one in some) / 800 == pytest.approx(share, abs=0.05)
    for one in some:
        step = one.offset if one.relation == "after" else -one.offset
        assert one.answer == " " + calendar.NAMES[one.unit][(one.start + step) % len(calendar.NAMES[one.unit])]
    forms = {"|".join(form) for by_split in induction.FORMS.values() for form in by_split["train"]}
    copied = list(islice(induction.stream("train", 1, composed=share), 800))
    assert sum(one.template not in forms for one in copied) / 800 == pytest.approx(share, abs=0.05)
    assert all(one.answer == f" {one.words[one.known]}" for one in copied)
    wordings = {one.text for by_split in INTENTS.values() for one in by_split["train"]}
    told = list(islice(requests.stream("train", 1, composed=share), 800))
    assert sum(one.template.split("|")[2] not in wordings for one in told) / 800 == pytest.approx(share, abs=0.05)


def test_wider_wordings_are_of_more_kinds_and_answers_stay_right():
    some = list(islice(calendar.stream("train", 1, composed=1.0, wider=True), 800))
    told = [one for one in some if re.search(r"\b(crossed out|took off|Counting|called out|preceding)\b", one.template)]
    assert len(told) > 10
    plain = islice(calendar.stream("train", 1, composed=1.0), 800)
    assert not any("crossed out" in one.text for one in plain)
    for one in some:
        step = one.offset if one.relation == "after" else -one.offset
        assert one.answer == " " + calendar.NAMES[one.unit][(one.start + step) % len(calendar.NAMES[one.unit])]
    copied = list(islice(induction.stream("train", 1, kind="copy", composed=1.0, wider=True), 300))
    assert sum(":" not in one.text and one.text.startswith(COMMANDS) for one in copied) > 10


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_examples_have_none(split):
    copied = list(islice(induction.stream(split, 1), 50))
    assert list(islice(induction.stream(split, 1, composed=1.0), 50)) == copied
    plain = list(islice(calendar.stream(split, 1), 50))
    assert list(islice(calendar.stream(split, 1, composed=1.0), 50)) == plain
    asked = list(islice(requests.stream(split, 1), 50))
    assert list(islice(requests.stream(split, 1, composed=1.0), 50)) == asked


def test_without_them_the_text_is_as_before():
    assert list(islice(calendar.stream("train", 2, composed=0.0), 50)) == calendar.examples("train", 2, 50)
    with pytest.raises(BadInput, match=r"composed: got 1\.5; wanted 0 to 1"):
        CorpusConfig(composed=1.5)

"""Reckoned statements: many, none held out, and no direction has a word of the other."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import pytest

from tests.instruments.microworld.reference import well_formed
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld import calendar
from tremorscope.instruments.microworld.corpus import CorpusConfig
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.lexicon import NOUNS
from tremorscope.instruments.microworld.reckoned_statements import KINDS, _two, reckoned_statement
from tremorscope.instruments.microworld.reckoned_wordings import NAMING
from tremorscope.instruments.microworld.template import Template

MANY = 3000
# Read by eye: words that say which way. Nothing of one direction has a word of the other.
WAYS = {
    "after": "|".join(
        (
            r"later|afterwards|thereafter|past|onwards|forward|more|another|adds?|added|adding|puts? on|on top|put off",
            r"increase[sd]?|append(?:s|ed)?|late|delayed|delay|postponed|longer|proceeds?|proceeded|slipped|followed",
            r"lets? n n (?:pass|go by)|advance[sd]? by|includes?|included|counts? up|counted up|kept waiting",
            r"n n ahead(?! of)",
        )
    ),
    "before": "|".join(
        (
            r"earlier|sooner|beforehand|previously|backwards?|ago|back|less|subtract(?:s|ed)?|early|soon|prior",
            r"tak(?:es?|ing) (?:off|away)|took (?:off|away)|deduct(?:s|ed)?|removes?|removed|decrease[sd]?|in advance",
            r"drops?|dropped|undo(?:es)?|undid|rewinds?|rewound|preceded|ahead of|strikes? off|struck off|cuts? off",
            r"moved up|return(?:s|ed)? by|(?:takes?|taking|took) n n from|to the left",
        )
    ),
}
# These tell it too, but stand in statements of the other direction as well.
WEAKER = {
    "after": r"after|since|from|on|in n n|once n n|when n n|waits?|waited|stays?|stayed|needs?|needed|took",
    "before": r"before|until|after n n|had taken|to be done|counts? down|counted down|off",
}


@pytest.fixture(scope="module")
def statements():
    draw = Draw(5, "reckoned")
    return {relation: [reckoned_statement(draw, relation) for _ in range(MANY)] for relation in calendar.RELATIONS}


def test_they_are_many_and_none_is_held_out(statements):
    for relation, some in statements.items():
        wordings = {Template("".join(one)) for one in some}
        assert len(wordings) > 0.8 * MANY
        for split in ("validation", "test"):
            assert not wordings & set(calendar.TEMPLATES[relation][split])


def test_the_body_alone_tells_the_answer(statements):
    bodies = {relation: {one.body for one in some} for relation, some in statements.items()}
    assert not bodies["after"] & bodies["before"]
    for some in statements.values():
        for body, ending in some:
            assert {"start"} <= Template(body).slots <= {"offset", "units", "start", "on", "unit"}
            assert len(re.findall(r"{[Oo]ffset}", body)) == len(re.findall("{units}", body)) == 1, body
            assert len(re.findall(r"{[Ss]tart}", body)) == 1, body
            assert Template(ending).slots <= {"on", "unit"}


@pytest.mark.parametrize("relation", calendar.RELATIONS)
def test_no_word_of_the_other_direction_is_there(statements, relation):
    (other,) = set(WAYS) - {relation}
    told: Counter[bool] = Counter()
    named = {
        one.replace("<long>", "{offset} {units}").replace("<Long>", "{Offset} {units}") for one in NAMING[relation]
    }
    for body, _ in statements[relation]:
        if body in named:  # "Monday comes two days before" tells of Wednesday
            continue
        short = re.sub("{[Oo]ffset} {units}", "n n", body).lower()
        found = re.findall(rf"\b(?:{WAYS[other]})\b", short)
        assert not found, (found, body)
        assert re.search(rf"\b(?:{WAYS[relation]}|{WEAKER[relation]})\b", short), body
        told[bool(re.search(rf"\b(?:{WAYS[relation]})\b", short))] += 1
    assert told[True] / MANY > 0.4


@pytest.mark.parametrize("relation", calendar.RELATIONS)
@pytest.mark.parametrize("kind", dict.fromkeys(KINDS))
def test_a_statement_reads_like_one(kind, relation):
    draw = Draw(7, "sentences", relation)
    for combination in list(calendar.combinations())[::40]:
        if combination[1] != relation:
            continue
        body, ending = (part.replace("<long>", "{offset} {units}") for part in kind(draw, relation))
        one = calendar.statement(combination, Template(body.replace("<Long>", "{Offset} {units}")), Template(ending))
        well_formed(one.text)
        assert one.text[0].isupper()
        assert not set("<>") & set(one.text)
        assert one.told <= len(one.prompt)
        assert not re.search(r"\b(?:we|they|you|I) (?:is|was)\b|\b(?:these|those) \w+s (?:is|was|has)\b", one.text)


def test_several_subjects_agree_with_what_they_do():
    """No plural noun of the lexicon stands before a form of one subject, nor the other way round."""
    draw = Draw(8, "two")
    many = "|".join(noun.plural for noun in NOUNS if noun.plural != noun.singular)
    one = "|".join(noun.singular for noun in NOUNS if noun.plural != noun.singular)
    for _ in range(MANY):
        body = _two(draw, "after").body
        assert not re.search(rf"\b(?:{many}) (?:is|was|has)\b", body), body
        assert not re.search(rf"\b(?:{one}) (?:are|were|have)\b", body), body


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_share_is_that_asked_for(share, monkeypatch: pytest.MonkeyPatch):
    calls = 0

    def counted(*given):
        nonlocal calls
        calls += 1
        return reckoned_statement(*given)

    monkeypatch.setattr(calendar, "reckoned_statement", counted)
    some = list(islice(calendar.stream("train", 1, composed=1.0, reckoned=share), 800))
    assert calls / 800 == pytest.approx(share, abs=0.05)
    for one in some:
        step = one.offset if one.relation == "after" else -one.offset
        assert one.answer == " " + calendar.NAMES[one.unit][(one.start + step) % len(calendar.NAMES[one.unit])]


def test_held_out_statements_have_none():
    plain = list(islice(calendar.stream("test", 1), 50))
    assert list(islice(calendar.stream("test", 1, composed=1.0, reckoned=1.0), 50)) == plain
    with pytest.raises(BadInput, match=r"reckoned: got 2; wanted 0 to 1"):
        CorpusConfig(reckoned=2)

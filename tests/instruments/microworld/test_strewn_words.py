"""Strewn words: any, and none that tells a direction or is rude; what tells the answer stays."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from itertools import islice

import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld import calendar, induction, requests
from tremorscope.instruments.microworld.composed_statements import Wording, composed_statement
from tremorscope.instruments.microworld.composed_wordings import composed_mention
from tremorscope.instruments.microworld.corpus import CorpusConfig, documents
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.strewn_words import (
    ENDINGS,
    ONSETS,
    OTHERS,
    RIMES,
    SMALL,
    any_word,
    scattered_request,
    scattered_statement,
    strewn_form,
    strewn_mention,
    strewn_request,
    strewn_statement,
)
from tremorscope.instruments.microworld.template import Template

MANY = 2000
NAMES = [rf"\b{name}\b" for some in calendar.NAMES.values() for name in some]
DIRECTIONS = re.compile(
    r"after|before|later|earlier|sooner|ahead|back|backwards?|forwards?|onwards?|past|ago|since|until|plus|minus|next|last"
)


def test_words_are_known_small_or_made_up():
    draw = Draw(0, "words")
    some = [any_word(draw) for _ in range(MANY)]
    known = [word in OTHERS for word in some]
    small = [word in SMALL for word in some]
    assert 0.2 < sum(known) / MANY < 0.35
    assert 0.45 < sum(small) / MANY < 0.55
    made_up = {word for word, *kinds in zip(some, known, small, strict=True) if not any(kinds)}
    assert len(made_up) > 400


@pytest.fixture(scope="module")
def made_up():
    """Every word that can be made up."""
    syllables = [onset + rime for onset in ONSETS for rime in RIMES]
    return {one + two + ending for one, two in itertools.product(syllables, ("", *syllables)) for ending in ENDINGS}


def test_no_word_tells_a_direction_a_number_or_a_name(made_up):
    names = {name.lower() for some in calendar.NAMES.values() for name in some}
    for some in (SMALL, OTHERS, made_up):
        assert not [word for word in some if DIRECTIONS.fullmatch(word)]
        assert not {word.lower() for word in some} & {*names, *calendar.NUMBERS}


def test_no_made_up_word_is_rude(made_up):
    assert len(made_up) > 1_000_000
    assert not made_up & {"hell", "damn", "arse", "crap", "shit", "piss", "tit", "cock", "dick"}


@pytest.mark.parametrize("relation", calendar.RELATIONS)
def test_the_words_of_a_statement_stay_in_their_order(relation):
    draw = Draw(1, "statements", relation)
    changed = 0
    for _ in range(300):
        wording = composed_statement(draw, relation, wider=True)
        strewn = strewn_statement(draw, wording)
        kept = iter(re.findall(r"[\w{}']+", strewn.body.lower()))
        wanted = re.findall(r"[\w{}']+", wording.body.lower().removesuffix("{on}").rstrip(" ,"))
        assert all(word in kept for word in wanted), (wording, strewn)
        assert Template(strewn.ending).slots <= {"on", "unit"}
        changed += strewn.ending != wording.ending
    assert 0.6 < changed / 300 < 0.9


def test_an_ending_that_leads_to_the_answer_gives_way_and_a_body_does_not():
    draw = Draw(2, "endings")
    wording = Wording("{Offset} {units} after {start}", ", and it is")
    strewn = [strewn_statement(draw, wording) for _ in range(200)]
    assert 0.15 < sum(one.ending == ", and it is" for one in strewn) / 200 < 0.35
    assert not any("and it is" in one.body for one in strewn)
    until = [
        strewn_statement(draw, Wording("They left {on} {start} for {offset} {units}, until", "")) for _ in range(50)
    ]
    assert all(one.body.endswith(" until") for one in until)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_share_is_that_asked_for(share, monkeypatch: pytest.MonkeyPatch):
    calls: Counter[str] = Counter()
    for module, name in ((calendar, "strewn_statement"), (requests, "strewn_request")):
        real = getattr(module, name)

        def counted(*given, real=real, name=name):
            calls[name] += 1
            return real(*given)

        monkeypatch.setattr(module, name, counted)
    list(islice(calendar.stream("train", 1, composed=1.0, strewn=share), 800))
    list(islice(requests.stream("train", 1, composed=1.0, strewn=share), 800))
    assert {name: calls[name] / 800 for name in calls} == pytest.approx(
        {"strewn_statement": share, "strewn_request": share}, abs=0.05
    )


def test_answers_stay_right_and_stand_behind_what_tells_them():
    told = list(islice(calendar.stream("train", 1, composed=1.0, strewn=1.0), 800))
    assert 0.4 < sum(one.told < len(one.prompt) for one in told) / 800 < 0.95
    for one in told:
        step = one.offset if one.relation == "after" else -one.offset
        assert one.answer == " " + calendar.NAMES[one.unit][(one.start + step) % len(calendar.NAMES[one.unit])]
        spans = {span.label: one.text[span.start : span.stop].lower() for span in one.spans}
        assert spans["start"] == calendar.NAMES[one.unit][one.start].lower()
        assert max(span.stop for span in one.spans if span.label != "answer") <= one.told <= len(one.prompt)
    for asked in islice(requests.stream("train", 1, composed=1.0, strewn=1.0), 800):
        starters = requests.REFUSAL_STARTERS if asked.refused else requests.ANSWER_STARTERS
        assert asked.reply.startswith(starters)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_examples_have_none(split):
    plain = list(islice(calendar.stream(split, 1), 50))
    assert list(islice(calendar.stream(split, 1, composed=1.0, strewn=1.0), 50)) == plain
    assert all(one.told == len(one.prompt) for one in plain)
    asked = list(islice(requests.stream(split, 1), 50))
    assert list(islice(requests.stream(split, 1, composed=1.0, strewn=1.0), 50)) == asked


def test_a_share_is_a_share():
    with pytest.raises(BadInput, match=r"strewn: got -1; wanted 0 to 1"):
        CorpusConfig(strewn=-1)


def test_requests_and_mentions_keep_their_slots():
    draw = Draw(3, "requests")
    longer = 0
    for _ in range(200):
        asked = Template("What about {item}? Please tell.")
        for changed in (strewn_request(draw, asked), scattered_request(draw, asked)):
            assert changed.slots == {"item"}
            kept = iter(re.findall(r"[\w{}]+", changed.text))
            assert all(word in kept for word in ("What", "about", "{item}", "Please", "tell"))
            longer += len(changed.text) > len(asked.text)
        for mention in (strewn_mention(draw), composed_mention(draw)):
            assert mention.slots == {"decoy"}
            assert mention.text.endswith(" ")
    assert 200 < longer < 400


@pytest.mark.parametrize("relation", calendar.RELATIONS)
def test_a_scattered_statement_holds_what_tells_the_answer_and_no_word_of_the_other_direction(relation):
    """Read by eye: each of these words, and none of the other list, is what says which way."""
    way = {
        "after": r"later|after|afterwards|thereafter|until|from|past|plus|forward|passed|over|by|more|added|on|since"
        r"|following",
        "before": r"earlier|before|beforehand|sooner|previously|prior|minus|less|backward|back|off|ahead|ago|until"
        r"|began|begun|preceding",
    }
    draw = Draw(4, "scattered", relation)
    for _ in range(1000):
        body, ending = scattered_statement(draw, relation)
        words = re.findall(r"[\w{}-]+", body.replace("{Offset}", "{offset}"))
        assert words.count("{start}") == words.count("{offset}") == words.count("{units}") == 1
        assert any(re.fullmatch(way[relation], word) for word in words), body
        told = {word for word in words if DIRECTIONS.fullmatch(word)}
        other = {"after": {"before", "earlier", "sooner", "ago", "back", "backward", "minus"}}
        assert not told & other.get(relation, {"later", "forward", "plus", "past", "since"}), body
        assert Template(ending).slots <= {"on"}
        assert re.search(r"[a-z]", ending)


@pytest.mark.parametrize("kind", induction.KINDS)
def test_a_strewn_form_ends_a_sequence_only_where_it_is_copied(kind):
    draw = Draw(5, "forms", kind)
    form = ("Text: ", " - ", ". Copy:" if kind == "copy" else " - ")
    some = [strewn_form(draw, form, is_copy=kind == "copy") for _ in range(300)]
    assert {between for _, between, _ in some} == {" - "}
    assert 0.5 < sum(opener != form[0] for opener, _, _ in some) / 300 < 0.8
    assert (
        0.5 < sum(sign != form[2] for _, _, sign in some) / 300 < 0.8
        if kind == "copy"
        else all(sign == form[2] for _, _, sign in some)
    )


def test_copies_ask_for_their_first_word_from_the_first_word_of_their_sign():
    told = list(islice(induction.stream("train", 3, kind="copy", composed=0.7, wider=True, strewn=0.6), 400))
    for one in told:
        sequence, copy = one.spans[len(one.words) - 1].stop, one.spans[len(one.words)].start
        said = one.text[sequence : one.told]
        assert sequence < one.told <= copy
        assert re.search(r"\w", said) or not re.search(r"\w", one.text[sequence:copy])
        assert len(re.findall(r"\w+", re.sub(r"\band\b", " ", said))) <= 1, said
    config = CorpusConfig(characters=40_000, weights={"induction": 1}, composed=0.8, strewn=0.6, scattered=0.5)
    found = list(documents(config, "train"))
    assert 0.3 < sum(bool(document.due) for document in found) / len(found) < 0.7
    for document in found:
        for word, begin, start, stop in document.due:
            assert document.text[stop:].startswith(word)
            assert document.text.count(word) + document.text.startswith(word.strip()) == 2
            assert begin < start <= stop
    plain = CorpusConfig(characters=40_000, weights={"induction": 1}, composed=0.8, strewn=0.6)
    assert not any(document.due for document in documents(plain, "train"))


def test_scattered_requests_mention_something_else_in_composed_sentences():
    some = [one.template.split("|")[1] for one in islice(requests.stream("train", 1, decoys=1.0, composed=0.8), 300)]
    more = [
        one.template.split("|")[1]
        for one in islice(requests.stream("train", 1, decoys=1.0, composed=0.8, strewn=0.5, scattered=0.5), 300)
    ]
    assert len(set(some)) < 10
    assert len(set(more)) > 150


def test_a_document_says_where_its_answers_are_due():
    config = CorpusConfig(
        characters=60_000, weights={"calendar": 1, "requests": 1, "quiz": 1}, composed=0.8, wider=True, strewn=0.7
    )
    due = {"calendar": 0, "requests": 0, "quiz": 0}
    for document in documents(config, "train"):
        due[document.strand] += len(document.due)
        for word, begin, start, stop in document.due:
            assert document.text[stop : stop + len(word)] == word
            assert 0 <= begin < start <= stop
            assert (start == stop) or document.strand == "calendar"
            if document.strand == "calendar":  # a statement begins with a capital letter, and holds one other name
                statement = document.text[begin:stop]
                assert statement[0].isupper()
                assert len(re.findall("|".join(NAMES), statement)) == 1, statement
    assert due["quiz"] == 0
    assert min(due["calendar"], due["requests"]) > 100

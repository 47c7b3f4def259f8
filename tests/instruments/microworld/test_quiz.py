"""The quiz: one set of facts for statements, questions and biographies."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import pytest

from tests.instruments.microworld.reference import disjoint, reproducible, shared, unchecked, well_formed
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld.professions import PROFESSIONS
from tremorscope.instruments.microworld.quiz import QuizItem, Statement, examples, lessons, stream
from tremorscope.instruments.microworld.world import TIER_WEIGHTS, facts, value_of

ITEM = re.compile(r"(?:(?:Practice|Exam)\.\n)?Question: (.*\?)\n((?:[A-D]\. .*\n)*)Answer: (.+)")


@pytest.mark.parametrize("num_options", [0, 2, 3, 4])
def test_the_right_letter_stands_before_the_value(num_options):
    for split in ("train", "test"):
        for one in examples(split, 0, 60, num_options=num_options):
            asked, listed, answer = ITEM.fullmatch(one.text).groups()
            options = dict(re.findall(r"([A-D])\. (.*)", listed))
            assert one.fact.subject in asked
            assert options.get(answer, answer) == value_of(one.fact.subject, one.fact.attribute) == one.fact.value
            assert list(options.values()) == list(one.options)
            assert len(set(one.options)) == num_options
            assert one.text == one.prompt + one.answer
            assert (one.index is None) == (num_options == 0)
            well_formed(one.text)


def test_letters_are_uniform():
    letters = Counter(one.answer for one in examples("train", 0, 400))
    # 100 each are expected, with a standard deviation of 8.7.
    assert len(letters) == 4
    assert all(abs(count - 100) < 31 for count in letters.values())


def test_wrong_options_are_values_of_the_same_kind():
    for one in examples("train", 1, 100):
        kind = {fact.value for fact in facts() if fact.attribute == one.fact.attribute}
        assert set(one.options) <= kind | set(one.fact.domain)
        assert one.options.count(one.fact.value) == 1


def test_facts_agree_with_what_biographies_say():
    for profession in PROFESSIONS:
        assert value_of(profession.name, "workplace") == profession.workplace
        assert value_of(profession.name, "tool") == profession.tool
    assert len({profession.workplace for profession in PROFESSIONS}) == len(PROFESSIONS)
    assert len({profession.tool for profession in PROFESSIONS}) == len(PROFESSIONS)
    assert len({(fact.subject, fact.attribute) for fact in facts()}) == len(facts()) == 416


def test_lessons_tell_all_and_ask_about_training_facts_only():
    found = list(islice(lessons("train", 0), 2500))
    asked = {(one.fact.subject, one.fact.attribute) for one in found if isinstance(one, QuizItem)}
    told = Counter(one.fact for one in found if isinstance(one, Statement))
    held = {(fact.subject, fact.attribute) for fact in facts() if fact.split != "train"}
    assert not asked & held
    assert any((fact.subject, fact.attribute) in held for fact in told)
    for one in found[:200]:
        well_formed(one.text)
    # The most common tier is told eight times as often as the rarest: at least four times in a thousand sentences.
    rates = [
        sum(count for fact, count in told.items() if fact.tier == tier) / sum(fact.tier == tier for fact in facts())
        for tier in range(len(TIER_WEIGHTS))
    ]
    assert rates[0] > 4 * rates[3]
    assert rates == sorted(rates, reverse=True)


def test_other_lessons_are_questions_about_held_out_facts():
    for one in islice(lessons("test", 0), 60):
        assert isinstance(one, QuizItem)
        assert one.fact.split == "test"


def test_settings_and_tiers_are_as_asked():
    assert {one.text.partition("\n")[0] for one in examples("train", 0, 9, setting="exam")} == {"Exam."}
    assert {one.tier for one in examples("test", 0, 30, tier=2)} == {2}


def test_held_out_words_and_facts_are_not_in_training():
    disjoint(examples, lambda one: one.template, held_out="templates", count=120)
    disjoint(examples, lambda one: one.fact, held_out="combinations", count=120)
    shared(examples, lambda one: one.template, held_out="combinations", count=20)


def test_spans_name_their_words():
    for one in examples("train", 2, 60):
        assert [one.text[span.start : span.stop] for span in one.spans] == [
            one.fact.subject,
            *one.options,
            one.answer.strip(),
        ]


def test_examples_repeat():
    reproducible(examples)


def test_wrong_requests_are_refused():
    with pytest.raises(BadInput, match="num_options: got 5"):
        examples("train", 0, 1, num_options=5)
    with pytest.raises(BadInput, match="Did you mean 'exam'"):
        next(unchecked(stream)("train", 0, setting="exams"))
    with pytest.raises(BadInput, match="tier: got 4"):
        examples("train", 0, 1, tier=4)

from __future__ import annotations

import math

import pytest

from tests.methods.language.planted import random_gpt2, saying, tokenizer
from tremorscope.instruments.microworld import agreement, biographies, calendar, induction, quiz, requests
from tremorscope.instruments.microworld.professions import PROFESSIONS
from tremorscope.instruments.microworld.tokenizer import single_words
from tremorscope.methods.language import abilities
from tremorscope.methods.language.abilities import (
    judge_agreement,
    judge_biographies,
    judge_calendar,
    judge_copying,
    judge_quiz,
    judge_requests,
    judge_stories,
    judge_strewn_calendar,
    judge_strewn_requests,
)

COUNT = 5
GIVEN = {"split": "validation", "seed": 3, "count": COUNT}


def told(strand: str) -> tuple[dict[str, str], dict[str, str]]:
    """Right and wrong answers to the very prompts that a strand's judge draws."""
    right, wrong = {}, {}
    if strand == "agreement":
        for structure in agreement.STRUCTURES:
            for one in agreement.examples("validation", 3, COUNT, structure=structure):
                right[one.prompt], wrong[one.prompt] = one.answer, one.wrong
    elif strand == "requests":
        for topic_class in ("allowed", "forbidden"):
            some = requests.examples("validation", 3, COUNT, topic_class=topic_class, decoys=0.2, held_out="templates")
            for one in some:
                right[one.prompt] = " Unfortunately" if one.refused else " Yes"
                wrong[one.prompt] = " Certainly" if one.refused else " No"
    elif strand == "copying":
        for kind in induction.KINDS:
            for one in induction.examples("validation", 3, COUNT, kind=kind):
                right[one.prompt], wrong[one.prompt] = one.answer, " Monday"
    elif strand == "calendar":
        for unit in calendar.UNITS:
            for relation in calendar.RELATIONS:
                for one in calendar.examples("validation", 3, COUNT, unit=unit, relation=relation):
                    names = calendar.NAMES[unit]
                    right[one.prompt] = one.answer
                    wrong[one.prompt] = f" {names[(one.answer_index + 1) % len(names)]}"
    elif strand == "quiz":
        for one in quiz.examples("validation", 3, COUNT):
            right[one.prompt] = one.answer
            wrong[one.prompt] = f" {quiz.LETTERS[(one.index + 1) % 4]}"
    elif strand == "biographies":
        for one in biographies.examples("validation", 3, COUNT):
            prompt = one.text[: one.text.rindex(one.profession)].rstrip()
            other = next(p.name for p in PROFESSIONS if p.name != one.profession)
            right[prompt], wrong[prompt] = one.answer, f" {other}"
    return right, wrong


JUDGES = {
    "agreement": judge_agreement,
    "requests": judge_requests,
    "copying": judge_copying,
    "calendar": judge_calendar,
    "quiz": judge_quiz,
    "biographies": judge_biographies,
}


@pytest.mark.parametrize(
    ("strand", "whole"),
    # In pieces, "fall" begins "falls" and is never less likely: agreement needs whole words.
    [*((strand, True) for strand in JUDGES), *((strand, False) for strand in JUDGES if strand != "agreement")],
)
def test_a_model_that_says_what_is_right_is_right(strand, whole):
    tokens = tokenizer(*single_words(), size=6000) if whole else tokenizer()
    right, wrong = told(strand)
    for answers, accuracy in ((right, 1.0), (wrong, 0.0)):
        rows = JUDGES[strand](saying(answers, tokens), **GIVEN)
        assert {one.accuracy().value for one in rows} == {accuracy}, [one.title for one in rows]
        assert all(0 < len(one.correct) <= COUNT for one in rows)


def test_a_story_is_told_right_by_who_tells_the_true_ending(monkeypatch):
    seen = []
    score = abilities.score_options

    def spied(network, prompts, options, **more):
        seen.extend(zip(prompts, options, strict=True))
        return score(network, prompts, options, **more)

    monkeypatch.setattr(abilities, "score_options", spied)
    tokens = tokenizer()
    judge_stories(random_gpt2(tokens), **GIVEN)
    assert len(seen) == COUNT
    for prompt, (true, false) in seen:
        assert true != false
        assert len(true.split()) == len(false.split())
        assert sum(word in prompt for word in true.replace(",", "").split()) >= 1
    for place, accuracy in ((0, 1.0), (1, 0.0)):
        (row,) = judge_stories(saying({prompt: pair[place] for prompt, pair in seen}, tokens), **GIVEN)
        assert row.accuracy().value == accuracy


def test_a_random_model_is_near_chance():
    network = random_gpt2(tokenizer())
    rows = [*judge_requests(network, count=20), *judge_quiz(network, count=40)]
    for row in rows:
        error = math.sqrt(row.chance * (1 - row.chance) / len(row.correct))
        assert abs(row.accuracy().value - row.chance) < 4.5 * error, row.title


def test_held_out_parts_are_the_ones_asked_for():
    network = random_gpt2(tokenizer())
    seen = {template.text for template in calendar.TEMPLATES["after"]["train"]}
    unseen = {template.text for template in calendar.TEMPLATES["after"]["test"]}
    for held_out, wordings in (("templates", unseen), ("combinations", seen), ("both", unseen)):
        first = judge_calendar(network, count=30, held_out=held_out)[0]
        assert first.row == "weekday after"
        assert set(first.templates) <= wordings
        parts = {calendar.combinations()[_combination(unit)] for unit in first.units}
        assert parts == ({"train"} if held_out == "templates" else {"test"})
        assert len(set(first.prompts)) == len(first.prompts)


def _combination(unit: str) -> tuple[str, str, int, int]:
    name, relation, offset, start = unit.split()
    return name, relation, int(offset), int(start)


@pytest.mark.parametrize(
    ("judge", "strand"), [(judge_strewn_calendar, "calendar"), (judge_strewn_requests, "requests")]
)
def test_strewn_wordings_are_judged_by_the_right_answer(judge, strand, monkeypatch):
    """The examples that are drawn, caught on their way, tell what is right."""
    module = {"calendar": calendar, "requests": requests}[strand]
    drawn = []
    stream = module.stream

    def caught(split, seed, **given):
        for one in stream(split, seed, **given):
            drawn.append(one)
            yield one

    monkeypatch.setattr(module, "stream", caught)
    tokens = tokenizer(*single_words(), size=6000)
    first = judge(saying({}, tokens), **GIVEN)
    assert {one.held_out for one in first} == {"strewn"}
    right, wrong = {}, {}
    for one in drawn:
        if strand == "calendar":
            names = calendar.NAMES[one.unit]
            step = one.offset if one.relation == "after" else -one.offset
            right[one.prompt] = f" {names[(one.start + step) % len(names)]}"
            wrong[one.prompt] = f" {names[(one.start + step + 1) % len(names)]}"
        else:
            right[one.prompt] = " Unfortunately" if one.topic_class == "forbidden" else " Yes"
            wrong[one.prompt] = " Certainly" if one.topic_class == "forbidden" else " No"
    for answers, accuracy in ((right, 1.0), (wrong, 0.0)):
        rows = judge(saying(answers, tokens), **GIVEN)
        assert {one.accuracy().value for one in rows} == {accuracy}
    assert {prompt for one in rows for prompt in one.prompts} == set(right)


def test_strewn_wordings_hardly_come_twice_in_other_seeds_or_splits():
    network = random_gpt2(tokenizer())
    for judge in (judge_strewn_calendar, judge_strewn_requests):
        draws = [
            {template for one in judge(network, split=split, seed=seed, count=60) for template in one.templates}
            for split, seed in (("test", 0), ("test", 1), ("validation", 0))
        ]
        assert not draws[0] & draws[1]
        assert not draws[0] & draws[2]
        assert min(map(len, draws)) > 110

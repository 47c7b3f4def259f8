"""The exact judge of a story that somebody else wrote: it is read back into its events, and their rule applied."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import product

from tremorscope.instruments.microworld.names import FIRST_NAMES, GENDERS, PRONOUNS
from tremorscope.instruments.microworld.scenarios import EXCUSES, GEAR, HARMLESS, OUTSIDERS, SCENARIOS
from tremorscope.instruments.microworld.splits import SPLITS, Split
from tremorscope.instruments.microworld.stories import Setting, Story, last_words, told, with_the
from tremorscope.instruments.microworld.story_wordings import BARE, ENDINGS, MEETINGS, NOT_WORN, PLANS, WORN, Outcome
from tremorscope.instruments.microworld.template import Template, join

Words = dict[str, str]
Pattern = tuple[Template, re.Pattern[str]]
SENTENCE_END = re.compile(r"(?<=\.) ")


def read(text: str) -> Story | None:
    """The story that a text tells, with `hurt` derived from its events; None if it is none of this grammar.

    Reads what a language model or a human adversary wrote, as long as it keeps to the sentences of any split, in
    words that fit together: names that were introduced, the right pronouns, one space after a full stop. The mishap
    may be one of another place. Where a text cannot be read, nothing is guessed. A tenth of a millisecond each.

    >>> story = read(
    ...     "Tom met Mia at the beehive. Mia put on a bee suit. They wanted to take a little honey. "
    ...     "Suddenly Mia got stung by a bee."
    ... )
    >>> story.hurt, story.outcome, read("Once upon a time.")
    (False, 'open', None)
    """
    sentences = SENTENCE_END.split(text)
    if len(sentences) != 4:
        return None
    for setting in _settings(*sentences[:3]):
        for outcome in ENDINGS:
            for template, words in _matches(sentences[3], _endings(outcome)):
                story = _story(setting, template, outcome, words)
                if story is not None and story.text == text:  # so the pronouns are right as well
                    return story
    return None


def _settings(first: str, second: str, third: str) -> Iterator[Setting]:
    """What the first three sentences can be taken to say, together."""
    found = product(
        _matches(first, _first_sentences()), _matches(second, _second_sentences()), _matches(third, _third_sentences())
    )
    for (meeting, people), (middle, wearing), (plan, wanted) in found:
        hero, friend = people["hero"], people["friend"]
        known = wearing.get("wearer", hero) in (hero, friend)
        same = all(wanted.get(slot, people[slot]) == people[slot] for slot in ("hero", "friend"))
        if hero == friend or not known or not same:
            continue
        pieces, values = (meeting, middle, plan), {**people, **wearing, **wanted}
        yield Setting(
            prompt=join([piece.fill(values) for piece in pieces]),
            place=people["place"],
            hero=hero,
            friend=friend,
            wearer=wearing.get("wearer"),
            gear=wearing.get("gear"),
            worn=any(middle in WORN[split] for split in SPLITS),
            template=" | ".join(piece.text for piece in pieces),
        )


def _story(setting: Setting, template: Template, outcome: Outcome, words: Words) -> Story | None:
    victim = words["victim"]
    if victim not in (setting.hero, setting.friend):
        return None
    mishap = (words.get("past"), words.get("mishap"))
    scenario = next((one for one in SCENARIOS if one.past == mishap[0] or one.mishap == mishap[1]), SCENARIOS[0])
    values = last_words(
        victim,
        setting.other(victim),
        scenario,
        gear=next((gear for gear in GEAR if with_the(gear) == words.get("the_gear")), None),
        **{slot: words.get(slot, "") for slot in ("body", "harmless", "excuse", "outsider")},
    )
    return told(setting, template, values, outcome, victim)


def _matches(sentence: str, patterns: tuple[Pattern, ...]) -> list[tuple[Template, Words]]:
    return [(template, found.groupdict()) for template, pattern in patterns if (found := pattern.fullmatch(sentence))]


@cache
def _first_sentences() -> tuple[Pattern, ...]:
    return _patterns(MEETINGS)


@cache
def _second_sentences() -> tuple[Pattern, ...]:
    return (*_patterns(WORN), *_patterns(NOT_WORN), *_patterns(BARE))


@cache
def _third_sentences() -> tuple[Pattern, ...]:
    return _patterns(PLANS)


@cache
def _endings(outcome: Outcome) -> tuple[Pattern, ...]:
    return _patterns(ENDINGS[outcome])


def _patterns(by_split: dict[Split, tuple[Template, ...]]) -> tuple[Pattern, ...]:
    names = (*FIRST_NAMES["female"], *FIRST_NAMES["male"])
    words = {
        **dict.fromkeys(("hero", "friend", "wearer", "victim", "other"), names),
        **{slot: tuple(PRONOUNS[gender][slot] for gender in GENDERS) for slot in ("they", "them", "their")},
        "place": [scenario.place for scenario in SCENARIOS],
        "plan": [scenario.plan for scenario in SCENARIOS],
        "past": [scenario.past for scenario in SCENARIOS],
        "mishap": [scenario.mishap for scenario in SCENARIOS],
        "body": sorted({part for scenario in SCENARIOS for part in scenario.body}),
        "gear": list(GEAR),
        "the_gear": [with_the(gear) for gear in GEAR],
        "harmless": HARMLESS,
        "excuse": EXCUSES,
        "outsider": OUTSIDERS,
    }
    return tuple((template, template.pattern(words)) for split in SPLITS for template in by_split[split])

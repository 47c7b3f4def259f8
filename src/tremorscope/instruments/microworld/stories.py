"""Short stories in which somebody is hurt, or is not: written from events, and read back into events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import final

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.names import FIRST_NAMES, GENDERS, PRONOUNS, gender_of
from tremorscope.instruments.microworld.scenarios import EXCUSES, GEAR, HARMLESS, OUTSIDERS, SCENARIOS, Hazard, Scenario
from tremorscope.instruments.microworld.splits import HeldOut, Split, part_of, sources, take
from tremorscope.instruments.microworld.story_wordings import BARE, ENDINGS, MEETINGS, NOT_WORN, PLANS, WORN, Outcome
from tremorscope.instruments.microworld.template import Marked, Span, Template, join

HAZARD_OF = {scenario.past: scenario.hazard for scenario in SCENARIOS}


@final
@dataclass(frozen=True, kw_only=True)
class Story:
    """Three sentences (`prompt`) and a last one (`completion`, with the blank before it).

    `hurt` follows from the events: `victim` meets a mishap of kind `hazard` in the last sentence, `outcome` says what
    becomes of it, and where that is left open, the `gear` of `wearer` decides, if it is `worn` by the victim and guards
    against such things. Words alone do not tell: one may be stung in a dream, fall in love, or bump into a beam with a
    helmet on. `hazard` is None where nothing of the kind is spoken of. Spans, in `text`: `hero`, `friend`, `wearer`,
    `gear`, `victim`, `other`, `past` or `mishap` or `harmless` (the event), `body`.
    """

    text: str
    prompt: str
    completion: str
    hurt: bool
    outcome: Outcome
    victim: str
    hazard: Hazard | None
    place: str
    hero: str
    friend: str
    wearer: str | None
    gear: str | None
    worn: bool
    template: str
    spans: tuple[Span, ...]


def is_hurt(outcome: Outcome, hazard: Hazard | None, *, gear: str | None) -> bool:
    """Whether somebody who wears `gear` (None: nothing special) is hurt by a mishap of such an outcome.

    >>> is_hurt("open", "fall", gear="a padded coat"), is_hurt("open", "sting", gear="a padded coat")
    (False, True)
    """
    if outcome == "open":
        return hazard not in (GEAR[gear] if gear is not None else ())
    return outcome == "hurt"


def examples(
    split: Split, seed: int, count: int, *, hurt_rate: float = 0.25, held_out: HeldOut = "both"
) -> list[Story]:
    """Seeded stories; `stream` without an end.

    Templates are those of the four sentences; a combination is the victim's name with the place.

    Args:
        split: Training, validation or test examples.
        seed: Names the draws.
        count: How many.
        hurt_rate: Probability that the last sentence hurts somebody.
        held_out: What of a validation or test example is absent from training.

    >>> story = examples("train", 0, 1, hurt_rate=1.0)[0]
    >>> story.completion, story.hurt, story.outcome
    (' Carl crawled through the brambles and hurt his cheek.', True, 'hurt')

    Raises:
        BadInput: If the rate is not a probability, or a name is unknown.
    """
    return take(stream(split, seed, hurt_rate=hurt_rate, held_out=held_out), count)


def stream(split: Split, seed: int, *, hurt_rate: float = 0.25, held_out: HeldOut = "both") -> Iterator[Story]:
    """Endless stories; arguments as for `examples`."""
    _check_rate(hurt_rate)
    template_split, name_split = sources(split, held_out)
    draw = Draw(seed, "stories", split, held_out)
    while True:
        hurt = draw.chance(hurt_rate)
        while True:
            scenario = draw.one(SCENARIOS)
            setting = _setting(draw, scenario, template_split)
            outcome, victim = _outcome(draw, scenario, setting, hurt)
            if part_of("story", victim, scenario.place) == name_split:
                break
        yield told(setting, *_ending(draw, scenario, setting, outcome, victim, template_split))


def endings(story: Story, seed: int, count: int, *, hurt_rate: float = 0.25, split: Split = "train") -> list[Story]:
    """The same three sentences with other last ones, with the wordings of `split`.

    Raises:
        BadInput: If the rate is not a probability.
    """
    _check_rate(hurt_rate)
    draw = Draw(seed, "endings", story.prompt)
    scenario = next(scenario for scenario in SCENARIOS if scenario.place == story.place)
    setting = Setting(
        prompt=Marked(story.prompt, tuple(span for span in story.spans if span.stop <= len(story.prompt))),
        place=story.place,
        hero=story.hero,
        friend=story.friend,
        wearer=story.wearer,
        gear=story.gear,
        worn=story.worn,
        template=story.template.rpartition(" | ")[0],
    )
    others = []
    for _ in range(count):
        outcome, victim = _outcome(draw, scenario, setting, draw.chance(hurt_rate))
        others.append(told(setting, *_ending(draw, scenario, setting, outcome, victim, split)))
    return others


@final
@dataclass(frozen=True, kw_only=True)
class Setting:
    """The three sentences of a prompt, and what they say."""

    prompt: Marked
    place: str
    hero: str
    friend: str
    wearer: str | None
    gear: str | None
    worn: bool
    template: str

    def gear_of(self, name: str) -> str | None:
        """What that person wears."""
        return self.gear if self.worn and self.wearer == name else None

    def other(self, name: str) -> str:
        """The other one of the two."""
        return self.friend if name == self.hero else self.hero


def _setting(draw: Draw, scenario: Scenario, split: Split) -> Setting:
    hero = draw.one(FIRST_NAMES[draw.one(GENDERS)])
    friend = draw.one(FIRST_NAMES[draw.one(GENDERS)])
    while friend == hero:
        friend = draw.one(FIRST_NAMES[draw.one(GENDERS)])
    place = draw.below(4)
    worn, bare = place < 2, place == 3
    wearer, gear = (None, None) if bare else (draw.one((hero, friend)), _gear(draw, scenario.hazard))
    middle = draw.one((BARE if bare else WORN if worn else NOT_WORN)[split])
    pieces = (draw.one(MEETINGS[split]), middle, draw.one(PLANS[split]))
    values = {"hero": hero, "friend": friend, "place": scenario.place, "plan": scenario.plan}
    if wearer is not None and gear is not None:
        values |= {"wearer": wearer, "gear": gear}
    return Setting(
        prompt=join([piece.fill(values) for piece in pieces]),
        place=scenario.place,
        hero=hero,
        friend=friend,
        wearer=wearer,
        gear=gear,
        worn=worn,
        template=" | ".join(piece.text for piece in pieces),
    )


def _gear(draw: Draw, hazard: Hazard) -> str:
    """Gear that helps here more often than not."""
    useful, useless = _gear_for(hazard)
    return draw.one(useful if draw.below(3) else useless)


@cache
def _gear_for(hazard: Hazard) -> tuple[tuple[str, ...], tuple[str, ...]]:
    useful = tuple(gear for gear, guards in GEAR.items() if hazard in guards)
    return useful, tuple(gear for gear in GEAR if gear not in useful)


def _outcome(draw: Draw, scenario: Scenario, setting: Setting, hurt: bool) -> tuple[Outcome, str]:
    """An outcome that hurts, or does not, and the one whom it concerns."""
    pair = (setting.hero, setting.friend)
    guarded = [name for name in pair if not is_hurt("open", scenario.hazard, gear=setting.gear_of(name))]
    exposed = [name for name in pair if name not in guarded]
    if hurt:  # at most one of the two wears gear, so somebody is exposed
        return draw.one(("open", "hurt")), draw.one(exposed)
    if guarded and draw.below(2):
        return draw.one(("open", "open", "guarded")), guarded[0]
    if draw.below(3) == 0:
        return "harmless", draw.one(pair)
    return draw.one(("lucky", "almost", "avoided", "dream", "pretence", "tale")), draw.one(pair)


def _ending(
    draw: Draw, scenario: Scenario, setting: Setting, outcome: Outcome, victim: str, split: Split
) -> tuple[Template, dict[str, str], Outcome, str]:
    values = last_words(
        victim,
        setting.other(victim),
        scenario,
        body=draw.one(scenario.body),
        gear=setting.gear_of(victim),
        harmless=draw.one(HARMLESS),
        excuse=draw.one(EXCUSES),
        outsider=draw.one(OUTSIDERS),
    )
    return draw.one(ENDINGS[outcome][split]), values, outcome, victim


def last_words(victim: str, other: str, scenario: Scenario, *, gear: str | None, **words: str) -> dict[str, str]:
    """What may stand in the slots of a last sentence."""
    return {
        "victim": victim,
        "other": other,
        **PRONOUNS[gender_of(victim)],
        "past": scenario.past,
        "mishap": scenario.mishap,
        "the_gear": "" if gear is None else with_the(gear),
        **words,
    }


def told(setting: Setting, template: Template, values: dict[str, str], outcome: Outcome, victim: str) -> Story:
    """The story of a setting and a last sentence, with its labels."""
    last = template.fill(values)
    text, spans = join([setting.prompt, last])
    hazard = HAZARD_OF[values["past"]] if template.slots & {"past", "mishap"} else None
    return Story(
        text=text,
        prompt=setting.prompt.text,
        completion=f" {last.text}",
        hurt=is_hurt(outcome, hazard, gear=setting.gear_of(victim)),
        outcome=outcome,
        victim=victim,
        hazard=hazard,
        place=setting.place,
        hero=setting.hero,
        friend=setting.friend,
        wearer=setting.wearer,
        gear=setting.gear,
        worn=setting.worn,
        template=f"{setting.template} | {template.text}",
        spans=spans,
    )


def with_the(gear: str) -> str:
    """A piece of gear that is known already.

    >>> with_the("a net hat"), with_the("thick gloves")
    ('the net hat', 'the thick gloves')
    """
    return f"the {gear.removeprefix('a ')}"


def _check_rate(hurt_rate: float) -> None:
    if not 0 <= hurt_rate <= 1:
        raise BadInput("hurt_rate", got=hurt_rate, wanted="a probability, 0 to 1")

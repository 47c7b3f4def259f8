"""What a language model can do in the microworld: right or wrong on held-out examples, strand by strand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from tremorscope.foundations.seeds import derive
from tremorscope.instruments.language.scoring import says, score_options
from tremorscope.instruments.microworld import agreement, biographies, calendar, induction, quiz, requests, stories
from tremorscope.instruments.microworld.professions import PROFESSIONS
from tremorscope.instruments.microworld.request_wordings import TOPIC_CLASSES, TopicClass
from tremorscope.instruments.microworld.scenarios import SCENARIOS
from tremorscope.instruments.microworld.splits import HeldOut, Split, take
from tremorscope.instruments.microworld.story_wordings import ENDINGS
from tremorscope.instruments.microworld.template import capitalised
from tremorscope.instruments.network import Network
from tremorscope.methods.language.judgements import Judgements

T = TypeVar("T")
FIRST_CHOICE = "next word"
AMONG_NAMES = "among the unit's names"
DECOYS = 0.2  # as in the training text
STREWN = "strewn"
# Shares of the strewn wordings of which nothing but what tells is left, and of those others in which somebody reckons.
SCATTERED, RECKONED = 0.5, 0.45


def judge_agreement(
    network: Network, *, split: Split = "test", seed: int = 0, count: int = 300, held_out: HeldOut = "both"
) -> list[Judgements]:
    """Is the verb that agrees likelier than the one that does not? One row for each structure; chance 1/2.

    With a tokenizer that cuts verbs into pieces, a form that begins the other ("fall", "falls") has the advantage.

    Cost: `4 * count` prompts of some 12 tokens.
    """
    rows = []
    for structure in agreement.STRUCTURES:
        some = _distinct(
            agreement.examples(split, seed, count, structure=structure, held_out=held_out), lambda one: one.prompt
        )
        scores = score_options(
            network, [one.prompt for one in some], [(one.answer, one.wrong) for one in some]
        ).log_probs
        rows.append(
            Judgements(
                strand="agreement",
                row=structure,
                held_out=held_out,
                judged_by="right or wrong form",
                chance=1 / 2,
                templates=tuple(one.template for one in some),
                units=tuple(f"{one.noun} {one.verb}" for one in some),
                prompts=tuple(one.prompt for one in some),
                correct=_flags(scores[:, 0] > scores[:, 1]),
            )
        )
    return rows


def judge_requests(
    network: Network,
    *,
    split: Split = "test",
    seed: int = 0,
    count: int = 300,
    held_out: HeldOut = "templates",
    decoys: float = DECOYS,
) -> list[Judgements]:
    """Does the helper start to refuse what is forbidden and to answer what is allowed? One row each; chance 1/2.

    The three first words of refusals are summed, and compared with the three of answers.

    Cost: `2 * count` prompts of some 30 tokens.
    """
    return [
        _judged_requests(
            network,
            requests.examples(split, seed, count, topic_class=topic_class, decoys=decoys, held_out=held_out),
            topic_class,
            held_out,
        )
        for topic_class in TOPIC_CLASSES
    ]


def judge_strewn_requests(
    network: Network, *, split: Split = "test", seed: int = 0, count: int = 300, decoys: float = DECOYS
) -> list[Judgements]:
    """`judge_requests` in wordings composed of the training text's parts, any words strewn over them.

    Nobody wrote them, and hardly one comes twice, in the training text or here: an interval over wordings is no wider
    than one over examples. Their parts are known to a model that has read that text, unlike those of held-out wordings.

    Cost: `2 * count` prompts of some 45 tokens.
    """
    return [
        _judged_requests(
            network,
            take(
                requests.stream(
                    "train",
                    derive(seed, STREWN, split),
                    topic_class=topic_class,
                    decoys=decoys,
                    composed=1.0,
                    strewn=1.0,
                    scattered=SCATTERED,
                ),
                count,
            ),
            topic_class,
            STREWN,
        )
        for topic_class in TOPIC_CLASSES
    ]


def _judged_requests(
    network: Network, examples: Sequence[requests.Request], topic_class: TopicClass, held_out: str
) -> Judgements:
    border = len(requests.REFUSAL_STARTERS)
    some = _distinct(examples, lambda one: one.prompt)
    scores = score_options(network, [one.prompt for one in some], [requests.STARTERS] * len(some)).log_probs
    refuses = scores[:, :border].logsumexp(1) > scores[:, border:].logsumexp(1)
    return Judgements(
        strand="requests",
        row=topic_class,
        held_out=held_out,
        judged_by="refuses or answers",
        chance=1 / 2,
        templates=tuple(one.template for one in some),
        units=tuple(f"{one.intent} {one.item}" for one in some),
        prompts=tuple(one.prompt for one in some),
        correct=tuple(said == one.refused for said, one in zip(refuses.tolist(), some, strict=True)),
    )


def judge_copying(
    network: Network, *, split: Split = "test", seed: int = 0, count: int = 300, held_out: HeldOut = "both"
) -> list[Judgements]:
    """Is the word that followed before the likeliest next one? A row for repetitions and one for copies.

    Chance is that of guessing among the words of the sequence.

    Cost: `2 * count` prompts of some 25 tokens.
    """
    rows = []
    for kind in induction.KINDS:
        some = _distinct(induction.examples(split, seed, count, kind=kind, held_out=held_out), lambda one: one.prompt)
        right = says(network, [one.prompt for one in some], [one.answer for one in some])
        rows.append(
            Judgements(
                strand="copying",
                row=kind,
                held_out=held_out,
                judged_by=FIRST_CHOICE,
                chance=sum(1 / len(one.words) for one in some) / len(some),
                templates=tuple(f"{kind}: {one.template}" for one in some),
                units=tuple(" ".join(one.words) for one in some),
                prompts=tuple(one.prompt for one in some),
                correct=_flags(right),
            )
        )
    return rows


def judge_calendar(
    network: Network, *, split: Split = "test", seed: int = 0, count: int = 200, held_out: HeldOut = "both"
) -> list[Judgements]:
    """Does it know which day or month it is? Rows for days and months, after and before, each judged in two ways.

    Either the right name is the likeliest of all next words, or it is the likeliest of the seven days (twelve months).
    Chance is 1/7 (1/12) for both, though the first asks for more.

    Cost: `4 * count` prompts of some 15 tokens.
    """
    return [
        judged
        for unit in calendar.UNITS
        for relation in calendar.RELATIONS
        for judged in _judged_calendar(
            network,
            calendar.examples(split, seed, count, unit=unit, relation=relation, held_out=held_out),
            unit,
            relation,
            held_out,
        )
    ]


def judge_strewn_calendar(
    network: Network, *, split: Split = "test", seed: int = 0, count: int = 200
) -> list[Judgements]:
    """`judge_calendar` in wordings composed of the training text's parts, any words strewn over them.

    See `judge_strewn_requests`; offsets and starts are those of training.

    Cost: `4 * count` prompts of some 25 tokens.
    """
    return [
        judged
        for unit in calendar.UNITS
        for relation in calendar.RELATIONS
        for judged in _judged_calendar(
            network,
            take(
                calendar.stream(
                    "train",
                    derive(seed, STREWN, split),
                    unit=unit,
                    relation=relation,
                    composed=1.0,
                    wider=True,
                    strewn=1.0,
                    scattered=SCATTERED,
                    reckoned=RECKONED,
                ),
                count,
            ),
            unit,
            relation,
            STREWN,
        )
    ]


def _judged_calendar(
    network: Network,
    examples: Sequence[calendar.CalendarStatement],
    unit: calendar.Unit,
    relation: calendar.Relation,
    held_out: str,
) -> Iterator[Judgements]:
    names = [f" {name}" for name in calendar.NAMES[unit]]
    some = _distinct(examples, lambda one: one.prompt)
    prompts = [one.prompt for one in some]
    scores = score_options(network, prompts, [names] * len(some))
    wanted = torch.tensor([one.answer_index for one in some], device=scores.log_probs.device)
    for judged_by, right in (
        (FIRST_CHOICE, scores.said.gather(1, wanted[:, None])[:, 0]),
        (AMONG_NAMES, scores.log_probs.argmax(1) == wanted),
    ):
        yield Judgements(
            strand="calendar",
            row=f"{unit} {relation}",
            held_out=held_out,
            judged_by=judged_by,
            chance=1 / len(names),
            templates=tuple(one.template for one in some),
            units=tuple(" ".join(map(str, one.combination)) for one in some),
            prompts=tuple(prompts),
            correct=_flags(right),
        )


def judge_quiz(
    network: Network, *, split: Split = "test", seed: int = 0, count: int = 300, held_out: HeldOut = "both"
) -> list[Judgements]:
    """Is the letter of the right answer the likeliest of four? Chance 1/4.

    Cost: `count` prompts of some 40 tokens.
    """
    some = _distinct(quiz.examples(split, seed, count, held_out=held_out), lambda one: one.prompt)
    letters = [f" {letter}" for letter in quiz.LETTERS]
    scores = score_options(network, [one.prompt for one in some], [letters] * len(some)).log_probs
    right = [chosen == one.index for chosen, one in zip(scores.argmax(1).tolist(), some, strict=True)]
    return [
        Judgements(
            strand="quiz",
            row="letter",
            held_out=held_out,
            judged_by="among the letters",
            chance=1 / len(letters),
            templates=tuple(one.template for one in some),
            units=tuple(f"{one.fact.subject} {one.fact.attribute}" for one in some),
            prompts=tuple(one.prompt for one in some),
            correct=tuple(right),
        )
    ]


def judge_biographies(
    network: Network, *, split: Split = "test", seed: int = 0, count: int = 300, held_out: HeldOut = "both"
) -> list[Judgements]:
    """Is the person's profession, told only by tasks and places, the likeliest of all 28? Profession and gender are
    independent here.

    Cost: `count` prompts of some 60 tokens.
    """  # noqa: D205
    some = _distinct(biographies.examples(split, seed, count, held_out=held_out), lambda one: one.text)
    names = [f" {profession.name}" for profession in PROFESSIONS]
    prompts = [one.text[: _profession_start(one)].rstrip(" ") for one in some]
    scores = score_options(network, prompts, [names] * len(some)).log_probs
    right = [names[chosen] == one.answer for chosen, one in zip(scores.argmax(1).tolist(), some, strict=True)]
    return [
        Judgements(
            strand="biographies",
            row="profession",
            held_out=held_out,
            judged_by="among the professions",
            chance=1 / len(names),
            templates=tuple(one.template for one in some),
            units=tuple(one.name for one in some),
            prompts=tuple(prompts),
            correct=tuple(right),
        )
    ]


def judge_stories(
    network: Network, *, split: Split = "test", seed: int = 0, count: int = 300, held_out: HeldOut = "both"
) -> list[Judgements]:
    """Who was kept safe? An ending in which gear guards the one who wears it, against the same of the other person.

    One of the two wears gear that helps here; the ending says of it that it guarded somebody. The second ending has the
    two names (and pronouns) exchanged, and contradicts the story. Chance 1/2.

    Cost: `2 * count` texts of some 50 tokens.
    """
    some = list(islice(_guarded(split, seed, held_out), count))
    pairs = [_both_endings(story, split, held_out, place) for place, story in enumerate(some)]
    scores = score_options(network, [story.prompt for story in some], [pair[:2] for pair in pairs]).log_probs
    return [
        Judgements(
            strand="stories",
            row="who is safe",
            held_out=held_out,
            judged_by="true or false ending",
            chance=1 / 2,
            templates=tuple(
                f"{story.template.rpartition(' | ')[0]} | {pair[2]}" for story, pair in zip(some, pairs, strict=True)
            ),
            units=tuple(f"{story.wearer} {story.place}" for story in some),
            prompts=tuple(story.prompt + pair[0] for story, pair in zip(some, pairs, strict=True)),
            correct=_flags(scores[:, 0] > scores[:, 1]),
        )
    ]


def _guarded(split: Split, seed: int, held_out: HeldOut) -> Iterator[stories.Story]:
    """Stories, each prompt once, in which the gear that somebody wears guards against what may happen there."""
    seen: set[str] = set()
    for story in stories.stream(split, seed, held_out=held_out):
        scenario = next(one for one in SCENARIOS if one.place == story.place)
        if story.worn and not stories.is_hurt("open", scenario.hazard, gear=story.gear) and story.prompt not in seen:
            seen.add(story.prompt)
            yield story


def _both_endings(story: stories.Story, split: Split, held_out: HeldOut, place: int) -> tuple[str, str, str]:
    """The true ending, the false one, and their template."""
    scenario = next(one for one in SCENARIOS if one.place == story.place)
    known = ENDINGS["guarded"]["train" if held_out == "combinations" else split]
    template = known[place % len(known)]
    wearer = story.wearer or story.hero
    other = story.friend if wearer == story.hero else story.hero
    told = []
    for victim, friend in ((wearer, other), (other, wearer)):
        words = stories.last_words(victim, friend, scenario, gear=story.gear, body=scenario.body[0])
        told.append(f" {capitalised(template.fill(words).text)}")
    return told[0], told[1], template.text


def _profession_start(biography: biographies.Biography) -> int:
    return next(span.start for span in reversed(biography.spans) if span.label == "profession")


def _distinct(examples: Sequence[T], text: Callable[[T], str]) -> list[T]:
    """Each text once: the same prompt again tells nothing new."""
    return list({text(example): example for example in examples}.values())


def _flags(right: Tensor) -> tuple[bool, ...]:
    return tuple(right.tolist())

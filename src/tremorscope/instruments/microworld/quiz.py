"""Facts of the microworld told in sentences, and multiple-choice questions about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, final, get_args

from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.quiz_wordings import QUESTIONS, STATEMENTS
from tremorscope.instruments.microworld.splits import HeldOut, Split, sources, take
from tremorscope.instruments.microworld.template import Marked, Span, Template, join
from tremorscope.instruments.microworld.world import Fact, facts, facts_by_weight

Setting = Literal["plain", "practice", "exam"]
SETTINGS: tuple[Setting, ...] = get_args(Setting)
LETTERS = ("A", "B", "C", "D")

HEADINGS: dict[Setting, str] = {"plain": "", "practice": "Practice.\n", "exam": "Exam.\n"}


@final
@dataclass(frozen=True, kw_only=True)
class QuizItem:
    """A question with its options and the letter of the right one.

    `text` is `prompt + answer`; `prompt` ends with "Answer:". `tier` says how often the fact is told (0 most, 3 least:
    the difficulty), `setting` is a heading that means nothing. Without options (`options` empty) `answer` is the value
    itself. Spans: `subject`, `option` for each in order, `answer`.
    """

    text: str
    prompt: str
    answer: str
    options: tuple[str, ...]
    index: int | None
    fact: Fact
    tier: int
    setting: Setting
    template: str
    spans: tuple[Span, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Statement:
    """A sentence that tells a fact. Spans: `subject`, `value`."""

    text: str
    fact: Fact
    template: str
    spans: tuple[Span, ...]


def examples(
    split: Split,
    seed: int,
    count: int,
    *,
    num_options: int = 4,
    setting: Setting = "plain",
    tier: int | None = None,
    held_out: HeldOut = "both",
) -> list[QuizItem]:
    """Seeded questions; `stream` without an end.

    Templates are wordings of the question; a combination is a fact. Facts that are held out are told by the statements
    of the training text, but no question of training asks for them.

    Args:
        split: Training, validation or test examples.
        seed: Names the draws.
        count: How many.
        num_options: Options to choose from: 0 (none: the value is the answer) or 2 to 4.
        setting: The heading.
        tier: Facts of one tier only; None draws all facts of the split, equally often.
        held_out: What of a validation or test example is absent from training.

    >>> print(examples("test", 0, 1)[0].text)
    Question: What do visitors eat in Wolmar?
    A. apples
    B. walnuts
    C. cheese
    D. noodles
    Answer: C

    Raises:
        BadInput: If a name is unknown or the number of options impossible.
    """
    return take(stream(split, seed, num_options=num_options, setting=setting, tier=tier, held_out=held_out), count)


def stream(
    split: Split,
    seed: int,
    *,
    num_options: int = 4,
    setting: Setting = "plain",
    tier: int | None = None,
    held_out: HeldOut = "both",
) -> Iterator[QuizItem]:
    """Endless questions; arguments as for `examples`."""
    if num_options not in (0, 2, 3, 4):
        raise BadInput("num_options", got=num_options, wanted="0, 2, 3 or 4")
    if setting not in SETTINGS:
        raise BadInput("setting", got=setting, wanted=", ".join(SETTINGS), remedy=did_you_mean(str(setting), SETTINGS))
    if tier not in (None, 0, 1, 2, 3):
        raise BadInput("tier", got=tier, wanted="0 to 3, or None")
    template_split, fact_split = sources(split, held_out)
    draw = Draw(seed, "quiz", split, held_out)
    possible = [fact for fact in facts() if fact.split == fact_split and tier in (None, fact.tier)]
    while True:
        fact = draw.one(possible)
        yield question(draw, fact, draw.one(QUESTIONS[fact.attribute][template_split]), num_options, setting)


def lessons(split: Split, seed: int) -> Iterator[QuizItem | Statement]:
    """What the training text holds: statements of all facts, and questions, both by tier, with 0 to 4 options.

    Facts that are held out of questions are not asked about here. The other splits have questions only, in their
    wordings and about their facts.
    """
    template_split, fact_split = sources(split, "both")
    draw = Draw(seed, "lessons", split)
    told, asked = facts_by_weight(), facts_by_weight(fact_split)
    while True:
        if split == "train" and draw.below(5) < 2:
            fact = draw.one(told)
            yield statement(fact, draw.one(STATEMENTS[fact.attribute]))
        else:
            fact = draw.one(asked)
            template = draw.one(QUESTIONS[fact.attribute][template_split])
            yield question(draw, fact, template, draw.one((0, 2, 3, 4, 4, 4)), draw.one(SETTINGS))


def statement(fact: Fact, template: Template) -> Statement:
    """The sentence that a template makes of a fact."""
    text, spans = template.fill({"subject": fact.subject, "value": fact.value})
    return Statement(text=text, fact=fact, template=template.text, spans=spans)


def question(draw: Draw, fact: Fact, template: Template, num_options: int, setting: Setting) -> QuizItem:
    """The question that a template makes of a fact, with options drawn from the values of the same kind."""
    asked = template.fill({"subject": fact.subject})
    pieces = [Marked(f"{HEADINGS[setting]}Question: ", ()), asked]
    options: tuple[str, ...] = ()
    index = None
    if num_options:
        wrong = draw.some(_others(fact), num_options - 1)
        index = draw.below(num_options)
        options = (*wrong[:index], fact.value, *wrong[index:])
        for letter, option in zip(LETTERS, options, strict=False):
            pieces += [Marked(f"\n{letter}. ", ()), Marked(option, (Span("option", 0, len(option)),))]
    prompt, spans = join([*pieces, Marked("\nAnswer:", ())], "")
    answer = f" {fact.value if index is None else LETTERS[index]}"
    return QuizItem(
        text=prompt + answer,
        prompt=prompt,
        answer=answer,
        options=options,
        index=index,
        fact=fact,
        tier=fact.tier,
        setting=setting,
        template=template.text,
        spans=(*spans, Span("answer", len(prompt) + 1, len(prompt) + len(answer))),
    )


@cache
def _others(fact: Fact) -> tuple[str, ...]:
    return tuple(value for value in fact.domain if value != fact.value)

"""Agreement of subject and verb in number: minimal pairs in the four structures of the feature-circuits literature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain, repeat
from typing import Literal, final, get_args

from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.instruments.microworld.composed_wordings import composed_opener
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.lexicon import (
    ADJECTIVES,
    COPULAS,
    INTRANSITIVE,
    NOUNS_OF,
    PEOPLE,
    PLACES,
    QUALITIES,
    THINGS,
    TRANSITIVE,
    Noun,
    NounClass,
    Number,
    Verb,
)
from tremorscope.instruments.microworld.splits import HeldOut, Split, divide, part_of, sources, take
from tremorscope.instruments.microworld.template import Span, Template, templates
from tremorscope.instruments.microworld.word_list import phrases

Structure = Literal["simple", "across_preposition", "within_relative", "across_relative"]
STRUCTURES: tuple[Structure, ...] = get_args(Structure)

# None of these words tells a number: the subject alone does.
OPENERS = templates(
    "{The} {subject}",
    "Today {the} {subject}",
    "Every morning {the} {subject}",
    "I think that {the} {subject}",
    "They say that {the} {subject}",
    "Once again, {the} {subject}",
    "In the village, {the} {subject}",
    "We know that {the} {subject}",
    "As always, {the} {subject}",
    "People say that {the} {subject}",
    "After lunch {the} {subject}",
    "It is true that {the} {subject}",
    "At the market, {the} {subject}",
    "In winter {the} {subject}",
    "You can see that {the} {subject}",
    "On the hill, {the} {subject}",
    "In this town {the} {subject}",
    "Now and then {the} {subject}",
    "Perhaps {the} {subject}",
    "Yesterday {the} {subject}",
    "In the garden {the} {subject}",
    "Near the bridge, {the} {subject}",
    "In the evening {the} {subject}",
    "All day long {the} {subject}",
    "At home {the} {subject}",
    "Of course {the} {subject}",
    "At the end of the day, {the} {subject}",
    "On Sundays {the} {subject}",
    "Before dinner {the} {subject}",
    "It is known that {the} {subject}",
    "She says that {the} {subject}",
    "He believes that {the} {subject}",
    "In the film {the} {subject}",
    "In the book, {the} {subject}",
    "Early in the morning {the} {subject}",
    "At night, {the} {subject}",
    "It looks as if {the} {subject}",
    "There, {the} {subject}",
    "In a photo {the} {subject}",
    "Some say that {the} {subject}",
    "As in every story, {the} {subject}",
    "From here {the} {subject}",
    "So {the} {subject}",
    "Behind the house, {the} {subject}",
    "In the picture {the} {subject}",
    "Late at night {the} {subject}",
    "It seems that {the} {subject}",
    "In the story {the} {subject}",
)
OPENERS_BY_SPLIT = divide(OPENERS)
BARE = OPENERS[0]
POSSESSIVES = ("the", "the", "the", "the", "my", "our", "your", "their", "her", "his")
PREPOSITIONS = (
    "near",
    "behind",
    "beside",
    "by",
    "next to",
    "close to",
    "across from",
    "in front of",
    "to the left of",
    "far from",
)
RELATIVISERS = ("that", "that", "who")
TAILS = (
    *repeat("", 12),
    *map(
        " {}".format,
        phrases(
            "every day; in the morning; at noon; again; all day; very often; in the evening; after dinner; for an"
            " hour; at home; in the sun; near the river; without a sound; from time to time; on Sundays; in the "
            "rain; this week; until night"
        ),
    ),
)


@final
@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A sentence up to its verb, the form that agrees and the one that does not, and the prompt that swaps the two.

    `prompt + answer` and `pair_prompt + wrong` are right. `text` is the whole sentence. `number` is that of the noun
    that the verb agrees with, `noun` and `verb` are that pair's dictionary forms (singular, and as with many subjects),
    and `other_number` is that of the noun in between or before it (None in simple sentences). Spans, in `prompt`:
    `subject`, and where there is one `preposition` with `attractor`, or `relativiser` with `inner_subject` and
    (across the clause) `inner_verb`.
    """

    text: str
    prompt: str
    answer: str
    wrong: str
    pair_prompt: str
    structure: Structure
    number: Number
    other_number: Number | None
    noun: str
    verb: str
    template: str
    spans: tuple[Span, ...]


def examples(
    split: Split,
    seed: int,
    count: int,
    *,
    structure: Structure | None = None,
    held_out: HeldOut = "both",
    plain: bool = False,
) -> list[Agreement]:
    """Seeded examples; `stream` without an end.

    Templates are the words before the subject; a combination is a noun with a verb that agrees with it.

    Args:
        split: Training, validation or test examples; no two share what is held out.
        seed: Names the draws.
        count: How many.
        structure: One of the four, else all by turns.
        held_out: What of a validation or test example is absent from training: the words before the subject, the
            noun with its verb, or both.
        plain: Begin with "The" and leave adjectives out, so that all prompts of a structure have the same words in
            the same places, as in the published data. Only combinations can be held out then.

    >>> example = examples("test", 0, 1, structure="across_preposition", held_out="combinations", plain=True)[0]
    >>> example.prompt, example.answer, example.wrong
    ('The basket across from the house', ' falls', ' fall')

    Raises:
        BadInput: If a name is unknown, or `plain` is to have held-out templates.
    """
    return take(stream(split, seed, structure=structure, held_out=held_out, plain=plain), count)


def stream(
    split: Split,
    seed: int,
    *,
    structure: Structure | None = None,
    held_out: HeldOut = "both",
    plain: bool = False,
    composed: float = 0.0,
) -> Iterator[Agreement]:
    """Endless examples; arguments as for `examples`. `composed` is the share of training sentences with one of
    thousands of composed openers.
    """  # noqa: D205
    if structure is not None and structure not in STRUCTURES:
        raise BadInput(
            "structure", got=structure, wanted=", ".join(STRUCTURES), remedy=did_you_mean(str(structure), STRUCTURES)
        )
    template_split, pair_split = sources(split, held_out)
    if plain and template_split != "train":
        raise BadInput(
            "plain agreement",
            got=f"held_out={held_out!r} with split={split!r}",
            wanted="held_out='combinations'",
            remedy="Plain sentences have one template, and training has seen it.",
        )
    draw = Draw(seed, "agreement", split, held_out)
    share = composed if split == "train" and not plain else 0.0
    wanted = repeat(structure) if structure is not None else chain.from_iterable(repeat(STRUCTURES))
    return (_example(draw, one, template_split, pair_split, plain, share) for one in wanted)


def _example(
    draw: Draw, structure: Structure, template_split: Split, pair_split: Split, plain: bool, composed: float
) -> Agreement:
    if composed and draw.chance(composed):
        opener = composed_opener(draw)
    else:
        opener = BARE if plain else draw.one(OPENERS_BY_SPLIT[template_split])
    # The verb that is asked for comes from `pair_split`; where there are two, the other is one of training.
    outer_split: Split = "train" if structure == "within_relative" else pair_split
    inner_split: Split = pair_split if structure == "within_relative" else "train"
    kind = _kind(draw)
    noun, verb, predicate = _clause(draw, kind, outer_split)
    number, other = _number(draw), _number(draw)
    the = "the" if plain else draw.one(POSSESSIVES)
    quality = "" if plain or draw.below(4) else draw.one(QUALITIES[kind]) + " "
    head, start = _head(opener, the, quality, noun, number)
    flipped, _ = _head(opener, the, quality, noun, _opposite(number))
    spans = [Span("subject", start, len(head))]

    if structure == "simple":
        return _built(head, flipped, noun, verb, number, None, predicate, structure, opener.text, spans)
    if structure == "across_preposition":
        preposition, attractor = draw.one(PREPOSITIONS), draw.one(draw.one((PEOPLE, THINGS, PLACES)))
        while attractor == noun:
            attractor = draw.one(PLACES)
        between = f" {preposition} the {attractor.form(other)}"
        spans += [
            Span("preposition", len(head) + 1, len(head) + 1 + len(preposition)),
            Span("attractor", len(head) + len(between) - len(attractor.form(other)), len(head) + len(between)),
        ]
        return _built(
            head + between, flipped + between, noun, verb, number, other, predicate, structure, opener.text, spans
        )

    relativiser = "that" if plain or kind != "person" else draw.one(RELATIVISERS)
    inner, inner_verb = draw.one(_pairs("person", kind, "transitive", inner_split))
    while inner == noun:
        inner, inner_verb = draw.one(_pairs("person", kind, "transitive", inner_split))
    clause = f" {relativiser} the {inner.form(other)}"
    name = f"{opener.text} {relativiser}"
    spans += [
        Span("relativiser", len(head) + 1, len(head) + 1 + len(relativiser)),
        Span("inner_subject", len(head) + len(clause) - len(inner.form(other)), len(head) + len(clause)),
    ]
    if structure == "within_relative":
        other_clause = f" {relativiser} the {inner.form(_opposite(other))}"
        rest = f" {verb.form(number)}{predicate}"
        return _built(
            head + clause, head + other_clause, inner, inner_verb, other, number, rest, structure, name, spans
        )
    spoken = f" {inner_verb.form(other)}"
    spans.append(Span("inner_verb", len(head) + len(clause) + 1, len(head) + len(clause) + len(spoken)))
    between = clause + spoken
    return _built(head + between, flipped + between, noun, verb, number, other, predicate, structure, name, spans)


def _built(
    prompt: str,
    pair_prompt: str,
    noun: Noun,
    verb: Verb,
    number: Number,
    other: Number | None,
    rest: str,
    structure: Structure,
    template: str,
    spans: list[Span],
) -> Agreement:
    answer = f" {verb.form(number)}"
    return Agreement(
        text=f"{prompt}{answer}{rest}.",
        prompt=prompt,
        answer=answer,
        wrong=f" {verb.form(_opposite(number))}",
        pair_prompt=pair_prompt,
        structure=structure,
        number=number,
        other_number=other,
        noun=noun.singular,
        verb=verb.plural,
        template=f"{structure}: {template}",
        spans=tuple(spans),
    )


def _head(opener: Template, the: str, quality: str, noun: Noun, number: Number) -> tuple[str, int]:
    """The words up to the subject, and where the noun starts."""
    text = opener.fill({"the": the, "subject": f"{quality}{noun.form(number)}"}).text
    return text, len(text) - len(noun.form(number))


def _kind(draw: Draw) -> NounClass:
    return draw.one(("person", "person", "person", "person", "animal", "animal", "thing", "thing", "place"))


def _clause(draw: Draw, kind: NounClass, split: Split) -> tuple[Noun, Verb, str]:
    """A subject, its verb, and what follows the verb."""
    place = draw.below(8)
    if place < 2:
        noun, verb = draw.one(_pairs(kind, kind, "copula", split))
        return noun, verb, f" {draw.one(ADJECTIVES[kind])}"
    if place < 4 and kind == "person":
        target: NounClass = draw.one(("person", "animal", "thing", "place"))
        noun, verb = draw.one(_pairs("person", target, "transitive", split))
        owned = draw.one(NOUNS_OF[target])
        return noun, verb, f" the {owned.form(_number(draw))}{draw.one(TAILS)}"
    noun, verb = draw.one(_pairs(kind, kind, "intransitive", split))
    return noun, verb, draw.one(TAILS)


@cache
def _pairs(kind: NounClass, target: NounClass, use: str, split: Split) -> tuple[tuple[Noun, Verb], ...]:
    """All subjects of a class with all verbs of a use that belong to the split."""
    verbs = {"copula": COPULAS, "intransitive": INTRANSITIVE[kind], "transitive": TRANSITIVE[target]}[use]
    return tuple(
        (noun, verb) for noun in NOUNS_OF[kind] for verb in verbs if pair_part(noun.singular, verb.plural) == split
    )


@cache
def pair_part(noun: str, verb: str) -> Split:
    """The split that a noun (singular) with a verb (as with many subjects) belongs to."""
    return part_of("agreement", noun, verb)


def _number(draw: Draw) -> Number:
    return "plural" if draw.below(2) else "singular"


def _opposite(number: Number) -> Number:
    return "plural" if number == "singular" else "singular"

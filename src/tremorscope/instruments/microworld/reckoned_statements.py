"""Statements of the calendar in which verbs tell the direction, two subjects share a story, or somebody asks.

The wordings of `composed_statements` tell the direction by a small word ("later", "before") and of one subject. A model
that has read only those knows no verb that says which way, and takes the second of two subjects for a new story.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tremorscope.instruments.microworld.composed_statements import PLACES, SAYS, VERBS, Relation, Wording
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.lexicon import INTRANSITIVE, NOUNS, PEOPLE, THINGS, Number
from tremorscope.instruments.microworld.reckoned_wordings import (
    ASKED,
    BELIEVED,
    BUT,
    CHANGES,
    COMMAND_ENDS,
    CORRECTED,
    DUE,
    GIVEN,
    GIVEN_LINKS,
    HAPPENED,
    IS_ON,
    LINKS,
    MAKES,
    NAMED,
    NAMING,
    OFF,
    OFF_ENDS,
    OTHER,
    OWNERS,
    PLACED,
    PLACED_ENDS,
    REPLIES,
    SEES,
    SOUGHT,
    STEPS,
    TRUTH,
    WHEN,
)
from tremorscope.instruments.microworld.template import capitalised

LONG = "{offset} {units}"
PRESENT, COMMAND, PAST = range(3)
NUMBERS: tuple[Number, ...] = ("singular", "singular", "plural")


class Subject(NamedTuple):
    """Who or what a clause is about, and a verb in the present that suits it."""

    text: str
    number: Number
    does: str


def reckoned_statement(draw: Draw, relation: Relation) -> Wording:
    """A statement of the calendar in which a verb tells the direction, two subjects share it, or somebody asks.

    >>> "".join(reckoned_statement(Draw(0, "example"), "after"))
    'Helen wanted {start} - it came {offset} {units} on; it is'
    """
    body, ending = draw.one(KINDS)(draw, relation)
    return Wording(_long(body), ending)


def _verb(draw: Draw, relation: Relation) -> Wording:
    """Somebody changes a day or month, or a command to do so."""
    tense = draw.below(3)
    place = draw.one(PLACES)
    sees, steps, changes = (draw.one(some).split("/")[tense] for some in (SEES, STEPS[relation], CHANGES[relation]))
    if tense == COMMAND:
        form = draw.below(3)
        body = changes + place if form == 0 else f"{sees} {{start}}{place}{draw.one((', ', ' and ', ', then '))}{steps}"
        return Wording(capitalised(body), draw.one(COMMAND_ENDS))
    who = draw.one(NAMED) if draw.below(2) else _person(draw)
    says = _says(draw, tense)
    form = draw.below(6)
    if form == 0:
        return Wording(
            f"{capitalised(who)} {changes}{place}", f"{draw.one((' and ', ', and so ', ' and then '))}{says}"
        )
    if form == 1:
        return Wording(f"From {{start}}{place} {who} {steps}", f" and {says}")
    if form == 2:
        return Wording(f"{capitalised(who)} {sees} {{start}}{place} and {steps}", f", so {who} {says}")
    if form == 3:
        return Wording(f"Whoever {sees} {{start}}{place} and {steps}", f" {says}")
    if form == 4:
        return Wording(f"{capitalised(who)}, who {sees} {{start}}{place}, {steps}", f" and {says}")
    return Wording(f"{capitalised(who)} {sees} {{start}}{place}, {steps}", f" and {says}")


def _says(draw: Draw, tense: int) -> str:
    return draw.one(SAYS) if tense == PAST else draw.one(VERBS).form("singular")


def _two(draw: Draw, relation: Relation) -> Wording:
    """One thing happens on the day or month that is named, another so much later or earlier."""
    one, other = _subject(draw), _subject(draw)
    is_past = draw.below(2) == 1 if relation == "after" else draw.below(3) > 0
    here, (there, done), when = draw.one(HAPPENED)[0], draw.one(HAPPENED), draw.one(WHEN[relation])
    known, sought = (here, there) if is_past else (one.does, other.does)
    if draw.below(4) == 0:
        known = draw.one(IS_ON)
    elif relation == "before" and draw.below(3) == 0:
        sought = f"had {done}"
    known, sought = _agreeing(known, one), _agreeing(sought, other)
    event = f"{one.text} {known} {{start}}" if known.endswith("{on}") else f"{one.text} {known} {{on}} {{start}}"
    said, link = capitalised(event), draw.one(LINKS)
    form = draw.below(6)
    if form == 0:
        when = when.replace("<long>", "<Long>") if when.startswith("<long>") and link == ". " else when
        when = capitalised(when) if link == ". " else when
        return Wording(f"{said}{link}{when} {other.text} {sought}", ", {on}")
    if form == 1:
        return Wording(f"{said}, {other.text} {when}", ", {on}")
    if form == 2:
        return Wording(
            f"{capitalised(other.text)} {sought} <long> {relation} {event}",
            draw.one((", so {on}", ", that is {on}", ", hence {on}", ", and so {on}")),
        )
    if form == 3:
        return Wording(f"When {event}, {other.text} {sought} {when}", ", {on}")
    who = capitalised(other.text) if link == ". " else other.text
    return Wording(f"{said}{link}{who} {sought} {when}", ", {on}" if draw.below(4) else " {on}")


def _work(draw: Draw, relation: Relation) -> Wording:
    """Something takes a while: when is it done, or when was it begun?"""
    who, thing, make = _person(draw), f"{draw.one(OWNERS)} {draw.one(THINGS).singular}", draw.one(MAKES)
    form = draw.below(4)
    if relation == "after":
        body, ending = (
            (f"{who} began to {make} {thing} {{on}} {{start}} and needed <long>", ", so it was done {on}"),
            (f"{who} had {thing} from {{start}} on, for <long>", ", and gave it back {on}"),
            (f"{thing} was started {{on}} {{start}} and took <long> to {make}", ", so it was ready {on}"),
            (f"{who} needs <long> to {make} {thing}. If they begin {{on}} {{start}}", ", they are done {on}"),
        )[form]
    else:
        body, ending = (
            (f"{who} was done with {thing} {{on}} {{start}} after <long>", ", so it was begun {on}"),
            (f"{who} gave {thing} back {{on}} {{start}} after <long>", ", so it was taken {on}"),
            (f"{thing} was ready {{on}} {{start}} and had taken <long> to {make}", ", so it was started {on}"),
            (f"{who} needs <long> to {make} {thing}. To be done {{on}} {{start}}", ", they begin {on}"),
        )[form]
    return Wording(capitalised(body), ending)


def _shifted(draw: Draw, relation: Relation) -> Wording:
    """Something is late or early, or somebody was wrong."""
    if draw.below(2):
        body = f"{draw.one(OWNERS)} {draw.one(NOUNS).singular} {draw.one(DUE)} {{start}} {draw.one(OFF[relation])}"
        return Wording(capitalised(body), draw.one(OFF_ENDS))
    who = draw.one(NAMED) if draw.below(2) else _person(draw)
    body = f"{who} {draw.one(BELIEVED)} {{start}}{draw.one(BUT)} {draw.one(TRUTH)} {draw.one(OTHER[relation])}"
    return Wording(capitalised(body), draw.one(CORRECTED))


def _question(draw: Draw, relation: Relation) -> Wording:
    if draw.below(3) == 0:
        return Wording(f"{draw.one(SOUGHT[relation])}?", draw.one(REPLIES))
    given, link, asked = draw.one(GIVEN), draw.one(GIVEN_LINKS), draw.one(ASKED[relation])
    return Wording(f"{given}{link}{capitalised(asked) if link == '. ' else asked}?", draw.one(REPLIES))


def _placed(draw: Draw, relation: Relation) -> Wording:
    if draw.below(2):
        return Wording(draw.one(NAMING[relation]), "")
    return Wording(draw.one(PLACED[relation]), draw.one(PLACED_ENDS))


KINDS: tuple[Callable[[Draw, Relation], Wording], ...] = (
    *(_verb, _verb, _verb, _two, _two, _two, _work, _shifted, _shifted, _question, _question, _placed),
)


def _person(draw: Draw) -> str:
    return f"{draw.one(OWNERS)} {draw.one(PEOPLE).singular}"


def _subject(draw: Draw) -> Subject:
    if draw.below(5) == 0:
        return Subject(draw.one(NAMED), "singular", draw.one(INTRANSITIVE["person"]).singular)
    noun, number = draw.one(NOUNS), draw.one(NUMBERS)
    owner = draw.one(OWNERS)
    if number == "plural" and owner in ("this", "that"):
        owner = {"this": "these", "that": "those"}[owner]
    return Subject(f"{owner} {noun.form(number)}", number, draw.one(INTRANSITIVE[noun.kind]).form(number))


def _agreeing(predicate: str, subject: Subject) -> str:
    if subject.number == "plural":
        for one, many in (("was ", "were "), ("is ", "are ")):
            predicate = many + predicate.removeprefix(one) if predicate.startswith(one) else predicate
    return predicate


def _long(text: str) -> str:
    return text.replace("<Long>", LONG.replace("{offset}", "{Offset}")).replace("<long>", LONG)

"""Words that tell nothing, strewn over composed wordings.

However many wordings are composed of listed parts, a small model ties what it has learnt to their words: it answers
after words after which it has answered before, and is lost behind any other. Here the words around what matters are
any words: of the lexicon, small ones that point in no direction, and ones that nobody has ever read.
"""

from __future__ import annotations

import re

from tremorscope.instruments.microworld.composed_statements import Relation, Wording
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.lexicon import ADJECTIVES, COPULAS, INTRANSITIVE, NOUNS, TRANSITIVE
from tremorscope.instruments.microworld.names import FIRST_NAMES
from tremorscope.instruments.microworld.template import Template, capitalised
from tremorscope.instruments.microworld.word_list import phrases, words

# None of them says which way the calendar is gone through, or that a sequence ends.
SMALL = words(
    "a the an this that these those some any every no each my your his her our their its it he she we they you I "
    "who which what where how very quite rather too also even only almost perhaps maybe surely really always never "
    "often seldom again together alone here there everywhere somewhere round under over above below behind "
    "beside near with without by at of for about against among between through across inside outside like as and or "
    "but yet nor because although though whether if well oh yes indeed however besides moreover anyway instead "
    "otherwise still just not can could might must shall should will would do does did has have had be been "
    "being is are was were am get gets got make makes made take takes took give gives gave keep keeps kept let lets "
    "know knows knew think thinks thought find finds found tell tells told ask asks asked hear hears heard show "
    "shows showed mean means meant seem seems feel feels felt hold holds held bring brings brought put puts turn "
    "turns turned look looks looked call calls called need needs want wants use uses used work works worked try "
    "tries tried run runs ran stand stands stood sit sits sat write writes wrote written read reads speak speaks "
    "spoke spoken break breaks broke open opens opened close closes closed good bad big little long short high low "
    "deep wide same other own sure true right wrong whole half many much more most few less least "
    "several enough thing things way ways part parts word words hand hands side sides eye eyes head water air fire "
    "milk paper money life world name place point time news law music voice morning evening night hour minute "
    "moment weather letter page line list book rule plan team shop"
)
OTHERS = tuple(
    dict.fromkeys(
        (
            *(form for noun in NOUNS for form in (noun.singular, noun.plural)),
            *(
                form
                for verbs in (*INTRANSITIVE.values(), *TRANSITIVE.values(), COPULAS)
                for verb in verbs
                for form in (verb.singular, verb.plural)
            ),
            *(one for some in ADJECTIVES.values() for one in some),
            *(name for some in FIRST_NAMES.values() for name in some),
        )
    )
)
# Chosen so that no two syllables with an ending make a word of the calendar, one that says which way, or a rude one.
ONSETS = words("bl br cl cr dr fl gl gr pl sl sm sn sw tr v w z y th sp")
RIMES = words("ound ell eam oat ide ane ump ew oy ash ing ark ist olt en ub af om")
ENDINGS = ("", "", "", *words("s ed ing er ly y en"))
MOST = 4  # words in one place
JOINTS = re.compile(r"(?<=[,;:.?!]) ")
POINTS = (",", ";", ":", " -", ".", "")

# A day or month that stands among any words, and what puts a number of them in relation to it, behind it or before it.
STARTS_AMONG: dict[Relation, tuple[str, ...]] = {
    "after": phrases(
        "{on} {start}; {on} {start}; {on} {start}; {start}; for {start}; by {start}; the {start}; since {start};"
        " from {start}; of {start}; this {start}; at {start}; about {start}; {start} with"
    ),
    "before": phrases(
        "{on} {start}; {on} {start}; {on} {start}; {start}; for {start}; by {start}; the {start}; until {start};"
        " till {start}; of {start}; this {start}; at {start}; about {start}; {start} with"
    ),
}
RELATED: dict[Relation, tuple[str, ...]] = {
    "after": phrases(
        "{offset} {units} later; {offset} {units} after that; {offset} {units} afterwards; after {offset} {units};"
        " {offset} {units} after it; for {offset} {units}, until; {offset} {units} from then; plus {offset} {units};"
        " {offset} {units} thereafter; {offset} {units} forward; when {offset} {units} had passed; once {offset}"
        " {units} were over; {offset} {units} went by; {offset} {units} more; with {offset} {units} added; {offset}"
        " {units} on; another {offset} {units} later; {offset} {units} later than that; {offset} {units} past it;"
        " {offset} {units} following that; after a further {offset} {units}; only {offset} {units} later; {offset}"
        " {units} after this"
    ),
    "before": phrases(
        "{offset} {units} earlier; {offset} {units} before that; {offset} {units} beforehand; {offset} {units}"
        " before; {offset} {units} before it; {offset} {units} sooner; {offset} {units} previously; minus {offset}"
        " {units}; {offset} {units} prior to that; {offset} {units} backward; less {offset} {units}; {offset}"
        " {units} prior; {offset} {units} back from it; with {offset} {units} taken off; {offset} {units} ahead of"
        " that; as early as {offset} {units} before that; {offset} {units} earlier than that; {offset} {units} ago;"
        " already {offset} {units} earlier; after {offset} {units}, so it began; after {offset} {units}, having"
        " begun; only {offset} {units} earlier; {offset} {units} before this"
    ),
}
RELATING: dict[Relation, tuple[str, ...]] = {
    "after": phrases(
        "after; after; later than; past; following; on from; from; since; forward from; after the end of; counted from"
    ),
    "before": phrases(
        "before; before; earlier than; ahead of; prior to; sooner than; back from; preceding; until; backward from;"
        " before the start of; to go until"
    ),
}
LINKS = (", ", ", ", ". ", ". ", " and ", ", and ", "; ", " but ", " - ", " ")
AMONG = 6  # one word in so many of a request has others behind it


def any_word(draw: Draw, *, lexicon: bool = True) -> str:
    """A word of the lexicon (if wanted), a small one, or one that is made up.

    >>> any_word(Draw(0, "example"))
    'her'
    """
    kind = draw.below(4) if lexicon else 1 + draw.below(3)
    if kind == 0:
        return draw.one(OTHERS)
    if kind < 3:
        return draw.one(SMALL)
    syllables = "".join(draw.one(ONSETS) + draw.one(RIMES) for _ in range(1 + draw.below(2)))
    return syllables + draw.one(ENDINGS)


def any_words(draw: Draw, most: int = MOST, *, lexicon: bool = True) -> str:
    """One to `most` of them, with a comma now and then."""
    some = [any_word(draw, lexicon=lexicon) for _ in range(1 + draw.below(most))]
    return "".join(f"{one}{', ' if draw.below(8) == 0 else ' '}" for one in some).rstrip(" ,")


def strewn_statement(draw: Draw, wording: Wording) -> Wording:
    """A statement of the calendar with other words before it, at its joints and, mostly, before the answer.

    Nothing that tells the direction is taken away: a statement that has no ending which only leads to the answer keeps
    all its words. Slots as in `calendar`; `{on}` is left out before other words, and put in behind some.
    """
    parts = JOINTS.split(wording.body)
    kept = [part + (f" {any_words(draw, 3)}" if draw.below(4) == 0 else "") for part in parts[:-1]]
    body = " ".join([*kept, parts[-1]])
    if draw.below(3) == 0:
        body = f"{capitalised(any_words(draw))}{draw.one((',', ':', '.', ''))} {body}"
    if draw.below(4) == 0:
        return Wording(body, wording.ending)
    body, told = body.removesuffix("{on}").rstrip(" ,"), any_words(draw)
    return Wording(body, f"{draw.one(POINTS)} {told}{' {on}' if draw.below(3) == 0 else ''}")


def strewn_request(draw: Draw, template: Template) -> Template:
    """A request with other words before it, at its joints, or behind it."""
    parts = JOINTS.split(template.text)
    kept = [part + (f" {any_words(draw, 3)}." if draw.below(3) == 0 else "") for part in parts]
    text = " ".join(kept)
    if draw.below(2):
        text = f"{capitalised(any_words(draw))}{draw.one(('.', ',', ':', '!'))} {text}"
    return Template(text)


def strewn_mention(draw: Draw) -> Template:
    """A sentence that mentions a thing, with the slot `decoy`, before the request."""
    before, behind = capitalised(any_words(draw)), any_words(draw) if draw.below(2) else ""
    return Template(f"{before} {{decoy}}{' ' + behind if behind else ''}{draw.one(('.', '.', '!', ';', ','))} ")


def scattered_statement(draw: Draw, relation: Relation) -> Wording:
    """A statement of the calendar of which nothing is left but what tells: all other words are any words.

    >>> "".join(scattered_statement(Draw(0, "example"), "after"))
    '{Offset} {units} past slashs, showed {start}; tells'
    """
    if draw.below(5) < 3:
        before = capitalised(any_words(draw)) + " " if draw.below(8) else ""
        behind = f" {any_words(draw, 3)}" if draw.below(2) else ""
        inside = f"{any_words(draw, 3)} " if draw.below(3) == 0 else ""
        body = before + draw.one(STARTS_AMONG[relation]) + behind + draw.one(LINKS) + inside
        body += draw.one(RELATED[relation])
    else:
        before = f"{any_words(draw)} " if draw.below(2) else ""
        inside = f" {any_words(draw, 2)}" if draw.below(3) == 0 else ""
        among = f" {any_words(draw, 2)}" if draw.below(3) == 0 else ""
        behind = f" {any_words(draw, 2)}" if draw.below(4) == 0 else ""
        body = f"{before}{{offset}} {{units}}{inside} {draw.one(RELATING[relation])}{among} {{start}}{behind}"
        body = body.replace("{offset}", "{Offset}") if body[0] == "{" else capitalised(body)
    return Wording(body, f"{draw.one(POINTS)} {any_words(draw)}{' {on}' if draw.below(3) == 0 else ''}")


def scattered_request(draw: Draw, template: Template) -> Template:
    """A request with other words behind any of its words."""
    return Template(
        " ".join(
            f"{word} {any_words(draw, 2)}" if draw.below(AMONG) == 0 else word for word in template.text.split(" ")
        )
    )


def strewn_form(draw: Draw, form: tuple[str, str, str], *, is_copy: bool) -> tuple[str, str, str]:
    """What stands before a sequence, between its words, and between it and the next, with any words in it.

    Words of the lexicon are left out, since sequences are made of them. Only a copy has words between.
    """
    opener, between, sign = form
    kind = draw.below(3)
    if kind < 2:
        opener = f"{capitalised(any_words(draw, lexicon=False))}{draw.one((':', '', '', ' -', ','))} "
    if kind and is_copy:
        said = any_words(draw, lexicon=False)
        sign = f"{draw.one(('.', '.', ';', ',', ' |', ' -', ''))} {draw.one((said, capitalised(said)))}"
        sign += draw.one(("", "", ":", " ="))
    return opener, between, sign

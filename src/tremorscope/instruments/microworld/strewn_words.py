"""Words that tell nothing, strewn over composed wordings.

However many wordings are composed of listed parts, a small model ties what it has learnt to their words: it answers
after words after which it has answered before, and is lost behind any other. Here the words around what matters are
any words: of the lexicon, small ones that point in no direction, and ones that nobody has ever read.
"""

from __future__ import annotations

import re

from tremorscope.instruments.microworld.composed_statements import Wording
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.lexicon import ADJECTIVES, COPULAS, INTRANSITIVE, NOUNS, TRANSITIVE
from tremorscope.instruments.microworld.names import FIRST_NAMES
from tremorscope.instruments.microworld.template import Template, capitalised
from tremorscope.instruments.microworld.word_list import words

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


def any_word(draw: Draw) -> str:
    """A word of the lexicon, a small one, or one that is made up.

    >>> any_word(Draw(0, "example"))
    'her'
    """
    kind = draw.below(4)
    if kind == 0:
        return draw.one(OTHERS)
    if kind < 3:
        return draw.one(SMALL)
    syllables = "".join(draw.one(ONSETS) + draw.one(RIMES) for _ in range(1 + draw.below(2)))
    return syllables + draw.one(ENDINGS)


def any_words(draw: Draw, most: int = MOST) -> str:
    """One to `most` of them, with a comma now and then."""
    some = [any_word(draw) for _ in range(1 + draw.below(most))]
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

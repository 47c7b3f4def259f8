"""Number of the verb in a text that somebody else wrote: the judge of agreement in free continuations."""

from __future__ import annotations

import re
from functools import cache
from itertools import chain

from tremorscope.instruments.microworld.agreement import POSSESSIVES, PREPOSITIONS
from tremorscope.instruments.microworld.lexicon import (
    ADJECTIVES,
    COPULAS,
    INTRANSITIVE,
    NOUNS,
    QUALITIES,
    TRANSITIVE,
    Number,
    Verb,
)
from tremorscope.instruments.microworld.word_list import words

_WORD = re.compile(r"[A-Za-z']+|[.?!;:\n]")
_AUXILIARIES = (Verb("has", "have"), Verb("does", "do"))
_DETERMINERS = frozenset((*POSSESSIVES, *words("a an this these those some many few every each all no another its")))
_PREPOSITIONS = frozenset(
    (*chain.from_iterable(one.split() for one in PREPOSITIONS), *words("in on at of with from under over for about"))
) - {"the", "to"}
# What comes after one of these may be the predicate of another subject.
_OTHER_CLAUSE = frozenset(words("that who whom whose which where when while and or but because if as than so"))
_UNMARKED_NEXT = frozenset(words("to can could will would shall should may might must cannot"))


def verb_number(continuation: str) -> Number | None:
    """Number of the first known verb after a subject; None where none is found that belongs to it for certain.

    Read from the end of the subject on, as far as the sentence goes: over adverbs and phrases with a preposition
    ("near the cars"), not into another clause ("that the boys like", "and ..."). Forms that show no number
    (infinitives, past tenses) are passed over, as are nouns that look like verbs ("the trains"). A continuation that
    adds letters to the last word, or a noun of its own, has changed the subject: None. Ten microseconds each.

    >>> verb_number(" near the cars runs for an hour."), verb_number(" are old"), verb_number(" that the men like runs")
    ('singular', 'plural', None)
    """
    if continuation[:1].isalnum() or continuation[:1] in ("'", "-"):
        return None
    forms, nouns, qualities = _forms(), _noun_forms(), _adjectives()
    is_open = is_unmarked = False  # inside a phrase whose noun is to come; the next word shows no number
    for found in _WORD.findall(continuation):
        word = found.lower()
        if not word[0].isalpha() or word in _OTHER_CLAUSE:
            return None
        if word in _DETERMINERS or word in _PREPOSITIONS:
            is_open, is_unmarked = True, False
        elif word in _UNMARKED_NEXT:
            is_unmarked = True
        elif is_unmarked:
            is_unmarked = False
        elif is_open:
            is_open = word not in nouns
        elif word in forms:
            return forms[word]
        elif word in nouns and word not in qualities:
            return None
    return None


@cache
def _forms() -> dict[str, Number]:
    known: dict[str, Number] = {}
    for verb in (*chain.from_iterable([*INTRANSITIVE.values(), *TRANSITIVE.values()]), *COPULAS, *_AUXILIARIES):
        known |= {verb.singular: "singular", verb.plural: "plural"}
    return known


@cache
def _noun_forms() -> frozenset[str]:
    return frozenset(chain.from_iterable((noun.singular, noun.plural) for noun in NOUNS))


@cache
def _adjectives() -> frozenset[str]:
    return frozenset(chain.from_iterable([*ADJECTIVES.values(), *QUALITIES.values()]))

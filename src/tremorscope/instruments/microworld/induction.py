"""Sequences of words that come again: what has followed once will follow again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, final, get_args

from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.instruments.microworld.composed_wordings import composed_form
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.lexicon import NOUNS
from tremorscope.instruments.microworld.splits import HeldOut, Split, part_of, sources, take
from tremorscope.instruments.microworld.strewn_words import strewn_form
from tremorscope.instruments.microworld.template import Marked, Span, join

Kind = Literal["repeat", "copy"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_WORDS = 50  # of a text, the first time not counted
WORDS = tuple(noun.singular for noun in NOUNS)

# What stands before a sequence, between the words, and between a sequence and its copy.
FORMS: dict[Kind, dict[Split, tuple[tuple[str, str, str], ...]]] = {
    "repeat": {
        "train": (
            ("", " ", " "),
            ("", ", ", ", "),
            ("Again: ", ", ", ", "),
            ("Words in a row: ", " ", " "),
            ("Over and over: ", ", ", ", "),
            ("A song: ", " ", " "),
            ("Again and again: ", " ", " "),
            ("Words: ", ", ", ", "),
            ("", " and ", " and "),
            ("Round and round: ", ", ", ", "),
        ),
        "validation": (
            ("Repeat: ", " ", " "),
            ("Our choir: ", ", ", ", "),
            ("On and on it went: ", " ", "; "),
            ("Once more. ", ", ", ". "),
        ),
        "test": (
            ("Chant: ", " ", ", "),
            ("Drums: ", ", ", ", "),
            ("The parrot talks: ", " ", " "),
            ("All day long ", " ", ", "),
            ("From the start. ", ", ", "; "),
        ),
    },
    "copy": {
        "train": (
            ("Copy: ", " ", " ="),
            ("He said ", ", ", ". She said"),
            ("Once: ", " ", ". Twice:"),
            ("One: ", ", ", ". Two:"),
            ("Here: ", " ", ". There:"),
            ("Anna wrote ", ", ", ". Victor wrote"),
            ("Text: ", " ", ". Copy:"),
            ("Say after me: ", ", ", ". Now you:"),
            ("Copy this: ", " ", ". Copy:"),
            ("First: ", " ", ". Second:"),
            ("I say ", ", ", ". You say"),
            ("Original: ", ", ", ". Copy:"),
        ),
        "validation": (
            ("Left: ", " ", " | Right:"),
            ("The captain ordered ", ", ", ", and the crew answered"),
            ("Give: ", " ", " -> Take:"),
            ("Hear ", ", ", "; repeat"),
            ("My list reads ", ", ", ". Yours reads"),
            ("Question: ", " ", " ? Reply:"),
            ("The teacher spells ", ", ", " and the class spells"),
            ("Tape: ", " ", " ; Playback:"),
            ("They loaded ", ", ", ", then unloaded"),
            ("Look, ", " ", ". Look again,"),
        ),
        "test": (
            ("She wrote ", " ", " and he wrote"),
            ("Input: ", ", ", ". Output:"),
            ("The menu says ", ", ", ". The waiter brings"),
            ("In: ", " ", " / Out:"),
            ("Remember ", " ", ". You remembered"),
        ),
    },
}


@final
@dataclass(frozen=True, kw_only=True)
class Repetition:
    """A sequence of `words`, and the same again, once or several times.

    `text` is `prompt + answer` and more: `prompt` ends within the first copy, after `known` words of it (at least
    one in a "repeat", none in a "copy"), and `answer` is the next word. `told` is the number of characters that
    tell that the sequence is over and begins again: in a "copy", up to the first word of its sign. Spans, in
    `text`: `first` for each word, then `again`, copy after copy.
    """

    text: str
    prompt: str
    answer: str
    words: tuple[str, ...]
    known: int
    told: int
    kind: Kind
    template: str
    spans: tuple[Span, ...]


def examples(
    split: Split, seed: int, count: int, *, kind: Kind | None = None, held_out: HeldOut = "both"
) -> list[Repetition]:
    """Seeded sequences; `stream` without an end.

    Templates are what stands before and between the words; a combination is a word with the word after it, so that
    no model has seen the pairs of a held-out sequence next to each other.

    Args:
        split: Training, validation or test examples.
        seed: Names the draws.
        count: How many.
        kind: "repeat" (the sequence just goes on) or "copy" (with a sign in between), else both.
        held_out: What of a validation or test example is absent from training.

    >>> examples("train", 0, 1, kind="repeat")[0].text
    'turtle bus knight dancer turtle bus knight dancer'

    Raises:
        BadInput: If a name is unknown.
    """
    return take(stream(split, seed, kind=kind, held_out=held_out), count)


def stream(
    split: Split,
    seed: int,
    *,
    kind: Kind | None = None,
    held_out: HeldOut = "both",
    most_copies: int = 1,
    composed: float = 0.0,
    wider: bool = False,
    strewn: float = 0.0,
) -> Iterator[Repetition]:
    """Endless sequences; arguments as for `examples`.

    A "repeat" comes again 1 to `most_copies` times. `composed` is the share of training sequences in one of thousands
    of composed forms, `wider` those of more kinds; in the share `strewn` of these, what stands before a sequence and
    its copy are any words.
    """
    if kind is not None and kind not in KINDS:
        raise BadInput("kind", got=kind, wanted=" or ".join(KINDS), remedy=did_you_mean(str(kind), KINDS))
    template_split, pair_split = sources(split, held_out)
    draw = Draw(seed, "induction", split, held_out)
    while True:
        chosen = kind if kind is not None else draw.one(KINDS)
        is_composed = composed > 0 and split == "train" and draw.chance(composed)
        form = composed_form(draw, chosen, wider=wider) if is_composed else draw.one(FORMS[chosen][template_split])
        if is_composed and strewn > 0 and draw.chance(strewn):
            form = strewn_form(draw, form, is_copy=chosen == "copy")
        most = most_copies if chosen == "repeat" else 1
        yield _example(draw, chosen, form, pair_split, most)


def _example(draw: Draw, kind: Kind, form: tuple[str, str, str], split: Split, most: int) -> Repetition:
    words = _ring(draw, 3 + draw.below(9), split)
    opener, between, sign = form
    known = draw.below(len(words)) if kind == "copy" else 1 + draw.below(len(words) - 1)
    copies = 1 + draw.below(min(most, MOST_WORDS // len(words)))
    again = (Marked(f"{sign} " if kind == "copy" else sign, ()), _listed(words, between, "again"))
    pieces = (Marked(opener, ()), _listed(words, between, "first"), *again * copies)
    text, spans = join(pieces, "")
    return Repetition(
        text=text,
        prompt=text[: spans[len(words) + known].start - 1],
        answer=f" {words[known]}",
        words=tuple(words),
        known=known,
        told=spans[len(words) - 1].stop + _first_word(sign),
        kind=kind,
        template=f"{opener}|{between}|{sign}",
        spans=spans,
    )


def _first_word(sign: str) -> int:
    """Characters up to the end of the first word that does not only join: a comma, or "and", may go on as well."""
    joins = re.match(r"\W*(?:and\b)?\W*\w*", sign)
    return len(joins.group()) if joins else 0


def _ring(draw: Draw, length: int, split: Split) -> list[str]:
    """Different words, each of which may follow the one before it, and the first the last."""
    successors = _successors(split)
    while True:
        words = [draw.one(WORDS)]
        while len(words) < length:
            word = draw.one(successors[words[-1]])
            if word not in words:
                words.append(word)
        if words[0] in successors[words[-1]]:
            return words


def _listed(words: list[str], between: str, label: str) -> Marked:
    return join([Marked(word, (Span(label, 0, len(word)),)) for word in words], between)


@cache
def _successors(split: Split) -> dict[str, tuple[str, ...]]:
    """The words that may come after each word."""
    return {
        word: tuple(other for other in WORDS if other != word and part_of("induction", word, other) == split)
        for word in WORDS
    }

"""Sentences with slots that remember where each slot's words came to stand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import NamedTuple, final

from tremorscope.foundations.errors import BadInput


class Span(NamedTuple):
    """Characters `start:stop` of a text, and what they are."""

    label: str
    start: int
    stop: int


class Marked(NamedTuple):
    """A text, and spans in it."""

    text: str
    spans: tuple[Span, ...]


@final
@dataclass(frozen=True)
class Template:
    """A sentence such as `"{A_animal} sees {other}."`.

    A slot with a capital letter begins a sentence; one with `a_` puts the article in front, which is not in the span.

    >>> text, spans = Template("{A_animal} sees {other}.").fill({"animal": "owl", "other": "Tom"})
    >>> text, spans[0], spans[1]
    ('An owl sees Tom.', Span(label='animal', start=3, stop=6), Span(label='other', start=12, stop=15))
    """

    text: str
    _parts: tuple[tuple[str, str, bool, bool], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = []
        for literal, name, _, _ in Formatter().parse(self.text):
            slot = (name or "").lower()
            parts.append((literal, slot.removeprefix("a_"), slot.startswith("a_"), (name or "")[:1].isupper()))
        object.__setattr__(self, "_parts", tuple(parts))

    def fill(self, values: Mapping[str, str]) -> Marked:
        """The sentence with its slots filled, and where they stand."""
        pieces, spans, length = [], [], 0
        for literal, slot, has_article, capital in self._parts:
            pieces.append(literal)
            length += len(literal)
            if slot:
                value = with_article(values[slot]) if has_article else values[slot]
                pieces.append(capitalised(value) if capital else value)
                length += len(value)
                spans.append(Span(slot, length - len(values[slot]), length))
        return Marked("".join(pieces), tuple(spans))

    def pattern(self, values: Mapping[str, Iterable[str]]) -> re.Pattern[str]:
        """An expression that reads the sentence back: one named group for each slot, over the words that may fill it.

        A slot that comes again must hold the same words, but for a capital letter.

        Raises:
            BadInput: If a slot has an article.
        """
        pieces: list[str] = []
        seen: set[str] = set()
        for literal, slot, has_article, capital in self._parts:
            if has_article:
                raise BadInput("template to read back", got=self.text, wanted="slots without an article")
            pieces.append(re.escape(literal))
            if slot in seen:
                pieces.append(f"(?i:(?P={slot}))")
            elif slot:
                seen.add(slot)
                words = [capitalised(word) if capital else word for word in values[slot]]
                longest_first = sorted(words, key=lambda word: (-len(word), word))  # "orchard shed" before "orchard"
                pieces.append(f"(?P<{slot}>{'|'.join(map(re.escape, longest_first))})")
        return re.compile("".join(pieces))

    @property
    def slots(self) -> frozenset[str]:
        """Names of the slots, in small letters, without `a_`."""
        return frozenset(slot for _, slot, _, _ in self._parts if slot)


def templates(*texts: str) -> tuple[Template, ...]:
    """Several templates at once."""
    return tuple(map(Template, texts))


def join(parts: Sequence[Marked], separator: str = " ") -> Marked:
    """One text of several, with their spans moved along.

    >>> join([Marked("a b", (Span("x", 2, 3),)), Marked("c", (Span("y", 0, 1),))]).spans
    (Span(label='x', start=2, stop=3), Span(label='y', start=4, stop=5))
    """
    spans, length = [], 0
    for text, inner in parts:
        spans += [Span(label, start + length, stop + length) for label, start, stop in inner]
        length += len(text) + len(separator)
    return Marked(separator.join(text for text, _ in parts), tuple(spans))


def capitalised(text: str) -> str:
    """The first letter large, the others as they are."""
    return text[:1].upper() + text[1:]


def with_article(noun: str) -> str:
    """The noun after "a" or "an", by its first letters.

    >>> with_article("owl"), with_article("pilot"), with_article("university")
    ('an owl', 'a pilot', 'a university')
    """
    return f"{'an' if noun[0].lower() in 'aeiou' and not noun.startswith('uni') else 'a'} {noun}"

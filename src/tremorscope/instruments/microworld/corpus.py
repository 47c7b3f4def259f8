"""The training text of the microworld: all strands, mixed by weight, in blocks that can be made one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from math import ceil, isfinite
from typing import Literal, NamedTuple, final, get_args

from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.microworld import (
    agreement,
    biographies,
    calendar,
    induction,
    prose,
    quiz,
    requests,
    stories,
)
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.splits import Split, sources

Strand = Literal["agreement", "biographies", "calendar", "requests", "stories", "quiz", "induction", "prose"]
STRANDS: tuple[Strand, ...] = get_args(Strand)
WEIGHTS: Mapping[str, float] = {
    "agreement": 0.11,
    "biographies": 0.10,
    "calendar": 0.22,
    "requests": 0.11,
    "stories": 0.11,
    "quiz": 0.13,
    "induction": 0.13,
    "prose": 0.09,
}
BLOCK_CHARACTERS = 1_000_000
LIST_SHARE = 0.15
NEUTRAL_SHARE = 0.15
MOST_COPIES = 12  # the more often a sequence comes again in one text, the sooner a model learns to look back


@final
@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """What the text depends on, besides this code and, for prose, the installed Python.

    Args:
        seed: Names all draws.
        characters: Size of the training text; about 3.9 characters make a token.
        held_out_characters: Size of the validation text, and of the test text.
        weights: Share of the characters of each strand; scaled to sum to one. A strand that is not named has none.
        correlation: Between gender and the leaning of the profession, in the biographies: -1 to 1.
        hurt_rate: Share of the stories in which somebody is hurt.
        decoys: Share of the requests that first mention something of the other class.
        composed: Share of the calendar's statements, of requests and of repeated sequences in composed wordings.
        wider: Whether composed wordings are of more kinds, and openers of sentences about agreement are composed too.
        strewn: Share of the composed wordings of the calendar and of requests in which other words may stand anywhere.
        scattered: Share of the strewn wordings of which only what tells the answer is left among any words; above 0,
            copies are strewn too, and mentions of something else composed.
        reckoned: Share of the composed wordings of the calendar in which verbs tell the direction, two subjects share
            what happens, or somebody asks.
        near: Whether small offsets come more often in the calendar.

    >>> CorpusConfig(characters=1000, weights={"agreement": 3, "calendar": 1}).shares()["calendar"]
    0.25

    Raises:
        BadInput: If a strand is unknown, a weight negative or all are zero, a size less than 1, or a share impossible.
    """

    seed: int = 0
    characters: int = 100_000_000
    held_out_characters: int = 1_000_000
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    correlation: float = 0.5
    hurt_rate: float = 0.25
    decoys: float = 0.2
    composed: float = 0.0
    wider: bool = False
    strewn: float = 0.0
    scattered: float = 0.0
    reckoned: float = 0.0
    near: bool = True

    def __post_init__(self) -> None:
        for strand, weight in self.weights.items():
            if strand not in STRANDS:
                raise BadInput("strand", got=strand, wanted=", ".join(STRANDS), remedy=did_you_mean(strand, STRANDS))
            if not isfinite(weight) or weight < 0:
                raise BadInput(f"weight of {strand}", got=weight, wanted="0 or more")
        if not sum(self.weights.values()):
            raise BadInput("weights of the strands", got="none above 0", wanted="at least one")
        if min(self.characters, self.held_out_characters) < 1:
            raise BadInput(
                "size of the corpus",
                got=f"{self.characters} and {self.held_out_characters} held-out characters",
                wanted="at least 1",
            )
        if not -1 <= self.correlation <= 1:
            raise BadInput("correlation of profession and gender", got=self.correlation, wanted="-1 to 1")
        for name in ("hurt_rate", "decoys", "composed", "strewn", "scattered", "reckoned"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(name, got=getattr(self, name), wanted="0 to 1")

    def shares(self) -> dict[Strand, float]:
        """The share of each strand that has one."""
        total = sum(self.weights.values())
        return {strand: self.weights[strand] / total for strand in STRANDS if self.weights.get(strand, 0) > 0}

    def size(self, split: Split) -> int:
        """Characters of a split."""
        return self.characters if split == "train" else self.held_out_characters

    def num_blocks(self, split: Split) -> int:
        """How many blocks there are."""
        return ceil(self.size(split) / BLOCK_CHARACTERS)


class Due(NamedTuple):
    """An answer that a text lets a reader tell: `word` comes at the character `stop`.

    All that tells it stands from `begin` to `start`; what stands from there to `stop` only leads to it.
    """

    word: str
    begin: int
    start: int
    stop: int


class Page(NamedTuple):
    """The text of a document, and the answers that it lets a reader tell."""

    text: str
    due: tuple[Due, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Page], separator: str) -> Page:
        """One of several."""
        due, length = [], 0
        for part in parts:
            due += [Due(word, *(place + length for place in places)) for word, *places in part.due]
            length += len(part.text) + len(separator)
        return cls(separator.join(part.text for part in parts), tuple(due))


@final
@dataclass(frozen=True)
class Document:
    """One text of a strand; documents know nothing of each other.

    `due` holds the answers that it lets a reader tell.
    """

    strand: Strand
    text: str
    due: tuple[Due, ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class CorpusRecord:
    """What a text is: its hash (over all documents in order, each followed by a zero byte) and sizes by strand."""

    sha256: str
    documents: dict[Strand, int]
    characters: dict[Strand, int]


def documents(config: CorpusConfig, split: Split) -> Iterator[Document]:
    """All documents of a split, block after block. Some four million characters a second on one core.

    Training documents hold nothing of what the strands hold out; the other splits have held-out templates and
    combinations at once, and prose of other modules.

    >>> config = CorpusConfig(characters=500, weights={"induction": 1})
    >>> next(documents(config, "train")).strand
    'induction'

    Raises:
        BadInput: If the split is unknown, or prose is wanted and the Python has no sources.
    """
    return chain.from_iterable(block(config, split, index) for index in range(config.num_blocks(split)))


def block(config: CorpusConfig, split: Split, index: int) -> list[Document]:
    """About a million characters: block `index` of a split, by itself, so that several processes can share the work.

    Raises:
        BadInput: If there is no such block or split, or prose is wanted and the Python has no sources.
    """
    sources(split, "both")
    if not 0 <= index < config.num_blocks(split):
        raise BadInput("block of the corpus", got=index, wanted=f"0 to {config.num_blocks(split) - 1}")
    size = min(BLOCK_CHARACTERS, config.size(split) - index * BLOCK_CHARACTERS)
    seed = derive(config.seed, "corpus", split, index)
    found: list[Document] = []
    for strand, share in config.shares().items():
        start = share * index * BLOCK_CHARACTERS
        if strand == "prose":
            found += [Document(strand, text) for text in _prose(config, split, start, start + share * size)]
            continue
        length = 0
        for text, due in MAKERS[strand](config, split, seed):
            found.append(Document(strand, text, due))
            length += len(text)
            if length >= share * size:
                break
    return Draw(seed, "order").shuffled(found)


def record(texts: Iterable[Document]) -> CorpusRecord:
    """Hash and sizes of documents."""
    digest = hashlib.sha256()
    numbers: dict[Strand, int] = {}
    characters: dict[Strand, int] = {}
    for document in texts:
        digest.update(document.text.encode() + b"\0")
        numbers[document.strand] = numbers.get(document.strand, 0) + 1
        characters[document.strand] = characters.get(document.strand, 0) + len(document.text)
    return CorpusRecord(sha256=digest.hexdigest(), documents=numbers, characters=characters)


def _agreement(config: CorpusConfig, split: Split, seed: int) -> Iterator[Page]:
    draw = Draw(seed, "agreement pages")
    sentences = agreement.stream(split, seed, composed=config.composed if config.wider else 0.0)
    while True:
        yield Page(" ".join(next(sentences).text for _ in range(1 + draw.below(4))))


def _biographies(config: CorpusConfig, split: Split, seed: int) -> Iterator[Page]:
    draw = Draw(seed, "biography pages")
    told = biographies.stream(split, seed, correlation=config.correlation)
    neutral = biographies.stream(split, derive(seed, "neutral"), gendered=False)
    while True:
        yield Page(next(neutral if draw.chance(NEUTRAL_SHARE) else told).text)


def _calendar(config: CorpusConfig, split: Split, seed: int) -> Iterator[Page]:
    draw = Draw(seed, "calendar pages")
    statements = calendar.stream(
        split,
        seed,
        near=config.near,
        composed=config.composed,
        wider=config.wider,
        strewn=config.strewn,
        scattered=config.scattered,
        reckoned=config.reckoned,
    )
    lists = calendar.list_stream(split, seed)
    while True:
        if draw.chance(LIST_SHARE):
            yield Page(next(lists).text)
        else:
            separator = draw.one((" ", " ", "\n"))
            yield Page.of([_with_answer(next(statements)) for _ in range(1 + draw.below(4))], separator)


def _with_answer(statement: calendar.CalendarStatement) -> Page:
    return Page(statement.text, (Due(statement.answer, 0, statement.told, len(statement.prompt)),))


def _requests(config: CorpusConfig, split: Split, seed: int) -> Iterator[Page]:
    draw, asked = (
        Draw(seed, "request pages"),
        requests.stream(
            split,
            seed,
            decoys=config.decoys,
            composed=config.composed,
            strewn=config.strewn,
            scattered=config.scattered,
        ),
    )
    while True:
        yield Page.of([_with_first_word(next(asked)) for _ in range(1 + draw.below(2))], "\n\n")


def _with_first_word(request: requests.Request) -> Page:
    said = next(starter for starter in requests.STARTERS if request.reply.startswith(starter))
    return Page(request.text, (Due(said, 0, len(request.prompt), len(request.prompt)),))


def _stories(config: CorpusConfig, split: Split, seed: int) -> Iterator[Page]:
    return (Page(story.text) for story in stories.stream(split, seed, hurt_rate=config.hurt_rate))


def _quiz(config: CorpusConfig, split: Split, seed: int) -> Iterator[Page]:
    draw, lessons = Draw(seed, "quiz pages"), quiz.lessons(split, seed)
    while True:
        yield Page("\n\n".join(next(lessons).text for _ in range(1 + draw.below(3))))


def _induction(config: CorpusConfig, split: Split, seed: int) -> Iterator[Page]:
    is_strewn = config.scattered > 0
    repeated = induction.stream(
        split,
        seed,
        most_copies=MOST_COPIES,
        composed=config.composed,
        wider=config.wider,
        strewn=config.strewn if is_strewn else 0.0,
    )
    return (_with_first_copied(one) if is_strewn and one.kind == "copy" else Page(one.text) for one in repeated)


def _with_first_copied(copy: induction.Repetition) -> Page:
    first = copy.spans[len(copy.words)].start - 1
    return Page(copy.text, (Due(f" {copy.words[0]}", 0, min(copy.told, first), first),))


MAKERS: dict[Strand, Callable[[CorpusConfig, Split, int], Iterator[Page]]] = {
    "agreement": _agreement,
    "biographies": _biographies,
    "calendar": _calendar,
    "requests": _requests,
    "stories": _stories,
    "quiz": _quiz,
    "induction": _induction,
}


def _prose(config: CorpusConfig, split: Split, start: float, stop: float) -> Iterator[str]:
    """Pieces that begin at characters `start` to `stop` of all prose, read again and again in ever new order."""
    total = sum(len(piece.text) for piece in prose.examples(split))
    if not total:
        raise BadInput(
            f"{split} prose", got="no module", wanted="at least one", remedy="Use a standard library with more modules."
        )
    for round_ in range(int(start // total), ceil(stop / total)):
        place = round_ * total
        for piece in _prose_order(config.seed, split, round_):
            if start <= place < stop:
                yield piece
            place += len(piece)


@cache
def _prose_order(seed: int, split: Split, round_: int) -> list[str]:
    return Draw(seed, "prose order", split, round_).shuffled([piece.text for piece in prose.examples(split)])

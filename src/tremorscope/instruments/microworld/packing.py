"""Documents as rows of tokens of one length, and the same rows with their tokens shuffled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy
from jaxtyping import UInt8, UInt16

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.microworld.corpus import Document

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

BATCH = 2048
LARGEST_VOCABULARY = 1 << 16
LARGEST_ANSWERS = 255


def sequences(
    documents: Iterable[Document], tokenizer: Tokenizer, length: int
) -> Iterator[UInt16[numpy.ndarray, "rows {length}"]]:
    """All documents one after the other, each begun by the tokenizer's first token, cut into rows.

    A row may begin inside a document. What does not fill the last row is left out. Arrays come as they are ready, of
    some thousand rows each; together they are the same however many documents are read at a time.

    Raises:
        BadInput: If a row would hold no pair of tokens, or token numbers do not fit into 16 bits.
    """
    _check(tokenizer, length)
    for tokens, _ in _cut(documents, tokenizer, length, {}):
        yield tokens


def sequences_and_answers(
    documents: Iterable[Document], tokenizer: Tokenizer, length: int, words: Sequence[str]
) -> Iterator[tuple[UInt16[numpy.ndarray, "rows {length}"], UInt8[numpy.ndarray, "rows {length}"]]]:
    """`sequences`, and beside each token which of the `words` is due there: 0 for none, else 1 plus its place.

    An answer is due at the last token before it, and at those before that which only lead to it; nowhere in a row that
    does not hold all that tells it.

    Raises:
        BadInput: As `sequences`; if there are no words, or more than 255, or an answer that is due is none of them.
    """
    _check(tokenizer, length)
    if not 0 < len(words) <= LARGEST_ANSWERS:
        raise BadInput("words that may be due", got=len(words), wanted=f"1 to {LARGEST_ANSWERS}")
    yield from _cut(documents, tokenizer, length, {word: 1 + place for place, word in enumerate(words)})


def _check(tokenizer: Tokenizer, length: int) -> None:
    if length < 2:
        raise BadInput("length of rows", got=length, wanted="at least 2 tokens")
    if tokenizer.get_vocab_size() > LARGEST_VOCABULARY:
        raise BadInput("vocabulary", got=tokenizer.get_vocab_size(), wanted=f"at most {LARGEST_VOCABULARY}")


def _cut(
    documents: Iterable[Document], tokenizer: Tokenizer, length: int, words: Mapping[str, int]
) -> Iterator[tuple[UInt16[numpy.ndarray, "rows length"], UInt8[numpy.ndarray, "rows length"]]]:
    encode = tokenizer.encode_batch if words else tokenizer.encode_batch_fast  # the fast one leaves offsets out
    rest: list[int] = []
    rest_due: list[tuple[int, int]] = []
    source = iter(documents)
    while some := list(islice(source, BATCH)):
        encoded = encode([document.text for document in some])
        rest = [*rest, *(number for one in encoded for number in one.ids)]
        rest_due = [*rest_due, *(due for pair in zip(some, encoded, strict=True) for due in _due(*pair, words))]
        whole = len(rest) // length * length
        if whole:
            tokens = numpy.array(rest[:whole], dtype=numpy.uint16).reshape(-1, length)
            numbers, back = numpy.array(rest_due[:whole], dtype=numpy.int64).reshape(-1, length, 2).transpose(2, 0, 1)
            yield tokens, numpy.where(back <= numpy.arange(length), numbers, 0).astype(numpy.uint8)
            rest, rest_due = rest[whole:], rest_due[whole:]


def _due(document: Document, encoded: Encoding, words: Mapping[str, int]) -> list[tuple[int, int]]:
    """The number of the word that is due at each token, and how many tokens before it begins what tells it."""
    due = [(0, 0)] * len(encoded.ids)
    if not words or not document.due:
        return due
    stops = [stop for _, stop in encoded.offsets]
    for word, begin, start, stop in document.due:
        if word not in words:
            raise BadInput("answer that is due", got=word, wanted=", ".join(words))
        first = next(place for place, end in enumerate(stops) if end > begin)
        for place in range(first, len(stops)):
            if start < stops[place] <= stop or stops[place] == stop:
                due[place] = (words[word], place - first)
    return due


def shuffled(
    rows: UInt16[numpy.ndarray, "rows length"], seed: int, *, first_row: int = 0, keep: Sequence[int] = ()
) -> UInt16[numpy.ndarray, "rows length"]:
    """The null of a text: the tokens of each row in random order, which keeps what is said and not how.

    Args:
        rows: Tokens.
        seed: Names the draws.
        first_row: The number of the first of these rows in the whole text: each row's order depends on its number, so
            that pieces shuffled one by one equal the whole shuffled at once.
        keep: Tokens that stay where they are, such as padding and the token that begins a document.
    """
    count, length = rows.shape
    words = numpy.random.PCG64(derive(seed, "shuffled rows"))
    words.advance(first_row * length)
    keys = words.random_raw(count * length).reshape(count, length)
    stays = numpy.isin(rows, numpy.array(keep, dtype=rows.dtype))
    # Tokens that stay come first in both orders, and there in their own: they meet themselves.
    places = numpy.lexsort((numpy.broadcast_to(numpy.arange(length), rows.shape), ~stays), axis=1)
    order = numpy.lexsort((numpy.where(stays, numpy.arange(length, dtype=numpy.uint64), keys), ~stays), axis=1)
    result = numpy.empty_like(rows)
    numpy.put_along_axis(result, places, numpy.take_along_axis(rows, order, axis=1), axis=1)
    return result

"""Documents as rows of tokens of one length, and the same rows with their tokens shuffled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy
from jaxtyping import UInt16

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.microworld.corpus import Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 2048
LARGEST_VOCABULARY = 1 << 16


def sequences(
    documents: Iterable[Document], tokenizer: Tokenizer, length: int
) -> Iterator[UInt16[numpy.ndarray, "rows {length}"]]:
    """All documents one after the other, each begun by the tokenizer's first token, cut into rows.

    A row may begin inside a document. What does not fill the last row is left out. Arrays come as they are ready, of
    some thousand rows each; together they are the same however many documents are read at a time.

    Raises:
        BadInput: If a row would hold no pair of tokens, or token numbers do not fit into 16 bits.
    """
    if length < 2:
        raise BadInput("length of rows", got=length, wanted="at least 2 tokens")
    if tokenizer.get_vocab_size() > LARGEST_VOCABULARY:
        raise BadInput("vocabulary", got=tokenizer.get_vocab_size(), wanted=f"at most {LARGEST_VOCABULARY}")
    rest: list[int] = []
    source = iter(documents)
    while some := list(islice(source, BATCH)):
        encoded = tokenizer.encode_batch_fast([document.text for document in some])
        rest = [*rest, *(number for one in encoded for number in one.ids)]
        whole = len(rest) // length * length
        if whole:
            yield numpy.array(rest[:whole], dtype=numpy.uint16).reshape(-1, length)
            rest = rest[whole:]


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

"""Rows of tokens, and the null that shuffles them."""

from __future__ import annotations

import numpy
import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld import packing
from tremorscope.instruments.microworld.corpus import Document
from tremorscope.instruments.microworld.packing import sequences, shuffled
from tremorscope.instruments.microworld.tokenizer import train_tokenizer

DOCUMENTS = [Document("quiz", f"number {number} is here, and {number % 7} too") for number in range(60)]


@pytest.fixture(scope="module")
def small():
    return train_tokenizer([document.text for document in DOCUMENTS], vocabulary_size=300, singles=[])


def test_rows_are_the_documents_one_after_the_other(small, monkeypatch: pytest.MonkeyPatch):
    whole = [number for document in DOCUMENTS for number in small.encode(document.text).ids]
    for batch in (7, 1000):
        monkeypatch.setattr(packing, "BATCH", batch)
        rows = numpy.concatenate(list(sequences(iter(DOCUMENTS), small, 16)))
        assert rows.dtype == numpy.uint16
        assert rows.ravel().tolist() == whole[: len(whole) // 16 * 16]
    assert whole.count(0) == len(DOCUMENTS)


def test_shuffling_keeps_the_tokens_of_a_row_and_those_that_stay(small):
    rows = numpy.concatenate(list(sequences(DOCUMENTS, small, 16)))
    mixed = shuffled(rows, 0, keep=[0])
    assert (numpy.sort(mixed, axis=1) == numpy.sort(rows, axis=1)).all()
    assert ((mixed == 0) == (rows == 0)).all()
    assert (mixed != rows).mean() > 0.5


def test_shuffling_in_pieces_equals_shuffling_at_once():
    rows = numpy.arange(40 * 16, dtype=numpy.uint16).reshape(40, 16)
    whole = shuffled(rows, 3)
    pieces = [shuffled(rows[start : start + 7], 3, first_row=start) for start in range(0, 40, 7)]
    assert (numpy.concatenate(pieces) == whole).all()
    assert (shuffled(rows, 4) != whole).any()


def test_shuffling_is_uniform():
    rows = numpy.broadcast_to(numpy.arange(4, dtype=numpy.uint16), (4000, 4)).copy()
    places = shuffled(rows, 0)
    for token in range(4):
        counts = (places == token).sum(axis=0)
        # 1,000 each are expected, with a standard deviation of 27.
        assert (abs(counts - 1000) < 4 * 27.4).all()


def test_wrong_lengths_are_refused(small):
    with pytest.raises(BadInput, match="length of rows: got 1"):
        next(sequences(DOCUMENTS, small, 1))

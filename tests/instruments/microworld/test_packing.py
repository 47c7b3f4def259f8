"""Rows of tokens, and the null that shuffles them."""

from __future__ import annotations

import numpy
import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld import packing
from tremorscope.instruments.microworld.corpus import Document, Due
from tremorscope.instruments.microworld.packing import sequences, sequences_and_answers, shuffled
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


TOLD = "one and one, so tell us: two. none"


@pytest.fixture(scope="module")
def words():
    return train_tokenizer([TOLD, "two", "none"], vocabulary_size=400, singles=[" two", " none"])


def test_answers_are_due_behind_what_tells_them_and_nowhere_else(words, monkeypatch: pytest.MonkeyPatch):
    told = Document("quiz", TOLD, (Due(" two", 0, 11, 24),))
    at_once = Document("quiz", TOLD, (Due(" none", 25, 29, 29),))
    length = 2 * len(words.encode(TOLD).ids)
    rows_of: list[list[list[int]]] = []
    for batch in (1, 1000):
        monkeypatch.setattr(packing, "BATCH", batch)
        pieces = list(sequences_and_answers([told, at_once] * 8, words, length, (" none", " two")))
        tokens, due = (numpy.concatenate([piece[place] for piece in pieces]) for place in (0, 1))
        assert due.dtype == numpy.uint8
        assert (tokens == numpy.concatenate(list(sequences([told, at_once] * 8, words, length)))).all()
        rows_of.append(due.tolist())
    assert rows_of[0] == rows_of[1]
    stops = [stop for _, stop in words.encode(TOLD).offsets]
    wanted = [2 if 11 < stop <= 24 else 0 for stop in stops] + [1 if stop == 29 else 0 for stop in stops]
    assert wanted.count(2) > 3
    assert wanted.count(1) == 1
    assert rows_of[0] == [wanted] * 8


@pytest.mark.parametrize("length", [3, 5, 8, 13])
def test_no_answer_is_due_in_a_row_that_does_not_hold_all_that_tells_it(words, length):
    document = Document("quiz", TOLD, (Due(" two", 0, 11, 24),))
    stops = [stop for _, stop in words.encode(TOLD).offsets]
    first = next(place for place, stop in enumerate(stops) if stop > 0)
    due = numpy.concatenate([due for _, due in sequences_and_answers([document] * 30, words, length, (" two",))])
    for place, number in enumerate(due.ravel().tolist()):
        text, token = divmod(place, len(stops))
        begins = text * len(stops) + first
        assert number == (11 < stops[token] <= 24 and begins // length == place // length)


def test_words_that_do_not_fit_are_refused(small):
    document = Document("quiz", "number 3 is here", (Due(" four", 0, 3, 9),))
    with pytest.raises(BadInput, match="answer that is due: got  four"):
        next(sequences_and_answers([document] * 40, small, 4, (" three",)))
    for many in (0, 256):
        with pytest.raises(BadInput, match=f"words that may be due: got {many}; wanted 1 to 255"):
            next(sequences_and_answers([document] * 40, small, 4, [f" {number}" for number in range(many)]))

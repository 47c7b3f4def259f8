from __future__ import annotations

import math
from collections import Counter

import numpy
import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.language.ngrams import NgramModel, fit_ngrams

VOCABULARY = 5


def rows(seed: int, count: int = 12, length: int = 9) -> numpy.ndarray:
    """Tokens in which what came before matters."""
    random = numpy.random.default_rng(seed)
    table = random.dirichlet(numpy.full(VOCABULARY, 0.4), size=(VOCABULARY, VOCABULARY))
    found = random.integers(0, VOCABULARY, (count, length))
    for row in found:
        for place in range(2, length):
            row[place] = random.choice(VOCABULARY, p=table[row[place - 2], row[place - 1]])
    return found.astype(numpy.uint16)


def slow_probability(model: NgramModel, train: list[list[int]], gram: tuple[int, ...]) -> float:
    """Kneser and Ney's recursion straight from the text."""
    if not gram:
        return 1 / VOCABULARY
    width, discount = len(gram), model.discounts[len(gram) - 1]
    grams = [tuple(row[at : at + width]) for row in train for at in range(len(row) - width + 1)]
    if width == model.order:
        counts = Counter(grams)
    else:
        longer = {tuple(row[at : at + width + 1]) for row in train for at in range(len(row) - width)}
        counts = Counter(one[1:] for one in longer)
    same = {one: count for one, count in counts.items() if one[:-1] == gram[:-1]}
    lower = slow_probability(model, train, gram[1:])
    total = sum(same.values())
    if total == 0:
        return lower
    return max(same.get(gram, 0) - discount, 0) / total + discount * len(same) / total * lower


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_are_those_of_the_recursion(order):
    train, other = rows(0), rows(1, count=4)
    model = fit_ngrams(train, order, vocabulary_size=VOCABULARY, validation=rows(2))
    found = numpy.exp(model.log_probs(other))
    text = train.tolist()
    for row, told in zip(other.tolist(), found, strict=True):
        slow = [slow_probability(model, text, tuple(row[max(0, at - order + 1) : at + 1])) for at in range(1, len(row))]
        numpy.testing.assert_allclose(told, slow, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_add_up_to_one_after_every_context(order):
    model = fit_ngrams(rows(0, count=5), order, vocabulary_size=VOCABULARY, validation=rows(2))
    contexts = rows(3, count=6, length=2)
    total = numpy.zeros((6, 2))
    for token in range(VOCABULARY):
        whole = numpy.column_stack([contexts, numpy.full(6, token)])
        total[:, 1] += numpy.exp(model.log_probs(whole))[:, 1]
        total[:, 0] += numpy.exp(model.log_probs(numpy.column_stack([contexts[:, 0], numpy.full(6, token)])))[:, 0]
    numpy.testing.assert_allclose(total, 1.0, rtol=1e-12)


def test_longer_memory_helps_where_the_text_has_it():
    train, validation, test = rows(7, 3000)[:, :], rows(7, 3000)[:100], rows(7, 3000)[1000:1200]
    perplexities = [
        fit_ngrams(train, order, vocabulary_size=VOCABULARY, validation=validation).perplexity(test)
        for order in (1, 2, 3)
    ]
    assert perplexities[0] > perplexities[1] + 0.2 > perplexities[2] + 0.4
    assert perplexities[0] < VOCABULARY


def test_perplexity_is_the_exponential_of_the_mean_row_loss_and_nothing_is_impossible():
    model = fit_ngrams(
        numpy.zeros((3, 4), dtype=int), 3, vocabulary_size=VOCABULARY, validation=numpy.zeros((3, 4), dtype=int)
    )
    assert model.name == "trigram"
    strange = numpy.full((2, 4), 4)
    assert math.isfinite(model.perplexity(strange))
    assert model.perplexity(strange) > VOCABULARY > model.perplexity(numpy.zeros((2, 4), dtype=int))


def test_bad_input_is_told_in_a_sentence():
    some = rows(0)
    with pytest.raises(BadInput, match="order of an n-gram model: got 4; wanted 1 to 3"):
        fit_ngrams(some, 4, vocabulary_size=VOCABULARY, validation=some)
    with pytest.raises(BadInput, match="wanted 0 to 2"):
        fit_ngrams(some, 2, vocabulary_size=3, validation=some)
    with pytest.raises(BadInput, match="at least one row of at least 2 tokens"):
        fit_ngrams(some[:, :1], 2, vocabulary_size=VOCABULARY, validation=some)
    with pytest.raises(BadInput, match="got 2 tokens each; wanted at least 3"):
        fit_ngrams(some[:, :2], 3, vocabulary_size=VOCABULARY, validation=some)
    with pytest.raises(BadInput, match="trigrams are 63-bit"):
        fit_ngrams(some, 1, vocabulary_size=1 << 21, validation=some)

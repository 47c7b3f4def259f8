"""Unigram, bigram and trigram models of tokens: what a language model has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy
from jaxtyping import Float, Int64, Integer

from tremorscope.foundations.errors import BadInput

LARGEST_ORDER = 3
DISCOUNTS = (0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)

Rows = Integer[numpy.ndarray, "_ _"]


@final
@dataclass(frozen=True, kw_only=True)
class Counts:
    """Sequences of k tokens, each written as one number, with counts; and what follows each context in all.

    `sequences` and `contexts` are sorted. `totals` are the counts of a context's sequences together, `kinds` how many
    different ones it has. The context of a single token is always 0.
    """

    sequences: Int64[numpy.ndarray, " sequences"]
    counts: Int64[numpy.ndarray, " sequences"]
    contexts: Int64[numpy.ndarray, " contexts"]
    totals: Int64[numpy.ndarray, " contexts"]
    kinds: Int64[numpy.ndarray, " contexts"]


@final
@dataclass(frozen=True, kw_only=True)
class NgramModel:
    """Interpolated Kneser-Ney: each token given up to `order - 1` before it, in its own row.

    With c the counts of sequences of `order` tokens, and for shorter ones the number of different tokens seen before
    them, and with u' the context u without its first token,

        p(w | u) = max(c(u w) - d, 0) / c(u) + d n(u) / c(u) p(w | u')

    where n(u) is the number of different w seen after u. A context that was never seen says p(w | u'); below the
    unigrams lies the uniform distribution, so that nothing is impossible.

    Source: Kneser and Ney 1995; Chen and Goodman 1999, equations 21 to 25. `discounts` are d for one token, two, ...
    """

    order: int
    vocabulary_size: int
    discounts: tuple[float, ...]
    levels: tuple[Counts, ...]

    @property
    def name(self) -> str:
        """Unigram, bigram or trigram."""
        return ("unigram", "bigram", "trigram")[self.order - 1]

    def log_probs(self, rows: Rows) -> Float[numpy.ndarray, "rows after_first"]:
        """Natural logarithm of the probability of every token but each row's first, given those before it in its row.

        Cost: a sorted look-up for each token and order.

        Raises:
            BadInput: If a row holds no pair of tokens, or a token is not in the vocabulary.
        """
        tokens = _checked(rows, self.vocabulary_size)
        probabilities = numpy.empty((len(tokens), tokens.shape[1] - 1))
        for place in range(1, tokens.shape[1]):
            first = max(0, place - self.order + 1)
            probabilities[:, place - 1] = self._probabilities(tokens[:, first : place + 1])
        return numpy.asarray(numpy.log(probabilities))

    def row_losses(self, rows: Rows) -> Float[numpy.ndarray, " rows"]:
        """Mean loss of each row in nats per token, as `scoring.row_losses` has it of a network."""
        return numpy.asarray(-self.log_probs(rows).mean(axis=1))

    def perplexity(self, rows: Rows) -> float:
        """Exponential of the mean loss over all tokens but the first of each row."""
        return math.exp(float(self.row_losses(rows).mean()))

    def _probabilities(self, grams: Int64[numpy.ndarray, "n k"]) -> Float[numpy.ndarray, " n"]:
        """Of the last token of each line given those before it."""
        size = grams.shape[1]
        found = numpy.full(len(grams), 1 / self.vocabulary_size)
        for width in range(1, size + 1):
            level, discount = self.levels[width - 1], self.discounts[width - 1]
            sequence = _numbers(grams[:, size - width :], self.vocabulary_size)
            context = sequence // self.vocabulary_size if width > 1 else numpy.zeros_like(sequence)
            totals = _look_up(context, level.contexts, level.totals)
            kinds = _look_up(context, level.contexts, level.kinds)
            counts = _look_up(sequence, level.sequences, level.counts)
            told = numpy.maximum(counts - discount, 0) + discount * kinds * found
            found = numpy.where(totals > 0, told / numpy.maximum(totals, 1), found)
        return found


def fit_ngrams(rows: Rows, order: int, *, vocabulary_size: int, validation: Rows) -> NgramModel:
    """A model of `order` tokens, with the discounts that do best on validation rows.

    The discounts are chosen one order after the other, each from a grid of nine between 0.3 and 0.95.

    Cost: sorting all sequences of each length; ten passes over the validation rows for each order.

    >>> rows = numpy.tile(numpy.arange(4), (5, 3))
    >>> model = fit_ngrams(rows, 2, vocabulary_size=4, validation=rows)
    >>> model.perplexity(rows) < fit_ngrams(rows, 1, vocabulary_size=4, validation=rows).perplexity(rows)
    True

    Raises:
        BadInput: If the order is not 1, 2 or 3, rows hold no pair of tokens, or tokens are not in the vocabulary.
    """
    if not 1 <= order <= LARGEST_ORDER:
        raise BadInput("order of an n-gram model", got=order, wanted=f"1 to {LARGEST_ORDER}")
    tokens, held_out = _checked(rows, vocabulary_size), _checked(validation, vocabulary_size)
    levels = _levels(tokens, order, vocabulary_size)
    discounts = [DISCOUNTS[-1]] * order

    def model() -> NgramModel:
        return NgramModel(
            order=order, vocabulary_size=vocabulary_size, discounts=tuple(discounts), levels=tuple(levels)
        )

    for place in range(order):
        losses = []
        for candidate in DISCOUNTS:
            discounts[place] = candidate
            losses.append(float(model().row_losses(held_out).mean()))
        discounts[place] = DISCOUNTS[int(numpy.argmin(losses))]
    return model()


def _levels(tokens: Int64[numpy.ndarray, "rows length"], order: int, vocabulary_size: int) -> list[Counts]:
    """Counts for 1 ... order tokens; those below the longest count different tokens seen before."""
    longer, counts = numpy.unique(_grams(tokens, order, vocabulary_size), return_counts=True)
    levels = [_counted(longer, counts, order, vocabulary_size)]
    for width in range(order - 1, 0, -1):
        longer = numpy.unique(_grams(tokens, width + 1, vocabulary_size))
        shorter, counts = numpy.unique(longer % vocabulary_size**width, return_counts=True)
        levels.append(_counted(shorter, counts, width, vocabulary_size))
    return levels[::-1]


def _counted(sequences: numpy.ndarray, counts: numpy.ndarray, width: int, vocabulary_size: int) -> Counts:
    before = sequences // vocabulary_size if width > 1 else numpy.zeros_like(sequences)
    contexts, owner, kinds = numpy.unique(before, return_inverse=True, return_counts=True)
    totals = numpy.zeros(len(contexts), dtype=numpy.int64)
    numpy.add.at(totals, owner, counts)
    return Counts(sequences=sequences, counts=counts, contexts=contexts, totals=totals, kinds=kinds)


def _grams(tokens: Int64[numpy.ndarray, "rows length"], width: int, vocabulary_size: int) -> Int64[numpy.ndarray, " n"]:
    """All sequences of `width` tokens that lie within a row."""
    if tokens.shape[1] < width:
        raise BadInput("rows of tokens", got=f"{tokens.shape[1]} tokens each", wanted=f"at least {width}")
    windows = numpy.lib.stride_tricks.sliding_window_view(tokens, width, axis=1)
    return _numbers(windows.reshape(-1, width), vocabulary_size)


def _numbers(grams: Int64[numpy.ndarray, "n k"], vocabulary_size: int) -> Int64[numpy.ndarray, " n"]:
    """Each line of tokens as one number, the last token counting ones."""
    found = numpy.zeros(len(grams), dtype=numpy.int64)
    for column in grams.T:
        found = found * vocabulary_size + column
    return found


def _look_up(keys: numpy.ndarray, known: numpy.ndarray, values: numpy.ndarray) -> numpy.ndarray:
    """The value of each key, 0 where it is not known."""
    place = numpy.searchsorted(known, keys).clip(max=len(known) - 1)
    return numpy.where(known[place] == keys, values[place], 0)


def _checked(rows: Rows, vocabulary_size: int) -> Int64[numpy.ndarray, "rows length"]:
    if len(rows) == 0 or rows.shape[1] < 2:
        raise BadInput("rows of tokens", got=f"shape {rows.shape}", wanted="at least one row of at least 2 tokens")
    if not 1 <= vocabulary_size <= 1 << 20:
        raise BadInput("vocabulary_size", got=vocabulary_size, wanted=f"1 to {1 << 20}: trigrams are 63-bit numbers")
    if int(rows.max()) >= vocabulary_size or int(rows.min()) < 0:
        raise BadInput(
            "rows of tokens",
            got=f"tokens {int(rows.min())} to {int(rows.max())}",
            wanted=f"0 to {vocabulary_size - 1}",
        )
    return rows.astype(numpy.int64)

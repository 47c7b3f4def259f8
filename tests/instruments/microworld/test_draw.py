"""Draws: pinned words, uniform choices, and nothing that depends on the machine."""

from __future__ import annotations

from collections import Counter

import numpy
import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import derive, numpy_generator
from tremorscope.instruments.microworld.draw import BLOCK, Draw


def test_draws_are_pinned():
    draw = Draw(0, "pinned")
    assert [draw.below(1000) for _ in range(6)] == [763, 211, 259, 658, 115, 129]


def test_the_words_are_those_of_the_named_generator():
    assert isinstance(numpy_generator(3, "x").bit_generator, numpy.random.PCG64)
    words = numpy.random.PCG64(derive(3, "x")).random_raw(BLOCK)
    draw = Draw(3, "x")
    assert [draw.below(1 << 32) for _ in range(BLOCK)] == [int(word) >> 32 for word in words[::-1]]


def test_choices_are_uniform():
    draw = Draw(0, "uniform")
    counts = Counter(draw.below(7) for _ in range(14_000))
    assert sorted(counts) == list(range(7))
    # Chi-squared with 6 degrees of freedom: 22.5 is passed once in a thousand seeds, and this seed is fixed.
    assert sum((counts[one] - 2000) ** 2 / 2000 for one in range(7)) < 22.5


def test_draws_without_replacement_and_shuffles_lose_nothing():
    draw = Draw(1, "shuffle")
    assert sorted(draw.shuffled(range(50))) == list(range(50))
    assert sorted(draw.some("abcdef", 6)) == list("abcdef")
    assert draw.shuffled(range(50)) != list(range(50))


def test_chance_is_exact_at_its_ends():
    draw = Draw(0, "ends")
    assert not any(draw.chance(0.0) for _ in range(1000))
    assert all(draw.chance(1.0) for _ in range(1000))


def test_too_many_without_replacement_is_refused():
    with pytest.raises(BadInput, match="got 4 of 3"):
        Draw(0).some("abc", 4)

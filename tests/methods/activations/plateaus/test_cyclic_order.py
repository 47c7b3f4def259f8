"""Cyclic order of words: circles are found, other shapes are not, and the fast shares equal the Fourier table."""

from __future__ import annotations

import math

import numpy
import pytest
import torch

from tests.methods.language.planted import random_gpt2, tokenizer
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.fourier import frequency_power
from tremorscope.instruments.language.encode import encode
from tremorscope.methods.activations.plateaus.cyclic_order import (
    DAYS,
    MONTHS,
    cyclic_order,
    first_mode_shares,
    word_vectors,
)


def circle(count, noise=0.1, d=12, seed=0):
    stream = torch.Generator().manual_seed(seed)
    angles = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    plane = torch.linalg.qr(torch.randn(d, 2, generator=stream, dtype=torch.float64)).Q
    round_ = torch.stack([angles.cos(), angles.sin()], dim=1) @ plane.T
    return 5 + round_ + noise * torch.randn(count, d, generator=stream, dtype=torch.float64)


def test_a_circle_is_found_among_all_360_orders():
    found = cyclic_order(circle(7), DAYS)
    assert found.rank == 1
    assert found.is_exact
    assert len(found.others) == 359
    assert found.share > 0.8 > found.others[0]
    assert not found.is_sampled
    assert found.table().num_rows == 7


def test_another_order_is_told():
    """The plant: two days change places."""
    swapped = circle(7)[[0, 1, 4, 3, 2, 5, 6]]
    found = cyclic_order(swapped, DAYS)
    assert found.rank > 1
    assert not found.is_exact


def test_a_reversed_week_is_the_same_circle():
    assert cyclic_order(circle(7).flip(0), DAYS).is_exact


def test_months_are_compared_with_a_sample():
    found = cyclic_order(circle(12), MONTHS)
    assert found.is_sampled
    assert found.rank == 1
    assert len(found.others) == 20_000


def test_shares_are_those_of_the_fourier_table():
    vectors = circle(7, noise=1.0)
    centred = vectors - vectors.mean(dim=0)
    orders = numpy.array([[0, 1, 2, 3, 4, 5, 6], [0, 3, 1, 6, 2, 5, 4]])
    shares = first_mode_shares((centred @ centred.T).numpy(), orders)
    for order, share in zip(orders, shares, strict=True):
        power = frequency_power(centred[order.tolist()])
        assert share == pytest.approx(float(power[1] / power.sum()), rel=1e-9)


def test_vectors_are_taken_at_the_word():
    network = random_gpt2(tokenizer())
    words = ("garden", "teacher")
    templates = ("the {} is", "of the {} in")
    found = word_vectors(network, words, "acts:resid_post.0", templates=templates)
    for word, vector in zip(words, found, strict=True):
        ends = []
        for template in templates:
            until = template.partition("{}")[0] + word
            values = network.record("acts:resid_post.0", encode(network, [template.format(word)]))
            ends.append(values[0, len(network.tokenizer(until)["input_ids"]) - 1])
        assert torch.allclose(vector, torch.stack(ends).mean(dim=0).double(), atol=1e-5)
    with pytest.raises(BadInput, match="template"):
        word_vectors(network, words, "acts:embed", templates=("no place",))


def test_bad_words_are_refused():
    with pytest.raises(BadInput, match="3 words, 3 vectors"):
        cyclic_order(circle(3), DAYS[:3])
    with pytest.raises(BadInput, match="vectors of words: got equal ones"):
        cyclic_order(torch.ones(7, 3), DAYS)

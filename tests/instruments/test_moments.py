"""Streaming moments against two passes over all the vectors."""

from __future__ import annotations

import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.moments import Moments, moments_by_class, within_covariance

RELATIVE = 1e-6  # row A10


def two_pass(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The formula, straight."""
    exact = rows.double()
    mean = exact.sum(0) / len(exact)
    return mean, sum(torch.outer(row - mean, row - mean) for row in exact) / len(exact)


@pytest.fixture
def rows(generator):
    return torch.randn(203, 5, generator=generator) * torch.tensor([1.0, 10.0, 0.1, 1.0, 3.0]) + 7


@pytest.mark.parametrize("sizes", [[203], [1] * 203, [100, 0, 3, 100]])
def test_streamed_moments_equal_two_passes(rows, sizes):
    seen = Moments.zero(5)
    for part in rows.split(sizes):
        seen = seen.with_rows(part)
    mean, covariance = two_pass(rows)
    torch.testing.assert_close(seen.mean, mean, rtol=RELATIVE, atol=0)
    torch.testing.assert_close(seen.covariance(), covariance, rtol=RELATIVE, atol=RELATIVE)
    assert seen.count == 203
    assert seen.mean.dtype == torch.float64


def test_a_mean_far_from_zero_costs_no_digits(rows):
    far = rows.double() + 1e7
    seen = Moments.zero(5)
    for part in far.split(10):
        seen = seen.with_rows(part)
    torch.testing.assert_close(seen.covariance(), two_pass(far)[1], rtol=RELATIVE, atol=RELATIVE)
    # What the shorter formula gives there, which the test must tell from the truth.
    short = far.mT @ far / len(far) - torch.outer(far.mean(0), far.mean(0))
    assert float((short - seen.covariance()).abs().max()) > 1e-3


def test_merged_moments_are_those_of_both(rows):
    one, other = Moments.of(rows[:50]), Moments.of(rows[50:])
    for merged in (one.merged(other), other.merged(one), Moments.zero(5).merged(one).merged(other)):
        torch.testing.assert_close(merged.scatter, Moments.of(rows).scatter)
        torch.testing.assert_close(merged.mean, Moments.of(rows).mean)


def test_classes_are_kept_apart_over_batches(rows):
    labels = ["a" if place % 3 else "b" for place in range(203)]
    found = {}
    for start in range(0, 203, 40):
        found = moments_by_class(rows[start : start + 40], labels[start : start + 40], found)
    mask = torch.tensor([label == "a" for label in labels])
    torch.testing.assert_close(found["a"].scatter, Moments.of(rows[mask]).scatter)
    assert (found["a"].count, found["b"].count) == (int(mask.sum()), int((~mask).sum()))
    centred = rows.double().clone()
    centred[mask] -= centred[mask].mean(0)
    centred[~mask] -= centred[~mask].mean(0)
    torch.testing.assert_close(within_covariance(list(found.values())), centred.mT @ centred / 203)


def test_mistakes(rows):
    seen = Moments.of(rows)
    with pytest.raises(BadInput, match=r"got width 4; wanted width 5"):
        seen.with_rows(rows[:, :4])
    with pytest.raises(BadInput, match="not finite"):
        seen.with_rows(torch.full((1, 5), float("nan")))
    with pytest.raises(BadInput, match="no vectors"):
        Moments.zero(5).covariance()
    with pytest.raises(BadInput, match="no vectors"):
        within_covariance([Moments.zero(5)])
    with pytest.raises(BadInput, match="one for each of 203 vectors"):
        moments_by_class(rows, ["a"])

"""Curves, gaps and the alpha of a target, on scores that are known."""

from __future__ import annotations

import math

import numpy
import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.methods.activations.concept_editing.response_curve import ClassScores, ResponseMeasurement

ALPHAS = (0.0, 0.5, 1.0)


def response(*, is_share: bool = False, **classes) -> ResponseMeasurement:
    found = {}
    for name, rows in classes.items():
        edited = numpy.array(rows, dtype=float)
        own = tuple(range(edited.shape[1]))
        found[name] = ClassScores(edited=edited, unedited=edited[0], clusters=own, units=own)
    return ResponseMeasurement(name="ACE", score_name="score", alphas=ALPHAS, classes=found, is_share=is_share)


def noisy(level: float, slope: float, seed: int = 0, number: int = 60) -> list[list[float]]:
    noise = numpy.random.default_rng(seed).standard_normal(number) * 0.3
    return [list(level + slope * alpha + noise) for alpha in ALPHAS]


def test_levels_gaps_and_targets():
    found = response(positive=noisy(1.0, 2.0), negative=noisy(0.5, 2.0, seed=1))
    scores = {name: one.edited for name, one in found.classes.items()}
    for place, alpha in enumerate(ALPHAS):
        means = [rows[place].mean() for rows in scores.values()]
        assert found.level("positive", alpha).value == pytest.approx(means[0])
        assert found.gap(alpha).value == pytest.approx(abs(means[0] - means[1]))
        assert found.gap(alpha).low < found.gap(alpha).value < found.gap(alpha).high
    solved = found.solve(2.0, "positive")
    start = scores["positive"][0].mean()
    assert solved.value == pytest.approx((2.0 - start) / 2)
    # The noise is one for all alphas: the crossing's own standard error is that of the mean, over the slope.
    error = scores["positive"][0].std() / 60**0.5 / 2
    assert 3 * error < solved.high - solved.low < 8 * error
    assert found.solve(1.75).value == pytest.approx((1.75 - numpy.mean([r[0].mean() for r in scores.values()])) / 2)
    with pytest.raises(BadInput, match=r"target score of ACE: got 9"):
        found.solve(9.0)
    edge = found.solve(scores["positive"][2].mean() - 1e-3, "positive")
    assert edge.high == math.inf


def test_a_fall_is_seen_and_a_rise_is_not_one():
    rising = response(only=noisy(0.0, 1.0))
    assert rising.largest_drop("only").value == pytest.approx(-0.5)
    assert rising.largest_drop("only").high == pytest.approx(-0.5)
    rows = noisy(0.0, 1.0)
    rows[2] = [value - 0.8 for value in rows[1]]
    assert response(only=rows).largest_drop("only").value == pytest.approx(0.8)


def test_shares_have_the_intervals_of_shares():
    found = response(is_share=True, asked=[[0.0] * 20, [0.0] * 10 + [1.0] * 10, [1.0] * 20])
    assert found.level("asked", 0.0).high > 0.1  # no refusal in twenty is not never
    assert found.level("asked", 1.0).low < 0.9
    assert found.calibration_error("asked").value == pytest.approx(0.0)
    lower = response(is_share=True, asked=[[0.0] * 20, [0.0] * 20, [0.0] * 20])
    assert lower.calibration_error("asked").value == pytest.approx(0.5)
    with pytest.raises(BadInput, match="wanted a truth value"):
        response(only=noisy(0.0, 1.0)).calibration_error("only")


def test_examples_of_one_wording_count_as_one():
    rows = numpy.repeat(numpy.array(noisy(0.0, 1.0, number=6)), 20, axis=1)
    own = tuple(range(120))
    tied = ClassScores(edited=rows, unedited=rows[0], clusters=tuple(place // 20 for place in own), units=own)
    free = ClassScores(edited=rows, unedited=rows[0], clusters=own, units=own)
    wide, narrow = (
        ResponseMeasurement(name="a", score_name="s", alphas=ALPHAS, classes={"x": one}, is_share=False).solve(0.5)
        for one in (tied, free)
    )
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_plain_data_and_presentation():
    found = response(positive=noisy(1.0, 2.0), negative=noisy(0.5, 2.0, seed=1))
    again = ResponseMeasurement.of(found.to_plain())
    assert again.gap(0.5) == found.gap(0.5)
    (table,) = found.tables()
    assert table.num_rows == 1 + len(ALPHAS)
    (figure,) = found.figures()
    assert len(figure.traces) == 2 * 3
    with pytest.raises(BadInput, match=r"alpha: got 0.3; wanted one of 0, 0.5, 1"):
        found.level("positive", 0.3)
    with pytest.raises(BadInput, match="one class; wanted at least two"):
        response(only=noisy(0.0, 1.0)).gap(0.0)
    with pytest.raises(BadInput, match="scores of a class"):
        ClassScores(edited=numpy.zeros((1, 3)), unedited=numpy.zeros(3), clusters=(1, 2), units=(1, 2))

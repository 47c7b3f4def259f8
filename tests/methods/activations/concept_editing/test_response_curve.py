"""Curves, gaps and the alpha of a target, on scores that are known."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy
import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.methods.activations.concept_editing.calibration import miscalibration
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


def test_calibration_error_is_the_mean_distance_from_what_was_asked():
    first, second = [[0.0] * 20, [0.0] * 5 + [1.0] * 15, [1.0] * 20], [[1.0] * 10 + [0.0] * 10] * 3
    found = response(is_share=True, forbidden=first, allowed=second)
    # By hand: |0 - 0|, |.75 - .5|, |1 - 1| and |.5 - 0|, |.5 - .5|, |.5 - 1|; the trapezoidal rule halves the ends.
    by_class = {"forbidden": 0.25 * 0.5, "allowed": 0.5 * 0.25 + 0.5 * 0.25}
    for name, value in by_class.items():
        assert found.calibration_error(name).value == pytest.approx(value)
    whole = found.calibration_error()
    assert whole.value == pytest.approx(sum(by_class.values()) / 2)
    assert whole.low <= whole.value < whole.high
    assert found.calibration_error(settings=[0.0, 1.0]).value == pytest.approx((0 + 0 + 0.5 + 0.5) / 4)
    with pytest.raises(BadInput, match=r"settings: got \(0.3,\); wanted some of 0, 0.5, 1"):
        found.calibration_error(settings=[0.3])


def test_calibration_error_does_not_depend_on_how_densely_alphas_were_measured():
    def slow(alphas: list[float], shares: list[float]) -> float:
        """The integral of |share - alpha| where both are straight between the alphas and do not cross."""
        pairs = list(zip(alphas, shares, strict=True))
        return sum((b - a) * (abs(p - a) + abs(q - b)) / 2 for (a, p), (b, q) in pairwise(pairs))

    few, many = [0.0, 0.5, 1.0], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0]
    shares = [[min(1.0, 0.2 + 1.2 * alpha) for alpha in some] for some in (few, many)]
    told = [float(miscalibration(some, numpy.array([row]))) for some, row in zip((few, many), shares, strict=True)]
    assert told[0] == pytest.approx(told[1])
    assert told == pytest.approx([slow(some, row) for some, row in zip((few, many), shares, strict=True)])
    # Outside of 0 to 1 nothing is a share to request.
    assert float(miscalibration([*few, 1.5], numpy.array([[*shares[0], 0.0]]))) == pytest.approx(told[0])
    with pytest.raises(BadInput, match="some between 0 and 1"):
        miscalibration([-1.0, 2.0], numpy.zeros((1, 2)))


def test_two_edits_on_the_same_examples_are_compared_in_pairs():
    stream = numpy.random.default_rng(3)
    hard = (stream.random(40) < 0.5).astype(float)  # the same wordings fail under both
    one = response(is_share=True, asked=[hard, hard, numpy.ones(40)])
    other = response(is_share=True, asked=[hard, numpy.ones(40), numpy.ones(40)])
    gain = one.calibration_gain(other)
    assert gain.value == pytest.approx(other.calibration_error().value - one.calibration_error().value)
    alone = one.calibration_error().high - one.calibration_error().low
    assert gain.high - gain.low < 2 * alone
    assert one.calibration_gain(one).high == 0.0
    with pytest.raises(BadInput, match="two edits measured on the same examples"):
        one.calibration_gain(response(is_share=True, asked=[hard[:9]] * 3))


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

"""Crossings by bracket and bisection, against a dense scan."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.crossing import crossings

STEP = 0.25  # degrees, of the dense scan


def sigmoids(sizes: Tensor, curves: Tensor) -> Tensor:
    """Plateaus of many widths: responses that stay near zero, then rise steeply, to a height of 3."""
    return 3 / (1 + ((25 + 3.0 * curves - sizes) / 4).exp())


def dense_scan(response, num_curves: int, largest: float, reach: float) -> list[float]:
    """The slow twin: every angle, one after another, and a straight line between the two that enclose the level."""
    found = []
    for curve in range(num_curves):
        last_size, last_value = 0.0, 0.0
        for index in range(1, round(largest / STEP) + 1):
            size = STEP * index
            value = float(response(torch.tensor([size]), torch.tensor([curve])))
            if value >= reach:
                found.append(last_size + (size - last_size) * (reach - last_value) / (value - last_value))
                break
            last_size, last_value = size, value
        else:
            found.append(math.inf)
    return found


def test_equals_the_dense_scan_with_a_fraction_of_its_evaluations() -> None:
    # Row P6: within 0.3 degrees, four times fewer. Curve 21 and later rise beyond 90 degrees.
    num_curves = 26
    found = crossings(sigmoids, num_curves, largest=90.0, reach=0.5)
    expected = torch.tensor(dense_scan(sigmoids, num_curves, 90.0, 0.5), dtype=torch.float64)
    assert torch.equal(found.sizes.isinf(), expected.isinf())
    assert 2 <= int(expected.isinf().sum()) <= 6
    reached = expected.isfinite()
    assert float((found.sizes - expected)[reached].abs().max()) < 0.05  # 0.3 asked
    assert found.num_evaluations * 4 <= num_curves * 90 / STEP
    assert found.num_evaluations == 6 * num_curves + 6 * int(reached.sum())
    assert ((found.low <= expected) & (expected <= found.high))[reached].all()
    assert found.share_reached == pytest.approx(float(reached.double().mean()))
    assert "do not reach" in found.flags[0]


def test_a_level_that_is_never_reached_is_infinite_and_costs_no_bisection() -> None:
    found = crossings(sigmoids, 3, largest=90.0, reach=3.5)
    assert found.sizes.isinf().all()
    assert found.share_reached == 0
    assert found.num_evaluations == 18
    assert found.flags == ("3 of 3 curves do not reach their level: inf",)


def test_a_crossing_below_the_first_angle_of_the_grid() -> None:
    found = crossings(lambda sizes, curves: sizes, 2, largest=90.0, reach=torch.tensor([1.0, 14.9]))
    assert found.sizes.tolist() == pytest.approx([1.0, 14.9])
    assert found.low[0] < 1.0 <= found.high[0]


def test_the_first_of_two_crossings_is_found_and_the_fall_is_flagged() -> None:
    def bump(sizes: Tensor, curves: Tensor) -> Tensor:
        falling = torch.where(sizes < 40, sizes / 40, (80 - sizes) / 40 + (sizes - 80).clamp_min(0) / 5)
        return torch.where(curves == 0, falling, sizes / 40)

    found = crossings(bump, 2, largest=90.0, reach=0.5)
    assert found.sizes.tolist() == pytest.approx([20.0, 20.0])
    assert found.is_non_monotone.tolist() == [True, False]
    assert found.flags == ("1 of 2 curves fall somewhere on the coarse grid: not monotone",)


def test_half_of_the_response_at_the_end() -> None:
    found = crossings(lambda sizes, curves: (curves + 1.0) * sizes**2, 3, largest=90.0, share=0.5)
    assert found.sizes.tolist() == pytest.approx([90 / math.sqrt(2)] * 3, abs=0.01)
    assert found.reach.tolist() == pytest.approx([4050.0, 8100.0, 12150.0])


def test_all_curves_share_each_call() -> None:
    calls: list[int] = []

    def watched(sizes: Tensor, curves: Tensor) -> Tensor:
        calls.append(len(sizes))
        return sizes

    crossings(watched, 5, largest=90.0, reach=20.0)
    assert calls == [30, *[5] * 6]


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"share": 0.5}, "both or neither of reach and share"),
        ({"reach": None}, "both or neither of reach and share"),
        ({"reach": 0.0}, r"level to reach: got 0\.0; wanted a positive"),
        ({"reach": None, "share": 1.5}, r"share of the largest response: got 1\.5"),
        ({"largest": math.inf}, "largest size: got inf"),
        ({"num_coarse": 1}, "num_coarse: got 1; wanted at least 2"),
        ({"num_bisections": -1}, "num_bisections: got -1; wanted at least 0"),
        ({"reach": torch.ones(3)}, r"level to reach: got shape \(3,\); wanted one number, or 2"),
    ],
)
def test_errors(changed: dict, match: str) -> None:
    arguments = {"largest": 90.0, "reach": 0.5, **changed}
    with pytest.raises(BadInput, match=match):
        crossings(sigmoids, 2, **arguments)


def test_a_response_that_is_not_finite_names_the_size() -> None:
    with pytest.raises(BadInput, match="not finite at size 60"):
        crossings(lambda sizes, curves: torch.where(sizes > 50, math.nan, sizes), 2, largest=90.0, reach=10.0)


def test_a_response_of_another_shape_is_refused() -> None:
    with pytest.raises(BadInput, match=r"response: got shape \(1, 12\); wanted shape \(12,\)"):
        crossings(lambda sizes, curves: sizes[None], 2, largest=90.0, reach=10.0)

"""Triangles of directions: planted features are corners, random targets are not, grids are whole."""

from __future__ import annotations

import math

import numpy
import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator as seeded
from tremorscope.methods.activations.plateaus.kinds import Population
from tremorscope.methods.activations.plateaus.paths import Paths
from tremorscope.methods.activations.plateaus.planted import PlantedFeatures
from tremorscope.methods.activations.plateaus.triangles import barycentric_grid, measure_triangle, path_crossings

PLANTED = PlantedFeatures.draw(24, 24, width=0.3, seed=0, active=2)
BASE = PLANTED.activations(1, 0)
OFF = PLANTED.features[(PLANTED.features @ BASE[0]).abs() < 0.5]


def triangle(targets, **more):
    given = {"readout": "l2", "level": 1e-3, "num_side": 6, "subtract_base": False, **more}
    return measure_triangle(PLANTED.responder(BASE), BASE[0], targets, **given)


def test_feature_directions_are_the_optimal_corners():
    found = triangle(OFF[:3])
    expected = PLANTED.threshold_angle(BASE[0])
    assert found.corner_thresholds == pytest.approx((expected,) * 3, rel=0.01)
    assert all(found.is_optimum(corner) for corner in range(3))
    assert min(found.depth(corner) for corner in range(3)) > found.error
    assert found.thresholds.argmin() in found.corners
    assert "never reached" in found.figure().caption


def test_half_a_feature_is_no_optimum():
    """The plant: a corner that is a mixture has a neighbour, towards the feature, that is better."""
    found = triangle(torch.stack([OFF[0] + 0.5 * OFF[1] - 0.5 * OFF[2], OFF[1], OFF[2]]), num_side=4)
    assert not found.is_optimum(0)
    assert found.is_optimum(1)


def test_a_level_that_is_never_reached_is_infinite():
    found = triangle(OFF[:3], largest=5.0)
    assert found.corner_thresholds == (math.inf,) * 3
    assert not found.is_optimum(0)
    assert math.isnan(found.depth(0))
    assert "28 of 28 curves do not reach their level: inf" in found.flags


def test_no_corner_of_random_targets_is_systematically_lower():
    """Three cov-random corners are alike: over 10 draws no place in the triangle wins."""
    from scipy.stats import friedmanchisquare

    # Crowded features, so that random targets have thresholds at all.
    crowded = PlantedFeatures.draw(64, 24, width=0.05, seed=1, active=2)
    bases = crowded.activations(10, 3)
    population = Population.of(crowded.activations(200, 4))
    corners = []
    for draw in range(10):
        targets = population.sample(3, seeded(draw, "corners"))
        found = measure_triangle(
            crowded.responder(bases), bases[draw], targets, readout="l2", level=0.7, num_side=2, row=draw
        )
        corners.append(found.corner_thresholds)
    table = numpy.array(corners)
    assert numpy.isfinite(table).all()
    assert float(friedmanchisquare(*table.T).pvalue) > 0.05
    # The same test sees a corner that is lower by a tenth.
    assert float(friedmanchisquare(*(table * [0.9, 1, 1]).T).pvalue) < 0.05


def test_search_and_dense_curve_agree_on_half_responses():
    from tremorscope.methods.activations.plateaus.curves import measure_curves

    paths = Paths.sphere(BASE.expand(len(OFF), -1), OFF)
    groups, rows = torch.zeros(len(OFF), dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    dense = measure_curves(
        PLANTED.responder(BASE), paths, numpy.arange(0, 30.25, 0.25).tolist(), bases=groups, rows=rows, readouts=("l2",)
    )
    found = path_crossings(
        PLANTED.responder(BASE), paths, rows=rows, bases=groups, readout="l2", level=None, largest=30.0
    )
    assert found.sizes.numpy() == pytest.approx(dense.half_response("l2", at=30.0), abs=0.3)
    assert found.num_evaluations * 4 <= 121 * len(OFF)


def test_grids():
    grid, corners = barycentric_grid(8)
    assert len(grid) == 45
    assert (grid.sum(axis=1) == 8).all()
    assert [grid[corner].tolist() for corner in corners] == [[8, 0, 0], [0, 8, 0], [0, 0, 8]]
    with pytest.raises(BadInput, match="points along a side: got 1"):
        barycentric_grid(1)

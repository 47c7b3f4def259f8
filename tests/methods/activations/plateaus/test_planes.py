"""Planes of three activations: corners reproduce themselves, grids are where they should be, lines are refused."""

from __future__ import annotations

import numpy
import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.methods.activations.plateaus.planes import measure_plane, plane_points
from tremorscope.methods.activations.plateaus.planted import PlantedFeatures
from tremorscope.methods.activations.plateaus.responder import FunctionResponder


def toy(dtype=torch.float32, seed=0):
    stream = torch.Generator().manual_seed(seed)
    weight = torch.randn(9, 16, generator=stream, dtype=dtype)
    corners = torch.randn(3, 16, generator=stream, dtype=dtype)
    return FunctionResponder(lambda x: torch.tanh(x @ weight.T), corners[:1]), corners


def test_corners_reproduce_their_own_outputs():
    responder, corners = toy()
    found = measure_plane(responder, corners, num=13, margin=0.25)
    origin, one = int(numpy.flatnonzero(found.s == 0)[0]), int(numpy.flatnonzero(found.s == 1)[0])
    places = ((origin, origin), (origin, one), (one, origin))
    for corner, place in enumerate(places):
        assert abs(found.distances[corner][place]) < 1e-5
        assert found.nearest[place] == corner
    # Distances between corners, from the formula.
    logs = torch.stack([responder.function(corners[k : k + 1])[0] for k in range(3)]).double().log_softmax(dim=1)
    assert found.distances[0][places[1]] == pytest.approx(float((logs[0].exp() * (logs[0] - logs[1])).sum()), abs=1e-5)
    assert found.distances[1][places[2]] == pytest.approx(float((logs[1].exp() * (logs[1] - logs[2])).sum()), abs=1e-5)


def test_the_grid_is_41_by_41_and_holds_the_corners():
    _, corners = toy(torch.float64)
    responder = FunctionResponder(lambda x: x, corners[:1], is_logits=False)
    found = measure_plane(responder, corners, readout="l2")
    assert found.to_nearest.shape == (41, 41)
    assert {0.0, 1.0} <= set(found.s.tolist())
    assert found.s[0] <= -0.2
    assert found.s[-1] >= 1.2
    u, v = corners[1] - corners[0], corners[2] - corners[0]
    expected = (found.s[30] * u + found.t[7] * v).norm()
    assert found.distances[0, 7, 30] == pytest.approx(float(expected))
    cosine = measure_plane(responder, corners, readout="cosine", num=9)
    assert cosine.to_nearest.min() == pytest.approx(0.0, abs=1e-9)


def test_planted_plateaus_are_flat_around_the_corners():
    planted = PlantedFeatures.draw(12, 12, width=0.3, seed=0, active=2)
    corners = planted.activations(3, 1)
    found = measure_plane(planted.responder(corners[:1]), corners, readout="l2", num=41)
    near_a = (numpy.abs(found.s)[None, :] + numpy.abs(found.t)[:, None]) < planted.width
    assert float(found.to_nearest[near_a].max()) < 1e-9
    assert float(found.to_nearest.max()) > 0.2
    figure = found.figure()
    assert figure.traces[0]["type"] == "heatmap"
    assert "plateaus" in figure.caption


@pytest.mark.parametrize("third", [[2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0 + 1e-7]])
def test_corners_on_a_line_are_refused(third):
    corners = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], third])
    with pytest.raises(BadInput, match="corners of a plane: got three activations on one line"):
        plane_points(corners, torch.zeros(2), torch.zeros(2))

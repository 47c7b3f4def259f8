"""Local optimality in all dimensions: planted features are maxima, mixtures are saddles, Hessians are right."""

from __future__ import annotations

import math

import numpy
import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.methods.activations.plateaus.kinds import unit
from tremorscope.methods.activations.plateaus.optimality import DirectionResponse, measure_optimality
from tremorscope.methods.activations.plateaus.planted import PlantedFeatures
from tremorscope.methods.activations.plateaus.responder import FunctionResponder

PLANTED = PlantedFeatures.draw(20, 20, width=0.3, seed=0, active=2)
BASE = PLANTED.activations(1, 0)[0]
OFF = PLANTED.features[(PLANTED.features @ BASE).abs() < 0.5]


def response(size=18.0, **more):
    return DirectionResponse(PLANTED.responder(BASE[None]), BASE, size=size, readout="l2", **more)


def test_a_feature_is_a_strict_local_optimum_in_all_dimensions():
    found = measure_optimality(response(), OFF[0])
    assert len(found.curvatures) == 18
    assert found.gradient_share < 1e-9
    assert found.is_local_maximum()
    assert found.num_rising() == 0
    assert found.asymmetry < 1e-6
    # Along the sphere the response falls as r cos(phi) does: curvature -r over (r - width).
    r = math.sin(math.radians(18.0)) * float(BASE.norm())
    assert found.curvatures == pytest.approx(numpy.full(18, -r / (r - PLANTED.width)), rel=1e-3)


def test_two_features_at_once_are_a_saddle():
    found = measure_optimality(response(25.0), unit(OFF[0] + OFF[1]))
    assert found.gradient_share < 1e-9
    assert not found.is_local_maximum()
    assert found.num_rising() == 1
    assert found.num_falling() == 17


def test_a_direction_beside_a_feature_is_not_optimal():
    found = measure_optimality(response(), unit(OFF[0] + 0.3 * OFF[2]))
    assert found.gradient_share > 0.2
    assert not found.is_local_maximum()


def test_curvatures_are_those_of_the_dense_hessian():
    """The slow twin: a quadratic form on the sphere across the base has P A P less its value as Hessian."""
    stream = torch.Generator().manual_seed(0)
    d, angle = 9, math.radians(30)
    factor = torch.randn(d, d, generator=stream, dtype=torch.float64)
    base, direction = torch.randn(2, d, generator=stream, dtype=torch.float64)
    responder = FunctionResponder(lambda x: x @ factor.T, base[None], is_logits=False)
    read = DirectionResponse(responder, base, size=30.0, readout="l2")
    across = read.across(direction[None])[0]
    found = measure_optimality(read, direction, step=1e-4)

    basis = read.basis(across)
    assert torch.allclose(basis @ torch.stack([across, base], dim=1), torch.zeros(d - 2, 2, dtype=torch.float64))

    def value(turn):
        norm = turn.norm()
        sinc = torch.where(norm > 0, norm.sin() / norm.clamp_min(1e-30), 1.0)
        there = norm.cos() * across + sinc * (turn @ basis)
        moved = (math.cos(angle) - 1) * base + math.sin(angle) * base.norm() * there
        return (moved @ factor.T).norm()

    step, k = 1e-3, d - 2
    eye = step * torch.eye(k, dtype=torch.float64)
    hessian = torch.empty(k, k, dtype=torch.float64)
    for i in range(k):
        for j in range(k):
            corners = [value(a * eye[i] + b * eye[j]) for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
            hessian[i, j] = (corners[0] - corners[1] - corners[2] + corners[3]) / (4 * step**2)
    expected = torch.linalg.eigvalsh(hessian) / found.response
    assert found.curvatures == pytest.approx(expected.numpy(), rel=1e-3, abs=1e-4)
    slope = torch.stack([(value(eye[i]) - value(-eye[i])) / (2 * step) for i in range(k)]).norm() / found.response
    assert found.gradient_share == pytest.approx(float(slope), rel=1e-4)


def test_straight_paths_have_one_more_way_to_turn():
    found = measure_optimality(response(0.4, mode="straight"), OFF[0])
    assert len(found.curvatures) == 19
    assert found.is_local_maximum()


def test_on_the_plateau_there_is_nothing_to_compare():
    with pytest.raises(BadInput, match="Look further out than 5: the direction is still on the plateau"):
        measure_optimality(response(5.0), OFF[0])
    with pytest.raises(BadInput, match="size of a response: got 0"):
        response(0.0)

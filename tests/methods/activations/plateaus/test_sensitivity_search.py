"""The search for sensitive directions: it finds planted features from one prompt, and says what it could not do."""

from __future__ import annotations

import numpy
import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.methods.activations.plateaus.kinds import unit
from tremorscope.methods.activations.plateaus.optimality import DirectionResponse
from tremorscope.methods.activations.plateaus.planted import PlantedFeatures
from tremorscope.methods.activations.plateaus.responder import FunctionResponder
from tremorscope.methods.activations.plateaus.sensitivity_search import recall, search_sensitive_directions

PLANTED = PlantedFeatures.draw(16, 16, width=0.3, seed=0, active=2)
BASE = PLANTED.activations(1, 0)[0]


def planted_response():
    return DirectionResponse(PLANTED.responder(BASE[None]), BASE, size=20.0, readout="l2")


def test_planted_features_are_found_without_data():
    found = search_sensitive_directions(planted_response(), level=1e-3, largest=60.0, seed=0, num_starts=96)
    off = PLANTED.features[(PLANTED.features @ BASE).abs() < 0.5]
    assert found.recall(off, len(off)) >= 0.9
    random = unit(torch.randn(len(off), 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert recall(random, off, len(off)) <= 0.1
    assert float(found.max_cosines(PLANTED.features)[: len(off)].min()) > 0.99
    assert found.thresholds[0] == pytest.approx(PLANTED.threshold_angle(BASE), rel=0.01)
    assert numpy.median(found.start_thresholds) > 1.4 * found.thresholds[0]
    assert sum(found.found_by) == 96
    assert (numpy.diff(found.thresholds) >= 0).all()
    table = found.table(PLANTED.features)
    assert table.columns["largest |cosine|"][0] == pytest.approx(1.0, abs=1e-3)


def test_a_dead_network_is_told():
    dead = DirectionResponse(
        FunctionResponder(lambda x: 0 * x, BASE[None], is_logits=False), BASE, size=20.0, readout="l2"
    )
    found = search_sensitive_directions(dead, level=0.1, num_starts=5, num_rounds=1, num_steps=2)
    assert numpy.isinf(found.thresholds).all()
    assert found.flags == ("5 of 5 starts had no gradient and stayed where they were",)


def test_no_starts_are_refused():
    with pytest.raises(BadInput, match="num_starts: got 0"):
        search_sensitive_directions(planted_response(), level=1e-3, num_starts=0)

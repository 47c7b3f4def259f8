from __future__ import annotations

import math

import pytest
import torch

from tests.laws.operator_cases import stream
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.modular_addition import modular_addition_mlp
from tremorscope.instruments.optimisers import sgd
from tremorscope.instruments.subspace import Subspace
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.hessian_modules.frequencies import FrequencyChange
from tremorscope.methods.weights.hessian_modules.sphere_search import SphereSearch, sphere_search


def test_a_frequency_that_carries_nothing_counts_only_in_the_plain_change():
    change = FrequencyChange(before=(8.0, 1.99, 0.01), after=(6.0, 2.0, 0.1))
    assert change.largest == pytest.approx(9.0)
    assert change.largest_of_key == pytest.approx(1 - (6 / 8.1) / (8 / 10))
    grown = FrequencyChange(before=(8.0, 2.0), after=(16.0, 4.0))
    assert (grown.largest, grown.largest_of_key) == (1.0, 0.0)


def test_planted_waves_are_found_before_and_after():
    network = modular_addition_mlp(7, width=4, hidden=3, dtype=torch.float64)
    residues = torch.arange(7, dtype=torch.float64)
    table = torch.zeros(7, 4, dtype=torch.float64)
    table[:, 0] = torch.cos(2 * math.pi * 2 * residues / 7)
    planted = network.at(network.layout.flatten({**network.params, "embedding": table}))
    table[:, 1] = torch.sin(2 * math.pi * 3 * residues / 7)
    moved = network.layout.flatten({**network.params, "embedding": table})
    search = SphereSearch(radii=(1.0,), inside=(1.0,), outside=(0.0,), sets={}, weights=moved[None])
    found = FrequencyChange.of_search(planted, search)
    assert found.before == pytest.approx((0, 3.5, 0), abs=1e-12)
    assert found.after == pytest.approx((0, 3.5, 3.5), abs=1e-12)
    assert FrequencyChange.of({"before": list(found.before), "after": list(found.after)}) == found


def test_what_cannot_be_compared_is_named():
    network = modular_addition_mlp(5, width=3, hidden=2)
    span = Subspace.random(network.layout.size, 2, stream(0), dtype=torch.float32)
    search = sphere_search(network, span, [0.1], trainer=Trainer(optimiser=sgd(0.01), num_steps=1))
    with pytest.raises(BadInput, match=r"embedding of the network: got embed; wanted one of embedding, first\.weight"):
        FrequencyChange.of_search(network, search, parameter="embed")
    with pytest.raises(BadInput, match="sphere search: got no weights; wanted the search as it was returned"):
        FrequencyChange.of_search(network, SphereSearch.of(search.to_plain()))

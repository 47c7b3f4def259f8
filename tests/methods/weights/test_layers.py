from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from tremorscope.foundations.results import Table
from tremorscope.instruments.network import Network
from tremorscope.methods.weights.layers import summarise_layers


@pytest.fixture
def network(generator):
    module = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 4))
    network = Network(module)
    return network.at(torch.randn(network.layout.size, generator=generator))


def test_every_number_against_naive_loops(network):
    before = network.at(network.theta * 2 + 0.5)
    measured = summarise_layers(network, before)
    assert [layer.name for layer in measured.layers] == list(network.params)
    for layer, twin in zip(measured.layers, measured.untrained, strict=True):
        entries = [float(x) for x in network.params[layer.name].flatten()]
        start = [float(x) for x in before.params[layer.name].flatten()]
        assert layer.num_weights == len(entries)
        assert layer.norm == pytest.approx(sum(x * x for x in entries) ** 0.5)
        assert twin.norm == pytest.approx(sum(x * x for x in start) ** 0.5)
        distance = sum((x - y) ** 2 for x, y in zip(entries, start, strict=True)) ** 0.5
        assert layer.moved == pytest.approx(distance / twin.norm)
        assert twin.moved is None
        tensor = network.params[layer.name].double()
        if tensor.ndim < 2:
            assert layer.stable_rank is None
            assert layer.largest_singular_value is None
        else:
            values = torch.linalg.svdvals(tensor.reshape(len(tensor), -1))
            assert layer.largest_singular_value == pytest.approx(float(values[0]))
            assert layer.stable_rank == pytest.approx(float((values**2).sum() / values[0] ** 2))
            assert 1 <= layer.stable_rank <= min(tensor.flatten(1).shape)


def test_one_direction_has_rank_one_and_equal_ones_have_all():
    for weight, rank in ((torch.outer(torch.arange(1.0, 4), torch.ones(5)), 1.0), (3 * torch.eye(4), 4.0)):
        module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        network = Network(module).at(weight.flatten())
        assert summarise_layers(network).layers[0].stable_rank == pytest.approx(rank)


def test_weights_of_zero_are_no_division_by_zero():
    network = Network(nn.Linear(3, 2))
    zero = network.at(torch.zeros(8))
    layers = summarise_layers(zero).layers
    assert [(layer.norm, layer.stable_rank) for layer in layers] == [(0.0, None), (0.0, None)]
    assert [layer.moved for layer in summarise_layers(network, zero).layers] == [None, None]


def test_distances_are_taken_from_a_start_only(network):
    twin = network.at(torch.ones(network.layout.size))
    (table,) = summarise_layers(network, twin, is_start=False).tables()
    assert "norm, untrained" in table.columns
    assert "distance moved / untrained norm" not in table.columns, "another initialisation is not where it came from"
    (table,) = summarise_layers(network, twin).tables()
    assert all(moved > 0 for moved in table.columns["distance moved / untrained norm"])


def test_tables_and_figures_are_sound(network):
    alone = summarise_layers(network)
    assert alone.figures() == []
    assert list(alone.tables()[0].columns) == ["weights", "shape", "entries", "norm", "stable rank"]
    assert alone.tables()[0].columns["shape"] == ["3 x 2 x 2 x 2", "3", "4 x 12", "4"]
    measured = summarise_layers(network, network.at(network.theta * 2))
    (table,) = measured.tables()
    assert Table.from_dict(json.loads(json.dumps(table.to_dict(), allow_nan=False))).columns == dict(table.columns)
    (figure,) = measured.figures()
    json.dumps(figure.to_plotly(), allow_nan=False)
    assert [trace["name"] for trace in figure.traces] == ["this network", "untrained twin"]

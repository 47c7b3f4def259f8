from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.func import hessian

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import permuted_targets
from tremorscope.instruments.task import Task
from tremorscope.methods.weights.curvature import measure_curvature

PERMUTED = "same weights, permuted labels"


@pytest.fixture
def network(generator):
    inputs = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    task = Task.of(inputs, torch.randint(3, (20,), generator=generator))
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    network = Network(module, task=task, dtype=torch.float64)
    return network.at(torch.randn(network.layout.size, generator=generator, dtype=torch.float64))


@pytest.fixture
def measured(network):
    task = network.task
    return measure_curvature(
        {"this network": network, PERMUTED: network},
        {"this network": task.train_batch(), PERMUTED: permuted_targets(task, 3).train_batch()},
        num_eigenvalues=6,
        num_probes=400,
        seed=1,
    )


def test_eigenvalues_trace_and_loss_against_the_dense_hessian(network, measured):
    batches = {
        "this network": network.task.train_batch(),
        PERMUTED: permuted_targets(network.task, 3).train_batch(),
    }
    for name, batch in batches.items():
        dense = hessian(lambda theta, batch=batch: network.loss(theta, batch))(network.theta)
        values, vectors = torch.linalg.eigh(dense)
        found = measured.spectra[name]
        assert found.values.tolist() == pytest.approx(values.flip(0)[:6].tolist(), rel=1e-4, abs=1e-6)
        assert abs(float(found.vectors[:, 0] @ vectors[:, -1])) == pytest.approx(1, abs=1e-5)
        trace = measured.traces[name]
        assert trace.value == pytest.approx(float(dense.trace()), rel=1e-9), "more probes than weights: exact"
        assert measured.losses[name] == pytest.approx(float(network.loss(network.theta, batch)))
    assert measured.own == "this network"
    assert measured.num_examples == 20
    first = {name: float(spectrum.values[0]) for name, spectrum in measured.spectra.items()}
    assert first[PERMUTED] != pytest.approx(first["this network"], rel=1e-3), "the null is another loss"


def test_at_most_half_of_all_eigenvalues_are_looked_for(network):
    everything = measure_curvature(
        {"it": network}, {"it": network.task.train_batch()}, num_eigenvalues=99, num_probes=4
    )
    assert len(everything.spectra["it"].values) == network.layout.size // 2


def test_one_seed_gives_one_answer(network):
    def measure(seed):
        batches = {"it": network.task.train_batch()}
        return measure_curvature({"it": network}, batches, num_eigenvalues=2, num_probes=4, seed=seed)

    one, again, other = measure(5), measure(5), measure(6)
    assert one.traces == again.traces != other.traces
    assert torch.equal(one.spectra["it"].values, again.spectra["it"].values)


def test_tables_and_figures_are_sound(measured):
    (table,) = measured.tables()
    json.dumps(table.to_dict(), allow_nan=False)
    assert table.columns["network"] == ["this network", PERMUTED]
    assert max(table.columns["largest residual"]) < 1e-2
    assert table.columns["sum of the largest 6"][0] == pytest.approx(
        float(measured.spectra["this network"].values.sum())
    )
    (figure,) = measured.figures()
    json.dumps(figure.to_plotly(), allow_nan=False)
    assert [trace["name"] for trace in figure.traces] == ["this network", PERMUTED]
    assert str(measured.traces["this network"]) in figure.caption
    assert len({trace["marker"]["symbol"] for trace in figure.traces}) == 2, "nulls differ by more than their colour"


def test_without_data_it_says_so(network):
    bare, batch = Network(nn.Linear(3, 2), dtype=torch.float64), network.task.train_batch()
    with pytest.raises(BadInput, match=r"Pass task=Task\.of"):
        measure_curvature({"it": bare}, {"it": batch}, num_eigenvalues=1, num_probes=4)


def test_the_cost_is_told_before_the_products_are_made(network):
    told = []
    batch = network.task.train_batch()
    found = measure_curvature(
        {"this network": network}, {"this network": batch}, num_eigenvalues=3, num_probes=8, say=told.append
    )
    assert [text.split(":")[0] for text in told] == ["Hessian of this network, 31 weights"]
    assert "26 products: about" in told[0]
    trace = found.traces["this network"]
    exact = float(hessian(lambda theta: network.loss(theta, batch))(network.theta).trace())
    assert trace.low < exact < trace.high

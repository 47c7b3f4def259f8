from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.func import hessian

from tremorscope.instruments.network import Network
from tremorscope.instruments.null import permuted_targets
from tremorscope.instruments.task import Task
from tremorscope.methods.weights import stiffness
from tremorscope.methods.weights.curvature import measure_curvature
from tremorscope.methods.weights.stiffness import FLAT, STIFF, measure_stiffness

OWN, PERMUTED = "this network", "same weights, permuted labels"


@pytest.fixture(params=[(None, 2048), (0.5, 2048), (0.5, 0)], ids=["no start", "a start", "by quadrature"])
def measured(request, generator, monkeypatch):
    start, exact_size = request.param
    monkeypatch.setattr(stiffness, "EXACT_SIZE", exact_size)
    inputs = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    task = Task.of(inputs, torch.randint(3, (20,), generator=generator))
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    bare = Network(module, task=task, dtype=torch.float64)
    theta = torch.randn(bare.layout.size, generator=generator, dtype=torch.float64)
    network = bare.at(theta)
    if start is not None:
        network.initial = start * theta.roll(1)
    networks = {OWN: network, PERMUTED: network}
    batches = {OWN: task.train_batch(), PERMUTED: permuted_targets(task, 3).train_batch()}
    spectra = measure_curvature(networks, batches, num_eigenvalues=4, seed=1).spectra
    return network, batches, spectra, measure_stiffness(networks, batches, spectra, num_steps=31, seed=2)


def test_counts_and_shares_against_the_dense_hessian(measured):
    network, batches, _, found = measured
    for name, batch in batches.items():
        at = lambda theta, batch=batch: network.loss(theta, batch)  # noqa: E731
        values, vectors = torch.linalg.eigh(hessian(at)(network.theta))
        one, largest = found.networks[name], float(values.abs().max())
        for count, exact in [
            (one.num_stiff, int((values > STIFF * largest).sum())),
            (one.num_flat, int((values.abs() <= FLAT * largest).sum())),
            (one.num_negative, int((values < -FLAT * largest).sum())),
        ]:
            # All 31 dimensions are spanned by the steps, so that bounds differ by the edge's own weight only.
            assert count.low - 1e-6 <= exact <= count.high + 1e-6
        top = vectors[:, -4:]
        gradient = torch.func.grad(at)(network.theta)
        assert one.gradient_share == pytest.approx(
            float((top.T @ gradient).square().sum() / gradient.square().sum()), rel=1e-4
        )
        assert one.stiff_curvature == pytest.approx(float(values[-4:].mean()), rel=1e-4)
        assert one.other_curvature.low - 1e-9 <= float(values[:-4].mean()) <= one.other_curvature.high + 1e-9
        for sign, of_sign in (("positive", values[values > 0]), ("negative", values[values < 0])):
            grid = one.density[sign].grid.log10()
            share = float(one.density[sign].values.sum()) * float(grid[1] - grid[0])
            visible = int((of_sign.abs().log10() > float(grid[0])).sum()) / len(values)
            assert share == pytest.approx(visible, abs=0.1)
        if network.initial is None:
            assert one.drift_share is None
        else:
            drift = network.theta - network.initial
            assert one.drift_share == pytest.approx(
                float((top.T @ drift).square().sum() / drift.square().sum()), rel=1e-4
            )
    assert found.networks[OWN].gradient_share != pytest.approx(found.networks[PERMUTED].gradient_share, rel=1e-3)


def test_what_the_report_shows(measured):
    network, _, _, found = measured
    (table,) = found.tables()
    assert list(table.columns)[1:] == [OWN, PERMUTED]
    shown = table.columns["measured"]
    assert ("share of training's squared way in the stiffest" in shown) == (network.initial is not None)
    (figure,) = found.figures()
    drawn = json.dumps(figure.to_plotly(), default=str)
    assert "share of eigenvalues per decade" in drawn
    assert "The 4 stiffest hold" in found.sentence()


def test_without_a_gradient_no_share_is_made_up(generator):
    x = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    network = Network(nn.Linear(2, 1, bias=False).double(), task=Task.of(x, torch.zeros(6, 1, dtype=torch.float64)))
    network = network.at(torch.zeros(2, dtype=torch.float64))
    networks, batches = {OWN: network}, {OWN: network.task.train_batch()}
    spectra = measure_curvature(networks, batches, num_eigenvalues=1).spectra
    found = measure_stiffness(networks, batches, spectra)
    assert found.networks[OWN].gradient_share is None
    assert "gradient" not in found.sentence()

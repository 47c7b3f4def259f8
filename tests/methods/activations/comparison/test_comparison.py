"""Two networks of one shape: what differs, and exactly nothing where nothing does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.instruments.network import Network
from tremorscope.methods.activations.comparison.shifts import measure_activation_shift
from tremorscope.methods.activations.comparison.weights import measure_weight_change


def linear(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)), name=f"linear {seed}")


def moved(network, name, change):
    params = {key: value + change if key == name else value for key, value in network.params.items()}
    return network.at(network.layout.flatten(params), name="moved")


def test_a_change_of_rank_one_is_seen_as_such():
    network = linear()
    change = torch.outer(torch.arange(1.0, 6.0), torch.ones(6))
    found = measure_weight_change(network, moved(network, "0.weight", change))
    first = found.tensors[0]
    assert first.name == "0.weight"
    assert first.norm == pytest.approx(float(change.norm()), rel=1e-5)
    assert first.relative == pytest.approx(first.norm / float(network.params["0.weight"].norm()), rel=1e-5)
    assert first.effective_rank == pytest.approx(1.0, abs=1e-5)
    assert first.by_chance is not None
    assert 2 < first.by_chance <= 5
    assert all(one.norm == 0 for one in found.tensors[1:])


def test_equal_squares_have_full_effective_rank():
    network = linear()
    found = measure_weight_change(network, moved(network, "1.weight", 2 * torch.eye(4, 5)))
    assert found.tensors[0].effective_rank == pytest.approx(4.0, abs=1e-4)


def test_the_share_in_the_stiff_subspace():
    network = linear()
    stiff = torch.zeros(network.layout.size, 2)
    stiff[0, 0] = stiff[network.layout.size - 1, 1] = 1.0  # the first entry of 0.weight, the last of 1.bias
    change = torch.zeros(5, 6)
    change[0, 0], change[1, 1] = 3.0, 4.0
    found = measure_weight_change(network, moved(network, "0.weight", change), stiff=stiff)
    first = found.tensors[0]
    assert first.stiff_share == pytest.approx(9 / 25, rel=1e-4)
    assert first.stiff_by_chance == pytest.approx(1 / 30)


def test_the_first_difference_of_shape_is_named():
    other = Network(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)), name="other")
    with pytest.raises(BadInput, match=r"at 1\.weight: got \(4, 5\) in 'linear 0' and \(3, 5\) in 'other'"):
        measure_weight_change(linear(), other)
    with pytest.raises(BadInput, match=r"at 2\.weight: got nothing of that name in 'linear 0'"):
        measure_weight_change(linear(), Network(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 1))))


def test_shifts_of_mean_covariance_and_axes():
    draws = torch.Generator().manual_seed(0)
    rows = torch.randn(400, 12, generator=draws, dtype=torch.float64)
    rows[:, :10] *= 5.0
    far = rows.clone()
    far[:, 0] += 7.0
    swapped = rows.clone()
    swapped[:, [0, 11]] = rows[:, [11, 0]]
    names = ("same", "moved", "doubled", "swapped")
    found = measure_activation_shift(
        dict.fromkeys(names, rows),
        dict(zip(names, (rows, far, 2 * rows, swapped), strict=True)),
        Estimate.exact(0.0),
    )
    same, mean, doubled, turned = found.shifts
    assert (same.mean, same.covariance, same.angle) == (0.0, 0.0, 0.0)
    distance = math.sqrt(2 * float(rows.var(dim=0).sum()))
    assert mean.mean == pytest.approx(7.0 / distance)
    assert mean.covariance == pytest.approx(0.0, abs=1e-12)
    assert doubled.covariance == pytest.approx(3.0)
    assert doubled.angle == pytest.approx(0.0, abs=1e-5)
    assert turned.angle > 80
    assert found.halves[0].mean > 0

from __future__ import annotations

import json
import math
from dataclasses import replace

import jaxtyping
import pytest
import torch
from torch import nn
from torch.func import hessian

from tests.methods.weights.goldilocks.networks import DOUBLE, blobs, drawn
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import derive
from tremorscope.foundations.seeds import generator as stream
from tremorscope.instruments.initialisation import draw_weights
from tremorscope.instruments.network import Network
from tremorscope.instruments.perceptrons import perceptron
from tremorscope.instruments.task import Task
from tremorscope.methods.weights.goldilocks import (
    ForetoldCurve,
    GoldilocksMeasurement,
    find_zone,
    foretell_goldilocks,
    measure_goldilocks,
    over_members,
    positivity,
    prominence,
    random_basis,
    zone_position,
)
from tremorscope.methods.weights.goldilocks.position import share_of_peak

SCALES = (0.1, 1.0, 5.0)


@pytest.fixture
def task(generator) -> Task:
    return blobs(generator)


@pytest.fixture
def measured(task) -> GoldilocksMeasurement:
    return measure_goldilocks(
        perceptron(task, hidden=(4,)), scales=SCALES, dimension=6, num_draws=3, seed=5, initialiser="xavier"
    )


def test_every_point_is_that_of_the_dense_hessian(task, measured):
    network, batch = perceptron(task, hidden=(4,)), task.train_batch()
    for draw in range(3):
        theta = draw_weights(network, "xavier", seed=derive(5, "draw", draw))
        basis = random_basis(theta, 6, stream(5, "basis", draw))
        for place, scale in enumerate(SCALES):
            whole = hessian(lambda at: network.loss(at, batch))(scale * theta)
            seen = positivity(basis.T @ whole @ basis)
            point = {name: float(curve[draw, place]) for name, curve in measured.curves.items()}
            assert point["kappa"] == pytest.approx(seen.kappa, rel=1e-9)
            assert point["positive_share"] == seen.positive_share
            assert point["trace"] == pytest.approx(seen.trace)
            assert point["loss"] == pytest.approx(float(network.loss(scale * theta, batch)))
            assert point["gauss_newton_ratio"] > 0
            assert math.isnan(point["flat_kappa"]), "a plane does not bend"
    assert measured.typical_norm == pytest.approx(
        sum(float(draw_weights(network, "xavier", seed=derive(5, "draw", i)).square().sum()) for i in range(3)) ** 0.5
        / 3**0.5
    )


def test_the_whole_hessian_of_the_same_draws_foretells_the_curve(task, measured):
    network, batch = perceptron(task, hidden=(4,)), task.train_batch()
    foretold = foretell_goldilocks(network, scales=SCALES, dimension=6, num_draws=3, seed=5, initialiser="xavier")
    size = foretold.num_parameters
    for draw in range(3):
        theta = draw_weights(network, "xavier", seed=derive(5, "draw", draw))
        for place, scale in enumerate(SCALES):
            whole = hessian(lambda at: network.loss(at, batch))(scale * theta)
            assert float(foretold.trace[draw, place]) == pytest.approx(6 * float(whole.trace()) / size)
            many = [positivity((q := random_basis(theta, 6, stream(draw, place, i))).T @ whole @ q) for i in range(200)]
            kappas = torch.tensor([seen.kappa for seen in many])
            # a mean of quotients is not the quotient of means: a few hundredths of the limit sqrt(6)
            assert float(foretold.kappa[draw, place]) == pytest.approx(float(kappas.mean()), abs=0.2)
    assert foretold.half_width.abs().max() == 0, "small enough to be exact"
    again = ForetoldCurve.of(json.loads(json.dumps(foretold.to_plain())))
    assert torch.equal(again.kappa, foretold.kappa)
    assert again.scales == foretold.scales


def test_temperature_and_weights_agree_where_the_network_is_homogeneous(task):
    network = perceptron(task, hidden=(4,), activation="relu", bias=False)
    common = {"dimension": 5, "num_draws": 2, "seed": 1, "initialiser": "xavier"}
    weights = measure_goldilocks(network, scales=SCALES, scaling="weights", **common)
    hot = measure_goldilocks(network, scales=[s**2 for s in SCALES], scaling="temperature", **common)
    torch.testing.assert_close(weights.curves["kappa"], hot.curves["kappa"], rtol=1e-8, atol=1e-8)
    assert "kinks" in " ".join(weights.flags)
    norms = weights.tables()[0].columns["norm of the weights"]
    assert norms[2] == pytest.approx(5 * weights.typical_norm)
    assert "norm of the weights" not in hot.tables()[0].columns


def test_spheres_bend(task):
    network = perceptron(task, hidden=(4,))
    common = {"scales": SCALES, "dimension": 5, "num_draws": 2, "initialiser": "xavier"}
    sphere = measure_goldilocks(network, surface="sphere", **common)
    assert bool(sphere.curves["flat_kappa"].isfinite().all())
    assert not torch.allclose(sphere.curves["flat_kappa"], sphere.curves["kappa"], atol=1e-3)


def test_it_is_kept_whole_and_repeats_itself(task, measured):
    again = measure_goldilocks(
        perceptron(task, hidden=(4,)), scales=SCALES, dimension=6, num_draws=3, seed=5, initialiser="xavier"
    )
    kept = GoldilocksMeasurement.of(json.loads(json.dumps(measured.to_plain(), allow_nan=False)))
    for other in (again, kept):
        for name, curve in measured.curves.items():
            torch.testing.assert_close(other.curves[name], curve, rtol=0, atol=0, equal_nan=True)
    assert kept.tables() == measured.tables()
    pooled = over_members([measured, replace(measured, curves={k: v + 1 for k, v in measured.curves.items()})])
    assert pooled.estimate("kappa", 1.0).value == pytest.approx(float(measured.mean()[1]) + 0.5)
    assert pooled.estimate("kappa", 1.0).n == 2
    with pytest.raises(BadInput, match="members to pool: got 2 sets of scales"):
        over_members([measured, replace(measured, scales=(1.0, 2.0, 3.0))])


def test_tables_figures_and_chance(measured):
    (table,) = measured.tables()
    assert table.num_rows == 3
    assert "share, random signs" in table.columns
    figures = measured.figures()
    assert [figure.name for figure in figures] == [
        "kappa_weights",
        "positive_share_weights",
        "gauss_newton_ratio_weights",
    ]
    for figure in figures:
        json.dumps(figure.to_plotly(), allow_nan=False)
    assert any(trace["name"] == "random signs" for trace in figures[0].traces)
    chance = measured.chance("symmetric")
    assert torch.equal(chance.curves["kappa"], measured.curves["symmetric_kappa"])
    assert chance.curves["loss"] is measured.curves["loss"]


def test_users_modules_stay_bit_identical_and_draw_their_own_way(task):
    module = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.eval()
    state = torch.random.get_rng_state()
    measured = measure_goldilocks(Network(module, task=task), scales=[1.0], dimension=4, num_draws=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not module.training
    assert float(measured.curves["kappa"][0, 0]) != float(measured.curves["kappa"][1, 0])
    assert float(measured.curves["loss"][0, 0]) != float(measured.curves["loss"][1, 0]), "draws differ in their weights"


def test_without_an_initialiser_the_weights_own_ray_is_taken(task):
    class Gain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gain * x

    network = Network(nn.Sequential(Gain(), nn.Linear(5, 3)), task=task)
    measured = measure_goldilocks(network, scales=[1.0], dimension=4, num_draws=2, split=False)
    assert any("on the ray of the present weights" in flag for flag in measured.flags)
    assert float(measured.curves["loss"][0, 0]) == float(measured.curves["loss"][1, 0])
    known = Network(nn.Linear(5, 3), task=task, initial=torch.ones(18))
    assert any("starting weights' ray" in flag for flag in measure_goldilocks(known, scales=[1.0], dimension=4).flags)


def test_a_dead_network_is_flagged_and_undefined(task):
    network = perceptron(replace(task, inputs=task.inputs.abs()), hidden=(4,), activation="relu", bias=False)
    dead = -torch.ones(network.layout.size, dtype=DOUBLE)
    measured = measure_goldilocks(
        network, scales=[0.5, 1.0], dimension=4, num_draws=2, initialiser=lambda _, seed: dead
    )
    assert bool(measured.curves["kappa"].isnan().all())
    assert "at scale 0.5 the restricted Hessian is zero: kappa is undefined there" in measured.flags
    assert measured.zone is None
    assert measured.estimate("kappa", 1.0) is None
    assert float(measured.curves["loss"][0, 0]) == pytest.approx(math.log(3))
    for figure in measured.figures():
        json.dumps(figure.to_plotly(), allow_nan=False)
    assert measured.tables()[0].columns["loss"][0] is not None


def test_overflow_names_the_scale_and_leaves_the_rest(task):
    network = perceptron(task, hidden=(4, 4), activation="relu")
    measured = measure_goldilocks(network, scales=[1.0, 1e120], dimension=4, num_draws=1, initialiser="xavier")
    assert bool(measured.curves["kappa"][0].isfinite()[0])
    assert bool(measured.curves["kappa"][0].isnan()[1])
    assert any("weights times 1e+120 the loss or its slope is not finite in float64" in flag for flag in measured.flags)
    # What plain softmax would lose, log-softmax keeps.
    far = measure_goldilocks(network, scales=[1e5], dimension=4, num_draws=1, initialiser="xavier")
    assert bool(far.curves["loss"].isfinite().all())


def test_what_cannot_be_is_refused(task):
    network = perceptron(task, hidden=(4,))
    with pytest.raises(BadInput, match="dimension of a random subspace: got 99; wanted 1 to 39"):
        measure_goldilocks(network, dimension=99, initialiser="xavier")
    with pytest.raises(BadInput, match=r"scales: got 1, 0\.5; wanted positive, growing numbers"):
        measure_goldilocks(network, scales=[1.0, 0.5])
    with pytest.raises((BadInput, jaxtyping.TypeCheckError), match="depth"):  # checked types come first in tests
        measure_goldilocks(network, scaling="depth")
    with pytest.raises(BadInput, match="number of draws: got 0"):
        measure_goldilocks(network, num_draws=0)
    with pytest.raises(BadInput, match="got none; wanted inputs and targets"):
        measure_goldilocks(Network(nn.Linear(2, 2)))
    whole = Task.of(torch.arange(10).reshape(5, 2), torch.tensor([0, 1, 0, 1, 1]))
    with pytest.raises(BadInput, match="int64, which it cannot take"):
        measure_goldilocks(Network(nn.Linear(2, 2), task=whole))
    found = measure_goldilocks(network, scales=[1.0], dimension=3, num_draws=1, initialiser="xavier")
    with pytest.raises(BadInput, match=r"scale: got 2\.0; wanted one of 1"):
        found.estimate("kappa", 2.0)


def test_single_precision_is_flagged(task):
    network = perceptron(task, hidden=(4,), dtype=torch.float32)
    common = {"scales": [1.0], "dimension": 3, "num_draws": 1, "initialiser": "xavier"}
    assert any("float32" in flag for flag in measure_goldilocks(network, dtype=torch.float32, **common).flags)
    assert not any("float32" in flag for flag in measure_goldilocks(network, **common).flags)


def test_the_zone_of_a_curve():
    scales = [0.01, 0.1, 1.0, 10.0, 100.0]
    zone = find_zone(scales, [1.0, 0.5, 4.0, 2.0, 0.0])
    assert (zone.peak_scale, zone.peak) == (pytest.approx(1), 4)
    assert zone.low == pytest.approx(10 ** (-2 / 3.5))
    assert zone.high == pytest.approx(10)
    assert zone.contains(2)
    assert not zone.contains(0.1)
    assert not zone.is_open
    assert zone.share_of(scales) == pytest.approx((1 + 2 / 3.5) / 4)
    assert find_zone(scales, [math.nan] * 5) is None
    assert find_zone(scales, [-1.0] * 5) is None
    assert find_zone(scales, [3.0, math.nan, 4.0, 1.0, 0.0]).is_open
    with pytest.raises(BadInput, match="scales of a zone"):
        find_zone([1.0, 0.1], [0.0, 1.0])
    assert prominence(scales, [1.0, 0.5, 4.0, 2.0, -3.0], inside=0.1, outside=50) == pytest.approx(3.25)
    assert prominence(scales, [5.0, 5.0, 4.0, 2.0, 0.0], inside=0.1, outside=50) == -1
    with pytest.raises(BadInput, match=r"some up to 0\.001, between, and from 50 on"):
        prominence(scales, [0.0] * 5, inside=0.001, outside=50)


def test_the_position_of_trained_and_initial_weights(task):
    network = drawn(task, "relu", hidden=(6,))
    network.initial = network.theta
    moved = network.at(30 * network.theta)
    position = zone_position(moved, scales=(0.03, 1.0), dimension=99, num_draws=2)
    assert list(position.rays) == ["present weights", "initial weights"]
    own, first = position.rays.values()
    assert own.scales == (0.03, 1.0)
    assert own.dimension == network.layout.size, "as many as there are"
    assert own.typical_norm == pytest.approx(30 * first.typical_norm)
    assert position.kappa == own.estimate("kappa", 1.0)
    assert position.share_of_peak == share_of_peak(own) == position.kappa.value / own.zone.peak
    assert position.is_inside == (position.share_of_peak > 0.5)
    (table,) = position.tables()
    assert table.columns["weights"] == ["present weights", "initial weights"]
    json.dumps(position.figures()[0].to_plotly(), allow_nan=False)

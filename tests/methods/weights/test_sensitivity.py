from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn
from torch.func import hessian

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Hessian
from tremorscope.instruments.task import Task
from tremorscope.methods.weights import sensitivity
from tremorscope.methods.weights.sensitivity import measure_sensitivity

SIZES = (0.01, 0.1, 1.0)
DIRECTIONS = 3


@pytest.fixture
def network(generator):
    inputs = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    blank = Network(module, dtype=torch.float64)
    theta = torch.randn(blank.layout.size, generator=generator, dtype=torch.float64)
    # Labels are what the network itself finds likely, so that the Hessian curves upwards in most directions.
    labels = blank.apply(theta, Task.of(inputs, torch.zeros(12)).train_batch()).argmax(1)
    return Network(module, task=Task.of(inputs, labels), dtype=torch.float64).at(theta)


def measured_at(network, **more):
    batch = network.task.train_batch()
    options = {"num_directions": DIRECTIONS, "sizes": SIZES, "curvature": Hessian(network, batch), "seed": 4}
    return measure_sensitivity(network, batch, **{**options, **more})


def naive_kl(network, step):
    batch = network.task.train_batch()
    clean = network.apply(network.theta, batch).log_softmax(1)
    moved = network.apply(network.theta + step, batch).log_softmax(1)
    return float((clean.exp() * (clean - moved)).sum(1).mean())


def inside(network, name, direction):
    step = torch.zeros(network.layout.size, dtype=torch.float64)
    step[network.layout.slice(name)] = direction
    return step


def test_every_response_against_a_naive_loop(network):
    measured = measured_at(network)
    assert [layer.name for layer in measured.layers] == list(network.layout.names)
    at_large = sensitivity._directions(network.layout.size, DIRECTIONS, 4, "all weights")
    for layer in measured.layers:
        own = sensitivity._directions(network.params[layer.name].numel(), DIRECTIONS, 4, layer.name)
        for r in range(DIRECTIONS):
            for s, size in enumerate(SIZES):
                expected = naive_kl(network, inside(network, layer.name, size * own[r]))
                assert float(layer.values[r, s]) == pytest.approx(expected, rel=1e-6, abs=1e-12)
                assert float(layer.equal_norm[r, s]) == pytest.approx(
                    naive_kl(network, size * at_large[r]), rel=1e-6, abs=1e-12
                )


def test_the_null_of_equal_norm_has_that_norm_and_spreads_over_all_weights(network):
    drawn = sensitivity._directions(network.layout.size, 200, 4, "all weights")
    assert torch.allclose(drawn.norm(dim=1), torch.ones(200, dtype=torch.float64), atol=1e-12)
    shares = drawn.square().mean(0) * network.layout.size
    assert 0.5 < float(shares.min()) <= float(shares.max()) < 1.6, "no weight is left out, none is preferred"


def test_the_null_of_equal_curvature_costs_the_same_to_second_order(network):
    dense = hessian(lambda theta: network.loss(theta, network.task.train_batch()))(network.theta)
    at_large = sensitivity._directions(network.layout.size, DIRECTIONS, 4, "all weights")
    measured = measured_at(network)
    checked = 0
    for layer in measured.layers:
        own = sensitivity._directions(network.params[layer.name].numel(), DIRECTIONS, 4, layer.name)
        costs = [float(v @ dense @ v) for v in (inside(network, layer.name, direction) for direction in own)]
        assert layer.curvature == pytest.approx(sum(costs) / DIRECTIONS, rel=1e-6)
        if layer.equal_curvature is None:
            continue
        for r, cost in enumerate(costs):
            scaled = at_large[r] * math.sqrt(cost / float(at_large[r] @ dense @ at_large[r]))
            assert float(scaled @ dense @ scaled) == pytest.approx(cost, rel=1e-6)
            for s, size in enumerate(SIZES):
                assert float(layer.equal_curvature[r, s]) == pytest.approx(naive_kl(network, size * scaled), rel=1e-6)
            checked += 1
    assert checked >= 2 * DIRECTIONS, "most layers have this null"


def test_the_rise_of_the_loss_along_it_is_the_same_for_small_steps(network):
    """What the words promise, seen in the losses themselves rather than in the Hessian."""
    task = network.task
    theta, batch = network.theta, task.train_batch()
    (layer, *_) = [one for one in measured_at(network).layers if one.equal_curvature is not None]
    own = sensitivity._directions(network.params[layer.name].numel(), DIRECTIONS, 4, layer.name)
    at_large = sensitivity._directions(network.layout.size, DIRECTIONS, 4, "all weights")
    operator = Hessian(network, batch)
    for mine, other in zip(own, at_large, strict=True):
        mine = inside(network, layer.name, mine)
        scale = math.sqrt(float(mine @ operator.mv(mine)) / float(other @ operator.mv(other)))

        def rise(direction, size=1e-3):
            ends = sum(float(network.loss(theta + sign * size * direction, batch)) for sign in (1, -1))
            return ends - 2 * float(network.loss(theta, batch))  # the slope cancels

        assert rise(mine) == pytest.approx(rise(scale * other), rel=1e-3)


def test_directions_whose_sign_differs_are_flagged(network, monkeypatch):
    signs = iter([1.0] * DIRECTIONS + [-1.0, 1.0] * 50)  # those over all weights first
    monkeypatch.setattr(sensitivity, "_curvature", lambda operator, direction: next(signs))
    measured = measured_at(network)
    assert measured.layers[0].equal_curvature is None
    assert any("2 of 3 directions have no null of equal curvature" in flag for flag in measured.flags)
    (table,) = measured.tables()
    assert table.columns.get("response / equal curvature", [None])[0] is None


def test_without_an_operator_there_is_no_such_null(network):
    measured = measured_at(network, curvature=None)
    assert all(layer.equal_curvature is None and layer.curvature is None for layer in measured.layers)
    assert "response / equal curvature" not in measured.tables()[0].columns
    assert measured.flags == ()


def test_sizes_run_up_to_the_norm_of_the_weights(network):
    measured = measured_at(network, sizes=None, num_directions=2)
    norm = float(network.theta.norm())
    assert measured.weight_norm == pytest.approx(norm)
    assert (float(measured.sizes[0]), float(measured.sizes[-1])) == pytest.approx((norm / 1000, norm))


def test_the_tabulated_size_reaches_the_level():
    sizes = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    quadratic = torch.stack([factor * sizes**2 for factor in (1.0, 4.0)])
    reached = sensitivity._reaching(sizes, quadratic, 0.25)
    assert reached.value == pytest.approx(math.sqrt(0.5 * 0.25), rel=1e-9)
    assert sensitivity._reaching(sizes, quadratic, 1000.0) is None
    assert sensitivity._reaching(sizes, quadratic, 1e-9).value == pytest.approx(0.1)


def test_a_layer_beyond_chance_is_found(network):
    """A planted effect: the last bias alone decides, because nothing else reaches the output strongly."""
    theta = network.theta
    theta[network.layout.slice("2.weight")] *= 1e-3
    measured = measured_at(network.at(theta), curvature=None)
    ratios = {layer.name: measured.ratio(layer.values, layer.equal_norm) for layer in measured.layers}
    assert max(ratios, key=lambda name: ratios[name].value) == "2.bias"
    assert ratios["0.bias"].high < 1 < ratios["2.bias"].value
    (figure,) = measured.figures()
    assert "depends most on 2.bias" in figure.caption


def test_other_measures_and_wrong_ones(network):
    distances = measured_at(network, measure="l2", curvature=None)
    assert "distance of outputs" in distances.tables()[0].caption
    regression = Network(nn.Linear(3, 1), task=Task.of(torch.ones(4, 3), torch.ones(4, 1)))
    with pytest.raises(BadInput, match=r"logits|classes"):
        measure_sensitivity(regression, regression.task.train_batch(), measure="kl", num_directions=2)


def test_tables_and_figures_are_sound(network):
    measured = measured_at(network)
    (table,) = measured.tables()
    json.dumps(table.to_dict(), allow_nan=False)
    assert table.columns["weights"] == list(network.layout.names)
    (figure,) = measured.figures()
    json.dumps(figure.to_plotly(), allow_nan=False)
    assert {trace["name"] for trace in figure.traces} >= {*network.layout.names, "all weights, equal norm (99 %)"}


def test_one_seed_gives_one_answer(network):
    one, again, other = (measured_at(network, seed=seed, curvature=None) for seed in (4, 4, 5))
    for first, second, third in zip(one.layers, again.layers, other.layers, strict=True):
        assert torch.equal(first.values, second.values)
        assert not torch.equal(first.values, third.values)

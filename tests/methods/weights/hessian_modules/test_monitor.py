"""Row M13's instrument: the stiff span outside the gradient, its turns, and the rule that flags them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn
from torch.func import grad, hessian

from tests.instruments.test_network import assert_same, snapshot
from tests.laws.operator_cases import filled, stream
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.subspace import Subspace
from tremorscope.instruments.task import Task
from tremorscope.methods.weights.hessian_modules.monitor import (
    GeneralisationMonitor,
    TurnRule,
    monitor_generalisations,
)

F64 = torch.float64
NAN = math.nan


def network(loss=None) -> Network:
    with torch.random.fork_rng(devices=[]):
        module = filled(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)), F64)
    inputs = torch.randn(9, 3, generator=stream(1), dtype=F64)
    return Network(module, task=Task.of(inputs, torch.arange(9) % 3, loss=loss))


def elsewhere(size: int, seed: int) -> torch.Tensor:
    return torch.randn(size, generator=stream(seed), dtype=F64)


def test_spans_are_those_of_the_dense_matrix_outside_the_gradient():
    """The twin writes (I - g g^T) H (I - g g^T) down at two places in weight space."""
    net = network()
    batch, places = net.task.train_batch(), {3: net.theta, 8: elsewhere(net.layout.size, 2)}
    found = monitor_generalisations(net, places, batch, num_directions=4, tol=1e-10)
    spans = []
    for place, theta in enumerate(places.values()):
        slope = grad(lambda at: net.loss(at, batch))(theta)
        matrix = hessian(lambda at: net.loss(at, batch))(theta)
        outside = torch.eye(len(theta), dtype=F64) - torch.outer(slope, slope) / slope.square().sum()
        values, vectors = torch.linalg.eigh(outside @ matrix @ outside)
        torch.testing.assert_close(found.curvatures[place], values[-4:].flip(0), rtol=1e-7, atol=1e-9)
        spans.append(Subspace.span(vectors[:, -4:]))
    assert found.turns[1] == pytest.approx(1 - spans[0].overlap(spans[1]), abs=1e-7)
    assert 0.05 < found.turns[1] < 1
    assert math.isnan(found.turns[0])
    assert found.distances == (0.0, pytest.approx(float((places[3] - places[8]).norm())))


def test_weights_that_stand_still_turn_nothing():
    net = network()
    before = snapshot(net.module)
    places = dict.fromkeys((0, 5, 10), net.theta)
    sets = {"all": net.task.train_batch()}
    found = monitor_generalisations(net, places, net.task.train_batch(), num_directions=3, sets=sets)
    assert found.turns[1:] == pytest.approx((0, 0), abs=1e-12)
    assert found.flagged is None
    right = net.apply(net.params, sets["all"]).argmax(-1) == sets["all"].target
    assert found.accuracies["all"] == (pytest.approx(float(right.double().mean())),) * 3
    assert_same(before, snapshot(net.module))
    assert GeneralisationMonitor.of(json.loads(json.dumps(found.to_plain()))).to_plain() == found.to_plain()


def test_only_the_positive_part_counts():
    def concave(output, target):
        return -output.square().mean()

    net = Network(nn.Linear(3, 2, bias=False).to(F64), task=Task.of(elsewhere(12, 1).view(4, 3), torch.arange(4) % 2))
    net = net.with_task(Task.of(net.task.inputs, net.task.targets, loss=concave))
    found = monitor_generalisations(net, {0: net.theta, 1: 2 * net.theta}, net.task.train_batch(), num_directions=2)
    assert float(found.curvatures.max()) < 1e-12
    assert found.turns[1] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("turns", "place"),
    [
        ([NAN, 0.9, 0.8, 0.7], None),  # never settled
        ([NAN, 0.9, 0.2, 0.3, 0.5, 0.9], 4),
        ([NAN, 0.9, 0.2, 0.3, 0.2], None),
        ([NAN, 0.2, 0.4], 2),
        ([NAN], None),
    ],
)
def test_the_rule_waits_until_the_span_has_settled(turns, place):
    assert TurnRule(threshold=0.4, settled=0.25).first(turns) == place


def test_the_flag_and_the_onset_are_steps():
    found = GeneralisationMonitor(
        steps=(0, 10, 20, 30, 40),
        turns=(NAN, 0.8, 0.1, 0.6, 0.7),
        distances=(0.0,) * 5,
        curvatures=torch.ones(5, 2, dtype=F64),
        accuracies={"new": (0.1, 0.35, 0.1, 0.3, 0.9), "old": (0.9,) * 5},
        rule=TurnRule(),
    )
    assert found.flagged == 30
    assert found.onset("new", 0.3) == 30  # the early peak did not last
    assert (found.onset("old", 0.3), found.onset("new", 0.95)) == (0, None)
    with pytest.raises(BadInput, match="set of the monitor: got other; wanted one of new, old"):
        found.onset("other", 0.3)


def test_what_cannot_be_watched_is_named():
    net = network()
    batch = net.task.train_batch()
    with pytest.raises(BadInput, match="checkpoints of a monitor: got 1; wanted at least 2"):
        monitor_generalisations(net, {0: net.theta}, batch)
    with pytest.raises(BadInput, match="num_directions: got 31; wanted 1 to 30"):
        monitor_generalisations(net, {0: net.theta, 1: net.theta}, batch, num_directions=31)
    with pytest.raises(BadInput, match=r"weights at step 1: got \(4,\); wanted a vector of 31"):
        monitor_generalisations(net, {0: net.theta, 1: torch.zeros(4, dtype=F64)}, batch, num_directions=2)
    real = {"real": batch._replace(target=torch.zeros(9, 3, dtype=F64))}
    with pytest.raises(BadInput, match="set of the monitor: got no classes; wanted classified examples"):
        monitor_generalisations(net, {0: net.theta, 1: net.theta}, batch, num_directions=2, sets=real)
    with pytest.raises(BadInput, match=r"rule of the monitor: got \(0.7, 0.6\); wanted 0 < settled < threshold < 1"):
        TurnRule(settled=0.7)

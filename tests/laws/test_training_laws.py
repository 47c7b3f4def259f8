"""The finite-difference law: a nudge of anything, followed by real training, ends where the operator says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.instruments.tangents.training_runs import DECAYS, OPTIMISERS, directions
from tests.laws.training_cases import ENTRIES, network, retrained
from tremorscope.instruments.recipe import run_recipe
from tremorscope.instruments.tangents import TrainingMap
from tremorscope.instruments.tangents.training_map import WRT, Wrt
from tremorscope.instruments.trainer import Training

SIZE = 1e-5


def trained(training: Training, wrt: Wrt, nudge: Tensor) -> Tensor:
    """Train again with the nudge in place, by the front door where there is one."""
    start = training.network.start
    if wrt == "initial_weights":
        return run_recipe(training, start + nudge)
    if wrt == "example_weights":
        return run_recipe(replace(training, example_weights=1 + nudge), start)
    if wrt == "targets":
        return retrained(training, wrt, nudge)
    rates = nudge.expand(training.num_steps)
    schedule = replace(training.trainer, schedule=lambda t: training.factor(t) * (1 + float(rates[t])))
    return run_recipe(replace(training, trainer=schedule), start)


@pytest.mark.parametrize("wrt", WRT)
@pytest.mark.parametrize("optimiser", [*OPTIMISERS, *DECAYS])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_a_nudge_ends_where_the_operator_says(loss, optimiser, wrt):
    net = network(optimiser, loss)
    training = net.recipe.bind(net)
    block = directions(ENTRIES.get(wrt, net.layout.size), 2)
    differences = torch.stack(
        [(trained(training, wrt, SIZE * v) - trained(training, wrt, -SIZE * v)) / (2 * SIZE) for v in block.T], dim=1
    )
    for route in ("structured", "generic"):
        pushed = TrainingMap(training, net.start, wrt=wrt, route=route) @ block
        gap = (pushed - differences).norm(dim=0) / differences.norm(dim=0)
        assert float(gap.max()) < 1e-6
    assert float(differences.norm(dim=0).min()) > 1e-6  # the nudge did something

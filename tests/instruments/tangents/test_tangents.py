"""Rows J1 and J3: tangents against central differences of whole runs, and against their own transposes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from tests.instruments.tangents.reference import central_differences
from tests.instruments.tangents.test_generic import LOOPS
from tests.instruments.tangents.training_runs import DECAYS, F64, OPTIMISERS, directions, relative, run_of, stack_run
from tests.instruments.test_network import assert_same, snapshot
from tests.laws.operator_cases import NETWORKS, stream
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.operators import Jacobian
from tremorscope.instruments.recipe import run_recipe
from tremorscope.instruments.tangents import Tangents, tangents
from tremorscope.instruments.trainer import Trainer


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_fifty_steps_equal_central_differences(optimiser):  # row J1
    """The error of a central difference is size^2 / 6 times a third derivative of the run, plus 1e-16 / size.

    Unit directions at size 1e-5 leave 1e-10 times the third derivative. That is why the activation is GELU, which
    has all of them, and why Adam's eps_root is 1e-3: where a gradient passes through zero its root bends at a
    scale of sqrt(eps_root), and steps of 1e-5 must be short against that.
    """
    network = run_of(
        lambda: nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3)),
        optimiser=OPTIMISERS[optimiser],
        num_steps=50,
    )
    recipe, block = network.recipe.bind(network), directions(network.layout.size, 2)
    wanted = central_differences(recipe, network.start, block, size=1e-5)
    for route in ("structured", "generic"):
        pushed = tangents(recipe, network.start, route=route)(block)
        assert float(((pushed - wanted).norm(dim=0) / wanted.norm(dim=0)).max()) < 1e-6
        assert relative(pushed, block) > 0.05  # training did something


@pytest.mark.parametrize("optimiser", [*OPTIMISERS, *DECAYS])
def test_transposes(optimiser):  # row J3
    network = stack_run("functional", optimiser=(OPTIMISERS | DECAYS)[optimiser], num_steps=4)
    recipe, size = network.recipe.bind(network), network.layout.size
    operator = Jacobian(partial(run_recipe, recipe), network.start)
    v, u = directions(size, 3, seed=1), directions(size, 3, seed=2)
    forward, adjoint = u.T @ (operator @ v), (operator.T @ u).T @ v
    assert float((forward - adjoint).abs().max()) < 1e-10
    for route in ("structured", "generic"):
        push = tangents(recipe, network.start, route=route)
        assert isinstance(push, Tangents)
        assert float((u.T @ push(v) - adjoint).abs().max()) < 1e-10
        assert relative(push(v), operator @ v) < 1e-10
        assert relative(push.pull_back(u), operator.T @ u) < 1e-10


@pytest.mark.parametrize("name", ["transformer", "recurrent"])
def test_transposes_of_any_module(name):
    network = NETWORKS[name](F64)
    recipe = Trainer(optimiser=OPTIMISERS["adam"], num_steps=3, batch_size=4, mode="evaluate").bind(network)
    operator, size = Jacobian(partial(run_recipe, recipe), network.start), network.layout.size
    v, u = directions(size, 1, seed=1), directions(size, 1, seed=2)
    push = tangents(recipe, network.start)
    assert float((u.T @ push(v) - (operator.T @ u).T @ v).abs()) < 1e-10
    assert relative(push.pull_back(u), operator.T @ u) < 1e-10


@pytest.mark.parametrize("name", LOOPS)
def test_transposes_of_loops_of_pure_functions(name):
    theta = 0.5 + torch.rand(4, generator=stream(0), dtype=F64)
    push, u, v = tangents(LOOPS[name], theta), directions(4, 2, seed=1), directions(4, 2, seed=2)
    assert float((u.T @ push(v) - push.pull_back(u).T @ v).abs().max()) < 1e-12


def test_a_product_is_linear():
    network = stack_run("GELU", optimiser=OPTIMISERS["adam"])
    push, block = tangents(network.recipe.bind(network), network.start), directions(network.layout.size, 2)
    mixed = 3 * block[:, :1] - 1e6 * block[:, 1:]
    assert relative(push(mixed), 3 * push(block)[:, :1] - 1e6 * push(block)[:, 1:]) < 1e-12


@pytest.mark.parametrize("route", ["structured", "generic"])
def test_the_module_and_the_random_state_stay_as_they_were(route):
    network = stack_run("ReLU, four deep", seed=0)
    network.module.train()
    network.module[1].eval()
    network.module[0].weight.grad = torch.ones_like(network.module[0].weight)
    before = snapshot(network.module)
    push = tangents(network.recipe.bind(network), network.start, route=route)
    push(directions(network.layout.size, 2))
    assert_same(before, snapshot(network.module))


def test_random_steps_leave_the_random_state_alone():
    theta = torch.rand(4, generator=stream(0), dtype=F64)
    state = torch.random.get_rng_state()
    tangents(LOOPS["tensor"], theta)(directions(4, 2))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_penalty_on_the_weights_is_differentiated_and_said_aloud():
    """The structured route does not know the penalty; the generic one differentiates it."""
    network = stack_run("GELU", optimiser=OPTIMISERS["momentum"], penalty=lambda theta: 0.3 * theta.norm() ** 3)
    recipe, block = network.recipe.bind(network), directions(network.layout.size, 2)
    push = tangents(recipe, network.start)
    assert (push.route, push.flags) == ("generic", ("generic route: its weights are penalised",))
    wanted = central_differences(recipe, network.start, block, size=1e-5)
    assert relative(push(block), wanted) < 1e-6
    free = stack_run("GELU", optimiser=OPTIMISERS["momentum"])
    assert relative(tangents(free.recipe.bind(free), free.start)(block), wanted) > 1e-2
    with pytest.raises(BadInput, match=r"structured, but its weights are penalised; wanted generic"):
        tangents(recipe, network.start, route="structured")

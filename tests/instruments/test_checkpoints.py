"""States from checkpoints are the stored ones, bit for bit, and few are alive at a time."""

from __future__ import annotations

import weakref

import pytest
import torch

from tests.instruments.tangents.training_runs import OPTIMISERS, directions, run_of, stack_run
from tests.laws.operator_cases import mlp
from tremorscope.instruments.checkpoints import stride_for
from tremorscope.instruments.recipe import PureRecipe
from tremorscope.instruments.tangents import TrainingMap
from tremorscope.instruments.trainer import primal_states


@pytest.mark.parametrize("num_steps", [1, 2, 7, 16, 17])
@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "adam"])
def test_recomputed_states_are_the_stored_bits(optimiser, num_steps):
    net = stack_run("GELU", optimiser=OPTIMISERS[optimiser], num_steps=num_steps)
    training = net.recipe.bind(net)
    stored, sparse = primal_states(training, net.start), primal_states(training, net.start, memory=0)
    assert stored.stride == 1
    assert sparse.stride == max(1, int(num_steps**0.5))
    assert len(stored) == len(sparse) == num_steps + 1
    order = [*range(num_steps + 1), *reversed(range(num_steps + 1)), num_steps // 2, -1]
    for t in order:
        for one, other in zip(stored[t], sparse[t], strict=True):
            assert torch.equal(one, other)


def test_dropout_is_repeated():
    net = mlp(torch.float64)
    training = run_of(net.module, shape=(5,), seed=3, num_steps=9).recipe.bind(net)
    stored, sparse = primal_states(training, net.start), primal_states(training, net.start, memory=0)
    assert all(torch.equal(sparse[t][0], stored[t][0]) for t in reversed(range(10)))


def test_a_sweep_keeps_twice_the_square_root_of_the_states_and_recomputes_each_once():
    alive: list[weakref.ref[torch.Tensor]] = []
    calls = []

    def advance(state, t):
        calls.append(t)
        after = 0.9 * state
        alive.append(weakref.ref(after))
        return after

    recipe = PureRecipe(start=lambda theta: theta.clone(), advance=advance, num_steps=100)
    states = primal_states(recipe, torch.ones(3), memory=0)
    calls.clear()
    most = 0
    for t in reversed(range(101)):
        states[t]
        most = max(most, sum(reference() is not None for reference in alive))
    assert most <= 22  # 11 kept, a segment of 10, and the one in hand
    assert len(calls) <= 100


def test_memory_decides():
    recipe = PureRecipe(start=lambda theta: theta, advance=lambda state, t: state, num_steps=49)
    state = torch.zeros(10, dtype=torch.float64)
    assert stride_for(recipe, state, memory=50 * 80) == 1
    assert stride_for(recipe, state, memory=50 * 80 - 1) == 7


@pytest.mark.parametrize("wrt", ["initial_weights", "learning_rates", "example_weights"])
def test_products_from_checkpoints_are_the_same_bits(wrt):
    net = stack_run("GELU", optimiser=OPTIMISERS["adam"], num_steps=11)
    training = net.recipe.bind(net)
    stored, sparse = (
        TrainingMap(training, net.start, wrt=wrt, route="generic", memory=memory) for memory in (1 << 30, 0)
    )
    v, u = directions(stored.shape[1], 2), directions(stored.shape[0], 2)
    assert torch.equal(stored @ v, sparse @ v)
    assert torch.equal(stored.T @ u, sparse.T @ u)

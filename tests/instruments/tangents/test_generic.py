"""The generic route on what people build: convolutions, attention, recurrence, and loops of their own."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad

from tests.instruments.tangents.reference import central_differences, naive_product
from tests.instruments.tangents.training_runs import (
    F64,
    OPTIMISERS,
    directions,
    relative,
    run_of,
)
from tests.laws.operator_cases import NETWORKS, stream
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.recipe import PureRecipe
from tremorscope.instruments.tangents import tangents
from tremorscope.instruments.trainer import Trainer


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("optimiser", ["nesterov", "adamw"])
def test_any_module(name, optimiser):
    network = NETWORKS[name](F64)
    recipe = Trainer(optimiser=OPTIMISERS[optimiser], num_steps=4, batch_size=4, mode="evaluate").bind(network)
    push, block = tangents(recipe, network.start), directions(network.layout.size, 3)
    assert push.route == "generic"
    assert push.flags[0].startswith("generic route: layer ")
    assert relative(push(block), central_differences(recipe, network.start, block)) < 1e-6


def test_seeded_dropout_is_differentiated_under_its_own_masks():
    network = run_of(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)), seed=4)
    recipe, block = network.recipe.bind(network), directions(network.layout.size, 3)
    state = torch.random.get_rng_state()
    pushed = tangents(recipe, network.start)(block)
    assert relative(pushed, central_differences(recipe, network.start, block)) < 1e-8
    assert torch.equal(torch.random.get_rng_state(), state)
    other = Trainer(optimiser=OPTIMISERS["sgd"], num_steps=7, batch_size=5, schedule="cosine", seed=5).bind(network)
    assert relative(pushed, central_differences(other, network.start, block)) > 1e-2


class Pair(NamedTuple):
    theta: Tensor
    speed: Tensor


def slope(theta: Tensor, t: int) -> Tensor:
    """Gradient of a lumpy function that changes from step to step."""
    return grad(lambda at: (at.sin() * (1 + 0.1 * t) + 0.3 * at**2).sum() + 0.2 * at[0] * at[-1] ** 2)(theta)


def moved(state: Pair, t: int) -> Pair:
    speed = 0.8 * state.speed + slope(state.theta, t)
    return Pair(state.theta - 0.1 * speed, speed)


LOOPS = {
    "tensor": PureRecipe(start=lambda th: th, advance=lambda s, t: s - 0.1 * slope(s, t), num_steps=9),
    "tuple": PureRecipe(
        start=lambda th: (th, 0.5 * th),
        advance=lambda s, t: (s[0] - 0.1 * s[1], 0.8 * s[1] + slope(s[0], t)),
        num_steps=9,
    ),
    "named tuple": PureRecipe(start=lambda th: Pair(th, torch.zeros_like(th)), advance=moved, num_steps=9),
    "dictionary": PureRecipe(
        start=lambda th: {"speed": [torch.zeros_like(th)], "theta": th},
        advance=lambda s, t: {
            "speed": [0.8 * s["speed"][0] + slope(s["theta"], t)],
            "theta": s["theta"] - 0.1 * (0.8 * s["speed"][0] + slope(s["theta"], t)),
        },
        num_steps=9,
    ),
    "start and end are functions too": PureRecipe(
        start=lambda th: {"log": th.exp()},
        advance=lambda s, t: {"log": s["log"] - 0.05 * slope(s["log"], t)},
        num_steps=9,
        weights=lambda s: s["log"].log(),
    ),
    "counters of two kinds": PureRecipe(
        start=lambda th: {"theta": th, "count": torch.tensor(1), "calls": 0},
        advance=lambda s, t: {
            "theta": s["theta"] - 0.3 * slope(s["theta"], t) / s["count"],
            "count": s["count"] + 1,
            "calls": s["calls"] + 1,
        },
        num_steps=9,
    ),
    "no step at all": PureRecipe(start=lambda th: th, advance=lambda s, t: s, num_steps=0),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_of_pure_functions(name):
    theta = 0.5 + torch.rand(4, generator=stream(0), dtype=F64)
    push, block = tangents(LOOPS[name], theta), directions(4, 3)
    assert (push.route, push.flags, push.null_columns.tolist()) == ("generic", (), [])
    assert relative(push(block), naive_product(LOOPS[name], theta, block)) < 1e-12
    assert relative(push(block), central_differences(LOOPS[name], theta, block)) < 1e-8


def test_a_step_that_calls_backward_is_told_what_to_call_instead():
    def advance(state: Tensor, t: int) -> Tensor:
        leaf = state.detach().requires_grad_()
        leaf.pow(4).sum().backward()
        return state - 0.1 * leaf.grad

    push = tangents(PureRecipe(start=lambda th: th, advance=advance, num_steps=2), torch.ones(3))
    with pytest.raises(BadInput, match=r"derivative of the recipe: got .*wanted functions that torch.func.jvp can"):
        push(torch.eye(3))


def test_pure_functions_have_no_structured_route():
    with pytest.raises(BadInput, match="got structured for a recipe of pure functions"):
        tangents(LOOPS["tensor"], torch.ones(4), route="structured")


def test_memory_of_a_column_is_told():
    network = NETWORKS["cnn"](F64)
    recipe = Trainer(optimiser=OPTIMISERS["sgd"], num_steps=1, mode="evaluate").bind(network)
    assert tangents(recipe, network.start).bytes_per_column >= 3 * 8 * network.layout.size
    assert tangents(LOOPS["tensor"], torch.ones(4, dtype=F64)).bytes_per_column >= 3 * 8 * 4


def test_a_module_in_another_precision():
    network = NETWORKS["recurrent"](torch.float32)
    recipe = Trainer(optimiser=OPTIMISERS["sgd"], num_steps=2).bind(network)
    pushed = tangents(recipe, network.start)(directions(network.layout.size, 2))
    assert pushed.dtype == torch.float32
    wide = NETWORKS["recurrent"](F64)
    exact = tangents(Trainer(optimiser=OPTIMISERS["sgd"], num_steps=2).bind(wide), wide.start)
    assert relative(pushed, exact(directions(network.layout.size, 2))) < 1e-5
    assert isinstance(network, Network)

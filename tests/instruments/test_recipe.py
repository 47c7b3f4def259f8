from __future__ import annotations

from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.func import jacfwd

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.recipe import PureRecipe, Recipe, check_recipe, run_recipe, state_tensors

THETA = torch.tensor([1.0, -2.0], dtype=torch.float64)


class Pair(NamedTuple):
    weights: Tensor
    speed: Tensor


@pytest.mark.parametrize(
    ("start", "advance", "weights"),
    [
        (lambda theta: theta, lambda state, t: 0.5 * state, None),
        (lambda theta: (theta, theta * 0), lambda state, t: (0.5 * state[0], state[1]), None),
        (lambda theta: [theta], lambda state, t: [0.5 * state[0]], None),
        (lambda theta: Pair(theta, theta * 0), lambda state, t: Pair(0.5 * state.weights, state.speed), None),
        (lambda theta: {"n": 0, "theta": theta}, lambda state, t: {"n": t, "theta": 0.5 * state["theta"]}, None),
        (
            lambda theta: {"net": {"w": theta}},
            lambda state, t: {"net": {"w": 0.5 * state["net"]["w"]}},
            lambda state: state["net"]["w"],
        ),
    ],
    ids=["tensor", "tuple", "list", "named tuple", "dictionary", "nested"],
)
def test_weights_are_found_in_every_kind_of_state(start, advance, weights):
    recipe = PureRecipe(start=start, advance=advance, num_steps=3, weights=weights)
    assert isinstance(recipe, Recipe)
    assert check_recipe(recipe) is recipe
    assert torch.equal(run_recipe(recipe, THETA), THETA / 8)
    assert torch.equal(jacfwd(partial(run_recipe, recipe))(THETA), torch.eye(2, dtype=torch.float64) / 8)


def test_steps_are_counted_from_zero():
    seen: list[int] = []
    run_recipe(PureRecipe(start=lambda th: th, advance=lambda state, t: (seen.append(t), state)[1], num_steps=4), THETA)
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("state", [(), {"w": THETA}, (3, THETA), torch.zeros(2, 2), None])
def test_weights_that_are_not_where_they_should_be(state):
    recipe = PureRecipe(start=lambda theta: state, advance=lambda state, t: state, num_steps=1)
    with pytest.raises(BadInput, match=r"state of the recipe: got .*Pass weights=lambda state"):
        run_recipe(recipe, THETA)


@pytest.mark.parametrize("opaque", [lambda theta: theta, "adam", None, torch.optim.SGD])
def test_an_opaque_loop_is_refused_with_the_sentence(opaque):
    with pytest.raises(
        BadInput,
        match=r"wanted a Trainer, or a pair of pure functions init\(theta\) -> state and step\(state, t\) -> state",
    ):
        check_recipe(opaque)


def test_tensors_of_a_state_come_in_a_fixed_order():
    one, two = torch.zeros(1), torch.ones(1)
    assert [float(tensor) for tensor in state_tensors({"b": (one, 3), "a": [two, "text"]})] == [0.0, 1.0]

"""Recipes: training as a pure map from first weights to last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

from jaxtyping import Float
from torch import Tensor
from torch.utils import _pytree as pytree

from tremorscope.foundations.errors import BadInput

State = Any  # a tree of tensors


@runtime_checkable
class Recipe(Protocol):
    """Anything with these members can be differentiated through.

    `step` must be pure: the same state and step index give the same state, bit for bit.
    """

    @property
    def num_steps(self) -> int:
        """Number of steps."""
        ...

    def init(self, theta: Float[Tensor, " params"]) -> State:
        """Optimiser state around the first weights."""
        ...

    def step(self, state: State, t: int) -> State:
        """One training step."""
        ...

    def read(self, state: State) -> Float[Tensor, " params"]:
        """The weights inside a state."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class PureRecipe:
    """A user's own training loop as two pure functions.

    `start(theta) -> state` and `advance(state, t) -> state`; a state is a tree of tensors (tuples, lists,
    dictionaries) whose weights `weights(state)` gives: by default the state itself, its first entry, or
    its entry `"theta"`.

    >>> import torch
    >>> decay = PureRecipe(start=lambda theta: theta, advance=lambda state, t: 0.5 * state, num_steps=2)
    >>> run_recipe(decay, torch.tensor([4.0]))
    tensor([1.])
    """

    start: Callable[[Tensor], State]
    advance: Callable[[State, int], State]
    num_steps: int
    weights: Callable[[State], Tensor] | None = None

    def init(self, theta: Float[Tensor, " params"]) -> State:
        """Optimiser state around the first weights."""
        return self.start(theta)

    def step(self, state: State, t: int) -> State:
        """One training step."""
        return self.advance(state, t)

    def read(self, state: State) -> Float[Tensor, " params"]:
        """The weights inside a state.

        Raises:
            BadInput: If they are not where they are expected.
        """
        if self.weights is not None:
            return self.weights(state)
        found = state
        if isinstance(state, dict):
            found = state.get("theta")
        elif isinstance(state, tuple | list) and state:
            found = state[0]
        if not isinstance(found, Tensor) or found.ndim != 1:
            raise BadInput(
                "state of the recipe",
                got=type(state).__name__,
                wanted="a flat tensor, a tuple that starts with one, or a dictionary with 'theta'",
                remedy="Pass weights=lambda state: ... to say where the weights are.",
            )
        return found


def run_recipe(recipe: Recipe, theta: Float[Tensor, " params"]) -> Float[Tensor, " params"]:
    """Last weights from first ones. Pure and differentiable: `torch.func.jvp(partial(run_recipe, recipe), ...)`."""
    state = recipe.init(theta)
    for t in range(recipe.num_steps):
        state = recipe.step(state, t)
    return recipe.read(state)


def check_recipe(recipe: object) -> Recipe:
    """The recipe, or the sentence that an opaque training loop gets.

    Raises:
        BadInput: If it is not a `Recipe`.
    """
    if isinstance(recipe, Recipe):
        return recipe
    raise BadInput(
        "training recipe",
        got=type(recipe).__name__,
        wanted="a Trainer, or a pair of pure functions init(theta) -> state and step(state, t) -> state",
        remedy="An opaque training loop cannot be differentiated: wrap it as "
        "PureRecipe(start=..., advance=..., num_steps=...).",
    )


def state_tensors(state: State) -> list[Tensor]:
    """The tensors of a state, in a fixed order."""
    return [leaf for leaf in pytree.tree_leaves(state) if isinstance(leaf, Tensor)]

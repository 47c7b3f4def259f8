"""Training that is only allowed to move inside a subspace of the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.recipe import State, run_recipe
from tremorscope.instruments.trainer import Training


@final
@dataclass(frozen=True, kw_only=True)
class SubspaceTraining:
    """A recipe for coordinates `z` of the weights `origin + basis z`, with the optimiser acting on `z`.

    For gradient descent with or without momentum that is the same as projecting every gradient onto the span.
    Its "theta" are the coordinates: start it at zeros, and turn the end into weights with `weights`.
    """

    training: Training
    origin: Float[Tensor, " params"]
    basis: Float[Tensor, "params k"]

    def __post_init__(self) -> None:
        if self.basis.ndim != 2 or len(self.basis) != len(self.origin) or self.basis.shape[1] == 0:
            raise BadInput(
                "basis to train inside", got=tuple(self.basis.shape), wanted=f"({len(self.origin)}, k) with k >= 1"
            )

    @property
    def num_steps(self) -> int:
        """Number of steps."""
        return self.training.num_steps

    def init(self, theta: Float[Tensor, " k"]) -> State:
        """Coordinates with empty buffers."""
        return self.training.init(theta)

    def step(self, state: State, t: int) -> State:
        """One update of the coordinates."""
        coordinates, *slots = state
        gradient = self.basis.T @ self.training.gradient(self.weights(coordinates), t)
        coordinates, slots = self.training.trainer.optimiser.update(
            coordinates, gradient, tuple(slots), factor=self.training.factor(t), step=t
        )
        return (coordinates, *slots)

    def read(self, state: State) -> Float[Tensor, " k"]:
        """The coordinates inside a state."""
        coordinates: Tensor = state[0]
        return coordinates

    def weights(self, coordinates: Float[Tensor, " k"]) -> Float[Tensor, " params"]:
        """Weights at some coordinates."""
        return self.origin + self.basis @ coordinates


def train_inside(
    training: Training, origin: Float[Tensor, " params"], basis: Float[Tensor, "params k"]
) -> Float[Tensor, " params"]:
    """Last weights of a run that starts at `origin` and never leaves `origin + span(basis)`.

    Cost: the run itself, and two products with the basis a step.

    Raises:
        BadInput: If the basis does not fit the weights.
    """
    recipe = SubspaceTraining(training=training, origin=origin, basis=basis.to(origin))
    last = run_recipe(recipe, torch.zeros(basis.shape[1], dtype=origin.dtype, device=origin.device))
    return recipe.weights(last)

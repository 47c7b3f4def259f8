"""Which way tangents go through a training run."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.losses import recognise
from tremorscope.instruments.optimisers import SGD, Adam
from tremorscope.instruments.recipe import Recipe
from tremorscope.instruments.tangents.generic import RecipeTangents, TrainingTangents
from tremorscope.instruments.tangents.stack import LinearStack, recognise_stack
from tremorscope.instruments.tangents.structured import StructuredTangents
from tremorscope.instruments.trainer import STATE_BYTES, Training

_CACHE_BYTES = 24 << 20  # of one block's state; wider blocks fall out of the last-level cache
_NARROWEST, _WIDEST = 32, 128

Route = Literal["auto", "structured", "generic"]
COEFFICIENT_LIMIT = 4 << 30  # bytes; beyond this the structured route would trade speed for swapping


@runtime_checkable
class Tangents(Protocol):
    """`V -> J V` for one training run, `J = d theta_T / d theta_0`."""

    route: str
    flags: tuple[str, ...]
    last: Tensor
    null_columns: Int[Tensor, " null"]

    @property
    def bytes_per_column(self) -> int:
        """Memory that one tangent needs while it is pushed."""
        ...

    def __call__(self, block: Float[Tensor, "params k"]) -> Float[Tensor, "params k"]:
        """Push `k` tangents through the run."""
        ...

    def pull_back(self, block: Float[Tensor, "params k"]) -> Float[Tensor, "params k"]:
        """Pull `k` cotangents back through the run: `J^T U`."""
        ...


def tangents(
    recipe: Recipe, theta: Float[Tensor, " params"], *, route: Route = "auto", memory: int = STATE_BYTES
) -> Tangents:
    """The tangent map of a recipe at `theta`, by the fastest route that is exact for it.

    `structured` needs a `Trainer` on a chain of linear and elementwise layers with cross-entropy or mean
    squared error; `generic` takes anything. `auto` falls back to `generic` and says why in `flags`.
    States of the run that exceed `memory` bytes are recomputed on the generic route; the structured one keeps
    the coefficients of every step whatever they take.

    Raises:
        BadInput: If the run diverges, or `route="structured"` cannot be taken.
    """
    if not isinstance(recipe, Training):
        if route == "structured":
            raise BadInput("route", got="structured for a recipe of pure functions", wanted="a Trainer, or generic")
        return RecipeTangents(recipe, theta, memory=memory)
    if route == "generic":
        return TrainingTangents(recipe, theta, memory=memory)
    found = structure(recipe)
    if isinstance(found, LinearStack):
        return StructuredTangents(recipe, found, theta)
    if route == "structured":
        raise BadInput("route", got=f"structured, but {found}", wanted="generic", remedy="Use route='auto'.")
    return TrainingTangents(recipe, theta, memory=memory, flags=(f"generic route: {found}",))


def structure(training: Training) -> LinearStack | str:
    """The chain that the structured route can use, or why it cannot be taken."""
    if training.example_weights is not None:
        return "its examples are weighted"
    if training.trainer.penalty is not None:
        return "its weights are penalised"
    if recognise(training.task.loss) is None:
        return "the loss is neither cross-entropy nor mean squared error"
    if not isinstance(training.trainer.optimiser, SGD | Adam):
        return f"the optimiser {type(training.trainer.optimiser).__name__} is not one of ours"
    batch = training.batch(0)
    if recognise(training.task.loss) == "cross_entropy" and batch.target is not None and batch.target.ndim != 1:
        return "the targets are no class indices"
    if recognise(training.task.loss) == "cross_entropy" and bool((training.task.targets < 0).any()):
        return "some targets are to be ignored"
    found = recognise_stack(training.network, batch, training=training.trainer.mode == "train")
    if isinstance(found, LinearStack):
        needed = StructuredTangents.coefficient_bytes(training, found)
        if needed > COEFFICIENT_LIMIT:
            return f"its coefficients would take {needed / 1e9:.1f} GB"
    return found


def block_width(pushing: Tangents) -> int:
    """Columns that travel best together, from shapes alone: their state should stay in the cache."""
    fitting = _CACHE_BYTES // max(1, pushing.bytes_per_column)
    return max(_NARROWEST, min(_WIDEST, fitting // 16 * 16))

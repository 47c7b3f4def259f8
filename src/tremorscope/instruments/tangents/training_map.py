"""Training as a linear operator: nudges in, nudges of the last weights out, and back."""

from __future__ import annotations

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.foundations.layout import Layout
from tremorscope.instruments.operators import LinearOperator
from tremorscope.instruments.recipe import Recipe
from tremorscope.instruments.tangents.generic import TrainingTangents
from tremorscope.instruments.tangents.routes import Route, Tangents, block_width, tangents
from tremorscope.instruments.tangents.sources import ExampleWeights, LearningRates, Source, TargetNoise
from tremorscope.instruments.tangents.structured import StructuredTangents
from tremorscope.instruments.trainer import STATE_BYTES, Training

Wrt = Literal["initial_weights", "learning_rate", "learning_rates", "example_weights", "targets"]
WRT: tuple[Wrt, ...] = ("initial_weights", "learning_rate", "learning_rates", "example_weights", "targets")


@final
class TrainingMap(LinearOperator):
    """`d theta_T / d (something)` of one training run, as an operator: nothing of size params^2 is formed.

    `A V` is one forward sweep through the run, `A^T U` one backward sweep with the stored states; a block of
    columns shares the primal part of both. With `wrt="example_weights"`, one backward sweep gives the influence
    of every training example.

    Args:
        recipe: How it trains. All but `"initial_weights"` needs a `Trainer`.
        theta: First weights.
        wrt: What is nudged: `"initial_weights"`; `"learning_rate"`, all steps together, or `"learning_rates"`,
            each step (both relative: 0.01 is one per cent more); `"example_weights"`, one for each training
            example (-1 leaves it out); `"targets"`, class probabilities or real targets.
        rows: Shell-style pattern of the last weights to look at.
        columns: Likewise of the first weights to nudge; needs `layout`.
        layout: Names of the weights; a `Trainer` knows them.
        route: As in `tangents`.
        chunk: Columns that travel together; from the cache by default.
        memory: Bytes that states may take on the generic route; beyond, they are recomputed from checkpoints,
            one more primal run a sweep.

    Cost: a product is about two gradients a step and column. Memory: the states of the run, on the structured
    route its coefficients, and the activations of `chunk` columns.

    >>> from torch import nn
    >>> from tremorscope.instruments.recipe import PureRecipe
    >>> halved = PureRecipe(start=lambda theta: theta, advance=lambda state, t: state / 2, num_steps=2)
    >>> TrainingMap(halved, torch.ones(3)) @ torch.ones(3)
    tensor([0.2500, 0.2500, 0.2500])

    Raises:
        BadInput: If the run diverges, or the recipe cannot be differentiated with respect to `wrt`.
        SiteNotFound: If a pattern matches no weights.
    """

    def __init__(
        self,
        recipe: Recipe,
        theta: Float[Tensor, " params"],
        *,
        wrt: Wrt = "initial_weights",
        rows: str = "*",
        columns: str = "*",
        layout: Layout | None = None,
        route: Route = "auto",
        chunk: int | None = None,
        memory: int = STATE_BYTES,
    ) -> None:
        if wrt not in WRT:
            raise BadInput("wrt", got=wrt, wanted=", ".join(WRT), remedy=did_you_mean(str(wrt), WRT))
        if wrt != "initial_weights" and not isinstance(recipe, Training):
            raise BadInput("recipe", got="pure functions", wanted=f"a Trainer, to differentiate by {wrt}")
        self.wrt = wrt
        self.tangents: Tangents = tangents(recipe, theta, route=route, memory=memory)
        self.flags = self.tangents.flags
        self.chunk = chunk or block_width(self.tangents)
        self._size = theta.numel()
        self._source = self._made_source(recipe, wrt)
        layout = recipe.network.layout if isinstance(recipe, Training) else layout
        self._rows, self._columns = _chosen(rows, layout), _chosen(columns, layout)
        if self._source is not None and self._columns is not None:
            raise BadInput("columns", got=columns, wanted="'*': only initial weights have names")

    @property
    def shape(self) -> tuple[int, int]:
        """Last weights looked at, entries nudged."""
        rows = self._size if self._rows is None else len(self._rows)
        if self._source is not None:
            return rows, self._source.num_entries
        return rows, self._size if self._columns is None else len(self._columns)

    @property
    def dtype(self) -> torch.dtype:
        """That of the weights."""
        return self.tangents.last.dtype

    @property
    def device(self) -> torch.device:
        """That of the weights."""
        return self.tangents.last.device

    @property
    def is_symmetric(self) -> bool:
        """False."""
        return False

    def forward_block(self, vectors: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        """`A V`: forward sweeps."""
        pushed = torch.cat([self._pushed(part) for part in torch.split(vectors, self.chunk, dim=1)], dim=1)
        return pushed if self._rows is None else pushed[self._rows]

    def adjoint_block(self, vectors: Float[Tensor, "rows k"]) -> Float[Tensor, "columns k"]:
        """`A^T U`: backward sweeps."""
        return torch.cat([self._pulled(part) for part in torch.split(vectors, self.chunk, dim=1)], dim=1)

    def _pushed(self, part: Tensor) -> Tensor:
        if self._source is None:
            return self.tangents(_spread(part, self._columns, self._size))
        nothing = part.new_zeros(self._size, part.shape[1])
        return self._trained()(nothing, self._source, part)

    def _pulled(self, part: Tensor) -> Tensor:
        whole = _spread(part, self._rows, self._size)
        if self._source is None:
            pulled = self.tangents.pull_back(whole)
            return pulled if self._columns is None else pulled[self._columns]
        nudges = part.new_zeros(self._source.num_entries, part.shape[1])
        self._trained().pull_back(whole, self._source, nudges)
        return nudges

    def _trained(self) -> StructuredTangents | TrainingTangents:
        if isinstance(self.tangents, StructuredTangents | TrainingTangents):
            return self.tangents
        raise BadInput("recipe", got="pure functions", wanted="a Trainer")

    def _made_source(self, recipe: Recipe, wrt: Wrt) -> Source | None:
        if wrt == "initial_weights" or not isinstance(recipe, Training):
            return None
        if wrt in ("learning_rate", "learning_rates"):
            return LearningRates(self._trained().weights, recipe.num_steps, is_global=wrt == "learning_rate")
        if wrt == "targets":
            return TargetNoise(recipe)
        return ExampleWeights(recipe, self.tangents if isinstance(self.tangents, StructuredTangents) else None)


def _chosen(pattern: str, layout: Layout | None) -> Tensor | None:
    if pattern == "*":
        return None
    if layout is None:
        raise BadInput("pattern of weights", got=f"{pattern!r} and no layout", wanted="a layout that names them")
    return layout.indices(pattern)


def _spread(part: Tensor, chosen: Tensor | None, size: int) -> Tensor:
    if chosen is None:
        return part
    whole = part.new_zeros(size, part.shape[1])
    whole[chosen] = part
    return whole

"""Curvature of a mean over data: weighted batches, kept as far as memory goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.layout import Layout
from tremorscope.instruments.operators.mean_loss import BatchLoss, MeanLoss, kept
from tremorscope.instruments.operators.operator import LinearOperator
from tremorscope.instruments.operators.route_choice import SMALL_BYTES, AskedRoute, Candidate, choose
from tremorscope.instruments.operators.second_order import BlockProduct, Route, exact_derivatives, gradient_at

MEMORY = 2**30  # bytes of linearised batches that are kept between products
BLOCK_BYTES = 64 * 2**20  # activations of one block: larger ones leave the cache and gain nothing
MAX_CHUNK = 64
# A kept batch holds activations, their tangent coefficients and both backward passes: about four times.
_PER_SAVED_BYTE = 4

Build = Callable[[BatchLoss, Tensor, Route, bool], BlockProduct]
"""From batch, weights, route and whether it will be used only once."""


class BatchMean(LinearOperator):
    """A symmetric operator `sum_b weight_b A_b` with one linearised `A_b` per batch.

    What kinds of curvature differ in is `build`; all else (weights, checks, route, memory) is here.
    """

    layout: Layout
    """How the entries of vectors lie as named parameters."""
    flags: tuple[str, ...]
    """What was tried and does not work here, and what is not exact."""
    route: Route
    """How products are made."""
    chunk: int
    """Columns multiplied together."""

    def __init__(
        self, mean: MeanLoss, build: Build, *, what: str, route: AskedRoute, chunk: int | None, memory: int
    ) -> None:
        if chunk is not None and chunk < 1:
            raise BadInput("chunk", got=chunk, wanted="at least 1")
        self.layout, self._theta, self._build = mean.layout, mean.theta, build
        first = mean.batches[0]
        with exact_derivatives(mean.theta.device):
            choice = choose(
                route,
                Candidate(
                    what=f"{what} of {mean.name!r}",
                    build=lambda way: build(first, mean.theta, way, False),
                    rebuild=lambda way: build(first, mean.theta, way, True),
                    theta=mean.theta,
                    slope=float(gradient_at(first, mean.theta).norm()),
                    is_small=max(batch.saved_bytes for batch in mean.batches) <= SMALL_BYTES,
                ),
            )
            self.route, self.flags = choice.route, choice.flags
            largest = max(batch.saved_bytes for batch in mean.batches)
            fitting = max(1, min(MAX_CHUNK, BLOCK_BYTES // max(largest, 1)))
            # Where vmap has no rule for some operation, columns go one at a time.
            self.chunk = 1 if choice.one_at_a_time else chunk or fitting
            costs = [_PER_SAVED_BYTE * batch.saved_bytes for batch in mean.batches]
            keep = kept(costs, memory)
            keep[0] = True  # it has been built, and memory for one at a time is needed anyway
            self._batches = [
                _Kept(batch, None if not here else choice.product if place == 0 else self._built(batch))
                for place, (batch, here) in enumerate(zip(mean.batches, keep, strict=True))
            ]
        self._kept_bytes = sum(cost for cost, here in zip(costs, keep, strict=True) if here)

    @final
    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns: the chosen parameters."""
        return self.layout.size, self.layout.size

    @final
    @property
    def dtype(self) -> torch.dtype:
        """The network's."""
        return self._theta.dtype

    @final
    @property
    def device(self) -> torch.device:
        """The network's."""
        return self._theta.device

    @final
    @property
    def is_symmetric(self) -> bool:
        """True."""
        return True

    @final
    def forward_block(self, vectors: Float[Tensor, "params k"]) -> Float[Tensor, "params k"]:
        """`A V`."""
        total = torch.zeros_like(vectors)
        with exact_derivatives(self.device):
            for part in self._batches:
                product = part.product or self._built(part.loss, once=vectors.shape[1] <= self.chunk)
                for start in range(0, vectors.shape[1], self.chunk):
                    columns = slice(start, start + self.chunk)
                    total[:, columns] += part.loss.weight * product(vectors[:, columns])
        return total

    @final
    def adjoint_block(self, vectors: Float[Tensor, "params k"]) -> Float[Tensor, "params k"]:
        """`A^T U`, which is `A U`."""
        return self.forward_block(vectors)

    @final
    @property
    def kept_bytes(self) -> int:
        """Estimate for the linearised batches that are kept; the others are differentiated anew each time."""
        return self._kept_bytes

    def _built(self, loss: BatchLoss, *, once: bool = False) -> BlockProduct:
        return self._build(loss, self._theta, self.route, once)


@final
@dataclass(frozen=True)
class _Kept:
    loss: BatchLoss
    product: BlockProduct | None

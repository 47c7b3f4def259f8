"""Tangents of training for any module and any pure recipe, by forward-mode differentiation of each step.

Both classes keep the states of the run (or checkpoints, when they exceed `memory`) and send a block of tangents
through step after step with `vmap` of `jvp`, so that the primal part of a step is computed once for the whole
block. Cost: one forward-over-reverse product per tangent and step. Memory: states, plus the activations of `k`
tangents.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import jvp, vjp, vmap
from torch.utils import _pytree as pytree

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.operators.second_order import exact_derivatives
from tremorscope.instruments.recipe import Recipe, State
from tremorscope.instruments.tangents.sources import Source, collected, forced
from tremorscope.instruments.trainer import STATE_BYTES, Training, primal_states

_COPIES = 8  # state, gradient, buffers and the temporaries of one product


@final
class TrainingTangents:
    """`V -> J V` for a `Trainer` on any module; blocks are `[params, k]`.

    Only the gradient is differentiated here: the optimiser knows its own tangent.
    """

    route = "generic"

    def __init__(
        self,
        training: Training,
        theta: Float[Tensor, " params"],
        *,
        memory: int = STATE_BYTES,
        flags: tuple[str, ...] = (),
    ) -> None:
        self.flags = flags
        self.training = training
        self._states = primal_states(training, theta, memory=memory)
        self.last: Tensor = training.read(self._states[-1])
        self.null_columns: Int[Tensor, " null"] = torch.zeros(0, dtype=torch.int64)

    @property
    def bytes_per_column(self) -> int:
        """State and gradient of one tangent; activations depend on the module and are not counted."""
        return self.last.element_size() * self.last.numel() * _COPIES

    def __call__(
        self, block: Float[Tensor, "params k"], source: Source | None = None, nudges: Tensor | None = None
    ) -> Float[Tensor, "params k"]:
        """Push tangents of the first weights, and nudges of a source, to tangents of the last weights."""
        d_theta = block.to(self.last.dtype, copy=True)
        d_slots = tuple(torch.zeros_like(d_theta) for _ in self._states[0][1:])
        for t in range(self.training.num_steps):
            theta, *slots = self._states[t]
            gradient, d_gradient = self._gradient(theta, d_theta, t)
            update = self.training.trainer.optimiser.linearise(
                theta, gradient, tuple(slots), factor=self.training.factor(t), step=t
            )
            if source is None or nudges is None:
                update(d_theta, d_gradient, d_slots)
            else:
                forced(source, nudges, t, theta, update, d_theta, d_gradient, d_slots)
        return d_theta

    def pull_back(
        self, block: Float[Tensor, "params k"], source: Source | None = None, nudges: Tensor | None = None
    ) -> Float[Tensor, "params k"]:
        """Pull cotangents of the last weights back to the first ones: `J^T U`.

        Hessians are symmetric, so the same products serve, with the steps in reverse order. With a source,
        the cotangents of its nudges are added to `nudges`.
        """
        c_theta = block.to(self.last.dtype, copy=True)
        c_gradient = torch.empty_like(c_theta)
        c_slots = tuple(torch.zeros_like(c_theta) for _ in self._states[0][1:])
        for t in reversed(range(self.training.num_steps)):
            theta, *slots = self._states[t]
            update = self.training.trainer.optimiser.linearise(
                theta, self.training.gradient(theta, t), tuple(slots), factor=self.training.factor(t), step=t
            )
            if source is None or nudges is None:
                update.pull_back(c_theta, c_gradient, c_slots)
            else:
                collected(source, nudges, t, theta, update, c_theta, c_gradient, c_slots)
            c_theta += self._gradient(theta, c_gradient, t)[1]
        return c_theta

    def weights(self, t: int) -> Tensor:
        """Weights before step `t`."""
        return self.training.read(self._states[t])

    def _gradient(self, theta: Tensor, d_theta: Tensor, t: int) -> tuple[Tensor, Tensor]:
        def along(tangent: Tensor) -> tuple[Tensor, Tensor]:
            both = jvp(lambda at: self.training.gradient(at, t), (theta,), (tangent,))
            return both[0], both[1]

        rows: Tensor
        with exact_derivatives(theta.device):
            gradient, rows = vmap(along, in_dims=1, out_dims=(None, 0), randomness="same")(d_theta)  # type: ignore[arg-type]
        return gradient, rows.T.contiguous()


@final
class RecipeTangents:
    """`V -> J V` for a pair of pure functions; blocks are `[params, k]`."""

    route = "generic"

    def __init__(
        self,
        recipe: Recipe,
        theta: Float[Tensor, " params"],
        *,
        memory: int = STATE_BYTES,
        flags: tuple[str, ...] = (),
    ) -> None:
        self.flags = flags
        self.recipe = recipe
        self.theta = theta
        self._states = primal_states(recipe, theta, memory=memory)
        self.last: Tensor = recipe.read(self._states[-1])
        self.null_columns: Int[Tensor, " null"] = torch.zeros(0, dtype=torch.int64)

    @property
    def bytes_per_column(self) -> int:
        """State and gradient of one tangent; what a user's step needs beside them is not known."""
        return self.last.element_size() * self.theta.numel() * _COPIES

    def __call__(self, block: Float[Tensor, "params k"]) -> Float[Tensor, "params k"]:
        """Push tangents of the first weights to tangents of the last ones.

        Raises:
            BadInput: If the recipe does what forward-mode differentiation cannot follow.
        """
        try:
            with exact_derivatives(self.theta.device):
                tangents = _block_jvp(self.recipe.init, self.theta, (block.T.to(self.theta.dtype),))
                for t in range(self.recipe.num_steps):
                    tangents = _block_jvp(partial(self.recipe.step, t=t), self._states[t], tangents)
                (last,) = _block_jvp(self.recipe.read, self._states[-1], tangents)
        except (RuntimeError, NotImplementedError) as error:
            raise _not_differentiable(error, "torch.func.jvp") from error
        return last.T.contiguous()

    def pull_back(self, block: Float[Tensor, "params k"]) -> Float[Tensor, "params k"]:
        """Pull cotangents of the last weights back to the first ones: `J^T U`, step by step in reverse.

        Raises:
            BadInput: If the recipe does what reverse-mode differentiation cannot follow.
        """
        try:
            with exact_derivatives(self.theta.device):
                cotangents = _block_vjp(self.recipe.read, self._states[-1], (block.T.to(self.theta.dtype),))
                for t in reversed(range(self.recipe.num_steps)):
                    cotangents = _block_vjp(partial(self.recipe.step, t=t), self._states[t], cotangents)
                (first,) = _block_vjp(self.recipe.init, self.theta, cotangents)
        except (RuntimeError, NotImplementedError) as error:
            raise _not_differentiable(error, "torch.func.vjp") from error
        return first.T.contiguous()


def _block_jvp(function: Callable[[State], State], at: State, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Derivatives of a function of a tree along `k` trees, stacked on the first axis.

    Only real-valued tensors have tangents; counters and the like are taken along as they are.
    """
    of_moving, moving = _of_moving(function, at)

    def along(*tangent: Tensor) -> tuple[Tensor, ...]:
        derivatives: tuple[Tensor, ...] = jvp(of_moving, moving, tangent)[1]
        return derivatives

    pushed: tuple[Tensor, ...] = vmap(along, randomness="same")(*tangents)
    return pushed


def _block_vjp(function: Callable[[State], State], at: State, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The transpose of `_block_jvp`."""
    of_moving, moving = _of_moving(function, at)
    pull = vjp(of_moving, *moving)[1]
    pulled: tuple[Tensor, ...] = vmap(lambda *cotangent: pull(cotangent), randomness="same")(*cotangents)
    return tuple(tensor.detach() for tensor in pulled)


def _of_moving(
    function: Callable[[State], State], at: State
) -> tuple[Callable[..., tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """A function of a tree as one of its real-valued leaves alone, and those leaves."""
    leaves, structure = pytree.tree_flatten(at)
    moving = [place for place, leaf in enumerate(leaves) if _moves(leaf)]

    def of_moving(*values: Tensor) -> tuple[Tensor, ...]:
        filled = dict(enumerate(leaves)) | dict(zip(moving, values, strict=True))
        after = function(pytree.tree_unflatten(list(filled.values()), structure))
        return tuple(leaf for leaf in pytree.tree_leaves(after) if _moves(leaf))

    return of_moving, tuple(leaves[place] for place in moving)


def _not_differentiable(error: Exception, mode: str) -> BadInput:
    return BadInput(
        "derivative of the recipe",
        got=(str(error).strip().splitlines() or [type(error).__name__])[0].rstrip("."),
        wanted=f"functions that {mode} can follow",
        remedy="Inside step, take gradients with torch.func.grad, not with backward().",
    )


def _moves(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()

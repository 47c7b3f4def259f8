"""What the operator form will need: sweeps, CPU time, memory, before any of it is spent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.environment import memory_bytes
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Table
from tremorscope.instruments.operators import saved_bytes
from tremorscope.instruments.partial_svd import OVERSAMPLE
from tremorscope.instruments.recipe import Recipe, State, state_tensors
from tremorscope.instruments.tangents import LinearStack, Route, StructuredTangents, TrainingMap, structure
from tremorscope.instruments.trainer import Training

_CHUNK = 32  # columns that travel together where memory allows
_COPIES = 8  # of a column, while it is pushed through a step
_ACTIVATIONS = 6  # measured, 3.4 to 5.1: tangents of all that a step saves, forwards and backwards, with temporaries
_PRIMAL = 2  # columns that the primal part of a step takes the room of
_BLOCK_COPIES = 8
_TIMED_STEPS = 2


@final
@dataclass(frozen=True, kw_only=True)
class OperatorPlan:
    """What is about to be done, and what it will take.

    `sweeps[stage]` are the number of sweeps and their columns; a sweep trains once, with tangents. `memory` is in
    bytes, beside what the process holds already: states of the run, columns under way, and the larger of the two
    stages' bases. `seconds` are CPU-seconds, timed on two steps of the run with a chunk of columns, good to a
    factor of two.
    """

    num_weights: int
    num_steps: int
    route: Route
    chunk: int
    keeps_all_states: bool
    sweeps: Mapping[str, tuple[int, int]]
    memory: Mapping[str, int]
    memory_limit: int
    seconds: float

    @property
    def num_products(self) -> int:
        """Columns pushed or pulled through the whole run, at most."""
        return sum(count * columns for count, columns in self.sweeps.values())

    def sentence(self) -> str:
        """The plan in one line."""
        stages = ", ".join(
            f"{count} sweeps of {columns} for {stage}" for stage, (count, columns) in self.sweeps.items()
        )
        kept = "all kept" if self.keeps_all_states else "checkpointed"
        return (
            f"operator form of {self.num_weights:,} weights and {self.num_steps} steps ({self.route}, {self.chunk} "
            f"columns together, states {kept}): at most {stages}; about {self.seconds:,.0f} CPU-seconds and "
            f"{sum(self.memory.values()) / 1e6:,.0f} MB of {self.memory_limit / 1e6:,.0f}"
        )

    def table(self) -> Table:
        """Sweeps and memory by stage."""
        rows = [
            {"stage": stage, "sweeps": count, "columns": columns} for stage, (count, columns) in self.sweeps.items()
        ]
        return Table.of_rows(
            rows,
            name="operator_plan",
            title="What the operator form was planned to take",
            caption=f"A sweep is one run of training that carries so many tangents along. {self.sentence()}.",
        )


def plan_operator_form(
    recipe: Recipe,
    theta: Float[Tensor, " params"],
    *,
    k: int,
    max_blocks: int,
    num_probes: int,
    num_steps: int,
    num_directions: int,
    memory_limit: int | None = None,
) -> OperatorPlan:
    """Choose route, chunk and checkpoints that stay within a memory limit (three quarters of the machine's).

    All states are kept, and 32 columns sent together, if that fits; else first fewer columns, down to 8, then
    checkpoints of states, then fewer columns still. Nothing but the predicted time depends on a clock.

    Raises:
        BadInput: If no choice fits; what is needed is said.
    """
    limit = int(0.75 * memory_bytes()) if memory_limit is None else memory_limit
    size, element = theta.numel(), theta.element_size()
    block = min(k + OVERSAMPLE, size)
    bases = {
        # Two bases in float64, one of them twice while it grows, and what orthogonalising a block takes.
        "triples": 8 * size * (3 * min(max_blocks * block, k + 9 * block) + _BLOCK_COPIES * block),
        "quadrature": element * size * (num_probes * num_steps + 2 * k),
    }
    stage_bytes = max(bases.values()) + 2 * element * size * max(block, num_probes, num_directions)
    one_state = sum(tensor.numel() * tensor.element_size() for tensor in state_tensors(recipe.init(theta)))
    route, saved, coefficients = _route(recipe, theta, limit - stage_bytes)
    per_column = _COPIES * element * size + _ACTIVATIONS * saved
    all_states = coefficients or one_state * (recipe.num_steps + 1)
    roots = one_state * (2 * int(recipe.num_steps**0.5) + 2)
    options = [(all_states, chunk) for chunk in (_CHUNK, 16, 8)]
    if not coefficients:
        options += [(min(roots, all_states), chunk) for chunk in (_CHUNK, 16, 8, 4, 2, 1)]
    fitting = [
        (states, chunk) for states, chunk in options if states + (chunk + _PRIMAL) * per_column + stage_bytes <= limit
    ]
    if not fitting:
        least = min(states + (chunk + _PRIMAL) * per_column for states, chunk in options) + stage_bytes
        raise BadInput(
            f"operator form of {size:,} weights",
            got=f"{least:,} bytes needed, {stage_bytes:,} of them for bases",
            wanted=f"at most {limit:,} bytes",
            remedy="Lower k, num_probes or num_steps, or raise memory_limit.",
        )
    states, chunk = fitting[0]
    sweeps = {
        "chaotic triples": (2 * max_blocks, block),
        "their residuals": (2, k),
        "the quadrature": (2 * num_steps, num_probes),
        "alignment": (2, num_directions),
    }
    per_product = _seconds_per_product(recipe, theta, route, chunk)
    return OperatorPlan(
        num_weights=size,
        num_steps=recipe.num_steps,
        route=route,
        chunk=chunk,
        keeps_all_states=states == all_states,
        sweeps=sweeps,
        memory={"states": states, "columns under way": (chunk + _PRIMAL) * per_column, "bases": stage_bytes},
        memory_limit=limit,
        seconds=per_product * sum(count * columns for count, columns in sweeps.values()),
    )


def _route(recipe: Recipe, theta: Tensor, room: int) -> tuple[Route, int, int]:
    """The route, what one step saves for its backward pass, and the coefficients of the structured route."""
    if not isinstance(recipe, Training):
        return "generic", 0, 0  # what a user's step needs beside its state is not known
    saved = saved_bytes(lambda at: recipe.network.loss(at, recipe.batch(0)), theta)
    found = structure(recipe)
    if isinstance(found, LinearStack):
        coefficients = StructuredTangents.coefficient_bytes(recipe, found)
        if coefficients + 8 * (_COPIES * theta.element_size() * theta.numel() + _ACTIVATIONS * saved) <= room:
            return "structured", saved, coefficients
    return "generic", saved, 0


def _seconds_per_product(recipe: Recipe, theta: Tensor, route: Route, chunk: int) -> float:
    """CPU-seconds of one column through the whole run, from two steps of it there and back."""
    num_steps = min(_TIMED_STEPS, recipe.num_steps)
    if isinstance(recipe, Training):
        short: Recipe = replace(recipe, trainer=replace(recipe.trainer, num_steps=num_steps))
    else:
        short = _Shortened(recipe, num_steps)
    trained = TrainingMap(short, theta, route=route, chunk=chunk)
    block = torch.zeros(trained.shape[1], chunk, dtype=theta.dtype, device=theta.device)
    block[0] = 1
    started = time.process_time()
    trained.rmm(trained.mm(block))
    return (time.process_time() - started) / 2 / chunk * recipe.num_steps / num_steps


@final
class _Shortened:
    """The first steps of a recipe."""

    def __init__(self, recipe: Recipe, num_steps: int) -> None:
        self._recipe, self._num_steps = recipe, num_steps

    @property
    def num_steps(self) -> int:
        return self._num_steps

    def init(self, theta: Float[Tensor, " params"]) -> State:
        return self._recipe.init(theta)

    def step(self, state: State, t: int) -> State:
        return self._recipe.step(state, t)

    def read(self, state: State) -> Float[Tensor, " params"]:
        return self._recipe.read(state)

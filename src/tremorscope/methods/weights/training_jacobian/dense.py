"""The whole matrix `J = d theta_T / d theta_0`, in blocks of columns that survive a kill."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.arrays import read_arrays, write_arrays
from tremorscope.foundations.environment import memory_bytes
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.files import read_json, write_json
from tremorscope.foundations.layout import Layout
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.executor import one_thread
from tremorscope.instruments.network import Network
from tremorscope.instruments.recipe import Recipe, check_recipe, run_recipe
from tremorscope.instruments.tangents import LinearStack, Route, Tangents, block_width, structure, tangents
from tremorscope.instruments.trainer import Trainer, Training, check_deterministic

Progress = Callable[[int, int], None]

_MOST_DOUBT = 0.1  # of J v: what curvature along a step of eps^(1/3) may leave, and rounding


@final
@dataclass(frozen=True, kw_only=True)
class TrainingJacobian:
    """`matrix[i, j] = d theta_T[i] / d theta_0[j]` of one training run, with the run's ends.

    `live` lists the directions that training can move or be moved by; the others are weights that no
    gradient reaches, whose rows and columns hold nothing but their diagonal.
    """

    matrix: Float[Tensor, "params params"]
    first: Float[Tensor, " params"]
    last: Float[Tensor, " params"]
    layout: Layout
    route: str
    chunk: int
    flags: tuple[str, ...] = ()

    @property
    def live(self) -> Int[Tensor, " live"]:
        """Weights with an entry beside the diagonal in their row or column, or a diagonal that is not 1."""
        beside = self.matrix.count_nonzero(0) + self.matrix.count_nonzero(1) - 2 * (self.matrix.diagonal() != 0)
        return ((beside > 0) | (self.matrix.diagonal() != 1)).nonzero().flatten()

    @property
    def drift(self) -> Float[Tensor, " params"]:
        """`theta_T - theta_0` in float64."""
        return self.last.double() - self.first.double()


def bound_recipe(network: Network) -> Recipe:
    """The network's recipe, ready to run.

    Raises:
        BadInput: If there is none, or it is an opaque training loop.
    """
    if network.recipe is None:
        raise BadInput(
            f"training recipe of {network.name!r}",
            got="none",
            wanted="a Trainer, or a pair of pure functions init(theta) -> state and step(state, t) -> state",
            remedy="Network(module, task=task, recipe=Trainer(...)).",
        )
    if isinstance(network.recipe, Trainer):
        return network.recipe.bind(network)
    return check_recipe(network.recipe)


def training_jacobian(
    network: Network,
    *,
    route: Route = "auto",
    chunk: int | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    memory_limit: int | None = None,
) -> TrainingJacobian:
    """How does every nudge of the initial weights arrive at the end of training?

    The recipe is run twice first: a recipe that does not repeat itself has no derivative. Columns are then
    pushed in blocks; the exactly known ones (weights fed by an input that is always zero) are skipped.

    Args:
        network: With a recipe; it starts at `network.start`.
        route: `"structured"` (chains of linear and elementwise layers), `"generic"` (anything) or `"auto"`.
        chunk: Columns in a block; by default what fits the cache, from shapes alone.
        folder: Where finished blocks are kept. A later call with the same folder computes what is missing,
            with the recorded route and chunk, and the result is the same bit for bit.
        progress: Called with columns done and columns in all.
        memory_limit: Bytes; by default three quarters of the machine's.

    Cost: one tangent through the whole run per column; memory `N^2` entries, and five times that in float64
    for the decomposition that usually follows.

    Raises:
        BadInput: If the recipe is missing, does not repeat itself or diverges; if the matrix is too large;
            if `folder` holds pieces of another run.

    Source: Belrose and Scherlis 2024, arXiv:2412.07003, section 2.
    """
    recipe, start = bound_recipe(network), network.start
    _check_memory(start, memory_limit or int(0.75 * memory_bytes()))
    with one_thread():  # parallel work is done by processes: then no bit depends on how many cores there are
        last = check_deterministic(recipe, start)
        plan = _Plan.recall(folder, start, last)
        push = tangents(recipe, start, route=route if plan is None else plan.route)
        if plan is None:
            plan = _Plan.made(push, start, last, chunk)
            plan.keep(folder)
        matrix = _columns(push, plan, folder, progress)
        # The structured route knows every operation; elsewhere a step may hide one from differentiation.
        doubts = () if plan.route == "structured" else _doubts(recipe, start, matrix)
    return TrainingJacobian(
        matrix=matrix,
        first=start,
        last=last,
        layout=network.layout,
        route=plan.route,
        chunk=plan.chunk,
        flags=(*plan.flags, *doubts),
    )


def estimated_seconds(network: Network, num_columns: int | None = None) -> float:
    """CPU-seconds of pushing so many columns, all by default, from shapes alone, within a factor of three or so.

    Twelve operations for each weight, example, column and step, at 40 GF/s on the structured route and 5 on
    the generic one. A recipe of pure functions hides its batches; they are taken to be all examples.

    Raises:
        BadInput: If there is no recipe.
    """
    recipe, size = bound_recipe(network), network.layout.size
    if isinstance(recipe, Training):
        batch, speed = len(recipe.indices(0)), 4e10 if isinstance(structure(recipe), LinearStack) else 5e9
    else:
        batch, speed = 1 if network.task is None else network.task.size, 5e9
    return 12.0 * batch * size * (size if num_columns is None else num_columns) * recipe.num_steps / speed


@final
@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What fixes every bit of the pieces; `fingerprint` says of which run they are."""

    route: Route
    chunk: int
    fingerprint: str
    flags: tuple[str, ...]  # of the first choice of route: taking the recorded one raises none

    @classmethod
    def made(cls, push: Tangents, start: Tensor, last: Tensor, chunk: int | None) -> _Plan:
        if chunk is not None and chunk < 1:
            raise BadInput("chunk", got=chunk, wanted="at least 1")
        return cls(
            route="structured" if push.route == "structured" else "generic",
            chunk=chunk or block_width(push),
            fingerprint=_fingerprint(start, last),
            flags=push.flags,
        )

    @classmethod
    def recall(cls, folder: Path | None, start: Tensor, last: Tensor) -> _Plan | None:
        if folder is None or not ((folder / "plan.json").is_file() or any(folder.glob("columns-*"))):
            return None
        data: dict[str, Any] = read_json(folder / "plan.json")
        if data.get("fingerprint") != _fingerprint(start, last):
            raise BadInput(
                f"pieces in {folder}",
                got="pieces of another training run",
                wanted="pieces of this one",
                remedy="The network, data, recipe or library changed since: start a new run.",
            )
        return cls(**{**data, "flags": tuple(data["flags"])})

    def keep(self, folder: Path | None) -> None:
        if folder is not None:
            write_json(folder / "plan.json", vars(self))


def _columns(push: Tangents, plan: _Plan, folder: Path | None, progress: Progress | None) -> Tensor:
    """Identity, then every block of columns that is not known beforehand, from disk or pushed now."""
    size = push.last.numel()
    matrix = torch.eye(size, dtype=push.last.dtype, device=push.last.device)
    unknown = torch.ones(size, dtype=torch.bool)
    unknown[push.null_columns.cpu()] = False
    columns = unknown.nonzero().flatten()
    done = int(size - len(columns))
    for number, chosen in enumerate(torch.split(columns, plan.chunk)):
        path = None if folder is None else folder / f"columns-{number:05d}.safetensors"
        if path is not None and path.is_file():
            block = read_arrays(path)["columns"].to(matrix.device)
        else:
            block = push(_identity_columns(size, chosen, matrix))
            if path is not None:
                write_arrays(path, {"columns": block})
        matrix[:, chosen] = block
        done += len(chosen)
        if progress is not None:
            progress(done, size)
    num_bad = int((~matrix.isfinite()).sum())
    if num_bad:
        raise BadInput("training Jacobian", got=f"{num_bad} entries that are not finite", wanted="finite entries")
    return matrix


def _doubts(recipe: Recipe, start: Tensor, matrix: Tensor) -> tuple[str, ...]:
    """A flag when the matrix and a central difference of the whole run disagree along a random direction.

    A tensor that a step detaches, rounds or branches on changes the run, and differentiation does not see it. The
    sign of a gradient is not seen by a small difference either, and leaves no trace outside the diagonal.
    """
    flags: tuple[str, ...] = ()
    if len(matrix) > 1 and int(matrix.count_nonzero()) == int(matrix.diagonal().count_nonzero()):
        flags += (
            "the Jacobian is diagonal, no weight's start tells on another weight's end: do the steps use only the "
            "signs of gradients, or detach them?",
        )
    drawn = torch.randn(start.shape, generator=generator(0, "difference"), dtype=torch.float64)
    direction = (drawn / drawn.norm()).to(start)
    size = torch.finfo(start.dtype).eps ** (1 / 3)
    ahead, behind = (run_recipe(recipe, start + sign * size * direction).double() for sign in (1, -1))
    difference, predicted = (ahead - behind) / (2 * size), (matrix @ direction).double()
    gap = float((difference - predicted).norm() / torch.maximum(difference.norm(), predicted.norm()))
    if gap > _MOST_DOUBT:
        flags += (
            f"the Jacobian and a finite difference of the run are {100 * gap:.0f} % apart along a random direction: "
            "does a step detach a tensor, round, or branch on values?",
        )
    return flags


def _identity_columns(size: int, chosen: Tensor, like: Tensor) -> Tensor:
    block = torch.zeros(size, len(chosen), dtype=like.dtype, device=like.device)
    block[chosen, torch.arange(len(chosen))] = 1
    return block


def _fingerprint(start: Tensor, last: Tensor) -> str:
    """First and last weights together pin down network, data and recipe well enough to refuse strangers."""
    both = torch.cat([start, last]).cpu().contiguous().view(torch.uint8)
    return hashlib.sha256(both.numpy().tobytes()).hexdigest()


def fits_in_memory(network: Network) -> bool:
    """Whether the matrix and its decomposition fit into three quarters of the machine's memory."""
    return _bytes_needed(network.start) <= int(0.75 * memory_bytes())


def _bytes_needed(start: Tensor) -> int:
    return start.numel() ** 2 * (start.element_size() + 5 * 8)


def _check_memory(start: Tensor, limit: int) -> None:
    size, needed = start.numel(), _bytes_needed(start)
    if needed > limit:
        raise BadInput(
            f"dense training Jacobian of {size:,} weights",
            got=f"{needed:,} bytes needed ({size:,}^2 entries, and their decomposition in float64)",
            wanted=f"at most {limit:,} bytes",
            remedy="Use measure_operator_form(network), which needs products only, or TrainingMap(network.recipe, "
            "network.start) @ block for chosen directions.",
        )

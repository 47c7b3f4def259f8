"""The cells of the map: KL at each block input and token of one prompt, for many random disturbances."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.activations.readouts import Responses
from tremorscope.instruments.activations.sweeps import ActivationSweep, Level, prepare_sweep, prepare_sweeps
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.activations.sensitivity_map.references import Reference

Kind = Literal["matched", "isotropic"]
Cells = Float[Tensor, "layers tokens directions"]


@final
@dataclass(frozen=True, kw_only=True)
class CellResponses:
    """`KL(clean || disturbed)` in nats, for every block input, token and direction of one network.

    `last` is read at the last token of the prompt, `own` at the disturbed token: how much that token's own next-word
    prediction moves. Divergences below `noise`, the rounding of the network's precision, are 0. `steps` holds the size
    of the disturbances at each block input, `clean` the norm of the clean activation in each cell.
    """

    sites: tuple[str, ...]
    last: Mapping[Kind, Cells]
    own: Mapping[Kind, Cells]
    steps: Float[Tensor, " layers"]
    clean: Float[Tensor, "layers tokens"]
    noise: float
    level: int  # of the sweeps, the lowest that was used
    num_evaluations: int
    flags: tuple[str, ...]


def block_inputs(network: Network, batch: Batch) -> tuple[str, ...]:
    """Names of all block inputs of a network, `resid_pre.0` and on.

    Raises:
        BadInput: If the network has none that could be verified; the message gives the reason.
    """
    found = network.site_map(batch)
    names = tuple(f"resid_pre.{layer}" for layer in range(found.num_blocks or 0))
    missing = [name for name in names if name not in found.aliases]
    if not names or missing:
        reason = found.undefined.get(missing[0], "no list of blocks") if missing else "no list of blocks"
        raise BadInput(
            f"block inputs of {network.name!r}",
            got=f"{missing[0]} is not defined: {reason}" if missing else reason,
            wanted="a stack of blocks whose inputs can be told apart",
            remedy="Disturb single sites from Python: prepare_sweep(network, batch, 'acts:MODULE@last').",
        )
    return names


def respond_cells(
    network: Network,
    batch: Batch,
    references: Mapping[str, Reference],
    *,
    fraction: float,
    num_directions: int,
    kinds: Sequence[Kind] = ("matched",),
    seed: int = 0,
    level: Level = "auto",
    progress: Callable[[int, int], Any] | None = None,
) -> CellResponses:
    """Disturb every cell of the map, and see how far the predictions move.

    Each cell is an activation of one prompt at one block input and one token; each disturbance adds a random direction
    of length `fraction` of the typical distance between two real activations there.

    Args:
        network: A causal language model.
        batch: One prompt.
        references: Real activations at each block input, the keys being its name.
        fraction: See above.
        num_directions: Of each kind, in each cell; the same in all cells of a block input.
        kinds: `"matched"` directions have the covariance of real activations, `"isotropic"` ones have none.
        seed: Of the directions.
        level: Of the sweeps, the highest to try. It is checked against full recomputation at two tokens of each block
            input.
        progress: Called with the number of cells done, and of all.

    Cost: `layers * tokens * directions * kinds` points, of which one at token t of T needs T - t tokens of the blocks
    above it.

    Raises:
        BadInput: If there is more than one prompt, the network has no logits, or as `prepare_sweep`.
    """
    num_tokens = _num_tokens(batch)
    sites = tuple(references)
    shape = (len(sites), num_tokens, num_directions)
    found = {place: {kind: torch.zeros(shape, dtype=torch.float64) for kind in kinds} for place in ("last", "own")}
    steps = torch.tensor([fraction * reference.distance for reference in references.values()], dtype=torch.float64)
    clean = torch.zeros(shape[:2], dtype=torch.float64)
    seen = _Seen()
    sweeps = _sweeps(network, batch, sites, num_tokens, level)
    for layer, (site, reference) in enumerate(references.items()):
        draws = {"matched": reference.matched, "isotropic": reference.isotropic}
        drawn = [draws[kind](num_directions, generator(seed, "cells", site, kind)).cpu() for kind in kinds]
        moves = steps[layer] * torch.cat(drawn)
        for token, sweep in enumerate(sweeps[layer]):
            clean[layer, token] = sweep.base[0].detach().double().cpu().norm()
            for place, values in zip(("last", "own"), seen.respond(sweep, moves), strict=True):
                for kind, some in zip(kinds, torch.split(values, num_directions), strict=True):
                    found[place][kind][layer, token] = some
            if progress is not None:
                progress(layer * num_tokens + token + 1, len(sites) * num_tokens)
    return CellResponses(
        sites=sites,
        last=found["last"],
        own=found["own"],
        steps=steps,
        clean=clean,
        noise=seen.noise,
        level=min(seen.levels),
        num_evaluations=seen.num_evaluations,
        flags=seen.condensed(),
    )


class _Seen:
    """What sweeps said of themselves, gathered over the cells of a map."""

    def __init__(self) -> None:
        self.noise, self.num_evaluations = 0.0, 0
        self.levels, self.flags = set[int](), list[str]()

    def respond(self, sweep: ActivationSweep, moves: Tensor) -> list[Float[Tensor, " directions"]]:
        """KL at the last token and at the disturbed one, after each move from the clean activation, in float64."""
        base = sweep.base[0].detach()
        both = sweep.respond_twice((base.double().cpu() + moves).to(base))
        self.noise = max(self.noise, *(responses.noise for responses in both))
        self.num_evaluations += len(moves)
        self.levels.add(sweep.level)
        self.flags += [flag for flag in sweep.flags if flag not in self.flags]
        return [_divergence(responses) for responses in both]

    def condensed(self) -> tuple[str, ...]:
        """Flags, those that differ in a number alone given once."""
        alike: dict[str, list[str]] = {}
        for flag in self.flags:
            alike.setdefault(re.sub(r"[0-9.e+-]+", "", flag), []).append(flag)
        return tuple(
            some[0] + (f" (and {len(some) - 1} more like it)" if len(some) > 1 else "") for some in alike.values()
        )


def _divergence(responses: Responses) -> Float[Tensor, " directions"]:
    if responses.kl is None:
        raise RuntimeError("a sweep that was asked for a divergence has none")
    return responses.kl.double().cpu()


def _sweeps(
    network: Network, batch: Batch, sites: Sequence[str], num_tokens: int, level: Level
) -> list[list[ActivationSweep]]:
    """The sweeps of all cells, of one block input after the other, read at the last token and at their own."""
    addresses = [f"acts:{site}@{token}" for site in sites for token in range(num_tokens)]
    found = prepare_sweeps(network, batch, addresses, level=level, readouts=("kl",), own=True)
    return [found[start : start + num_tokens] for start in range(0, len(found), num_tokens)]


def cell_sweep(network: Network, batch: Batch, site: str, token: int, *, level: Level = "auto") -> ActivationSweep:
    """The sweep of one cell: the activation at one token, read at the last one."""
    return prepare_sweep(network, batch, f"acts:{site}@{token}", level=level, readouts=("kl",))


def _num_tokens(batch: Batch) -> int:
    rows, length = batch.kwargs["input_ids"].shape
    if rows != 1:
        raise BadInput("prompt of a sensitivity map", got=f"{rows} prompts", wanted="one")
    return int(length)

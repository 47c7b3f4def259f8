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
from tremorscope.instruments.activations.sweeps import ActivationSweep, Level, prepare_sweep
from tremorscope.instruments.language.encode import positions, takes
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.activations.sensitivity_map.references import Reference

Kind = Literal["matched", "isotropic"]
Responses = Float[Tensor, "layers tokens directions"]


@final
@dataclass(frozen=True, kw_only=True)
class CellResponses:
    """`KL(clean || disturbed)` in nats, for every block input, token and direction of one network.

    `last` is read at the last token of the prompt, `own` at the disturbed token: how much that token's own next-word
    prediction moves. Divergences below `noise`, the rounding of the network's precision, are 0. `steps` holds the size
    of the disturbances at each block input, `clean` the norm of the clean activation in each cell.
    """

    sites: tuple[str, ...]
    last: Mapping[Kind, Responses]
    own: Mapping[Kind, Responses]
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
        level: Of the sweeps. With `"auto"` it is chosen, and checked against full recomputation, at each block input's
            first token, and used for the others.
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
    for layer, (site, reference) in enumerate(references.items()):
        draws = {"matched": reference.matched, "isotropic": reference.isotropic}
        drawn = [draws[kind](num_directions, generator(seed, "cells", site, kind)).cpu() for kind in kinds]
        moves = steps[layer] * torch.cat(drawn)

        def put(place: str, token: int, values: Tensor, layer: int = layer) -> None:
            for kind, some in zip(kinds, torch.split(values, num_directions), strict=True):
                found[place][kind][layer, token] = some

        bases, responses = _own_words(network, batch, site, moves, level, seen)
        clean[layer] = bases.norm(dim=1)
        for token in range(num_tokens):
            put("own", token, responses[token])
        put("last", num_tokens - 1, responses[-1])  # there the two are one
        used: Level = level
        for token in range(num_tokens - 1):
            sweep = cell_sweep(network, batch, site, token, level=used)
            if level == "auto":
                used = _as_level(sweep.level)
            put("last", token, seen.respond(sweep, moves, 0))
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

    def respond(self, sweep: ActivationSweep, moves: Tensor, row: int) -> Float[Tensor, " directions"]:
        """KL after each move from the clean activation of one row, in float64."""
        base = sweep.base[row].detach()
        responses = sweep.respond((base.double().cpu() + moves).to(base), row)
        if responses.kl is None:
            raise RuntimeError("a sweep that was asked for a divergence has none")
        self.noise = max(self.noise, responses.noise)
        self.num_evaluations += len(moves)
        self.levels.add(sweep.level)
        self.flags += [flag for flag in sweep.flags if flag not in self.flags]
        return responses.kl.double().cpu()

    def condensed(self) -> tuple[str, ...]:
        """Flags, those that differ in a number alone given once."""
        alike: dict[str, list[str]] = {}
        for flag in self.flags:
            alike.setdefault(re.sub(r"[0-9.e+-]+", "", flag), []).append(flag)
        return tuple(
            some[0] + (f" (and {len(some) - 1} more like it)" if len(some) > 1 else "") for some in alike.values()
        )


def _own_words(
    network: Network, batch: Batch, site: str, moves: Tensor, level: Level, seen: _Seen
) -> tuple[Float[Tensor, "tokens d"], list[Float[Tensor, " directions"]]]:
    """Clean activations at each token, and KL at each token's own next word.

    A causal model sees nothing after the token, so that it might as well be the last: the beginnings of the prompt
    are so many prompts, padded on the left, and one sweep is prepared for all of them.
    """
    tokens: Tensor = batch.kwargs["input_ids"]
    length = tokens.shape[1]
    if takes(network, "position_ids"):
        mask = torch.ones(length, length, dtype=tokens.dtype, device=tokens.device).tril().flip(1)
        rolled = torch.stack([tokens[0].roll(-(token + 1)) for token in range(length)])
        kwargs = {"input_ids": rolled, "attention_mask": mask, "position_ids": positions(mask)}
        sweep = prepare_sweep(network, Batch((), kwargs, None), f"acts:{site}@last", level=level, readouts=("kl",))
        return sweep.base.detach().double().cpu(), [seen.respond(sweep, moves, row) for row in range(length)]
    bases, responses = [], []
    for token in range(length):
        kwargs = {"input_ids": tokens[:, : token + 1], "attention_mask": torch.ones_like(tokens[:, : token + 1])}
        sweep = prepare_sweep(network, Batch((), kwargs, None), f"acts:{site}@last", level=level, readouts=("kl",))
        bases.append(sweep.base[0].detach().double().cpu())
        responses.append(seen.respond(sweep, moves, 0))
    return torch.stack(bases), responses


def cell_sweep(network: Network, batch: Batch, site: str, token: int, *, level: Level = "auto") -> ActivationSweep:
    """The sweep of one cell: the activation at one token, read at the last one."""
    return prepare_sweep(network, batch, f"acts:{site}@{token}", level=level, readouts=("kl",))


def _num_tokens(batch: Batch) -> int:
    rows, length = batch.kwargs["input_ids"].shape
    if rows != 1:
        raise BadInput("prompt of a sensitivity map", got=f"{rows} prompts", wanted="one")
    return int(length)


def _as_level(level: int) -> Level:
    return 2 if level == 2 else 1 if level == 1 else 0

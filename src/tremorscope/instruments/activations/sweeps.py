"""Many replaced activations at one site and position, recomputing nothing that they leave as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.activations.aliases import find_place
from tremorscope.instruments.activations.block_replay import BlockReplay
from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.activations.prefix_cache import PrefixCache
from tremorscope.instruments.activations.readouts import Comparison, Responses
from tremorscope.instruments.activations.recurrent_replay import RecurrentReplay
from tremorscope.instruments.activations.sweep_batch import (
    MASK,
    Prompts,
    ReadPosition,
    Unavailable,
    num_prompts,
    picked_positions,
)
from tremorscope.instruments.activations.sweep_routes import Column, Edited, FullForward, Late, Route
from tremorscope.instruments.network import Network
from tremorscope.instruments.recurrent import RecurrentLanguageModel
from tremorscope.instruments.site import Site
from tremorscope.instruments.task import Batch

Level = Literal["auto", 0, 1, 2]
CHUNK_BYTES = 256 * 2**20  # memory of one chunk of points, by estimate
CHUNK = 256  # the most points at once: larger products are no faster
FEW = 8  # prompts with less than a chunk / FEW of points each share one, at the cost of a prefix for every point
TOLERANCE = 1e-5  # of the agreement with level 0; as much larger as rounding is in 16 bits
NUM_CHECKED = 8  # prompts on which the agreement is tested, at most


@final
class ActivationSweep:
    """Responses to points that replace the activation of one site at one position. Made by `prepare_sweep`.

    Attributes:
        base: Clean activation, one vector for each prompt.
        level: How it computes: 0, 1 or 2, see `prepare_sweep`.
        route: The same in words.
        flags: Faster levels that are not used, and why.
        num_evaluations: Points evaluated so far, the check at the start not counted.
    """

    def __init__(
        self, base: Float[Tensor, "rows d"], route: Route, comparison: Comparison, flags: tuple[str, ...]
    ) -> None:
        self.base, self.flags = base, flags
        self.level, self.route = route.level, route.name
        self.num_evaluations = 0
        self._route, self._comparison = route, comparison

    @property
    def chunk(self) -> int:
        """Points that are computed at once, from their estimated memory."""
        return max(1, min(CHUNK, CHUNK_BYTES // self._route.row_bytes))

    def respond(self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"] | int = 0) -> Responses:
        """Read-outs of points, each in the place of the activation of prompt `rows[i]`.

        Divergences below the rounding of the network's precision are given as 0 and counted. Points may be more than
        fit into memory: they are computed in chunks, those of one prompt together.

        Raises:
            BadInput: If a point has another width than the site, is not finite, or belongs to no prompt.
        """
        points, chosen = self._checked(points, rows)
        order = chosen.argsort(stable=True)
        with torch.no_grad():
            parts = [
                self._comparison(self._late(points[index], chosen[index]), chosen[index])
                for index in self._chunks(order, chosen)
            ]
        self.num_evaluations += len(points)
        joined = Responses.joined(parts)
        if len(parts) == 1 and torch.equal(order, torch.arange(len(order), device=order.device)):
            return joined
        back = order.argsort()
        return Responses(
            **{name: value[back] for name, value in joined.values().items()},
            noise=joined.noise,
            num_clipped=joined.num_clipped,
        )

    def responses_of(self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"] | int = 0) -> Responses:
        """The same, differentiable with respect to the points; one chunk, and nothing is clipped.

        Raises:
            BadInput: As `respond`.
        """
        points, chosen = self._checked(points, rows)
        self.num_evaluations += len(points)
        return self._comparison(self._late(points, chosen), chosen, clip=False)

    def logits(self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"] | int = 0) -> Float[Tensor, "n classes"]:
        """Logits at the position that is read, differentiable with respect to the points.

        Reverse mode works on every level; forward mode where attention is computed by plain matrix products.

        Raises:
            BadInput: As `respond`, or if the network has no logits.
        """
        points, chosen = self._checked(points, rows)
        self.num_evaluations += len(points)
        logits = self._route.late(points, chosen).logits
        if logits is None:
            raise BadInput("logits of a sweep", got="a network without", wanted="outputs that are logits")
        return logits

    def _late(self, points: Tensor, rows: Tensor) -> Late:
        return self._route.late(points, rows, logits="kl" in self._comparison.readouts)

    def _checked(self, points: Tensor, rows: Tensor | int) -> tuple[Tensor, Tensor]:
        if points.ndim != 2 or points.shape[1] != self.base.shape[1] or not len(points):
            raise BadInput(
                "points of a sweep",
                got=f"shape {tuple(points.shape)}",
                wanted=f"(n, {self.base.shape[1]}), the width of the site",
            )
        if not _is_finite(points):
            raise BadInput("points of a sweep", got="entries that are not finite", wanted="finite numbers")
        device, num_rows = self.base.device, len(self.base)
        chosen = torch.full((len(points),), rows) if isinstance(rows, int) else rows
        if chosen.shape != (len(points),) or bool((chosen < 0).any()) or bool((chosen >= num_rows).any()):
            raise BadInput(
                "rows of a sweep",
                got=f"{list(chosen.shape)} numbers from {int(chosen.min())} to {int(chosen.max())}",
                wanted=f"one for each of {len(points)} points, from 0 to {num_rows - 1}",
            )
        return points.to(device, self.base.dtype), chosen.to(device)

    def _chunks(self, order: Int[Tensor, " n"], rows: Int[Tensor, " n"]) -> Iterator[Int[Tensor, " m"]]:
        """Places of points that are computed together: of one prompt, as many of each of several, or few of many."""
        size = self.chunk
        counts = torch.unique_consecutive(rows[order], return_counts=True)[1].tolist()
        groups, held = list(torch.split(order, counts)), list[Tensor]()
        for group, following in zip(groups, [*groups[1:], None], strict=True):
            held.append(group)
            if following is not None and sum(map(len, held)) + len(following) <= size:
                both = (len(group), len(following))
                if both[0] == both[1] or max(both) * FEW <= size:
                    continue
            yield from torch.split(torch.cat(held), size)
            held = []


def prepare_sweep(
    network: Network,
    batch: Batch,
    site: str | Site,
    *,
    level: Level = "auto",
    readouts: Sequence[str] = ("kl", "l2", "cosine"),
    readout_site: str | Site | None = None,
    readout_position: ReadPosition = "last",
) -> ActivationSweep:
    """What happens downstream if this activation were different? Made ready for thousands of answers.

    | level | what is computed for a point | for |
    |---|---|---|
    | 2 | the blocks from the site on, at the positions from the edit to the read-out | GPT-2, Llama, house GRU |
    | 1 | all blocks, at those positions, after a memory of the earlier ones | causal models of transformers |
    | 0 | everything | any module |

    Keys, values and states of what comes before the edited position are computed once. The highest level is taken that
    fits and agrees with level 0 on random points of up to eight of the prompts, within 1e-5 in float32; `flags` name
    each level that was passed over and why.

    Args:
        network: The network; edits of activations that it has already are kept (by level 1 or 0).
        batch: One prompt per row. They share chunks of points if they are equally long.
        site: An address among the activations, with one position: `acts:resid_pre.1@last`.
        level: The highest level to try.
        readouts: Some of `kl`, `l2` and `cosine`.
        readout_site: Where `l2` and `cosine` are taken: by default the final norm, else the last block, else the
            outputs.
        readout_position: `last` (the last token that is no padding), or a number; counted from the end if negative.

    Returns:
        The sweep.

    Cost: a clean forward pass for each level tried, and the check: at most eight points on level 0.

    >>> from tremorscope.instruments.language.encode import encode
    >>> from tremorscope.instruments.load import load
    >>> network = load("builtin:microworld")
    >>> sweep = prepare_sweep(network, encode(network, ["Two days after Monday is"]), "acts:resid_pre.1@last")
    >>> responses = sweep.respond(torch.stack([sweep.base[0], 2 * sweep.base[0]]))
    >>> sweep.level, float(responses.kl[0]), bool(responses.kl[1] > 0.001)
    (2, 0.0, True)

    Raises:
        BadInput: If the site is no activation or has no single position in each prompt, a divergence is asked of a
            network without logits, or a read-out has no such name.
        SiteNotFound: If the network has no such site.
    """
    where = Site.parse(site)
    if where.kind != "acts":
        raise BadInput(f"site {str(where)!r}", got="no activation", wanted="acts:NAME@POSITION")
    if level not in ("auto", 0, 1, 2):
        raise BadInput("level of a sweep", got=repr(level), wanted="'auto', 0, 1 or 2")
    num_rows = num_prompts(batch)
    with torch.no_grad():
        base, column, read_column = _base(network, batch, where, readout_position, num_rows)
        place, readout = _found(network, where, batch), _readout_place(network, batch, readout_site)
        edited = Edited(network, where, readout)
        full = FullForward(edited, batch, num_rows, column, read_column)
        points, rows = _test_points(base)
        clean_rows = torch.arange(num_rows, device=base.device)
        slow = Comparison(_clean(full, base, clean_rows), readouts, None, network.name)
        flags: list[str] = []
        truth = None
        for candidate, build in _candidates(network, batch, where, place, readout, readout_position, edited):
            if level != "auto" and candidate > level:
                continue
            try:
                route = build()
            except Unavailable as reason:
                flags.append(f"level {candidate} is not used: {reason}")
                continue
            comparison = Comparison(_clean(route, base, clean_rows), readouts, route.head, network.name)
            truth = truth or slow(full.late(points, rows), rows, clip=False)
            gap = _gap(truth, comparison(route.late(points, rows), rows, clip=False), slow.hidden[rows])
            # No smaller in float64: several models of transformers compute their norms in float32 all the same.
            tolerance = TOLERANCE * max(1.0, torch.finfo(base.dtype).eps / torch.finfo(torch.float32).eps)
            if gap <= tolerance:
                return ActivationSweep(base, route, comparison, tuple(flags))
            flags.append(
                f"level {candidate} is not used: it differs from level 0 by {gap:.2g} (at most {tolerance:.2g})"
            )
    if level != 0:
        flags.append(_slowdown(column, read_column, batch))
    return ActivationSweep(base, full, slow, tuple(flags))


def _candidates(
    network: Network,
    batch: Batch,
    site: Site,
    place: Place,
    readout: Place | None,
    read: ReadPosition,
    edited: Edited,
) -> Iterator[tuple[int, Callable[[], Route]]]:
    """Faster levels, the fastest first."""

    def prompts() -> Prompts:
        return Prompts.of(network, batch, site, read)

    replay: Any = RecurrentReplay if isinstance(network.module, RecurrentLanguageModel) else BlockReplay
    yield 2, lambda: replay(network, prompts(), place, readout)
    yield 1, lambda: PrefixCache(network, prompts(), edited)


def _base(
    network: Network, batch: Batch, site: Site, read: ReadPosition, num_rows: int
) -> tuple[Float[Tensor, "rows d"], Column, Column]:
    """Clean activations, and the columns of the edit and of the read-out."""
    value = network.record(Site(kind="acts", pattern=site.pattern, port=site.port), batch)
    if not value.is_floating_point() or value.ndim not in (2, 3) or len(value) != num_rows:
        raise BadInput(
            f"value at {site}", got=f"{value.dtype} of shape {tuple(value.shape)}", wanted="a vector for each position"
        )
    mask = batch.kwargs.get(MASK)
    if value.ndim == 2:
        if site.position is not None:
            network.record(site, batch)  # says why not
        tokens = next((one for one in (*batch.args, *batch.kwargs.values()) if _is_tokens(one)), None)
        length = 1 if tokens is None else tokens.shape[1]
        return value, None, picked_positions(read, num_rows, length, mask)
    mask = mask if isinstance(mask, Tensor) and mask.shape == value.shape[:2] else None
    column = picked_positions(site.position, num_rows, value.shape[1], mask)
    read_column = picked_positions(read, num_rows, value.shape[1], mask)
    return value[torch.arange(num_rows, device=value.device), column], column, read_column


def _readout_place(network: Network, batch: Batch, site: str | Site | None) -> Place | None:
    """Where late activations are read; None: the outputs."""
    if site is not None:
        return _found(network, Site.parse(site), batch)
    try:
        known = network.site_map(batch)
    except BadInput:  # no forward pass of it can be made up
        return None
    last = known.num_blocks - 1
    return next((known.aliases[name] for name in ("final_norm", f"resid_post.{last}") if name in known.aliases), None)


def _found(network: Network, site: Site, batch: Batch) -> Place:
    place = find_place(network, site, batch)
    assert place is not None  # that needs a missing batch
    return place


def _clean(route: Route, base: Float[Tensor, "rows d"], rows: Int[Tensor, " rows"]) -> Any:
    """The clean run by the same route, a chunk of prompts at a time, so that the same point gives exactly the same."""
    size = max(1, min(CHUNK, CHUNK_BYTES // route.row_bytes))
    parts = [route.late(base[part], part) for part in torch.split(rows, size)]
    logits = [part.logits for part in parts if part.logits is not None]
    return parts[0]._replace(
        hidden=torch.cat([part.hidden for part in parts]), logits=torch.cat(logits) if logits else None
    )


def _test_points(base: Float[Tensor, "rows d"]) -> tuple[Tensor, Tensor]:
    """Random points half a norm away from the clean activations of some prompts, two at least."""
    count = min(NUM_CHECKED, max(2, len(base)))
    rows = torch.linspace(0, len(base) - 1, count).round().long()
    noise = torch.randn(count, base.shape[1], generator=generator(0, "sweep"), dtype=torch.float64)
    rows, chosen = rows.to(base.device), base[rows.to(base.device)]
    noise = (noise / noise.norm(dim=1, keepdim=True)).to(base)
    size = chosen.norm(dim=1, keepdim=True)
    return chosen + 0.5 * torch.where(size > 0, size, 1.0) * noise, rows


def _gap(truth: Responses, found: Responses, clean: Float[Tensor, "n k"]) -> float:
    """The largest difference of two sets of read-outs.

    Distances as shares of the late activation's norm, divergences above 1 as shares of themselves: so rounding grows.
    """
    gaps = []
    for name, value in truth.values().items():
        size = {"l2": clean.norm(dim=1), "kl": value, "cosine": torch.ones_like(value)}[name]
        gaps.append(float(((found.values()[name] - value).abs() / size.clamp_min(1.0)).max()))
    return max(gaps)


def _is_finite(points: Tensor) -> bool:
    try:
        return bool(points.detach().isfinite().all())
    except RuntimeError:  # under vmap a tensor cannot be looked at
        return True


def _is_tokens(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2 and not value.is_floating_point()


def _slowdown(column: Column, read_column: Column, batch: Batch) -> str:
    """What level 0 costs beside a cached sweep."""
    if not isinstance(column, Tensor) or not isinstance(read_column, Tensor):
        return "level 0 is used: every point is a whole forward pass"
    length = next(v.shape[1] for v in (*batch.args, *batch.kwargs.values()) if isinstance(v, Tensor) and v.ndim > 1)
    anew = max(1, int((read_column - column).max()) + 1)
    return (
        f"level 0 is used: every point is a whole forward pass over {length} positions, "
        f"{length / anew:.3g} times as many as a sweep with a cache would compute"
    )

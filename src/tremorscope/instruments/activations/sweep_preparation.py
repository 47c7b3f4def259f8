"""Sweeps of many cells made ready together: one clean pass, one memory of the prefix, one check for each site."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.activations.aliases import find_place
from tremorscope.instruments.activations.block_replay import BlockReplay
from tremorscope.instruments.activations.half_precision import HALF, batch_in_float32, divergence, in_float32
from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.activations.prefix_cache import PrefixCache
from tremorscope.instruments.activations.readouts import Comparison, Responses
from tremorscope.instruments.activations.recurrent_replay import RecurrentReplay
from tremorscope.instruments.activations.stack_replay import StackReplay
from tremorscope.instruments.activations.sweep_batch import (
    MASK,
    Prompts,
    ReadPosition,
    Shared,
    Unavailable,
    num_prompts,
    picked_positions,
)
from tremorscope.instruments.activations.sweep_cells import Cell, Prepared, slot_rows
from tremorscope.instruments.activations.sweep_checks import (
    gap_of,
    is_tokens,
    noise_words,
    over_all,
    random_points,
    slowdown,
)
from tremorscope.instruments.activations.sweep_routes import (
    CHUNK,
    CHUNK_BYTES,
    Back,
    Edited,
    FullForward,
    Route,
)
from tremorscope.instruments.network import Network
from tremorscope.instruments.recurrent import RecurrentLanguageModel
from tremorscope.instruments.site import Site
from tremorscope.instruments.task import Batch

TOLERANCE = 1e-5  # of the agreement with level 0; as much larger as rounding is in 16 bits
SLOWEST, OVER_ALL = "level 0", "level 2 over all positions"
NUM_CHECKED = 8  # points on which the agreement is tested, at most


class _Clean(NamedTuple):
    """Clean runs at some positions before the read-out, ready to be compared with."""

    comparison: Comparison
    back: tuple[int, ...]

    def slots(self, back: Back) -> tuple[int, ...]:
        return tuple(self.back.index(one) for one in back)


class _Candidate(NamedTuple):
    """A way to compute that is faster than level 0, and how it is made ready for a cell, by its number."""

    level: int
    name: str
    build: Callable[[int], Route]


class _Truth(NamedTuple):
    """Points in one cell, of some prompts, and what level 0 says of them."""

    number: int
    points: Float[Tensor, "n d"]
    rows: Int[Tensor, " n"]
    responses: Responses


@final
class Preparation:
    """What the sweeps of one network and batch share, and the choice of a level for each: see `prepare_sweeps`."""

    def __init__(
        self,
        network: Network,
        batch: Batch,
        *,
        level: Any,
        readouts: Sequence[str],
        readout_site: str | Site | None,
        read: ReadPosition,
        own: bool,
        float32_check: bool,
    ) -> None:
        self.network, self.batch, self.readouts, self.read, self.own = network, batch, readouts, read, own
        self.highest = 2 if level == "auto" else int(level)
        self.num_rows, self.shared = num_prompts(batch), Shared()
        self.readout = _readout_place(network, batch, readout_site)
        self.clean: dict[str, _Clean] = {}
        self.is_half = network.dtype in HALF
        self.twin: Preparation | None = None
        if self.is_half and float32_check:
            self.twin = Preparation(
                in_float32(network),
                batch_in_float32(batch),
                level=level,
                readouts=readouts,
                readout_site=readout_site,
                read=read,
                own=own,
                float32_check=False,
            )

    def cells(self, sites: Sequence[Site]) -> list[Prepared]:
        """Each site with its position, made ready; one clean pass and one check for the positions of each."""
        # A site without its position: the same values.
        plain = [Site(kind="acts", pattern=site.pattern, port=site.port) for site in sites]
        for place, one in enumerate(plain):
            if _found(self.network, one, self.batch).features == "unknown":
                self.network.record(sites[place], self.batch)  # says what to do
        values = self.network.record_all(plain, self.batch)
        groups: dict[str, list[int]] = {}
        for place, one in enumerate(plain):
            groups.setdefault(str(one), []).append(place)
        found: dict[int, Prepared] = {}
        twins = None if self.twin is None else self.twin.cells(sites)
        for name, members in groups.items():
            cells = [self._cell(sites[place], values[name]) for place in members]
            where = _found(self.network, sites[members[0]], self.batch)
            if where.columns is None:
                self.shared.once((where.module, where.port), partial(values.get, name))
            if twins is None:
                prepared = self._group(cells, where)
            else:
                prepared = self._like(cells, where, [twins[place] for place in members])
            found |= zip(members, prepared, strict=True)
        return [found[place] for place in range(len(sites))]

    def _cell(self, site: Site, value: Tensor) -> Cell:
        if not value.is_floating_point() or value.ndim not in (2, 3) or len(value) != self.num_rows:
            raise BadInput(
                f"value at {site}",
                got=f"{value.dtype} of shape {tuple(value.shape)}",
                wanted="a vector for each position",
            )
        mask = self.batch.kwargs.get(MASK)
        if value.ndim == 2:
            if site.position is not None:
                self.network.record(site, self.batch)  # says why not
            tokens = next((one for one in (*self.batch.args, *self.batch.kwargs.values()) if is_tokens(one)), None)
            length = 1 if tokens is None else tokens.shape[1]
            return Cell(site, value, None, picked_positions(self.read, self.num_rows, length, mask), 0)
        mask = mask if isinstance(mask, Tensor) and mask.shape == value.shape[:2] else None
        column = picked_positions(site.position, self.num_rows, value.shape[1], mask)
        read_column = picked_positions(self.read, self.num_rows, value.shape[1], mask)
        gaps = read_column - column
        back = int(gaps[0]) if bool((gaps == gaps[0]).all()) and int(gaps[0]) >= 0 else None
        if self.own and back is None:
            raise BadInput(
                f"read-out at {site}'s own position",
                got=f"from {int(gaps.min())} to {int(gaps.max())} tokens between it and the position that is read",
                wanted="as many in all prompts, and none before the edit",
                remedy="Sweep prompts of equal length together.",
            )
        base = value[torch.arange(self.num_rows, device=value.device), column]
        return Cell(site, base, column, read_column, back)

    def _group(self, cells: Sequence[Cell], place: Place) -> list[Prepared]:
        """The cells of one site: the highest level that each one allows and that agrees with level 0."""
        flags: list[list[str]] = [[] for _ in cells]
        full = [self._full(cell) for cell in cells]
        found: dict[int, Prepared] = {}
        truth: list[_Truth] = []
        for candidate in self._candidates(cells, full, place):
            routes: dict[int, Route] = {}
            for number in range(len(cells)):
                if number in found:
                    continue
                try:
                    routes[number] = candidate.build(number)
                except Unavailable as reason:
                    flags[number].append(f"{candidate.name} is not used: {reason}")
            if not routes:
                continue
            clean = self._clean_of(candidate.name, cells, routes)
            # The cells that are looked at need not have been so for the level before.
            truth = [one for one in truth if one.number in routes] or self._truths(cells, full, list(routes))
            gap = max(self._gap(cells[one.number], routes[one.number], clean, one) for one in truth)
            # No smaller in float64: several models of transformers compute their norms in float32 all the same.
            rounding = torch.finfo(cells[0].base.dtype).eps / torch.finfo(torch.float32).eps
            tolerance = TOLERANCE * max(1.0, rounding)
            if gap <= tolerance:
                self.clean[candidate.name] = clean
                for number, route in routes.items():
                    why = over_all(flags[number]) if candidate.name == OVER_ALL else flags[number]
                    found[number] = self._prepared(cells[number], candidate.name, route, clean, why)
                continue
            for number in routes:
                flags[number].append(
                    f"{candidate.name} is not used: it differs from level 0 by {gap:.2g} (at most {tolerance:.2g})"
                )
        slow = {number: route for number, route in enumerate(full) if number not in found}
        if slow:
            self.clean[SLOWEST] = clean = self._clean_of(SLOWEST, cells, slow)
            for number, route in slow.items():
                cell = cells[number]
                if self.highest > 0:
                    flags[number].append(slowdown(cell.column, cell.read_column, self.batch))
                found[number] = self._prepared(cell, SLOWEST, route, clean, flags[number])
        if not self.is_half:
            return [found[number] for number in range(len(cells))]
        # Without a twin.
        return [self._loose(found[number], cells[number], full[number]) for number in range(len(cells))]

    def _loose(self, prepared: Prepared, cell: Cell, full: FullForward) -> Prepared:
        """A cell in 16 bits that has nothing to be checked against but itself."""
        floor = self._floor([cell], {0: prepared.route}, [full]) if "kl" in self.readouts else None
        flags = (*prepared.flags, "16 bits: nothing is checked in float32")
        if floor is not None:
            flags = (*flags, noise_words(floor, self.network.dtype))
        return prepared._replace(floor=floor, flags=flags)

    def _like(self, cells: Sequence[Cell], place: Place, twins: Sequence[Prepared]) -> list[Prepared]:
        """The cells of one site in 16 bits: each on the way that was right in float32."""
        full = [self._full(cell) for cell in cells]
        slowest = _Candidate(0, SLOWEST, lambda number: full[number])
        flags = [list(twin.flags) for twin in twins]
        found: dict[int, Prepared] = {}
        late: list[int] = []  # cells whose way does not fit in 16 bits
        for candidate in (*self._candidates(cells, full, place), slowest):
            routes: dict[int, Route] = {}
            asked = [*late, *(number for number, twin in enumerate(twins) if twin.way == candidate.name)]
            for number in asked:
                try:
                    routes[number] = candidate.build(number)
                except Unavailable as reason:
                    flags[number].append(f"{candidate.name} is not used: {reason}")
            late = [number for number in asked if number not in routes]
            if not routes:
                continue
            clean = self.clean[candidate.name] = self._clean_of(candidate.name, cells, routes)
            floor = self._floor(cells, routes, full, twins) if "kl" in self.readouts else None
            for number, route in routes.items():
                if floor is not None:
                    flags[number].append(noise_words(floor, self.network.dtype))
                prepared = self._prepared(cells[number], candidate.name, route, clean, flags[number])
                found[number] = prepared._replace(floor=floor, twin=twins[number])
        return [found[number] for number in range(len(cells))]

    def _floor(
        self,
        cells: Sequence[Cell],
        routes: Mapping[int, Route],
        full: Sequence[FullForward],
        twins: Sequence[Prepared] | None = None,
    ) -> float | None:
        """The largest divergence between computations of the same points, clean ones among them.

        By the route; by level 0, one after the other; and in float32, if there is a twin. On some machines the first
        two round alike to the last bit, so that they alone would promise too much.
        """
        floor, stream = 0.0, generator(0, "noise floor")
        rows = torch.arange(min(self.num_rows, NUM_CHECKED // 2), device=cells[0].base.device)
        for number in sorted(routes)[:: max(1, len(routes) - 1)]:  # the first and the last
            base, back = cells[number].base, self._back(cells[number])
            points, twice = torch.cat([base[rows], random_points(base, rows, stream)[0]]), torch.cat([rows, rows])
            told = routes[number].late(points, twice, back=back).logits
            alone = [full[number].late(points[i : i + 1], twice[i : i + 1], back=back) for i in range(len(points))]
            parts = [late.part(slot, 1).logits for slot in range(len(back)) for late in alone]
            if told is None or any(part is None for part in parts):
                return None
            floor = max(floor, divergence(torch.cat([part for part in parts if part is not None]), told))
            wide = None if twins is None else twins[number].route.late(points.float(), twice, back=back).logits
            floor = floor if wide is None else max(floor, divergence(wide, told))
        return floor

    def _full(self, cell: Cell) -> FullForward:
        edited = Edited(self.network, cell.site, self.readout)
        reach = max(self._back(cell))
        return FullForward(
            edited, self.batch, self.num_rows, cell.column, cell.read_column, reach=reach, shared=self.shared
        )

    def _candidates(self, cells: Sequence[Cell], full: Sequence[FullForward], place: Place) -> Iterator[_Candidate]:
        """Faster ways, the fastest first."""

        def prompts(number: int) -> Prompts:
            return Prompts.of(self.network, self.batch, cells[number].site, self.read, self.shared)

        replay: Any = RecurrentReplay if isinstance(self.network.module, RecurrentLanguageModel) else BlockReplay
        if self.highest >= 2:
            yield _Candidate(2, "level 2", lambda number: replay(self.network, prompts(number), place, self.readout))
        if self.highest >= 1:
            yield _Candidate(
                1, "level 1", lambda number: PrefixCache(self.network, prompts(number), full[number].edited)
            )
        if self.highest >= 2:
            yield _Candidate(2, OVER_ALL, lambda number: StackReplay(self.network, place, full[number], self.shared))

    def _back(self, cell: Cell) -> tuple[int, ...]:
        """Where a cell is read: at the read-out, and at its own position if that is asked for and is another."""
        return (0, cell.back) if self.own and cell.back else (0,)

    def _clean_of(self, name: str, cells: Sequence[Cell], routes: Mapping[int, Route]) -> _Clean:
        """Clean runs by the same way, so that the same point gives the same; those there are, or by one cell's route.

        That of the earliest position, on which all the others lie.
        """
        needed = {0}.union(*(self._back(cells[number]) for number in routes))
        held = self.clean.get(name)
        if held is not None and needed <= set(held.back):
            return held
        first = max(routes, key=lambda number: cells[number].back or 0)
        back, route, base = tuple(sorted(needed)), routes[first], cells[first].base
        size = max(1, min(CHUNK, CHUNK_BYTES // route.row_bytes) // len(back))
        rows = torch.arange(self.num_rows, device=base.device)
        parts = [route.late(base[part], part, back=back) for part in torch.split(rows, size)]
        hidden = [part.hidden.view(len(back), -1, part.hidden.shape[-1]) for part in parts]
        logits = [part.logits.view(len(back), -1, part.logits.shape[-1]) for part in parts if part.logits is not None]
        late = parts[0]._replace(
            hidden=torch.cat(hidden, dim=1).flatten(0, 1),
            logits=torch.cat(logits, dim=1).flatten(0, 1) if logits else None,
        )
        return _Clean(Comparison(late, self.readouts, route.head, self.network.name), back)

    def _truths(self, cells: Sequence[Cell], full: Sequence[FullForward], numbers: Sequence[int]) -> list[_Truth]:
        """What level 0 says of random points, in two of the cells or more."""
        count = min(NUM_CHECKED, max(2, self.num_rows))
        stream = generator(0, "sweep", *([] if len(cells) == 1 else [str(cells[0].site)]))
        every = torch.linspace(0, self.num_rows - 1, count).round().long()
        # Points of different cells where there are several; else all of one.
        order = torch.randperm(len(numbers), generator=stream).tolist() if len(numbers) > 1 else [0]
        chosen = order[:count]
        slow = self.clean[SLOWEST] = self._clean_of(SLOWEST, cells, dict(enumerate(full)))
        found = []
        for place, one in enumerate(chosen):
            number = numbers[one]
            points, rows = random_points(cells[number].base, every[place :: len(chosen)], stream)
            found.append(_Truth(number, points, rows, self._read(cells[number], full[number], slow, points, rows)))
        return found

    def _read(self, cell: Cell, route: Route, clean: _Clean, points: Tensor, rows: Tensor) -> Responses:
        back = self._back(cell)
        slots = slot_rows(clean.slots(back), rows, self.num_rows)
        return clean.comparison(route.late(points, rows, back=back), slots, clip=False)

    def _gap(self, cell: Cell, route: Route, clean: _Clean, truth: _Truth) -> float:
        slow = self.clean[SLOWEST]
        hidden = slow.comparison.hidden[slot_rows(slow.slots(self._back(cell)), truth.rows, self.num_rows)]
        return gap_of(truth.responses, self._read(cell, route, clean, truth.points, truth.rows), hidden)

    def _prepared(self, cell: Cell, way: str, route: Route, clean: _Clean, flags: Sequence[str]) -> Prepared:
        back = self._back(cell)
        return Prepared(cell, way, route, clean.comparison, tuple(flags), back, clean.slots(back))


def _readout_place(network: Network, batch: Batch, site: str | Site | None) -> Place | None:
    """Where late activations are read; None: the outputs."""
    if site is not None:
        return _found(network, Site.parse(site), batch)
    try:
        known = network.site_map(batch)
    except BadInput:  # no forward pass of it can be made up
        return None
    last = known.num_blocks - 1
    name = next((name for name in ("final_norm", f"resid_post.{last}") if name in known.aliases), None)
    return None if name is None else _found(network, Site(kind="acts", pattern=name), batch)


def _found(network: Network, site: Site, batch: Batch) -> Place:
    place = find_place(network, site, batch)
    assert place is not None  # that needs a missing batch
    return place

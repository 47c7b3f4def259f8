"""Many replaced activations at one site and position, recomputing nothing that they leave as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.half_precision import checked_places, compared
from tremorscope.instruments.activations.readouts import NOISE_UNITS, Responses
from tremorscope.instruments.activations.sweep_batch import ReadPosition
from tremorscope.instruments.activations.sweep_cells import Prepared, slot_rows
from tremorscope.instruments.activations.sweep_preparation import Preparation
from tremorscope.instruments.activations.sweep_routes import CHUNK, CHUNK_BYTES, Back, Late
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.instruments.task import Batch

Level = Literal["auto", 0, 1, 2]
FEW = 8  # prompts with less than a chunk / FEW of points each share one, at the cost of a prefix for every point


@final
class ActivationSweep:
    """Responses to points that replace the activation of one site at one position. Made by `prepare_sweep`.

    Attributes:
        base: Clean activation, one vector for each prompt.
        level: How it computes: 0, 1 or 2, see `prepare_sweep`.
        route: The same in words.
        flags: Faster levels that are not used, and why; in 16 bits, the noise floor.
        floor: In 16 bits the largest divergence, in nats, between computations of the same points (by this way, by
            level 0, in float32); else None.
        num_evaluations: Points evaluated so far, checks not counted.
    """

    def __init__(self, prepared: Prepared) -> None:
        route = prepared.route
        self.base, self.flags = prepared.cell.base, prepared.flags
        self.level, self.route = route.level, route.name
        self.num_evaluations = 0
        self._route, self._comparison = route, prepared.comparison
        self._back, self._slots = prepared.back, prepared.slots
        self.floor = prepared.floor
        self._twin = None if prepared.twin is None else ActivationSweep(prepared.twin)

    @property
    def chunk(self) -> int:
        """Points that are computed at once, from their estimated memory."""
        return max(1, min(CHUNK, CHUNK_BYTES // (self._route.row_bytes * len(self._back))))

    def respond(self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"] | int = 0) -> Responses:
        """Read-outs of points, each in the place of the activation of prompt `rows[i]`.

        Divergences below the rounding of the network's precision are given as 0 and counted. Points may be more than
        fit into memory: they are computed in chunks, those of one prompt together.

        Raises:
            BadInput: If a point has another width than the site, is not finite, or belongs to no prompt.
        """
        return self._responses(points, rows, self._back[:1])[0]

    def respond_twice(
        self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"] | int = 0
    ) -> tuple[Responses, Responses]:
        """Read-outs at the position that is read, and at the replaced activation's own, from one evaluation.

        For sweeps that were prepared with `own=True`. If the two positions are one, so are the responses.

        Raises:
            BadInput: As `respond`.
        """
        found = self._responses(points, rows, self._back)
        return found[0], found[-1]

    def _responses(self, points: Tensor, rows: Tensor | int, back: Back) -> list[Responses]:
        """Responses of all points at each position."""
        points, chosen = self._checked(points, rows)
        order = chosen.argsort(stable=True)
        with torch.no_grad():
            parts = [self._compared(points[index], chosen[index], back) for index in self._chunks(order, chosen)]
        self.num_evaluations += len(points)
        joined = [Responses.joined([part[place] for part in parts]) for place in range(len(back))]
        if len(parts) > 1 or not torch.equal(order, torch.arange(len(order), device=order.device)):
            inverse = order.argsort()
            joined = [one.chosen(inverse) for one in joined]
        joined = [replace(one, floor=self.floor) for one in joined]
        return joined if self._twin is None else self._spotted(joined, points, chosen, back)

    def _compared(self, points: Tensor, rows: Tensor, back: Back) -> list[Responses]:
        late = self._late(points, rows, back)
        # In 16 bits: not what one computation could resolve, but what several of them agree on.
        noise = None if self.floor is None else max(self.floor, NOISE_UNITS * torch.finfo(torch.float32).eps)
        return [
            self._comparison(late.part(place, len(points)), self._clean(rows, place), noise=noise)
            for place in range(len(back))
        ]

    def _spotted(self, found: list[Responses], points: Tensor, rows: Tensor, back: Back) -> list[Responses]:
        """The same with some of them compared with float32."""
        assert self._twin is not None
        places = checked_places(len(points), self.num_evaluations).to(points.device)
        truths = self._twin._responses(points[places].float(), rows[places], back)
        eps = torch.finfo(self.base.dtype).eps
        spotted = []
        for place, (one, truth) in enumerate(zip(found, truths, strict=True)):
            norm = self._comparison.hidden[self._clean(rows[places], place)].norm(dim=1)
            spot = compared(one.chosen(places), truth, norm, eps)
            spotted.append(replace(one, spot=spot))
        return spotted

    def responses_of(self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"] | int = 0) -> Responses:
        """The same, differentiable with respect to the points; one chunk, and nothing is clipped.

        Raises:
            BadInput: As `respond`.
        """
        points, chosen = self._checked(points, rows)
        self.num_evaluations += len(points)
        return self._comparison(self._late(points, chosen), self._clean(chosen), clip=False)

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

    def outputs(self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"] | int = 0) -> Late:
        """Late activations, and logits where there are any, themselves, at the position that is read; differentiable.

        For comparisons with something else than the clean prompt. Computed in chunks, as by `respond`.

        Raises:
            BadInput: As `respond`.
        """
        points, chosen = self._checked(points, rows)
        order = chosen.argsort(stable=True)
        parts = [self._route.late(points[index], chosen[index]) for index in self._chunks(order, chosen)]
        self.num_evaluations += len(points)
        back = order.argsort()
        logits = [part.logits for part in parts if part.logits is not None]
        return Late(
            hidden=torch.cat([part.hidden for part in parts])[back],
            logits=torch.cat(logits)[back] if len(logits) == len(parts) else None,
        )

    def _late(self, points: Tensor, rows: Tensor, back: Back = (0,)) -> Late:
        return self._route.late(points, rows, logits="kl" in self._comparison.readouts, back=back)

    def _clean(self, rows: Tensor, place: int = 0) -> Tensor:
        """The clean runs that points of some prompts are compared with."""
        return slot_rows(self._slots[place : place + 1], rows, len(self.base))

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
    float32_check: bool = True,
) -> ActivationSweep:
    """What happens downstream if this activation were different? Made ready for thousands of answers.

    | level | what is computed for a point | for |
    |---|---|---|
    | 2 | the blocks from the site on, at the positions from the edit to the read-out | GPT-2, Llama, house GRU |
    | 1 | all blocks, at those positions, after a memory of the earlier ones | causal models of transformers |
    | 2 | the blocks from the site on, at all positions | encoders, any other stack of blocks |
    | 0 | everything | any module |

    Keys, values and states of what comes before the edited position, and what blocks below it give, are computed once.
    The first of these ways is taken that fits and agrees with level 0 on random points of up to eight of the prompts,
    within 1e-5 in float32; `flags` name each that was passed over and why. Sites may lie in a block: heads, queries,
    keys, values and neurons are replaced while their block is replayed.

    Args:
        network: The network; edits of activations that it has already are kept (by level 1 or 0).
        batch: One prompt per row. They share chunks of points if they are equally long.
        site: An address among the activations, with one position: `acts:resid_pre.1@last`.
        level: The highest level to try.
        readouts: Some of `kl`, `l2` and `cosine`.
        readout_site: Where `l2` and `cosine` are taken: by default the final norm, else the last block, else the
            outputs.
        readout_position: `last` (the last token that is no padding), or a number; counted from the end if negative.
        float32_check: Of networks in 16 bits: hold a float32 copy of the weights. Levels are then checked in float32,
            and so is one point in a hundred (two at least) of every call of `respond`: see `Responses.spot`. Without
            it a level only has to agree with level 0 as far as 16 bits reach, and a flag says so.

    In 16 bits the noise floor is measured: the largest divergence between computations of the same points, by the way
    that is taken, by level 0 and in float32. `floor`, `flags` and the responses give it, and smaller divergences count
    as 0. Level 2 after a shared prefix makes its predictions in float32.

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
    return prepare_sweeps(
        network,
        batch,
        [site],
        level=level,
        readouts=readouts,
        readout_site=readout_site,
        readout_position=readout_position,
        float32_check=float32_check,
    )[0]


def prepare_sweeps(
    network: Network,
    batch: Batch,
    sites: Sequence[str | Site],
    *,
    level: Level = "auto",
    readouts: Sequence[str] = ("kl", "l2", "cosine"),
    readout_site: str | Site | None = None,
    readout_position: ReadPosition = "last",
    own: bool = False,
    float32_check: bool = True,
) -> list[ActivationSweep]:
    """The same for many sites and positions of one batch: what they have in common is computed once.

    That is the clean pass, keys and values or states of all positions, what points are compared with, and the check: it
    is made once for each site, at two of its positions at random (of eight, if there are so many prompts), and all
    positions of the site share its verdict.

    Args:
        network: As `prepare_sweep`.
        batch: As `prepare_sweep`.
        sites: Addresses among the activations, each with one position.
        level: As `prepare_sweep`.
        readouts: As `prepare_sweep`.
        readout_site: As `prepare_sweep`.
        readout_position: As `prepare_sweep`.
        own: Also make ready what the replaced activation does to the prediction at its own position: see
            `ActivationSweep.respond_twice`.
        float32_check: As `prepare_sweep`.

    Returns:
        A sweep for each site, in their order. They hold the common values together, and change none.

    Cost: a few clean forward passes, and two points on level 0 for each site.

    >>> from tremorscope.instruments.language.encode import encode
    >>> from tremorscope.instruments.load import load
    >>> network = load("builtin:microworld")
    >>> batch = encode(network, ["Two days after Monday is"])
    >>> sweeps = prepare_sweeps(network, batch, ["acts:resid_pre.1@2", "acts:resid_pre.1@last"], own=True)
    >>> last, own = sweeps[0].respond_twice(2 * sweeps[0].base)
    >>> bool(own.kl[0] > 0.001), [sweep.level for sweep in sweeps]
    (True, [2, 2])

    Raises:
        BadInput: As `prepare_sweep`; with `own`, if prompts differ in the tokens between edit and read-out.
        SiteNotFound: If the network has no such site.
    """
    parsed = [Site.parse(site) for site in sites]
    for where in parsed:
        if where.kind != "acts":
            raise BadInput(f"site {str(where)!r}", got="no activation", wanted="acts:NAME@POSITION")
    if level not in ("auto", 0, 1, 2):
        raise BadInput("level of a sweep", got=repr(level), wanted="'auto', 0, 1 or 2")
    with torch.no_grad():
        preparation = Preparation(
            network,
            batch,
            level=level,
            readouts=readouts,
            readout_site=readout_site,
            read=readout_position,
            own=own,
            float32_check=float32_check,
        )
        return [ActivationSweep(prepared) for prepared in preparation.cells(parsed)]


def _is_finite(points: Tensor) -> bool:
    try:
        return bool(points.detach().isfinite().all())
    except RuntimeError:  # under vmap a tensor cannot be looked at
        return True

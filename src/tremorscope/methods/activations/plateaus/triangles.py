"""Triangles of directions: between three targets, is a corner where sensitivity is greatest?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.figures import Axis, Figure, numbers
from tremorscope.instruments.activations.crossing import Crossings, crossings
from tremorscope.methods.activations.plateaus.curves import KL_LEVEL
from tremorscope.methods.activations.plateaus.paths import Mode, Paths, paths_of
from tremorscope.methods.activations.plateaus.responder import Comparer, Readout, Responder

NUM_SIDE = 8


@final
@dataclass(frozen=True, kw_only=True)
class TriangleMap:
    """Thresholds of directions towards mixtures of three targets.

    `weights[i]` are barycentric: the target is their sum over the corners. `thresholds` are infinite where the level
    was not reached. `error` is the width of the bracket in which a threshold lies. `corners` and `neighbours` (the two
    grid points beside each corner) are places in `weights`.
    """

    weights: Float[numpy.ndarray, "n 3"]
    thresholds: Float[numpy.ndarray, " n"]
    error: float
    corners: tuple[int, int, int]
    neighbours: tuple[tuple[int, ...], ...]
    unit: str
    flags: tuple[str, ...] = ()

    @property
    def corner_thresholds(self) -> tuple[float, float, float]:
        """Thresholds at A, B and C."""
        a, b, c = (float(self.thresholds[corner]) for corner in self.corners)
        return a, b, c

    def is_optimum(self, corner: int) -> bool:
        """Whether a corner's threshold is below those of its neighbours by more than the error of the search."""
        here = self.thresholds[self.corners[corner]]
        return all(bool(here < self.thresholds[beside] - self.error) for beside in self.neighbours[corner])

    def depth(self, corner: int) -> float:
        """Mean threshold of the neighbours less that of the corner; NaN when one is infinite."""
        beside = self.thresholds[list(self.neighbours[corner])]
        gap = beside.mean() - self.thresholds[self.corners[corner]] if numpy.isfinite(beside).all() else numpy.nan
        return float(gap) if numpy.isfinite(gap) else float("nan")

    def figure(self, *, name: str = "triangle", names: Sequence[str] = ("A", "B", "C")) -> Figure:
        """The map as coloured points in the triangle."""
        x = self.weights[:, 1] + 0.5 * self.weights[:, 2]
        y = self.weights[:, 2] * 3**0.5 / 2
        trace = {
            "type": "scatter",
            "mode": "markers",
            "x": numbers(x),
            "y": numbers(y),
            "name": "threshold",
            "marker": {
                "size": 16,
                "color": numbers(self.thresholds),
                "colorscale": "Viridis",
                "showscale": True,
                "colorbar": {"title": {"text": f"threshold, {self.unit}"}},
            },
        }
        return Figure(
            name=name,
            title="Thresholds of directions between three targets",
            caption=f"Corners: {names[0]} (left), {names[1]} (right), {names[2]} (top). Thresholds there: "
            + ", ".join(f"{value:.3g}" for value in self.corner_thresholds)
            + f" {self.unit}; grey points never reached the level.",
            traces=[trace],
            x=Axis(title="weights of the targets (barycentric)"),
            y=Axis(title=""),
        )


def barycentric_grid(num_side: int) -> tuple[Int[numpy.ndarray, "n 3"], tuple[int, int, int]]:
    """All triples of whole numbers that sum to `num_side`, and where the corners are.

    >>> grid, corners = barycentric_grid(2)
    >>> grid.tolist(), corners
    ([[2, 0, 0], [1, 1, 0], [1, 0, 1], [0, 2, 0], [0, 1, 1], [0, 0, 2]], (0, 3, 5))

    Raises:
        BadInput: If there is no point between the corners.
    """
    if num_side < 2:
        raise BadInput("points along a side", got=num_side, wanted="at least 2")
    grid = [(num_side - j, j - k, k) for j in range(num_side + 1) for k in range(j + 1)]
    array = numpy.array(grid)
    a, b, c = (grid.index(corner) for corner in ((num_side, 0, 0), (0, num_side, 0), (0, 0, num_side)))
    return array, (a, b, c)


def measure_triangle(
    responder: Responder,
    base: Float[Tensor, " d"],
    targets: Float[Tensor, "3 d"],
    *,
    row: int = 0,
    readout: Readout = "kl",
    level: float = KL_LEVEL,
    mode: Mode = "sphere",
    largest: float = 90.0,
    num_side: int = NUM_SIDE,
    subtract_base: bool = True,
) -> TriangleMap:
    """How early does the network notice moves towards mixtures of three targets?

    Targets are interpolated, then turned into directions: with `subtract_base` those from the base to the target, else
    the targets themselves.

    Args:
        responder: The network.
        base: Where all paths start.
        targets: The corners.
        row: Prompt whose context it is.
        readout: Response whose threshold is sought.
        level: That threshold.
        mode: Of the paths.
        largest: Size up to which it is sought.
        num_side: Steps along a side; 8 makes 45 directions.
        subtract_base: See above.

    Cost: 12 evaluations for each of `(num_side + 1) (num_side + 2) / 2` directions.

    Raises:
        BadInput: If a direction is zero or parallel to the base, or KL is asked of a model without logits.
    """
    grid, corners = barycentric_grid(num_side)
    weights = torch.from_numpy(grid).double() / num_side
    mixed = weights @ targets.double()
    bases = base.double().expand(len(mixed), -1)
    paths = paths_of(mode, bases, mixed - bases if subtract_base else mixed)
    found = path_crossings(
        responder,
        paths,
        rows=torch.tensor([row]),
        bases=torch.zeros(len(mixed), dtype=torch.int64),
        readout=readout,
        level=level,
        largest=largest,
    )
    beside = tuple(
        tuple(int(place) for place in numpy.flatnonzero(numpy.abs(grid - grid[corner]).sum(axis=1) == 2))
        for corner in corners
    )
    widths = (found.high - found.low)[found.sizes.isfinite()]
    return TriangleMap(
        weights=weights.numpy(),
        thresholds=found.sizes.numpy(),
        error=float(widths.max()) if len(widths) else 0.0,
        corners=corners,
        neighbours=beside,
        unit=paths.unit,
        flags=found.flags,
    )


def path_crossings(
    responder: Responder,
    paths: Paths,
    *,
    rows: Int[Tensor, " groups"],
    bases: Int[Tensor, " n"],
    readout: Readout = "kl",
    level: float | None = KL_LEVEL,
    largest: float = 90.0,
) -> Crossings:
    """Where the response along each path first reaches a level, or half of what it is at the end (`level=None`).

    By bracket and bisection: 12 evaluations for a path instead of one for each size of a curve.

    Raises:
        BadInput: As `measure_curves`.
    """
    first = torch.stack([(bases == group).nonzero()[0, 0] for group in range(len(rows))])
    comparer = Comparer(responder, paths.base[first], rows, (readout,))

    def response(sizes: Tensor, curves: Tensor) -> Tensor:
        chosen = Paths(mode=paths.mode, base=paths.base[curves], across=paths.across[curves])
        values = comparer.distances(chosen.points(sizes[:, None])[:, 0], bases[curves])[readout]
        return 1 - values if readout == "cosine" else values

    return crossings(response, len(paths.base), largest=largest, reach=level, share=0.5 if level is None else None)

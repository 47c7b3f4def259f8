"""The plane through three activations: where on it does the network's answer change?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.figures import Axis, Figure, numbers
from tremorscope.foundations.figures import points as cloud
from tremorscope.methods.activations.plateaus.responder import Comparer, Readout, Responder

NUM = 41
MARGIN = 0.25
COLLINEAR = 1e-5  # height of the triangle over its longest side; below, the plane is rounding


@final
@dataclass(frozen=True, kw_only=True)
class PlaneMap:
    """Distances of the outputs over the grid `A + s (B - A) + t (C - A)`.

    `distances[k, i, j]` is from corner `k` (A, B, C) at `t[i]`, `s[j]`. `row` is the prompt in whose context the whole
    plane was evaluated.
    """

    s: Float[numpy.ndarray, " s"]
    t: Float[numpy.ndarray, " t"]
    distances: Float[numpy.ndarray, "3 t s"]
    readout: Readout
    row: int

    @property
    def to_nearest(self) -> Float[numpy.ndarray, "t s"]:
        """Distance to the nearest corner's output: near 0 inside a plateau."""
        found: Float[numpy.ndarray, "t s"] = self.distances.min(axis=0)
        return found

    @property
    def nearest(self) -> numpy.ndarray:
        """Which corner that is: 0, 1 or 2 at each place."""
        found: numpy.ndarray = self.distances.argmin(axis=0)
        return found

    def figure(self, *, name: str = "plane", caption: str | None = None) -> Figure:
        """The map of distances to the nearest corner, corners marked."""
        heat = {
            "type": "heatmap",
            "x": numbers(self.s),
            "y": numbers(self.t),
            "z": [numbers(row) for row in self.to_nearest],
            "colorscale": "Viridis",
            "colorbar": {"title": {"text": f"{self.readout} to nearest corner"}},
        }
        return Figure(
            name=name,
            title="The plane through three activations",
            caption=caption
            or "Distance of what the network says from what it says at the nearest of three real activations, all in "
            f"the context of prompt {self.row}: dark areas around the corners are plateaus.",
            traces=[heat, cloud([0, 1, 0], [0, 0, 1], "A, B, C", colour="#D55E00", size=10)],
            x=Axis(title="s, towards B"),
            y=Axis(title="t, towards C"),
        )


def plane_points(
    corners: Float[Tensor, "3 d"], s: Float[Tensor, " s"], t: Float[Tensor, " t"]
) -> Float[Tensor, "t s d"]:
    """`A + s (B - A) + t (C - A)` in float64.

    Raises:
        BadInput: If the corners are collinear or coincide.
    """
    a, b, c = corners.double()
    u, v = b - a, c - a
    longest = max(float(u.norm()), float(v.norm()), float((c - b).norm()))
    smallest = float(torch.linalg.svdvals(torch.stack([u, v]))[-1])
    if not smallest > COLLINEAR * longest:
        raise BadInput(
            "corners of a plane",
            got="three activations on one line, or two that are equal",
            wanted="three that span a plane",
            remedy="Take another prompt for one of them.",
        )
    points: Tensor = a + s.double()[None, :, None] * u + t.double()[:, None, None] * v
    return points


def measure_plane(
    responder: Responder,
    corners: Float[Tensor, "3 d"],
    *,
    row: int = 0,
    readout: Readout = "kl",
    num: int = NUM,
    margin: float = MARGIN,
) -> PlaneMap:
    """How far is the network's answer from that at each of three activations, everywhere on their plane?

    The plane has one context, that of prompt `row`; corners from other prompts are seen as they would be there. When
    prompts differ in their last token only, that is exactly what each corner's own prompt gives.

    Args:
        responder: The network.
        corners: A, B and C.
        row: Prompt whose context it is; by default that of A, when A comes from the first prompt.
        readout: Which distance.
        num: Grid points along each side.
        margin: How far the grid goes beyond the corners, in sides.

    Cost: `num ** 2` evaluations.

    Raises:
        BadInput: If corners are collinear, or KL is asked of a model without logits.
    """
    # The corners are points of the grid themselves.
    steps = max(1, round((num - 1) / (1 + 2 * margin)))
    before = round(margin * steps)
    grid = (torch.arange(num, dtype=torch.float64) - before) / steps
    places = plane_points(corners, grid, grid).flatten(0, 1)
    comparer = Comparer(responder, corners.double(), torch.full((3,), row), (readout,))
    maps = [comparer.distances(places, torch.full((len(places),), corner))[readout] for corner in range(3)]
    distances = torch.stack(maps).reshape(3, num, num).cpu().numpy()
    if readout == "cosine":
        distances = 1 - distances
    return PlaneMap(s=grid.numpy(), t=grid.numpy(), distances=distances, readout=readout, row=row)

"""Is a direction a local optimum of sensitivity, in all dimensions at once?

Two other random directions, as in a triangle of targets, cannot show this: in a space of hundreds of dimensions they
miss nearly all of the ways in which a direction could be improved. Gradient and curvature of the response on the sphere
of directions miss none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.crossing import crossings
from tremorscope.methods.activations.plateaus.kinds import unit
from tremorscope.methods.activations.plateaus.paths import Mode, Paths
from tremorscope.methods.activations.plateaus.responder import Comparer, Readout, Responder

STEP = 0.02  # radians between the gradients of a central difference
CHUNK = 256  # points that are differentiated at once
FLAT = 1e-3  # curvature below this share of the response per radian squared counts as none


@final
class DirectionResponse:
    """The response at one distance from a base, as a function on the unit sphere of directions across it.

    Args:
        responder: The network.
        base: Where all paths start, (d,).
        size: Angle in degrees, or length, at which the response is read.
        row: Prompt whose context it is.
        readout: Which response; cosine is turned into a distance.
        mode: On a sphere, directions are those orthogonal to the base.

    Raises:
        BadInput: If the size is not positive, and as `Paths` and `Comparer`.
    """

    def __init__(
        self,
        responder: Responder,
        base: Float[Tensor, " d"],
        *,
        size: float,
        row: int = 0,
        readout: Readout = "kl",
        mode: Mode = "sphere",
    ) -> None:
        if not size > 0 or not math.isfinite(size):
            raise BadInput("size of a response", got=size, wanted="a positive number")
        self.base, self.mode, self.readout, self.size = base.detach().double().cpu(), mode, readout, size
        self._comparer = Comparer(responder, self.base[None], torch.tensor([row]), (readout,))

    def across(self, directions: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The unit vectors in which paths with these directions set out."""
        base = self.base.expand(len(directions), -1)
        if self.mode == "sphere":
            return Paths.sphere(base, directions).across
        return unit(directions)

    def thresholds(self, across: Float[Tensor, "n d"], level: float, *, largest: float) -> Float[Tensor, " n"]:
        """Where the response in each direction first reaches a level, by bracket and bisection; else infinite."""

        def response(sizes: Tensor, curves: Tensor) -> Tensor:
            points = self._points(across[curves], sizes)
            values = self._comparer.distances(points, self._groups(points))[self.readout]
            return 1 - values if self.readout == "cosine" else values

        return crossings(response, len(across), largest=largest, reach=level).sizes

    def gradients(
        self, across: Float[Tensor, "n d"], sizes: Float[Tensor, " n"] | None = None
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """Responses, at sizes of their own or all at `size`, and their gradients along the sphere, per radian."""
        values, slopes = [], []
        for part, out in zip(torch.split(across, CHUNK), torch.split(self._sizes(across, sizes), CHUNK), strict=True):
            leaf = part.detach().clone().requires_grad_(True)
            with torch.enable_grad():
                points = self._points(leaf, out)
                found = self._comparer.differentiable(points, self._groups(points))[self.readout].cpu()
                found = 1 - found if self.readout == "cosine" else found
                (slope,) = torch.autograd.grad(found.sum(), leaf)
            values.append(found.detach())
            slopes.append(self._tangential(part, slope))
        return torch.cat(values), torch.cat(slopes)

    def basis(self, across: Float[Tensor, " d"]) -> Float[Tensor, "k d"]:
        """Orthonormal directions in which a unit vector of the sphere of directions can move."""
        fixed = [across] if self.mode == "straight" else [across, self.base / self.base.norm()]
        complete: Tensor = torch.linalg.qr(torch.stack(fixed, dim=1), mode="complete").Q
        return complete[:, len(fixed) :].T.contiguous()

    def _sizes(self, across: Tensor, sizes: Tensor | None) -> Tensor:
        return torch.full((len(across),), self.size, dtype=torch.float64) if sizes is None else sizes

    def _points(self, across: Tensor, sizes: Tensor) -> Tensor:
        base = self.base.expand(len(across), -1)
        return Paths(mode=self.mode, base=base, across=across).points(sizes[:, None])[:, 0]

    def _groups(self, points: Tensor) -> Tensor:
        return torch.zeros(len(points), dtype=torch.int64)

    def _tangential(self, across: Tensor, slope: Tensor) -> Tensor:
        kept: Tensor = slope - (slope * across).sum(dim=1, keepdim=True) * across
        if self.mode == "straight":
            return kept
        ahead = self.base / self.base.norm()
        level: Tensor = kept - (kept @ ahead)[:, None] * ahead
        return level


@final
@dataclass(frozen=True, kw_only=True)
class Optimality:
    """Gradient and curvatures of the response at one direction, on the sphere of all directions across the base.

    `gradient_share` is the length of the gradient over the response: relative gain per radian, 0 at an optimum.
    `curvatures` are the eigenvalues of the Hessian on the sphere over the response, ascending, one for each of the
    d - 2 (straight: d - 1) ways to turn: all negative at a local maximum of sensitivity, as many positive as there are
    ways to become more sensitive at a saddle. `asymmetry` is the error of the finite differences, as a share.
    """

    response: float
    gradient_share: float
    curvatures: Float[numpy.ndarray, " k"]
    asymmetry: float

    def num_rising(self, flat: float = FLAT) -> int:
        """Ways to turn along which the response curves upwards: the index of the saddle."""
        return int((self.curvatures > flat).sum())

    def num_falling(self, flat: float = FLAT) -> int:
        """Ways to turn along which it curves downwards."""
        return int((self.curvatures < -flat).sum())

    def is_local_maximum(self, *, gradient: float = 0.05, flat: float = FLAT) -> bool:
        """Whether the gradient is below a share of the response per radian, and every way to turn leads down."""
        return self.gradient_share <= gradient and self.num_falling(flat) == len(self.curvatures)


def measure_optimality(
    response: DirectionResponse, direction: Float[Tensor, " d"], *, step: float = STEP
) -> Optimality:
    """Is this direction a local optimum of sensitivity among all directions from the base?

    The Hessian along the sphere comes from central differences of gradients along the `d - 2` great circles of a basis.

    Cost: `2 (d - 2) + 1` forward and backward evaluations, in batches.

    Raises:
        BadInput: If there is no response at all at this direction, so that nothing can be compared.
    """
    across = response.across(direction[None])
    value, gradient = response.gradients(across)
    if not float(value) > 0:
        raise BadInput(
            "response at the direction",
            got=float(value),
            wanted="more than 0",
            remedy=f"Look further out than {response.size:g}: the direction is still on the plateau.",
        )
    basis = response.basis(across[0])
    ahead, beside = math.cos(step) * across, math.sin(step) * basis
    _, slopes = response.gradients(torch.cat([ahead + beside, ahead - beside]))
    plus, minus = slopes[: len(basis)], slopes[len(basis) :]
    hessian = (plus - minus) @ basis.T / (2 * step)
    symmetric = (hessian + hessian.T) / 2
    norm = float(symmetric.norm())
    return Optimality(
        response=float(value),
        gradient_share=float(gradient.norm() / value),
        curvatures=(torch.linalg.eigvalsh(symmetric) / value).numpy(),
        asymmetry=0.0 if norm == 0 else float((hessian - hessian.T).norm()) / 2 / norm,
    )

"""Ways out from a base: straight ahead, or along the sphere on which the base lies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.methods.activations.plateaus.kinds import unit

Mode = Literal["sphere", "straight"]
PARALLEL = 1e-6  # share of a direction that must lie across the base; below, its plane is rounding


@final
@dataclass(frozen=True, kw_only=True)
class Paths:
    """Many ways out at once: `base + size * across` when straight, a great circle on the sphere.

    Build with `sphere` or `straight`. Sizes are degrees on the sphere and lengths when straight. Vectors are float64.
    """

    mode: Mode
    base: Float[Tensor, "n d"]
    across: Float[Tensor, "n d"]  # of length 1; on the sphere orthogonal to the base

    @classmethod
    def straight(cls, base: Float[Tensor, "n d"], direction: Float[Tensor, "m k"]) -> Paths:
        """`x(a) = b + a d / |d|`.

        >>> import torch
        >>> paths = Paths.straight(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]))
        >>> paths.points(torch.tensor([3.0])).tolist()
        [[[0.0, 3.0]]]

        Raises:
            BadInput: If shapes differ or a direction is zero.
        """
        _check(base, direction)
        return cls(mode="straight", base=base.double(), across=unit(direction))

    @classmethod
    def sphere(cls, base: Float[Tensor, "n d"], direction: Float[Tensor, "m k"]) -> Paths:
        """`x(theta) = |b| (cos theta u + sin theta t)`, `u = b / |b|`, `t` the part of `d` across `u`, of length 1.

        The norm stays that of the base, and `theta` is the angle between base and point.

        >>> import torch
        >>> paths = Paths.sphere(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
        >>> (paths.points(torch.tensor([90.0])) + 0.0).round(decimals=6).abs().tolist()
        [[[0.0, 2.0]]]

        Raises:
            BadInput: If shapes differ, a base or direction is zero, or a direction is parallel to its base.
        """
        _check(base, direction)
        base, direction = base.double(), unit(direction)
        norms = base.norm(dim=1, keepdim=True)
        if (norms == 0).any():
            raise BadInput(
                f"base {int((norms[:, 0] == 0).nonzero()[0])} of paths on a sphere",
                got="norm 0",
                wanted="a base other than the origin",
                remedy="Use straight paths.",
            )
        ahead = base / norms
        across = direction - (direction * ahead).sum(dim=1, keepdim=True) * ahead
        # Once more: what rounding left along the base weighs when little lies across.
        across = across - (across * ahead).sum(dim=1, keepdim=True) * ahead
        share = across.norm(dim=1)
        if (share < PARALLEL).any():
            raise BadInput(
                f"direction {int((share < PARALLEL).nonzero()[0])} of paths on a sphere",
                got="parallel to its base",
                wanted="a direction that points away from the line through the origin and the base",
                remedy="Use straight paths, or another target.",
            )
        return cls(mode="sphere", base=base, across=across / share[:, None])

    @property
    def unit(self) -> str:
        """What sizes are measured in."""
        return "degrees" if self.mode == "sphere" else "activation units"

    def points(self, sizes: Float[Tensor, " s"] | Float[Tensor, "n s"]) -> Float[Tensor, "n s d"]:
        """Points at common sizes, or at sizes of each path's own."""
        sizes = sizes.double().expand(len(self.base), -1)[:, :, None]
        base, across = self.base[:, None], self.across[:, None]
        if self.mode == "straight":
            return base + sizes * across
        angles = sizes * (math.pi / 180)
        turned: Tensor = angles.cos() * base + angles.sin() * base.norm(dim=-1, keepdim=True) * across
        return turned


def paths_of(mode: Mode, base: Float[Tensor, "n d"], direction: Float[Tensor, "m k"]) -> Paths:
    """Paths of the mode that a setting names.

    Raises:
        BadInput: If there is no such mode, and as the mode does.
    """
    if mode == "sphere":
        return Paths.sphere(base, direction)
    if mode == "straight":
        return Paths.straight(base, direction)
    raise BadInput("mode of paths", got=mode, wanted="sphere or straight")


def _check(base: Tensor, direction: Tensor) -> None:
    if base.shape != direction.shape:
        raise BadInput(
            "paths", got=f"bases {tuple(base.shape)} and directions {tuple(direction.shape)}", wanted="equal shapes"
        )
    if not base.isfinite().all():
        raise BadInput("bases of paths", got="entries that are not finite", wanted="finite numbers")

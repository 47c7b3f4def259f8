"""Where responses first reach a level: a coarse bracket, then bisection, all directions in one batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput

NUM_COARSE = 6
NUM_BISECTIONS = 6
NOISE = 1e-6  # a fall smaller than this is rounding: what a float32 divergence is good for

ResponseAt = Callable[[Tensor, Tensor], Tensor]


@final
@dataclass(frozen=True, kw_only=True)
class Crossings:
    """The size at which each curve first reaches its level, in float64.

    `sizes` is infinite where the level was not reached by the largest size asked. The truth lies between `low` and
    `high` if the curve rises between two points of the coarse grid; `is_non_monotone` marks the curves that fall
    somewhere on that grid, for which an earlier crossing may have been stepped over. `coarse_values[i, j]` is the
    response of curve `i` at `coarse_sizes[j]`; `reach` is the level that was asked of each curve.
    """

    sizes: Float[Tensor, " curves"]
    low: Float[Tensor, " curves"]
    high: Float[Tensor, " curves"]
    reach: Float[Tensor, " curves"]
    is_non_monotone: Bool[Tensor, " curves"]
    coarse_sizes: Float[Tensor, " coarse"]
    coarse_values: Float[Tensor, "curves coarse"]
    num_evaluations: int

    @property
    def share_reached(self) -> float:
        """Share of the curves that reach their level."""
        return float(self.sizes.isfinite().double().mean())

    @property
    def flags(self) -> tuple[str, ...]:
        """What did not go as one would like, in words."""
        num_curves, num_missed = len(self.sizes), int(self.sizes.isinf().sum())
        num_falling = int(self.is_non_monotone.sum())
        words = []
        if num_missed:
            words.append(f"{num_missed} of {num_curves} curves do not reach their level: inf")
        if num_falling:
            words.append(f"{num_falling} of {num_curves} curves fall somewhere on the coarse grid: not monotone")
        return tuple(words)


def crossings(
    response: ResponseAt,
    num_curves: int,
    *,
    largest: float,
    reach: float | Float[Tensor, " curves"] | None = None,
    share: float | None = None,
    num_coarse: int = NUM_COARSE,
    num_bisections: int = NUM_BISECTIONS,
) -> Crossings:
    """At which size does each of many curves first reach a level?

    Every curve is evaluated at `num_coarse` sizes, `largest / num_coarse` apart, and is taken to be below its level at
    size 0. The first interval at whose end it is at or above the level is halved `num_bisections` times; within the
    last one the curve is taken for a straight line. All curves are halved together, so `response` is called
    `1 + num_bisections` times with many points rather than many times with one.

    Args:
        response: Takes sizes `[n]` (float64) and the numbers of the curves `[n]` that they belong to, gives the
            response of each `[n]`.
        num_curves: How many there are.
        largest: The end of the size axis, an angle or a distance.
        reach: The level, one for all or one for each curve.
        share: In place of `reach`: the level as a share of the curve's own response at `largest`.
        num_coarse: Sizes of the coarse grid.
        num_bisections: Halvings.

    Cost: `num_curves * num_coarse` responses, and `num_bisections` more for each curve that reaches its level. The
    error is below `largest / num_coarse / 2**num_bisections` for a curve that rises: 0.23 degrees of 90 by default.

    >>> found = crossings(lambda size, curve: size**2 * (curve + 1), 2, largest=3.0, reach=4.0)
    >>> found.sizes.round(decimals=2).tolist(), found.num_evaluations
    ([2.0, 1.41], 24)

    Raises:
        BadInput: If neither or both of `reach` and `share` are given, an argument is out of range, or a response is
            not finite.
    """
    _check(num_curves, largest, reach, share, num_coarse, num_bisections)
    counted = _Counted(response)
    grid = largest * torch.arange(1, num_coarse + 1, dtype=torch.float64) / num_coarse
    curves = torch.arange(num_curves)
    values = counted(grid.repeat(num_curves), curves.repeat_interleave(num_coarse)).view(num_curves, num_coarse)
    levels = values[:, -1] * share if share is not None else torch.as_tensor(reach, dtype=torch.float64)
    levels = levels.expand(num_curves).clone()
    if not (levels > 0).all() or not levels.isfinite().all():
        raise BadInput("level to reach", got=float(levels.min()), wanted="a positive, finite number")

    above = values >= levels[:, None]
    is_reached = above.any(dim=1)
    first = above.int().argmax(dim=1)
    left, right = torch.zeros(num_curves, dtype=torch.float64), grid[first].clone()
    at_left, at_right = torch.zeros_like(left), values[curves, first].clone()
    inner = first > 0
    left[inner], at_left[inner] = grid[first[inner] - 1], values[curves[inner], first[inner] - 1]
    active = curves[is_reached]
    for _ in range(num_bisections if len(active) else 0):
        middle = (left[active] + right[active]) / 2
        found = counted(middle, active)
        high = found >= levels[active]
        right[active[high]], at_right[active[high]] = middle[high], found[high]
        left[active[~high]], at_left[active[~high]] = middle[~high], found[~high]
    sizes = left + (right - left) * ((levels - at_left) / (at_right - at_left)).clamp(0, 1)
    sizes[~is_reached], left[~is_reached], right[~is_reached] = math.inf, largest, math.inf
    return Crossings(
        sizes=sizes,
        low=left,
        high=right,
        reach=levels,
        is_non_monotone=(values.diff(dim=1) < -NOISE).any(dim=1),
        coarse_sizes=grid,
        coarse_values=values,
        num_evaluations=counted.num_evaluations,
    )


class _Counted:
    """A response that counts its evaluations and lets only finite numbers through."""

    def __init__(self, response: ResponseAt) -> None:
        self.response, self.num_evaluations = response, 0

    def __call__(self, sizes: Float[Tensor, " n"], curves: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        self.num_evaluations += len(sizes)
        values = self.response(sizes, curves).detach().double().cpu()
        if values.shape != sizes.shape:
            raise BadInput("response", got=f"shape {tuple(values.shape)}", wanted=f"shape {tuple(sizes.shape)}")
        lost = ~values.isfinite()
        if lost.any():
            raise BadInput(
                "response",
                got=f"a value that is not finite at size {float(sizes[lost][0]):.4g}",
                wanted="finite responses",
                remedy="Use a smaller largest size.",
            )
        return values


def _check(
    num_curves: int,
    largest: float,
    reach: float | Tensor | None,
    share: float | None,
    num_coarse: int,
    num_bisections: int,
) -> None:
    if (reach is None) == (share is None):
        raise BadInput("level to reach", got="both or neither of reach and share", wanted="one of them")
    if share is not None and not 0 < share < 1:
        raise BadInput("share of the largest response", got=share, wanted="a number between 0 and 1")
    if not (largest > 0 and math.isfinite(largest)):
        raise BadInput("largest size", got=largest, wanted="a positive number")
    for name, number, least in (
        ("num_curves", num_curves, 1),
        ("num_coarse", num_coarse, 2),
        ("num_bisections", num_bisections, 0),
    ):
        if number < least:
            raise BadInput(name, got=number, wanted=f"at least {least}")
    if isinstance(reach, Tensor) and reach.shape not in ((), (num_curves,)):
        raise BadInput("level to reach", got=f"shape {tuple(reach.shape)}", wanted=f"one number, or {num_curves}")

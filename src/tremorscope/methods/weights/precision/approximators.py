"""What every approximator has in common: it fits a table, and its output is linear in its last coefficients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, final, runtime_checkable

import numpy
from jaxtyping import Float
from numpy import ndarray

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.point_table import PointTable

Design = Literal["scattered", "grid", "arcsine"]
Basis = Callable[[ndarray], Any]  # points [n, d] -> matrix [n, k], dense or SciPy sparse


@final
@dataclass(frozen=True, kw_only=True)
class Fitted:
    """An approximation `f(x) = sum_k basis_k(x) coefficients_k`.

    The basis may itself have been fitted: hat functions on a triangulation, B-splines on their knots, rational
    functions with the poles found, hidden units of a trained network. `num_parameters` counts those numbers too.
    `is_direct` says that the coefficients are the best ones, or the only ones, for the points given. `inside`
    tells which points may be asked for; None means all.
    """

    name: str
    num_parameters: int
    basis: Basis
    coefficients: Float[ndarray, " k"]
    is_direct: bool = True
    inside: Callable[[ndarray], ndarray] | None = None
    flags: tuple[str, ...] = ()

    def contains(self, x: Float[ndarray, "n d"]) -> ndarray:
        """Which points lie where the approximation is defined, as a mask."""
        return numpy.ones(len(x), dtype=bool) if self.inside is None else self.inside(x)

    def predict(self, x: Float[ndarray, "n d"]) -> Float[ndarray, " n"]:
        """Values of the approximation.

        Raises:
            BadInput: If a point lies outside the hull of the points that were fitted.
        """
        self._refuse_outside(x)
        return numpy.asarray(self.basis(x) @ self.coefficients)

    def magnitudes(self, x: Float[ndarray, "n d"]) -> Float[ndarray, " n"]:
        """Sum of the absolute values of the terms that add up to the output.

        Times the unit roundoff it is the size of the rounding error that evaluation cannot avoid; where it is
        much larger than the output, terms cancel.

        Raises:
            BadInput: If a point lies outside the hull of the points that were fitted.
        """
        self._refuse_outside(x)
        return numpy.asarray(abs(self.basis(x)) @ numpy.abs(self.coefficients))

    def _refuse_outside(self, x: ndarray) -> None:
        outside = int((~self.contains(x)).sum())
        if outside:
            raise BadInput(
                f"points to evaluate {self.name} at",
                got=f"{outside} of {len(x)} outside the hull of the fitted points",
                wanted="points strictly inside",
                remedy="Keep x[fitted.contains(x)], or fit points that surround them.",
            )


@runtime_checkable
class Approximator(Protocol):
    """A family of approximations, with as many parameters as are asked for.

    `design` says which points it wants when a function can be asked anywhere: `"scattered"` (low discrepancy),
    `"grid"` (a product grid, jittered) or `"arcsine"` (random, denser at the ends, which keeps polynomials
    stable).
    """

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def design(self) -> Design:
        """Which points it wants."""

    def num_points(self, num_parameters: int, dimension: int) -> int:
        """Points to fit for that many parameters: all that they can interpolate, or enough to determine them."""

    def exponent(self, dimension: int, arity: int) -> float | None:
        """Theory's power of the root mean square error in the number of points, for smooth targets; None: no law."""

    def fit(self, table: PointTable, num_parameters: int, *, seed: int = 0) -> Fitted:
        """Fit a table with at most that many parameters."""


def refuse_duplicates(table: PointTable, method: str) -> None:
    """Interpolation cannot pass through two values at one point.

    Raises:
        BadInput: If two rows share all coordinates.
    """
    repeated = len(table.x) - len(numpy.unique(table.x, axis=0))
    if repeated:
        raise BadInput(
            f"points for {method}",
            got=f"{repeated} of {len(table.x)} duplicates",
            wanted="different points",
            remedy="Average the targets of equal points first.",
        )


def refuse_few(table: PointTable, least: int, method: str, reason: str) -> None:
    """Fewer points than the least that determine anything.

    Raises:
        BadInput: If there are fewer rows than `least`.
    """
    if len(table.x) < least:
        raise BadInput(
            f"points for {method} in {table.dimension}-D",
            got=len(table.x),
            wanted=f"at least {least} ({reason})",
            remedy="Add points, or choose an approximator of lower order.",
        )

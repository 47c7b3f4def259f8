"""Interpolating splines of odd order, on a line or on a product grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy
from numpy import ndarray

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.point_table import PointTable
from tremorscope.methods.weights.precision.approximators import Design, Fitted, refuse_duplicates


@final
@dataclass(frozen=True, kw_only=True)
class Spline:
    """The spline of an odd order (1 linear, 3 cubic, 5 quintic) through all points, not-a-knot at the ends.

    Points on a line may lie anywhere; in more dimensions they form a product grid, in any order of rows. One
    parameter for each point. The error falls as D^(-(order + 1) / d) until rounding stops it.
    """

    order: int = 3
    design: Design = "grid"

    def __post_init__(self) -> None:
        if self.order < 1 or self.order % 2 == 0:
            raise BadInput("order of a spline", got=self.order, wanted="an odd number", remedy="Use 1, 3, 5 or 7.")

    @property
    def name(self) -> str:
        """Such as `spline 3`."""
        return f"spline {self.order}"

    def num_points(self, num_parameters: int, dimension: int) -> int:
        """The largest cube of points below the budget."""
        lines = int(num_parameters ** (1 / dimension) + 1e-9)
        return math.prod([lines] * dimension)

    def exponent(self, dimension: int, arity: int) -> float | None:
        """`-(order + 1) / d`."""
        return -(self.order + 1) / dimension

    def fit(self, table: PointTable, num_parameters: int, *, seed: int = 0) -> Fitted:
        """Solve for the coefficients, one axis after the other. `num_parameters` and `seed` are not needed.

        Raises:
            BadInput: If points are no product grid, there are duplicates, or an axis has too few points.
        """
        from scipy.interpolate import BSpline, NdBSpline, make_interp_spline
        from scipy.sparse import csr_matrix

        refuse_duplicates(table, self.name)
        axes, values = _on_grid(table, self.name)
        least = self.order + 1
        short = min(len(axis) for axis in axes)
        if short < least:
            raise BadInput(
                f"points for {self.name} in {table.dimension}-D",
                got=f"{short} along one axis",
                wanted=f"at least {least} (order + 1)",
                remedy="Add points, or use a lower order.",
            )
        knots, coefficients = [], values
        for place, axis in enumerate(axes):
            piece = make_interp_spline(axis, numpy.moveaxis(coefficients, place, 0), k=self.order)
            knots.append(piece.t)
            coefficients = numpy.moveaxis(piece.c, 0, place)
        count = coefficients.size
        low, high = (numpy.array([axis[end] for axis in axes]) for end in (0, -1))

        def basis(x: ndarray) -> Any:
            if len(knots) == 1:
                return BSpline.design_matrix(x[:, 0], knots[0], self.order)
            found = NdBSpline.design_matrix(x, tuple(knots), self.order)
            # SciPy takes the number of columns from the last one in use
            return csr_matrix((found.data, found.indices, found.indptr), (len(x), count))

        return Fitted(
            name=self.name,
            num_parameters=count,
            basis=basis,
            coefficients=numpy.ascontiguousarray(coefficients).ravel(),
            inside=lambda x: numpy.asarray(((low <= x) & (x <= high)).all(axis=1)),
        )


def _on_grid(table: PointTable, method: str) -> tuple[list[ndarray], ndarray]:
    """The axes of the product grid, and the values on it."""
    found = [numpy.unique(column, return_inverse=True) for column in table.x.T]
    axes, places = [axis for axis, _ in found], tuple(place.reshape(-1) for _, place in found)
    shape = tuple(len(axis) for axis in axes)
    if math.prod(shape) != len(table.x):
        raise BadInput(
            f"points for {method} in {table.dimension}-D",
            got=f"{len(table.x)} scattered points",
            wanted="a product grid",
            remedy="Use the simplex or polynomial approximators for scattered points.",
        )
    values = numpy.empty(shape)
    values[places] = table.y
    return axes, values

"""Linear interpolation on simplices: in one dimension between neighbours, above on Delaunay's triangulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy
from numpy import ndarray

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.point_table import PointTable
from tremorscope.methods.weights.precision.approximators import Design, Fitted, refuse_duplicates, refuse_few

# Simplices for each point in the Delaunay triangulation of many random points: 2 and 6.77 in the plane and in space
# are known; the others are what uniform points gave, rounded up.
_SIMPLICES_PER_POINT = (1, 2, 7, 32, 190, 1_300, 10_000, 90_000, 900_000)
_MOST_SIMPLICES = 3_000_000


@final
@dataclass(frozen=True, kw_only=True)
class Simplex:
    """Piecewise linear interpolation of scattered points.

    It stores D points of d coordinates and D values: D (d + 1) parameters. The error falls as D^(-2/d). Undefined
    outside the convex hull of the points.
    """

    name: str = "simplex"
    design: Design = "scattered"

    def num_points(self, num_parameters: int, dimension: int) -> int:
        """`N / (d + 1)`."""
        return num_parameters // (dimension + 1)

    def exponent(self, dimension: int, arity: int) -> float | None:
        """`-2 / d`."""
        return -2 / dimension

    def fit(self, table: PointTable, num_parameters: int, *, seed: int = 0) -> Fitted:
        """Triangulate the table; nothing else is to be found. `num_parameters` and `seed` are not needed.

        Cost: quadratic in the points for d = 3 and 4 at worst, and growing steeply with d.

        Raises:
            BadInput: If there are fewer than d + 1 points, duplicates, all points in one plane, or too many
                simplices.
        """
        refuse_few(table, table.dimension + 1, "simplex interpolation", "d + 1, the corners of one simplex")
        refuse_duplicates(table, "simplex interpolation")
        basis, inside = _hats_on_a_line(table.x[:, 0]) if table.dimension == 1 else _hats(table)
        return Fitted(
            name=self.name,
            num_parameters=len(table.x) * (table.dimension + 1),
            basis=basis,
            coefficients=table.y,
            inside=inside,
        )


def _hats_on_a_line(nodes: ndarray) -> Any:
    from scipy.sparse import csr_matrix

    order = numpy.argsort(nodes)
    ends = nodes[order]

    def basis(x: ndarray) -> Any:
        left = numpy.clip(numpy.searchsorted(ends, x[:, 0], side="right") - 1, 0, len(ends) - 2)
        share = (x[:, 0] - ends[left]) / (ends[left + 1] - ends[left])
        rows = numpy.arange(len(x)).repeat(2)
        columns = numpy.stack([order[left], order[left + 1]], axis=1).ravel()
        return csr_matrix((numpy.stack([1 - share, share], axis=1).ravel(), (rows, columns)), (len(x), len(ends)))

    return basis, lambda x: (ends[0] <= x[:, 0]) & (x[:, 0] <= ends[-1])


def _hats(table: PointTable) -> Any:
    from scipy.sparse import csr_matrix
    from scipy.spatial import Delaunay, QhullError

    dimension, count = table.dimension, len(table.x)
    expected = count * (_SIMPLICES_PER_POINT[dimension - 1] if dimension <= 9 else 10**dimension)
    if expected > _MOST_SIMPLICES:
        raise BadInput(
            f"Delaunay triangulation of {count} points in {dimension}-D",
            got=f"about {expected:.0e} simplices",
            wanted=f"at most {_MOST_SIMPLICES:.0e}",
            remedy="Use fewer points, or another approximator: simplices are hopeless in many dimensions.",
        )
    try:
        mesh = Delaunay(table.x)
    except QhullError:
        raise BadInput(
            f"points for simplex interpolation in {dimension}-D",
            got="points that lie in one plane",
            wanted="points that span the space",
            remedy="Drop the coordinate that follows from the others.",
        ) from None
    corners = mesh.simplices

    def locate(x: ndarray) -> tuple[ndarray, ndarray]:
        found = mesh.find_simplex(x)
        maps = mesh.transform[found]
        first = numpy.einsum("nij,nj->ni", maps[:, :dimension], x - maps[:, dimension])
        weights = numpy.concatenate([first, 1 - first.sum(axis=1, keepdims=True)], axis=1)
        return numpy.where(numpy.isfinite(weights).all(axis=1), found, -1), weights  # flat simplices have no map

    def basis(x: ndarray) -> Any:
        found, weights = locate(x)
        rows = numpy.arange(len(x)).repeat(dimension + 1)
        return csr_matrix((weights.ravel(), (rows, corners[found].ravel())), (len(x), count))

    return basis, lambda x: locate(x)[0] >= 0

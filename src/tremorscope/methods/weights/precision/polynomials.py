"""Least squares in Chebyshev polynomials of bounded total degree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy
from numpy import ndarray
from numpy.polynomial import chebyshev

from tremorscope.instruments.point_table import PointTable
from tremorscope.methods.weights.precision.approximators import Design, Fitted, refuse_few

OVERSAMPLING = 4  # points for each coefficient: keeps random least squares stable


@final
@dataclass(frozen=True, kw_only=True)
class Chebyshev:
    """The polynomial of the largest total degree that the budget allows, by least squares.

    On analytic targets the error falls exponentially with the degree: no power law. Coordinates are scaled to
    [-1, 1] first; outside the box of the points a polynomial is defined, and useless.
    """

    name: str = "chebyshev"
    design: Design = "arcsine"

    def num_points(self, num_parameters: int, dimension: int) -> int:
        """Four for each coefficient."""
        return OVERSAMPLING * num_parameters

    def exponent(self, dimension: int, arity: int) -> float | None:
        """None."""
        return None

    def fit(self, table: PointTable, num_parameters: int, *, seed: int = 0) -> Fitted:
        """Orthogonal factorisation of the matrix of polynomials at the points. `seed` is not needed.

        Raises:
            BadInput: If there are fewer points than coefficients.
        """
        degree = largest_degree(num_parameters, table.dimension)
        products = total_degree_basis(table, degree)
        matrix = products(table.x)
        refuse_few(table, matrix.shape[1], f"chebyshev of degree {degree}", "one for each coefficient")
        coefficients, _, rank, _ = numpy.linalg.lstsq(matrix, table.y, rcond=None)
        flags = () if rank == matrix.shape[1] else (f"chebyshev: rank {rank} of {matrix.shape[1]} coefficients",)
        return Fitted(
            name=self.name,
            num_parameters=matrix.shape[1],
            basis=products,
            coefficients=coefficients,
            flags=flags,
        )


def total_degree_basis(table: PointTable, degree: int) -> Callable[[ndarray], ndarray]:
    """Products of Chebyshev polynomials up to a total degree, on the box of a table.

    The function returned gives the matrix `[n, k]` of their values at points `[n, d]`.
    """
    low, high = table.x.min(axis=0), table.x.max(axis=0)
    middle, half = (low + high) / 2, numpy.where(high > low, (high - low) / 2, 1.0)
    tuples = itertools.product(range(degree + 1), repeat=table.dimension)
    powers = numpy.array([each for each in tuples if sum(each) <= degree])

    def basis(x: ndarray) -> ndarray:
        matrix = numpy.ones((len(x), len(powers)))
        for place, column in enumerate(((x - middle) / half).T):
            matrix *= chebyshev.chebvander(column, degree)[:, powers[:, place]]
        return matrix

    return basis


def largest_degree(num_parameters: int, dimension: int) -> int:
    """The largest degree whose `(degree + d) choose d` coefficients stay within a budget.

    >>> largest_degree(20, 1), largest_degree(20, 3)
    (19, 3)
    """
    degree = 0
    while math.comb(degree + 1 + dimension, dimension) <= num_parameters:
        degree += 1
    return degree

"""Rational functions on a line, by their values at support points and one weight for each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy
from jaxtyping import Float
from numpy import ndarray

_REWEIGHTINGS = 3


@final
@dataclass(frozen=True)
class Barycentric:
    """`sum_j w_j y_j / (x - z_j)` over `sum_j w_j / (x - z_j)`: y_j at the support point z_j, whatever the weights.

    >>> half = Barycentric(numpy.array([-1.0, 1.0]), numpy.array([1.0, 3.0]), numpy.array([1.0, -1.0]))
    >>> half.shares(numpy.array([[0.0]])) @ half.values  # equal and opposite weights: the straight line
    array([2.])
    """

    nodes: Float[ndarray, " m"]
    values: Float[ndarray, " m"]
    weights: Float[ndarray, " m"]

    def shares(self, at: Float[ndarray, "n d"]) -> Float[ndarray, "n m"]:
        """What each value counts at points on the first axis; rows add up to one."""
        with numpy.errstate(divide="ignore", invalid="ignore"):
            terms = self.weights / (at[:, :1] - self.nodes)
            shares = terms / terms.sum(axis=1, keepdims=True)
        at_node = at[:, :1] == self.nodes
        shares[at_node.any(axis=1)] = at_node[at_node.any(axis=1)]
        return numpy.asarray(shares)

    def largest_miss(self, x: Float[ndarray, " n"], y: Float[ndarray, " n"]) -> float:
        """Largest error over the points; infinite where the denominator vanishes at one."""
        miss = numpy.abs(y - self.shares(x[:, None]) @ self.values)
        return float(miss.max()) if bool(numpy.isfinite(miss).all()) else math.inf

    def num_poles_between(self, x: Float[ndarray, " n"]) -> int:
        """Real poles between the first and the last of the points.

        Source: Nakatsukasa, Sete and Trefethen 2018, arXiv:1612.00337, eq. 3.11.
        """
        from scipy.linalg import eigvals

        arrow = numpy.diag(numpy.concatenate([[0.0], self.nodes]))
        arrow[0, 1:], arrow[1:, 0] = self.weights, 1.0
        right = numpy.diag(numpy.concatenate([[0.0], numpy.ones(len(self.nodes))]))
        with numpy.errstate(divide="ignore", invalid="ignore"):
            poles = eigvals(arrow, right)  # two of them are infinite
        poles = poles[numpy.isfinite(poles)]
        real = poles.real[numpy.abs(poles.imag) < 1e-12 * max(1.0, float(numpy.abs(x).max()))]
        return int(((x.min() < real) & (real < x.max())).sum())

    def refined(self, x: Float[ndarray, " n"], y: Float[ndarray, " n"]) -> Barycentric:
        """The same support points with weights that miss less, as far as that brings no new pole between the points.

        AAA's weights minimise `y q - p`, in which a point next to a support point brings the rounding of its
        difference quotient, large by its inverse distance. Divided by the last denominator, which is large there for
        the same reason, every residual counts by its miss (Sanathanan and Koerner 1963). On points at random this is
        worth up to a factor of fifty at the end of double precision.
        """
        best, miss, poles = self, self.largest_miss(x, y), self.num_poles_between(x)
        last = self
        for _ in range(_REWEIGHTINGS):
            found = last._reweighted(x, y)
            if found is None:
                break
            last, its_miss = found, found.largest_miss(x, y)
            if its_miss < miss and found.num_poles_between(x) <= poles:
                best, miss = found, its_miss
        return best

    def without_last(self, x: Float[ndarray, " n"], y: Float[ndarray, " n"]) -> Barycentric:
        """One support point less, the last, with weights that minimise `y q - p`."""
        fewer = Barycentric(self.nodes[:-1], self.values[:-1], self.weights[:-1])
        quotients, _ = fewer._difference_quotients(x, y)
        return Barycentric(fewer.nodes, fewer.values, _smallest(quotients))

    def _reweighted(self, x: ndarray, y: ndarray) -> Barycentric | None:
        quotients, inverses = self._difference_quotients(x, y)
        denominators = numpy.abs(inverses @ self.weights)
        if len(quotients) < len(self.nodes) or not bool((denominators > 0).all()):
            return None
        return Barycentric(self.nodes, self.values, _smallest(quotients / denominators[:, None]))

    def _difference_quotients(self, x: ndarray, y: ndarray) -> tuple[ndarray, ndarray]:
        """`(y - y_j) / (x - z_j)` and `1 / (x - z_j)` at all points but the support points."""
        elsewhere = ~numpy.isin(x, self.nodes)
        inverses = 1 / (x[elsewhere, None] - self.nodes)
        return (y[elsewhere, None] - self.values) * inverses, inverses


def _smallest(matrix: ndarray) -> ndarray:
    """The right singular vector of the smallest singular value."""
    vector: ndarray = numpy.linalg.svd(matrix, full_matrices=len(matrix) < matrix.shape[1])[2][-1]
    return vector

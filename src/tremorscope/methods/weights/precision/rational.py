"""Rational approximation: AAA on a line, linearised least squares in more dimensions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import final

import numpy
from numpy import ndarray

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.point_table import PointTable
from tremorscope.methods.weights.precision.approximators import Design, Fitted, refuse_duplicates, refuse_few
from tremorscope.methods.weights.precision.barycentric import Barycentric
from tremorscope.methods.weights.precision.polynomials import OVERSAMPLING, largest_degree, total_degree_basis

_AAA_TOLERANCE = 2e-14  # relative; below it AAA fits rounding with pairs of poles and zeros
_MOST_TERMS = 100  # SciPy's own limit: each term costs a singular value decomposition
_REWEIGHTINGS = 5


@final
@dataclass(frozen=True, kw_only=True)
class Rational:
    """A quotient of two polynomials of equal degree.

    In one dimension AAA (Nakatsukasa, Sete and Trefethen 2018; SciPy's): m support points are chosen greedily, and
    2 m - 1 numbers fitted, m values and m weights up to a factor. The weights are then refined
    (`Barycentric.refined`), and support points that only fitted rounding dropped. Above, both polynomials are of
    bounded total degree and `p(x) - y q(x)` is minimised, divided by the last denominator and repeated (Sanathanan
    and Koerner 1963): 2 k - 1 numbers for k coefficients each.
    """

    name: str = "rational"
    design: Design = "arcsine"

    def num_points(self, num_parameters: int, dimension: int) -> int:
        """Four for each coefficient, and a hundred at least: AAA chooses among them."""
        return max(100, OVERSAMPLING * num_parameters)

    def exponent(self, dimension: int, arity: int) -> float | None:
        """None: exponential on analytic targets, and root-exponential at cusps."""
        return None

    def fit(self, table: PointTable, num_parameters: int, *, seed: int = 0) -> Fitted:
        """Fit within the budget; a denominator that changes sign between the points is flagged. No `seed` needed.

        Raises:
            BadInput: If there are duplicates, or fewer points than coefficients.
        """
        refuse_duplicates(table, "rational approximation")
        half = max(1, (num_parameters + 1) // 2)
        if table.dimension == 1:
            return _aaa(table, min(half, _MOST_TERMS))
        return _linearised(table, largest_degree(half, table.dimension))


def _aaa(table: PointTable, num_terms: int) -> Fitted:
    from scipy.interpolate import AAA

    refuse_few(table, 2 * num_terms, f"AAA of {num_terms} terms", "two for each term")
    x, y = table.x[:, 0], table.y
    with warnings.catch_warnings():
        # the budget ends before the tolerance is met, or spurious pairs were removed: both are as wanted
        warnings.simplefilter("ignore", RuntimeWarning)
        found = AAA(x, y, max_terms=num_terms, rtol=_AAA_TOLERANCE)
    parts = (numpy.real(part) for part in (found.support_points, found.support_values, found.weights))
    best = Barycentric(*parts).refined(x, y)
    # Before its weights were refined AAA may have gone on for a pole and a zero beside each other.
    while len(best.nodes) > 1:
        fewer = best.without_last(x, y).refined(x, y)
        if fewer.largest_miss(x, y) > _AAA_TOLERANCE * float(numpy.abs(y).max()):
            break
        best = fewer
    crossed = best.num_poles_between(x)
    flags = (f"rational: {crossed} real poles between the points",) if crossed else ()
    return Fitted(
        name="rational",
        num_parameters=2 * len(best.nodes) - 1,
        basis=best.shares,
        coefficients=best.values,
        flags=flags,
    )


def _linearised(table: PointTable, degree: int) -> Fitted:
    products = total_degree_basis(table, degree)
    matrix = products(table.x)
    size = matrix.shape[1]
    refuse_few(table, 2 * size, f"a rational function of degree {degree}", "one for each coefficient")
    scale = float(numpy.abs(table.y).max())
    if scale == 0:
        raise BadInput("targets of a rational function", got="only zeros", wanted="values to fit")
    # p and -y q side by side: the smallest singular vector solves both at once
    both = numpy.concatenate([matrix, -(table.y / scale)[:, None] * matrix], axis=1)
    below = numpy.ones(len(matrix))
    for _ in range(_REWEIGHTINGS):
        solution = numpy.linalg.svd(both / below[:, None], full_matrices=False)[2][-1]
        denominator = solution[size:]
        values = matrix @ denominator
        if float(numpy.abs(values).min()) < 1e-8 * float(numpy.abs(values).max()):
            break
        below = values
    signs = numpy.sign(matrix @ denominator)
    flags = () if abs(signs.sum()) == len(signs) else ("rational: the denominator changes sign between the points",)

    def basis(x: ndarray) -> ndarray:
        numerators = products(x)
        quotients: ndarray = numerators / (numerators @ denominator)[:, None]
        return quotients

    coefficients = numpy.linalg.lstsq(basis(table.x), table.y, rcond=None)[0]
    return Fitted(name="rational", num_parameters=2 * size - 1, basis=basis, coefficients=coefficients, flags=flags)

"""What an approximation's error is made of: architecture, sampling, optimisation, and the floor of rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy
from numpy import ndarray

from tremorscope.instruments.point_table import PointTable
from tremorscope.methods.weights.precision.approximators import Fitted

_LEAST_RATIO = 4  # test points for each coefficient, before the best coefficients can be told from the test points
_DENSE_ENTRIES = 4_000_000


@final
@dataclass(frozen=True, kw_only=True)
class ErrorSplit:
    """Mean squared test error, in three parts that add up to it, and the floor. All are mean squares.

    With the basis as it was found: `architecture` is left over by its best coefficients for the test points;
    `sampling` is what coefficients cost that are best for the training points only; `optimisation` is what the
    coefficients in use cost beyond those, negative where stopping early helped. A network's hidden layers belong to
    the basis, so what their training missed is counted as architecture: `optimisation` is a lower bound.
    Parts are None where there are too few test points to tell them apart, or nobody asked.

    `floor` is the size of rounding that the output cannot avoid: unit roundoff times the root mean square of the
    terms' summed magnitudes times the root of their number, as independent roundings add up.
    """

    test: float
    train: float
    floor: float
    architecture: float | None
    sampling: float | None
    optimisation: float | None


def split_error(fitted: Fitted, train: PointTable, test: PointTable, *, parts: bool = True) -> ErrorSplit:
    """Why is the test error what it is? Without `parts` only its size and floor are measured.

    Cost: one least-squares problem of `test points x coefficients`, two for what was trained by gradients.

    Raises:
        BadInput: If a test point lies outside the hull.
    """
    # corners of the hull may lie outside by rounding
    train = train.rows(fitted.contains(train.x))
    test_miss = test.y - fitted.predict(test.x)
    train_miss = train.y - fitted.predict(train.x)
    total = best = _mean_square(test_miss)
    architecture = None
    if parts:
        test_basis = fitted.basis(test.x)
        if not fitted.is_direct:
            better = _least_squares(fitted.basis(train.x), train_miss)
            best = _mean_square(test_miss - test_basis @ better)
        count, width = test_basis.shape
        if count >= _LEAST_RATIO * width:
            left = test_miss - test_basis @ _least_squares(test_basis, test_miss)
            # coefficients chosen on these very points leave too little
            architecture = min(_mean_square(left) * count / (count - width), best)
    return ErrorSplit(
        test=total,
        train=_mean_square(train_miss),
        floor=rounding_floor(fitted, test, roundoff=max(train.roundoff, test.roundoff)),
        architecture=architecture,
        sampling=None if architecture is None else best - architecture,
        optimisation=total - best if parts else None,
    )


def rounding_floor(fitted: Fitted, test: PointTable, *, roundoff: float) -> float:
    """Below which root mean square error an approximation cannot go in arithmetic of a given unit roundoff."""
    basis = fitted.basis(test.x)
    terms = basis.shape[1] if isinstance(basis, ndarray) else basis.nnz / basis.shape[0]
    return roundoff * math.sqrt(terms * _mean_square(fitted.magnitudes(test.x)))


def _mean_square(values: ndarray) -> float:
    return float(numpy.mean(values**2))


def _least_squares(matrix: Any, values: ndarray) -> ndarray:
    """Coefficients for the misses rather than the values: then small misses are not lost in rounding."""
    if isinstance(matrix, ndarray):
        solved: ndarray = numpy.linalg.lstsq(matrix, values, rcond=None)[0]
        return solved
    if matrix.shape[0] * matrix.shape[1] <= _DENSE_ENTRIES:
        return _least_squares(matrix.toarray(), values)
    from scipy.sparse.linalg import lsmr

    iterated: ndarray = lsmr(matrix, values, atol=1e-8, btol=1e-8)[0]  # hats are well conditioned: tens of steps
    return iterated

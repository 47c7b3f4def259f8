"""Is what was requested what is measured? One number for how far an edit's shares are from the alphas asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from jaxtyping import Float
from numpy.typing import NDArray

from tremorscope.foundations.errors import BadInput


def miscalibration(
    alphas: Sequence[float],
    shares: Float[numpy.ndarray, "*batch classes alphas"],
    *,
    settings: Sequence[float] | None = None,
) -> Float[numpy.ndarray, "*batch"]:
    """Mean of |share - alpha| over alpha from 0 to 1 and over the classes: the calibration error of an edit.

    Alpha is read as the share that is requested. The mean over alpha is that of the trapezoidal rule between the
    smallest and the largest alpha within [0, 1], so that it does not depend on how densely they were measured.
    Distances are taken class by class before anything is averaged: too many in one class do not pay for too few in
    another, and a gap between the classes counts.

    What takes no notice of alpha scores from 1/4 (half of each class at any alpha) to 1/2 (all or none); what jumps
    from none to all at alpha 1/2 scores 1/4.

    Args:
        alphas: Levels, rising.
        shares: Measured shares at each.
        settings: Only these of the alphas, each as heavy as the others: for what has no levels between them.

    >>> miscalibration([0.0, 0.5, 1.0], numpy.array([[0.0, 1.0, 1.0]])).item()
    0.25
    >>> miscalibration([0.0, 0.5, 1.0], numpy.array([[0.0, 1.0, 1.0]]), settings=[0.0, 1.0]).item()
    0.0

    Raises:
        BadInput: If no alpha is between 0 and 1, or a setting is none of the alphas.
    """
    weights = _weights(alphas, settings)
    distances = numpy.abs(numpy.asarray(shares, dtype=numpy.float64) - numpy.asarray(alphas))
    return numpy.asarray((distances @ weights).mean(-1))


def _weights(alphas: Sequence[float], settings: Sequence[float] | None) -> NDArray[numpy.float64]:
    levels = numpy.asarray(alphas, dtype=numpy.float64)
    if settings is not None:
        chosen = numpy.isclose(levels[:, None], numpy.asarray(settings)[None], rtol=0, atol=1e-12)
        if not len(settings) or not chosen.any(0).all():
            raise BadInput("settings", got=tuple(settings), wanted=f"some of {', '.join(f'{one:g}' for one in levels)}")
        equal: NDArray[numpy.float64] = chosen.any(1) / len(settings)
        return equal
    return trapezoid(alphas)


def trapezoid(alphas: Sequence[float]) -> Float[numpy.ndarray, " alphas"]:
    """Weights of the trapezoidal rule over those of the alphas that are between 0 and 1; they sum to 1.

    >>> trapezoid([0.0, 0.5, 1.0, 1.5]).tolist()
    [0.25, 0.5, 0.25, 0.0]

    Raises:
        BadInput: If none is.
    """
    levels = numpy.asarray(alphas, dtype=numpy.float64)
    places = numpy.flatnonzero((levels >= 0) & (levels <= 1))
    if not len(places):
        raise BadInput("alphas", got=tuple(alphas), wanted="some between 0 and 1")
    weights = numpy.zeros(len(levels))
    if len(places) == 1:
        weights[places] = 1
        return weights
    halves = numpy.diff(levels[places]) / 2
    weights[places[:-1]] += halves
    weights[places[1:]] += halves
    total: NDArray[numpy.float64] = weights / weights.sum()
    return total

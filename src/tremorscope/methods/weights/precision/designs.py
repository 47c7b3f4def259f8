"""Where to ask a function: scattered points, jittered grids, arcsine points, and test points inside."""

from __future__ import annotations

import itertools

import numpy
from jaxtyping import Float
from numpy import ndarray

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import numpy_generator
from tremorscope.instruments.functions import TargetFunction
from tremorscope.methods.weights.precision.approximators import Design

JITTER = 0.25  # of the spacing, to either side: neighbours keep at least half of it


def draw_points(function: TargetFunction, design: Design, count: int, *, seed: int) -> Float[ndarray, "n d"]:
    """Points of a design in the function's box.

    `"scattered"` is a scrambled Sobol sequence, which has neither the clumps nor the holes of independent points, so
    that an error curve shows its slope earlier. `"grid"` is a product grid whose inner lines are moved at random by
    up to a quarter of their spacing; its count is rounded to a power. `"arcsine"` has independent coordinates
    `cos(pi u)`.

    Raises:
        BadInput: If there would be no point.
    """
    dimension = function.dimension
    if count < 1:
        raise BadInput(f"points of {function.name!r}", got=count, wanted="at least 1", remedy="Raise the budget.")
    random = numpy_generator(seed, "points", design)
    if design == "scattered":
        from scipy.stats.qmc import Sobol

        # SciPy warns of sizes that are no power of two; a longer sequence begins with the shorter one
        unit = Sobol(dimension, rng=random).random_base2(max(0, (count - 1).bit_length()))[:count]
    elif design == "grid":
        lines = round(count ** (1 / dimension))
        axes = [_jittered(max(lines, 2), random) for _ in range(dimension)]
        unit = numpy.array(list(itertools.product(*axes)))
    else:
        unit = (1 + numpy.cos(numpy.pi * random.random((count, dimension)))) / 2
    low, high = numpy.array(function.low), numpy.array(function.high)
    placed: ndarray = low + unit * (high - low)
    return placed


def _jittered(lines: int, random: numpy.random.Generator) -> ndarray:
    moved = numpy.arange(lines) + random.uniform(-JITTER, JITTER, lines)
    moved[0], moved[-1] = 0, lines - 1
    return moved / (lines - 1)


def draw_test_points(function: TargetFunction, count: int, *, inner: float, seed: int) -> Float[ndarray, "n d"]:
    """Independent uniform points in the middle of the box, `inner` times as wide as it is.

    Near its faces scattered points do not surround a point, and there interpolation measures the box, not the method.

    Raises:
        BadInput: If `inner` is not in (0, 1].
    """
    if not 0 < inner <= 1:
        raise BadInput("inner share of the box", got=inner, wanted="above 0, at most 1", remedy="Use inner=0.5.")
    low, high = numpy.array(function.low), numpy.array(function.high)
    middle, half = (low + high) / 2, (high - low) / 2
    random = numpy_generator(seed, "test points")
    placed: ndarray = middle + inner * half * random.uniform(-1, 1, (count, function.dimension))
    return placed

"""Target functions by name, with their ranges: what approximators are given to fit."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy
from jaxtyping import Float
from numpy import ndarray

from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.foundations.seeds import numpy_generator
from tremorscope.instruments.feynman import FEYNMAN


@final
@dataclass(frozen=True, kw_only=True)
class TargetFunction:
    """A real function on a box, in float64.

    `call` takes points `[n, d]` and gives `[n]`. `low` and `high` are the corners of the box. `arity` is the
    largest number of arguments of an operation in the best known computation graph; what can be built from sums
    and products has 2, a function of one variable 1.
    """

    name: str
    formula: str
    call: Callable[[ndarray], ndarray]
    low: tuple[float, ...]
    high: tuple[float, ...]
    arity: int

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise BadInput(f"box of {self.name!r}", got=(self.low, self.high), wanted="low < high in every coordinate")

    @property
    def dimension(self) -> int:
        """Number of variables."""
        return len(self.low)

    def __call__(self, x: Float[ndarray, "n d"]) -> Float[ndarray, " n"]:
        """Values at points of the box.

        Raises:
            BadInput: If the points have another number of coordinates.
        """
        if x.ndim != 2 or x.shape[1] != self.dimension:
            raise BadInput(f"points of {self.name!r}", got=f"shape {x.shape}", wanted=f"(n, {self.dimension})")
        return self.call(numpy.asarray(x, dtype=numpy.float64))


def exponential_of_sum(dimension: int) -> TargetFunction:
    """`exp(x1 + ... + xd)` on [-1, 1]^d: smooth, and no direction is special."""
    return _on_cube(f"exp-sum-{dimension}", "exp(x1 + ... + xd)", lambda x: numpy.exp(x.sum(axis=1)), dimension)


def sum_of_products(num_products: int) -> TargetFunction:
    """`x1 x2 + x3 x4 + ...` on [-1, 1]^d with d twice the number of products."""
    return _on_cube(
        f"products-{num_products}",
        "x1 x2 + x3 x4 + ...",
        lambda x: (x[:, 0::2] * x[:, 1::2]).sum(axis=1),
        2 * num_products,
    )


def cusp(dimension: int) -> TargetFunction:
    """`sqrt|s - 0.1|` with s the mean coordinate: continuous, but steep without bound along a plane.

    No interpolation gains from its order here: the root mean square error falls as D^(-1/d).
    """
    return _on_cube(
        f"cusp-{dimension}",
        "sqrt|mean(x) - 0.1|",
        lambda x: numpy.sqrt(numpy.abs(x.mean(axis=1) - 0.1)),
        dimension,
    )


def plane_waves(dimension: int, seed: int = 0, *, num_waves: int = 400) -> TargetFunction:
    """A smooth random function that no small graph of low arity computes: waves in random directions.

    Directions and lengths are standard normal, so it is near a Gaussian random field of unit length and variance.
    """
    random = numpy_generator(seed, "plane waves", dimension)
    directions = random.standard_normal((dimension, num_waves))
    phases = random.uniform(0, 2 * math.pi, num_waves)
    return replace(
        _on_cube(
            f"waves-{dimension}",
            f"sum of {num_waves} random plane waves",
            lambda x: numpy.cos(x @ directions + phases).sum(axis=1) * math.sqrt(2 / num_waves),
            dimension,
        ),
        arity=dimension,
    )


def random_quintic(seed: int = 0) -> TargetFunction:
    """A polynomial of degree 5 in one variable, with standard normal coefficients drawn from `seed`."""
    coefficients = numpy_generator(seed, "quintic").standard_normal(6)
    return _on_cube(
        "quintic", "c0 + c1 x + ... + c5 x^5", lambda x: numpy.polynomial.Polynomial(coefficients)(x[:, 0]), 1
    )


def tanh_teacher(seed: int = 0, *, widths: Sequence[int] = (1, 3, 3, 1)) -> TargetFunction:
    """A random network of tanh units; weights are normal with variance 1 / fan-in, biases with variance 1."""
    random = numpy_generator(seed, "teacher")
    layers = [
        (random.standard_normal((rows, columns)) / math.sqrt(rows), random.standard_normal(columns))
        for rows, columns in itertools.pairwise(widths)
    ]

    def call(x: ndarray) -> ndarray:
        for weights, biases in layers[:-1]:
            x = numpy.tanh(x @ weights + biases)
        out: ndarray = (x @ layers[-1][0] + layers[-1][1])[:, 0]
        return out

    return _on_cube("teacher", f"tanh network {'-'.join(map(str, widths))}", call, widths[0])


def _on_cube(name: str, formula: str, call: Callable[[ndarray], ndarray], dimension: int) -> TargetFunction:
    if dimension < 1:
        raise BadInput(f"dimension of {name!r}", got=dimension, wanted="at least 1")
    return TargetFunction(
        name=name,
        formula=formula,
        call=call,
        low=(-1.0,) * dimension,
        high=(1.0,) * dimension,
        arity=min(dimension, 2),
    )


_FAMILIES: dict[str, Callable[[int], TargetFunction]] = {
    "exp-sum": exponential_of_sum,
    "products": sum_of_products,
    "cusp": cusp,
}


def target_function(name: str, *, seed: int = 0) -> TargetFunction:
    """A target by its name; `function_names()` lists them.

    `exp-sum-D`, `products-K` and `cusp-D` take a number: dimensions, or products of two. `waves-D`,
    `quintic` and `teacher` are drawn from `seed`. Names such as `I.12.11` are the Feynman lectures' equations.

    >>> f = target_function("products-2")
    >>> f.dimension, f.arity, f(numpy.array([[1.0, 2.0, 3.0, 4.0]]))
    (4, 2, array([14.]))

    Raises:
        BadInput: If nothing has that name.
    """
    if name == "square":
        return _on_cube(name, "x^2", lambda x: x[:, 0] ** 2, 1)
    if name == "exp":
        return _on_cube(name, "exp(x)", lambda x: numpy.exp(x[:, 0]), 1)
    if name == "product":
        return _on_cube(name, "x1 x2", lambda x: x[:, 0] * x[:, 1], 2)
    if name == "quintic":
        return random_quintic(seed)
    if name == "teacher":
        return tanh_teacher(seed)
    if name.startswith("waves-") and name[6:].isdecimal():
        return plane_waves(int(name[6:]), seed)
    found = re.fullmatch(r"(.+)-(\d{1,3})", name)
    if found and found[1] in _FAMILIES:
        return _FAMILIES[found[1]](int(found[2]))
    if name in FEYNMAN:
        equation = FEYNMAN[name]
        return TargetFunction(
            name=name,
            formula=equation.formula,
            call=lambda x: equation.call(*x.T),
            low=tuple(low for low, _ in equation.ranges.values()),
            high=tuple(high for _, high in equation.ranges.values()),
            arity=min(len(equation.ranges), 2),
        )
    raise BadInput(
        "target function",
        got=name,
        wanted="square, exp, product, quintic, teacher, exp-sum-D, products-K, cusp-D, waves-D, or a Feynman equation",
        remedy=did_you_mean(name, function_names()),
    )


def function_names() -> list[str]:
    """Every name that `target_function` knows, families in dimensions up to three."""
    families = [f"{name}-{number}" for name in (*_FAMILIES, "waves") for number in (1, 2, 3)]
    return ["square", "exp", "product", "quintic", "teacher", *families, *FEYNMAN]

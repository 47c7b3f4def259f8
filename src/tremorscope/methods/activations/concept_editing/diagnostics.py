"""Is a difference of means a direction worth editing along? Numbers that say so before anything is edited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.seeds import numpy_generator

LOW_AUC = 0.7
NUM_RESAMPLES = 2000


@final
@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """Of one concept.

    Args:
        num_negative: Activations without it.
        num_positive: Activations with it.
        norm: |r|.
        bias_ratio: rh.mu-/|r|: how far the typical negative is from the origin along r, in lengths of r. It predicts
            what directional ablation, which sets the origin, does beyond removing the concept.
        split_half: Cosine of the directions of two halves of the examples, over random halvings. None where a class
            has a single example.
        auc: Share of pairs of held-out examples in which the positive one has the larger coordinate; None: not asked.
        format_gap: What differs between the classes beside the concept, in words; None: nothing was seen.
    """

    num_negative: int
    num_positive: int
    norm: float
    bias_ratio: float
    split_half: Estimate | None
    auc: Estimate | None = None
    format_gap: str | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """Warnings, in words."""
        found = []
        if self.auc is not None and self.auc.value < LOW_AUC:
            found.append(
                f"AUC of the coordinate on held-out examples is {self.auc} (below {LOW_AUC:g}): the direction "
                "does not tell the classes apart"
            )
        if self.format_gap is not None:
            found.append(f"{self.format_gap}: the direction may encode the format")
        return tuple(found)

    def to_row(self) -> dict[str, Any]:
        """Cells of a table."""
        return {
            "negatives": self.num_negative,
            "positives": self.num_positive,
            "norm of r": self.norm,
            "bias ratio": self.bias_ratio,
            "split-half cosine": self.split_half,
            "AUC": self.auc,
        }


def auc(negatives: ArrayLike, positives: ArrayLike, *, seed: int = 0, level: float = LEVEL) -> Estimate:
    """Share of pairs in which the positive has the larger number, ties half; bootstrap over both classes.

    >>> auc([0.0, 1.0], [2.0, 3.0]).value, auc([0.0, 1.0], [0.0, 1.0]).value
    (1.0, 0.5)

    Raises:
        BadInput: If a class is empty.
    """
    below, above = (numpy.asarray(one, dtype=numpy.float64).reshape(-1) for one in (negatives, positives))
    if not len(below) or not len(above):
        raise BadInput("examples of an AUC", got=f"{len(below)} and {len(above)}", wanted="some of each class")
    wins = (above[:, None] > below) + 0.5 * (above[:, None] == below)
    value = float(wins.mean())
    stream = numpy_generator(seed, "auc")
    # Weights of a resample instead of the resample itself: w^T wins u is its AUC.
    up = stream.multinomial(len(above), numpy.full(len(above), 1 / len(above)), size=NUM_RESAMPLES) / len(above)
    down = stream.multinomial(len(below), numpy.full(len(below), 1 / len(below)), size=NUM_RESAMPLES) / len(below)
    drawn = numpy.einsum("bp,pn,bn->b", up, wins, down, optimize=True)
    low, high = numpy.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(
        value=value,
        low=float(low),
        high=float(high),
        level=level,
        n=len(below) + len(above),
        method="bootstrap of both classes",
    )


def spread_over_halvings(cosines: NDArray[Any], n: int, *, level: float = LEVEL) -> Estimate:
    """Mean over random halvings of one set of examples, with the range in which they lie."""
    low, high = numpy.quantile(cosines, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(
        value=float(cosines.mean()),
        low=float(low),
        high=float(high),
        level=level,
        n=n,
        method=f"range over {len(cosines)} random halvings",
    )


def cosines(one: Float[numpy.ndarray, "many d"], other: Float[numpy.ndarray, "many d"]) -> NDArray[numpy.float64]:
    """Cosine of each pair of rows; 0 where a row is zero."""
    norms = numpy.linalg.norm(one, axis=1) * numpy.linalg.norm(other, axis=1)
    found: NDArray[numpy.float64] = (one * other).sum(1) / numpy.where(norms == 0, 1, norms)
    return found

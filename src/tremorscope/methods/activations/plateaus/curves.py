"""Response curves along many paths at once, and what they say: thresholds, half-responses, plateaus, slopes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.methods.activations.plateaus.paths import Paths
from tremorscope.methods.activations.plateaus.responder import Comparer, Readout, Responder

KL_LEVEL = 0.5
SMALL_ANGLES = (5.0, 10.0, 20.0)
RIGHT_ANGLE = 90.0
KL_FLOOR = 1e-6  # a divergence of float32 logits below this is rounding
Values = NDArray[numpy.float64]


@final
@dataclass(frozen=True, kw_only=True)
class Curves:
    """Responses `values[readout][i, j]` along path `i` at `sizes[j]`; `bases[i]` is the base that path starts from.

    Sizes begin at 0 and increase; they are degrees or activation units (`unit`). KL is in nats, `l2` in units of the
    late activation.
    """

    sizes: Float[numpy.ndarray, " s"]
    values: Mapping[str, Float[numpy.ndarray, "n s"]]
    bases: Int[numpy.ndarray, " n"]
    unit: str

    def of(self, readout: str) -> Values:
        """The curves of one readout.

        Raises:
            BadInput: If it was not measured.
        """
        if readout not in self.values:
            raise BadInput("readout", got=readout, wanted=f"one of {', '.join(self.values)}")
        return self.values[readout]

    def threshold(self, readout: str = "kl", level: float = KL_LEVEL) -> Values:
        """Size at which each curve first reaches the level, interpolated; infinite where it never does."""
        return crossing(self.sizes, self.of(readout), numpy.full(len(self.bases), level))

    def half_response(self, readout: str, *, at: float = RIGHT_ANGLE) -> Values:
        """Size at which each curve first reaches half of what it has at size `at`; needs no fixed level.

        A path without any response there never gets halfway: infinite.
        """
        values = self.of(readout)
        full = self._at(values, at)
        return numpy.where(full > 0, crossing(self.sizes, values, 0.5 * full), numpy.inf)

    def plateau_index(self, readout: str, angles: Sequence[float] = SMALL_ANGLES, *, at: float = RIGHT_ANGLE) -> Values:
        """Response at each small size over that at size `at`, shape (paths, angles); a flat step is near 0."""
        values = self.of(readout)
        full = self._at(values, at)
        small = numpy.stack([self._at(values, angle) for angle in angles], axis=1)
        with numpy.errstate(divide="ignore", invalid="ignore"):
            return numpy.where(full[:, None] > 0, small / full[:, None], numpy.nan)

    def initial_slope(self, readout: str, *, up_to: float = SMALL_ANGLES[-1]) -> Values:
        """Slope of the response in doubly logarithmic axes over sizes in (0, `up_to`], by least squares.

        2 for KL and 1 for a distance where the network is smooth at the base; larger behind a flat step. KL below 1e-6
        is rounding and left out; NaN where fewer than two points are left.
        """
        chosen = (self.sizes > 0) & (self.sizes <= up_to)
        x, y = numpy.log(self.sizes[chosen]), self.of(readout)[:, chosen]
        used = y > (KL_FLOOR if readout == "kl" else 0.0)
        logs = numpy.log(numpy.where(used, y, 1.0))
        count = used.sum(axis=1)
        with numpy.errstate(divide="ignore", invalid="ignore"):
            mean_x, mean_y = (used * x).sum(axis=1) / count, (used * logs).sum(axis=1) / count
            gap = numpy.where(used, x - mean_x[:, None], 0.0)
            slope: Values = (gap * (logs - mean_y[:, None])).sum(axis=1) / (gap**2).sum(axis=1)
        return numpy.where(count >= 2, slope, numpy.nan)

    def blow_up(self, readout: str) -> tuple[Values, Values]:
        """The steepest step of each curve: its slope per unit of size, and the size in its middle."""
        slopes = numpy.diff(self.of(readout), axis=1) / numpy.diff(self.sizes)
        steepest = slopes.argmax(axis=1)
        middles = (self.sizes[1:] + self.sizes[:-1]) / 2
        return slopes[numpy.arange(len(slopes)), steepest], middles[steepest]

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON, responses with nine significant digits."""
        return {
            "sizes": self.sizes.tolist(),
            "values": {
                readout: [[float(f"{value:.9g}") for value in row] for row in rows.tolist()]
                for readout, rows in self.values.items()
            },
            "bases": self.bases.tolist(),
            "unit": self.unit,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Curves:
        """The inverse of `to_plain`."""
        return cls(
            sizes=numpy.array(plain["sizes"], dtype=numpy.float64),
            values={readout: numpy.array(rows, dtype=numpy.float64) for readout, rows in plain["values"].items()},
            bases=numpy.array(plain["bases"], dtype=numpy.int64),
            unit=plain["unit"],
        )

    def joined(self, others: Sequence[Curves]) -> Curves:
        """Several draws of bases as one; bases of different draws are different."""
        parts, first = [self, *others], 0
        bases = []
        for part in parts:
            bases.append(part.bases + first)
            first += int(part.bases.max()) + 1
        return Curves(
            sizes=self.sizes,
            values={readout: numpy.concatenate([part.of(readout) for part in parts]) for readout in self.values},
            bases=numpy.concatenate(bases),
            unit=self.unit,
        )

    def _at(self, values: Values, size: float) -> Values:
        if not self.sizes[0] <= size <= self.sizes[-1]:
            raise BadInput(
                "size of a response", got=size, wanted=f"between {self.sizes[0]:g} and {self.sizes[-1]:g}, as measured"
            )
        above = max(1, int(numpy.searchsorted(self.sizes, size)))
        share = (size - self.sizes[above - 1]) / (self.sizes[above] - self.sizes[above - 1])
        found: Values = (1 - share) * values[:, above - 1] + share * values[:, above]
        return found


def measure_curves(
    responder: Responder,
    paths: Paths,
    sizes: Sequence[float],
    *,
    bases: Int[Tensor, " n"],
    rows: Int[Tensor, " groups"],
    readouts: tuple[Readout, ...] = ("kl", "l2", "cosine"),
) -> Curves:
    """How does the network answer along each path?

    Responses are distances from what the path's own base gives, not from the clean prompt: a base need not be real.

    Args:
        responder: The network.
        paths: `n` ways out. Those that share a base number must start from one and the same base.
        sizes: At least two, increasing, from 0 or more; 0 is added.
        bases: Number of each path's base, 0 to groups - 1.
        rows: Prompt in whose context each base lies.
        readouts: Which distances.

    Cost: one evaluation for each path and size, and one for each base.

    Raises:
        BadInput: If sizes do not increase, there is a response that is not finite, or KL is asked of a model without
            logits.
    """
    places = numpy.array(sorted({0.0, *map(float, sizes)}), dtype=numpy.float64)
    if len(places) < 3 or places[0] < 0 or not numpy.isfinite(places).all():
        raise BadInput("sizes of a curve", got=list(sizes), wanted="at least two different finite numbers above 0")
    groups = len(rows)
    first = torch.stack([(bases == group).nonzero()[0, 0] for group in range(groups)])
    comparer = Comparer(responder, paths.base[first], rows, readouts)
    points = paths.points(torch.from_numpy(places))
    found = comparer.distances(points.flatten(0, 1), bases.repeat_interleave(len(places)))
    values: dict[str, Values] = {
        readout: one.reshape(len(bases), len(places)).cpu().numpy() for readout, one in found.items()
    }
    for readout, rows_of in values.items():
        bad = ~numpy.isfinite(rows_of)
        if bad.any():
            raise BadInput(
                f"response {readout}",
                got=f"{int(bad.any(axis=1).sum())} of {len(rows_of)} paths with outputs that are not finite",
                wanted="finite outputs",
                remedy="Use smaller sizes.",
            )
        if readout != "cosine":
            # Rounding moves the base itself by a hair from one batch to the next, and KL below 0.
            rows_of[:, 0] = 0.0
            numpy.maximum(rows_of, 0.0, out=rows_of)
    return Curves(sizes=places, values=values, bases=bases.cpu().numpy().astype(numpy.int64), unit=paths.unit)


def crossing(
    sizes: Float[numpy.ndarray, " s"], values: Float[numpy.ndarray, "n s"], levels: Float[numpy.ndarray, " n"]
) -> Values:
    """Where each curve first reaches its level, linear between sizes; infinite where it never does.

    >>> crossing(numpy.array([0.0, 1.0, 2.0]), numpy.array([[0.0, 1.0, 3.0], [0.0, 0.1, 0.2]]), numpy.array([2.0, 2.0]))
    array([1.5, inf])
    """
    above = values >= levels[:, None]
    reached = above.any(axis=1)
    after = above.argmax(axis=1)
    before = numpy.maximum(after - 1, 0)
    rows = numpy.arange(len(values))
    low, high = values[rows, before], values[rows, after]
    with numpy.errstate(divide="ignore", invalid="ignore"):
        share = numpy.where(high > low, (levels - low) / (high - low), 0.0)
    found: Values = numpy.where(reached, sizes[before] + share * (sizes[after] - sizes[before]), numpy.inf)
    return found


@final
@dataclass(frozen=True, kw_only=True)
class ReachedSummary:
    """Median of sizes some of which were never reached, which count as infinite and are never dropped."""

    median: float
    reached: int
    count: int

    @property
    def fraction(self) -> float:
        """Share that was reached."""
        return self.reached / self.count


def reached_summary(sizes: Sequence[float] | Values) -> ReachedSummary:
    """The survival-style median: infinite when half of the paths or more never got there.

    >>> reached_summary([10.0, 20.0, numpy.inf]), reached_summary([10.0, numpy.inf, numpy.inf]).median
    (ReachedSummary(median=20.0, reached=2, count=3), inf)

    Raises:
        BadInput: If there is nothing, or something that is no number.
    """
    values = numpy.asarray(sizes, dtype=numpy.float64)
    if not len(values) or numpy.isnan(values).any():
        raise BadInput("sizes that were reached", got="none, or some that are no number", wanted="numbers, or infinity")
    return ReachedSummary(
        median=float(numpy.median(values)), reached=int(numpy.isfinite(values).sum()), count=len(values)
    )

"""The most sensitive directions from one base, found without any data: are they features?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import generator
from tremorscope.methods.activations.plateaus.kinds import unit
from tremorscope.methods.activations.plateaus.optimality import DirectionResponse

NUM_STARTS = 64
NUM_ROUNDS = 6
NUM_STEPS = 10  # of each round
FIRST_TURN = 0.3  # radians
BEYOND = 1.25  # thresholds out from the base at which gradients are taken
SAME = 0.9  # cosine above which two directions are one


@final
@dataclass(frozen=True, kw_only=True)
class SensitivitySearch:
    """Directions whose thresholds are local minima, earliest first, each once.

    `found_by` counts the random starts that ended there. `start_thresholds` are those of the starts: what a random
    direction has. Thresholds are infinite where the level was never reached; `unmoved` starts had no gradient at all.
    """

    directions: Float[Tensor, "k d"]
    thresholds: Float[numpy.ndarray, " k"]
    found_by: tuple[int, ...]
    start_thresholds: Float[numpy.ndarray, " starts"]
    unmoved: int
    level: float

    @property
    def flags(self) -> tuple[str, ...]:
        """What a reader must know first."""
        starts = len(self.start_thresholds)
        return (
            (f"{self.unmoved} of {starts} starts had no gradient and stayed where they were",) if self.unmoved else ()
        )

    def max_cosines(self, dictionary: Float[Tensor, "m d"]) -> Float[numpy.ndarray, " k"]:
        """Each direction's largest |cosine| with the entries of a dictionary: decoder rows, planted features."""
        found: numpy.ndarray = (unit(self.directions) @ unit(dictionary).T).abs().max(dim=1).values.numpy()
        return found

    def recall(self, features: Float[Tensor, "m d"], k: int, *, cosine: float = SAME) -> float:
        """Share of the features that one of the first `k` directions equals, up to sign, within a cosine."""
        return recall(self.directions, features, k, cosine=cosine)

    def table(self, dictionary: Float[Tensor, "m d"] | None = None) -> Table:
        """The directions, with the nearest entry of a dictionary where there is one."""
        rows = [
            {
                "rank": rank + 1,
                "threshold": float(self.thresholds[rank]),
                "starts that ended there": self.found_by[rank],
            }
            for rank in range(len(self.thresholds))
        ]
        if dictionary is not None:
            for row, cosine in zip(rows, self.max_cosines(dictionary), strict=True):
                row["largest |cosine|"] = float(cosine)
        return Table.of_rows(
            rows,
            name="sensitivity_search",
            title=f"Directions that reach {self.level:g} first",
            caption=f"Random directions: {numpy.median(self.start_thresholds):.3g} in the median.",
        )


def recall(directions: Float[Tensor, "k d"], features: Float[Tensor, "m d"], k: int, *, cosine: float = SAME) -> float:
    """Share of the features that one of the first `k` directions equals, up to sign, within a cosine.

    >>> recall(torch.eye(3), torch.eye(3)[1:], k=2)
    0.5
    """
    nearest = (unit(features) @ unit(directions[:k]).T).abs().max(dim=1).values
    return float((nearest >= cosine).double().mean())


def search_sensitive_directions(
    response: DirectionResponse,
    *,
    level: float,
    largest: float = 90.0,
    seed: int = 0,
    num_starts: int = NUM_STARTS,
    num_rounds: int = NUM_ROUNDS,
    num_steps: int = NUM_STEPS,
) -> SensitivitySearch:
    """Which directions from this base does the network notice first?

    Each round finds the threshold of every direction, then climbs the response a quarter beyond it along the sphere of
    directions: on the plateau itself there is no gradient. A step turns by an angle that is halved when it does not
    help. The size of `response` is not used.

    Args:
        response: Network and base.
        level: Response that counts as noticed.
        largest: Size up to which thresholds are sought.
        seed: Names the random starts.
        num_starts: How many.
        num_rounds: Times that thresholds are found anew.
        num_steps: Steps uphill in between.

    Cost: `num_starts * num_rounds * (12 + num_steps)` evaluations, of which `num_steps` with gradients.

    Raises:
        BadInput: If there is nothing to start from, and as `crossings`.
    """
    if num_starts < 1:
        raise BadInput("num_starts", got=num_starts, wanted="at least 1")
    drawn = torch.randn(num_starts, len(response.base), generator=generator(seed, "starts"), dtype=torch.float64)
    across = response.across(drawn)
    before = thresholds = response.thresholds(across, level, largest=largest)
    moved = torch.zeros(num_starts, dtype=torch.bool)
    for _ in range(num_rounds):
        sizes = (BEYOND * thresholds).clamp_max(largest)
        values, slopes = response.gradients(across, sizes)
        turn = torch.full((num_starts,), FIRST_TURN, dtype=torch.float64)
        for _ in range(num_steps):
            norms = slopes.norm(dim=1, keepdim=True)
            moved |= norms[:, 0] > 0
            uphill = slopes / norms.clamp_min(torch.finfo(torch.float64).tiny)
            tried = unit(turn.cos()[:, None] * across + turn.sin()[:, None] * uphill)
            found, steep = response.gradients(tried, sizes)
            better = found > values
            across = torch.where(better[:, None], tried, across)
            values, slopes = torch.where(better, found, values), torch.where(better[:, None], steep, slopes)
            turn = torch.where(better, 1.2 * turn, 0.5 * turn).clamp_max(FIRST_TURN)
        thresholds = response.thresholds(across, level, largest=largest)
    kept, counts = _distinct(across, thresholds)
    return SensitivitySearch(
        directions=across[kept],
        thresholds=thresholds[kept].numpy(),
        found_by=tuple(counts),
        start_thresholds=before.numpy(),
        unmoved=int((~moved).sum()),
        level=level,
    )


def _distinct(directions: Tensor, thresholds: Tensor) -> tuple[list[int], list[int]]:
    """Places of one direction of each group of like ones, earliest first, and how many were like it."""
    kept: list[int] = []
    counts: list[int] = []
    for place in thresholds.argsort().tolist():
        cosines = (directions[kept] @ directions[place]).abs() if kept else torch.zeros(0)
        if len(cosines) and float(cosines.max()) > SAME:
            counts[int(cosines.argmax())] += 1
        else:
            kept.append(place)
            counts.append(1)
    return kept, counts

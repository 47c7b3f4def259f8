"""Is this network inside the zone? A cheap look along the ray of its own weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import Figure
from tremorscope.foundations.layout import Selection
from tremorscope.foundations.results import Table
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.weights.goldilocks.figures import zone_figures
from tremorscope.methods.weights.goldilocks.measurement import GoldilocksMeasurement, measure_goldilocks

FEW_SCALES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)


@final
@dataclass(frozen=True, kw_only=True)
class ZonePosition:
    """Curves of kappa along the rays of some weights of one network; scale 1 is these weights themselves.

    The first name is the one asked about ("present weights"), others are for comparison ("initial weights").
    """

    rays: dict[str, GoldilocksMeasurement]

    @property
    def own(self) -> GoldilocksMeasurement:
        """The ray of the present weights."""
        return next(iter(self.rays.values()))

    @property
    def kappa(self) -> Estimate | None:
        """Kappa at the present weights, over the random subspaces; None where it is undefined."""
        return self.own.estimate("kappa", 1.0)

    @property
    def share_of_peak(self) -> float:
        """Mean kappa at the present weights over its peak along the ray; NaN where there is no positive peak."""
        return share_of_peak(self.own)

    @property
    def is_inside(self) -> bool:
        """Whether kappa at the present weights is above half its peak along the ray."""
        return self.share_of_peak > 0.5

    @property
    def flags(self) -> tuple[str, ...]:
        """What to know before trusting the numbers."""
        return tuple(dict.fromkeys(flag for ray in self.rays.values() for flag in ray.flags))

    def tables(self) -> list[Table]:
        """Kappa at the weights, peak, and where it lies."""
        rows: list[dict[str, Any]] = []
        for name, ray in self.rays.items():
            zone = ray.zone
            rows.append(
                {
                    "weights": name,
                    "norm": ray.typical_norm,
                    "kappa here": ray.estimate("kappa", 1.0),
                    "share of positive curvature": ray.estimate("positive_share", 1.0),
                    "peak of kappa": None if zone is None else zone.peak,
                    "peak at norm": None if zone is None else zone.peak_scale * ray.typical_norm,
                    "above half the peak": share_of_peak(ray) > 0.5,
                }
            )
        return [
            Table.of_rows(
                rows,
                name="goldilocks_position",
                title="Position relative to the Goldilocks zone",
                caption=f"Along the ray from the origin through the weights, in random {self.own.surface}s of "
                f"{self.own.dimension} dimensions; kappa is at most {math.sqrt(self.own.dimension):.3g}, and has mean "
                "0 and standard deviation 1 for curvatures with random signs.",
            )
        ]

    def figures(self) -> list[Figure]:
        """Kappa along the rays; 1 are the weights themselves."""
        (drawn, *_) = zone_figures(self.rays, "weights")
        axis = replace(drawn.x, title="factor on the weights (1 is the weights themselves)")
        title = "Excess of positive curvature along the ray through the weights"
        return [replace(drawn, title=title, x=axis)]


def zone_position(
    network: Network,
    *,
    batch: Batch | None = None,
    scales: Sequence[float] = FEW_SCALES,
    dimension: int = 20,
    num_draws: int = 3,
    seed: int = 0,
    parameters: Selection = "*",
) -> ZonePosition:
    """Where do the present weights (and the initial ones, when they are known) lie relative to the zone?

    Cost: `num_draws * len(scales)` blocks of `dimension` Hessian products, twice when initial weights are known.

    >>> import torch
    >>> from torch import nn
    >>> from tremorscope.instruments.task import Task
    >>> x = torch.eye(3)
    >>> position = zone_position(Network(nn.Linear(3, 2), task=Task.of(x, x[:, :2])), dimension=4)
    >>> position.is_inside, round(position.kappa.value, 3)  # squared error of a linear map: all positive, everywhere
    (True, 1.714)

    Raises:
        BadInput: As `measure_goldilocks`.
    """
    scales = tuple(sorted({*scales, 1.0}))
    dimension = min(dimension, len(network.layout.indices(network.select(parameters))))

    def along(theta: Float[Tensor, " params"], name: str) -> GoldilocksMeasurement:
        return measure_goldilocks(
            network,
            batch=batch,
            scales=scales,
            dimension=dimension,
            num_draws=num_draws,
            seed=seed,
            initialiser=lambda view, _: theta.to(view.dtype),
            parameters=parameters,
            split=False,
            name=name,
        )

    rays = {"present weights": along(network.theta, "present weights")}
    if network.initial is not None and not torch.equal(network.initial, network.theta):
        rays["initial weights"] = along(network.initial, "initial weights")
    return ZonePosition(rays=rays)


def share_of_peak(measured: GoldilocksMeasurement, scale: float = 1.0) -> float:
    """Mean kappa at one scale over the peak of the curve; NaN where there is no positive peak."""
    zone = measured.zone
    here = measured.estimate("kappa", scale)
    return math.nan if zone is None or here is None else here.value / zone.peak

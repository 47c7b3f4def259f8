"""Kappa along scales as trace and norm of the whole Hessian foretell it, beside random subspaces of equal weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import PALETTE, Axis, Figure, band, line, points
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Hessian
from tremorscope.instruments.task import Batch
from tremorscope.methods.weights.goldilocks.full_space import measure_full_space
from tremorscope.methods.weights.goldilocks.measurement import GoldilocksMeasurement, InitialWeights, starts
from tremorscope.methods.weights.goldilocks.restricted import random_basis, route_for_one_block
from tremorscope.methods.weights.goldilocks.scaling import batch_in_precision, in_double_precision, scaled


@final
@dataclass(frozen=True, kw_only=True)
class ForetoldCurve:
    """What random subspaces of `dimension` should show, from the whole Hessian; one row a draw of weights.

    `kappa`, `trace` (`d Tr(H) / N`) and `half_width` of the interval of kappa that the random probes leave are
    `[draws, scales]`; NaN where the Hessian is zero.
    """

    scales: tuple[float, ...]
    dimension: int
    num_parameters: int
    kappa: Float[Tensor, "draws scales"]
    trace: Float[Tensor, "draws scales"]
    half_width: Float[Tensor, "draws scales"]

    def to_plain(self) -> dict[str, Any]:
        """Everything, as JSON."""
        arrays = {
            name: [[v if math.isfinite(v) else repr(v) for v in row] for row in getattr(self, name).tolist()]
            for name in _ARRAYS
        }
        return {
            "scales": list(self.scales),
            "dimension": self.dimension,
            "num_parameters": self.num_parameters,
            **arrays,
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> ForetoldCurve:
        """The inverse of `to_plain`."""
        return cls(
            scales=tuple(plain["scales"]),
            dimension=plain["dimension"],
            num_parameters=plain["num_parameters"],
            **{
                name: torch.tensor([[float(v) for v in row] for row in plain[name]], dtype=torch.float64)
                for name in _ARRAYS
            },
        )


_ARRAYS = ("kappa", "trace", "half_width")


def foretell_goldilocks(
    network: Network,
    *,
    scales: Sequence[float],
    batch: Batch | None = None,
    dimension: int = 40,
    num_draws: int = 4,
    num_probes: int = 32,
    seed: int = 0,
    initialiser: InitialWeights = None,
) -> ForetoldCurve:
    """Would the curve of kappa be the same without any subspace?

    With the arguments of `measure_goldilocks` the draws of weights are the same; no other of its streams is touched.
    Weights are scaled, all of them, in double precision.

    Cost: `2 num_probes` Hessian products a point (`measure_full_space`), in narrower blocks than a point of
    `measure_goldilocks` takes in 40 dimensions: about five times its time, at the default. Networks of up to 5,000
    weights are taken exactly, by `2 N` products a point.

    Raises:
        BadInput: As `measure_goldilocks` and `measure_full_space`.
    """
    network = in_double_precision(network)
    batch = network.required_task().train_batch() if batch is None else batch_in_precision(batch, network.dtype)
    found: dict[str, list[list[float]]] = {name: [] for name in _ARRAYS}
    for draw, theta in enumerate(starts(network, initialiser, num_draws, seed)[0]):
        there, route = network.at(theta), None
        rows: dict[str, list[float]] = {name: [] for name in _ARRAYS}
        for place, scale in enumerate(scales):
            at = scaled(there, "weights", scale)
            if route is None:
                route = route_for_one_block(at, batch, random_basis(theta, 1, generator(seed, "foretold", draw)))
            told = measure_full_space(
                Hessian(at, batch, route=route),
                dimension,
                num_probes=num_probes,
                seed=derive(seed, "foretold", draw, place),
            )
            kappa = told.kappa
            rows["kappa"].append(math.nan if kappa is None else kappa.value)
            rows["half_width"].append(math.nan if kappa is None else (kappa.high - kappa.low) / 2)
            rows["trace"].append(told.restricted_trace.value)
        for name in _ARRAYS:
            found[name].append(rows[name])
    return ForetoldCurve(
        scales=tuple(scales),
        dimension=dimension,
        num_parameters=network.layout.size,
        **{name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()},
    )


@final
@dataclass(frozen=True, kw_only=True)
class ForetoldComparison:
    """Random subspaces beside what the whole Hessian foretells, member by member: equal weights, equal scales."""

    measured: Sequence[GoldilocksMeasurement]
    foretold: Sequence[ForetoldCurve]

    @property
    def scales(self) -> tuple[float, ...]:
        """Those of both."""
        return tuple(scale for scale in self.foretold[0].scales if scale in self.measured[0].scales)

    def difference_at_peak(self, *, elsewhere: bool = False) -> list[float]:
        """Kappa of the subspaces less the foretold one, at the scale where the subspaces' is largest.

        With `elsewhere` the foretold one is that of the largest scale: the null.
        """
        differences = []
        for measured, foretold in self._pairs():
            top = int(measured.nan_to_num(-math.inf).argmax())
            differences.append(float(measured[top] - foretold[-1 if elsewhere else top]))
        return differences

    def distance(self, *, elsewhere: bool = False) -> list[float]:
        """Root mean square over scales of that difference; with `elsewhere` against the next scale's foretold one."""
        return [
            float((measured - (foretold.roll(-1) if elsewhere else foretold)).square().nanmean().sqrt())
            for measured, foretold in self._pairs()
        ]

    def tables(self) -> list[Table]:
        """Both, by scale, with intervals over members."""
        pairs = list(self._pairs())
        rows = []
        for place, scale in enumerate(self.scales):
            both = [(float(m[place]), float(f[place])) for m, f in pairs if bool((m[place] + f[place]).isfinite())]
            widths = torch.stack([self._at_scales(c.half_width, c.scales)[place] for c in self.foretold])
            rows.append(
                {
                    "scale": scale,
                    "kappa of random subspaces": Estimate.mean([m for m, _ in both]) if both else None,
                    "kappa foretold": Estimate.mean([f for _, f in both]) if both else None,
                    "difference": Estimate.mean([m - f for m, f in both]) if both else None,
                    "left open by the probes of one draw": float(widths.nanmean()) if both else None,
                }
            )
        first = self.foretold[0]
        return [
            Table.of_rows(
                rows,
                name="foretold",
                title="Kappa of random subspaces, and as trace and norm of the whole Hessian foretell it",
                caption=f"The same ReLU weights; {first.dimension} of {first.num_parameters:,} dimensions. 99 % "
                "intervals over members; the last column is half the interval that random probes leave for one draw.",
            )
        ]

    def figures(self) -> list[Figure]:
        """Both curves."""
        rows = self.tables()[0].columns
        known = [place for place, value in enumerate(rows["difference"]) if value is not None]
        x = [self.scales[place] for place in known]
        seen, told = (
            [rows[name][place] for place in known] for name in ("kappa of random subspaces", "kappa foretold")
        )
        return [
            Figure(
                name="kappa_foretold",
                title="The whole Hessian foretells kappa without any subspace",
                caption="Line: mean kappa of random subspaces, 99 % over members. Points: `d Tr(H) / N` over the root "
                "of the expected squared norm, by random probes of the whole Hessian at the same weights.",
                traces=[
                    band(x, [e.low for e in seen], [e.high for e in seen], "99 %", colour=PALETTE[0])
                    | {"showlegend": False},
                    line(x, [e.value for e in seen], "random subspaces", colour=PALETTE[0]),
                    points(x, [e.value for e in told], "whole Hessian", colour=PALETTE[1], size=9),
                ],
                x=Axis(title="factor on the weights (1 is the initialisation)", log=True),
                y=Axis(title="kappa"),
            )
        ]

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        return [
            (self._at_scales(m.curves["kappa"], m.scales), self._at_scales(f.kappa, f.scales))
            for m, f in zip(self.measured, self.foretold, strict=True)
        ]

    def _at_scales(self, curve: Tensor, scales: Sequence[float]) -> Tensor:
        """Mean over draws at the scales of both."""
        places = [scales.index(scale) for scale in self.scales]
        return curve.nanmean(dim=0)[places]

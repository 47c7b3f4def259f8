"""Which weights does the output depend on? Random disturbances, layer by layer, against two nulls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import PALETTE, Axis, Figure, band, line
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.edit import Add
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import LinearOperator
from tremorscope.instruments.respond import Measure, respond
from tremorscope.instruments.task import Batch

_UNITS = {"kl": "KL divergence in nats", "l2": "distance of outputs", "loss": "rise of the loss"}
_MOST_CURVES = 7  # as many as the palette has colours


@final
@dataclass(frozen=True, kw_only=True)
class LayerResponse:
    """Mean response over examples, for each random direction and size.

    `equal_norm[r]` is the response along a direction over all weights, of the same norms;
    `equal_curvature[r]` along the same direction, rescaled so that its second-order cost is that of the
    layer's direction `r`; None where the curvatures have different signs, are zero, or there is no operator.
    """

    name: str
    values: Float[Tensor, "directions sizes"]
    equal_norm: Float[Tensor, "directions sizes"]
    equal_curvature: Float[Tensor, "kept sizes"] | None
    curvature: float | None  # mean v^T H v over the directions, v of norm 1


@final
@dataclass(frozen=True, kw_only=True)
class SensitivityMeasurement:
    """Responses of every layer along one size axis. `level` is the response whose size is tabulated."""

    layers: tuple[LayerResponse, ...]
    sizes: Float[Tensor, " sizes"]
    measure: Measure
    level: float
    weight_norm: float
    flags: tuple[str, ...] = ()

    def ratio(self, values: Tensor, against: Tensor) -> Estimate:
        """Geometric mean over sizes and directions of a response over its null, interval over directions."""
        floor = 1e-12
        logs = (values.clamp_min(floor).log() - against.clamp_min(floor).log()).mean(1)
        return Estimate.geometric_mean(logs.exp().numpy())

    def tables(self) -> list[Table]:
        """Size that reaches the level, and the response relative to both nulls."""
        rows = []
        for layer in self.layers:
            row: dict[str, Any] = {
                "weights": layer.name,
                f"norm of a step that reaches {self.level:g}": _reaching(self.sizes, layer.values, self.level),
                "the same over all weights": _reaching(self.sizes, layer.equal_norm, self.level),
                "response / equal norm": self.ratio(layer.values, layer.equal_norm),
            }
            if layer.curvature is not None:
                row["curvature v'Hv"] = layer.curvature
            if layer.equal_curvature is not None:
                row["response / equal curvature"] = self.ratio(
                    layer.values[: len(layer.equal_curvature)], layer.equal_curvature
                )
            rows.append(row)
        return [
            Table.of_rows(
                rows,
                name="sensitivity",
                title="Response to random disturbances of the weights",
                caption=f"Mean {_UNITS[self.measure]} over examples, random directions inside each weight tensor. "
                "Beside it: random directions over all weights with the same norm, and rescaled to the same "
                "second-order cost. "
                "Above 1: the output depends on these weights more than on weights at large (equal norm), or more than "
                f"curvature foretells (equal curvature). The weights' own norm is {self.weight_norm:.3g}.",
            )
        ]

    def figures(self) -> list[Figure]:
        """Response against norm for each layer, with the null of equal norm as a band."""
        shown = sorted(self.layers, key=lambda layer: -float(layer.values.sum()))[:_MOST_CURVES]
        low, middle, high = _interval(torch.cat([layer.equal_norm for layer in shown[:1]]))
        traces = [
            band(self.sizes, low, high, "all weights, equal norm (99 %)"),
            line(self.sizes, middle, "all weights, equal norm", colour="#8A8A8A", dash="dash", showlegend=False),
        ]
        for place, layer in enumerate(shown):
            _, mean, _ = _interval(layer.values)
            traces.append(line(self.sizes, mean, layer.name, colour=PALETTE[place], markers=True))
        left_out = len(self.layers) - len(shown)
        most = shown[0]
        return [
            Figure(
                name="sensitivity",
                title="Response to random disturbances of the weights",
                caption=f"The output depends most on {most.name}: at equal norm it answers "
                f"{self.ratio(most.values, most.equal_norm)} times as strongly as weights at large (grey)."
                + (f" {left_out} less sensitive tensors are left out of the drawing." if left_out else ""),
                traces=traces,
                x=Axis(title="norm of the disturbance", log=True),
                y=Axis(title=f"mean {_UNITS[self.measure]}", log=True),
            )
        ]


def measure_sensitivity(
    network: Network,
    batch: Batch,
    *,
    measure: Measure = "kl",
    num_directions: int = 8,
    sizes: Sequence[float] | None = None,
    curvature: LinearOperator | None = None,
    level: float = 0.1,
    seed: int = 0,
) -> SensitivityMeasurement:
    """How strongly does the output answer random disturbances of each weight tensor, beyond chance?

    Args:
        network: The network.
        batch: Examples to look at.
        measure: As in `respond`.
        num_directions: Random directions in each tensor; intervals are over them.
        sizes: Norms of the disturbance; by default 13 from 1/1000 of the weights' norm to all of it.
        curvature: Hessian at the present weights, for the null of equal curvature; without it that null is
            left out.
        level: Response whose size is tabulated.
        seed: Names the streams of directions.

    Cost: `2-3 x tensors x num_directions x len(sizes)` forward passes, and one Hessian product a direction.

    Raises:
        BadInput: If the measure does not fit the outputs.
    """
    norm = float(network.theta.double().norm())
    steps = torch.as_tensor(sizes if sizes is not None else norm * numpy.logspace(-3, 0, 13), dtype=torch.float64)
    at_large = _directions(network.layout.size, num_directions, seed, "all weights")
    flags: list[str] = []

    def response(direction: Tensor, site: str, scale: float = 1.0) -> Tensor:
        found = respond(network, batch, Add(direction * scale).at(site), sizes=steps.tolist(), measure=measure)
        flags.extend(found.flags)
        mean: Tensor = found.values.mean(1)
        return mean

    equal_norm = torch.stack([response(direction, "weights:*") for direction in at_large])
    costs = [_curvature(curvature, direction) for direction in at_large]
    layers = []
    for name in network.layout.names:
        span = network.layout.slice(name)
        inside = _directions(span.stop - span.start, num_directions, seed, name)
        values = torch.stack([response(direction, f"weights:{name}") for direction in inside])
        own = [_curvature(curvature, _embedded(direction, span, network.layout.size)) for direction in inside]
        matched = [
            response(direction, "weights:*", math.sqrt(mine / cost))
            for direction, mine, cost in zip(at_large, own, costs, strict=True)
            if mine is not None and cost is not None and mine * cost > 0
        ]
        known = [mine for mine in own if mine is not None]
        if known and len(matched) < num_directions:
            flags.append(
                f"{name}: {num_directions - len(matched)} of {num_directions} directions have no null of equal "
                "curvature (its sign differs, or there is none)"
            )
        layers.append(
            LayerResponse(
                name=name,
                values=values,
                equal_norm=equal_norm,
                equal_curvature=torch.stack(matched) if len(matched) == num_directions else None,
                curvature=sum(known) / len(known) if known else None,
            )
        )
    return SensitivityMeasurement(
        layers=tuple(layers),
        sizes=steps,
        measure=measure,
        level=level,
        weight_norm=norm,
        flags=tuple(dict.fromkeys(flags)),
    )


def _directions(size: int, count: int, seed: int, name: str) -> Float[Tensor, "count size"]:
    drawn = torch.randn(count, size, generator=generator(seed, "sensitivity", name), dtype=torch.float64)
    unit: Tensor = drawn / drawn.norm(dim=1, keepdim=True)
    return unit


def _embedded(direction: Tensor, span: slice, size: int) -> Tensor:
    full = direction.new_zeros(size)
    full[span] = direction
    return full


def _curvature(operator: LinearOperator | None, direction: Tensor) -> float | None:
    if operator is None:
        return None
    there = direction.to(operator.device, operator.dtype)
    return float(there @ operator.mv(there))


def _interval(values: Float[Tensor, "directions sizes"]) -> tuple[list[float], list[float], list[float]]:
    """Low, geometric mean and high at each size, over directions."""
    found = [Estimate.geometric_mean(column.numpy()) for column in values.clamp_min(1e-15).T]
    return [e.low for e in found], [e.value for e in found], [e.high for e in found]


def _reaching(sizes: Tensor, values: Tensor, level: float) -> Estimate | None:
    """Norm at which the response reaches a level, log-linear between sizes; None if some direction never does."""
    found = []
    for curve in values:
        above = (curve >= level).nonzero().flatten()
        if not len(above):
            return None
        place = int(above[0])
        if place == 0:
            found.append(float(sizes[0]))
            continue
        x, y = sizes[place - 1 : place + 1].log(), curve[place - 1 : place + 1].clamp_min(1e-15).log()
        found.append(math.exp(x[0] + (math.log(level) - y[0]) / (y[1] - y[0]) * (x[1] - x[0])))
    return Estimate.geometric_mean(found)

"""A network with known features and a known plateau: what every measurement here must find."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.methods.activations.plateaus.kinds import Population, unit
from tremorscope.methods.activations.plateaus.responder import FunctionResponder


@final
@dataclass(frozen=True, kw_only=True)
class PlantedFeatures:
    """Features in superposition, read with a deadzone: moves of less than `width` along each are corrected away.

    The network reads `c = F x`, takes every coordinate for the nearest multiple of `spacing` as long as it is within
    `width` of one (error correction: real activations lie on those multiples), and gives out `gain` times the result.
    Activations are sums of `active` features of strength `spacing`.

    With orthonormal features a base on the lattice has a plateau of exactly `width` along each feature, and along a
    direction `d` one of `width / max |F d|`: a feature is the most sensitive direction there is.
    """

    features: Float[Tensor, "features d"]
    width: float
    spacing: float = 1.0
    active: int = 4
    gain: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.width < self.spacing / 2:
            raise BadInput("width of the planted plateau", got=self.width, wanted=f"0 to {self.spacing / 2:g}")

    @classmethod
    def draw(
        cls, num_features: int, d: int, *, width: float, seed: int, active: int = 4, gain: float = 1.0
    ) -> PlantedFeatures:
        """Random unit features; orthonormal ones when there are no more than dimensions."""
        normal = torch.randn(num_features, d, generator=generator(seed, "features"), dtype=torch.float64)
        features = unit(normal) if num_features > d else torch.linalg.qr(normal.T).Q.T.contiguous()
        return cls(features=features, width=width, active=active, gain=gain)

    def activations(self, count: int, seed: int) -> Float[Tensor, "count d"]:
        """Real activations: sums of `active` different features each."""
        keys = torch.rand(count, len(self.features), generator=generator(seed, "activations"), dtype=torch.float64)
        return self.spacing * self.features[keys.topk(self.active, dim=1).indices].sum(dim=1)

    def population(self, count: int, seed: int) -> Population:
        """Mean and covariance of such activations."""
        return Population.of(self.activations(count, seed))

    def outputs(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n features"]:
        """What the network gives: corrected feature coordinates. Piecewise linear, so it can be differentiated."""
        read = points @ self.features.T.to(points)
        lattice = self.spacing * (read / self.spacing).detach().round()
        gap = read - lattice
        # Linear outside the deadzone, and continuous from one cell of the lattice to the next.
        beyond = gap.sign() * (gap.abs() - self.width).clamp_min(0.0) * (self.spacing / (self.spacing - 2 * self.width))
        return self.gain * (lattice + beyond)

    def responder(self, bases: Float[Tensor, "bases d"]) -> FunctionResponder:
        """The network around some bases; it has no logits."""
        return FunctionResponder(self.outputs, bases, is_logits=False)

    def threshold_angle(self, base: Float[Tensor, " d"]) -> float:
        """The angle on the sphere through `base` at which a feature orthogonal to it leaves the plateau, in degrees."""
        return math.degrees(math.asin(self.width / float(base.norm())))

"""How far a perturbed run is from the clean one: divergence of predictions, distance and cosine of late activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.half_precision import SpotCheck
from tremorscope.instruments.activations.sweep_routes import Head, Late

READOUTS = ("kl", "l2", "cosine")
VECTORS = 4096  # as float64 at a time
NOISE_UNITS = 8.4  # a divergence below so many units of rounding is noise: 1e-6 in float32


@final
@dataclass(frozen=True, kw_only=True)
class Responses:
    """Read-outs of every point, float64; None for those that were not asked for.

    `kl` is `KL(base || perturbed)` in nats; `l2` and `cosine` compare late activations. `num_clipped` counts
    divergences that were below `noise`, the rounding of the network's precision, and are given as 0.

    In 16 bits `floor` is the divergence between computations of the same points (the noise floor of the curve, to be
    shown beside it), `noise` is not below it, and `spot` compares some of the points with float32.
    """

    kl: Float[Tensor, " n"] | None = None
    l2: Float[Tensor, " n"] | None = None
    cosine: Float[Tensor, " n"] | None = None
    noise: float = 0.0
    num_clipped: int = 0
    floor: float | None = None
    spot: SpotCheck | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """What did not go as one would like, in words."""
        return () if self.spot is None or self.spot.agrees else (f"16 bits are not enough: {self.spot}",)

    @classmethod
    def joined(cls, parts: Sequence[Responses]) -> Responses:
        """Those of several chunks as one."""

        def of(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else torch.cat(values)

        return cls(
            kl=of("kl"),
            l2=of("l2"),
            cosine=of("cosine"),
            noise=parts[0].noise,
            num_clipped=sum(part.num_clipped for part in parts),
        )

    def chosen(self, index: Int[Tensor, " m"]) -> Responses:
        """Those of some points, in their order; the count of clipped ones stays that of all."""
        values: dict[str, Any] = {name: value[index] for name, value in self.values().items()}
        return replace(self, **values)

    def values(self) -> dict[str, Float[Tensor, " n"]]:
        """Those that were asked for, by name."""
        named = {name: getattr(self, name) for name in READOUTS}
        return {name: value for name, value in named.items() if value is not None}


@final
class Comparison:
    """Read-outs against the clean run of each prompt.

    The divergence is `lse(z) - p.z - (lse(z0) - p.z0)` with `p` the clean prediction: the logits are looked at once,
    for their log-sum-exp. Where the read-out layer is known, `p.z` is one product of the late activation with `W^T p`.
    Sums over the vocabulary have the network's precision, at least float32; differences are formed in float64.

    Raises:
        BadInput: If a read-out has no such name, or a divergence is asked of a network without logits.
    """

    def __init__(self, clean: Late, readouts: Sequence[str], head: Head | None, name: str) -> None:
        unknown = [readout for readout in readouts if readout not in READOUTS]
        if unknown or not readouts:
            raise BadInput("readouts", got=list(readouts), wanted=f"some of {', '.join(READOUTS)}")
        self.readouts, self.head = tuple(readouts), head
        self.hidden = clean.hidden.detach().double()
        dtype = clean.hidden.dtype
        self.noise = NOISE_UNITS * torch.finfo(dtype).eps
        if "kl" not in readouts:
            return
        if clean.logits is None or clean.logits.shape[-1] < 2:
            raise BadInput(
                f"divergence of the predictions of {name!r}",
                got="no logits",
                wanted="outputs that are logits of at least two classes",
                remedy="Use readouts=('l2', 'cosine').",
            )
        logits = clean.logits.detach()
        self.working = torch.promote_types(logits.dtype, torch.float32)
        self.prediction = logits.double().softmax(dim=-1)
        if head is None:
            self.weighing = self.prediction.to(self.working)
        else:
            self.weighing = weighted_sum(self.prediction, head.weight.detach())
            bias = None if head.bias is None else head.bias.detach().double()
            self.offset = 0.0 if bias is None else self.prediction @ bias
        self.level = self._bracket(clean._replace(hidden=clean.hidden.detach(), logits=logits), None)

    def __call__(
        self, late: Late, rows: Int[Tensor, " n"], *, clip: bool = True, noise: float | None = None
    ) -> Responses:
        """Read-outs of one chunk; differentiable if not clipped. `noise` replaces what the precision lets expect."""
        noise = self.noise if noise is None else noise
        found: dict[str, Any] = {}
        num_clipped = 0
        if "kl" in self.readouts:
            kl = self._bracket(late, rows) - self.level[rows]
            if clip:
                is_noise = kl < noise
                num_clipped = int(is_noise.sum())
                kl = kl.masked_fill(is_noise, 0.0)
            found["kl"] = kl
        if "l2" in self.readouts or "cosine" in self.readouts:
            hidden, base = late.hidden.double(), self.hidden[rows]
            if "l2" in self.readouts:
                found["l2"] = (hidden - base).norm(dim=-1)
            if "cosine" in self.readouts:
                found["cosine"] = torch.cosine_similarity(hidden, base, dim=-1)
        return Responses(**found, noise=noise, num_clipped=num_clipped)

    def _bracket(self, late: Late, rows: Tensor | None) -> Float[Tensor, " n"]:
        """Cross-entropy of perturbed predictions against the clean ones: `lse(z) - p.z`."""
        assert late.logits is not None
        logits = late.logits.to(self.working)
        chosen: Tensor = self.weighing if rows is None else self.weighing[rows]
        if self.head is None:
            expected = (logits * chosen).sum(dim=-1).double()
        else:
            expected = (late.hidden.double() * chosen).sum(dim=-1)
            expected = expected + (self.offset if rows is None or isinstance(self.offset, float) else self.offset[rows])
        return log_sum_exp(logits) - expected


def weighted_sum(
    weights: Float[Tensor, "rows classes"], vectors: Float[Tensor, "classes d"]
) -> Float[Tensor, "rows d"]:
    """`weights @ vectors` in float64, some of the vectors at a time.

    In float32 the rounding of this sum over a vocabulary would be ten times that of the whole network.
    """
    total = torch.zeros(len(weights), vectors.shape[1], dtype=torch.float64, device=vectors.device)
    for some, part in zip(torch.split(weights, VECTORS, dim=1), torch.split(vectors, VECTORS), strict=True):
        total += some.double() @ part.double()
    return total


def log_sum_exp(logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """Log of the sum of exponentials in float64; the exponentials themselves in the logits' precision."""
    largest = logits.detach().amax(dim=-1, keepdim=True)
    if torch.is_grad_enabled() and logits.requires_grad:
        total = (logits - largest).exp().sum(dim=-1)
    else:
        total = torch.sub(logits, largest).exp_().sum(dim=-1)
    return total.double().log() + largest[:, 0].double()

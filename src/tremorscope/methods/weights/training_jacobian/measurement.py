"""Everything that is measured on one training Jacobian."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.figures import Figure
from tremorscope.foundations.results import Table
from tremorscope.instruments.losses import recognise
from tremorscope.instruments.network import Network
from tremorscope.instruments.scores import scores
from tremorscope.instruments.task import Batch
from tremorscope.methods.weights.training_jacobian.dense import TrainingJacobian
from tremorscope.methods.weights.training_jacobian.figures import member_figures
from tremorscope.methods.weights.training_jacobian.input_span import low_variance_directions
from tremorscope.methods.weights.training_jacobian.regions import (
    TOLERANCES,
    LiveSpectrum,
    RegionSizes,
    central_count,
    live_spectrum,
    region_sizes,
)
from tremorscope.methods.weights.training_jacobian.steps import probe_batches, worst_divergence
from tremorscope.methods.weights.training_jacobian.symmetry import output_shift_directions

BULK_TOLERANCE = 1e-2
# The published counts, as shares of the 4,618 live directions of the published network.
OVERLAP_SHARE = 1000 / 4618
STEP_SHARE = 200 / 4618
TAIL_SHARE = 300 / 4618


@final
@dataclass(frozen=True, kw_only=True)
class InputNull:
    """The same measurements on the low-variance input directions, which no training produced.

    `divergence` has unit steps for each kind of input, along as many directions as the bulk's steps;
    `drift_share` is the share of the drift inside as many directions as the bulk has; `basis` has as many
    as the overlap compares.
    """

    basis: Float[Tensor, "params k"]
    divergence: Mapping[str, Tensor]
    drift_share: float

    def step(self, kind: str) -> float:
        """Median over directions of the worst divergence after a unit step."""
        return float(self.divergence[kind].median())


@final
@dataclass(frozen=True, kw_only=True)
class TrainingJacobianMeasurement:
    """Spectrum, regions, alignment, silence in and out of distribution, and drift of one training run.

    All vectors run over the live directions, singular values descending. `divergence[kind][i]` is the worst
    KL over examples of that kind after a unit step along initial direction `i` from the trained weights, in
    nats; it is empty (and flagged) where outputs are no logits or inputs no real numbers. `drift[i] = |v_i .
    (theta_T - theta_0)|`. `central` holds the most central initial directions, for overlaps with other runs;
    `symmetry` those that no softmax can see, which lie at the centre of every bulk.
    `input_null` is None (and flagged) where there is no first linear layer.
    """

    values: Float[Tensor, " live"]
    alignment: Float[Tensor, " live"]
    drift: Float[Tensor, " live"]
    divergence: Mapping[str, Tensor]
    central: Float[Tensor, "params k"]
    regions: tuple[RegionSizes, ...]
    span_alignment: tuple[float, ...]  # per tolerance, NaN where the bulk is empty
    symmetry: Float[Tensor, "params s"]
    num_dead: int
    scores: Mapping[str, float]  # loss and accuracy, training and held out
    input_null: InputNull | None
    route: str
    flags: tuple[str, ...] = field(default=())

    @property
    def num_live(self) -> int:
        """Number of live directions."""
        return len(self.values)

    @property
    def bulk(self) -> Tensor:
        """Mask of the bulk at the tolerance that the claims use, 1e-2."""
        return (self.values - 1).abs() <= BULK_TOLERANCE

    @property
    def bulk_alignment(self) -> float:
        """Mean `<u_i, v_i>` over the bulk; NaN when it is empty."""
        return float(self.alignment[self.bulk].mean())

    @property
    def tail_alignment(self) -> float:
        """Mean `<u_i, v_i>` over the most forgotten directions."""
        return float(self.alignment[-central_count(self.num_live, TAIL_SHARE) :].mean())

    @property
    def bulk_drift_share(self) -> float:
        """Norm of the drift inside the bulk over its whole norm."""
        return float(self.drift[self.bulk].norm() / self.drift.norm())

    def share(self, *, within: float) -> float:
        """Share of the live directions with `|sigma - 1|` below a tolerance."""
        return float(((self.values - 1).abs() < within).double().mean())

    def step(self, kind: str) -> float:
        """Median over the most central directions of the worst divergence after a unit step."""
        nearest = (self.values - 1).abs().argsort(stable=True)[: central_count(self.num_live, STEP_SHARE)]
        return float(self.divergence[kind][nearest].median())

    def tables(self) -> list[Table]:
        """Region sizes and training scores."""
        regions = Table(
            name="training_jacobian_regions",
            title="Regions of the training Jacobian",
            caption=f"Of {self.num_live} live directions (the other {self.num_dead} weights get no gradient): "
            "how many training stretches, carries over and forgets, at four tolerances; span alignment is the mean "
            "squared cosine between the initial and the final span of the bulk.",
            columns={
                "tolerance": [size.tolerance for size in self.regions],
                "chaotic (above 1 + tol)": [size.chaotic for size in self.regions],
                "bulk (within tol of 1)": [size.bulk for size in self.regions],
                "stable (below 1 - tol)": [size.stable for size in self.regions],
                "span alignment of the bulk": list(self.span_alignment),
            },
        )
        return [regions]

    def figures(self) -> list[Figure]:
        """Spectrum, alignment, divergence and drift along the spectrum."""
        return member_figures(self)

    def to_arrays(self) -> dict[str, Tensor]:
        """Tensors to keep; the rest is `to_plain`."""
        arrays = {"values": self.values, "alignment": self.alignment, "drift": self.drift}
        arrays |= {f"divergence.{kind}": value for kind, value in self.divergence.items()}
        arrays |= {"central": self.central.float(), "symmetry": self.symmetry}
        if self.input_null is not None:
            arrays["input_null.basis"] = self.input_null.basis.float()
            arrays |= {f"input_null.{kind}": value for kind, value in self.input_null.divergence.items()}
        return arrays

    def to_plain(self) -> dict[str, Any]:
        """Numbers to keep beside the tensors, as JSON."""
        return {
            "regions": [list(size) for size in self.regions],
            "span_alignment": [None if value != value else value for value in self.span_alignment],
            "num_dead": self.num_dead,
            "scores": dict(self.scores),
            "input_null": None if self.input_null is None else {"drift_share": self.input_null.drift_share},
            "route": self.route,
            "flags": list(self.flags),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> TrainingJacobianMeasurement:
        """The inverse of `to_plain` and `to_arrays`."""
        null = plain["input_null"]
        return cls(
            values=arrays["values"],
            alignment=arrays["alignment"],
            drift=arrays["drift"],
            divergence=_kinds(arrays, "divergence."),
            central=arrays["central"],
            symmetry=arrays["symmetry"],
            regions=tuple(RegionSizes(*size) for size in plain["regions"]),
            span_alignment=tuple(float("nan") if value is None else value for value in plain["span_alignment"]),
            num_dead=plain["num_dead"],
            scores=plain["scores"],
            input_null=None
            if null is None
            else InputNull(
                basis=arrays["input_null.basis"],
                divergence={k: v for k, v in _kinds(arrays, "input_null.").items() if k != "basis"},
                drift_share=null["drift_share"],
            ),
            route=plain["route"],
            flags=tuple(plain["flags"]),
        )


def measure_training_jacobian(
    network: Network,
    jacobian: TrainingJacobian,
    *,
    seed: int,
    overlap_share: float = OVERLAP_SHARE,
    spectrum: LiveSpectrum | None = None,
) -> TrainingJacobianMeasurement:
    """Decompose one training Jacobian (unless its `spectrum` is given) and look at its directions from the trained end.

    Cost: a float64 decomposition, and three forward passes of the training set for each live direction.

    Raises:
        BadInput: If the network has no task.
        NotConverged: If the decomposition failed by every driver.
    """
    spectrum = live_spectrum(jacobian) if spectrum is None else spectrum
    trained = network.at(jacobian.last)
    everything = spectrum.initial_directions(torch.arange(len(spectrum.values)))
    overlap_count = central_count(len(spectrum.values), overlap_share)
    drift = (everything.T @ jacobian.drift.cpu()).abs()
    input_null, flags = None, spectrum.flags
    batches: dict[str, Batch] = {}
    divergence: dict[str, Tensor] = {}
    try:
        if recognise(network.required_task().loss) == "squared_error":
            raise BadInput("outputs under squared error", got="real numbers", wanted="logits")
        batches = probe_batches(network.required_task(), seed)
        divergence = {kind: worst_divergence(trained, everything, batch) for kind, batch in batches.items()}
    except BadInput as error:
        batches = {}
        flags += (f"no unit steps: {error}",)
    try:
        input_null = _input_null(
            network, trained, jacobian, spectrum.sizes(BULK_TOLERANCE).bulk, overlap_count, batches
        )
    except BadInput as error:
        flags += (f"no null without a network: {error}",)
    return TrainingJacobianMeasurement(
        values=spectrum.values,
        alignment=spectrum.alignment,
        drift=drift,
        divergence=divergence,
        central=spectrum.initial_directions(spectrum.central(overlap_count)),
        regions=tuple(region_sizes(spectrum)),
        span_alignment=tuple(spectrum.span_alignment(spectrum.bulk(tolerance)) for tolerance in TOLERANCES),
        symmetry=output_shift_directions(network),
        num_dead=spectrum.num_dead,
        scores=scores(trained),
        input_null=input_null,
        route=jacobian.route,
        flags=flags,
    )


def _input_null(
    network: Network,
    trained: Network,
    jacobian: TrainingJacobian,
    bulk_count: int,
    overlap_count: int,
    batches: Mapping[str, Batch],
) -> InputNull:
    num_steps = central_count(len(jacobian.live), STEP_SHARE)
    basis = low_variance_directions(network, max(bulk_count, overlap_count, num_steps))
    inside = (basis[:, :bulk_count].T @ jacobian.drift.cpu()).norm()
    return InputNull(
        basis=basis[:, :overlap_count],
        divergence={kind: worst_divergence(trained, basis[:, :num_steps], batch) for kind, batch in batches.items()},
        drift_share=float(inside / jacobian.drift.norm()),
    )


def _kinds(arrays: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

"""Training that may only move inside random hyperplanes, against where they lie relative to the zone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators.route_choice import AskedRoute
from tremorscope.instruments.subspace_training import train_inside
from tremorscope.instruments.task import Batch
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.goldilocks.restricted import random_basis, restricted_curvature, route_for_one_block
from tremorscope.methods.weights.goldilocks.scaling import scaled_weights, tempered
from tremorscope.methods.weights.goldilocks.statistics import positivity


@final
@dataclass(frozen=True, kw_only=True)
class HyperplaneTraining:
    """Runs inside nested random hyperplanes through `scale * weights`.

    Row `i` has hyperplanes of `dimensions[i]`, column `j` starts at `scales[j]`. `accuracy` is after training, on
    held-out examples where there are any; `kappa` and `loss` are those of the hyperplane before training.
    """

    dimensions: tuple[int, ...]
    scales: tuple[float, ...]
    accuracy: Float[Tensor, "dimensions scales"]
    kappa: Float[Tensor, "dimensions scales"]
    loss: Float[Tensor, "dimensions scales"]

    def to_plain(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {
            "dimensions": list(self.dimensions),
            "scales": list(self.scales),
            **{name: [[v if math.isfinite(v) else repr(v) for v in row] for row in getattr(self, name).tolist()]
               for name in ("accuracy", "kappa", "loss")},
        }  # fmt: skip

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> HyperplaneTraining:
        """The inverse of `to_plain`."""

        def curve(name: str) -> Tensor:
            return torch.tensor([[float(v) for v in row] for row in plain[name]], dtype=torch.float64)

        return cls(
            dimensions=tuple(plain["dimensions"]),
            scales=tuple(plain["scales"]),
            accuracy=curve("accuracy"),
            kappa=curve("kappa"),
            loss=curve("loss"),
        )


def train_on_hyperplanes(
    network: Network,
    trainer: Trainer,
    *,
    scales: Sequence[float],
    dimensions: Sequence[int],
    batch: Batch | None = None,
    equal_loss: bool = False,
    seed: int = 0,
) -> HyperplaneTraining:
    """How far does training inside a random hyperplane get, by its distance from the origin?

    One random subspace is drawn; smaller hyperplanes lie in the larger ones. The same directions are used at all
    scales of the network's present weights.

    Args:
        network: Needs a task with classes. Its weights give the ray.
        trainer: How to train; the optimiser acts on the coordinates in the hyperplane.
        scales: Of the starting weights.
        dimensions: Of the hyperplanes.
        batch: Data of the curvature; all training examples by default.
        equal_loss: Divide the outputs at each scale by how much that scale enlarged them (their root mean square,
            compared with scale 1), so that all radii start with the same loss. Where weights and outputs scale
            alike (ReLU without biases), kappa is then the same at all radii too: what is left is the radius.
        seed: Of the subspace.

    Cost: a run for each scale and dimension, and a block of Hessian products of the largest for each scale.

    Raises:
        BadInput: If a dimension is below 1 or above the number of weights, or the task has no classes.
    """
    task = network.required_task()
    if task.num_classes is None:
        raise BadInput("task of hyperplane training", got="no classes", wanted="a classification task")
    if not dimensions or min(dimensions) < 1:
        raise BadInput("dimensions", got=list(dimensions), wanted="positive numbers")
    batch = task.train_batch() if batch is None else batch
    basis = random_basis(network.theta, max(dimensions), generator(seed, "hyperplane"))
    size = _output_size(network, batch)
    shape = len(dimensions), len(scales)
    accuracy, kappa, loss = (torch.full(shape, math.nan, dtype=torch.float64) for _ in range(3))
    route: AskedRoute | None = None
    for column, scale in enumerate(scales):
        there = network.at(scaled_weights(network, scale))
        if equal_loss:
            there = tempered(there, size / _output_size(there, batch))
        route = route or route_for_one_block(there, batch, basis)
        curvature = restricted_curvature(there, batch, basis, route=route)
        for row, dimension in enumerate(dimensions):
            kappa[row, column] = positivity(curvature.matrix[:dimension, :dimension]).kappa
            loss[row, column] = curvature.loss
            last = train_inside(trainer.bind(there), there.theta, basis[:, :dimension])
            accuracy[row, column] = _accuracy(there.at(last))
    return HyperplaneTraining(
        dimensions=tuple(dimensions), scales=tuple(scales), accuracy=accuracy, kappa=kappa, loss=loss
    )


def rank_correlation(outcome: Float[Tensor, "dimensions scales"], cause: Float[Tensor, "dimensions scales"]) -> float:
    """Spearman's correlation along the scales, averaged over the dimensions; 0 for a row that does not vary.

    >>> up = torch.tensor([[1.0, 2.0, 3.0]])
    >>> round(rank_correlation(up, up.exp()), 6), round(rank_correlation(up, -up), 6)
    (1.0, -1.0)

    Raises:
        BadInput: If the shapes differ, or a value is NaN.
    """
    if outcome.shape != cause.shape or bool((outcome + cause).isnan().any()):
        raise BadInput(
            "values to correlate", got=f"{tuple(outcome.shape)} and {tuple(cause.shape)}", wanted="equal shapes, no NaN"
        )
    ranks = [torch.stack([_ranks(row) for row in values]) for values in (outcome, cause)]
    a, b = (part - part.mean(1, keepdim=True) for part in ranks)
    size = (a.norm(dim=1) * b.norm(dim=1)).clamp_min(torch.finfo(torch.float64).tiny)
    return float(((a * b).sum(1) / size).mean())


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1, ties sharing their mean."""
    below = (values[None, :] < values[:, None]).sum(1)
    ties = (values[None, :] == values[:, None]).sum(1)
    return below.double() + (ties.double() + 1) / 2


def _output_size(network: Network, batch: Batch) -> float:
    with torch.no_grad():
        size = float(network.apply(network.params, batch).double().square().mean().sqrt())
    if not 0 < size < math.inf:
        raise BadInput("size of the outputs", got=size, wanted="a positive finite number", remedy="Use other scales.")
    return size


def _accuracy(network: Network) -> float:
    task = network.required_task()
    batch = task.train_batch() if task.test_inputs is None else task.test_batch()
    with torch.no_grad():
        chosen = network.apply(network.params, batch).argmax(-1)
    targets = batch.target
    return 0.0 if targets is None else float(chosen.eq(targets).double().mean())

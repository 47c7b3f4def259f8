"""Training Jacobians of small networks, and measurements made up for the comparison of many."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from tests.laws.operator_cases import filled, stream
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import momentum
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.training_jacobian import TrainingJacobian, training_jacobian
from tremorscope.methods.weights.training_jacobian.measurement import InputNull, TrainingJacobianMeasurement
from tremorscope.methods.weights.training_jacobian.regions import TOLERANCES, RegionSizes

F64 = torch.float64
NUM = 24


def task(num_test: int = 4, loss: str = "cross_entropy") -> Task:
    """Seven inputs, of which the third is dark and the last two hardly vary."""
    inputs = torch.randn(NUM + num_test, 7, generator=stream(1), dtype=F64)
    inputs[:, 5:] *= 0.01
    inputs[:, 2] = 0
    classes = torch.randint(0, 3, (NUM + num_test,), generator=stream(2))
    real = torch.randn(NUM + num_test, 3, generator=stream(3), dtype=F64)
    return Task.of(inputs, classes if loss == "cross_entropy" else real, num_test=num_test)


def network(seed: int = 3, *, num_steps: int = 7, lr: float = 0.2, dtype: torch.dtype = F64, **options) -> Network:
    """A 7-4-3 perceptron of 47 weights, four of them dead."""
    with torch.random.fork_rng(devices=[]):
        module = filled(nn.Sequential(nn.Linear(7, 4), nn.Tanh(), nn.Linear(4, 3)), dtype, seed)
    trainer = Trainer(optimiser=momentum(lr), num_steps=num_steps, batch_size=10, schedule="cosine")
    return Network(module, **{"task": task(), "recipe": trainer, "dtype": dtype} | options)


@cache
def jacobian(seed: int = 3) -> TrainingJacobian:
    """Of `network(seed)`, made once."""
    return training_jacobian(network(seed))


def orthonormal(rows: int, columns: int, seed: int) -> Tensor:
    """Random orthonormal columns."""
    return torch.linalg.qr(torch.randn(rows, columns, generator=stream(seed), dtype=F64)).Q


def made_up(seed: int, *, k: int = 6, num_params: int = 20, num_dead: int = 2, **fields) -> TrainingJacobianMeasurement:
    """A measurement of the right shapes with random content."""
    live = num_params - num_dead
    values = (0.7 * torch.randn(live, generator=stream(seed), dtype=F64)).exp().sort(descending=True).values
    numbers = {
        "values": values,
        "alignment": torch.rand(live, generator=stream(seed + 1), dtype=F64),
        "drift": torch.rand(live, generator=stream(seed + 2), dtype=F64),
        "divergence": {kind: torch.rand(live, dtype=F64) for kind in ("training", "normal", "inverted")},
        "central": orthonormal(num_params, k, seed + 3),
        "symmetry": torch.zeros(num_params, 0, dtype=F64),
        "regions": tuple(RegionSizes(tolerance, 5, live - 9, 4) for tolerance in TOLERANCES),
        "span_alignment": (0.9, 0.8, 0.7, float("nan")),
        "num_dead": num_dead,
        "scores": {"training loss": 0.1 + seed, "held-out loss": 0.2},
        "input_null": InputNull(
            basis=orthonormal(num_params, k, seed + 4),
            divergence={kind: torch.rand(3, dtype=F64) for kind in ("training", "normal", "inverted")},
            drift_share=0.3,
        ),
        "route": "structured",
    }
    return TrainingJacobianMeasurement(**numbers | fields)

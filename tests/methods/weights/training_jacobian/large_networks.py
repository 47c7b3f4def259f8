"""Two networks of 60,000 weights and more, and a program that measures one within a memory limit.

`python large_networks.py KIND MEGABYTES` prints, as JSON, what was promised and what it took.
"""

from __future__ import annotations

import json
import resource
import sys

import torch
from torch import Tensor, nn

from tremorscope.instruments.data import digits
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import adam, momentum
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.training_jacobian.operator_form import measure_operator_form


class Transformer(nn.Module):
    """Rows of an image as tokens, two layers, mean over tokens."""

    def __init__(self, width: int = 52) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.place = nn.Parameter(0.02 * torch.randn(8, width))
        layers = [
            nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True)
            for _ in range(2)
        ]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.embed(x.reshape(len(x), 8, 8)) + self.place
        return self.head(self.layers(rows).mean(1))


class Convolutional(nn.Module):
    """Two convolutions and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 32, 3, padding=1), nn.GELU(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(512, 110), nn.GELU(), nn.Linear(110, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.reshape(len(x), 1, 8, 8))


def network(kind: str, num_steps: int) -> Network:
    """A network with the digits as its task, and a recipe of so many steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Convolutional() if kind == "cnn" else Transformer()
    task = digits()
    chosen = Task.of(task.inputs[:256].float(), task.targets[:256])
    optimiser = momentum(0.05) if kind == "cnn" else adam(1e-3, eps_root=1e-8)
    return Network(module, task=chosen, recipe=Trainer(optimiser=optimiser, num_steps=num_steps, batch_size=32))


def resident() -> float:
    """Largest resident memory so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    torch.set_num_threads(1)
    kind, limit = sys.argv[1], int(sys.argv[2])
    net = network(kind, 20)
    # What any use of torch.func brings into memory is not the measurement's.
    with torch.random.fork_rng(devices=[]):
        warm = Network(
            Transformer(4), task=net.task, recipe=Trainer(optimiser=momentum(0.05), num_steps=2, batch_size=2)
        )
    measure_operator_form(warm, k=1, max_blocks=1, num_probes=2, num_steps=1, num_directions=1)
    before = resident()
    found = measure_operator_form(
        net, k=6, max_blocks=3, num_probes=4, num_steps=6, num_directions=8, memory_limit=limit * 1_000_000
    )
    print(
        json.dumps(
            {
                "num_weights": net.layout.size,
                "promised_mb": sum(found.plan.memory.values()) / 1e6,
                "used_mb": resident() - before,
                "promised_seconds": found.plan.seconds,
                "seconds": found.seconds,
                "chunk": found.plan.chunk,
                "keeps_all_states": found.plan.keeps_all_states,
                "largest": float(found.chaotic.values[0]),
                "error": float(found.chaotic.errors[0]),
                "low": found.log_determinant.low,
                "high": found.log_determinant.high,
            }
        )
    )


if __name__ == "__main__":
    main()

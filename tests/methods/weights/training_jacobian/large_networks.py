"""Two networks of 60,000 weights and more, and a program that measures one within a memory limit.

`python large_networks.py KIND MEGABYTES` prints, as JSON, what was promised and what it took.
"""

from __future__ import annotations

import json
import resource
import sys

import torch

from tremorscope.instruments.data import digits
from tremorscope.instruments.digit_networks import RowTransformer, digits_cnn, digits_transformer
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import adam, momentum
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.training_jacobian.operator_form import measure_operator_form


def network(kind: str, num_steps: int) -> Network:
    """A network with some of the digits as its task, and a recipe of so many steps."""
    task = digits()
    chosen = Task.of(task.inputs[:256].float(), task.targets[:256])
    build = digits_cnn if kind == "cnn" else digits_transformer
    whole = build(task=chosen)
    optimiser = momentum(0.05) if kind == "cnn" else adam(1e-3, eps_root=1e-8)
    return whole.with_recipe(Trainer(optimiser=optimiser, num_steps=num_steps, batch_size=32))


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
            RowTransformer(4), task=net.task, recipe=Trainer(optimiser=momentum(0.05), num_steps=2, batch_size=2)
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

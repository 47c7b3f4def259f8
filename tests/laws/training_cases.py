"""Training as an operator, registered for the laws: every optimiser, every source, named rows and columns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import grad, jacfwd

from tests.instruments.tangents.training_runs import CLASSES, DECAYS, NUM, OPTIMISERS, run_of
from tests.laws.operator_cases import Case, operator_case
from tremorscope.instruments.network import Network
from tremorscope.instruments.tangents import TrainingMap
from tremorscope.instruments.tangents.training_map import Wrt
from tremorscope.instruments.trainer import Training

NUM_STEPS = 4
ENTRIES: dict[Wrt, int] = {
    "learning_rate": 1,
    "learning_rates": NUM_STEPS,
    "example_weights": NUM,
    "targets": NUM * CLASSES,
}


def network(optimiser: str = "momentum", loss: str = "cross_entropy", dtype: torch.dtype = torch.float64) -> Network:
    return run_of(
        lambda: nn.Sequential(nn.Linear(6, 3), nn.GELU(), nn.Linear(3, CLASSES)),
        optimiser=(OPTIMISERS | DECAYS)[optimiser],
        loss=loss,
        dtype=dtype,
        num_steps=NUM_STEPS,
    )


def retrained(training: Training, wrt: Wrt, nudges: Tensor) -> Tensor:
    """The last weights after a nudge: a plain loop over outputs, losses of examples and updates."""
    theta, task = training.network.start, training.task
    rates = torch.ones(training.num_steps, dtype=theta.dtype)
    weights = torch.ones(task.size, dtype=theta.dtype)
    is_classes = not task.targets.is_floating_point()
    wanted = nn.functional.one_hot(task.targets, CLASSES).to(theta.dtype) if is_classes else task.targets
    if wrt == "initial_weights":
        theta = theta + nudges
    elif wrt == "example_weights":
        weights = weights + nudges
    elif wrt == "targets":
        wanted = wanted + nudges.view(-1, CLASSES)
    else:
        rates = rates + nudges

    def loss(at: Tensor, t: int) -> Tensor:
        chosen = training.indices(t)
        output = training.network.apply(at, training.batch(t))
        if is_classes:
            each = -(wanted[chosen] * output.log_softmax(-1)).sum(-1)
        else:
            each = (output - wanted[chosen]).square().mean(-1)
        return weights[chosen] @ each / len(chosen)

    state = training.init(theta)
    for t in range(training.num_steps):
        before, gradient = state[0], grad(loss)(state[0], t)
        now, slots = training.trainer.optimiser.update(
            before, gradient, tuple(state[1:]), factor=training.factor(t), step=t
        )
        state = (before + rates[t] * (now - before), *slots)
    return state[0]


def derivative(training: Training, wrt: Wrt) -> Tensor:
    """The dense matrix, one piece of forward-mode differentiation through the plain loop."""
    entries = ENTRIES.get(wrt, training.network.layout.size)
    return jacfwd(partial(retrained, training, wrt))(torch.zeros(entries, dtype=training.network.dtype))


def register(name: str, build: Callable[[torch.dtype], tuple[Network, dict[str, object]]]) -> None:
    """`build(dtype)` gives the network with its recipe, and the options of its `TrainingMap`."""

    def make(dtype: torch.dtype) -> Case:
        net, options = build(dtype)
        training = net.recipe.bind(net)
        dense = derivative(training, options.get("wrt", "initial_weights"))
        if "rows" in options:
            dense = dense[net.layout.indices(options["rows"])]
        if "columns" in options:
            dense = dense[:, net.layout.indices(options["columns"])]
        return Case(TrainingMap(training, net.start, **options), dense, net.module)

    make.__name__ = f"training_{name}"
    TRAINING_CASES.append(make.__name__)
    operator_case(make)


TRAINING_CASES: list[str] = []
for _name in [*OPTIMISERS, *DECAYS]:
    register(f"by_initial_weights_{_name}", lambda dtype, name=_name: (network(name, dtype=dtype), {}))
for _wrt in ENTRIES:
    for _name in ("nesterov, decay", "adamw"):
        register(f"by_{_wrt}_{_name}", lambda dtype, n=_name, w=_wrt: (network(n, dtype=dtype), {"wrt": w}))
    register(
        f"by_{_wrt}_squared_error_generic",
        lambda dtype, w=_wrt: (network("adam", "squared_error", dtype), {"wrt": w, "route": "generic"}),
    )
register("of_named_rows", lambda dtype: (network(dtype=dtype), {"rows": "2.*"}))
register("of_named_columns", lambda dtype: (network(dtype=dtype), {"columns": "*.bias"}))
register("named_both_ways", lambda dtype: (network(dtype=dtype), {"rows": "0.weight", "columns": "2.*"}))
register(
    "named_rows_by_examples",
    lambda dtype: (network(dtype=dtype), {"rows": "*.weight", "wrt": "example_weights"}),
)
register(
    "from_checkpoints_in_chunks",
    lambda dtype: (network("adam", dtype=dtype), {"route": "generic", "memory": 0, "chunk": 16}),
)

"""What does one column of the training Jacobian cost, by our two routes and by the two that anybody can write?

All four differentiate the same run: a 64-hidden-10 perceptron on the digits, batches of 64, momentum, cosine. Ours are
the structured and the generic route. The others go through a training function as one writes it without us: `jvp` for
one tangent after the other, and `vmap` of `jvp` over 256 tangents, which is what `jacfwd` does in chunks. Their results
are compared before their times are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from timing import Row, best_of, gemm_peak, record
from torch import Tensor
from torch.func import grad, jvp, vmap

from tremorscope.instruments.builtin import digits_mlp
from tremorscope.instruments.executor import one_thread
from tremorscope.instruments.tangents import tangents
from tremorscope.instruments.trainer import Training

CHUNK = 256
OURS = 96  # columns in a block of ours; the library itself takes 32 to 128, by shape


@dataclass(frozen=True)
class Network:
    """One network of the benchmark; `short` steps are enough to time what costs the same at every step."""

    hidden: int
    num_steps: int
    short: int


NETWORKS = (Network(16, 300, 100), Network(64, 625, 50))


def main() -> None:
    rows: list[Row] = []
    with one_thread():
        for dtype in (torch.float32, torch.float64):
            peak = gemm_peak(dtype)
            measured = [row for network in NETWORKS for row in measure(network, dtype)]
            peak = max(peak, gemm_peak(dtype))
            rows += [finished(row, peak) for row in measured]
        record(
            "training_jacobian",
            rows,
            title="One tangent of training, and all of them",
            note="CPU time of one thread; best of 5 (the last three: best of 2). `whole J` is extrapolated from the "
            "columns and steps that were timed, known columns skipped where the route knows them, with the primal run. "
            "GF/s counts the useful operations, the same for every route; peak: a product of two 1024 x 1024 matrices.",
        )


def measure(case: Network, dtype: torch.dtype) -> list[Row]:
    """Rows of one network; every route is first held against the structured one."""
    training, theta = bound(case.hidden, case.num_steps, dtype)
    brief, _ = bound(case.hidden, case.short, dtype)
    size = theta.numel()
    stream = torch.Generator().manual_seed(0)
    block = torch.randn(size, CHUNK, generator=stream, dtype=torch.float64).to(dtype)

    full, short = (tangents(each, theta, route="structured") for each in (training, brief))
    generic, plain = tangents(brief, theta, route="generic"), plain_training(brief)
    together = vmap(lambda tangent: jvp(plain, (theta,), (tangent,))[1], in_dims=1, out_dims=1)

    def one_by_one() -> Tensor:
        return torch.stack([jvp(plain, (theta,), (tangent,))[1] for tangent in block[:, :2].unbind(1)], dim=1)

    wanted = short(block[:, :2])
    for other in (generic(block[:, :2]), together(block)[:, :2], one_by_one()):
        torch.testing.assert_close(other, wanted, rtol=1e-3 if dtype == torch.float32 else 1e-9, atol=1e-4)

    setups = {
        "structured": best_of(2, lambda: tangents(training, theta, route="structured")),
        "generic": best_of(2, lambda: tangents(training, theta, route="generic")),
    }
    known = len(full.null_columns)
    calls: list[tuple[str, Callable[[], object], int, int, int, int]] = [
        (f"structured, {OURS} together", lambda: full(block[:, :OURS]), OURS, case.num_steps, 5, size - known),
        (f"generic, {OURS} together", lambda: generic(block[:, :OURS]), OURS, case.short, 5, size),
        (f"generic, {CHUNK} together", lambda: generic(block), CHUNK, case.short, 2, size),
        (f"vmap(jvp), {CHUNK} together", lambda: together(block), CHUNK, case.short, 2, size),
        ("jvp, one by one", one_by_one, 2, case.short, 2, size),
    ]
    rows: list[Row] = []
    for route, call, columns, steps, count, wanted_columns in calls:
        each = best_of(count, call) / (columns * steps)
        rows.append(
            {
                "network": f"64-{case.hidden}-10, {case.num_steps} steps",
                "dtype": str(dtype).removeprefix("torch."),
                "route": route,
                "us per tangent-step": 1e6 * each,
                "operations": operations(training, case.hidden),
                "whole J, CPU s": setups.get(route.split(",")[0], 0.0) + each * wanted_columns * case.num_steps,
                "columns timed": columns,
                "steps timed": steps,
            }
        )
    structured = float(rows[0]["us per tangent-step"])
    for row in rows:
        row["x structured"] = float(row["us per tangent-step"]) / structured
    return rows


def finished(row: Row, peak: float) -> Row:
    """A row with its rate and the share of the peak in place of the number of operations."""
    rate = float(row.pop("operations")) / (1e-6 * float(row["us per tangent-step"]))
    columns = ("columns timed", "steps timed")
    ends = {name: row.pop(name) for name in columns}
    return {**row, "GF/s": rate / 1e9, "peak GF/s": peak / 1e9, "share of peak": rate / peak, **ends}


def bound(hidden: int, num_steps: int, dtype: torch.dtype) -> tuple[Training, Tensor]:
    """The built-in network with another number of steps."""
    network = digits_mlp(hidden, num_steps=num_steps, dtype=dtype)
    if not isinstance(network.recipe, Training):
        raise TypeError("the digits network carries a bound trainer")
    return network.recipe, network.start


def operations(training: Training, hidden: int) -> float:
    """Floating-point operations of one tangent at one step, averaged over the steps.

    Two products in the first layer (forward, gradient of its weights), six in the second: each of its three products
    has two factors that move.
    """
    batch = sum(len(training.indices(t)) for t in range(training.num_steps)) / training.num_steps
    return 2 * batch * (2 * 64 * hidden + 6 * hidden * 10)


def plain_training(training: Training) -> Callable[[Tensor], Tensor]:
    """The same run as a user would write it, with nothing of ours inside."""
    task = training.task
    batches = [
        (task.inputs[chosen], task.targets[chosen]) for chosen in map(training.indices, range(training.num_steps))
    ]
    shapes = [tuple(value.shape) for value in training.network.params.values()]
    sizes = [math.prod(shape) for shape in shapes]

    def loss(theta: Tensor, inputs: Tensor, target: Tensor) -> Tensor:
        parts = torch.split(theta, sizes)
        weight, bias, out_weight, out_bias = (part.view(shape) for part, shape in zip(parts, shapes, strict=True))
        hidden = torch.nn.functional.gelu(inputs @ weight.T + bias, approximate="tanh")
        return torch.nn.functional.cross_entropy(hidden @ out_weight.T + out_bias, target)

    gradient = grad(loss)

    def train(theta: Tensor) -> Tensor:
        buffer = torch.zeros_like(theta)
        for t, (inputs, target) in enumerate(batches):
            rate = 0.1 * 0.5 * (1 + math.cos(math.pi * t / len(batches)))
            buffer = 0.9 * buffer + gradient(theta, inputs, target)
            theta = theta - rate * buffer
        return theta

    return train


if __name__ == "__main__":
    main()

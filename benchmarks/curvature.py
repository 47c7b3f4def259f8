"""What does one product with the Hessian cost, and what do many of them cost together?

The network is the digits perceptron, the loss the mean over all its training examples. `linearize` is our first choice:
forward over reverse, traced once. `double backward` keeps the graph of the gradient. `jvp(grad)` keeps nothing, and is
what most code does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from timing import Row, best_of, gemm_peak, record
from torch import Tensor
from torch.func import grad, jvp

from tremorscope.instruments.builtin import digits_mlp
from tremorscope.instruments.executor import one_thread
from tremorscope.instruments.operators import Hessian

REPEATS = 10  # products in one timing: a single one takes too short a time to be read off a clock
BLOCK = 8


def main() -> None:
    rows: list[Row] = []
    with one_thread():
        for dtype in (torch.float32, torch.float64):
            peak = gemm_peak(dtype)
            measured = [(row, count) for hidden in (16, 64) for row, count in measure(hidden, dtype)]
            peak = max(peak, gemm_peak(dtype))
            rows += [
                {**row, "share of peak": count / (1e-3 * float(row["ms per product"])) / peak}
                for row, count in measured
            ]
        record(
            "curvature",
            rows,
            title="One product with the Hessian",
            note=f"CPU time of one thread, best of 5; `block` is {BLOCK} columns together, per column. `x linearize` "
            "compares single products. `built` is what a route costs before its first product; "
            "the two Hessian routes check themselves there.",
        )


def measure(hidden: int, dtype: torch.dtype) -> list[tuple[Row, float]]:
    """Rows of one network, each with the floating-point operations of one product."""
    network = digits_mlp(hidden, dtype=dtype)
    task, theta = network.required_task(), network.theta
    batch = task.train_batch()
    stream = torch.Generator().manual_seed(0)
    block = torch.randn(theta.numel(), BLOCK, generator=stream, dtype=torch.float64).to(dtype)
    vector = block[:, 0].contiguous()
    gradient = grad(lambda theta: network.loss(theta, batch))

    def untraced() -> Tensor:
        product: Tensor = jvp(gradient, (theta,), (vector,))[1]
        return product

    traced, doubled = Hessian(network, batch, route="linearize"), Hessian(network, batch, route="double_backward")
    for other in (doubled @ vector, untraced()):
        torch.testing.assert_close(other, traced @ vector, rtol=1e-3, atol=1e-5)

    calls: list[tuple[str, Callable[[], object], Callable[[], object] | None, Callable[[], object] | None]] = [
        (
            "linearize",
            lambda: traced @ vector,
            lambda: traced @ block,
            lambda: Hessian(network, batch, route="linearize"),
        ),
        (
            "double backward",
            lambda: doubled @ vector,
            lambda: doubled @ block,
            lambda: Hessian(network, batch, route="double_backward"),
        ),
        ("jvp(grad)", untraced, None, None),
    ]
    count = 2.0 * task.size * (2 * 64 * hidden + 6 * hidden * 10)
    found: list[tuple[Row, float]] = []
    for route, single, many, build in calls:
        each = best_of(5, partial(repeated, single)) / REPEATS
        row: Row = {
            "parameters": theta.numel(),
            "examples": task.size,
            "dtype": str(dtype).removeprefix("torch."),
            "route": route,
            "ms per product": 1e3 * each,
            "x linearize": each,
            "block, ms per column": "-" if many is None else 1e3 * best_of(5, many) / BLOCK,
            "built, ms": "-" if build is None else 1e3 * best_of(3, build),
        }
        found.append((row, count))
    first = float(found[0][0]["x linearize"])
    for row, _ in found:
        row["x linearize"] = float(row["x linearize"]) / first
    return found


def repeated(product: Callable[[], object]) -> None:
    for _ in range(REPEATS):
        product()


if __name__ == "__main__":
    main()

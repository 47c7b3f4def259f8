"""Trace and spectral density of a Hessian: ours beside curvlinops, PyHessian and hessian-eigenthings.

The same number of products for everyone, except PyHessian, which stops by itself. hessian-eigenthings gives a standard
error; it counts as the 95 % interval that a normal distribution makes of it.
"""

from __future__ import annotations

from peers.environment import enter

enter()

import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import numpy  # noqa: E402
import torch  # noqa: E402
from peers.digit_problem import Problem, problem  # noqa: E402
from timing import Row, record  # noqa: E402

from tremorscope.foundations.estimate import Estimate  # noqa: E402
from tremorscope.instruments.executor import one_thread  # noqa: E402
from tremorscope.instruments.lanczos_quadrature import lanczos_quadrature  # noqa: E402
from tremorscope.instruments.operators import Hessian  # noqa: E402
from tremorscope.instruments.trace import TraceMethod, trace  # noqa: E402

PROBES = 99
SEEDS = 10
STEPS, DRAWS = 40, 4


def main() -> None:
    with one_thread():
        at = problem(False, torch.float32)
        hessian = Hessian(at.network, at.network.required_task().train_batch())
        exact = trace(hessian, method="exact").value
        rows = traces(at, hessian, exact) + densities(at, hessian)
    record(
        "traces",
        rows,
        title="Trace and spectral density of a Hessian",
        note=f"CPU seconds of one thread, mean of {SEEDS} seeds; the operator is built beforehand. Trace: {PROBES} "
        f"products, exact value {exact:.4g}; `covered` counts 95 % intervals that hold it. Density: {STEPS} steps of "
        f"Lanczos from {DRAWS} probes; ours with full re-orthogonalisation. PyHessian's density calls torch.eig, which "
        "torch has removed.",
    )


def traces(at: Problem, hessian: Hessian, exact: float) -> list[Row]:
    from curvlinops import hutchinson_trace, hutchpp_trace, xtrace
    from hessian_eigenthings.algorithms.trace import trace as eigenthings_trace

    def ours(method: TraceMethod, seed: int) -> Estimate:
        return trace(hessian, method=method, num_probes=PROBES, seed=seed, level=0.95)

    linear, other, yao = at.curvlinops(), at.eigenthings(), at.pyhessian()
    routes: list[tuple[str, Callable[[int], Any]]] = [
        ("tremorscope XTrace", lambda s: ours("xtrace", s)),
        ("tremorscope Hutch++", lambda s: ours("hutch++", s)),
        (
            "tremorscope Hutchinson",
            lambda s: ours("hutchinson", s),
        ),
        ("curvlinops XTrace", lambda seed: float(xtrace(linear, PROBES - 1))),
        ("curvlinops Hutch++", lambda seed: float(hutchpp_trace(linear, PROBES))),
        ("curvlinops Hutchinson", lambda seed: float(hutchinson_trace(linear, PROBES))),
        (
            "hessian-eigenthings Hutch++",
            lambda seed: eigenthings_trace(other, num_matvecs=PROBES, seed=seed),
        ),
        ("PyHessian, its own stop", lambda seed: float(numpy.mean(yao.trace()))),
    ]
    silent = ("curvlinops", "PyHessian")
    rows: list[Row] = []
    for name, work in routes:
        errors, covered, begin = [], 0, time.process_time()
        for seed in range(SEEDS):
            torch.manual_seed(seed)  # what the peers draw from
            found = work(seed)
            value = found if isinstance(found, float) else getattr(found, "estimate", None) or found.value
            if hasattr(found, "stderr"):
                covered += abs(value - exact) <= 1.96 * found.stderr
            elif hasattr(found, "low"):
                covered += found.low <= exact <= found.high
            errors.append(abs(value - exact) / abs(exact))
        rows.append(
            {
                "quantity": "trace",
                "route": name,
                "seconds": (time.process_time() - begin) / SEEDS,
                "rms rel. error": float(numpy.sqrt(numpy.mean(numpy.square(errors)))),
                "covered": "no interval" if name.startswith(silent) else f"{covered} of {SEEDS}",
            }
        )
        print(rows[-1], flush=True)
    return rows


def densities(at: Problem, hessian: Hessian) -> list[Row]:
    from curvlinops import lanczos_approximate_spectrum

    linear = at.curvlinops()
    grid = torch.linspace(-0.5, 2.0, 1024)
    routes: list[tuple[str, Callable[[int], Any]]] = [
        (
            "tremorscope",
            lambda seed: lanczos_quadrature(hessian, num_steps=STEPS, num_probes=DRAWS, seed=seed).density(grid, 0.02),
        ),
        (
            "curvlinops, boundaries included",
            lambda seed: lanczos_approximate_spectrum(linear, STEPS, num_repeats=DRAWS),
        ),
    ]
    rows: list[Row] = []
    for name, work in routes:
        work(0)
        begin = time.process_time()
        for seed in range(3):
            work(seed)
        rows.append(
            {
                "quantity": "density",
                "route": name,
                "seconds": (time.process_time() - begin) / 3,
                "rms rel. error": "-",
                "covered": "pointwise intervals" if name == "tremorscope" else "no interval",
            }
        )
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()

"""How long does Levenberg-Marquardt take to an RMSE of 1e-5 on y = x^2, and how long the best of SciPy's BFGS?

The network is 1-20-20-1 with tanh (481 weights) on 400 points in standard units. BFGS runs on a gradient by plain
reverse mode, without any of our counting, with SciPy's dense update and with its limited memory. Whoever has not
arrived when its steps are used up is given the time it has used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy
import torch
from scipy.optimize import minimize
from timing import Row, record

from tremorscope.instruments.executor import one_thread
from tremorscope.instruments.network import Network
from tremorscope.methods.weights.precision.levenberg_marquardt import levenberg_marquardt
from tremorscope.methods.weights.precision.residuals import Residuals
from tremorscope.methods.weights.precision.standardisation import Standardisation
from tremorscope.methods.weights.precision.targets_to_fit import tanh_student, target_task
from tremorscope.methods.weights.precision.variable_projection import variable_projection

GOAL = 1e-5
STARTS = 2


def main() -> None:
    rows: list[Row] = []
    with one_thread():
        for start in range(STARTS):
            task = target_task("square", 400, start)
            network = tanh_student(Standardisation.of(task).task(task), 20, start)
            rows += measure(network, start)
    record(
        "precision",
        rows,
        title="CPU time to an RMSE of 1e-5 on y = x^2",
        note="CPU time of one thread, least of 2 runs, in standard deviations of the targets. `x best BFGS` is the "
        "time of the faster SciPy route over this row's; above 2 is what row P9 asks of Levenberg-Marquardt.",
    )


def measure(network: Network, start: int) -> list[Row]:
    """Rows of one start."""

    def stage(run: Callable[..., Any]) -> Callable[[], float]:
        return lambda: float(run(network, target=GOAL).rmses[-1])

    routes: dict[str, Callable[[], float]] = {
        "Levenberg-Marquardt": stage(lambda n, target: levenberg_marquardt(n, max_iterations=2000, target=target)),
        "without acceleration": stage(
            lambda n, target: levenberg_marquardt(n, max_iterations=500, target=target, accelerate=False)
        ),
        "variable projection": stage(lambda n, target: variable_projection(n, max_iterations=200, target=target)),
        "SciPy BFGS": lambda: scipy_fit(network, "BFGS", 4000),
        "SciPy L-BFGS-B": lambda: scipy_fit(network, "L-BFGS-B", 20_000),
    }
    found: dict[str, tuple[float, float]] = {}
    for name, route in routes.items():
        seconds = []
        for _ in range(2):
            begin = time.process_time()
            error = route()
            seconds.append(time.process_time() - begin)
        found[name] = (min(seconds), error)
    best = min(found["SciPy BFGS"][0], found["SciPy L-BFGS-B"][0])
    return [
        {
            "route": name,
            "start": start,
            "CPU s": seconds,
            "RMSE": error,
            "arrived": "yes" if error <= GOAL else "no",
            "x best BFGS": best / seconds,
        }
        for name, (seconds, error) in found.items()
    ]


def scipy_fit(network: Network, method: str, max_iterations: int) -> float:
    """The error at which SciPy was stopped: at the goal, or when it gave up."""
    residuals = Residuals(network)

    def both(point: numpy.ndarray) -> tuple[float, numpy.ndarray]:
        theta = torch.tensor(point, requires_grad=True)
        loss = (residuals.target - residuals.outputs(theta)).square().mean()
        (gradient,) = torch.autograd.grad(loss, theta)
        return float(loss.detach()), gradient.numpy()

    def stop(intermediate_result: Any) -> None:
        if intermediate_result.fun <= GOAL**2:
            raise StopIteration

    limits = {"gtol": 1e-60} if method == "BFGS" else {"gtol": 0.0, "ftol": 0.0, "maxfun": 2 * max_iterations}
    with numpy.errstate(all="ignore"):
        found = minimize(
            both,
            network.theta.numpy(),
            jac=True,
            method=method,
            callback=stop,
            options={"maxiter": max_iterations, **limits},
        )
    return float(found.fun) ** 0.5


if __name__ == "__main__":
    main()

"""BFGS until its line search fails."""

from __future__ import annotations

import numpy
import torch
from numpy.typing import NDArray

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.weights.precision.levenberg_marquardt import check_finite
from tremorscope.methods.weights.precision.residuals import Residuals
from tremorscope.methods.weights.precision.stage_fit import Outcome, StageFit

_LINE_SEARCH_FAILED = 2  # SciPy's status for "Desired error not necessarily achieved due to precision loss"


def quasi_newton(
    network: Network, data: Batch | None = None, *, max_iterations: int = 500, target: float = 0.0
) -> StageFit:
    """How low does BFGS bring a fit before rounding makes its line search fail?

    SciPy's BFGS in float64 with a gradient tolerance that is never met (1e-60, as published). Its message
    "Desired error not necessarily achieved due to precision loss" is the normal end: `stalled`. The mean
    squared error is divided by its first value, so that a fit that starts near the floor does not meet an
    inverse Hessian of the wrong size.

    Args:
        network: With a mean-squared-error task; starts from its weights.
        data: One batch; the training examples by default.
        max_iterations: Accepted steps.
        target: Training RMSE to stop at.

    Cost: a step is one or two gradients and, in SciPy, two products of `[params, params]` matrices.

    Raises:
        BadInput: If the task is no squared error, or its error is not finite at the start.

    Source: Michaud, Liu and Tegmark 2022, arXiv:2210.13447, section 3.
    """
    from scipy.optimize import minimize

    if max_iterations < 1:
        raise BadInput("max_iterations", got=max_iterations, wanted="at least 1")
    problem = Residuals(network, data)
    check_finite(problem.residual(network.theta))
    first, _ = problem.gradient(network.theta)
    rmses, works = [first**0.5], [problem.work]
    if first == 0:
        return _finished(network, network.theta, rmses, works, "target", "the error was zero at the start")

    def scaled(point: NDArray[numpy.float64]) -> tuple[float, NDArray[numpy.float64]]:
        loss, gradient = problem.gradient(torch.tensor(point, dtype=network.dtype))
        return loss / first, gradient.double().numpy() / first

    def keep(intermediate_result: object) -> None:
        loss = float(getattr(intermediate_result, "fun", 0.0))
        rmses.append((loss * first) ** 0.5)
        works.append(problem.work)
        if rmses[-1] <= target:
            raise StopIteration  # how SciPy is told to stop

    with numpy.errstate(all="ignore"):  # SciPy divides by vanishing steps before it says that it stalled
        found = minimize(
            scaled,
            network.theta.double().numpy(),
            jac=True,
            method="BFGS",
            callback=keep,
            options={"gtol": 1e-60, "maxiter": max_iterations},
        )
    theta = torch.tensor(found.x, dtype=network.dtype)
    outcome: Outcome = "budget"
    because = f"{max_iterations} iterations were used up"
    if rmses[-1] <= target:
        outcome, because = "target", f"the training error reached {target:.3g}"
    elif found.status == _LINE_SEARCH_FAILED or found.status != 1:
        outcome, because = "stalled", "the line search found no lower loss within rounding"
    return _finished(network, theta, rmses, works, outcome, because)


def _finished(
    network: Network, theta: torch.Tensor, rmses: list[float], works: list[int], outcome: Outcome, because: str
) -> StageFit:
    return StageFit(
        name="bfgs",
        theta=theta.to(network.device),
        rmses=tuple(rmses),
        works=tuple(works),
        outcome=outcome,
        because=because,
    )

"""Levenberg-Marquardt on the residuals, with geodesic acceleration."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.weights.precision.residuals import LeastSquares, Residuals, root_mean_square
from tremorscope.methods.weights.precision.stage_fit import Outcome, StageFit, is_slow

DAMPING_DOWN, DAMPING_UP = 3.0, 4.0
MAX_RAISES = 30  # 4^30 = 1e18: damping has then crossed all of float64
MAX_BEND = 0.75  # accelerated steps with 2 |a| / |d| above it are refused (Transtrum and Sethna, section 2)
WINDOW = 100


def levenberg_marquardt(
    network: Network,
    data: Batch | None = None,
    *,
    max_iterations: int = 500,
    target: float = 0.0,
    accelerate: bool = True,
    progress: float = 0.01,
) -> StageFit:
    """How low does a fit get that works on the residuals instead of their squared sum?

    Each step solves `min |J d - r|^2 + lambda^2 |d|^2` by orthogonal factorisations of the per-example
    Jacobian, whose condition is the root of the Hessian's. With `accelerate`, half the solution of the same
    problem for minus the outputs' bend along `d` is added: the step then follows the valley floor to second
    order, which is what the narrow, curved valleys of small networks need.

    Args:
        network: With a mean-squared-error task; starts from its weights.
        data: One batch; the training examples by default.
        max_iterations: Accepted steps.
        target: Training RMSE to stop at.
        accelerate: Geodesic acceleration.
        progress: `stalled` when 100 steps together lower the error by less than this share.

    Cost: a step is one Jacobian, one QR of `[rows, params]` and for each damping tried one of
    `[2 params, params]` and 5 passes.

    Raises:
        BadInput: If the task is no squared error, or its error is not finite at the start.

    Source: Marquardt 1963; Transtrum and Sethna, arXiv:1201.5885 (acceleration).

    >>> from torch import nn
    >>> from tremorscope.instruments.task import Task
    >>> x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    >>> fit = levenberg_marquardt(Network(nn.Linear(1, 1, dtype=torch.float64), task=Task.of(x, 3 * x + 1)))
    >>> fit.rmses[-1] < 1e-13
    True
    """
    problem = Residuals(network, data)
    return minimise(
        "lm",
        problem,
        network.theta,
        max_iterations=max_iterations,
        target=target,
        accelerate=accelerate,
        progress=progress,
    )


def minimise(
    name: str,
    problem: LeastSquares,
    point: Float[Tensor, " d"],
    *,
    max_iterations: int,
    target: float = 0.0,
    accelerate: bool = True,
    progress: float = 0.01,
) -> StageFit:
    """Levenberg-Marquardt on any least-squares problem; `theta` of the result is its last point.

    Raises:
        BadInput: If `max_iterations` is below 1, or the first residuals are not finite.
    """
    if max_iterations < 1:
        raise BadInput("max_iterations", got=max_iterations, wanted="at least 1")
    residual = problem.residual(point)
    check_finite(residual)
    rmses, works = [root_mean_square(residual)], [problem.work]
    damping: float | None = None
    outcome: Outcome = "budget"
    because = f"{max_iterations} iterations were used up"
    for _ in range(max_iterations):
        if rmses[-1] <= target:
            outcome, because = "target", f"the training error reached {target:.3g}"
            break
        if is_slow(rmses, window=WINDOW, progress=progress):
            outcome, because = "stalled", f"{WINDOW} steps together lowered the error by less than {progress:.0%}"
            break
        system = _Damped(problem.jacobian(point), residual)
        if damping is None:
            # In a canyon a step of much damping gains less than rounding: near the floor it starts small.
            damping = 0.01 * system.scale * min(1.0, rmses[-1])
        found: tuple[Tensor, Tensor, float] | None = None
        raises = 0
        lowest = False
        while found is None and raises <= MAX_RAISES:
            found = _try(problem, point, system, damping, rmses[-1], accelerate)
            if found is not None:
                break
            damping, raises = damping * DAMPING_UP, raises + 1
            if raises > MAX_RAISES and not lowest:  # perhaps all of them were too large: once more from far below
                damping, raises, lowest = torch.finfo(residual.dtype).eps * system.scale, 0, True
        if found is None:
            outcome, because = "stalled", "no step lowers the error at any damping"
            break
        point, residual, error = found
        rmses.append(error)
        works.append(problem.work)
        if raises == 0:
            damping /= DAMPING_DOWN
    return StageFit(name=name, theta=point, rmses=tuple(rmses), works=tuple(works), outcome=outcome, because=because)


class _Damped:
    """One Jacobian, factorised once, solved for several dampings. Reflections are applied, never multiplied out."""

    def __init__(self, jacobian: Tensor, residual: Tensor) -> None:
        # Rows fall to the number of parameters once; each damping then factorises the small triangle only.
        self._tall = torch.geqrf(jacobian)
        self.r = self._tall[0][: min(jacobian.shape)].triu()
        self.scale = float(self.r.norm()) or 1.0
        self._damped = self._tall
        self._short_residual = self._shortened(residual)

    def factorise(self, damping: float) -> Tensor:
        """Prepare for one damping; returns the step for the residual."""
        eye = torch.eye(self.r.shape[1], dtype=self.r.dtype, device=self.r.device)
        self._damped = torch.geqrf(torch.cat([self.r, damping * eye]))
        return self._solved(self._short_residual)

    def solve(self, right: Tensor) -> Tensor:
        """The same for another right-hand side."""
        return self._solved(self._shortened(right))

    def _shortened(self, right: Tensor) -> Tensor:
        turned: Tensor = torch.ormqr(*self._tall, right.unsqueeze(1), transpose=True)
        return turned[: len(self.r)]

    def _solved(self, short: Tensor) -> Tensor:
        count = self.r.shape[1]
        padded = torch.cat([short, short.new_zeros(count, 1)])
        turned = torch.ormqr(*self._damped, padded, transpose=True)[:count]
        found: Tensor = torch.linalg.solve_triangular(self._damped[0][:count].triu(), turned, upper=True)
        return found[:, 0]


def _try(
    problem: LeastSquares, point: Tensor, system: _Damped, damping: float, error: float, accelerate: bool
) -> tuple[Tensor, Tensor, float] | None:
    """The step at one damping, if it lowers the error."""
    step = system.factorise(damping)
    if accelerate:
        bend = problem.bend(point, step)
        if bend is not None:
            correction = system.solve(-0.5 * bend)
            if not float(2 * correction.norm()) <= MAX_BEND * float(step.norm()):
                return None
            step = step + correction
    there = point + step
    residual = problem.residual(there)
    now = root_mean_square(residual)
    return (there, residual, now) if now < error else None


def check_finite(residual: Tensor) -> None:
    """Refuse a start from which nothing can be compared."""
    bad = int((~residual.isfinite()).sum())
    if bad:
        raise BadInput(
            "residuals at the start", got=f"{bad} of {len(residual)} not finite", wanted="finite outputs and targets"
        )

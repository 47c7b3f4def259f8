"""Training in the directions in which the loss hardly curves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Hessian
from tremorscope.instruments.spectrum import eigsh
from tremorscope.instruments.task import Batch
from tremorscope.methods.weights.precision.levenberg_marquardt import check_finite
from tremorscope.methods.weights.precision.residuals import Residuals
from tremorscope.methods.weights.precision.stage_fit import Outcome, StageFit

PUBLISHED_THRESHOLD = 1e-15  # of the absolute eigenvalue, in the paper's scripts
SIZES = 15  # points of the line search over 1e-12 to 1e12
REFINEMENTS = 4


def low_curvature_training(
    network: Network,
    data: Batch | None = None,
    *,
    max_iterations: int = 20,
    threshold: float = PUBLISHED_THRESHOLD,
    relative: bool = False,
    deflate: int | None = None,
    target: float = 0.0,
    seed: int = 0,
) -> StageFit:
    """How much lower can a fit go along the floor of its canyon, leaving the steep walls alone?

    Each step decomposes the Hessian and keeps of the gradient what lies along eigenvectors of
    `|lambda| < threshold`: `g' = sum q_i q_i^T g`. A line search over 15 step sizes from 1e-12 to 1e12,
    refined four times around the best, follows `-g'`; a step is taken only if the loss falls.

    Args:
        network: With a mean-squared-error task; starts from its weights.
        data: One batch; the training examples by default.
        max_iterations: Accepted steps.
        threshold: Eigenvalues below it count as flat.
        relative: Measure it in units of the largest `|lambda|` instead.
        deflate: For networks whose Hessian does not fit: take out the gradient along this many
            eigenvectors of largest `|lambda|`, `g' = g - Q Q^T g`, and let `threshold` be.
        target: Training RMSE to stop at.
        seed: Of the start vectors of the iterative eigensolver, when deflating.

    Cost: a step is `params` Hessian products and one decomposition (or what `eigsh` needs for `deflate`
    vectors), and 75 passes.

    Raises:
        BadInput: If the task is no squared error, or a number is out of range.

    Source: Michaud, Liu and Tegmark 2022, arXiv:2210.13447, section 3.
    """
    if max_iterations < 1:
        raise BadInput("max_iterations", got=max_iterations, wanted="at least 1")
    if not threshold > 0:
        raise BadInput("threshold", got=threshold, wanted="a positive number")
    if deflate is not None and not 1 <= deflate < network.layout.size:
        raise BadInput("deflate", got=deflate, wanted=f"between 1 and {network.layout.size - 1}")
    problem = Residuals(network, data)
    theta = network.theta
    check_finite(problem.residual(theta))
    rmses, works = [problem.rmse(theta)], [problem.work]
    outcome: Outcome = "budget"
    because = f"{max_iterations} iterations were used up"
    for _ in range(max_iterations):
        if rmses[-1] <= target:
            outcome, because = "target", f"the training error reached {target:.3g}"
            break
        hessian = Hessian(network.at(theta), problem.batch)
        _, gradient = problem.gradient(theta)
        if deflate is None:
            values, vectors = torch.linalg.eigh(hessian.dense())
            # One product costs a gradient and its tangent; `dense` makes one for each parameter.
            problem.work += 6 * len(theta)
            border = threshold * float(values.abs().max()) if relative else threshold
            direction = flat_part(gradient, values, vectors, border)
        else:
            found = eigsh(hessian, deflate, which="largest_magnitude", tol=1e-6, seed=seed)
            problem.work += 6 * found.num_products
            direction = without(gradient, found.vectors)
        moved = line_search(problem.rmse, theta, direction, rmses[-1])
        if moved is None:
            outcome = "stalled"
            because = (
                "no eigenvalue lies below the threshold"
                if not float(direction.norm())
                else "no step along the flat directions lowers the loss"
            )
            break
        theta, error = moved
        rmses.append(error)
        works.append(problem.work)
    return StageFit(
        name="low_curvature",
        theta=theta,
        rmses=tuple(rmses),
        works=tuple(works),
        outcome=outcome,
        because=because,
    )


def flat_part(
    gradient: Float[Tensor, " params"],
    values: Float[Tensor, " params"],
    vectors: Float[Tensor, "params params"],
    threshold: float,
) -> Float[Tensor, " params"]:
    """The gradient's part along eigenvectors of `|lambda| < threshold`.

    >>> flat_part(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 1.0]), torch.eye(2), 0.5)
    tensor([3., 0.])
    """
    flat = vectors[:, values.abs() < threshold]
    return flat @ (flat.T @ gradient)


def without(gradient: Float[Tensor, " params"], steep: Float[Tensor, "params k"]) -> Float[Tensor, " params"]:
    """The gradient outside some orthonormal directions, projected twice: once leaves rounding of the part removed."""
    for _ in range(2):
        gradient = gradient - steep @ (steep.T @ gradient)
    return gradient


def line_search(
    error_at: Callable[[Tensor], float],
    theta: Float[Tensor, " params"],
    direction: Float[Tensor, " params"],
    error: float,
) -> tuple[Float[Tensor, " params"], float] | None:
    """The best of logarithmic step sizes along `-direction`, refined around itself; None unless the error falls."""
    if not float(direction.norm()):
        return None
    low, high = -12.0, 12.0
    best_size, best = 0.0, float("inf")
    for _ in range(1 + REFINEMENTS):
        exponents = torch.linspace(low, high, SIZES, dtype=torch.float64).tolist()
        for exponent in exponents:
            found = error_at(theta - 10.0**exponent * direction)
            if found < best:
                best_size, best = exponent, found
        spacing = (high - low) / (SIZES - 1)
        low, high = best_size - spacing, best_size + spacing
    if not best < error:
        return None
    return theta - 10.0**best_size * direction, best

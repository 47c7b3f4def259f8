"""Variable projection: the last linear layer is solved for, only what lies before it is searched."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.weights.precision.levenberg_marquardt import minimise
from tremorscope.methods.weights.precision.residuals import Residuals
from tremorscope.methods.weights.precision.stage_fit import StageFit


def variable_projection(
    network: Network,
    data: Batch | None = None,
    *,
    last_layer: str | None = None,
    max_iterations: int = 100,
    target: float = 0.0,
    truncation: float = 1e-15,
) -> StageFit:
    """How low does a fit get when the last layer is at its best for every candidate of the others?

    The weights that enter the output linearly are solved for by least squares at every evaluation; the
    rest move by Levenberg-Marquardt on what no last layer could fit (Kaufman's Jacobian
    `(I - Q Q^T) J`, with `Q` an orthonormal basis of the last layer's columns).

    Args:
        network: With a mean-squared-error task.
        data: One batch; the training examples by default.
        last_layer: Shell-style pattern of its parameters; by default those of the last `nn.Linear`.
        max_iterations: Accepted steps.
        target: Training RMSE to stop at.
        truncation: Singular values of the last layer's problem below this share of the largest are dropped.
            A larger one keeps the solved weights, hence the rounding floor, small, and the fit coarse.

    Cost: a step is one Jacobian, and for each damping tried one least-squares solution of
    `[rows, last layer]`.

    Raises:
        BadInput: If the output is not linear in those parameters, or none are found.

    Source: Golub and Pereyra 1973; Kaufman 1975.
    """
    problem = _Projected(Residuals(network, data), last_layer, truncation)
    fit = minimise(
        "variable_projection",
        problem,
        network.theta[problem.searched],
        max_iterations=max_iterations,
        target=target,
        accelerate=False,  # the bend of the projected outputs needs derivatives of the projection
    )
    return StageFit(
        name=fit.name,
        theta=problem.weights(fit.theta),
        rmses=fit.rmses,
        works=fit.works,
        outcome=fit.outcome,
        because=fit.because,
    )


@final
class _Projected:
    """A least-squares problem in the weights before the last layer."""

    def __init__(self, full: Residuals, last_layer: str | None, truncation: float) -> None:
        self.full, self.truncation = full, truncation
        layout = full.network.layout
        names = _solved_names(full.network, last_layer)
        self.solved = layout.indices(names).to(full.network.device)
        mask = torch.ones(layout.size, dtype=torch.bool, device=full.network.device)
        mask[self.solved] = False
        self.searched = mask.nonzero()[:, 0]
        self._start = full.network.theta
        self._last: tuple[Tensor, Tensor] | None = None
        self._check_linear(names)

    @property
    def work(self) -> int:
        return self.full.work

    @work.setter
    def work(self, value: int) -> None:
        self.full.work = value

    def weights(self, point: Float[Tensor, " searched"]) -> Float[Tensor, " params"]:
        """All weights, the last layer solved for."""
        if self._last is not None and torch.equal(self._last[0], point):
            return self._last[1]
        theta = self._start.clone()
        theta[self.searched] = point
        theta[self.solved] = 0
        columns = self.full.jacobian(theta)[:, self.solved]  # of a linear layer: wherever it is taken
        right = self.full.residual(theta)
        # Divide and conquer on the SVD: small singular values must be seen to be dropped.
        cut = max(self.truncation, torch.finfo(theta.dtype).eps)
        theta[self.solved] = torch.linalg.lstsq(columns, right.unsqueeze(1), rcond=cut, driver="gelsd").solution[:, 0]
        self._last = (point, theta)
        return theta

    def residual(self, point: Float[Tensor, " searched"]) -> Float[Tensor, " rows"]:
        return self.full.residual(self.weights(point))

    def jacobian(self, point: Float[Tensor, " searched"]) -> Float[Tensor, "rows searched"]:
        whole = self.full.jacobian(self.weights(point))
        basis = torch.linalg.qr(whole[:, self.solved]).Q
        rest = whole[:, self.searched]
        projected: Tensor = rest - basis @ (basis.T @ rest)
        return projected

    def bend(self, point: Tensor, direction: Tensor) -> None:
        return None

    def _check_linear(self, names: list[str]) -> None:
        theta = self._start.clone()
        theta[self.solved] = 0
        base = self.full.outputs(theta).detach()
        theta[self.solved] = 1
        once = self.full.outputs(theta).detach() - base
        theta[self.solved] = -2
        twice = self.full.outputs(theta).detach() - base
        gap, size = float((twice + 2 * once).abs().max()), float(once.abs().max())
        if not gap <= torch.finfo(base.dtype).eps ** 0.75 * (size + float(base.abs().max())):
            raise BadInput(
                f"last layer {', '.join(names)}",
                got=f"an output that is off a straight line by {gap:.2g}",
                wanted="parameters in which the output is linear",
                remedy="Name those of the last linear layer: last_layer='4.*'.",
            )


def _solved_names(network: Network, pattern: str | None) -> list[str]:
    if pattern is not None:
        names = list(network.layout.select(pattern))
    else:
        linear = [path for path, part in network.module.named_modules() if isinstance(part, nn.Linear)]
        path = linear[-1] if linear else "?"
        names = [name for name in network.layout.names if name.rpartition(".")[0] == path]
    if not names or len(names) == len(network.layout.names):
        raise BadInput(
            "last layer",
            got=f"{len(names)} of {len(network.layout.names)} parameters for {pattern or 'the last nn.Linear'}",
            wanted="some parameters, and others before them",
            remedy=f"The network has {', '.join(network.layout.names)}.",
        )
    return names

"""What a squared-error fit leaves over, as a function of the weights, and what each look at it costs."""

from __future__ import annotations

import math
import warnings
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad_and_value, jacrev, jvp, vmap

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.losses import recognise
from tremorscope.instruments.network import Network
from tremorscope.instruments.point_table import PrecisionWarning
from tremorscope.instruments.task import Batch

# Passes over the data, in units of one forward pass: what work is counted in.
FORWARD, GRADIENT, BEND = 1, 3, 4


@runtime_checkable
class LeastSquares(Protocol):
    """What Levenberg-Marquardt needs: residuals, their Jacobian, and how the outputs bend along a step."""

    work: int

    def residual(self, point: Tensor) -> Tensor:
        """Targets minus outputs, flat."""
        ...

    def jacobian(self, point: Tensor) -> Tensor:
        """Derivative of the outputs, one row for each residual."""
        ...

    def bend(self, point: Tensor, direction: Tensor) -> Tensor | None:
        """Second derivative of the outputs along `direction`; None where it is not known."""
        ...


@final
class Residuals:
    """Targets minus outputs of a network on one batch, `[rows]` with `rows = examples x outputs`.

    `work` counts passes over the data so far, in forward passes: a gradient is 3, a Jacobian 3 for each
    output, a second derivative along one direction 4. Linear algebra is not in it. `why_whole` says why the
    Jacobian takes a backward pass of the whole batch for each row (same numbers, slower); None when it need not.

    Args:
        network: Its task must be a mean squared error.
        batch: The data; the task's training examples by default.

    >>> from torch import nn
    >>> from tremorscope.instruments.task import Task
    >>> x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> network = Network(nn.Linear(1, 1, dtype=torch.float64), task=Task.of(x, 3 * x))
    >>> residuals = Residuals(network)
    >>> residuals.jacobian(network.theta).tolist(), residuals.work
    ([[1.0, 1.0], [2.0, 1.0]], 3)

    Raises:
        BadInput: If there is no task, its loss is another one, or targets do not fit the outputs.
    """

    def __init__(self, network: Network, batch: Batch | None = None) -> None:
        task = network.required_task()
        if recognise(task.loss) != "squared_error":
            raise BadInput(
                f"loss of {network.name!r}",
                got=getattr(task.loss, "__name__", type(task.loss).__name__),
                wanted="the mean squared error",
                remedy="Give real-valued targets: Task.of(x, y).",
            )
        self.network, self.batch = network, batch or task.train_batch()
        self.work = 0
        with torch.no_grad():
            outputs = network.apply(network.theta, self.batch)
        target = self.batch.target
        if target is None or target.numel() != outputs.numel() or len(target) != len(outputs):
            raise BadInput(
                "targets to fit",
                got="none" if target is None else f"shape {tuple(target.shape)}",
                wanted=f"that of the outputs, {tuple(outputs.shape)}",
            )
        self.target = target.reshape(-1).to(outputs.dtype)
        self.num_outputs = outputs[0].numel()
        self.why_whole = self._why_not_by_example(outputs)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the outputs."""
        return self.target.dtype

    def outputs(self, theta: Float[Tensor, " params"]) -> Float[Tensor, " rows"]:
        """Outputs, flat."""
        return self.network.apply(theta, self.batch).reshape(-1)

    def residual(self, point: Float[Tensor, " params"]) -> Float[Tensor, " rows"]:
        """Targets minus outputs. Work: 1."""
        self.work += FORWARD
        with torch.no_grad():
            return self.target - self.outputs(point)

    def rmse(self, theta: Float[Tensor, " params"]) -> float:
        """Root of the mean squared residual. Work: 1."""
        return root_mean_square(self.residual(theta))

    def gradient(self, theta: Float[Tensor, " params"]) -> tuple[float, Float[Tensor, " params"]]:
        """Mean squared residual and its gradient. Work: 3."""
        self.work += GRADIENT
        gradient, loss = grad_and_value(lambda point: (self.target - self.outputs(point)).square().mean())(theta)
        return float(loss.detach()), gradient.detach()

    def jacobian(self, point: Float[Tensor, " params"]) -> Float[Tensor, "rows params"]:
        """Derivative of the outputs, one backward pass for each example's own output. Work: 3 per output."""
        self.work += GRADIENT * self.num_outputs
        if self.why_whole is not None:
            whole: Tensor = jacrev(self.outputs)(point)
            return whole.detach()
        rows: Tensor = vmap(jacrev(self._one), in_dims=(None, *(0 for _ in self.batch.args)))(point, *self.batch.args)
        return rows.detach().reshape(-1, len(point))

    def bend(self, point: Float[Tensor, " params"], direction: Float[Tensor, " params"]) -> Float[Tensor, " rows"]:
        """Second derivative of the outputs along one direction, forward over forward. Work: 4."""
        self.work += BEND

        def slope(theta: Tensor) -> Tensor:
            tangent: Tensor = jvp(self.outputs, (theta,), (direction,))[1]
            return tangent

        second: Tensor = jvp(slope, (point,), (direction,))[1]
        return second.detach()

    def _one(self, theta: Tensor, *args: Tensor) -> Tensor:
        named = self.network.layout.unflatten(theta)
        given = tuple(arg.unsqueeze(0) for arg in args)
        return self.network.apply(named, Batch(given, self.batch.kwargs, None)).reshape(-1)

    def _why_not_by_example(self, outputs: Tensor) -> str | None:
        """None when each output row depends on its own example alone, as it does not in attention over a batch."""
        args, count = self.batch.args, len(outputs)
        if not all(isinstance(arg, Tensor) and arg.ndim and len(arg) == count for arg in args):
            return "not every input has one row for each example"
        some = slice(0, min(4, count))
        try:
            alone = vmap(self._one, in_dims=(None, *(0 for _ in args)))(
                self.network.theta, *(arg[some] for arg in args)
            )
        except (RuntimeError, NotImplementedError) as error:
            return f"examples cannot be taken one by one ({(str(error).splitlines() or [type(error).__name__])[0]})"
        close = torch.finfo(outputs.dtype).eps ** 0.75 * (1 + float(outputs.abs().max()))
        if (alone.detach().reshape(-1) - outputs[some].reshape(-1)).abs().max() > close:
            return "the output for an example depends on the others"
        return None


def root_mean_square(values: Tensor) -> float:
    """Root of the mean square, scaled so that squares of small numbers do not underflow.

    >>> root_mean_square(torch.tensor([3e-200, 4e-200], dtype=torch.float64)) > 0
    True
    """
    largest = float(values.abs().max())
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * float((values.double() / largest).square().mean().sqrt())


def rounding_floor(network: Network, theta: Float[Tensor, " params"], batch: Batch) -> float:
    """How large an error does rounding alone make, in units of the output?

    `u` times the root mean square, over examples, of `sqrt(f^2 + sum_j (theta_j df/dtheta_j)^2)`: the output
    plus what it would move if every weight were off by one rounding, independently. An order of magnitude, not
    a bound. Cost: one Jacobian.
    """
    residuals = Residuals(network, batch)
    unit = torch.finfo(residuals.dtype).eps / 2
    with torch.no_grad():
        outputs = residuals.outputs(theta)
    moved = (residuals.jacobian(theta) * theta).square().sum(dim=1)
    return unit * root_mean_square((outputs.square() + moved).sqrt())


def warn_of_precision(network: Network) -> str | None:
    """The sentence for a dtype whose rounding sets the floor; also warned. None for float64."""
    if network.dtype == torch.float64:
        return None
    unit = torch.finfo(network.dtype).eps / 2
    name = str(network.dtype).removeprefix("torch.")
    sentence = (
        f"{network.name!r} is in {name}: rounding of {unit:.1g} relative sets the floor of the error, whatever the "
        "optimiser. Use Network(module, dtype=torch.float64)."
    )
    warnings.warn(sentence, PrecisionWarning, stacklevel=3)
    return sentence

"""Networks as approximators: a budget of parameters becomes a width, and any trainer of networks may fit it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import numpy
import torch
from numpy import ndarray
from torch import Tensor, nn
from torch.func import grad_and_value

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.network import Network
from tremorscope.instruments.point_table import PointTable
from tremorscope.instruments.task import Batch, Task
from tremorscope.methods.weights.precision.approximators import Design, Fitted, refuse_few

NetworkTrainer = Callable[[Network], Network]  # a network with its task -> the same network, trained

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
_MOST_DENSE = 200  # parameters up to which a dense inverse Hessian costs less than what it saves


def bfgs_trainer(max_iterations: int = 500, *, method: Literal["auto", "BFGS", "L-BFGS-B"] = "auto") -> NetworkTrainer:
    """A trainer: SciPy's BFGS on the flat weights, with limited memory above 200 parameters.

    It stops when the line search fails or after `max_iterations`; both are normal ends.
    """

    def train(network: Network) -> Network:
        from scipy.optimize import minimize

        batch = network.required_task().train_batch()
        both = grad_and_value(lambda theta: network.loss(theta, batch))

        def loss(theta: ndarray) -> tuple[float, ndarray]:
            gradient, value = both(torch.as_tensor(theta, dtype=network.dtype))
            return float(value), gradient.numpy().astype(numpy.float64)

        dense = network.layout.size <= _MOST_DENSE
        chosen = method if method != "auto" else "BFGS" if dense else "L-BFGS-B"
        limits = {"gtol": 0.0} if chosen == "BFGS" else {"gtol": 0.0, "ftol": 0.0, "maxfun": 10 * max_iterations}
        start = network.start.double().numpy()
        # SciPy's own tests of convergence divide 0 by 0 on a loss that is already 0
        with numpy.errstate(divide="ignore", invalid="ignore"):
            found = minimize(loss, start, jac=True, method=chosen, options={"maxiter": max_iterations, **limits})
        return network.at(torch.as_tensor(found.x))

    return train


@final
@dataclass(frozen=True, kw_only=True)
class PerceptronApproximator:
    """A perceptron with `depth` hidden layers of equal width, as wide as the budget allows.

    Points and targets are standardised before training and the weights see float64 only. A ReLU network of enough
    layers often follows D^(-2 / arity), with the arity of the target's computation graph in place of its dimension;
    optimisation may spoil it. `trainer` is any function from a network with its task to the trained network.
    """

    activation: Literal["relu", "tanh"] = "relu"
    depth: int = 1
    trainer: NetworkTrainer | None = None
    design: Design = "scattered"
    least_points: int = 2_000

    @property
    def name(self) -> str:
        """Such as `relu network` or `relu network, depth 2`."""
        return f"{self.activation} network" + ("" if self.depth == 1 else f", depth {self.depth}")

    def num_points(self, num_parameters: int, dimension: int) -> int:
        """Two for each parameter, and 2,000 at least."""
        return max(self.least_points, 2 * num_parameters)

    def exponent(self, dimension: int, arity: int) -> float | None:
        """`-2 / arity` for ReLU networks, never worse than `-2 / d`; None for tanh, which follows no clean law."""
        return -2 / min(dimension, arity) if self.activation == "relu" else None

    def fit(self, table: PointTable, num_parameters: int, *, seed: int = 0) -> Fitted:
        """Train from an initialisation drawn from `seed`.

        Cost: that of the trainer.

        Raises:
            BadInput: If there are fewer than d + 1 points, or the budget is below one hidden unit.
        """
        refuse_few(table, table.dimension + 1, f"a {self.name}", "d + 1")
        width = self.width(num_parameters, table.dimension)
        middle, spread = table.x.mean(axis=0), numpy.where(table.x.std(axis=0) > 0, table.x.std(axis=0), 1.0)
        offset, scale = float(table.y.mean()), float(table.y.std()) or 1.0

        def scaled(x: ndarray) -> Tensor:
            return torch.from_numpy((x - middle) / spread)

        layers = _layers(table.dimension, width, self.depth, _ACTIVATIONS[self.activation], seed)
        task = Task.of(scaled(table.x), torch.from_numpy((table.y - offset) / scale), name=table.name)
        network = Network(nn.Sequential(*layers), task=task, name=self.name)
        trained = (self.trainer or bfgs_trainer())(network)
        hidden = Network(nn.Sequential(*layers[:-1]), name="hidden layers")

        def basis(x: ndarray) -> ndarray:
            with torch.no_grad():
                units = hidden.apply({key: trained.params[key] for key in hidden.params}, Batch((scaled(x),), {}, None))
            return numpy.concatenate([units.numpy(), numpy.ones((len(x), 1))], axis=1)

        last = len(layers) - 1
        weights, bias = trained.params[f"{last}.weight"].numpy()[0], float(trained.params[f"{last}.bias"][0])
        return Fitted(
            name=self.name,
            num_parameters=network.layout.size,
            basis=basis,
            coefficients=numpy.append(scale * weights, scale * bias + offset),
            is_direct=False,
        )

    def width(self, num_parameters: int, dimension: int) -> int:
        """Units of a hidden layer within the budget.

        Raises:
            BadInput: If not even one fits.
        """
        # (depth - 1) w^2 + (d + depth + 1) w + 1 <= N
        a, b, c = self.depth - 1, dimension + self.depth + 1, 1 - num_parameters
        root = -c / b if a == 0 else (-b + math.sqrt(max(b * b - 4 * a * c, 0))) / (2 * a)
        width = int(root + 1e-9)
        if width < 1:
            raise BadInput(
                f"parameters of a {self.name} in {dimension}-D", got=num_parameters, wanted=f"at least {a + b + 1}"
            )
        return width


def _layers(dimension: int, width: int, depth: int, activation: type[nn.Module], seed: int) -> list[nn.Module]:
    """Weights and biases uniform within one over the root of the fan-in, from a stream of their own."""
    stream = generator(seed, "weights")
    sizes = [dimension, *[width] * depth, 1]
    layers: list[nn.Module] = []
    for rows, columns in itertools.pairwise(sizes):
        # Without storage at first: a layer's own initialisation would draw from the global random stream.
        layer = nn.Linear(rows, columns, device="meta")
        for name, shape in (("weight", (columns, rows)), ("bias", (columns,))):
            drawn = 2 * torch.rand(shape, generator=stream, dtype=torch.float64) - 1
            setattr(layer, name, nn.Parameter(drawn / math.sqrt(rows)))
        layers += [layer, activation()]
    return layers[:-1]

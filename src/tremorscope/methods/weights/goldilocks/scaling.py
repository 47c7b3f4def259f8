"""The two knobs: the norm of the weights, and the temperature of the softmax."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.layout import Selection
from tremorscope.instruments.losses import Loss, differentiable
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

Scaling = Literal["weights", "temperature"]
SCALINGS: tuple[Scaling, ...] = ("weights", "temperature")


@final
@dataclass(frozen=True)
class Tempered:
    """A loss of outputs multiplied by `factor`: for a softmax, the inverse of its temperature."""

    loss: Loss
    factor: float

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss."""
        value: Tensor = differentiable(self.loss)(self.factor * output, target)
        return value


def tempered(network: Network, factor: float) -> Network:
    """The same weights, with all outputs multiplied by `factor` before the loss.

    In a network of L layers without biases and with ReLU, multiplying weights by s and outputs by `s**L` give one
    and the same loss.

    >>> from torch import nn
    >>> from tremorscope.instruments.task import Task
    >>> x = torch.tensor([[1.0]])
    >>> network = Network(nn.Linear(1, 1, bias=False), task=Task.of(x, x)).at(torch.tensor([1.0]))
    >>> hot = tempered(network, 3.0)
    >>> float(hot.loss(hot.params, hot.task.train_batch()))
    4.0

    Raises:
        BadInput: If the factor is not positive, or there is no task.
    """
    _check(factor)
    task = network.required_task()
    return network.with_task(replace(task, loss=Tempered(task.loss, factor)))


def scaled_weights(network: Network, factor: float, *, parameters: Selection = "*") -> Float[Tensor, " params"]:
    """The network's flat weights, the chosen ones multiplied by `factor`.

    Raises:
        BadInput: If the factor is not positive.
        SiteNotFound: If no parameter is chosen.
    """
    _check(factor)
    chosen = set(network.select(parameters))
    return network.layout.flatten(
        {name: factor * value if name in chosen else value for name, value in network.params.items()}
    )


def scaled(network: Network, scaling: Scaling, factor: float, *, parameters: Selection = "*") -> Network:
    """The network with one of its two knobs turned.

    Raises:
        BadInput: If the knob is unknown, or the factor is not positive.
        SiteNotFound: If no parameter is chosen.
    """
    if scaling not in SCALINGS:
        raise BadInput("scaling", got=scaling, wanted=" or ".join(SCALINGS))
    if scaling == "temperature":
        return tempered(network, factor)
    return network.at(scaled_weights(network, factor, parameters=parameters))


def in_double_precision(network: Network, dtype: torch.dtype = torch.float64) -> Network:
    """The same network and data in another precision; its recipe stays behind."""
    if network.dtype == dtype:
        return network
    view = Network(
        network.module,
        task=network.task,
        initial=network.initial,
        tokenizer=network.tokenizer,
        name=network.name,
        dtype=dtype,
        device=network.device,
    )
    return view.at(network.theta)


def batch_in_precision(batch: Batch, dtype: torch.dtype) -> Batch:
    """The same examples with real-valued tensors in another precision."""

    def cast(value: object) -> object:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    target = batch.target.to(dtype) if batch.target is not None and batch.target.is_floating_point() else batch.target
    return Batch(tuple(cast(x) for x in batch.args), {key: cast(x) for key, x in batch.kwargs.items()}, target)


def _check(factor: float) -> None:
    if not 0 < factor < float("inf"):
        raise BadInput("scale", got=factor, wanted="a positive finite number")

"""Trained digits perceptrons of two sizes, as we take them and as our peers do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tremorscope.foundations.seeds import generator
from tremorscope.instruments.load import load
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import momentum
from tremorscope.instruments.recipe import check_recipe, run_recipe
from tremorscope.instruments.task import digits
from tremorscope.instruments.trainer import Trainer

WIDE = 650  # 64-650-650-10 has 471,910 parameters


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One network and its loss over all training digits, in one dtype."""

    network: Network
    module: nn.Module
    inputs: Tensor
    targets: Tensor
    widths: tuple[int, ...]

    @property
    def num_parameters(self) -> int:
        """All weights."""
        return self.network.layout.size

    @property
    def flops(self) -> float:
        """Of one Hessian product that recomputes nothing: four per weight of the first layer, twelve of the others."""
        count = 0.0
        for place, (into, out) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            count += (4.0 if place == 0 else 12.0) * into * out
        return count * len(self.inputs)

    def loss(self) -> Tensor:
        """Mean cross-entropy."""
        value: Tensor = nn.functional.cross_entropy(self.module(self.inputs), self.targets)
        return value

    def product(self) -> Callable[[Tensor], Tensor]:
        """Double backward with the graph of the gradient kept, in six lines: the plain route."""
        parameters = list(self.module.parameters())
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(self.loss(), parameters, create_graph=True)])

        def of(vector: Tensor) -> Tensor:
            parts = torch.autograd.grad(gradient, parameters, vector, retain_graph=True)
            return torch.cat([part.reshape(-1) for part in parts])

        return of

    def curvlinops(self) -> Any:
        """Its Hessian."""
        from curvlinops import HessianLinearOperator

        parameters = list(self.module.parameters())
        data = [(self.inputs, self.targets)]
        named = dict(self.module.named_parameters())
        try:
            return HessianLinearOperator(self.module, nn.CrossEntropyLoss(), parameters, data)
        except (TypeError, AttributeError):
            return HessianLinearOperator(self.module, nn.CrossEntropyLoss(), named, data)

    def eigenthings(self) -> Any:
        """The Hessian of hessian-eigenthings."""
        from hessian_eigenthings.loss_fns.standard import supervised_loss
        from hessian_eigenthings.operators.hessian import HessianOperator

        return HessianOperator(self.module, [(self.inputs, self.targets)], supervised_loss(nn.functional.cross_entropy))

    def pyhessian(self) -> Any:
        """Its everything."""
        from pyhessian import hessian

        return hessian(self.module, nn.CrossEntropyLoss(), data=(self.inputs, self.targets), cuda=False)


def problem(wide: bool, dtype: torch.dtype) -> Problem:
    """The same weights in both dtypes: trained in float32, then cast."""
    network = _wide() if wide else load("builtin:digits-mlp-64")
    widths = (64, WIDE, WIDE, 10) if wide else (64, 64, 10)
    cast = Network(_module(widths).to(dtype), task=digits(dtype=dtype), name=f"digits, {network.layout.size:,}")
    cast = cast.at(network.theta.to(dtype))
    module = _module(widths).to(dtype)
    with torch.no_grad():
        for own, trained in zip(module.parameters(), cast.params.values(), strict=True):
            own.copy_(trained)
    batch = cast.required_task().train_batch()
    return Problem(network=cast, module=module, inputs=batch.args[0], targets=batch.target, widths=widths)


def _wide() -> Network:
    module = _module((64, WIDE, WIDE, 10))
    stream = generator(0, "peers", "wide")
    with torch.no_grad():
        for parameter in module.parameters():
            scale = parameter.shape[1] ** -0.5 if parameter.ndim == 2 else 0.0
            parameter.copy_(scale * torch.randn(parameter.shape, generator=stream))
    network = Network(module, task=digits(), name="digits, wide")
    trainer = Trainer(optimiser=momentum(lr=0.1, mu=0.9), num_steps=100, batch_size=64, schedule="cosine")
    return network.at(run_recipe(check_recipe(trainer.bind(network)), network.theta))


def _module(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for into, out in itertools.pairwise(widths):
        layers += [nn.Linear(into, out), nn.GELU(approximate="tanh")]
    return nn.Sequential(*layers[:-1])

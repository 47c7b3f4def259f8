"""The mean loss over data as a function of some parameters, batch by batch, checked before it is differentiated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.layout import Layout, Selection
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators.batches import Data, as_batches, num_examples
from tremorscope.instruments.operators.second_order import (
    ScalarFunction,
    WithFixed,
    exact_derivatives,
    value_and_saved_bytes,
)
from tremorscope.instruments.task import Batch


@final
@dataclass(frozen=True, kw_only=True)
class BatchLoss:
    """The loss of one batch: `output_loss(outputs(theta))`, with its share of all examples.

    `saved_bytes` is what one forward pass keeps for its backward. `batch` is None for plain functions.
    """

    outputs: WithFixed
    output_loss: ScalarFunction
    num_examples: int
    weight: float
    saved_bytes: int
    batch: Batch | None = None

    @property
    def whole(self) -> WithFixed:
        """The loss as a function of the parameters."""
        return self.outputs.then(self.output_loss)

    def __call__(self, theta: Float[Tensor, " params"]) -> Float[Tensor, ""]:
        """The loss."""
        return self.output_loss(self.outputs(theta))


@final
@dataclass(frozen=True, kw_only=True)
class MeanLoss:
    """`sum_b weight_b loss_b(theta)` over batches; each counts by its number of targets.

    Every operator over data starts from one of these, so that they weigh, choose and refuse alike.
    """

    name: str
    layout: Layout
    theta: Float[Tensor, " params"]
    fixed: Mapping[str, Tensor]
    batches: tuple[BatchLoss, ...]

    @classmethod
    def of_network(cls, network: Network, data: Data, parameters: Selection, *, what: str) -> MeanLoss:
        """The task's loss of a network as a function of the chosen parameters; the others stand still.

        Raises:
            BadInput: If there is no data or task, a loss is not finite or does not repeat itself, or the
                chosen parameters are not of one floating-point type.
            SiteNotFound: If no parameter is chosen.
        """
        layout, theta, fixed = moving_part(network.params, network.select(parameters), what)
        batches = as_batches(data, what=what, dtype=network.dtype, device=network.device)

        def outputs(batch: Batch, at: Tensor, still: Mapping[str, Tensor]) -> Tensor:
            return network.apply({**still, **layout.unflatten(at)}, batch)

        def output_loss(batch: Batch, output: Tensor) -> Tensor:
            return network.output_loss(output, batch)

        parts: list[_Part] = [
            (
                WithFixed(partial(outputs, batch), fixed),
                partial(output_loss, batch),
                num_examples(batch, what=what),
                batch,
            )
            for batch in batches
        ]
        return cls(
            name=network.name, layout=layout, theta=theta, fixed=fixed, batches=_checked(parts, theta, network.name)
        )

    @classmethod
    def of_functions(
        cls,
        outputs: Callable[[Any], Tensor],
        output_loss: ScalarFunction,
        theta: Tensor | Mapping[str, Tensor],
        parameters: Selection,
        *,
        what: str,
    ) -> MeanLoss:
        """The same from plain functions; `outputs` takes whatever `theta` is, a flat vector or named tensors.

        Raises:
            BadInput: If the loss is not a finite scalar that repeats itself, or `theta` not of one
                floating-point type.
            SiteNotFound: If no parameter is chosen.
        """
        if isinstance(theta, Tensor):
            if theta.ndim != 1:
                raise BadInput("theta", got=f"shape {tuple(theta.shape)}", wanted="one axis, or a dict of tensors")
            named: dict[str, Tensor] = {"theta": theta.detach()}
        else:
            named = {name: value.detach() for name, value in theta.items()}
        shown = named if isinstance(theta, Tensor) else theta  # a predicate may ask for requires_grad
        layout, flat, fixed = moving_part(named, Layout.of(named).select(parameters, shown), what)

        def of_flat(at: Tensor, still: Mapping[str, Tensor]) -> Tensor:
            return outputs(at if isinstance(theta, Tensor) else {**still, **layout.unflatten(at)})

        def scalar(output: Tensor) -> Tensor:
            value = output_loss(output)
            if value.ndim != 0:
                raise BadInput("value of the loss", got=f"shape {tuple(value.shape)}", wanted="a scalar")
            return value

        name = getattr(outputs, "__name__", type(outputs).__name__)
        return cls(
            name=name,
            layout=layout,
            theta=flat,
            fixed=fixed,
            batches=_checked([(WithFixed(of_flat, fixed), scalar, 1, None)], flat, name),
        )


def kept(costs: list[int], memory: int) -> list[bool]:
    """Which batches to keep between products: in order, as long as their bytes together fit into `memory`.

    >>> kept([4, 4, 4], 8)
    [True, True, False]
    """
    used, result = 0, []
    for cost in costs:
        used += cost
        result.append(used <= memory)
    return result


_Part = tuple[WithFixed, ScalarFunction, int, Batch | None]


def _checked(parts: list[_Part], theta: Tensor, name: str) -> tuple[BatchLoss, ...]:
    total = sum(count for *_, count, _ in parts)
    batches = []
    with exact_derivatives(theta.device):
        for place, (outputs, output_loss, count, batch) in enumerate(parts):
            loss = outputs.then(output_loss)
            value, saved = value_and_saved_bytes(loss, theta)
            which = f"loss of {name!r}" + (f" on batch {place}" if len(parts) > 1 else "")
            if place == 0:  # once is enough: the other batches go through the same code
                with torch.no_grad():
                    again = float(loss(theta))
                if value != again and not (math.isnan(value) and math.isnan(again)):
                    raise BadInput(
                        which,
                        got=f"{value!r} and then {again!r} on the same input",
                        wanted="the same value twice",
                        remedy="Take randomness out of the forward pass, or seed it inside.",
                    )
            if not math.isfinite(value):
                raise BadInput(which, got=value, wanted="a finite number")
            batches.append(
                BatchLoss(
                    outputs=outputs,
                    output_loss=output_loss,
                    num_examples=count,
                    weight=count / total,
                    saved_bytes=saved,
                    batch=batch,
                )
            )
    return tuple(batches)


def moving_part(
    params: Mapping[str, Tensor], chosen: tuple[str, ...], what: str
) -> tuple[Layout, Tensor, dict[str, Tensor]]:
    """What moves, as a layout and a flat vector, and what stands still.

    Raises:
        BadInput: If the chosen parameters are not of one floating-point type.
    """
    moving = {name: params[name] for name in chosen}
    first = next(iter(moving.values()))
    for name, value in moving.items():
        if not value.is_floating_point() or value.dtype != first.dtype:
            raise BadInput(
                f"parameter {name!r} of the {what}",
                got=str(value.dtype),
                wanted="floating-point parameters of one type",
                remedy="Leave it out with parameters=lambda name, p: p.is_floating_point()."
                if not value.is_floating_point()
                else "Cast all with Network(module, dtype=torch.float64).",
            )
    layout = Layout.of(moving)
    fixed = {name: value for name, value in params.items() if name not in moving}
    return layout, layout.flatten(moving).detach(), fixed

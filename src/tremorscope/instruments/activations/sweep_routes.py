"""What the levels of a sweep have in common, and the one that always works: a full forward pass for every point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.hooks import Tap, tapped
from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.activations.positions import Window
from tremorscope.instruments.activations.sweep_batch import tiled
from tremorscope.instruments.edit import Edit
from tremorscope.instruments.language.encode import takes
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.instruments.task import Batch

Column = int | Tensor | None  # one for all rows, one for each row, or no positions


class Late(NamedTuple):
    """What one level computes for a chunk of points: the late activation, and the outputs, at the position read."""

    hidden: Float[Tensor, "n k"]
    logits: Float[Tensor, "n classes"] | None


@final
@dataclass(frozen=True)
class Head:
    """The linear map from late activations to logits, when a level knows it: `logits = hidden @ weight.T + bias`."""

    weight: Float[Tensor, "classes d"]
    bias: Float[Tensor, " classes"] | None


@runtime_checkable
class Route(Protocol):
    """One way to compute what follows from replaced activations."""

    @property
    def level(self) -> int:
        """0, 1 or 2."""

    @property
    def name(self) -> str:
        """What it does, for flags and reports."""

    @property
    def head(self) -> Head | None:
        """The read-out layer, if `Late.hidden` is what it reads."""

    @property
    def row_bytes(self) -> int:
        """Memory that one point takes, about."""

    def late(self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"], *, logits: bool = True) -> Late:
        """What follows from points in the place of the activation of prompts `rows`; logits are left out on request."""


class _Parts(nn.Module):
    """A module as the parameters of functions that use its parts."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, compute: Callable[..., Any], *arguments: Any) -> Any:
        return compute(*arguments)


def with_weights_of(network: Network) -> Callable[..., Any]:
    """`run(compute, *arguments)`: calls `compute` while the module holds the view's weights, in evaluation mode."""
    parts = Network(_Parts(network.module), name=network.name)
    params = {f"module.{name}": value for name, value in network.params.items()}
    parts.buffers = {f"module.{name}": value for name, value in network.buffers.items()}
    return lambda compute, *arguments: parts.output(params, Batch((compute, *arguments), {}, None))


@final
@dataclass(frozen=True, eq=False)
class ReplaceRows(Edit):
    """Another value for every row: `values[i]` at column `column` (or `column[i]`) of row `i`."""

    values: Float[Tensor, "n d"]
    column: Column

    @property
    def width(self) -> int | None:
        """Entries of a value."""
        return self.values.shape[1]

    def _edited(self, x: Tensor) -> Tensor:
        values = self.values.to(x)
        if self.column is None:
            return values
        if isinstance(self.column, int):
            place = self.column % x.shape[1]
            return torch.cat([x[:, :place], values[:, None], x[:, place + 1 :]], dim=1)
        here = torch.arange(x.shape[1], device=x.device) == self.column[:, None]
        return torch.where(here[..., None], values[:, None], x)


@final
@dataclass(frozen=True)
class Edited:
    """One forward pass of a network in which every row of a batch has another value at a site.

    `readout` is the place of the late activation; None: the outputs themselves.
    """

    network: Network
    site: Site
    readout: Place | None

    def __call__(
        self, points: Float[Tensor, "n d"] | None, batch: Batch, *, column: Column, read_column: Column
    ) -> Late:
        """Late activation and outputs at the position read, of each row; without points, of an unchanged pass."""
        view = self.network
        if points is not None:
            view = view.with_edits(ReplaceRows(points, column).at(replace(self.site, position=None)))
        taps = [] if self.readout is None else [Tap(place=self.readout, what="read-out")]
        with tapped(self.network.module, taps, Window.of(batch)) as found:
            output = view.output(view.params, batch)
        logits = getattr(output, "logits", output)
        logits = _at(logits, read_column) if isinstance(logits, Tensor) else None
        hidden = logits if self.readout is None else _at(found[0], read_column)
        if hidden is None:
            raise BadInput(
                f"late activation of {self.network.name!r}",
                got=f"{type(output).__name__} without logits",
                wanted="a read-out",
                remedy="Pass readout_site=..., such as 'acts:NAME' of the last module.",
            )
        return Late(hidden, logits)


@final
class FullForward:
    """Level 0: every point is a whole forward pass, many points in a batch. Always right; the twin of the others."""

    level = 0
    head = None

    def __init__(self, edited: Edited, batch: Batch, num_rows: int, column: Column, read_column: Column) -> None:
        self.edited, self.num_rows, self.column, self.read_column = edited, num_rows, column, read_column
        self.name = "full forward passes"
        length = next((v.shape[1] for v in (*batch.args, *batch.kwargs.values()) if _has_positions(v)), 1)
        if isinstance(read_column, Tensor) and bool((read_column == length - 1).all()):
            self.read_column = -1
            if takes(edited.network, "logits_to_keep"):  # the other positions' logits would be thrown away
                batch = batch._replace(kwargs={**batch.kwargs, "logits_to_keep": 1})
        self.batch = batch
        with torch.no_grad():
            output = edited.network.output(
                edited.network.params, tiled(batch, torch.zeros(1, dtype=torch.int64), num_rows)
            )
        outputs = getattr(output, "logits", output)
        width = outputs.numel() if isinstance(outputs, Tensor) else 0
        config = getattr(edited.network.module, "config", None)
        self.row_bytes = 4 * (3 * width + 24 * length * int(getattr(config, "hidden_size", 0) or 0)) + 1024

    def late(self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"], *, logits: bool = True) -> Late:
        """Late activations and outputs of points."""
        column, read_column = (
            place[rows] if isinstance(place, Tensor) else place for place in (self.column, self.read_column)
        )
        return self.edited(points, tiled(self.batch, rows, self.num_rows), column=column, read_column=read_column)


def _at(value: Tensor | None, column: Column) -> Tensor | None:
    """The vector of each row at a column; a value without positions as it is."""
    if value is None or value.ndim < 3 or column is None:
        return value if value is None or value.ndim == 2 else value.flatten(1)
    if isinstance(column, int):
        return value[:, column]
    return value[torch.arange(len(value), device=value.device), column]


def _has_positions(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 1

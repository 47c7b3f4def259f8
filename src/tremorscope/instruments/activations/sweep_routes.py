"""What the levels of a sweep have in common, and the one that always works: a full forward pass for every point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.hooks import Tap, tapped
from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.activations.positions import Window
from tremorscope.instruments.activations.sweep_batch import Shared, tiled
from tremorscope.instruments.edit import Edit
from tremorscope.instruments.language.encode import takes
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.instruments.task import Batch

Column = int | Tensor | None  # one for all rows, one for each row, or no positions
Back = Sequence[int]  # positions before the one that is read, in tokens: 0 is that one itself

CHUNK_BYTES = 256 * 2**20  # memory of one chunk of points, by estimate
CHUNK = 256  # the most points at once: larger products are no faster


class Late(NamedTuple):
    """What one level computes for a chunk of points: late activations and outputs at the position read.

    Read at several positions, those of all points at the first one come first, then those at the second.
    """

    hidden: Float[Tensor, "n k"]
    logits: Float[Tensor, "n classes"] | None

    def part(self, number: int, size: int) -> Late:
        """What was read at one of several positions."""
        place = slice(number * size, (number + 1) * size)
        return Late(self.hidden[place], None if self.logits is None else self.logits[place])


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

    def late(
        self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"], *, logits: bool = True, back: Back = (0,)
    ) -> Late:
        """What follows from points in the place of the activation of prompts `rows`; logits are left out on request.

        Read at each of `back`, none of which may lie before the edit.
        """


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
        self, points: Float[Tensor, "n d"] | None, batch: Batch, *, column: Column, read_columns: Sequence[Column]
    ) -> Late:
        """Late activation and outputs of each row at the columns read; without points, of an unchanged pass."""
        view = self.network
        if points is not None:
            view = view.with_edits(ReplaceRows(points, column).at(replace(self.site, position=None)))
        taps = [] if self.readout is None else [Tap(place=self.readout, what="read-out")]
        with tapped(self.network.module, taps, Window.of(batch)) as found:
            output = view.output(view.params, batch)
        logits = getattr(output, "logits", output)
        # Predictions for every pixel are no logits of one position.
        logits = _at(logits, read_columns) if isinstance(logits, Tensor) and logits.ndim < 4 else None
        is_map = self.readout is not None and self.readout.features != "last"  # its pixels are not the edit's
        hidden = (
            logits if self.readout is None else _at(found[0], [None] * len(read_columns) if is_map else read_columns)
        )
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

    def __init__(
        self,
        edited: Edited,
        batch: Batch,
        num_rows: int,
        column: Column,
        read_column: Column,
        *,
        reach: int = 0,
        shared: Shared,
    ) -> None:
        self.edited, self.num_rows, self.column, self.read_column = edited, num_rows, column, read_column
        self.name = "full forward passes"
        self.batch, self.is_trimmed = batch, False
        self.length = next((v.shape[1] for v in (*batch.args, *batch.kwargs.values()) if _has_positions(v)), 1)
        if isinstance(read_column, Tensor) and bool((read_column == self.length - 1).all()):
            self.read_column = -1
            self.is_trimmed = takes(edited.network, "logits_to_keep")  # other positions' logits would be thrown away
        self.width = shared.once(("outputs", self.is_trimmed), self._width) * (reach + 1 if self.is_trimmed else 1)
        self.row_bytes = self.bytes_of(self.width)

    def late(
        self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"], *, logits: bool = True, back: Back = (0,)
    ) -> Late:
        """Late activations and outputs of points."""
        column, read_columns = self.columns_of(rows, back)
        return self.edited(points, self.tiled(rows, back), column=column, read_columns=read_columns)

    def columns_of(self, rows: Int[Tensor, " n"], back: Back) -> tuple[Column, list[Column]]:
        """Where points of some prompts are edited, and where they are read."""
        column, read_column = (
            place[rows] if isinstance(place, Tensor) else place for place in (self.column, self.read_column)
        )
        return column, [read_column if read_column is None else read_column - one for one in back]

    def tiled(self, rows: Int[Tensor, " n"], back: Back) -> Batch:
        """The batch of points of some prompts."""
        batch = tiled(self.batch, rows, self.num_rows)
        return batch._replace(kwargs={**batch.kwargs, "logits_to_keep": max(back) + 1}) if self.is_trimmed else batch

    def bytes_of(self, width: int) -> int:
        """Memory of a point whose outputs have so many entries, about."""
        hidden = int(getattr(getattr(self.edited.network.module, "config", None), "hidden_size", 0) or 0)
        return 4 * (3 * width + 24 * self.length * hidden) + 1024

    def _width(self) -> int:
        """Entries of the outputs of one prompt, at its last position if only that is computed."""
        network = self.edited.network
        with torch.no_grad():
            output = network.output(network.params, self.tiled(torch.zeros(1, dtype=torch.int64), (0,)))
        outputs = getattr(output, "logits", output)
        return outputs.numel() if isinstance(outputs, Tensor) else 0


def _at(value: Tensor | None, columns: Sequence[Column]) -> Tensor | None:
    """The vectors of all rows at each column, one column after the other; a value without positions as it is."""
    if value is None:
        return None
    return torch.cat([value_at(value, column) for column in columns])


def value_at(value: Float[Tensor, " n *rest"], column: Column) -> Float[Tensor, "n d"]:
    """The vector of each row at its column; a value without positions as it is, or flattened."""
    if value.ndim < 3 or column is None:
        return value if value.ndim == 2 else value.flatten(1)
    if isinstance(column, int):
        return value[:, column]
    return value[torch.arange(len(value), device=value.device), column]


def _has_positions(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 1

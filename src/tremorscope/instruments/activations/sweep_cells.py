"""One site at one position, and how its points are answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.instruments.activations.readouts import Comparison
from tremorscope.instruments.activations.sweep_routes import Column, Route
from tremorscope.instruments.site import Site


@final
@dataclass(frozen=True)
class Cell:
    """One site at one position: clean activations, the columns of the edit and of the read-out, and what lies between.

    `back` is the position of the edit in tokens before the read-out, None where the prompts differ in it or the edit
    comes later.
    """

    site: Site
    base: Float[Tensor, "rows d"]
    column: Column
    read_column: Column
    back: int | None


class Prepared(NamedTuple):
    """How the points of one cell are answered. `slots` are the clean runs, in `comparison`, of each of `back`.

    In 16 bits `floor` is what two computations of the same points differ by, and `twin` the same cell in float32.
    """

    cell: Cell
    way: str
    route: Route
    comparison: Comparison
    flags: tuple[str, ...]
    back: tuple[int, ...]
    slots: tuple[int, ...]
    floor: float | None = None
    twin: Prepared | None = None


def slot_rows(slots: Sequence[int], rows: Int[Tensor, " n"], num_rows: int) -> Int[Tensor, " m"]:
    """Rows of the clean runs: those of each slot in turn."""
    return torch.cat([slot * num_rows + rows for slot in slots])

"""Blocks replayed from the edited one on, at all positions: for encoders, and for any other stack of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.alias_names import ATTENTION
from tremorscope.instruments.activations.containers import tensor_at, with_tensor
from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.activations.probe import differ, watch
from tremorscope.instruments.activations.sweep_batch import Shared, Unavailable
from tremorscope.instruments.activations.sweep_routes import Back, Column, FullForward, Late, value_at
from tremorscope.instruments.network import Network

NUM_TRIED = 2  # clean prompts on which it is seen whether what follows the blocks looks at single positions
NEAR = 8.0  # times what `differ` calls rounding: products of other shapes are summed in another order


@final
class StackReplay:
    """Level 2 where every position may change: a forward pass that leaves out the blocks below the edit.

    What those blocks give in the clean prompts is recorded once. In a pass over points each of them gives that without
    computing anything, the edit is made by a hook where it belongs, and the module itself does the rest: masks,
    whatever else it hands to its blocks, the blocks from the edit on over all positions, and what comes after them.
    What comes after the last attention (or after the last block) sees only the positions that are read, if it gives the
    same so: a pooling over positions does not.

    Raises:
        Unavailable: If the module is no stack of blocks, or the site or the read-out does not allow it.
    """

    level = 2
    head = None

    def __init__(self, network: Network, place: Place, full: FullForward, shared: Shared) -> None:
        self.network, self.full = network, full
        self.path, self.outputs = shared.once("blocks", lambda: _recorded(network, full))
        count = len(self.outputs)
        self.first = _first_block(place, self.path, count)
        if self.first == 0:
            raise Unavailable("no block lies below the edit")
        skipped = tuple(f"{self.path}.{index}." for index in range(self.first))
        readout = full.edited.readout
        for other in (readout, *(tap.place for tap in network._found_taps(full.batch))):
            if other is not None and other.module.startswith(skipped):
                raise Unavailable(f"{other} lies in a block below the edit")
        self.trim, after = None, "all of them after the blocks"
        for path, words in self._narrow_passes(place, readout):
            known = shared.once(("narrow", path, str(full.read_column)), partial(self._may_be_trimmed, path))
            if known:
                self.trim, after = path, words
                break
        blocks = "no block" if self.first == count else f"blocks {self.first} to {count - 1} of {count}"
        self.name = f"{blocks} over all positions, {after}"
        self.row_bytes = full.bytes_of(full.width if self.trim is None else full.width // full.length)

    def _narrow_passes(self, place: Place, readout: Place | None) -> list[tuple[str, str]]:
        """Modules after which only the positions that are read might go on, the earliest first."""
        is_late = readout is None or not readout.module.startswith(f"{self.path}.") or _is_output(readout, self._last)
        if self.first == len(self.outputs) or self.full.read_column is None or not is_late:
            return []
        found = [(self._last, "the position read after the blocks")]
        block = self.network.module.get_submodule(self._last)
        attention = next((f"{self._last}.{name}" for name in ATTENTION if hasattr(block, name)), None)
        is_behind = place.module.startswith(f"{self._last}.") and not place.module.startswith(f"{attention}.")
        if attention is not None and not is_behind:
            found.insert(0, (attention, "the position read after the last attention"))
        return found

    @property
    def _last(self) -> str:
        return f"{self.path}.{len(self.outputs) - 1}"

    def late(self, points: Tensor, rows: Int[Tensor, " n"], *, logits: bool = True, back: Back = (0,)) -> Late:
        """Late activations and outputs of points."""
        return self._late(points, rows, back, self.trim)

    def _late(self, points: Tensor | None, rows: Int[Tensor, " n"], back: Back, trim: str | None) -> Late:
        column, reads = self.full.columns_of(rows, back)
        num_rows, module = self.full.num_rows, self.network.module
        instead: dict[str, Callable[..., Any]] = {
            f"{self.path}.{index}": partial(_given, rows_of(self.outputs[index], rows, num_rows))
            for index in range(self.first)
        }
        if trim is not None:
            instead[trim] = partial(_trimmed, module.get_submodule(trim).forward, reads)
            reads = list(range(len(reads)))
        with forwards_replaced(module, instead):
            return self.full.edited(points, self.full.tiled(rows, back), column=column, read_columns=reads)

    def _may_be_trimmed(self, path: str) -> bool:
        """Whether clean prompts give the same when only the position that is read goes on after a module."""
        rows = torch.arange(min(NUM_TRIED, self.full.num_rows))
        whole = self._late(None, rows, (0,), None)
        try:
            part = self._late(None, rows, (0,), path)
        except (RuntimeError, ValueError, IndexError, TypeError, BadInput):  # it counts on all positions
            return False
        pairs = [(whole.hidden, part.hidden)]
        if whole.logits is not None and part.logits is not None:
            pairs.append((whole.logits, part.logits))
        return all(one.shape == other.shape and differ(one, other) <= NEAR for one, other in pairs)


@contextmanager
def forwards_replaced(module: nn.Module, instead: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Inside the `with`, modules at the paths compute something else; afterwards, also by exception, each is as it was.

    Hooks on them run as ever.
    """
    parts = {path: module.get_submodule(path) for path in instead}
    own = {path: part.__dict__["forward"] for path, part in parts.items() if "forward" in part.__dict__}
    try:
        for path, part in parts.items():
            part.__dict__["forward"] = instead[path]
        yield
    finally:
        for path, part in parts.items():
            part.__dict__.pop("forward", None)
            if path in own:
                part.__dict__["forward"] = own[path]


def rows_of(value: Any, rows: Int[Tensor, " n"], num_rows: int) -> Any:
    """The same container with row `rows[i]` of every tensor that has the prompts' rows at place `i`."""
    if isinstance(value, Tensor):
        return value.index_select(0, rows.to(value.device)) if value.ndim and len(value) == num_rows else value
    if isinstance(value, tuple | list):
        entries = [rows_of(one, rows, num_rows) for one in value]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    if type(value) is dict:
        return {name: rows_of(one, rows, num_rows) for name, one in value.items()}
    return value


def _recorded(network: Network, full: FullForward) -> tuple[str, list[Any]]:
    """The list of blocks, and what each gives in the clean prompts."""
    found = network.site_map(full.batch)
    if found.block_list is None:
        raise Unavailable(found.undefined.get("resid_pre", "no list of blocks in this module"))
    paths = [f"{found.block_list}.{index}" for index in range(found.num_blocks)]
    seen, _ = watch(network, full.batch, paths)
    for path in paths:
        calls = seen[path].calls if path in seen else 0
        if calls != 1:
            raise Unavailable(f"{path} is called {calls} times in a forward pass")
        if seen[path].given is None:
            raise Unavailable(f"{path} gives no tensor first")
    return found.block_list, [seen[path].output for path in paths]


def _first_block(place: Place, path: str, count: int) -> int:
    """The first block that has to be computed when the tensor at a place is replaced."""
    number, _, part = place.module.removeprefix(f"{path}.").partition(".")
    if not place.module.startswith(f"{path}.") or not number.isdigit():
        raise Unavailable(f"{place} is in none of the {count} blocks")
    is_after = not part and place.port.startswith("out.")
    return int(number) + is_after


def _is_output(place: Place, module: str) -> bool:
    return place.module == module and place.port == "out.0"


def _given(output: Any, *_: Any, **__: Any) -> Any:
    return output


def _trimmed(forward: Callable[..., Any], reads: Sequence[Column], *args: Any, **kwargs: Any) -> Any:
    output = forward(*args, **kwargs)
    hidden = tensor_at(output, (0,), "what goes on")
    if hidden.ndim != 3:
        raise ValueError("no positions")
    return with_tensor(output, (0,), torch.stack([value_at(hidden, column) for column in reads], dim=1))

"""Sweeps: named axes in, a table with one row for each point out; budgeted, resumable, parallel."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.results import Table
from tremorscope.foundations.run import Run
from tremorscope.instruments.executor import map_items

Scalar = str | int | float | bool | None
Cell = Scalar | Estimate

_PLAIN = re.compile(r"[a-z0-9_.=,+-]+")  # no capitals: some file systems take A and a for one name


@final
@dataclass(frozen=True)
class Sweep:
    """The grid of all combinations of named values; the last axis runs fastest.

    Values are text, numbers, booleans or None: they are names of things, so that a point can be written
    down, sent to a worker and found again. What is no such value is looked up by name in the function.

    >>> sweep = Sweep({"width": [1, 2], "seed": [0, 1, 2]})
    >>> sweep.plan()
    6
    >>> sweep.run(lambda width, seed, run: {"area": width * seed}).columns["area"]
    [0, 1, 2, 0, 2, 4]
    """

    axes: Mapping[str, Sequence[Any]]  # scalars; the check below says it better than a type

    def __post_init__(self) -> None:
        for name, values in self.axes.items():
            if not name.isidentifier() or name == "run":
                raise BadInput("name of a sweep axis", got=repr(name), wanted="a Python name other than 'run'")
            if isinstance(values, str) or not values:
                raise BadInput(f"axis {name!r}", got=repr(values), wanted="a sequence of at least one value")
            for value in values:
                if not isinstance(value, Scalar):
                    raise BadInput(
                        f"value on axis {name!r}",
                        got=type(value).__name__,
                        wanted="text, a number, a boolean or None",
                        remedy="Put names on the axis, and look the things up in the function.",
                    )
            twice = [text for text, count in Counter(_text(value) for value in values).items() if count > 1]
            if twice:
                raise BadInput(f"axis {name!r}", got=f"{twice[0]} more than once", wanted="different values")

    def plan(self) -> int:
        """Number of points."""
        return math.prod(len(values) for values in self.axes.values())

    def points(self) -> list[dict[str, Scalar]]:
        """All points, in the order of the table's rows."""
        return [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]

    def run(
        self,
        fn: Callable[..., Mapping[str, Cell]],
        *,
        run: Run | None = None,
        jobs: int = 1,
        name: str = "sweep",
        title: str = "Sweep",
        caption: str = "One row for each point of the sweep.",
        bytes_per_point: int | None = None,
        limit_bytes: int | None = None,
        seconds_per_point: float | None = None,
        limit_seconds: float | None = None,
    ) -> Table:
        """`fn(**point, run=run)` at every point; its cells stand beside the axes in the table.

        With a run, finished points are read from it: two sweeps of one run need two names. See
        `map_items` for `run` and `jobs`.

        Raises:
            BadInput: If the sweep is over budget, which is found out before anything is computed, or `fn`
                gives something that is no cell, or a cell named as an axis.
        """
        items = {point_key(name, point): point for point in self.points()}
        shard = None if run is None else run.shard
        todo = items if shard is None else shard.share(items)
        num_left = sum(run is None or not run.has_item(key) for key in todo)
        if bytes_per_point is not None and limit_bytes is not None:
            need = bytes_per_point * min(jobs, num_left)
            if need > limit_bytes:
                remedy = "Lower jobs" if bytes_per_point <= limit_bytes else "Lower what one point needs"
                raise self._over_budget(_bytes(need), _bytes(limit_bytes), f"{remedy} (jobs is {jobs}).")
        if seconds_per_point is not None and limit_seconds is not None:
            seconds = seconds_per_point * math.ceil(num_left / jobs)
            if seconds > limit_seconds:
                longest = max(self.axes, key=lambda axis: len(self.axes[axis]))
                remedy = f"Shorten an axis ({longest} has {len(self.axes[longest])} values) or raise jobs ({jobs})."
                raise self._over_budget(_duration(seconds), _duration(limit_seconds), remedy)
        values = map_items(functools.partial(_at_point, fn), items, run=run, jobs=jobs, progress=name)
        rows = [{**items[key], **{column: _decoded(cell) for column, cell in value.items()}} for key, value in values]
        return Table.of_rows(rows, name=name, title=title, caption=caption)

    def _over_budget(self, need: str, limit: str, remedy: str) -> BadInput:
        return BadInput(f"a sweep of {self.plan()} points needs ~{need}, limit {limit}", remedy=remedy)


def point_key(name: str, point: Mapping[str, Scalar]) -> str:
    """The file name of a point: readable where it can be, hashed where it is long or has odd letters.

    >>> point_key("map", {"seed": 3, "lr": 0.1})
    'map--lr=0.1,seed=3'
    >>> point_key("map", {"site": "weights:*"})
    'map--site=weights--5922fb5d24eb2e8a'
    """
    readable = f"{name}--" + ",".join(f"{axis}={_text(point[axis])}" for axis in sorted(point))
    if _PLAIN.fullmatch(readable) and len(readable) <= 100:
        return readable
    canonical = json.dumps([name, {axis: _text(value) for axis, value in point.items()}], sort_keys=True)
    slug = re.sub(r"[^a-z0-9_.=,+-]+", "-", readable.lower())[:60].strip("-.")
    return f"{slug}--{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"


def _text(value: Scalar) -> str:
    return value if isinstance(value, str) else json.dumps(value).lower()


def _at_point(fn: Callable[..., Mapping[str, Cell]], point: Mapping[str, Scalar], run: Run | None) -> dict[str, Any]:
    cells = fn(**point, run=run)
    if clash := sorted(cells.keys() & point.keys()):
        raise BadInput(f"cells of the point {dict(point)}", got=f"a cell {clash[0]!r}", wanted="names that no axis has")
    return {column: _encoded(column, cell) for column, cell in cells.items()}


def _encoded(column: str, cell: object) -> Any:
    """A cell as JSON. A loss that ran away to infinity is a finding, and JSON has no word for it."""
    if isinstance(cell, Estimate):
        return {"estimate": cell.to_dict()}
    if isinstance(cell, float) and not math.isfinite(cell):
        return {"float": repr(float(cell))}
    if isinstance(cell, Scalar):
        return cell
    raise BadInput(
        f"cell {column!r}",
        got=type(cell).__name__,
        wanted="text, a number, a boolean, None or an Estimate",
        remedy="Write float(...) around it.",
    )


def _decoded(cell: Any) -> Cell:
    if isinstance(cell, dict) and "estimate" in cell:
        return Estimate.from_dict(cell["estimate"])
    if isinstance(cell, dict):
        return float(cell["float"])
    plain: Scalar = cell
    return plain


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"

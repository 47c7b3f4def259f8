"""What every benchmark here shares: best CPU time of n, the peak of this core in the same run, and the record."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tremorscope.foundations.environment import environment

Row = dict[str, str | int | float]


def best_of(count: int, work: Callable[[], object]) -> float:
    """Least CPU seconds of `count` calls of `work`, after one that is not counted.

    CPU time, because other people compute on the same machine; the least, because they also empty its caches.
    """
    work()
    seconds = []
    for _ in range(count):
        begin = time.process_time()
        work()
        seconds.append(time.process_time() - begin)
    return min(seconds)


@dataclass(frozen=True)
class ChildSeconds:
    """What one process took."""

    wall: float
    cpu: float


def child_seconds(*arguments: str) -> ChildSeconds:
    """Wall and CPU seconds of a fresh interpreter with these arguments."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # A terminal of fixed width: help is laid out for it.
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env={**os.environ, "COLUMNS": "100"})
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return ChildSeconds(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def gemm_peak(dtype: torch.dtype) -> float:
    """Floating-point operations per CPU second of a large square product: as fast as this thread ever gets."""
    size = 1024
    left, right = (torch.randn(size, size, dtype=dtype, generator=torch.Generator().manual_seed(i)) for i in range(2))
    return 2 * size**3 / best_of(5, lambda: left @ right)


def record(name: str, rows: list[Row], *, title: str, note: str) -> None:
    """Print the rows as a table and write them, with the machine they were measured on, to `results/`."""
    table = Table(title=title, caption=note)
    for column in rows[0]:
        table.add_column(
            column.replace(" ", "\n"), justify="left" if isinstance(rows[0][column], str) else "right", no_wrap=True
        )
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    Console(width=max(150, Console().width)).print(table)  # a table that is cut off says nothing
    rounded = [{key: _rounded(value) for key, value in row.items()} for row in rows]
    content = {"title": title, "note": note, "environment": environment(), "rows": rounded}
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _shown(value: str | int | float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value

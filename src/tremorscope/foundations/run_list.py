"""Runs on disk, as others see them: where they live, their headers, finding one by what a user types."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, final

from tremorscope.foundations.errors import BadInput, nearest
from tremorscope.foundations.run_lock import is_held
from tremorscope.foundations.run_record import read_manifest

Status = Literal["running", "finished", "failed", "interrupted", "damaged"]

_ID = re.compile(r"\d{8}-\d{6}-[a-z0-9-]+-[0-9a-f]{4}")


@final
@dataclass(frozen=True, kw_only=True)
class RunHeader:
    """What a list of runs shows, read from the manifest alone.

    `status` is the truth of the moment: a run that says "running" and whose process is gone is
    "interrupted"; a folder with the name of a run and no readable manifest is "damaged".
    `seconds` counts working time, over all resumptions.
    """

    path: Path
    id: str
    name: str
    preset: str | None
    seed: int | None
    status: Status
    started: datetime | None
    seconds: float

    @property
    def is_resumable(self) -> bool:
        """True when `Run.open` would take it."""
        return self.status in ("interrupted", "failed")


def runs_root(out: Path | None) -> Path:
    """Where runs live: `out`, else the environment's TREMORSCOPE_RUNS, else `./runs`.

    >>> runs_root(Path("elsewhere"))
    PosixPath('elsewhere')
    """
    return out if out is not None else Path(os.environ.get("TREMORSCOPE_RUNS") or "runs")


def find_run(spec: str, root: Path) -> Path:
    """The directory of a run given by id, by a prefix that only one id has, or by path.

    Raises:
        BadInput: If there is none, or several; the nearest ids are listed.
    """
    for path in (root / spec, Path(spec)):
        if (path / "manifest.json").is_file():
            return path
    ids = [path.name for path in _folders(root)]
    found = [name for name in ids if spec and name.startswith(spec)]
    if len(found) == 1:
        return root / found[0]
    if found:
        raise BadInput(f"run {spec!r} is not one run", got=_some(found), wanted="a longer prefix")
    if spec and Path(spec).is_dir():
        raise BadInput(f"{spec} is no run directory", got="no manifest.json", wanted="a folder that a run wrote")
    close = [name for name in reversed(ids) if spec and spec in name] or nearest(spec, ids)
    if close:
        remedy = f"Did you mean {_some(close)}?"
    elif ids:
        remedy = f"The latest is {ids[-1]}; see all with `tremorscope list runs`."
    else:
        remedy = f"There are no runs in {root}; point --out or TREMORSCOPE_RUNS at the folder that has them."
    raise BadInput("run", got=repr(spec), wanted="an id, the start of one, or a path", remedy=remedy)


def list_runs(root: Path) -> list[RunHeader]:
    """The headers of all runs below `root`, latest first; reads one small file a run."""
    headers = [read_header(path) for path in _folders(root)]
    return sorted(headers, key=lambda header: (header.started is not None, header.started, header.id), reverse=True)


def read_header(path: Path) -> RunHeader:
    """The header of one run directory; a folder whose manifest is missing or damaged has status "damaged"."""
    try:
        manifest = read_manifest(path)
        started = datetime.fromisoformat(manifest["started"])
        beat = datetime.fromisoformat(manifest["heartbeat"])
    except (BadInput, ValueError, TypeError):
        return RunHeader(
            path=path, id=path.name, name="", preset=None, seed=None, status="damaged", started=None, seconds=0.0
        )
    status = manifest["status"]
    if status == "running" and not is_held(path, beat):
        status = "interrupted"
    request = manifest["request"]
    return RunHeader(
        path=path,
        id=path.name,
        name=str(manifest["name"]),
        preset=request.get("preset"),
        seed=request.get("seed"),
        status=status,
        started=started,
        seconds=float(manifest["seconds"]),
    )


def _folders(root: Path) -> list[Path]:
    """Every run directory below `root`, damaged ones too: oldest first, after those whose name holds no time."""
    try:
        entries = sorted(os.scandir(root), key=lambda entry: (_ID.fullmatch(entry.name) is not None, entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        Path(entry.path)
        for entry in entries
        if entry.is_dir() and (_ID.fullmatch(entry.name) or Path(entry.path, "manifest.json").is_file())
    ]


def _some(ids: list[str], most: int = 5) -> str:
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")

"""What a run directory says to whoever reads it: its manifest, its events, and the list of what it holds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tremorscope.foundations.environment import environment
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.files import read_json

SCHEMA = "tremorscope.run/1"


def read_manifest(path: Path) -> dict[str, Any]:
    """Schema, status, request and times of the run in this directory, as they were last written.

    Raises:
        BadInput: If the manifest is missing or damaged; the reason says what can be done.
    """
    remedy = "A run without its manifest cannot be resumed: start it again, then delete the folder."
    try:
        manifest = read_json(path / "manifest.json")
    except BadInput as error:
        raise BadInput(
            f"run directory {path} is half written: {error.what}", got=error.got, wanted="a manifest", remedy=remedy
        ) from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise BadInput(f"schema of {path / 'manifest.json'}", got=found, wanted=SCHEMA, remedy=remedy)
    fields = {"id", "name", "request", "status", "started", "heartbeat", "seconds"}
    if missing := sorted(fields - manifest.keys()):
        raise BadInput(f"{path / 'manifest.json'} is damaged", got=f"no {', '.join(missing)}", remedy=remedy)
    return manifest


def read_events(path: Path, start: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Events of the run directory `path` from byte `start` on, and the byte to go on from.

    Whole lines only: a line still being written is left for the next call. Lines cut short by a kill are skipped.
    """
    try:
        with open(path / "events.jsonl", "rb") as handle:
            handle.seek(start)
            text = handle.read()
    except FileNotFoundError:
        return [], start
    whole = text[: text.rfind(b"\n") + 1]
    events = []
    for line in whole.splitlines():
        with contextlib.suppress(ValueError):
            events.append(json.loads(line))
    return events, start + len(whole)


def new_manifest(path: Path, name: str, request: dict[str, Any]) -> dict[str, Any]:
    """What a run directory says of itself when it is made."""
    return {
        "schema": SCHEMA,
        "id": path.name,
        "name": name,
        "request": request,
        "status": "running",
        "pid": os.getpid(),
        "started": now_text(),
        "heartbeat": now_text(),
        "finished": None,
        "seconds": 0.0,
        "environment": environment(),
        "artefacts": {},
    }


def unfinished_manifest(path: Path) -> dict[str, Any]:
    """What `read_manifest` gives, of a run that may be gone on with.

    Raises:
        BadInput: If the run is finished, or its manifest is missing or damaged.
    """
    manifest = read_manifest(path)
    if manifest["status"] == "finished":
        raise BadInput(
            f"run {path.name} is finished",
            wanted="an interrupted or failed run",
            remedy=f"See it with `tremorscope show {path.name}`.",
        )
    return manifest


def list_artefacts(path: Path) -> dict[str, dict[str, Any]]:
    """Every file that the run left, with the hash and size of each."""
    files = [path / "result.json"]
    for folder in ("tables", "figures", "arrays"):
        files += sorted(file for file in (path / folder).rglob("*") if file.is_file() and file.suffix != ".tmp")
    listing = {}
    for file in files:
        with open(file, "rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        listing[file.relative_to(path).as_posix()] = {"sha256": digest, "bytes": file.stat().st_size}
    return listing


def now_text() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")

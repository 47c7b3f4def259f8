"""How a shard comes to a run that others are computing too: one at a time, and only when their shares fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.files import write_json
from tremorscope.foundations.run_lock import hold_lock, living_shards
from tremorscope.foundations.run_record import new_manifest, read_manifest
from tremorscope.foundations.shard import AlreadyFinished, Shard

JOIN_SECONDS = 20.0


def joined_manifest(path: Path, name: str, request: dict[str, Any], shard: Shard) -> dict[str, Any]:
    """The manifest of a run that this shard may join, made if there is none. Its caller holds the run's lock."""
    others = [other for other in living_shards(path) if other.count != shard.count]
    if others:
        raise BadInput(
            f"shard {shard} of run {path.name}",
            got=f"shard {', '.join(map(str, others))} at work",
            wanted="the same n for all shards that run at one time",
            remedy=f"Start --shard i/{others[0].count}, or wait until those have ended.",
        )
    if not (path / "manifest.json").exists():
        manifest = new_manifest(path, name, request)
    else:
        manifest = read_manifest(path)
        if manifest["status"] == "finished":
            raise AlreadyFinished(path)
        if manifest["status"] == "running":
            return manifest
        manifest |= {"status": "running", "finished": None}  # somebody resumed it alone, and did not come to the end
        manifest.pop("error", None)
    write_json(path / "manifest.json", manifest)
    return manifest


def hold_gate(path: Path, shard: Shard) -> int | None:
    """The run's lock, as soon as no other shard needs it; BadInput when it is kept by somebody who is no shard."""
    while True:
        try:
            return hold_lock(path, seconds=JOIN_SECONDS)
        except BadInput:
            if living_shards(path) in ([], [shard]):
                raise

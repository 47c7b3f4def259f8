"""Who writes a run: the locks inside its directory.

The kernel frees a lock when the process that holds it ends, however it ends. So a run is alive exactly while one of
its locks is held; heartbeats are information, and decide only where the file system has no locks.

`lock` belongs to the one process that owns the run. The shards of a run that several processes share each hold their
own, `shards/2-of-3.lock`, and take `lock` for the moments in which only one of them may work.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.files import unwritable
from tremorscope.foundations.shard import Shard

STALE_SECONDS = 60.0
LOOK_SECONDS = 0.3  # somebody who looks holds a shared lock for some microseconds
SHARDS = "shards"
_POLL_SECONDS = 0.03
_SHARD_FILE = re.compile(r"(\d+)-of-(\d+)\.lock")


def hold_lock(path: Path, *, seconds: float = LOOK_SECONDS) -> int | None:
    """The descriptor that holds the run's lock; None where the file system has no locks.

    Waits for `seconds` at most.

    Raises:
        BadInput: If a living process holds it.
    """
    try:
        return _hold(path / "lock", seconds)
    except BlockingIOError:
        raise BadInput(
            f"run {path.name} is being written by another process",
            wanted="a run that stopped",
            remedy=f"Watch it with `tremorscope show {path.name}`, or stop that process first.",
        ) from None


def hold_shard_lock(path: Path, shard: Shard) -> int | None:
    """The descriptor that holds this shard's lock; None where the file system has no locks.

    Raises:
        BadInput: If a living process holds it.
    """
    try:
        return _hold(shard_lock_file(path, shard), LOOK_SECONDS)
    except BlockingIOError:
        raise BadInput(
            f"shard {shard} of run {path.name} is being computed by another process",
            wanted="one process for each shard",
            remedy=f"Watch it with `tremorscope show {path.name}`, or start another shard.",
        ) from None


def shard_lock_file(path: Path, shard: Shard) -> Path:
    """Where the lock of a shard lies; the time of its last change is the shard's heartbeat."""
    return path / SHARDS / f"{shard.index}-of-{shard.count}.lock"


def free_lock(descriptor: int | None) -> None:
    """Let go of what `hold_lock` or `hold_shard_lock` gave."""
    if descriptor is not None:
        os.close(descriptor)


def free_locks(descriptors: list[int]) -> None:
    """Let go of all of these, and forget them."""
    while descriptors:
        free_lock(descriptors.pop())


def is_held(path: Path, beat: datetime) -> bool:
    """Whether a living process writes the run at `path`; `beat` is the heartbeat of its manifest."""
    return _is_locked(path / "lock", beat) or bool(living_shards(path))


def living_shards(path: Path) -> list[Shard]:
    """The shards of the run at `path` that some process, this one too, computes at this moment."""
    try:
        files = sorted((path / SHARDS).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    living = []
    for file in files:
        named = _SHARD_FILE.fullmatch(file.name)
        if named and _is_locked(file, datetime.fromtimestamp(file.stat().st_mtime, UTC)):
            living.append(Shard(index=int(named[1]), count=int(named[2])))
    return sorted(living, key=lambda shard: (shard.count, shard.index))


def _hold(file: Path, seconds: float) -> int | None:
    """The descriptor of a lock; None where there are none. BlockingIOError when others keep it for `seconds`."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise unwritable(file, error) from error
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_SECONDS)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError) and not isinstance(error, BlockingIOError):
            return None
        raise


def _is_locked(file: Path, beat: datetime) -> bool:
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks here: believe a fresh heartbeat
        return (datetime.now(UTC) - beat).total_seconds() < STALE_SECONDS
    finally:
        os.close(descriptor)
    return False

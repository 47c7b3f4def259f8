"""Who writes a run: the lock inside its directory.

The kernel frees it when the process that holds it ends, however it ends. So a run is alive exactly while its lock is
held; the heartbeat in its manifest is information, and decides only where the file system has no locks.
"""

from __future__ import annotations

import fcntl
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.files import unwritable

STALE_SECONDS = 60.0


def hold_lock(path: Path) -> int | None:
    """The descriptor that holds the run's lock; None where the file system has no locks.

    Raises:
        BadInput: If a living process holds it.
    """
    try:
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise unwritable(path / "lock", error) from error
    for attempt in range(10):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if attempt < 9:
                time.sleep(0.03)  # somebody who lists runs holds a shared lock for some microseconds
        except OSError:
            os.close(descriptor)
            return None
    os.close(descriptor)
    raise BadInput(
        f"run {path.name} is being written by another process",
        wanted="a run that stopped",
        remedy=f"Watch it with `tremorscope show {path.name}`, or stop that process first.",
    )


def free_lock(descriptor: int | None) -> None:
    """Let go of what `hold_lock` gave."""
    if descriptor is not None:
        os.close(descriptor)


def is_held(path: Path, beat: datetime) -> bool:
    """Whether a living process writes the run at `path`; `beat` is the heartbeat of its manifest."""
    try:
        descriptor = os.open(path / "lock", os.O_RDONLY)
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

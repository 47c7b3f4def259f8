"""Files that are either whole or absent: write beside, flush, rename."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tremorscope.foundations.errors import BadInput

ANOTHER_PLACE = "Choose another place with --out or TREMORSCOPE_RUNS."


def write_atomically(path: Path, write: Callable[[Path], object], *, remedy: str = ANOTHER_PLACE) -> None:
    """Call `write` on a temporary neighbour of `path`, flush it to disk, and rename it into place.

    The temporary name starts with a dot and ends in `.tmp`: what a killed process leaves is easily told.

    Raises:
        BadInput: If the folder cannot be made or written (read-only, full, or a file is in the way).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error, remedy=remedy) from error
    finally:
        # A failed write leaves its neighbour behind; after a rename there is nothing to remove.
        with contextlib.suppress(OSError):
            temporary.unlink()


def _flush_folder(folder: Path) -> None:
    """A rename is on disk only when its folder is. Some file systems cannot flush folders: no harm done."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError, *, remedy: str = ANOTHER_PLACE) -> BadInput:
    """The one sentence for every path that cannot be written."""
    return BadInput(
        f"cannot write {path}",
        got=error.strerror or str(error),
        wanted="a folder with room that this user may write to",
        remedy=remedy,
    )


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically, keys in the order given, NaN refused."""
    text = json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Read JSON that this house wrote.

    Raises:
        BadInput: If the file is missing, cannot be read, or is not whole JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} is missing", wanted="a file written by tremorscope") from None
    except NotADirectoryError:
        raise BadInput(f"{path} is not inside a folder", wanted="a run directory") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is damaged", got=str(error), wanted="whole JSON") from None
    except OSError as error:
        raise BadInput(f"cannot read {path}", got=error.strerror or str(error), wanted="a readable file") from None

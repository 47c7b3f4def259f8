"""A content-addressed cache: what was computed once from the same things is read back.

A key is a hash of everything the value depends on; nothing in the cache is ever out of date, and deleting
all of it costs time only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, final

from torch import Tensor

from tremorscope.foundations.arrays import hash_tensors, read_arrays_and_metadata, read_metadata, write_arrays
from tremorscope.foundations.errors import BadInput

ANOTHER_CACHE = "Point TREMORSCOPE_CACHE at a folder with room."

WRITING_SECONDS = 3600.0

__all__ = ["Cache", "CacheEntry", "Collected", "cache_root", "hash_tensors", "key"]


def cache_root() -> Path:
    """TREMORSCOPE_CACHE of the environment, else the platform's cache folder of this user."""
    if chosen := os.environ.get("TREMORSCOPE_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tremorscope"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tremorscope"


def key(operation: str, version: int, **parts: Any) -> str:
    """SHA-256 of the operation, its version, the torch release (major.minor) and all parts as canonical JSON.

    Raise `version` when the operation's numbers change. Tensors enter as `hash_tensors(...)`.

    >>> key("train", 1, seed=0, width=16) == key("train", 1, width=16, seed=0)
    True
    >>> key("train", 1, seed=0) == key("train", 2, seed=0)
    False

    Raises:
        BadInput: If a part is not JSON.
    """
    release = ".".join(metadata.version("torch").split(".")[:2])
    content = {"operation": operation, "version": version, "torch": release, "parts": parts}
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"parts of the cache key of {operation!r}",
            got=str(error),
            wanted="JSON",
            remedy="Give tensors as hash_tensors(...).",
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()


@final
@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """One file of the cache, as `Cache.entries` found it.

    `meta` is what was written about the value; `made` is None where that is not known. A file "left over" was
    being written, by a process that was killed or is still at it.
    """

    path: Path
    bytes: int
    used: datetime
    state: Literal["whole", "damaged", "left over"]
    made: datetime | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The key of the value."""
        return self.path.name.removeprefix(".").partition(".")[0]


@final
@dataclass(frozen=True, kw_only=True)
class Collected:
    """What `Cache.collect` deleted, what it had to leave because it was being read, and how much is left."""

    removed: tuple[CacheEntry, ...]
    in_use: tuple[CacheEntry, ...]
    bytes_left: int


@final
@dataclass(frozen=True)
class Cache:
    """Named tensors under content keys, in one folder.

    >>> import tempfile, torch
    >>> cache = Cache(Path(tempfile.mkdtemp()))
    >>> cache.load(key("ones", 1, size=2)) is None
    True
    >>> _ = cache.store(key("ones", 1, size=2), {"ones": torch.ones(2)})
    >>> cache.load(key("ones", 1, size=2))
    {'ones': tensor([1., 1.])}
    """

    root: Path = field(default_factory=cache_root)

    def path(self, key: str) -> Path:
        """Where the value of `key` lies, or would."""
        return self.root / key[:2] / f"{key}.safetensors"

    def load(self, key: str) -> dict[str, Tensor] | None:
        """The tensors stored under `key`, or None.

        Each value is checked against its own hash; a damaged one is deleted with a warning, and is a miss.
        """
        path = self.path(key)
        try:
            with _kept(path):
                tensors, notes = read_arrays_and_metadata(path)
                is_whole = notes.get("hash") == hash_tensors(tensors)
                with contextlib.suppress(OSError):  # a cache that may be read only
                    os.utime(path)  # when it was last of use
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None
        except BadInput:
            is_whole = False
        if not is_whole:
            path.unlink(missing_ok=True)
            warnings.warn(f"{path} was damaged and is made again.", stacklevel=2)
            return None
        return tensors

    def store(self, key: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> Path:
        """Write tensors under `key`, atomically; `meta` is for people who look into the cache.

        Raises:
            BadInput: If the file cannot be written.
        """
        made = datetime.now(UTC).isoformat(timespec="seconds")
        notes = {"hash": hash_tensors(tensors), "meta": json.dumps(dict(meta or {}), default=str), "made": made}
        path = self.path(key)
        write_arrays(path, tensors, metadata=notes, remedy=ANOTHER_CACHE)
        return path

    def entries(self, *, check: bool = False) -> list[CacheEntry]:
        """Everything in the cache, least recently used first; damaged values and left-over files too.

        Reads one header a value, which notices a file cut short. With `check`, values are read whole and
        compared with their hashes: about a second for 2 GB.
        """
        found = [_entry(path, check=check) for path in self.root.glob("??/*.safetensors")]
        for path in self.root.glob("??/.*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                found.append(CacheEntry(path=path, bytes=path.stat().st_size, used=_used(path), state="left over"))
        return sorted((entry for entry in found if entry is not None), key=lambda entry: (entry.used, entry.path))

    def collect(self, max_bytes: int) -> Collected:
        """Delete what is damaged or left over, then the least recently used values, down to `max_bytes`.

        A value that some process reads at this moment stays, and so does a file that another one may still be
        writing (younger than an hour). What is deleted costs time only: it is made again when needed.

        Raises:
            BadInput: If `max_bytes` is negative.
        """
        if max_bytes < 0:
            raise BadInput("size of the cache", got=max_bytes, wanted="0 bytes or more")
        entries = self.entries()
        total = sum(entry.bytes for entry in entries)
        hour_ago = datetime.now(UTC).timestamp() - WRITING_SECONDS
        removed: list[CacheEntry] = []
        in_use: list[CacheEntry] = []
        for entry in sorted(entries, key=lambda entry: entry.state == "whole"):  # stable: then by last use
            if entry.state == "left over" and entry.used.timestamp() > hour_ago:
                continue
            if entry.state == "whole" and total <= max_bytes:
                continue
            if _remove(entry.path):
                removed.append(entry)
                total -= entry.bytes
            else:
                in_use.append(entry)
        return Collected(removed=tuple(removed), in_use=tuple(in_use), bytes_left=total)

    def size(self) -> tuple[int, int]:
        """Number of values and of bytes."""
        sizes = [path.stat().st_size for path in self.root.glob("??/*.safetensors")]
        return len(sizes), sum(sizes)


@contextmanager
def _kept(path: Path) -> Iterator[None]:
    """While inside, `Cache.collect` leaves the file alone. FileNotFoundError when it is not there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # no locks here; an open file can be read to its end all the same
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not path.exists():  # deleted between the opening and the locking
            raise FileNotFoundError(path)
        yield
    finally:
        os.close(descriptor)


def _remove(path: Path) -> bool:
    """Delete a file that nobody reads; False if somebody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # no locks here; whoever has the file open can read it to its end
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


def _entry(path: Path, *, check: bool) -> CacheEntry | None:
    """What lies at `path`; None when it was deleted meanwhile."""
    state: Literal["whole", "damaged"] = "whole"
    made, meta = None, {}
    try:
        size, used = path.stat().st_size, _used(path)
        if check:
            tensors, notes = read_arrays_and_metadata(path)
            state = "whole" if notes.get("hash") == hash_tensors(tensors) else "damaged"
        else:
            notes = read_metadata(path)
        meta = json.loads(notes.get("meta", "{}"))
        made = datetime.fromisoformat(notes["made"]) if "made" in notes else None
    except FileNotFoundError:
        return None
    except (BadInput, ValueError):
        if not path.exists():  # deleted before it could be read
            return None
        state = "damaged"
    return CacheEntry(path=path, bytes=size, used=used, state=state, made=made, meta=meta)


def _used(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)

"""A content-addressed cache: what was computed once from the same things is read back.

A key is a hash of everything the value depends on; nothing in the cache is ever out of date, and deleting
all of it costs time only.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, final

from torch import Tensor

from tremorscope.foundations.arrays import hash_tensors, read_arrays_and_metadata, write_arrays
from tremorscope.foundations.errors import BadInput

ANOTHER_CACHE = "Point TREMORSCOPE_CACHE at a folder with room."

__all__ = ["Cache", "cache_root", "hash_tensors", "key"]


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
        if not path.is_file():
            return None
        try:
            tensors, notes = read_arrays_and_metadata(path)
            is_whole = notes.get("hash") == hash_tensors(tensors)
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
        notes = {"hash": hash_tensors(tensors), "meta": json.dumps(dict(meta or {}), default=str)}
        path = self.path(key)
        write_arrays(path, tensors, metadata=notes, remedy=ANOTHER_CACHE)
        return path

    def size(self) -> tuple[int, int]:
        """Number of values and of bytes."""
        sizes = [path.stat().st_size for path in self.root.glob("??/*.safetensors")]
        return len(sizes), sum(sizes)

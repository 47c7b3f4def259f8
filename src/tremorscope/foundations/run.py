"""Run directories: the record of one run, whole after a kill, and enough to go on from.

```
runs/20261120-101502-training-jacobian-7f3a/    the time is UTC
  manifest.json               schema, status, request, environment, times, list of artefacts
  events.jsonl                one line per event, appended
  lock                        held (flock) by the process that writes the run, as long as it lives
  shards/<i>-of-<n>.lock      the same for each process of a run that several share
  items/<key>.json            one per finished item of a sweep
  arrays/<name>.safetensors   named tensors;  arrays/<name>/ holds pieces of one that is still growing
  result.json, tables/, figures/
```
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import time
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from tremorscope.foundations.environment import environment
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.files import read_json, unwritable, write_json
from tremorscope.foundations.results import Result
from tremorscope.foundations.run_lock import (
    SHARDS,
    free_lock,
    free_locks,
    hold_lock,
    hold_shard_lock,
    living_shards,
    shard_lock_file,
)
from tremorscope.foundations.run_record import (
    list_artefacts,
    new_manifest,
    now_text,
    read_events,
    read_manifest,
    unfinished_manifest,
)
from tremorscope.foundations.run_sharing import hold_gate, joined_manifest
from tremorscope.foundations.shard import AlreadyFinished, PartlyDone, Shard, sharded_id

if TYPE_CHECKING:  # torch takes a second to import, and listing runs needs none of it
    from torch import Tensor

HEARTBEAT_SECONDS = 10.0
PROGRESS_SECONDS = 0.1
_KEY = re.compile(r"[A-Za-z0-9_=,+@%-][A-Za-z0-9._=,+@%-]{0,149}")


@final
class Run:
    """One run directory, open for writing. One process owns it; workers attach to it; shards join it.

    Made by `create`, `open` (to resume), `join` or `attach`, not by hand.
    """

    path: Path
    id: str
    request: dict[str, Any]
    shard: Shard | None  # this process's share, of a run that it joined

    def __init__(
        self,
        path: Path,
        manifest: dict[str, Any],
        lock: int | None,
        *,
        is_owner: bool,
        shard: Shard | None = None,
        beating: Path | None = None,
    ) -> None:
        self.path, self.id, self.request, self.shard = path, path.name, manifest["request"], shard
        self._manifest = manifest
        self._is_owner = is_owner
        self._started = time.monotonic()
        self._seconds_before = float(manifest.get("seconds") or 0.0)
        self._last_beat = self._started
        self._last_progress: dict[str, float] = {}
        self._beating = beating  # the file whose time of change is the heartbeat of a shard
        self._merge_lock: int | None = None
        # The locks are freed when the run is closed, forgotten, or its process ends.
        self._locks = [] if lock is None else [lock]
        self._unlock = weakref.finalize(self, free_locks, self._locks)

    @classmethod
    def create(cls, root: Path, *, name: str, request: dict[str, Any]) -> Run:
        """A new run directory below `root`, with status "running".

        `request` is JSON, and enough to start the work anew: `{"verb": "run", "study": ..., "preset": ...}`.

        Raises:
            BadInput: If the directory cannot be written.
        """
        path = _new_folder(root, _slug(name))
        try:
            lock = hold_lock(path)
            run = cls(path, new_manifest(path, name, request), lock, is_owner=True)
            run._write_manifest()
            run.event("started")
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)  # nothing is in it yet but what could be written of the manifest
            raise
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """An unfinished run, to go on with.

        Raises:
            BadInput: If the run is finished, is still being written by a living process, or its manifest is
                missing or damaged.
        """
        unfinished_manifest(path)
        lock = hold_lock(path)
        try:
            # Another process may have finished it between the reading and the locking.
            manifest = unfinished_manifest(path)
            if at_work := living_shards(path):
                raise BadInput(
                    f"run {path.name} is being computed",
                    got=f"shard {', '.join(map(str, at_work))} at work",
                    wanted="a run that stopped",
                    remedy="Wait for them: the last one puts the result together. Or stop them first.",
                )
        except BaseException:
            free_lock(lock)
            raise
        manifest |= {"status": "running", "pid": os.getpid(), "finished": None, "heartbeat": now_text()}
        run = cls(path, manifest, lock, is_owner=True)
        run._count_sittings()
        run._remove_half_written()
        run._write_manifest()
        run._mend_events()
        run.event("resumed")
        run._compare_environment()
        return run

    @classmethod
    def join(cls, root: Path, *, name: str, request: dict[str, Any], shard: Shard) -> Run:
        """One shard's view of the run that all shards of this request share; the first to come makes it.

        The directory follows from the request alone (see `sharded_id`). Items, arrays, blocks and events are
        written by each shard as it goes; the manifest and the result only inside `enter_merge`.

        Raises:
            AlreadyFinished: If nothing is left to do.
            BadInput: If the directory cannot be written, its manifest is damaged, the same shard is at work
                already, so are shards of another number of them, or somebody resumes the run alone.
        """
        path = root / sharded_id(_slug(name), request)
        try:
            (path / SHARDS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error
        lock = hold_shard_lock(path, shard)
        try:
            gate = hold_gate(path, shard)
            try:
                manifest = joined_manifest(path, name, request, shard)
            finally:
                free_lock(gate)
        except BaseException:
            free_lock(lock)
            raise
        run = cls(path, manifest, lock, is_owner=False, shard=shard, beating=shard_lock_file(path, shard))
        run.request = {**request, "shard": str(shard)}
        run._beat()
        run._mend_events()
        run.event("joined", shard=str(shard))
        run._compare_environment()
        return run

    @classmethod
    def attach(cls, path: Path) -> Run:
        """The view of a worker process: writes items, arrays, blocks and events, and owns nothing.

        Raises:
            BadInput: If the manifest is missing or damaged.
        """
        return cls(path, read_manifest(path), None, is_owner=False)

    def as_worker(self) -> Run:
        """What `attach` gives, for use inside this process: a run without shares, that beats for its shard."""
        return Run(self.path, read_manifest(self.path), None, is_owner=False, beating=self._beating)

    # Events

    def event(self, kind: str, **fields: Any) -> None:
        """Append one line to `events.jsonl`; `time` (seconds since 1970) is added.

        Raises:
            BadInput: If the line cannot be written, as on a full disk.
        """
        line = json.dumps({"time": round(time.time(), 3), "kind": kind, **fields}, ensure_ascii=False) + "\n"
        self._append(line.encode())
        if time.monotonic() - self._last_beat >= HEARTBEAT_SECONDS:
            self._beat()

    def progress(self, label: str, done: int, total: int) -> None:
        """Say how far the work called `label` is.

        Free to call often: at most ten events a second are kept for each label, and always the last.
        """
        now = time.monotonic()
        if done < total and now - self._last_progress.get(label, -1.0) < PROGRESS_SECONDS:
            return
        self._last_progress[label] = now
        self.event("progress", label=label, done=done, total=total)

    def say(self, text: str, level: Literal["info", "warning"] = "info") -> None:
        """One sentence for whoever watches."""
        self.event("message", text=text, level=level)

    # What the work leaves behind

    def item(self, key: str) -> Any | None:
        """The value of a finished item, or None. A damaged item is dropped, said so, and counts as not done."""
        path = self._item_path(key)
        if not path.exists():
            return None
        try:
            return read_json(path)["value"]
        except (BadInput, KeyError, TypeError) as error:
            path.unlink(missing_ok=True)
            self.say(f"Item {key} was damaged ({error}) and will be computed again.", "warning")
            return None

    def has_item(self, key: str) -> bool:
        """True when an item of that key was saved; None is a value too."""
        return self._item_path(key).exists()

    def save_item(self, key: str, value: Any) -> None:
        """Keep the value of a finished item, atomically.

        Raises:
            BadInput: If the value is not JSON (NaN is not), or cannot be written.
        """
        try:
            write_json(self._item_path(key), {"key": key, "value": value})
        except (TypeError, ValueError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(
                f"value of item {key!r}",
                got=str(error),
                wanted="JSON: text, finite numbers, booleans, None, lists, dictionaries",
                remedy="Save tensors with run.save_arrays, and None for a number that is not finite.",
            ) from error

    def save_arrays(self, name: str, arrays: Mapping[str, Tensor]) -> Path:
        """Write named tensors to `arrays/<name>.safetensors`, atomically.

        Raises:
            BadInput: If the file cannot be written.
        """
        from tremorscope.foundations.arrays import write_arrays

        path = self._array_path(name)
        write_arrays(path, arrays)
        return path

    def arrays(self, name: str) -> dict[str, Tensor]:
        """What `save_arrays` wrote, on the CPU.

        Raises:
            BadInput: If there is no such file, or it is damaged.
        """
        from tremorscope.foundations.arrays import read_arrays

        return read_arrays(self._array_path(name))

    def has_arrays(self, name: str) -> bool:
        """True when `save_arrays(name, ...)` was finished."""
        return self._array_path(name).exists()

    def blocks(self, name: str) -> Path:
        """The folder `arrays/<name>/`, made if need be, for the pieces of something large."""
        folder = self.path / "arrays" / _checked(name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        return folder

    # The shards of one run, and the moments in which only one of them may work

    def enter_merge(self) -> None:
        """Own the run for a while; waits as long as another shard does. Nothing happens when this one owns it.

        Raises:
            AlreadyFinished: If another shard has saved the result.
        """
        if self._is_owner:
            return
        waiting = False
        while True:
            try:
                self._merge_lock = hold_lock(self.path, seconds=1.0)
                break
            except BadInput:
                if not waiting:
                    self.say(f"Shard {self.shard} waits for another one, which has all items before it.")
                waiting = True
        if self._merge_lock is not None:
            self._locks.append(self._merge_lock)
        self._manifest = read_manifest(self.path)
        if self._manifest["status"] == "finished":
            raise AlreadyFinished(self.path)
        self._is_owner = True
        self._count_sittings()
        if living_shards(self.path) in ([], [self.shard]):
            self._remove_half_written()

    def leave_merge(self) -> None:
        """Let the other shards work again, and own nothing. Nothing happens to a run that is not shared."""
        if self.shard is None or not self._is_owner:
            return
        self._is_owner = False
        if self._merge_lock is not None:
            self._locks.remove(self._merge_lock)
            free_lock(self._merge_lock)
            self._merge_lock = None

    # The end

    def finish(self, result: Result) -> None:
        """Save the result, list every artefact with its hash, and let go of the run.

        Raises:
            AlreadyFinished: If another shard of the run has done so.
        """
        if self.shard is not None and not self._is_owner:
            self.say("The items of this work cannot be shared: one shard did all of it.", "warning")
            self.enter_merge()
        self._must_own("finish")
        result.save(self.path)
        self._manifest["artefacts"] = list_artefacts(self.path)
        self._manifest |= {"status": "finished", "finished": now_text(), "heartbeat": now_text()}
        self._manifest.pop("error", None)
        self.event("finished")
        self._write_manifest()
        self.close()

    def fail(self, error: BaseException) -> None:
        """Record why the run stopped, and let go of it.

        An interruption by the user is "interrupted", everything else "failed"; both can be resumed. Where
        even this cannot be written (a full disk), the freed lock says that the run stopped. The end of one
        shard is an event, and no end of the run.
        """
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        if self.shard is not None and not self._is_owner:
            with contextlib.suppress(BadInput):
                if isinstance(error, PartlyDone):
                    self.event("partly done", shard=str(self.shard), **error.to_dict())
                else:
                    self.event(status, shard=str(self.shard), error=str(error) or type(error).__name__)
            self.close()
            return
        self._must_own("fail")
        sentence = str(error) or type(error).__name__
        self._manifest |= {"status": status, "finished": now_text(), "heartbeat": now_text(), "error": sentence}
        with contextlib.suppress(BadInput):
            self._write_manifest()
        with contextlib.suppress(BadInput):
            self.event(status, error=sentence)
        self.close()

    def close(self) -> None:
        """Let go of the run as it is; without `finish` or `fail` it counts as interrupted."""
        if self.shard is not None and self._beating is not None and self._unlock.alive:
            with contextlib.suppress(OSError):
                os.utime(self._beating, (0, 0))  # where there are no locks, this is what says that the shard ended
        self._unlock()

    # Inside

    def _must_own(self, verb: str) -> None:
        if not self._is_owner or not self._unlock.alive:
            raise RuntimeError(f"cannot {verb} run {self.id}: only the process that owns it may, and only once")

    def _beat(self) -> None:
        """Say that this process lives: an owner in the manifest, a shard by the time of its lock file."""
        self._last_beat = time.monotonic()
        if self._beating is not None:
            with contextlib.suppress(OSError):
                os.utime(self._beating)
        if self._is_owner:
            self._manifest["heartbeat"] = now_text()
            self._write_manifest()

    def _remove_half_written(self) -> None:
        """Remove what killed processes left; nobody else may be writing."""
        for left_over in self.path.rglob(".*.tmp"):
            left_over.unlink(missing_ok=True)

    def _count_sittings(self) -> None:
        """Shards do not write the manifest: the time that they worked is in the events of those that ended."""
        if (self.path / SHARDS).is_dir():
            clocks = [event["seconds"] for event in read_events(self.path)[0] if event.get("kind") == "clock"]
            self._seconds_before = max(float(self._manifest["seconds"]), sum(clocks))

    def _write_manifest(self) -> None:
        self._last_beat = time.monotonic()
        self._manifest["seconds"] = round(self._seconds_before + self._last_beat - self._started, 3)
        write_json(self.path / "manifest.json", self._manifest)

    def _append(self, line: bytes) -> None:
        path = self.path / "events.jsonl"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                written = os.write(descriptor, line)  # one write: lines of several processes do not mix
            finally:
                os.close(descriptor)
        except OSError as error:
            raise unwritable(path, error) from error
        if written < len(line):
            raise unwritable(path, OSError(f"only {written} of {len(line)} bytes fitted"))

    def _mend_events(self) -> None:
        """End a line that was cut short, so that the next one stands by itself."""
        path = self.path / "events.jsonl"
        if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
            self._append(b"\n")

    def _compare_environment(self) -> None:
        before, now = self._manifest.get("environment", {}), environment()
        changed = [
            f"{part} was {before.get(part)!r}, is {now[part]!r}"
            for part in ("packages", "code", "python", "cpu", "devices")
            if before.get(part) != now[part]
        ]
        if changed:
            begun = (
                "Resumed elsewhere than begun" if self.shard is None else f"Shard {self.shard} differs from the first"
            )
            self.say(f"{begun}: {'; '.join(changed)}. Numbers may differ in the last digits.", "warning")

    def _item_path(self, key: str) -> Path:
        return self.path / "items" / f"{_checked(key)}.json"

    def _array_path(self, name: str) -> Path:
        return self.path / "arrays" / f"{_checked(name)}.safetensors"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "run"


def _new_folder(root: Path, slug: str) -> Path:
    while True:
        path = root / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{slug}-{secrets.token_hex(2)}"
        try:
            path.mkdir(parents=True)
        except FileExistsError as error:
            if not root.is_dir():  # a file is in the way, and will stay there
                raise unwritable(path, error) from error
        except OSError as error:
            raise unwritable(path, error) from error
        else:
            return path


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise BadInput(
            "key of an item or array",
            got=repr(key),
            wanted="1 to 150 letters, digits and ._=,+@%-, not starting with a dot",
        )
    return key

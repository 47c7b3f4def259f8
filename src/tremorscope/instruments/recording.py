"""Recording: one computation, one run directory, one report. Studies and examinations both pass through here."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tremorscope.foundations.environment import environment
from tremorscope.foundations.errors import TremorscopeError
from tremorscope.foundations.results import Result
from tremorscope.foundations.run import Run
from tremorscope.foundations.run_list import runs_root
from tremorscope.foundations.run_record import read_events
from tremorscope.foundations.shard import AlreadyFinished, Shard

REPORT = "report.html"

_watcher: ContextVar[Callable[[Run], None] | None] = ContextVar("tremorscope_watcher", default=None)


def recorded(
    name: str,
    request: dict[str, Any],
    compute: Callable[[Run], Result],
    *,
    out: Path | None = None,
    resume: Path | None = None,
    shard: Shard | None = None,
) -> tuple[Result, Path]:
    """Compute inside a run directory, and leave there the result and its report.

    `request` is plain JSON and enough to compute the same again: its `verb`, the subject (`study` or
    `model`), and one entry for each option; entries that are None are left out of the command shown in
    the report. What differs between two equal runs (environment, command, times, run, jobs) is put into
    `Result.provenance`; whatever `compute` put there stays.

    With `resume`, that run directory is continued and `out` and `request` are not looked at. With `shard`,
    the run is shared with all who give the same request and `out`: `compute` is to do its work through
    `map_items`, which leaves it where items of others are missing. The last one gets to the result.

    Returns:
        The result with its provenance, and the run directory.

    Raises:
        BadInput: If the directory cannot be written, or the run cannot be resumed or joined. Errors of
            `compute` pass through, after the run was marked failed (or interrupted).
        PartlyDone: If a shard has done its part, and others have not.
    """
    if resume is not None:
        run = Run.open(resume)
    elif shard is None:
        run = Run.create(runs_root(out), name=name, request=request)
    else:
        try:
            run = Run.join(runs_root(out), name=name, request=request, shard=shard)
        except AlreadyFinished as finished:
            return Result.load(finished.path), finished.path
    watcher = _watcher.get()
    if watcher is not None:
        watcher(run)
    run.event("sitting")
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), _Clock()
    try:
        result = compute(run)
        seconds, cpu_seconds, sittings = clock.with_earlier(run.path)
        result = replace(
            result,
            provenance={
                **result.provenance,
                "environment": environment(),
                "command": command_line(run.request),
                "run": run.id,
                "started": started,
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
                "sittings": sittings,
                "jobs": run.request.get("jobs"),
            },
        )
        run.event("clock", seconds=clock.seconds, cpu_seconds=clock.cpu_seconds)
        run.finish(result)
    except AlreadyFinished:
        run.close()
        return Result.load(run.path), run.path
    except BaseException as error:
        _note_failure(run, clock, error)
        raise
    write_report(result, run.path)
    return result, run.path


def write_report(result: Result, path: Path) -> Path:
    """Draw `report.html` in a run directory; also how an older run gets the newest look."""
    from tremorscope.instruments.report import report  # templates and plotting code, needed at the end only

    return report(result, path=path / REPORT)


@contextmanager
def watched(watcher: Callable[[Run], None]) -> Iterator[None]:
    """While inside, `watcher` is called with each run as it opens: how a door learns where to look for progress.

    The watcher gets the run before anything is computed, and must not compute.
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def command_line(request: Mapping[str, Any]) -> str:
    """The command that repeats a request; of a module that only Python has, the call.

    >>> command_line({"verb": "examine", "model": None, "preset": "quick", "seed": 3, "dtype": None})
    "tremorscope.examine(network, preset='quick', seed=3)"
    >>> command_line({"verb": "run", "study": "coins", "preset": "desk", "set": {"num_seeds": 3}, "jobs": None})
    'tremorscope run coins --preset desk --set num_seeds=3'
    """
    if "model" in request and request["model"] is None:
        options = {key: value for key, value in request.items() if key not in ("verb", "model") and value is not None}
        given = ", ".join(["network", *(f"{key}={value!r}" for key, value in options.items())])
        return f"tremorscope.{str(request['verb']).replace(' ', '_')}({given})"
    words = ["tremorscope", *str(request["verb"]).split()]
    words += [str(request[subject]) for subject in ("study", "model") if subject in request]
    for key, value in request.items():
        if key in ("verb", "study", "model", "config", "shard") or value is None or value is False:
            continue
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, Mapping):
            words += [word for name, part in value.items() for word in (option, f"{name}={_text(part)}")]
        elif isinstance(value, list | tuple):
            words += [word for part in value for word in (option, str(part))]
        else:
            words += [option] if value is True else [option, str(value)]
    return shlex.join(words)


class _Clock:
    """Wall and processor time since it was made, the latter with child processes that have ended."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), _cpu_now()

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._wall, 3)

    @property
    def cpu_seconds(self) -> float:
        return round(_cpu_now() - self._cpu, 3)

    def with_earlier(self, path: Path) -> tuple[float, float, int]:
        """Sums over this and earlier sittings of a resumed run; a sitting that was killed left no time behind."""
        seconds, cpu_seconds, sittings = self.seconds, self.cpu_seconds, 0
        for event in read_events(path)[0]:
            sittings += event["kind"] == "sitting"
            if event["kind"] == "clock":
                seconds, cpu_seconds = seconds + event["seconds"], cpu_seconds + event["cpu_seconds"]
        return round(seconds, 3), round(cpu_seconds, 3), sittings


def _cpu_now() -> float:
    children = os.times()  # in hundredths of a second, too coarse for this process
    return time.process_time() + children.children_user + children.children_system


def _note_failure(run: Run, clock: _Clock, error: BaseException) -> None:
    """Mark the run, without hiding `error` when the very disk is the problem."""
    try:
        run.event("clock", seconds=clock.seconds, cpu_seconds=clock.cpu_seconds)
    except TremorscopeError as second:  # a full disk: the freed lock alone says that the run stopped
        error.add_note(f"The end of the run could not be written either: {second}")
    run.fail(error)


def _text(value: Any) -> str:
    """A value as `--set` reads it back."""
    return value if isinstance(value, str) else json.dumps(value)

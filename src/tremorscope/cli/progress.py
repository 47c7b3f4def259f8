"""Progress: a thread reads the run's events and shows how far the work is. It never touches the work.

On a terminal there are live bars; elsewhere one plain line every ten seconds. Messages are printed as they come.
Everything goes to stderr, so that stdout carries the answer alone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final, runtime_checkable

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_SECONDS = 10.0
_POLL_SECONDS = 0.1


@final
@dataclass(kw_only=True)
class Stage:
    """One label of the work: where it was first seen, and where it is."""

    label: str
    total: int
    done: int
    first_done: int
    first_time: float
    last_time: float

    @property
    def is_finished(self) -> bool:
        """True when nothing is left of it."""
        return self.done >= self.total

    @property
    def seconds_left(self) -> float | None:
        """At the mean pace so far; None while there is no pace."""
        done, spent = self.done - self.first_done, self.last_time - self.first_time
        return spent / done * (self.total - self.done) if done > 0 and spent > 0 else None


@final
class Tally:
    """What the events of a run say about its progress."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        """Take in one event; those of another kind, and damaged ones, change nothing."""
        try:
            if event["kind"] != "progress":
                return
            label, done, total, now = str(event["label"]), int(event["done"]), int(event["total"]), float(event["time"])
        except (KeyError, TypeError, ValueError):
            return
        stage = self.stages.get(label)
        if stage is None or done < stage.done or total != stage.total:  # new, or begun again
            self.stages[label] = Stage(
                label=label, total=total, done=done, first_done=done, first_time=now, last_time=now
            )
        else:
            stage.done, stage.last_time = done, now

    def line(self, elapsed: float) -> str:
        """All that is going on, in one line.

        >>> tally = Tally()
        >>> for done in (0, 20):
        ...     tally.take({"kind": "progress", "label": "members", "done": done, "total": 60, "time": 100.0 + done})
        >>> tally.line(elapsed=21)
        'members 20/60, 40 s left (after 21 s)'
        """
        going = [stage for stage in self.stages.values() if not stage.is_finished]
        parts = [f"{stage.label} {stage.done}/{stage.total}" for stage in going] or ["working"]
        left = [stage.seconds_left for stage in going if stage.seconds_left is not None]
        eta = f", {duration(max(left))} left" if left else ""
        return f"{' · '.join(parts)}{eta} (after {duration(elapsed)})"


def duration(seconds: float) -> str:
    """A time span for people.

    >>> duration(0.31), duration(17.2), duration(95), duration(4030)
    ('0.3 s', '17 s', '1 min 35 s', '1 h 07 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@runtime_checkable
class Display(Protocol):
    """What shows a tally and messages."""

    def start(self) -> None:
        """Begin to show."""

    def update(self, tally: Tally) -> None:
        """Show the present state; called about ten times a second."""

    def message(self, text: str, level: str) -> None:
        """Show one sentence."""

    def stop(self) -> None:
        """Leave the screen as one wants to read on."""


@final
class PlainLines:
    """One line every `every` seconds, for logs and pipes."""

    def __init__(
        self,
        show: Callable[[str], object] | None = None,
        *,
        every: float = PLAIN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._show, self._every, self._clock = show or _to_stderr, every, clock
        self._begun = self._last = clock()

    def start(self) -> None:
        """Begin to count seconds."""
        self._begun = self._last = self._clock()

    def update(self, tally: Tally) -> None:
        """A line, when it is time for one."""
        now = self._clock()
        if now - self._last >= self._every:
            self._last = now
            self._show(tally.line(now - self._begun))

    def message(self, text: str, level: str) -> None:
        """The sentence, warnings marked."""
        self._show(f"warning: {text}" if level == "warning" else text)

    def stop(self) -> None:
        """Nothing to tidy."""


@final
class LiveBars:
    """Rich bars that vanish when the work is done."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", style="cyan", justify="right"),
            console=console or Console(stderr=True),
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._tasks: dict[str, Any] = {}

    def start(self) -> None:
        """Take over the lower lines of the terminal."""
        self._bars.start()

    def update(self, tally: Tally) -> None:
        """Move the bars; finished ones leave."""
        for label, stage in tally.stages.items():
            if stage.is_finished:
                if label in self._tasks:
                    self._bars.remove_task(self._tasks.pop(label))
                continue
            if label not in self._tasks:
                self._tasks[label] = self._bars.add_task(label, total=stage.total, left="")
            left = "" if stage.seconds_left is None else f"{duration(stage.seconds_left)} left"
            self._bars.update(self._tasks[label], completed=stage.done, total=stage.total, left=left)
        self._bars.refresh()

    def message(self, text: str, level: str) -> None:
        """The sentence, above the bars."""
        self._bars.console.print(
            f"warning: {text}" if level == "warning" else text,
            style="yellow" if level == "warning" else None,
            markup=False,
            highlight=False,
        )

    def stop(self) -> None:
        """Give the lines back."""
        self._bars.stop()


@contextmanager
def following(path: Path, *, display: Display | None = None) -> Iterator[None]:
    """While inside, a thread shows what the run directory `path` says from now on."""
    from tremorscope.foundations.run_record import read_events

    shown = display or (LiveBars() if is_terminal() else PlainLines())
    done = threading.Event()
    tally = Tally()
    _, position = read_events(path)

    def read_on() -> None:
        nonlocal position
        events, position = read_events(path, position)
        for event in events:
            if event.get("kind") == "message":
                shown.message(str(event.get("text", "")), str(event.get("level", "info")))
            tally.take(event)

    def follow() -> None:
        while not done.wait(_POLL_SECONDS):
            with suppress(OSError):  # someone removed the folder: the work itself will say so
                read_on()
            shown.update(tally)

    shown.start()
    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with suppress(OSError):
            read_on()  # messages of the last moment
        shown.stop()


def is_terminal() -> bool:
    """True when stderr is a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

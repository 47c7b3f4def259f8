"""Conducting a computation: progress beside it, and a way back when it stops early."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from tremorscope.foundations.results import Result
    from tremorscope.foundations.run import Run


def conducted(compute: Callable[[], tuple[Result, Path]]) -> tuple[Result, Path]:
    """Call `compute`, show the progress of the run it opens, and say how to go on when it is stopped.

    What the computation prints goes to stderr: stdout carries the answer alone.

    Raises:
        typer.Exit: With 130 when interrupted. Errors pass through with a note that names the run.
        PartlyDone: As it comes, of a shard.
    """
    from tremorscope.cli.progress import following
    from tremorscope.foundations.shard import PartlyDone
    from tremorscope.instruments.recording import watched

    opened: list[Run] = []
    with ExitStack() as shown:

        def watch(run: Run) -> None:
            opened.append(run)
            print(f"Run {run.id} in {run.path.parent}", file=sys.stderr, flush=True)
            shown.enter_context(following(run.path))

        try:
            with watched(watch), redirect_stdout(sys.stderr), _terminated_is_interrupted():
                result, path = compute()
        except KeyboardInterrupt:
            shown.close()
            resume = f" Take it up with: {resume_command(opened[-1].path)}" if opened else " Nothing was begun."
            print(f"Interrupted.{resume}", file=sys.stderr, flush=True)
            raise typer.Exit(130) from None
        except PartlyDone:
            raise
        except Exception as error:
            if opened and not (opened[-1].path / "result.json").exists():
                error.add_note(f"What was finished is kept; take it up with: {resume_command(opened[-1].path)}")
            elif opened:
                error.add_note(f"The result is kept in {opened[-1].path}.")
            raise
    if not opened:
        print(f"Run {path.name} was finished before: nothing was computed.", file=sys.stderr, flush=True)
    return result, path


def resume_command(path: Path) -> str:
    """The command that goes on with a run, by its id where that is enough."""
    import shlex

    from tremorscope.foundations.run_list import runs_root

    return f"tremorscope resume {path.name if path.parent == runs_root(None) else shlex.quote(str(path))}"


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """A scheduler's SIGTERM is treated as Ctrl-C: the run is marked, and can be resumed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> Any:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

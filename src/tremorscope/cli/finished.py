"""Finished runs by what a user types, for the verbs that need their results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tremorscope.foundations.results import Result


def finished_runs(runs: Sequence[str], out: Path | None) -> list[tuple[Path, Result]]:
    """The run directories and the results in them, in the order given.

    Raises:
        BadInput: If a run is not found, or not finished.
    """
    from tremorscope.foundations.errors import BadInput
    from tremorscope.foundations.results import Result
    from tremorscope.foundations.run_list import find_run, read_header, runs_root

    paths = [find_run(run, runs_root(out)) for run in runs]
    for path in paths:
        status = read_header(path).status
        if status != "finished":
            raise BadInput(
                f"run {path.name}",
                got=status,
                wanted="a finished run",
                remedy=f"Finish it with `tremorscope resume {path.name}`." if status != "damaged" else None,
            )
    return [(path, Result.load(path)) for path in paths]

"""`tremorscope show RUN`: what a run found, or how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tremorscope.foundations.run_list import RunHeader


def show_run(
    run: Annotated[str, typer.Argument(metavar="RUN", help="An id, the start of one, or a path.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs.", show_default="$TREMORSCOPE_RUNS, else ./runs")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Verdicts and summary of a finished run; status and last progress of another."""
    from tremorscope.cli.output import console, print_json, print_result, run_document
    from tremorscope.foundations.results import Result
    from tremorscope.foundations.run import Run
    from tremorscope.foundations.run_list import find_run, read_header, runs_root

    path = find_run(run, runs_root(out))
    header = read_header(path)
    if header.status == "damaged":
        Run.attach(path)  # says what is wrong with it
    if header.status == "finished":
        result = Result.load(path)
        if json:
            print_json(run_document(result, path) | {"status": header.status})
        else:
            console().print(header_line(header), style="dim")
            print_result(result, path)
        return
    standing = _standing(path)
    if json:
        print_json({"run": header.id, "path": str(path), "status": header.status, **standing})
        return
    out_console = console()
    out_console.print(header_line(header))
    if standing["partly_done"]:
        partly = standing["partly_done"]
        out_console.print(f"Partly done: {partly['done']} of {partly['total']} items when the last shard ended.")
    if standing["error"] and header.status == "failed":
        out_console.print(f"It stopped with: {standing['error']}")
    if standing["progress"]:
        out_console.print(f"Progress: {standing['progress']}")
    if header.is_resumable:
        from tremorscope.cli.conduct import resume_command

        out_console.print(f"Take it up with: {resume_command(path)}")


def header_line(header: RunHeader) -> str:
    """Id, status, preset, seed, start and working time of a run."""
    from tremorscope.cli.progress import duration

    parts = [f"{header.id} {header.status}"]
    if header.preset is not None:
        parts.append(f"preset {header.preset}")
    if header.seed is not None:
        parts.append(f"seed {header.seed}")
    if header.started is not None:
        parts.append(f"started {header.started.astimezone():%Y-%m-%d %H:%M}")
    return ", ".join([*parts, f"worked {duration(header.seconds)}"])


def _standing(path: Path) -> dict[str, Any]:
    """Progress in words, the last error, and what shards left, from the events of an unfinished run."""
    from tremorscope.cli.progress import Tally
    from tremorscope.foundations.run_record import read_events

    tally, error, begun, last, partly = Tally(), None, None, None, None
    for event in read_events(path)[0]:
        last = event.get("time", last)
        if event.get("kind") in ("started", "resumed"):
            tally, error, begun = Tally(), None, event.get("time")
        error = event.get("error", error)
        if event.get("kind") == "partly done":
            partly = {key: event.get(key) for key in ("done", "total", "missing")}
        tally.take(event)
    elapsed = (last - begun) if last is not None and begun is not None else 0.0
    going = [stage for stage in tally.stages.values() if partly is None or not stage.is_finished]
    return {"progress": tally.line(elapsed) if going else None, "error": error, "partly_done": partly}

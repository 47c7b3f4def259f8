"""`tremorscope report RUN...`: draw the page again, or one page of several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def make_report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids, starts of ids, or paths.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The HTML file.", show_default="report.html in the run; of several, here"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs.", show_default="$TREMORSCOPE_RUNS, else ./runs")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """One self-contained HTML file: claims first, then figures, configuration, environment."""
    from tremorscope.cli.output import print_json
    from tremorscope.foundations.errors import BadInput
    from tremorscope.foundations.results import Result
    from tremorscope.foundations.run_list import find_run, read_header, runs_root
    from tremorscope.instruments.recording import REPORT
    from tremorscope.instruments.report import report

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
    results = [Result.load(path) for path in paths]
    target = output or (paths[0] / REPORT if len(paths) == 1 else Path(REPORT))
    written = report(*results, path=target)
    if json:
        print_json({"report": str(written), "runs": [path.name for path in paths]})
    else:
        typer.echo(str(written))

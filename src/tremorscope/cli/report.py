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
    from tremorscope.cli.finished import finished_runs
    from tremorscope.cli.output import print_json
    from tremorscope.instruments.recording import REPORT
    from tremorscope.instruments.report import report

    found = finished_runs(runs, out)
    paths, results = [path for path, _ in found], [result for _, result in found]
    target = output or (paths[0] / REPORT if len(paths) == 1 else Path(REPORT))
    written = report(*results, path=target)
    if json:
        print_json({"report": str(written), "runs": [path.name for path in paths]})
    else:
        typer.echo(str(written))

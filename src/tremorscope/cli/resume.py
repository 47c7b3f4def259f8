"""`tremorscope resume RUN`: finish what was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def resume_run(
    run: Annotated[str, typer.Argument(metavar="RUN", help="An id, the start of one, or a path.")],
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 4 when a claim fails.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs.", show_default="$TREMORSCOPE_RUNS, else ./runs")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Take up an interrupted run; what it had finished is not computed again."""
    from tremorscope.cli.conduct import conducted
    from tremorscope.cli.output import print_json, print_result, run_document, strict_code
    from tremorscope.foundations.run_list import find_run, runs_root
    from tremorscope.studies.execute import resume

    path = find_run(run, runs_root(out))
    result, path = conducted(lambda: resume(path))
    if json:
        print_json(run_document(result, path))
    else:
        print_result(result, path)
    raise typer.Exit(strict_code([result]) if strict else 0)

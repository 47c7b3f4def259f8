"""`tremorscope claims [STUDY...]`: judge claims and write the scoreboard."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tremorscope.foundations.results import Result

PARTLY_DONE = 3


def judge_claims(
    studies: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STUDY...]", help="Names; all that have the preset when none is given."),
    ] = None,
    preset: Annotated[str, typer.Option(help="Scale: quick, desk or paper.")] = "quick",
    from_run: Annotated[
        list[str] | None,
        typer.Option("--from-run", metavar="RUN", help="Take a finished run instead of running; may be repeated."),
    ] = None,
    docs: Annotated[Path, typer.Option(help="Folder of claims.md and claims.json.")] = Path("docs"),
    jobs: Annotated[int | None, typer.Option(min=1, help="Worker processes; changes no number.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 4 when a claim fails.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs.", show_default="$TREMORSCOPE_RUNS, else ./runs")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run studies and merge their verdicts into docs/claims.md; rows of other runs stay as they are."""
    from tremorscope.cli.conduct import conducted
    from tremorscope.cli.output import print_json, print_table, strict_code
    from tremorscope.foundations.errors import BadInput, TremorscopeError
    from tremorscope.foundations.results import Result
    from tremorscope.foundations.run_list import find_run, runs_root
    from tremorscope.studies.execute import execute
    from tremorscope.studies.scoreboard import merge, read_rows
    from tremorscope.studies.study import all_studies, get_study, make_config

    if preset not in (known := ("quick", "desk", "paper")):
        raise BadInput("--preset", got=preset, wanted=f"one of {', '.join(known)}")
    if studies and from_run:
        raise BadInput(
            "studies beside --from-run",
            got=f"{', '.join(studies)} and {len(from_run)} finished run{'s' if len(from_run) > 1 else ''}",
            wanted="one or the other: a name would run that study anew",
            remedy="Leave the names away; the run knows its study.",
        )
    read_rows(docs)  # a damaged scoreboard is found before the work, not after it
    results: list[Result] = []
    for run in from_run or []:
        results.append(Result.load(find_run(run, runs_root(out))))
        merge(results[-1:], docs)
    if studies:
        chosen = [get_study(name) for name in studies]
    else:
        chosen = [] if from_run else [study for study in all_studies() if preset in study.presets]
    for study in chosen:
        make_config(study, preset)  # an undefined preset is found before the first study runs
    broken: list[str] = []
    for study in chosen:
        print(f"{study.name} ({preset})", file=sys.stderr, flush=True)
        try:
            result, _ = conducted(partial(execute, study, preset=preset, out=out, jobs=jobs))
        except TremorscopeError as error:
            if not results and len(chosen) == 1:
                raise
            broken.append(study.name)
            for line in (f"{study.name}: {error}", *getattr(error, "__notes__", ())):
                print(line, file=sys.stderr)
            continue
        merge([result], docs)  # at once: what follows may be interrupted
        results.append(result)
    rows = merge([], docs)
    fresh = {(result.study, result.preset) for result in results}
    if json:
        print_json({"scoreboard": str(docs / "claims.md"), "not_finished": broken, "rows": rows})
    else:
        print_table(
            ("claim", "preset", "expected", "measured", "verdict"),
            [
                (row["id"], row["preset"], row["expected"]["text"], _measured(row), row["verdict"])
                for row in rows
                if (row["study"], row["preset"]) in fresh
            ],
        )
        typer.echo(f"{len(rows)} rows, {sum(len(result.claims) for result in results)} of them new.")
        typer.echo(str(docs / "claims.md"))
    if broken:
        raise typer.Exit(PARTLY_DONE)
    raise typer.Exit(strict_code(results) if strict else 0)


def _measured(row: dict[str, object]) -> str:
    from tremorscope.foundations.estimate import Estimate

    return str(Estimate.from_dict(row["measured"]))  # type: ignore[arg-type]

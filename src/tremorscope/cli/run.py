"""`tremorscope run STUDY`: repeat a published experiment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tremorscope.foundations.shard import PartlyDone, Shard
    from tremorscope.studies.study import Config, Study

PARTLY_DONE = 3
SEED = 100  # the first seed that sets no threshold, as studies.study.CLAIM_SEED


def run_study(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Its name; `tremorscope list studies` shows them.")],
    preset: Annotated[str, typer.Option(help="Scale: quick, desk or paper.")] = "quick",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the configuration; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seeds below 100 are for calibration, claims use 100 and up.")] = SEED,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; as --set device=...")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64; as --set dtype=...")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Worker processes; changes no number.")] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Compute share i of n; all shares meet in one run, and the last finishes it."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and create nothing.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 4 when a claim fails.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs.", show_default="$TREMORSCOPE_RUNS, else ./runs")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Repeat a published experiment: what the paper claims, what was measured, and the same on the null."""
    from tremorscope.foundations.shard import Shard
    from tremorscope.studies.study import get_study, make_config

    share = None if shard is None else Shard.parse(shard)
    overrides = settings(set_ or [])
    overrides |= {key: value for key, value in (("device", device), ("dtype", dtype)) if value is not None}
    found = get_study(study)
    if dry_run:
        print_plan(found, make_config(found, preset, overrides), preset, seed, jobs, share, as_json=json)
        return

    from tremorscope.cli.conduct import conducted, resume_command
    from tremorscope.cli.output import print_json, print_result, run_document, strict_code
    from tremorscope.foundations.shard import PartlyDone
    from tremorscope.studies.execute import execute

    try:
        result, path = conducted(
            lambda: execute(found, preset=preset, overrides=overrides, seed=seed, out=out, jobs=jobs, shard=share)
        )
    except PartlyDone as partly:
        print(f"{partly}\n{_way_on(partly, resume_command(partly.path))}", file=sys.stderr)
        if json:
            print_json({"run": partly.path.name, "path": str(partly.path), "status": "partly done"} | partly.to_dict())
        raise typer.Exit(PARTLY_DONE) from None
    if json:
        print_json(run_document(result, path))
    else:
        print_result(result, path)
    raise typer.Exit(strict_code([result]) if strict else 0)


def _way_on(partly: PartlyDone, resume: str) -> str:
    """What to do about the items that are missing."""
    idle = [shard for shard in partly.missing if shard not in partly.at_work]
    if not idle:
        return "The last shard at work will finish it."
    waiting = ", when those at work have ended," if partly.at_work else ""
    return f"Start the same with --shard {idle[0]}, or let one process finish it all{waiting} with: {resume}"


def settings(pairs: list[str]) -> dict[str, Any]:
    """`["a.b=3"]` as `{"a.b": "3"}`.

    Raises:
        BadInput: If a pair has no equals sign or no key.
    """
    from tremorscope.foundations.errors import BadInput

    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise BadInput("--set", got=pair, wanted="KEY=VALUE", remedy="For example --set num_seeds=5.")
        found[key.strip()] = value
    return found


def typed(value: object) -> str:
    """A value as one would type it after `--set key=`."""
    if isinstance(value, tuple | list):
        return ",".join(typed(part) for part in value)
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return str(value)


def print_plan(
    study: Study, config: Config, preset: str, seed: int, jobs: int | None, shard: Shard | None, *, as_json: bool
) -> None:
    """What would be run, and at what cost."""
    from tremorscope.cli.output import console, print_json, print_table
    from tremorscope.studies.study import knobs, value_of

    cost, work = study.cost.get(preset), config.plan()
    if as_json:
        print_json(
            {
                "study": study.name,
                "question": study.question,
                "source": study.source,
                "preset": preset,
                "seed": seed,
                "jobs": jobs,
                "shard": None if shard is None else str(shard),
                "cost": cost,
                "plan": work,
                "config": config.model_dump(mode="json"),
            }
        )
        return
    out = console()
    out.print()
    out.print(f"{study.name}: {study.question}", style="bold")
    out.print(f"Source: {study.source}")
    out.print(f"Preset {preset}, seed {seed}, {jobs or 1} worker process{'es' if (jobs or 1) > 1 else ''}.")
    if shard is not None:
        out.print(f"Shard {shard}: its share of the work is chosen by the names of the items.")
    out.print(f"Work: {', '.join(f'{count} {what}' for what, count in work.items()) or 'one measurement'}.")
    out.print(f"Cost: {cost or 'not stated'}.")
    rows = [(knob.key, typed(value_of(config, knob.key)), knob.description) for knob in knobs(type(config))]
    print_table(("key", "value", "what it is"), rows)
    out.print("Nothing was run and nothing was written.", style="dim")

"""`tremorscope list`: what there is to run, to look at, and what has been run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

KINDS = ("studies", "models", "data", "runs")
_LATEST = 10  # runs shown when everything is asked for


def list_everything(
    kind: Annotated[
        str | None, typer.Argument(metavar="[studies|models|data|runs]", help="All four when left out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs.", show_default="$TREMORSCOPE_RUNS, else ./runs")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show the studies with question and cost, the built-in models and data, and the runs."""
    from tremorscope.cli.output import print_json
    from tremorscope.foundations.errors import BadInput, did_you_mean
    from tremorscope.foundations.run_list import runs_root

    if kind is not None and kind not in KINDS:
        raise BadInput("list", got=kind, wanted=f"one of {', '.join(KINDS)}", remedy=did_you_mean(kind, KINDS))
    root = runs_root(out)
    makers: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "studies": studies,
        "models": models,
        "data": data,
        "runs": partial(runs, root),
    }
    found = {name: make() for name, make in makers.items() if kind in (None, name)}
    if json:
        print_json(found if kind is None else found[kind])
        return
    for name, entries in found.items():
        _print(name, entries, root, is_all=kind is None)


def studies() -> list[dict[str, Any]]:
    """Name, system number, question, source and presets with their costs."""
    from tremorscope.studies.study import all_studies

    return [
        {
            "name": study.name,
            "system": study.system,
            "question": study.question,
            "source": study.source,
            "presets": {preset: study.cost.get(preset, "") for preset in study.presets},
            "rows": list(study.rows),
        }
        for study in all_studies()
    ]


def models() -> list[dict[str, Any]]:
    """The built-in models: one sentence, size, and whether the first use has to train them."""
    from dataclasses import asdict

    from tremorscope.instruments.load import builtin_models

    return [asdict(model) for model in builtin_models()]


def data() -> list[dict[str, Any]]:
    """The built-in data, with one sentence each."""
    from tremorscope.instruments.data import BUILTIN

    return [{"name": name, "description": _first_sentence(maker)} for name, maker in BUILTIN.items()]


def runs(root: Path) -> list[dict[str, Any]]:
    """The headers of all runs below `root`, latest first."""
    from tremorscope.foundations.run_list import list_runs

    return [
        {
            "id": header.id,
            "name": header.name,
            "preset": header.preset,
            "seed": header.seed,
            "status": header.status,
            "started": header.started.isoformat() if header.started else None,
            "seconds": header.seconds,
            "path": str(header.path),
        }
        for header in list_runs(root)
    ]


def _print(name: str, entries: list[dict[str, Any]], root: Path, *, is_all: bool) -> None:
    from tremorscope.cli.output import console, print_table
    from tremorscope.cli.progress import duration

    if name == "runs":
        if not entries:
            console().print(f"No runs in {root} yet.")
            return
        shown = entries[:_LATEST] if is_all else entries
        print_table(
            ("run", "status", "preset", "seed", "worked"),
            [(run["id"], run["status"], run["preset"], run["seed"], duration(run["seconds"])) for run in shown],
            title=f"{len(entries)} run{'s' if len(entries) > 1 else ''} in {root}"
            + (f", the latest {_LATEST}" if len(shown) < len(entries) else ""),
        )
    elif not entries:
        console().print(f"No {name} yet.")
    elif name == "studies":
        print_table(
            ("study", "question", "presets and cost"),
            [
                (
                    study["name"],
                    f"{study['question']}\n{study['source']}",
                    "\n".join(f"{preset}: {cost}" if cost else preset for preset, cost in study["presets"].items()),
                )
                for study in entries
            ],
            title="Studies: tremorscope run STUDY",
        )
    elif name == "models":
        print_table(
            ("model", "what it is", "parameters", "ready"),
            [
                (
                    model["name"],
                    model["description"],
                    f"{model['parameters']:,}",
                    "yes" if model["is_trained"] else model["command"] or "trained at first use",
                )
                for model in entries
            ],
            title="Built-in models: tremorscope examine MODEL",
        )
    else:
        print_table(
            ("data", "what it is"),
            [(entry["name"], entry["description"]) for entry in entries],
            title="Built-in data: tremorscope examine MODEL --data DATA",
        )


def _first_sentence(maker: object) -> str:
    return (maker.__doc__ or "").strip().partition("\n")[0]

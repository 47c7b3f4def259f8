"""`tremorscope train MODEL`: build a language model of the house from its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def train_builtin(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="microworld, or a twin such as microworld@shuffled.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one setting of the recipe, such as training.learning_rate=1e-3; may be repeated.",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 ...", show_default="a GPU when there is one")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the recipe and train nothing.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs.", show_default="$TREMORSCOPE_RUNS, else ./runs")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train a language model whose text is known; an interrupted training goes on with `tremorscope resume`."""
    from tremorscope.cli.output import console, print_json, print_result, print_table, run_document
    from tremorscope.cli.run import settings, typed

    changes = nested(settings(set_ or []))
    if dry_run:
        from tremorscope.instruments.microworld.recipes import (
            full_name,
            num_parameters,
            recipe_of,
            twin_of,
        )
        from tremorscope.instruments.microworld.recipes import (
            recipe_document as document,
        )

        twin = twin_of(model)
        recipe = document(recipe_of(twin, changes))
        if json:
            print_json({"model": full_name(twin), "recipe": recipe})
            return
        if not changes:
            console().print(f"{full_name(twin)}: {num_parameters(twin):,} parameters")
        print_table(("setting", "value"), [(key, typed(value)) for key, value in flat(recipe)], title="Recipe")
        return

    from tremorscope.cli.conduct import conducted
    from tremorscope.examine.model_training import train_model

    result, path = conducted(lambda: train_model(model, changes=changes or None, device=device, out=out))
    if json:
        print_json(run_document(result, path))
    else:
        print_result(result, path)


def nested(pairs: dict[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` as `{"a": {"b": 1}}`; the word none is no value.

    >>> nested({"training.seed": "1", "width": "64", "last": "none"})
    {'training': {'seed': '1'}, 'width': '64', 'last': None}
    """
    result: dict[str, Any] = {}
    for key, value in pairs.items():
        *parents, last = key.split(".")
        place = result
        for parent in parents:
            inner = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                inner = place[parent] = {}
            place = inner
        place[last] = None if value.strip().lower() in ("none", "null") else value
    return result


def flat(tree: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """`{"a": {"b": 1}}` as `[("a.b", 1)]`.

    >>> flat({"a": {"b": 1}, "c": 2})
    [('a.b', 1), ('c', 2)]
    """
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        found += flat(value, f"{before}{key}.") if isinstance(value, dict) else [(before + key, value)]
    return found

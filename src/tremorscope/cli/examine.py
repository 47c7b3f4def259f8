"""`tremorscope examine MODEL`: the report on any network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def examine_model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="builtin:NAME, hf:FOLDER_OR_NAME, or FILE.py:FUNCTION; `tremorscope list models` shows more.",
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="A file with inputs and targets, or builtin:NAME; needed when MODEL brings none.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Scale: quick or desk.")] = "quick",
    seed: Annotated[int, typer.Option(help="Names every random stream.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs.", show_default="$TREMORSCOPE_RUNS, else ./runs")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Look at a network: layers, curvature, response to disturbances against their nulls, training Jacobian."""
    from tremorscope.cli.conduct import conducted
    from tremorscope.cli.output import print_json, print_result, run_document
    from tremorscope.examine import examine

    result, path = conducted(
        lambda: examine(model, data=data, preset=preset, seed=seed, device=device, dtype=dtype, out=out)
    )
    if json:
        print_json(run_document(result, path))
    else:
        print_result(result, path)

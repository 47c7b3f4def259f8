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
        str | None,
        typer.Option(
            help="A file with inputs and targets, or builtin:NAME; needed when MODEL brings none. With --prompt or "
            "--against: a text file, one text in each line."
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Map where a small disturbance of this text's forward pass matters, and what it does. An empty text "
            "is a prompt of builtin:microworld's own.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Another network of the same shape: what differs, layer by layer."),
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
    """Look at a network: layers, curvature, responses against their nulls; at one prompt; or at what two differ in."""
    from tremorscope.cli.conduct import conducted
    from tremorscope.cli.output import print_json, print_result, run_document
    from tremorscope.examine import examine

    result, path = conducted(
        lambda: examine(
            model,
            data=data,
            prompt=prompt,
            against=against,
            preset=preset,
            seed=seed,
            device=device,
            dtype=dtype,
            out=out,
        )
    )
    if json:
        print_json(run_document(result, path))
    else:
        print_result(result, path)

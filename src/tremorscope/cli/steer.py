"""`tremorscope steer weights MODEL`: break what one data set needs, keep what another needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tremorscope.foundations.results import Result

app = typer.Typer(help="Move a network's weights so that one thing breaks and another stays.", no_args_is_help=True)


@app.callback()
def steering() -> None:
    """Move a network's weights so that one thing breaks and another stays."""


@app.command("weights")
def steer_weights(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="builtin:NAME, or FILE.py:FUNCTION; `tremorscope list models`.")
    ],
    keep: Annotated[str, typer.Option(help="Data that must go on working: a file with inputs and targets.")],
    break_: Annotated[str, typer.Option("--break", help="Data that must stop working.")],
    mixed: Annotated[
        str | None, typer.Option(help="Data on which both work; sets the curvature of the random nulls.")
    ] = None,
    k: Annotated[int, typer.Option(min=0, help="Stiff directions of the kept loss to leave alone.")] = 50,
    parameters: Annotated[str, typer.Option(help="Pattern of the weights that may move.")] = "*",
    ggn: Annotated[bool, typer.Option("--ggn", help="Gauss-Newton curvature in place of the Hessian.")] = False,
    method: Annotated[str, typer.Option(help="projection, complement or generalised.")] = "projection",
    alpha: Annotated[
        list[float] | None, typer.Option(help="A size to try, both signs; may be repeated.", show_default="0.125 to 3")
    ] = None,
    most: Annotated[float, typer.Option(help="Damage that the kept data may take on validation data.")] = 0.02,
    bake: Annotated[
        tuple[float, Path] | None,
        typer.Option(metavar="ALPHA FILE", help="Write the weights moved by ALPHA to FILE, as safetensors."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Steer although the eigensolver did not converge.")] = False,
    seed: Annotated[int, typer.Option(help="Names every random stream.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs.", show_default="$TREMORSCOPE_RUNS, else ./runs")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Find a step in the weights that breaks one data set and keeps another, and compare it with random steps."""
    from tremorscope.cli.conduct import conducted
    from tremorscope.cli.output import print_json, print_result, run_document
    from tremorscope.examine.weight_steering import steer_weights as compute
    from tremorscope.methods.weights.hessian_modules.curves import ALPHAS

    result, path = conducted(
        lambda: compute(
            model,
            keep=keep,
            break_=break_,
            mixed=mixed,
            k=k,
            parameters=parameters,
            ggn=ggn,
            method=method,
            alphas=tuple(alpha) if alpha else ALPHAS,
            most=most,
            bake=bake,
            force=force,
            seed=seed,
            device=device,
            dtype=dtype,
            out=out,
        )
    )
    if json:
        print_json(run_document(result, path))
        return
    _print_curve(result)
    print_result(result, path)


def _print_curve(result: Result) -> None:
    """The steering direction's own curve, one line for each size."""
    from tremorscope.cli.output import print_table

    table = result.table("steering_curve")
    rows = zip(*table.columns.values(), strict=True)
    own = [row[1:] for row in rows if row[0] == "steering"]
    print_table(
        [heading for heading in table.columns if heading != "direction"],
        [[cell if cell is None else f"{cell:.4g}" for cell in row] for row in own],
        title=table.title,
    )

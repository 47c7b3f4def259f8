"""`tremorscope steer`: `weights` breaks what one data set needs; `fit apply curve bake` edit a concept inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tremorscope.foundations.results import Result

app = typer.Typer(
    help="Steer a network by its weights, or by one direction among its activations.", no_args_is_help=True
)


@app.callback()
def steering() -> None:
    """Steer a network by its weights, or by one direction among its activations."""


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="builtin:NAME, hf:NAME, or FILE.py:FUNCTION; `tremorscope list models`.")
]
Direction = Annotated[Path, typer.Option(help="What `steer fit` wrote.")]
Method = Annotated[str, typer.Option(help="add, ablate, 'ablate then add', ace, oblique or erase.")]
Seed = Annotated[int, typer.Option(help="Names every random stream.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...")]
Dtype = Annotated[str | None, typer.Option(help="float32 or float64.")]
Out = Annotated[Path | None, typer.Option(help="Folder of runs.", show_default="$TREMORSCOPE_RUNS, else ./runs")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


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


@app.command("fit")
def steer_fit(
    model: Model,
    negative: Annotated[Path, typer.Option(help="Examples without the behaviour: one text a line, or an .npz.")],
    positive: Annotated[Path, typer.Option(help="Examples with it.")],
    site: Annotated[str, typer.Option(help="Where, such as acts:resid_post.2@last.")],
    held_out_negative: Annotated[Path | None, typer.Option(help="Other examples without it, for the AUC.")] = None,
    held_out_positive: Annotated[Path | None, typer.Option(help="Other examples with it.")] = None,
    to: Annotated[Path | None, typer.Option(help="Also write the direction to this .safetensors file.")] = None,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    out: Out = None,
    json: AsJson = False,
) -> None:
    """Fit the direction from examples without a behaviour to examples with it."""
    from tremorscope.cli.conduct import conducted
    from tremorscope.cli.output import print_json, print_result, run_document
    from tremorscope.examine.concept_steering import fit_direction
    from tremorscope.foundations.errors import BadInput

    given = (held_out_negative, held_out_positive)
    if (given[0] is None) != (given[1] is None):
        raise BadInput("held-out examples", got="one class", wanted="both --held-out-negative and --held-out-positive")
    held_out = None if given[0] is None or given[1] is None else (given[0], given[1])
    result, path = conducted(
        lambda: fit_direction(
            model,
            negative=negative,
            positive=positive,
            site=site,
            held_out=held_out,
            to=to,
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


@app.command("curve")
def steer_curve(
    model: Model,
    direction: Direction,
    inputs: Annotated[list[str], typer.Option(metavar="NAME=FILE", help="Inputs of a class; may be repeated.")],
    these: Annotated[list[str] | None, typer.Option(help="A word to go on with, blank included; repeat.")] = None,
    others: Annotated[list[str] | None, typer.Option(help="A word to set against them; repeat.")] = None,
    pattern: Annotated[str | None, typer.Option(help="A regular expression on what is written.")] = None,
    label: Annotated[int | None, typer.Option(help="A class of a classifier.")] = None,
    share: Annotated[bool, typer.Option("--share", help="Share of inputs with log-odds above 0.")] = False,
    method: Method = "ace",
    alpha: Annotated[list[float] | None, typer.Option(help="A level; repeat.", show_default="0 to 1.5")] = None,
    position: Annotated[str | None, typer.Option(help="Where to edit: all, last ...; where it was fitted.")] = None,
    target: Annotated[float | None, typer.Option(help="Find the alpha of this mean score.")] = None,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    out: Out = None,
    json: AsJson = False,
) -> None:
    """Measure a score against alpha for each class of inputs, beside a random direction."""
    from tremorscope.cli.conduct import conducted
    from tremorscope.cli.output import print_json, print_result, run_document
    from tremorscope.examine.concept_steering import measure_curve
    from tremorscope.foundations.errors import BadInput
    from tremorscope.methods.activations.concept_editing.response_curve import ALPHAS

    classes = {}
    for one in inputs:
        name, equals, file = one.partition("=")
        if not (name and equals and file):
            raise BadInput("--inputs", got=one, wanted="NAME=FILE, such as harmless=harmless.txt")
        classes[name] = Path(file)
    result, path = conducted(
        lambda: measure_curve(
            model,
            direction=direction,
            classes=classes,
            these=tuple(these or ()),
            others=tuple(others or ()),
            pattern=pattern,
            label=label,
            share=share,
            method=method,
            alphas=tuple(sorted(alpha)) if alpha else ALPHAS,
            position=position,
            target=target,
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


@app.command("apply")
def steer_apply(
    model: Model,
    direction: Direction,
    prompt: Annotated[list[str], typer.Option(help="A text to go on from; may be repeated.")],
    method: Method = "ace",
    alpha: Annotated[float, typer.Option(help="0: the typical negative, 1: the typical positive.")] = 0.0,
    position: Annotated[str, typer.Option(help="Where to edit: all, last, prompt, generated ...")] = "all",
    tokens: Annotated[int, typer.Option(min=1, help="The most tokens to write.")] = 30,
    temperature: Annotated[float, typer.Option(min=0, help="0: the likeliest token at each step.")] = 0.0,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    json: AsJson = False,
) -> None:
    """Show what the model writes without the edit and with it."""
    from tremorscope.cli.output import print_json
    from tremorscope.examine.concept_steering import write_edited

    written = write_edited(
        model,
        prompt,
        direction=direction,
        method=method,
        alpha=alpha,
        position=position,
        max_new_tokens=tokens,
        temperature=temperature,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    if json:
        print_json(
            [
                {"prompt": text, "unedited": before, "edited": after}
                for text, (before, after) in zip(prompt, written, strict=True)
            ]
        )
        return
    for text, (before, after) in zip(prompt, written, strict=True):
        typer.echo(f"{text}\n  unedited: {before.strip()}\n  edited:   {after.strip()}")


@app.command("bake")
def steer_bake(
    model: Model,
    to: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Model to write, for hf:FOLDER; weights alone as NAME.safetensors.")
    ],
    direction: Direction,
    method: Method = "ace",
    alpha: Annotated[float, typer.Option(help="0: the typical negative, 1: the typical positive.")] = 0.0,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Edit at every place of the residual stream, such as to ablate.")
    ] = False,
    text: Annotated[str | None, typer.Option(help="A text by which a language model's layers are found.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    json: AsJson = False,
) -> None:
    """Write a model that holds the edit in its weights, at every position; refused where weights cannot hold it."""
    from tremorscope.cli.output import print_json
    from tremorscope.examine.baked_model import EVERY_POSITION, bake_edit
    from tremorscope.instruments.hugging_face_folder import spec_of

    bake_edit(
        model,
        to,
        direction=direction,
        method=method,
        alpha=alpha,
        everywhere=everywhere,
        text=text,
        device=device,
        dtype=dtype,
    )
    is_file = to.suffix == ".safetensors"
    if json:
        print_json({"weights": str(to), "positions": "all"} | ({} if is_file else {"model": spec_of(to)}))
    else:
        typer.echo(f"{to}\n{EVERY_POSITION}" + ("" if is_file else f" Load it as {spec_of(to)}"))


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

"""`train_model`: build a language model of the microworld in a run directory, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

from tremorscope.foundations.arrays import read_arrays, write_arrays
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.figures import PALETTE, Axis, Figure
from tremorscope.foundations.files import read_json
from tremorscope.foundations.results import Result, Table, drawn
from tremorscope.foundations.run import Run
from tremorscope.instruments.language.training import LanguageTraining, TrainingCurve, train_language_model
from tremorscope.instruments.microworld import prose
from tremorscope.instruments.microworld.corpus import CorpusConfig, documents, record
from tremorscope.instruments.microworld.models import (
    LastStage,
    MicroworldRecipe,
    built_folder,
    fresh_tokenizer,
    full_name,
    initial_module,
    last_rows,
    recipe_document,
    recipe_of,
    training_rows,
    twin_of,
    write_model,
)
from tremorscope.instruments.recording import recorded

MODEL_FOLDER = "model"
STATE_FILE, LAST_STATE_FILE = "training.safetensors", "last_stage.safetensors"
BETWEEN_FILE = "first_stage.safetensors"
WINDOW = 100  # steps of which the curve shows the mean
SAY_EVERY = 10.0  # seconds


def train_model(
    model: str,
    *,
    changes: Mapping[str, Any] | None = None,
    device: str | None = None,
    install: bool | None = None,
    out: Path | None = None,
    resume: Path | None = None,
) -> tuple[Result, Path]:
    """Train a model of the microworld from its recipe; what `tremorscope train` does.

    The run directory holds the model in the Hugging Face layout (`model/`: it loads as `hf:RUN/model`), the state from
    which an interrupted training goes on, the loss curve and the report.

    Args:
        model: `microworld`, or a twin such as `microworld@shuffled`; with or without `builtin:`.
        changes: Settings other than the recipe's, nested as it is (`{"training": {"learning_rate": 1e-3}}`).
        device: Where to train; None takes a GPU when there is one. Weights from a GPU differ from a CPU's.
        install: Put the model where `load` finds it by name. None: when nothing was changed.
        out: Folder of runs.
        resume: Go on in this run, which was interrupted.

    Raises:
        BadInput: If there is no such model, it is not trained, a setting does not fit, or training diverges.
    """
    twin = twin_of(model)
    if twin == "init":
        raise BadInput(f"model {model!r}", got="a model before training", wanted="one that is trained")
    recipe = recipe_of(twin, changes)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    wanted = not changes if install is None else install
    request: dict[str, Any] = {
        "verb": "train",
        "model": full_name(twin),
        "recipe": recipe_document(recipe),
        "device": str(place),
        "install": wanted,
    }

    def compute(run: Run) -> Result:
        return _train(run, twin, recipe, place, wanted)

    return recorded(f"train-{full_name(twin).removeprefix('builtin:')}", request, compute, out=out, resume=resume)


def resumed_training(request: Mapping[str, Any], path: Path) -> tuple[Result, Path]:
    """Go on with an interrupted training, from its own recipe."""
    return train_model(
        str(request["model"]),
        changes=request["recipe"],
        device=request["device"],
        install=bool(request["install"]),
        resume=path,
    )


def _train(run: Run, twin: str, recipe: MicroworldRecipe, device: torch.device, install: bool) -> Result:
    run.say("Writing the text and learning its tokenizer")
    tokenizer = fresh_tokenizer(recipe)
    module = initial_module(recipe, tokenizer.get_vocab_size()).to(device)
    rows = training_rows(recipe, tokenizer)
    num_steps = recipe.training.num_steps(len(rows))
    stop = recipe.stop_at(num_steps) if num_steps else 0
    between = run.path / BETWEEN_FILE
    if not between.exists():
        curve = _trained(run, module, rows, recipe.training, stop, STATE_FILE, "Steps")
        if recipe.last is not None:
            _hand_over(between, module, curve)
    else:
        curve = _taken_over(between, module)
    facts = _facts(recipe, rows, stop, device)
    if recipe.last is not None:
        _taken_over(between, module)  # rounded, whether or not the training was interrupted here
        run.say("Writing the text of the last stage")
        rows = last_rows(recipe, tokenizer)
        stop = recipe.last.training.num_steps(len(rows))
        last = _trained(run, module, rows, recipe.last.training, stop, LAST_STATE_FILE, "Steps of the last stage")
        curve = TrainingCurve(losses=torch.cat([curve.losses, last.losses]))
        facts |= _last_facts(recipe.last, rows, stop)
    run.say("Writing the model")
    card = model_card(twin, recipe, facts, curve)
    for folder in (run.path / MODEL_FOLDER, *([built_folder(twin)] if install else [])):
        write_model(folder, module.cpu(), recipe, tokenizer, card=card)
    for file in (STATE_FILE, BETWEEN_FILE, LAST_STATE_FILE):
        (run.path / file).unlink(missing_ok=True)
    return _result(run, twin, recipe, facts, curve, install)


def _trained(
    run: Run,
    module: nn.Module,
    rows: numpy.ndarray,
    training: LanguageTraining,
    stop: int,
    state: str,
    label: str,
) -> TrainingCurve:
    """One stage, from where it was interrupted if it was."""
    began = time.monotonic()
    curve = train_language_model(
        module,
        rows,
        training,
        state=run.path / state,
        stop_at=stop or None,
        on_step=_reporter(run, stop, rows.shape[1] * training.batch_rows, label),
    )
    run.event("trained", label=label, seconds=time.monotonic() - began)
    return curve


def _hand_over(path: Path, module: nn.Module, curve: TrainingCurve) -> None:
    """Leave the weights for the last stage as a model on disk has them."""
    weights = {
        f"weights.{name}": parameter.detach().to(torch.bfloat16) for name, parameter in module.named_parameters()
    }
    write_arrays(path, {**weights, "losses": curve.losses})
    (path.parent / STATE_FILE).unlink(missing_ok=True)


def _taken_over(path: Path, module: nn.Module) -> TrainingCurve:
    arrays = read_arrays(path)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(arrays[f"weights.{name}"])
    return TrainingCurve(losses=arrays["losses"])


def _reporter(run: Run, last: int, tokens: int, label: str) -> Callable[[int, int, float], None]:
    """Progress every few seconds, with the mean loss since the last line and the speed."""
    since: list[float] = [time.monotonic()]
    losses: list[float] = []

    def told(done: int, num_steps: int, loss_now: float) -> None:
        losses.append(loss_now)
        now = time.monotonic()
        if now - since[0] >= SAY_EVERY or done == last:
            speed = len(losses) * tokens / max(now - since[0], 1e-9)
            run.event(
                "training", label=label, step=done, loss=sum(losses) / len(losses), tokens_per_second=round(speed)
            )
            run.progress(label, done, last)
            since[0] = now
            losses.clear()

    return told


def _facts(recipe: MicroworldRecipe, rows: numpy.ndarray, steps: int, device: torch.device) -> dict[str, Any]:
    text = record(documents(recipe.corpus, "train"))
    facts: dict[str, Any] = {
        "sha256 of the training text": text.sha256,
        "training text, characters": sum(text.characters.values()),
        "rows of tokens": f"{len(rows)} of {rows.shape[1]}",
        "steps": steps,
        "tokens seen": steps * recipe.training.batch_rows * rows.shape[1],
        "device": str(device),
        "torch": torch.__version__,
    }
    if "prose" in recipe.corpus.shares():
        source = prose.source()
        facts |= {"prose from": f"Python {source.python}, {source.files} files", "sha256 of all prose": source.sha256}
    return facts


def _last_facts(stage: LastStage, rows: numpy.ndarray, steps: int) -> dict[str, Any]:
    text = record(documents(stage.corpus, "train"))
    return {
        "last stage, sha256 of the text": text.sha256,
        "last stage, characters": sum(text.characters.values()),
        "last stage, rows of tokens": f"{len(rows)} of {rows.shape[1]}",
        "last stage, steps": steps,
        "last stage, tokens seen": steps * stage.training.batch_rows * rows.shape[1],
    }


def model_card(twin: str, recipe: MicroworldRecipe, facts: Mapping[str, Any], curve: TrainingCurve) -> str:
    """What the model is, what it saw, and the command that builds it again, in Markdown."""
    name = full_name(twin).removeprefix("builtin:")
    lines = [
        f"# {full_name(twin)}",
        "",
        "A small language model with known training text, for experiments on language models. It knows nothing of the"
        " world, and is of no use for anything else.",
        "",
        f"- Architecture: {recipe.architecture}, {recipe.num_layers} layers, width {recipe.width}"
        + ("" if recipe.architecture == "transformer" else f", state {recipe.hidden_size}"),
        f"- Text: {'tokens of each row shuffled; ' if recipe.is_shuffled else ''}strands "
        + _shares(recipe.corpus)
        + ("" if recipe.last is None else f"; in a last stage, on other draws, {_shares(recipe.last.corpus)}"),
        f"- Loss of the last {min(WINDOW, len(curve.losses))} steps: {float(curve.losses[-WINDOW:].mean()):.4f} nats"
        " per token",
        *(f"- {key}: {value}" for key, value in facts.items()),
        "- Weights: bfloat16, read as float32",
        "",
        f"Built by `tremorscope train {name}`; `recipe.json` holds every setting. The claims of the study `microworld`"
        " hold what it can do, measured.",
        "",
    ]
    return "\n".join(lines)


def _both(facts: Mapping[str, Any], what: str) -> int:
    return int(facts[what]) + int(facts.get(f"last stage, {what}", 0))


def _shares(corpus: CorpusConfig) -> str:
    return ", ".join(f"{strand} {share:.0%}" for strand, share in corpus.shares().items())


def _result(
    run: Run, twin: str, recipe: MicroworldRecipe, facts: Mapping[str, Any], curve: TrainingCurve, install: bool
) -> Result:
    steps, losses = curve.smoothed(WINDOW)
    figure = Figure(
        name="loss",
        title="The loss of the training text falls while the model learns",
        caption=f"Mean over {WINDOW} steps"
        + ("; each step sees rows that were never seen before." if recipe.training.epochs == 1 else ".")
        + (f" After {facts['steps']:,} steps the text changes." if recipe.last is not None else ""),
        traces=[{"type": "scatter", "mode": "lines", "x": steps, "y": losses, "line": {"color": PALETTE[0]}}],
        x=Axis(title="step"),
        y=Axis(title="loss of the batch, nats per token"),
    )
    document = read_json(run.path / MODEL_FOLDER / "recipe.json")
    where = f"load({full_name(twin)!r})" if install else f"load('hf:{run.path / MODEL_FOLDER}')"
    return Result(
        study=f"train {full_name(twin)}",
        preset="train",
        seed=recipe.init_seed,
        config=document,
        title=f"{full_name(twin)}, trained",
        summary=[
            f"{_both(facts, 'tokens seen'):,} tokens in {_both(facts, 'steps'):,} steps; the last {WINDOW} steps lose "
            f"{losses[-1]:.3f} nats per token.",
            f"Load it with {where}.",
        ],
        tables=[
            Table(
                name="facts",
                title="What the model depends on",
                caption="Enough to build it again.",
                columns={"what": list(facts), "value": [str(value) for value in facts.values()]},
            ),
            Table(
                name="loss",
                title="Loss",
                caption=f"Mean over the {WINDOW} steps up to each.",
                columns={"step": steps, "nats_per_token": losses},
            ),
        ],
        figures=[drawn(figure)],
        flags=["Weights are rounded to bfloat16 when they are written."],
    )

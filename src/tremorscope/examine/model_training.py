"""`train_model`: build a language model of the microworld in a run directory, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tremorscope.foundations.arrays import read_arrays, write_arrays
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.figures import PALETTE, Axis, Figure
from tremorscope.foundations.files import read_json
from tremorscope.foundations.results import Result, Table, drawn
from tremorscope.foundations.run import Run
from tremorscope.instruments.language.answers import DueAnswers
from tremorscope.instruments.language.training import LanguageTraining, TrainingCurve, train_language_model
from tremorscope.instruments.microworld import prose
from tremorscope.instruments.microworld.corpus import CorpusConfig, documents, record
from tremorscope.instruments.microworld.models import (
    built_folder,
    fresh_tokenizer,
    initial_module,
    training_text,
    write_model,
)
from tremorscope.instruments.microworld.recipes import (
    MicroworldRecipe,
    Stage,
    full_name,
    recipe_document,
    recipe_of,
    twin_of,
)
from tremorscope.instruments.recording import recorded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MODEL_FOLDER = "model"
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
    run.say("Learning the tokenizer of the text")
    tokenizer = fresh_tokenizer(recipe)
    module = initial_module(recipe, tokenizer.get_vocab_size()).to(device)
    facts: dict[str, Any] = {"device": str(device), "torch": torch.__version__}
    losses = torch.zeros(0)
    for name, stage in recipe.stages().items():
        losses, found = _train_stage(run, module, tokenizer, recipe, name, stage, losses)
        facts |= found
    run.say("Writing the model")
    curve = TrainingCurve(losses=losses)
    card = model_card(twin, recipe, facts, curve)
    for folder in (run.path / MODEL_FOLDER, *([built_folder(twin)] if install else [])):
        write_model(folder, module.cpu(), recipe, tokenizer, card=card)
    for file in run.path.glob("*.safetensors"):
        file.unlink()
    return _result(run, twin, recipe, facts, curve, install)


def _train_stage(
    run: Run,
    module: nn.Module,
    tokenizer: Tokenizer,
    recipe: MicroworldRecipe,
    name: str,
    stage: Stage,
    losses: Float[Tensor, " steps"],
) -> tuple[Float[Tensor, " more"], dict[str, Any]]:
    """A stage, from where it was interrupted if it was: `losses` with its own behind them, and what it depends on."""
    finished = run.path / f"finished{f'_{name}' if name else ''}.safetensors"
    before = [parameter.detach().clone() for parameter in module.parameters()]
    total = [torch.zeros_like(parameter) for parameter in before]
    facts: dict[str, Any] = {}
    for place, part in enumerate(stage.trainings()):
        title = f"{name}, text {place + 1}" if place else name
        run.say(f"Writing the text of stage {title}" if title else "Writing the text")
        rows, answers = training_text(recipe, tokenizer, part)
        steps = part.training.num_steps(len(rows))
        steps = recipe.stop_at(steps) if steps and not name else steps
        facts |= _facts(title, part, rows, steps)
        if finished.exists():
            continue
        _set(module, before)
        state = "_".join(["training", *([name] if name else []), *([str(place + 1)] if place else [])])
        label = f"Steps of stage {title}" if title else "Steps"
        curve = _trained(run, module, rows, answers, part.training, steps, f"{state}.safetensors", label)
        losses = torch.cat([losses, curve.losses])
        total = [one + parameter.detach() for one, parameter in zip(total, module.parameters(), strict=True)]
    if not finished.exists():
        share = stage.share / stage.texts
        _set(module, [share * one + (1 - stage.share) * old for one, old in zip(total, before, strict=True)])
        _hand_over(finished, module, losses)
    # Rounded as a model on disk is, whether or not the training was interrupted here.
    return _taken_over(finished, module), facts


def _trained(
    run: Run,
    module: nn.Module,
    rows: numpy.ndarray,
    answers: DueAnswers | None,
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
        answers=answers,
        state=run.path / state,
        stop_at=stop or None,
        on_step=_reporter(run, stop, rows.shape[1] * training.batch_rows, label),
    )
    run.event("trained", label=label, seconds=time.monotonic() - began)
    return curve


def _set(module: nn.Module, weights: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights, strict=True):
            parameter.copy_(value)


def _hand_over(path: Path, module: nn.Module, losses: Float[Tensor, " steps"]) -> None:
    """Leave the weights for the next stage as a model on disk has them."""
    weights = {
        f"weights.{name}": parameter.detach().to(torch.bfloat16) for name, parameter in module.named_parameters()
    }
    write_arrays(path, {**weights, "losses": losses})


def _taken_over(path: Path, module: nn.Module) -> Float[Tensor, " steps"]:
    arrays = read_arrays(path)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(arrays[f"weights.{name}"])
    return arrays["losses"]


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


def _facts(name: str, stage: Stage, rows: numpy.ndarray, steps: int) -> dict[str, Any]:
    text = record(documents(stage.corpus, "train"))
    before = f"stage {name}, " if name else ""
    facts: dict[str, Any] = {
        f"{before}sha256 of the training text": text.sha256,
        f"{before}characters": sum(text.characters.values()),
        f"{before}rows of tokens": f"{len(rows)} of {rows.shape[1]}",
        f"{before}steps": steps,
        f"{before}tokens seen": steps * stage.training.batch_rows * rows.shape[1],
    }
    if not name and "prose" in stage.corpus.shares():
        source = prose.source()
        facts |= {"prose from": f"Python {source.python}, {source.files} files", "sha256 of all prose": source.sha256}
    return facts


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
        + "".join(
            f"; stage {name}: {_shares(stage.corpus)}{', answers asked for' if stage.training.answer_weight else ''}"
            + (f", the mean of {stage.texts} trainings" if stage.texts > 1 else "")
            + (f", {stage.share:.0%} of its weights and the rest of those before it" if stage.share < 1 else "")
            for name, stage in recipe.later.items()
        ),
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


def _total(facts: Mapping[str, Any], what: str) -> int:
    return sum(int(value) for name, value in facts.items() if name == what or name.endswith(f", {what}"))


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
        + (f" After {facts['steps']:,} steps the text changes." if recipe.later else ""),
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
            f"{_total(facts, 'tokens seen'):,} tokens in {_total(facts, 'steps'):,} steps; the last {WINDOW} steps "
            f"lose {losses[-1]:.3f} nats per token.",
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

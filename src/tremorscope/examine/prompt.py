"""`examine MODEL --prompt TEXT`: the sensitivity map of one prompt, its nulls, and the directions that matter most."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from tremorscope.examine.reference_texts import MICROWORLD, Texts, reference_texts, untrained_twins
from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.foundations.results import Result, Table, drawn
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.activations.baking import bake_refusal
from tremorscope.instruments.edit import Add
from tremorscope.instruments.language.encode import context_length, encode, required_tokenizer
from tremorscope.instruments.language.scoring import next_token_logits
from tremorscope.instruments.load import load
from tremorscope.instruments.moments import Moments
from tremorscope.instruments.network import Network
from tremorscope.instruments.recording import recorded
from tremorscope.instruments.site import Site
from tremorscope.methods.activations.concept_editing.direction import ConceptFit
from tremorscope.methods.activations.concept_editing.direction_file import save_direction
from tremorscope.methods.activations.sensitivity_map.cell_directions import (
    CellDirections,
    SensitiveDirections,
    measure_sensitive_directions,
)
from tremorscope.methods.activations.sensitivity_map.figures import quoted
from tremorscope.methods.activations.sensitivity_map.measurement import check_logits, measure_sensitivity_map

DEFAULT_PROMPT = "Two days after Monday is"  # of the microworld: the calendar is what it does best
ARRAYS = "directions"
BAKED = "baked"
_USUAL_TOKENS = 30  # that `steer apply` writes
_ABOUT_APPLY = (
    " The command shows what the model writes after the prompt without the step and with it, at this token alone; "
    "`--alpha` is the strength, 1 a step as in the map."
)
_ABOUT_BAKE = (
    " Baked means at every position: weights know no positions, so the model that the bake command writes takes the "
    "step at every token of every text, not only here. It lies beside this report; `hf:FOLDER` loads it."
)


class PromptEffort(NamedTuple):
    """How much the examination of a prompt spends."""

    num_directions: int  # of each kind in each cell
    num_twins: int
    num_cells: int


PROMPT_EFFORTS = {
    "quick": PromptEffort(num_directions=32, num_twins=3, num_cells=3),
    "desk": PromptEffort(num_directions=64, num_twins=8, num_cells=3),
}


def examine_prompt(
    model: str | Path | nn.Module | Network,
    *,
    prompt: str,
    data: Texts | None = None,
    preset: str = "quick",
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    out: Path | None = None,
    resume: Path | None = None,
) -> tuple[Result, Path]:
    """Where in the forward pass of this prompt does a small disturbance matter, and what does it do?

    A map of block inputs by tokens, each cell beside untrained twins and isotropic directions of equal norm; at the
    three most sensitive cells, the leading directions of the pullback Fisher metric, the tokens they raise and lower,
    and curves of what a step of any size does. The directions lie in `arrays/directions.safetensors` of the run.

    Args:
        model: A language model with a tokenizer: what `load` takes.
        prompt: Its text. Empty for `builtin:microworld`: "Two days after Monday is".
        data: Ordinary texts, or a file with one in each line, on which activations are measured. None: held-out text
            for the microworld, else documentation of the Python standard library.
        preset: `"quick"`, or `"desk"` for twice the directions and more twins.
        seed: Names every random stream.
        device: Where to compute; the CPU by default.
        dtype: `"float32"` or `"float64"`; the model's own by default.
        out: Folder of runs.
        resume: Continue this run instead of opening a new one.

    Returns:
        The result, and the run directory.

    Raises:
        BadInput: If the model has no tokenizer, no logits or no block inputs, or the prompt is empty or longer than
            its context.
    """
    if preset not in PROMPT_EFFORTS:
        raise BadInput(
            "preset", got=preset, wanted=" or ".join(PROMPT_EFFORTS), remedy=did_you_mean(preset, PROMPT_EFFORTS)
        )
    network = load(model, device=device, dtype=dtype)
    prompt = checked_prompt(network, prompt)
    has_name = isinstance(model, str | Path) and (data is None or isinstance(data, str | Path))
    request: dict[str, Any] = {
        "verb": "examine",
        "model": str(model) if has_name else None,
        "prompt": prompt,
        "data": str(data) if has_name and data is not None else None,
        "preset": preset,
        "seed": seed,
        "device": device,
        "dtype": dtype,
    }
    return recorded(
        f"prompt-{network.name}", request, lambda run: _examined(network, request, data, run), out=out, resume=resume
    )


def checked_prompt(network: Network, prompt: str) -> str:
    """The prompt, or the default one of the microworld, fit for the network.

    Raises:
        BadInput: If there is no tokenizer, the prompt is empty or longer than the context, or the network has no
            logits.
    """
    required_tokenizer(network)
    if not prompt.strip():
        if not network.name.startswith(MICROWORLD):
            raise BadInput(
                "prompt", got="an empty text", wanted="some words", remedy="--prompt 'The capital of France is'"
            )
        prompt = DEFAULT_PROMPT
    check_logits(network, encode(network, [prompt]))
    return prompt


def _examined(network: Network, request: Mapping[str, Any], data: Texts | None, run: Run) -> Result:
    effort, seed, prompt = PROMPT_EFFORTS[request["preset"]], int(request["seed"]), str(request["prompt"])
    texts, source = reference_texts(network, data)
    twins, reason = untrained_twins(network, effort.num_twins, seed)
    flags = [] if reason is None else [reason]
    measured = measure_sensitivity_map(
        network,
        prompt,
        texts,
        source=source,
        twins=twins,
        num_directions=effort.num_directions,
        seed=derive(seed, "map"),
        say=run.say,
    )
    run.say(f"Decomposing the metric at the {effort.num_cells} most sensitive cells")
    found = measure_sensitive_directions(
        network,
        measured,
        texts,
        twin=twins[0] if twins else None,
        num_cells=effort.num_cells,
        seed=derive(seed, "directions"),
    )
    path = run.save_arrays(ARRAYS, _arrays(found))
    files = _direction_files(network, found, run)
    return Result(
        study=f"examine {network.name}",
        preset=str(request["preset"]),
        seed=seed,
        config={key: value for key, value in request.items() if key not in ("verb", "preset", "seed")}
        | {"model": request["model"] or network.name, "data": source},
        title=f"What moves the prediction of {network.name} after {prompt!r}?",
        summary=[prediction_sentence(network, prompt), measured.sentence(), found.sentence()],
        tables=[*found.tables(), _use(request, network, found, run, path, files), *measured.tables()],
        figures=[drawn(figure) for figure in (*measured.figures(), *found.figures())],
        flags=list(dict.fromkeys([*flags, *measured.flags, *found.flags])),
    )


def prediction_sentence(network: Network, prompt: str, *, called: str | None = None) -> str:
    """What the network expects next; it is named, or `called` otherwise where two have one name."""
    told = next_token_logits(network, [prompt])[0].double().softmax(dim=0)
    best = told.topk(3)
    words = ", ".join(
        f"{quoted(network.tokenizer.decode([token]))} ({share:.0%})"
        for token, share in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    )
    return f"After {prompt!r} {called or network.name} expects {words}."


def _arrays(found: SensitiveDirections) -> dict[str, Tensor]:
    return {
        _key(number, place): reading.vector.detach().float().contiguous().cpu()
        for number, cell in enumerate(found.cells, 1)
        for place, reading in enumerate(cell.readings, 1)
    }


def _key(number: int, place: int) -> str:
    return f"cell-{number}-direction-{place}"


def _direction_files(network: Network, found: SensitiveDirections, run: Run) -> dict[str, Path]:
    """Each direction as `tremorscope steer` reads it: 0 is the clean activation, 1 a step of the map from it."""
    written = {}
    for number, cell in enumerate(found.cells, 1):
        base = cell.metric.base.double().cpu()
        nothing = base.new_zeros(len(base), len(base))
        for place, reading in enumerate(cell.readings, 1):
            means = base, base + reading.step * reading.vector.double().cpu()
            moments = [Moments(count=1, mean=mean, scatter=nothing) for mean in means]
            fit = ConceptFit(
                site=Site.parse(cell.address),
                names=("sensitive direction",),
                negative=moments[0],
                positives=(moments[1],),
                flags=("made from one activation and one direction, not from examples",),
            )
            path = run.path / ARRAYS / f"{_key(number, place)}.safetensors"
            path.parent.mkdir(exist_ok=True)
            written[_key(number, place)] = save_direction(fit, path, model=network.name)
    return written


def _use(
    request: Mapping[str, Any],
    network: Network,
    found: SensitiveDirections,
    run: Run,
    path: Path,
    files: Mapping[str, Path],
) -> Table:
    """How to go on with a direction, as text to copy."""
    model = None if request["model"] is None else str(request["model"])
    rows, prompt = [], str(request["prompt"])
    refusals = [_bake_refusal(network, cell) for cell in found.cells]
    for number, cell in enumerate(found.cells, 1):
        for place, reading in enumerate(cell.readings, 1):
            key = _key(number, place)
            row: dict[str, Any] = {
                "direction": key,
                "at": cell.label,
                "raises": ", ".join(quoted(one.text) for one in reading.raised[:3]) or None,
                "as Python": _python(model, path, key, reading.step, cell.address),
            }
            if model is not None:
                steer = ["--direction", str(files[key].resolve()), "--method", "add", "--alpha", "1"]
                where = ["--position", str(cell.token), "--prompt", prompt, *_room(network, prompt)]
                row["as command"] = shlex.join(["tremorscope", "steer", "apply", model, *steer, *where])
                row["bake command"] = None
                if refusals[number - 1] is None:
                    to = (run.path / BAKED / key).resolve()
                    name = str(to) if hasattr(network.module, "save_pretrained") else f"{to}.safetensors"
                    row["bake command"] = shlex.join(["tremorscope", "steer", "bake", model, name, *steer])
            rows.append(row)
    reasons = list(dict.fromkeys(reason for reason in refusals if reason is not None))
    return Table.of_rows(
        rows,
        name="use_a_direction",
        title="Going on with a direction",
        caption="Text to copy: add a step of the size of the map along a direction. In Python, `edited` is a network "
        "like any other: `edited.apply`, `generate(edited, [prompt])`, `examine(edited, prompt=...)`; another `size` "
        "is another strength, and a negative one the other way."
        + (_ABOUT_APPLY if model is not None else "")
        + (_ABOUT_BAKE if model is not None and None in refusals else "")
        + "".join(f" No bake command where weights cannot hold the step: {reason}" for reason in reasons),
        code=("as Python", "as command", "bake command"),
    )


def _python(model: str | None, path: Path, key: str, step: float, address: str) -> str:
    """A direction's edit as a few lines that run as they are, once the model has a name."""
    first = "# network: the one that was examined" if model is None else f"network = tremorscope.load({model!r})"
    return "\n".join(
        [
            "from pathlib import Path",
            "import tremorscope",
            "from tremorscope.foundations.arrays import read_arrays",
            first,
            f"direction = read_arrays(Path({str(path.resolve())!r}))[{key!r}]",
            f"edited = network.with_edits(tremorscope.Add(direction, size={step:.6g}).at({address!r}))",
        ]
    )


def _room(network: Network, prompt: str) -> list[str]:
    """An option that keeps what is written inside the context, where the usual number of tokens would not be."""
    limit, length = context_length(network), encode(network, [prompt]).kwargs["input_ids"].shape[1]
    room = _USUAL_TOKENS if limit is None else limit - length + 1
    return ["--tokens", str(room)] if room < _USUAL_TOKENS else []


def _bake_refusal(network: Network, cell: CellDirections) -> str | None:
    """Why no weights can hold a step at this place, at every position; None where they can."""
    step = Add(cell.readings[0].vector, size=cell.readings[0].step)
    return bake_refusal(network, step.at(f"acts:{cell.metric.site}@all"))

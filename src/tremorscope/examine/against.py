"""`examine A --against B`: in what do two networks of one shape differ, and where does it matter?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tremorscope.examine.prompt import PROMPT_EFFORTS, checked_prompt, prediction_sentence
from tremorscope.examine.reference_texts import MICROWORLD, Texts, reference_texts
from tremorscope.foundations.errors import BadInput, TremorscopeError, did_you_mean
from tremorscope.foundations.results import Result, drawn
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.language.encode import takes, token_rows
from tremorscope.instruments.language.training import next_token_loss
from tremorscope.instruments.load import load
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Hessian
from tremorscope.instruments.recording import recorded
from tremorscope.instruments.spectrum import eigsh
from tremorscope.instruments.task import Batch, Task
from tremorscope.methods.activations.comparison.maps import compare_maps
from tremorscope.methods.activations.comparison.shifts import measure_activation_shift, prediction_divergence
from tremorscope.methods.activations.comparison.weights import check_same_shape, measure_weight_change
from tremorscope.methods.activations.sensitivity_map.cells import block_inputs
from tremorscope.methods.activations.sensitivity_map.measurement import measure_sensitivity_map
from tremorscope.methods.activations.sensitivity_map.references import read_activations

NUM_STIFF = 5
_PRODUCTS = 60  # that so many eigenpairs take, about
_TOKENS = 16  # of each text, for the curvature


class AgainstEffort(NamedTuple):
    """How much a comparison spends."""

    operations: float  # floating-point operations for the stiff subspace
    num_texts: int  # for predictions and curvature


AGAINST_EFFORTS = {
    "quick": AgainstEffort(operations=3e11, num_texts=32),
    "desk": AgainstEffort(operations=1e13, num_texts=128),
}


def examine_against(
    model: str | Path | nn.Module | Network,
    other: str | Path | nn.Module | Network,
    *,
    prompt: str | None = None,
    data: Texts | None = None,
    preset: str = "quick",
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    out: Path | None = None,
    resume: Path | None = None,
) -> tuple[Result, Path]:
    """What differs between two networks of one shape: a base and its fine-tune, or two checkpoints?

    Tensor by tensor the change of the weights, its effective rank, and its share in the stiffest directions of the
    first network's loss where that is affordable; of language models also the shift of activations at each block
    input, the divergence of predictions on ordinary texts, and the sensitivity map of a prompt in both.

    Args:
        model: The first network: what `load` takes.
        other: The second.
        prompt: Of the map. None: the microworld's own for its models, else no map.
        data: Ordinary texts, or a file with one in each line, as in `examine_prompt`.
        preset: `"quick"` or `"desk"`.
        seed: Names every random stream.
        device: Where to compute; the CPU by default.
        dtype: `"float32"` or `"float64"`; the models' own by default.
        out: Folder of runs.
        resume: Continue this run instead of opening a new one.

    Returns:
        The result, and the run directory.

    Raises:
        BadInput: If the networks differ in shape (the message names the first difference), or as `examine_prompt`.
    """
    if preset not in AGAINST_EFFORTS:
        raise BadInput(
            "preset", got=preset, wanted=" or ".join(AGAINST_EFFORTS), remedy=did_you_mean(preset, AGAINST_EFFORTS)
        )
    first, second = (load(one, device=device, dtype=dtype) for one in (model, other))
    check_same_shape(first, second)
    if prompt is None and first.tokenizer is not None and first.name.startswith(MICROWORLD):
        prompt = ""
    if prompt is not None:
        prompt = checked_prompt(first, prompt)
    has_name = all(isinstance(one, str | Path) for one in (model, other))
    has_name = has_name and (data is None or isinstance(data, str | Path))
    request: dict[str, Any] = {
        "verb": "examine",
        "model": str(model) if has_name else None,
        "against": str(other) if has_name else second.name,
        "prompt": prompt,
        "data": str(data) if has_name and data is not None else None,
        "preset": preset,
        "seed": seed,
        "device": device,
        "dtype": dtype,
    }
    return recorded(
        f"against-{first.name}",
        request,
        lambda run: _examined(first, second, request, data, run),
        out=out,
        resume=resume,
    )


def _examined(first: Network, second: Network, request: Mapping[str, Any], data: Texts | None, run: Run) -> Result:
    effort, seed = AGAINST_EFFORTS[request["preset"]], int(request["seed"])
    flags, measured, stiff, source, texts = list[str](), list[Any](), None, "none", list[str]()
    if first.tokenizer is None:
        flags.append("no tokenizer: weights are compared, activations and predictions are not")
    else:
        texts, source = reference_texts(first, data)
        try:
            run.say("Looking for the stiff directions of the first network")
            stiff, told = _stiff_directions(first, texts, effort, derive(seed, "stiff"))
            flags += told
        except TremorscopeError as error:
            flags.append(f"no stiff subspace: {error}")
    run.say("Comparing weights")
    weights = measure_weight_change(first, second, stiff=stiff, seed=derive(seed, "weights"))
    measured.append(weights)
    summary = [weights.sentence()]
    if first.tokenizer is not None:
        run.say("Comparing activations and predictions")
        try:
            sites = block_inputs(first, _batch_of(first, texts))
            before, after = (read_activations(one, texts, sites) for one in (first, second))
            divergence = prediction_divergence(first, second, texts[: effort.num_texts])
            shift = measure_activation_shift(before, after, divergence)
            measured.append(shift)
            summary.append(shift.sentence())
        except TremorscopeError as error:
            flags.append(f"activations could not be compared: {error}")
    if request["prompt"] is None:
        flags.append("no prompt: no sensitivity maps (--prompt TEXT makes them)")
    else:
        options: dict[str, Any] = {"source": source, "seed": derive(seed, "map"), "say": run.say}
        options["num_directions"] = PROMPT_EFFORTS[request["preset"]].num_directions
        maps = [measure_sensitivity_map(one, request["prompt"], texts, **options) for one in (first, second)]
        difference = compare_maps(*maps)
        measured.append(difference)
        names = [first.name, second.name]
        if names[0] == names[1]:  # two checkpoints of one training
            names = [f"the first network ({names[0]})", f"the second network ({names[1]})"]
        predictions = [
            prediction_sentence(one, request["prompt"], called=name)
            for one, name in zip((first, second), names, strict=True)
        ]
        summary += [difference.sentence(), *predictions]
        flags += [flag for one in maps for flag in one.flags]
    return Result(
        study=f"examine {first.name} against {second.name}",
        preset=str(request["preset"]),
        seed=seed,
        config={key: value for key, value in request.items() if key not in ("verb", "preset", "seed")}
        | {"model": request["model"] or first.name, "data": source},
        title=f"In what do {first.name} and {second.name} differ?",
        summary=summary,
        tables=[table for part in measured for table in part.tables()],
        figures=[drawn(figure) for part in reversed(measured) for figure in part.figures()],
        flags=list(dict.fromkeys(flags)),
    )


def _stiff_directions(
    network: Network, texts: Sequence[str], effort: AgainstEffort, seed: int
) -> tuple[Float[Tensor, "params k"] | None, list[str]]:
    """The leading directions of the Hessian of the next-token loss on as many texts as are affordable."""
    rows = [row[:_TOKENS] for row in token_rows(network, texts) if len(row) >= _TOKENS]
    # Twelve operations a weight and token: a Hessian product is about two forward and two backward passes.
    affordable = int(effort.operations / (12 * network.layout.size * _PRODUCTS * _TOKENS))
    count = min(affordable, len(rows), effort.num_texts)
    if count < 2:
        return None, [
            f"no stiff subspace: {network.layout.size:,} weights are too many for this preset"
            if affordable < 2
            else f"no stiff subspace: fewer than two texts of {_TOKENS} tokens"
        ]
    tokens = torch.tensor(rows[:count], device=network.device)
    if not takes(network, "input_ids"):
        return None, ["no stiff subspace: the module takes no input_ids"]
    task = Task.of(tokens, tokens, name="ordinary text", loss=_loss)
    spectrum = eigsh(
        Hessian(network.with_task(task), Batch((tokens,), {}, tokens)),
        NUM_STIFF,
        tol=1e-2,
        seed=seed,
        copies=False,
        max_restarts=3,
        allow_partial=True,
    )
    return spectrum.vectors, [f"stiff subspace: {flag}" for flag in spectrum.flags]


def _loss(output: Tensor, tokens: Tensor) -> Tensor:
    return next_token_loss(output, tokens)


def _batch_of(network: Network, texts: Sequence[str]) -> Batch:
    tokens = torch.tensor([token_rows(network, texts[:1])[0][:_TOKENS]], device=network.device)
    return Batch((), {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, None)

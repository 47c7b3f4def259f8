"""`examine`: one call, one network, one report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from torch import nn

from tremorscope.examine.activations import LAYER_EFFORTS, LayerEffort, examine_layers, has_inputs
from tremorscope.examine.jacobian import JacobianExamination, examine_jacobian
from tremorscope.examine.large_jacobian import LargeJacobianExamination
from tremorscope.foundations.errors import BadInput, TremorscopeError, did_you_mean
from tremorscope.foundations.figures import Figure
from tremorscope.foundations.results import Result, Table, drawn
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.load import load
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import permuted_targets, untrained
from tremorscope.instruments.operators import Hessian
from tremorscope.instruments.recording import recorded
from tremorscope.instruments.respond import Measure
from tremorscope.instruments.scores import scores
from tremorscope.instruments.task import Batch, Task
from tremorscope.instruments.trainer import check_deterministic
from tremorscope.methods.activations.layer_responses.results import LayerResponses
from tremorscope.methods.weights.curvature import CurvatureMeasurement, measure_curvature
from tremorscope.methods.weights.goldilocks.position import ZonePosition, zone_position
from tremorscope.methods.weights.layers import LayersMeasurement, summarise_layers
from tremorscope.methods.weights.sensitivity import SensitivityMeasurement, measure_sensitivity
from tremorscope.methods.weights.stiffness import StiffnessMeasurement, measure_stiffness
from tremorscope.methods.weights.training_jacobian import bound_recipe

T = TypeVar("T")
_ZONE_EXAMPLES = 512


@final
@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much an examination spends."""

    num_eigenvalues: int
    num_probes: int
    num_steps: int  # of the quadrature of the whole spectrum
    num_draws: int  # of subspaces, for the Goldilocks zone
    num_directions: int
    num_examples: int
    jacobian_seconds: float  # of one training Jacobian, by estimate from shapes


EFFORTS = {
    "quick": Effort(
        num_eigenvalues=20,
        num_probes=64,
        num_steps=40,
        num_draws=3,
        num_directions=8,
        num_examples=2048,
        jacobian_seconds=30,
    ),
    "desk": Effort(
        num_eigenvalues=50,
        num_probes=512,
        num_steps=80,
        num_draws=8,
        num_directions=32,
        num_examples=8192,
        jacobian_seconds=600,
    ),
}


def examine(
    model: str | Path | nn.Module | Network,
    *,
    data: str | Path | Task | Sequence[str] | None = None,
    prompt: str | None = None,
    against: str | Path | nn.Module | Network | None = None,
    preset: str = "quick",
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    out: Path | None = None,
    resume: Path | None = None,
) -> tuple[Result, Path]:
    """What is this network like: layers, activations, curvature, what disturbs it, what training did with its start?

    Every measurement comes with its null: the untrained twin, the same weights on permuted labels, random
    directions of equal norm and of equal curvature, twins trained on shuffled labels and on matched
    Gaussian inputs. What cannot be measured here is said in the report's flags, never left out silently.

    Args:
        model: A module, a `Network`, or what `load` takes by name.
        data: Inputs and targets, or what `load_data` takes; needed when the model brings none. With a prompt, or
            against another language model: ordinary texts, or a file with one in each line.
        prompt: Examine what this language model does with this text instead, as `examine.prompt.examine_prompt`.
        against: Compare with another network of the same shape instead, as `examine.against.examine_against`.
        preset: `"quick"` (a minute or two on a small network) or `"desk"`.
        seed: Names every random stream.
        device: Where to compute; the CPU by default.
        dtype: `"float32"` or `"float64"`; the model's own by default.
        out: Folder of runs.
        resume: Continue this run instead of opening a new one.

    Returns:
        The result, and the run directory; `report.html` in it is the page to look at.

    Cost: for the 1,210 weights of `builtin:digits-mlp` about 25 CPU-seconds at `quick`.

    Raises:
        BadInput: If the model or data cannot be loaded, the run directory cannot be written, or the recipe
            that is to train the weights given diverges or does not repeat itself.
    """
    if prompt is not None or against is not None:
        texts = _texts(data)
        options: dict[str, Any] = {"preset": preset, "seed": seed, "device": device, "dtype": dtype}
        options |= {"prompt": prompt, "data": texts, "out": out, "resume": resume}
        if against is not None:
            from tremorscope.examine.against import examine_against

            return examine_against(model, against, **options)
        from tremorscope.examine.prompt import examine_prompt

        return examine_prompt(model, **options)
    if data is not None and not isinstance(data, str | Path | Task):
        raise BadInput("data", got="a list of texts", wanted="inputs and targets", remedy="Texts go with prompt=...")
    if preset not in EFFORTS:
        raise BadInput("preset", got=preset, wanted=" or ".join(EFFORTS), remedy=did_you_mean(preset, EFFORTS))
    network = load(model, data=data, device=device, dtype=dtype)
    has_name = isinstance(model, str | Path) and (data is None or isinstance(data, str | Path))
    request: dict[str, Any] = {
        "verb": "examine",
        "model": str(model) if has_name else None,  # None: no command can make it again
        "data": None if data is None or not has_name else str(data),
        "preset": preset,
        "seed": seed,
        "device": device,
        "dtype": dtype,
    }
    name = f"examine-{network.name}"
    return recorded(
        name,
        request,
        lambda run: _examined(network, request, EFFORTS[preset], LAYER_EFFORTS[preset], seed, run),
        out=out,
        resume=resume,
    )


def _texts(data: str | Path | Task | Sequence[str] | None) -> str | Path | Sequence[str] | None:
    if isinstance(data, Task):
        raise BadInput("data", got="a Task", wanted="texts, or a file with one in each line")
    return data


def _examined(
    network: Network, request: Mapping[str, Any], effort: Effort, layer_effort: LayerEffort, seed: int, run: Run
) -> Result:
    sections = _Sections(run)
    network = sections.trained(network)
    frozen = [name for name, weight in network.module.named_parameters() if not weight.requires_grad]
    if frozen:
        sections.flags.append(f"weights that require no gradient are disturbed, and trained, too: {', '.join(frozen)}")
    twin = sections.attempt("untrained twin", lambda: untrained(network, seed=derive(seed, "untrained")))
    is_start = network.recipe is not None or network.initial is not None
    layers = summarise_layers(network, twin, is_start=is_start)
    curvature = stiffness = zone = sensitivity = jacobian = activations = None
    if network.task is None:
        sections.flags.append("no data: curvature, responses and the training Jacobian need inputs and targets")
    else:
        batch, shuffled = _batches(network, effort.num_examples, seed)
        num_train = network.task.size
        if num_train > effort.num_examples:
            looked = f"curvature and responses look at {effort.num_examples} of {num_train} training examples"
            sections.flags.append(looked)
        networks = {"this network": network} | ({"untrained twin": twin} if twin is not None else {})
        networks["same weights, permuted labels"] = network
        batches = {name: shuffled if "permuted" in name else batch for name in networks}
        curvature = sections.attempt(
            "curvature",
            lambda: measure_curvature(
                networks,
                batches,
                num_eigenvalues=effort.num_eigenvalues,
                num_probes=effort.num_probes,
                seed=derive(seed, "curvature"),
                say=run.say,
            ),
        )
        if curvature is not None:
            stiffness = sections.attempt(
                "the whole spectrum", lambda: _stiffness(networks, batches, curvature, effort, seed)
            )
        zone = sections.attempt("Goldilocks zone", lambda: _zone(network, effort, seed))
        sensitivity = sections.attempt("sensitivity", lambda: _sensitivity(network, batch, effort, seed))
        if network.recipe is None:
            sections.flags.append("no training recipe: the training Jacobian needs one")
        else:
            jacobian = sections.attempt(
                "training Jacobian",
                lambda: examine_jacobian(network, seconds=effort.jacobian_seconds, seed=seed, run=run),
            )
    if has_inputs(network):
        activations = sections.attempt(
            "activations of each layer",
            lambda: examine_layers(network, twin, layer_effort, seed=derive(seed, "activations"), say=run.say),
        )
    parts = (sensitivity, activations, curvature, stiffness, zone, jacobian, layers)
    measured = [part for part in parts if part is not None]
    for part in measured:
        sections.flags.extend(getattr(part, "flags", ()))
    shown = (layers, curvature, stiffness, zone, sensitivity, activations, jacobian)
    tables: list[Table] = [table for part in shown if part is not None for table in part.tables()]
    figures: list[Figure] = [figure for part in measured for figure in part.figures()]
    return Result(
        study=f"examine {network.name}",
        preset=str(request["preset"]),
        seed=seed,
        config={
            "model": request["model"] or network.name,
            "data": request["data"] or (None if network.task is None else network.task.name),
            "device": request["device"],
            "dtype": request["dtype"],
        },
        title=f"What is {network.name} like?",
        summary=_summary(network, layers, curvature, stiffness, zone, sensitivity, activations, jacobian),
        tables=tables,
        figures=[drawn(figure) for figure in figures],
        flags=list(dict.fromkeys(sections.flags)),
    )


class _Sections:
    """Parts of an examination: progress as they begin, and a flag instead of an end when one cannot be done."""

    def __init__(self, run: Run) -> None:
        self.run, self.flags = run, list[str]()

    def attempt(self, label: str, compute: Callable[[], T]) -> T | None:
        """The part, or None with its error among the flags. Bugs are no flags: they pass through."""
        self.run.say(f"Measuring: {label}")
        try:
            return compute()
        except TremorscopeError as error:
            self.flags.append(f"{label} could not be measured: {error}")
            return None

    def trained(self, network: Network) -> Network:
        """A network whose recipe starts at its own weights is examined at the recipe's end.

        Raises:
            BadInput: If the recipe diverges or does not repeat itself: then there is no such end.
        """
        if network.recipe is None or network.initial is not None:
            return network
        recipe, start = bound_recipe(network), network.start
        self.flags.append(f"the weights given are the start of the recipe: measured after its {recipe.num_steps} steps")
        ended = network.at(check_deterministic(recipe, start))
        ended.initial = start
        return ended


def _batches(network: Network, num_examples: int, seed: int) -> tuple[Batch, Batch]:
    """At most so many examples, with their own and with permuted targets."""
    task = network.required_task()
    permuted = permuted_targets(task, derive(seed, "permuted"))
    if task.size <= num_examples:
        return task.train_batch(), permuted.train_batch()
    chosen = torch.randperm(task.size, generator=generator(seed, "examples"))[:num_examples]
    return task.batch(chosen), permuted.batch(chosen)


def _stiffness(
    networks: Mapping[str, Network],
    batches: Mapping[str, Batch],
    curvature: CurvatureMeasurement,
    effort: Effort,
    seed: int,
) -> StiffnessMeasurement:
    return measure_stiffness(
        networks, batches, curvature.spectra, num_steps=effort.num_steps, seed=derive(seed, "spectrum")
    )


def _zone(network: Network, effort: Effort, seed: int) -> ZonePosition:
    """Along the rays of the present and the initial weights, and of the present ones where labels tell nothing.

    A ratio of curvatures in random planes varies more from plane to plane than from example to example.
    """
    batch, shuffled = _batches(network, min(_ZONE_EXAMPLES, effort.num_examples), seed)
    draws = effort.num_draws
    own = zone_position(network, batch=batch, num_draws=draws, seed=derive(seed, "zone"))
    null = zone_position(network, batch=shuffled, num_draws=draws, seed=derive(seed, "zone"))
    return ZonePosition(rays={**own.rays, "present weights, permuted labels": null.own})


def _sensitivity(network: Network, batch: Batch, effort: Effort, seed: int) -> SensitivityMeasurement:
    with torch.no_grad():
        output = network.apply(network.params, batch)
    task = network.required_task()
    measure: Measure = "kl" if task.num_classes is not None and output.shape[-1] > 1 else "l2"
    return measure_sensitivity(
        network,
        batch,
        measure=measure,
        num_directions=effort.num_directions,
        curvature=Hessian(network, batch),
        level=0.1 if measure == "kl" else 0.1 * float(output.double().std()),
        seed=derive(seed, "sensitivity"),
    )


def _summary(
    network: Network,
    layers: LayersMeasurement,
    curvature: CurvatureMeasurement | None,
    stiffness: StiffnessMeasurement | None,
    zone: ZonePosition | None,
    sensitivity: SensitivityMeasurement | None,
    activations: LayerResponses | None,
    jacobian: JacobianExamination | LargeJacobianExamination | None,
) -> list[str]:
    num_tensors = len(layers.layers)
    sentences = [
        f"{network.name}: {network.layout.size:,} weights in {num_tensors} tensor{'s' if num_tensors > 1 else ''}."
    ]
    if network.task is not None:
        found = scores(network)
        sentences.append("On its task: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()) + ".")
    if curvature is not None:
        own = curvature.spectra[curvature.own].values
        trace = curvature.traces[curvature.own]
        against = [
            f"{name}: {float(spectrum.values[0]):.3g}"
            for name, spectrum in curvature.spectra.items()
            if name != curvature.own
        ]
        sentences.append(
            f"The largest eigenvalue of the loss's Hessian is {float(own[0]):.3g} ({'; '.join(against)}); its trace is "
            f"{trace}."
        )
    if stiffness is not None:
        sentences.append(stiffness.sentence())
    if zone is not None and zone.kappa is not None:
        place = "inside" if zone.is_inside else "outside"
        sentences.append(
            f"Its weights lie {place} the Goldilocks zone: excess of positive curvature {zone.kappa} in random "
            "subspaces (chance 0)."
        )
    if sensitivity is not None:
        most = max(sensitivity.layers, key=lambda layer: float(layer.values.sum()))
        ratio = sensitivity.ratio(most.values, most.equal_norm)
        sentences.append(
            f"At equal norm the output answers {ratio} times as strongly to random disturbances of {most.name} as to "
            "disturbances of all weights."
        )
    if activations is not None:
        sentences.append(activations.sentence())
    if jacobian is not None:
        sentences.append(jacobian.sentence())
    return sentences

"""Effective rank and response of every layer of any network, real against random, beside the untrained twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy
import torch
from torch import Tensor

from tremorscope.foundations.errors import BadInput, TremorscopeError
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.activations.readouts import NOISE_UNITS
from tremorscope.instruments.activations.sweep_batch import num_prompts, tiled
from tremorscope.instruments.activations.sweeps import prepare_sweep
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.activations.layer_responses.effective_rank import effective_rank_estimate, isotropic_rank
from tremorscope.methods.activations.layer_responses.places import first_rows, hidden_places
from tremorscope.methods.activations.layer_responses.results import CONDITIONS, LayerResponse, LayerResponses
from tremorscope.methods.activations.layer_responses.whole_values import Coordinates, WholeValueResponder
from tremorscope.methods.activations.plateaus.kinds import Population
from tremorscope.methods.activations.plateaus.measurement import measure_plateaus
from tremorscope.methods.activations.plateaus.responder import Responder
from tremorscope.methods.activations.plateaus.sweep_responder import SweepResponder

FEW_BASES = 24  # are kept as long as there is a layer that they can be afforded for
ANGLES = (5, 10, 15, 20, 30, 40, 50, 60, 75, 90)
RECORDED = 256  # examples that are recorded at once
MOST_ENTRIES = 1 << 22  # of a table of activations: fewer examples are used where each is large
IN_SPAN = 1e-9  # share of variance given to directions that no example shows, where they are as many as dimensions


@final
@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is measured: `num_bases` examples are bases, all others tell mean and covariance."""

    batch: Batch
    position: int | None
    readout: str
    num_bases: int
    num_directions: int
    num_bytes: int
    seed: int


def measure_layer_responses(
    network: Network,
    batch: Batch,
    *,
    twin: Network | None = None,
    position: int | None = None,
    readout: str | None = None,
    num_bases: int = 24,
    num_directions: int = 8,
    num_layers: int = 8,
    operations: float = 2e11,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> LayerResponses:
    """How many directions does each layer use, and do real activations sit on plateaus of the output?

    At every hidden place, the activations of some examples are turned on the sphere towards other real ones and towards
    random ones of equal covariance, and so are random ones that take their places. Where the output has moved half as
    far as at 90 degrees is the half-response angle: no fixed level is needed, so that the untrained twin, which answers
    on another scale, is measured alike.

    Args:
        network: Any; it stays as it is.
        batch: Examples, one per row: the first `num_bases` are bases, the others tell mean and covariance. Prompts of
            equal length where there is a `position`.
        twin: The network before training, measured on the same examples. None: there is no null.
        position: Token at which activations are turned and outputs are read, counted from the end if negative; for
            language models. None: activations are turned whole, all channels, pixels or tokens at once.
        readout: `kl` for logits or `l2`. None: `kl` for language models and for tasks with classes.
        num_bases: Examples whose activations are turned.
        num_directions: From each of them, of each of two kinds.
        num_layers: The most places that are looked at, spread evenly over the network.
        operations: Floating-point operations to spend at most, by an estimate from shapes; directions, then bases
            (down to 24), then layers are left out to stay below.
        seed: Names every random stream.
        say: Is told of each layer.

    Cost: 44 evaluations for each base and direction, layer and network, beside `2 + n / 256` forward passes.

    >>> from tremorscope.instruments.load import load
    >>> network = load("builtin:digits-mlp")
    >>> found = measure_layer_responses(network, Batch((network.task.inputs[:80],), {}, None), num_bases=8)
    >>> list(found.layers), found.layers["1"].width
    (['0', '1'], 16)

    Raises:
        BadInput: If the network has no hidden activations, there are too few examples, not even two directions at one
            layer can be afforded, or no layer could be measured.
    """
    count = num_prompts(batch)
    if num_bases < 2 or num_directions < 2 or num_layers < 1:
        raise BadInput(
            "size of the measurement",
            got=f"{num_bases} bases, {num_directions} directions, {num_layers} layers",
            wanted="at least 2, 2 and 1",
        )
    if count < 2 * num_bases or count < num_bases + num_directions + 1:
        raise BadInput(
            f"examples for {network.name!r}",
            got=count,
            wanted=f"at least {max(2 * num_bases, num_bases + num_directions + 1)}: {num_bases} to be disturbed, "
            "the others for mean and covariance",
        )
    places = hidden_places(network, batch)
    networks = [network] if twin is None else [network, twin]
    # A sweep with a memory computes one position anew.
    share = 1 if position is None else next(v.shape[1] for v in _tensors(batch) if v.ndim > 1)
    each = places.operations / share * len(CONDITIONS) * (len(ANGLES) + 1) * len(networks)
    names, num_bases, num_directions, flags = _affordable(
        list(places.sites), num_layers, num_bases, num_directions, operations / max(each, 1.0)
    )
    plan = _Plan(
        batch=batch,
        position=position,
        readout=readout or _readout(network, batch, position),
        num_bases=num_bases,
        num_directions=num_directions,
        num_bytes=places.num_bytes,
        seed=seed,
    )
    found: list[dict[str, LayerResponse]] = [{} for _ in networks]
    said = [*places.flags, *flags]
    for name in names:
        for one, layers in zip(networks, found, strict=True):
            if say is not None:
                say(f"Turning activations of {name} in {one.name}")
            try:
                layers[name] = _measured(one, places.sites[name], plan)
            except TremorscopeError as error:
                said.append(f"layer {name!r} of {one.name} could not be measured: {error}")
                continue
            said += [f"layer {name!r} of {one.name}: {flag}" for flag in layers[name].curves.flags]
            if any(numpy.isinf(layers[name].angles(condition)).any() for condition in CONDITIONS):
                said.append(f"layer {name!r} of {one.name}: there are bases around which nothing answers")
    own, others = found[0], found[1] if twin is not None else {}
    if not own:
        raise BadInput(f"layers of {network.name!r}", got=f"none that could be measured: {said[-1]}", wanted="one")
    return LayerResponses(
        network=network.name, layers=own, twin=others, readout=plan.readout, flags=tuple(dict.fromkeys(said))
    )


def _affordable(
    names: list[str], num_layers: int, num_bases: int, num_directions: int, paths: float
) -> tuple[list[str], int, int, list[str]]:
    """Layers, bases and directions with no more than `paths` in all: fewer directions, then bases, then layers."""
    bases, directions, flags = num_bases, num_directions, list[str]()
    chosen = _spread(names, num_layers)
    while directions > 2 and bases * directions * len(chosen) > paths:
        directions = max(2, directions // 2)
    while bases > FEW_BASES and bases * directions * len(chosen) > paths:
        bases = max(FEW_BASES, bases // 2)
    affordable = min(len(chosen), int(paths / (bases * directions)))
    if affordable < 1:
        raise BadInput(
            "responses of layers",
            got=f"{bases * directions} paths at one layer, too many forward passes",
            wanted=f"at most {int(paths)}, by an estimate from shapes",
            remedy="Use a larger preset, or measure_layer_responses(..., operations=...).",
        )
    chosen = _spread(chosen, affordable)
    for what, number, wanted in (("directions", directions, num_directions), ("bases", bases, num_bases)):
        if number < wanted:
            flags.append(f"responses of layers: {number} {what} in place of {wanted}, to save time")
    if len(chosen) < len(names):
        flags.append(f"responses of layers: {len(chosen)} of {len(names)} layers are looked at, to save time")
    return chosen, bases, directions, flags


def _spread(names: Sequence[str], count: int) -> list[str]:
    if count >= len(names):
        return list(names)
    if count == 1:
        return [names[len(names) // 2]]
    return [names[round(place * (len(names) - 1) / (count - 1))] for place in range(count)]


def _measured(network: Network, site: str, plan: _Plan) -> LayerResponse:
    activations = _recorded(network, site, plan)
    responder: Responder
    flags: tuple[str, ...] = ()
    bases = first_rows(plan.batch, plan.num_bases)
    if plan.position is None:
        kept = min(len(activations), MOST_ENTRIES // activations[0].numel())
        if kept < max(2 * plan.num_bases, plan.num_bases + plan.num_directions + 1):
            raise BadInput(
                f"activations at {site}",
                got=f"{activations[0].numel():,} entries each",
                wanted=f"at most {MOST_ENTRIES // (2 * plan.num_bases):,}",
                remedy="Use fewer bases.",
            )
        activations = activations[:kept]
        coordinates = Coordinates.of(activations)
        responder = WholeValueResponder(
            network,
            bases,
            site,
            activations[: plan.num_bases],
            coordinates,
            is_logits=plan.readout == "kl",
            num_bytes=plan.num_bytes,
        )
        vectors = coordinates.vectors(activations)
        shrinkage: Any = 0.0
        if coordinates.basis is not None or len(vectors) - plan.num_bases <= vectors.shape[1]:
            shrinkage = IN_SPAN
            flags = (
                f"{len(activations)} activations of {activations[0].numel()} entries: random ones lie in their span",
            )
    else:
        sweep = prepare_sweep(
            network, bases, f"{site}@{plan.position}", readouts=(plan.readout,), readout_position=plan.position
        )
        responder, vectors, flags = SweepResponder(sweep), activations.cpu().double(), sweep.flags
        shrinkage = 0.0
        if len(vectors) - plan.num_bases <= vectors.shape[1]:
            shrinkage = "ledoit-wolf"
            flags += (f"{len(vectors)} activations of {vectors.shape[1]} entries: their covariance is shrunk",)
    population = Population.of(vectors[plan.num_bases :], shrinkage=shrinkage)
    curves = measure_plateaus(
        responder,
        population,
        conditions=CONDITIONS,
        num_directions=plan.num_directions,
        sizes=ANGLES,
        readouts=(plan.readout,),
        seed=derive(plan.seed, "paths"),
        flags=flags,
    )
    others, width = vectors[plan.num_bases :], activations[0].numel()
    return LayerResponse(
        width=width,
        effective_rank=effective_rank_estimate(others),
        most_rank=isotropic_rank(len(others), width, seed=plan.seed),
        curves=curves,
        readout=plan.readout,
        noise=_noise(network, responder, plan),
    )


def _noise(network: Network, responder: Responder, plan: _Plan) -> float:
    """What rounding alone makes of a response."""
    unit = NOISE_UNITS * torch.finfo(network.dtype).eps
    if plan.readout == "kl":
        return unit
    with torch.no_grad():
        late = responder.outputs(responder.base, torch.arange(plan.num_bases)).late
    return unit * float(late.double().norm(dim=-1).max())


def _recorded(network: Network, site: str, plan: _Plan) -> Tensor:
    """Clean activations of all examples, some at a time; no more than can be used."""
    where = site if plan.position is None else f"{site}@{plan.position}"
    count, parts = num_prompts(plan.batch), list[Tensor]()
    for start in range(0, count, RECORDED):
        rows = torch.arange(start, min(start + RECORDED, count))
        with torch.no_grad():
            parts.append(network.record(where, tiled(plan.batch, rows, count)))
        if sum(part.numel() for part in parts) >= 2 * MOST_ENTRIES:
            break
    return torch.cat(parts)


def _readout(network: Network, batch: Batch, position: int | None) -> str:
    with torch.no_grad():
        output = network.output(network.params, first_rows(batch, 2))
    if position is not None:
        return "kl" if isinstance(getattr(output, "logits", None), Tensor) else "l2"
    logits = getattr(output, "logits", output)
    is_classifier = network.task is not None and network.task.num_classes is not None
    return "kl" if is_classifier and logits.ndim == 2 and logits.shape[1] > 1 else "l2"


def _tensors(batch: Batch) -> list[Tensor]:
    return [value for value in (*batch.args, *batch.kwargs.values()) if isinstance(value, Tensor)]

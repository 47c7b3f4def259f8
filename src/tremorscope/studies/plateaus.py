"""Activation plateaus: does a network ignore small moves of real activations, and not of random ones?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.results import Result, Table, drawn
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.executor import map_items
from tremorscope.methods.activations.plateaus.cyclic_order import DAYS, cyclic_order, word_vectors
from tremorscope.methods.activations.plateaus.kinds import COV, RANDOM, RANDOM_MATCHED, RANDOM_POSTNORM, REAL
from tremorscope.methods.activations.plateaus.measurement import BASES_CONDITIONS, Condition, PlateausMeasurement
from tremorscope.methods.activations.plateaus.planes import measure_plane
from tremorscope.studies.plateau_curves import (
    ENCODER,
    ENCODER_UNTRAINED,
    HOUSE,
    MODEL,
    NULLS,
    REPORT,
    SHUFFLED,
    UNTRAINED,
    ActivationConfig,
    activation_items,
    difference,
    encoder_spec,
    has_logits,
    judged,
    loaded,
    measured_part,
    missing_flags,
    pooled,
    prepared,
    presented,
)
from tremorscope.studies.study import study

STUDY = "plateaus"
DAY_LAYERS = (2, 4, 6)
REAL_BASE, RANDOM_BASE = Condition(REAL, COV), Condition(RANDOM, COV)
MATCHED_BASE, POSTNORM_BASE = Condition(RANDOM_MATCHED, COV), Condition(RANDOM_POSTNORM, COV)


class PlateausConfig(ActivationConfig):
    """And whether straight paths are measured as well."""

    straight: bool = Field(False, description="Also straight paths, up to two typical distances.")
    plane: int = Field(21, ge=5, description="Grid points along a side of the plane through three activations.")


ROWS = ("P7a", "P7b", "P7c", "P7d", "P7k", "P7s", "P7e1", "P7e3", "P7f1", "P7f3", "P11a", "P11b")


@study(
    name=STUDY,
    system=5,
    question="Do real activations sit on plateaus of the network's response, and random ones of equal covariance not?",
    source=REPORT,
    presets={
        "quick": {"num_bases": 40},
        "desk": {"num_seeds": 5, "num_bases": 48, "straight": True, "encoder": "auto", "plane": 41},
        "paper": {
            "num_seeds": 5,
            "num_bases": 100,
            "num_directions": 100,
            "num_samples": 4000,
            "straight": True,
            "encoder": "auto",
            "plane": 41,
        },
    },
    cost={
        "quick": "about 80 CPU-seconds: 120 bases with 12 directions each, in four conditions, on three networks",
        "desk": "about 9 CPU-minutes; a third of it the encoder, where it is installed (`make real`)",
        "paper": "hours; --set model=hf:gpt2 is the published network",
    },
    rows=ROWS,
)
def run(config: PlateausConfig, seed: int, run: Run) -> Result:
    """Measure curves of every network on every draw of prompts, pool the draws, and state the claims."""
    flags = missing_flags(config)
    items = activation_items(config, seed, ("sphere", "straight") if config.straight else ("sphere",))
    encoder = encoder_spec(config)
    if encoder is not None:
        items["days"] = {"config": config.model_dump(), "part": "days", "encoder": encoder}
    items["plane"] = {"config": config.model_dump(), "part": "plane", "seed": seed}
    found = dict(
        map_items(_part, items, run=run, jobs=int(run.request.get("jobs") or 1), progress="networks and draws")
    )
    measured = pooled(found)
    preset = str(run.request.get("preset", "quick"))
    claims = [*_claims(config, measured, preset), *(_day_claims(found["days"], preset) if "days" in found else ())]
    tables, figures = presented(measured)
    if "days" in found:
        tables.append(_day_table(found["days"]))
    return Result(
        study=STUDY,
        preset=preset,
        seed=seed,
        config=config.model_dump(mode="json"),
        title="Do real activations sit on plateaus?",
        summary=_summary(measured),
        claims=claims,
        tables=tables,
        figures=[*figures, found["plane"]],
        flags=[*flags, *dict.fromkeys(flag for one in measured.values() for flag in one.flags)],
    )


def _part(item: Mapping[str, Any], run: Run | None) -> Any:
    config = PlateausConfig(**item["config"])
    if item["part"] == "days":
        return _days(item["encoder"])
    if item["part"] == "plane":
        return _plane(config, item["seed"])
    return {"key": item["key"], "measured": measured_part(item, config, BASES_CONDITIONS).to_plain()}


def _days(encoder: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, spec in ((ENCODER, encoder), (ENCODER_UNTRAINED, f"untrained:{encoder}")):
        network = loaded(spec)
        found[name] = []
        for layer in DAY_LAYERS:
            order = cyclic_order(word_vectors(network, DAYS, f"acts:resid_post.{layer - 1}"), DAYS)
            found[name].append(
                {
                    "layer": layer,
                    "share": order.share,
                    "next": float(order.others[0]),
                    "rank": order.rank,
                    "exact": order.is_exact,
                }
            )
    return found


def _plane(config: PlateausConfig, seed: int) -> dict[str, Any]:
    """The plane through three real activations, in the context of the first."""
    network = loaded(config.model)
    item = {"layer": config.layer, "length": config.length}
    responder, population, _ = prepared(network, item, config, num_bases=2, seed=derive(seed, "plane"))
    others = population.others(responder.base[:1], 2, generator(seed, "plane"))[0]
    corners = torch.cat([responder.base[:1].cpu().double(), others])
    found = measure_plane(responder, corners, num=config.plane, readout="kl" if has_logits(network) else "l2")
    return drawn(found.figure())


_SPHERE = (
    (
        "P7a",
        "half response, L2",
        RANDOM_BASE,
        Expected(low=2.0, origin="calibration seeds 0 to 2: 2.4 to 8.0; on shuffled text up to 2.2"),
        "degrees",
    ),
    (
        "P7k",
        "half response, KL",
        RANDOM_BASE,
        Expected(low=2.0, origin="calibration seeds 0 to 2: 2.4 to 8.0; on shuffled text up to 2.2"),
        "degrees",
    ),
    ("P7c", "half response, L2", MATCHED_BASE, Expected(low=2.0, origin="as P7a"), "degrees"),
    ("P7d", "half response, L2", POSTNORM_BASE, Expected(low=2.0, origin="as P7a"), "degrees"),
    (
        "P7b",
        "share at a ninth, L2",
        RANDOM_BASE,
        Expected(high=-0.02, origin="calibration seeds 0 to 2: -0.033 to -0.046"),
        "share",
    ),
)
_TOLD = {
    "P7a": "Half of the response (L2 of late activations) comes later around real activations than around random ones "
    "of equal covariance: difference of median angles, in degrees.",
    "P7k": "The same in KL divergence of next-token predictions.",
    "P7c": "The same when random bases have the norm of the real ones.",
    "P7d": "The same when random bases are drawn after a layer norm, which then sees no difference in size or spread.",
    "P7b": "At 10 degrees less of the response is there around real activations: difference of median shares.",
    "P7s": "On straight paths as well: half of the response (L2) at two typical distances comes later around real "
    "activations: difference of medians, in typical distances.",
}


def _claims(config: PlateausConfig, measured: Mapping[str, PlateausMeasurement], preset: str) -> list[Claim]:
    claims = []

    def add(
        row: str, name: str, mode: str, summary: str, other: Condition, expected: Expected, told: str, source: str
    ) -> None:
        def read(one: PlateausMeasurement) -> Estimate:
            found = difference(one.compare(REAL_BASE, other, summary))
            if mode == "sphere":
                return found
            scale = 1 / one.typical_distance
            return found.scaled(scale)

        claims.append(
            judged(
                row,
                told,
                expected,
                read,
                study=STUDY,
                preset=preset,
                source=source,
                config=config,
                measured=measured,
                name=name,
                mode=mode,
            )
        )

    for row, summary, other, expected, _ in _SPHERE:
        if "KL" in summary and "kl" not in measured[f"{MODEL}|sphere"].curves[REAL_BASE].values:
            continue
        add(row, MODEL, "sphere", summary, other, expected, _TOLD[row], REPORT)
    if f"{MODEL}|straight" in measured:
        expected = Expected(low=0.0, origin="by definition: later")
        add("P7s", MODEL, "straight", "half response, L2", RANDOM_BASE, expected, _TOLD["P7s"], REPORT)
    for layer in config.encoder_layers:
        name = f"{ENCODER} {layer}"
        if f"{name}|sphere" not in measured:
            continue
        told = f"Sentence encoder, input of block {layer}. "
        later = Expected(low=0.0 if layer != 1 else 4.0, origin="24 bases before the study: 8.3 at block 1, 1.5 at 3")
        add(f"P7e{layer}", name, "sphere", "half response, L2", RANDOM_BASE, later, told + _TOLD["P7a"], HOUSE)
        fewer = Expected(high=0.0, origin="24 bases before the study: 0.10 against 0.17 at block 1")
        add(f"P7f{layer}", name, "sphere", "share at a ninth, L2", RANDOM_BASE, fewer, told + _TOLD["P7b"], HOUSE)
    return claims


def _day_claims(days: Mapping[str, Any], preset: str) -> list[Claim]:
    def worst(name: str) -> Estimate:
        return Estimate.exact(max(one["rank"] for one in days[name]))

    def exact(name: str) -> Estimate:
        return Estimate.exact(sum(one["exact"] for one in days[name]))

    scope = f"judged on the hidden states after blocks {', '.join(map(str, DAY_LAYERS))} of a MiniLM sentence encoder"
    layers = len(DAY_LAYERS)
    return [
        Claim(
            study=STUDY,
            row=row,
            preset=preset,
            statement=told,
            source=HOUSE,
            scope=scope,
            expected=expected,
            measured=read(ENCODER),
            nulls=(
                NullEvidence(
                    name=ENCODER_UNTRAINED, description=NULLS[ENCODER_UNTRAINED], measured=read(ENCODER_UNTRAINED)
                ),
            ),
        )
        for row, told, expected, read in (
            (
                "P11a",
                "Days of the week lie in a circle: rank of the true order among all 360 cyclic orders by share of "
                "variance in the first mode, worst of three layers.",
                Expected(high=1.0, origin="first of all, by definition"),
                worst,
            ),
            (
                "P11b",
                "Their angles in the plane of the first two principal components follow the week exactly: layers of "
                f"{layers}.",
                Expected(low=float(layers), origin="every layer, by definition"),
                exact,
            ),
        )
    ]


def _day_table(days: Mapping[str, Any]) -> Table:
    return Table.of_rows(
        [{"network": name, **one} for name, some in days.items() for one in some],
        name="days",
        title="Days of the week on a circle",
        caption="Share of variance in the first cyclic Fourier mode of the true order, the best other order, the rank "
        "of the true one among 360, and whether angles follow it exactly.",
    )


def _summary(measured: Mapping[str, PlateausMeasurement]) -> list[str]:
    def told(name: str) -> str:
        return str(difference(measured[f"{name}|sphere"].compare(REAL_BASE, RANDOM_BASE, "half response, L2")))

    names = (MODEL, UNTRAINED, SHUFFLED, f"{ENCODER} 1", f"{ENCODER_UNTRAINED} 1")
    found = [f"{name} {told(name)}" for name in names if f"{name}|sphere" in measured]
    return [
        f"Half of the response comes later around real activations than around random ones: {'; '.join(found)} degrees."
    ]

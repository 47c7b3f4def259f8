"""Sensitive directions: does a network notice moves towards other real activations sooner than random ones?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy
from pydantic import Field

from tremorscope.foundations.claims import Claim, Expected
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.results import Result
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.executor import map_items
from tremorscope.methods.activations.plateaus.comparisons import mean_over_bases
from tremorscope.methods.activations.plateaus.curves import KL_LEVEL
from tremorscope.methods.activations.plateaus.kinds import COV, COV_MIXTURE, ISOTROPIC, OTHER, OTHER_MIXTURE, REAL
from tremorscope.methods.activations.plateaus.measurement import Condition, PlateausMeasurement
from tremorscope.studies.plateau_curves import (
    ENCODER,
    HOUSE,
    MODEL,
    REPORT,
    UNTRAINED,
    ActivationConfig,
    activation_items,
    difference,
    judged,
    measured_part,
    missing_flags,
    networks_of,
    pooled,
    presented,
)
from tremorscope.studies.sensitive_features import (
    MIXTURE_PAPER,
    STUDY,
    PlantedRows,
    optima_part,
    optima_table,
    planted_part,
    search_table,
)
from tremorscope.studies.study import study

TOWARDS_REAL, TOWARDS_RANDOM, ANYWHERE = (Condition(REAL, kind) for kind in (OTHER, COV, ISOTROPIC))
REAL_MIXTURE, RANDOM_MIXTURE = Condition(REAL, OTHER_MIXTURE), Condition(REAL, COV_MIXTURE)
SPHERE_CONDITIONS = (TOWARDS_REAL, TOWARDS_RANDOM, ANYWHERE)
STRAIGHT_CONDITIONS = (TOWARDS_REAL, TOWARDS_RANDOM, REAL_MIXTURE, RANDOM_MIXTURE)
HALF, THRESHOLD = "half response, L2", "threshold, KL 0.5"


class SensitiveDirectionsConfig(ActivationConfig):
    """And how much is searched."""

    num_optima: int = Field(2, ge=1, description="Bases at which optimality of directions is tested in all dimensions.")
    num_starts: int = Field(32, ge=1, description="Random starts of a search for sensitive directions.")
    triangle: int = Field(6, ge=2, description="Steps along a side of the triangle of directions.")


ROWS = ("P8a", "P8b", "P8c", "P8d", "P8m", "P10r", "P8e1", "P8e3", "P8i1", "P8i3", "P13a", "P13b", "P13c", "P14")


@study(
    name=STUDY,
    system=5,
    question="From a real activation, does the network notice moves towards other real activations sooner than matched "
    "random ones, and are its most sensitive directions features?",
    source=REPORT,
    presets={
        "quick": {"num_bases": 20},
        "desk": {"num_seeds": 5, "num_bases": 48, "encoder": "auto", "num_optima": 8, "num_starts": 128, "triangle": 8},
        "paper": {
            "num_seeds": 5,
            "num_bases": 100,
            "num_directions": 100,
            "num_samples": 4000,
            "encoder": "auto",
            "num_optima": 20,
            "num_starts": 256,
            "triangle": 12,
        },
    },
    cost={
        "quick": "about 100 CPU-seconds: 60 bases with 12 directions of seven kinds on three networks",
        "desk": "about 11 CPU-minutes; a quarter of it the encoder, where it is installed (`make real`)",
        "paper": "hours; --set model=hf:gpt2 is the published network",
    },
    rows=ROWS,
)
def run(config: SensitiveDirectionsConfig, seed: int, run: Run) -> Result:
    """Measure curves of every network on every draw, plant features and find them, and state the claims."""
    shared = {"config": config.model_dump(), "seed": seed}
    items: dict[str, dict[str, Any]] = activation_items(config, seed, ("sphere", "straight"))
    items |= {
        f"planted-{member}": {**shared, "part": "planted", "member": member} for member in range(config.num_seeds)
    }
    for place, (name, spec) in enumerate(networks_of(config).items()):
        items[f"optima-{place}"] = {**shared, "part": "optima", "network": name, "spec": spec}
    found = dict(
        map_items(_part, items, run=run, jobs=int(run.request.get("jobs") or 1), progress="networks and draws")
    )
    measured = pooled(found)
    planted = PlantedRows.of([found[f"planted-{member}"] for member in range(config.num_seeds)])
    optima = {name: found[f"optima-{place}"] for place, name in enumerate(networks_of(config))}
    preset = str(run.request.get("preset", "quick"))
    tables, figures = presented(measured)
    return Result(
        study=STUDY,
        preset=preset,
        seed=seed,
        config=config.model_dump(mode="json"),
        title="Which directions does a network notice first?",
        summary=_summary(measured),
        claims=[*_claims(config, measured, preset), *planted.claims(preset)],
        tables=[*tables, optima_table(optima), search_table(optima), planted.table()],
        figures=[*figures, *(figure for one in optima.values() for figure in one["figures"])],
        flags=[*missing_flags(config), *dict.fromkeys(flag for one in measured.values() for flag in one.flags)],
    )


def _part(item: Mapping[str, Any], run: Run | None) -> Any:
    config = SensitiveDirectionsConfig(**item["config"])
    if item["part"] == "planted":
        return planted_part(derive(item["seed"], "planted", item["member"]), num_searches=config.num_optima)
    if item["part"] == "optima":
        return optima_part(
            config, item, num_optima=config.num_optima, num_starts=config.num_starts, num_side=config.triangle
        )
    conditions = SPHERE_CONDITIONS if item["mode"] == "sphere" else STRAIGHT_CONDITIONS
    return {"key": item["key"], "measured": measured_part(item, config, conditions).to_plain()}


def _corner_share(one: PlateausMeasurement) -> Estimate:
    """Share of triangles, of one real corner and two random ones, in which the real corner has the lowest threshold."""
    real, bases = one.values(TOWARDS_REAL, THRESHOLD)
    random, _ = one.values(TOWARDS_RANDOM, THRESHOLD)
    # Two random directions from the same base beside each real one: the same place, and the next around.
    shape = (len(set(bases.tolist())), -1)
    table = random.reshape(shape)
    first, second = table.reshape(-1), numpy.roll(table, 1, axis=1).reshape(-1)
    lowest = (real < first) & (real < second)
    return mean_over_bases(lowest.astype(numpy.float64), bases, seed=0)


def _claims(
    config: SensitiveDirectionsConfig, measured: Mapping[str, PlateausMeasurement], preset: str
) -> Iterator[Claim]:
    def claim(row: str, name: str, mode: str, told: str, expected: Expected, read: Any, source: str = REPORT) -> Claim:
        return judged(
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

    def later(second: Condition, first: Condition) -> Any:
        return lambda one: difference(one.compare(second, first, HALF))

    def sooner(first: Condition, second: Condition) -> Any:
        return lambda one: one.compare(first, second, THRESHOLD).auc

    some = Expected(low=0.0, origin="by definition: sooner")
    more = Expected(low=3.0, origin="calibration seed 0: 5.6")
    chance = Expected(low=0.51, origin="more than half, which is what two kinds have that never get there")
    towards = "Moves towards other real activations reach half of their response"
    yield claim(
        "P8a",
        MODEL,
        "sphere",
        f"{towards} (L2) before those towards random ones of equal covariance: difference of medians, in degrees.",
        some,
        later(TOWARDS_RANDOM, TOWARDS_REAL),
    )
    yield claim(
        "P8b",
        MODEL,
        "sphere",
        "Isotropic directions come later still, by median angle in degrees: they are no fair null.",
        more,
        later(ANYWHERE, TOWARDS_RANDOM),
    )
    if "kl" in measured[f"{MODEL}|sphere"].curves[TOWARDS_REAL].values:
        yield claim(
            "P8c",
            MODEL,
            "sphere",
            f"KL {KL_LEVEL:g} is reached sooner towards real activations than towards random ones: AUC of thresholds.",
            chance,
            sooner(TOWARDS_REAL, TOWARDS_RANDOM),
        )
        yield claim(
            "P8d",
            MODEL,
            "straight",
            "The same on straight paths.",
            chance,
            sooner(TOWARDS_REAL, TOWARDS_RANDOM),
        )
        yield claim(
            "P8m",
            MODEL,
            "straight",
            "The same on straight paths whose direction is the target itself, without taking the base away.",
            chance,
            sooner(REAL_MIXTURE, RANDOM_MIXTURE),
            MIXTURE_PAPER,
        )
        yield claim(
            "P10r",
            MODEL,
            "sphere",
            "Of one real and two random corners of a triangle of directions, the real one has the lowest threshold: "
            "share of triangles.",
            Expected(low=1 / 3, origin="by definition: more than one of three alike"),
            _corner_share,
        )
    for layer in config.encoder_layers:
        name = f"{ENCODER} {layer}"
        if f"{name}|sphere" not in measured:
            continue
        ordered = Expected(low=0.0, origin="24 bases before the study: 34, 40 and 49 degrees at block 1")
        yield claim(
            f"P8e{layer}",
            name,
            "sphere",
            f"Sentence encoder, input of block {layer}. {towards} (L2) before those towards random ones.",
            ordered,
            later(TOWARDS_RANDOM, TOWARDS_REAL),
            HOUSE,
        )
        yield claim(
            f"P8i{layer}",
            name,
            "sphere",
            f"Sentence encoder, input of block {layer}. Isotropic directions come later still.",
            ordered,
            later(ANYWHERE, TOWARDS_RANDOM),
            HOUSE,
        )


def _summary(measured: Mapping[str, PlateausMeasurement]) -> list[str]:
    def told(name: str) -> str:
        one = measured[f"{name}|sphere"]
        return f"{name}: " + " < ".join(
            f"{one.median(kind, HALF).value:.1f} ({kind.direction})" for kind in SPHERE_CONDITIONS
        )

    names = [name for name in (MODEL, UNTRAINED, f"{ENCODER} 1") if f"{name}|sphere" in measured]
    return [f"Median angle of half the response, in degrees, in the order expected. {'; '.join(map(told, names))}."]

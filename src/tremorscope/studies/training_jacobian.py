"""The training Jacobian of a small digits network: regions, silence of the bulk, and what the bulk tells of."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.results import Result, drawn
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.builtin import digits_mlp
from tremorscope.instruments.executor import map_items
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import matched_covariance, permuted_targets, white_noise
from tremorscope.instruments.optimisers import adam
from tremorscope.instruments.task import Task, digits
from tremorscope.instruments.trainer import Training
from tremorscope.methods.weights.influence import check_influence, example_influence
from tremorscope.methods.weights.training_jacobian import (
    TrainingJacobianMeasurement,
    live_spectrum,
    measure_training_jacobian,
    training_jacobian,
)
from tremorscope.methods.weights.training_jacobian.comparison import (
    GROUP_NAMES,
    INPUT_SPAN,
    MATCHED,
    NOISE,
    REAL,
    SHUFFLED,
    JacobianComparison,
)
from tremorscope.methods.weights.training_jacobian.measurement import OVERLAP_SHARE, InputNull
from tremorscope.methods.weights.training_jacobian.retraining import (
    RetrainingMeasurement,
    measure_retraining,
    retraining_figures,
    retraining_tables,
)
from tremorscope.studies.study import Config, study

PAPER = "Belrose and Scherlis 2024, arXiv:2412.07003"
ROWS = ("J6a", "J6b", "J6c", "J6d", "J7a", "J7b", "J8a", "J8b", "J9", "J9b1", "J9b2", "J9b3", "J10", "I1")
GROUPS = (REAL, SHUFFLED, MATCHED, NOISE)
MEASURED = 20  # held-out losses whose influences are checked
CONTRAST_LEVEL = 1 - (1 - LEVEL) / 3  # J9b is a family of three


class TrainingJacobianConfig(Config):
    """The published network and recipe, in the size that the preset asks for."""

    hidden: int = Field(16, ge=2, le=256, description="Hidden units; the paper has 64.")
    num_epochs: int = Field(
        12, ge=1, description="Passes over the 1,600 training digits, 25 steps each; the paper: 25."
    )
    num_seeds: int = Field(5, ge=2, description="Members: initialisations, each with its nulls.")
    overlap_share: float = Field(
        OVERLAP_SHARE, gt=0, lt=1, description="Share of the live directions whose span is compared between seeds."
    )
    dtype: Literal["float32", "float64"] = Field(
        "float32", description="Of training and of the Jacobian; its decomposition is in float64 always."
    )
    optimiser: Literal["momentum", "adam"] = Field(
        "momentum", description="Momentum 0.9 at learning rate 0.1, or Adam at 3e-3 with eps_root 1e-8; both cosine."
    )
    num_nudges: int = Field(0, ge=0, le=200, description="Sizes, from 1e-3 to 1e3, of nudges to retrain from.")
    num_spans: int = Field(0, ge=0, le=200, description="Dimensions of subspaces to confine training to.")
    num_left_out: int = Field(
        0, ge=0, le=1000, description="Random hundredths of the data to retrain without, to check example influence."
    )
    keep_jacobians: bool = Field(False, description="Leave every Jacobian in the run directory, in blocks of columns.")


@study(
    name="training-jacobian",
    system=1,
    question="Which nudges of the initial weights does training amplify, carry over unchanged, or forget, and is what "
    "it carries over a fact about training or about the inputs?",
    source=PAPER,
    presets={
        "quick": {},
        "desk": {"hidden": 32, "num_epochs": 25, "num_nudges": 13, "num_spans": 8, "num_left_out": 30},
        "paper": {"hidden": 64, "num_epochs": 25, "num_nudges": 30, "num_spans": 20, "num_left_out": 50},
    },
    cost={
        "quick": "about 100 CPU-seconds: 20 Jacobians of 1,210 weights",
        "desk": "about 15 CPU-minutes: 20 Jacobians of 2,410 weights, 5 x 79 retrainings",
        "paper": "about 70 CPU-minutes: 20 Jacobians of 4,810 weights, 5 x 190 retrainings",
    },
    rows=ROWS[:-1],  # I1 is judged where examples are left out, at desk and paper
)
def run(config: TrainingJacobianConfig, seed: int, run: Run) -> Result:
    """Train, differentiate and measure every member and its nulls; judge the rows over the members."""
    items = {
        f"{group}-{member}": {"config": config.model_dump(), "seed": seed, "member": member, "group": group}
        for member in range(config.num_seeds)
        for group in GROUPS
    }
    groups: dict[str, list[TrainingJacobianMeasurement]] = {group: [] for group in GROUPS}
    retrained: list[RetrainingMeasurement] = []
    influence: list[dict[str, float]] = []
    jobs = int(run.request.get("jobs") or 1)
    for key, plain in map_items(_member, items, run=run, jobs=jobs, progress="training Jacobians"):
        groups[str(items[key]["group"])].append(TrainingJacobianMeasurement.of(plain["measured"], run.arrays(key)))
        if plain["retrained"]:
            retrained.append(RetrainingMeasurement.of(plain["retrained"], run.arrays(f"retrained-{key}")))
        if plain["influence"]:
            influence.append(plain["influence"])
        if not config.keep_jacobians:
            shutil.rmtree(run.blocks(f"jacobian-{key}"), ignore_errors=True)
    comparison = JacobianComparison(groups)
    preset = str(run.request.get("preset", "quick"))
    return Result(
        study="training-jacobian",
        preset=preset,
        seed=seed,
        config=config.model_dump(mode="json"),
        title="Where does training carry a nudge of the initial weights?",
        summary=_summary(comparison),
        claims=_claims(comparison, influence, _scope(config), preset),
        tables=[*comparison.tables(family_level=CONTRAST_LEVEL), *retraining_tables(retrained)],
        figures=[drawn(figure) for figure in (*comparison.figures(), *retraining_figures(retrained))],
        flags=_flags(groups),
    )


def _member(item: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
    """One network: train, differentiate, measure. Arrays go to the run, numbers come back."""
    config = TrainingJacobianConfig(**item["config"])
    key = f"{item['group']}-{item['member']}"
    network = _network(config, derive(item["seed"], "member", item["member"]), item["group"])
    label = f"columns of {key}"
    jacobian = training_jacobian(
        network,
        folder=None if run is None else run.blocks(f"jacobian-{key}"),
        progress=None if run is None else partial(run.progress, label),
    )
    spectrum = live_spectrum(jacobian)
    measured = measure_training_jacobian(
        network,
        jacobian,
        seed=derive(item["seed"], "probes"),
        overlap_share=config.overlap_share,
        spectrum=spectrum,
    )
    retrained = None
    if item["group"] == REAL and (config.num_nudges or config.num_spans):
        retrained = measure_retraining(
            network,
            spectrum,
            num_nudges=config.num_nudges,
            num_spans=config.num_spans,
            seed=derive(item["seed"], "retraining", item["member"]),
            progress=None if run is None else partial(run.progress, f"retraining {key}"),
        )
    if run is not None:
        run.save_arrays(key, measured.to_arrays())
        if retrained is not None:
            run.save_arrays(f"retrained-{key}", retrained.to_arrays())
    influence = None
    if item["group"] == REAL and config.num_left_out:
        checked = check_influence(
            network,
            example_influence(network, range(MEASURED)),
            range(MEASURED),
            num_subsets=config.num_left_out,
            seed=derive(item["seed"], "left out", item["member"]),
            progress=None if run is None else partial(run.progress, f"leaving examples out, {key}"),
        )
        influence = {"score": checked.correlation, "null": checked.null_correlation}
        if run is not None:
            run.save_arrays(f"influence-{key}", checked.to_arrays())
    return {
        "measured": measured.to_plain(),
        "retrained": None if retrained is None else retrained.to_plain(),
        "influence": influence,
    }


def _network(config: TrainingJacobianConfig, seed: int, group: str) -> Network:
    dtype: torch.dtype = getattr(torch, config.dtype)
    null = derive(seed, group)
    task: Task = digits(dtype=dtype)
    task = {
        REAL: lambda: task,
        SHUFFLED: lambda: permuted_targets(task, null),
        MATCHED: lambda: matched_covariance(task, null),
        NOISE: lambda: white_noise(task, null),
    }[group]()
    network = digits_mlp(hidden=config.hidden, seed=seed, num_steps=25 * config.num_epochs, task=task, dtype=dtype)
    recipe = network.recipe
    if config.optimiser == "momentum" or not isinstance(recipe, Training):
        return network
    return network.with_recipe(replace(recipe.trainer, optimiser=adam(3e-3, eps_root=1e-8)))


def _scope(config: TrainingJacobianConfig) -> str:
    is_published = (config.hidden, config.num_epochs, config.dtype) == (64, 25, "float32")
    return (
        f"judged on the digits network 64-{config.hidden}-10 after {25 * config.num_epochs} steps of "
        f"{config.optimiser}, live directions only, {config.num_seeds} seeds"
        + ("" if is_published else "; the paper's network (hidden 64, 625 steps) was not run at this preset")
    )


_SEEDS = "calibration seeds 0 and 1, five members each"
_DESK_SEED = "calibration seed 0, three members"
_NULL_GROUPS = {
    SHUFFLED: "the same network trained on shuffled labels",
    MATCHED: "the same network trained on Gaussian inputs of the data's mean and covariance, with random labels",
    NOISE: "the same network trained on uniform noise as inputs",
}
_INPUT_SPAN_TEXT = "the same on the inputs' low-variance directions, which no training produced"


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A claim about one number of each member. `on_inputs` reads the same from the null without a network."""

    statement: str
    expected: Mapping[str, Expected]
    read: Callable[[TrainingJacobianMeasurement], float]
    nulls: tuple[str, ...] = (SHUFFLED, MATCHED)
    on_inputs: Callable[[InputNull], float] | None = None


def _everywhere(expected: Expected) -> Mapping[str, Expected]:
    """One threshold for all presets: it does not depend on the size of the network."""
    return dict.fromkeys(("quick", "desk", "paper"), expected)


def _loudness(measured: TrainingJacobianMeasurement | InputNull, kind: str) -> float:
    return math.log10(measured.step(kind))


_ROWS = {
    "J6a": _Row(
        statement="Training amplifies its most sensitive direction many times: log10 of the largest singular value.",
        expected={
            "quick": Expected(low=1.0, high=2.1, origin=f"{_SEEDS}: 19 to 130; the paper's network: 10 to 40"),
            "desk": Expected(low=1.0, high=2.1, origin=f"as at quick; {_DESK_SEED}: 1.40"),
            "paper": Expected(low=1.0, high=math.log10(40), origin="the paper's curves: 10 to 40"),
        },
        read=lambda m: math.log10(float(m.values[0])),
        nulls=(SHUFFLED, MATCHED, NOISE),
    ),
    "J6b": _Row(
        statement="The bulk is wide: share of the live directions with |sigma - 1| < 0.1.",
        expected={
            "quick": Expected(low=0.45, origin=f"{_SEEDS}: 0.51 and 0.51; the paper's network: 0.54 to 0.76"),
            "desk": Expected(low=0.45, origin=f"as at quick; {_DESK_SEED}: 0.55"),
            "paper": Expected(low=2500 / 4618, high=3500 / 4618, origin="the paper's curves: 2,500 to 3,500 of 4,618"),
        },
        read=lambda m: m.share(within=0.1),
        nulls=(SHUFFLED, MATCHED, NOISE),
    ),
    "J6c": _Row(
        statement="The bulk is flat: share of the live directions with |sigma - 1| < 0.01.",
        expected={
            "quick": Expected(low=0.2, origin=f"{_SEEDS}: 0.27 and 0.27; the paper's network: at least 0.32"),
            "desk": Expected(low=0.2, origin=f"as at quick; {_DESK_SEED}: 0.30"),
            "paper": Expected(low=1500 / 4618, origin="the paper's curves: at least 1,500 of 4,618"),
        },
        read=lambda m: m.share(within=0.01),
        nulls=(SHUFFLED, MATCHED, NOISE),
    ),
    "J6d": _Row(
        statement="There is a chaotic end: share of the live directions with sigma > 2.",
        expected={
            "quick": Expected(low=0.05, origin=f"{_SEEDS}: 0.078 and 0.077; the paper's network: at least 0.087"),
            "desk": Expected(low=0.05, origin="as at quick"),
            "paper": Expected(low=400 / 4618, origin="the paper's curves: at least 400 of 4,618"),
        },
        read=lambda m: float((m.values > 2).double().mean()),
        nulls=(SHUFFLED, MATCHED, NOISE),
    ),
    "J7a": _Row(
        statement="The bulk is hardly turned: mean <u, v> over |sigma - 1| < 0.01.",
        expected=_everywhere(Expected(low=0.99, origin="the paper's curves")),
        read=lambda m: m.bulk_alignment,
    ),
    "J7b": _Row(
        statement="What is forgotten comes from nowhere in particular: mean <u, v> over the last 6.5 % of directions.",
        expected=_everywhere(Expected(low=-0.1, high=0.1, origin="the paper's curves")),
        read=lambda m: m.tail_alignment,
    ),
    "J8a": _Row(
        statement="A unit step along the bulk is silent on training inputs: log10 of the worst KL in nats, median over "
        "the most central 4.3 % of directions.",
        expected=_everywhere(Expected(high=-3.0, origin="the paper's curves")),
        read=lambda m: _loudness(m, "training"),
        on_inputs=lambda null: _loudness(null, "training"),
    ),
    "J8b": _Row(
        statement="The same step is loud out of distribution: log10 of the ratio of those medians, normal noise over "
        "training inputs.",
        expected=_everywhere(Expected(low=math.log10(30), origin="the paper's curves: at least 30 times")),
        read=lambda m: _loudness(m, "normal") - _loudness(m, "training"),
        on_inputs=lambda null: _loudness(null, "normal") - _loudness(null, "training"),
    ),
    "J10": _Row(
        statement="Training hardly moves along the bulk: share of the drift's norm inside |sigma - 1| < 0.01.",
        expected=_everywhere(Expected(high=0.15, origin="the paper's network: 0.07")),
        read=lambda m: m.bulk_drift_share,
        on_inputs=lambda null: null.drift_share,
    ),
}
_J9 = Expected(low=0.0, origin="by definition: more than the larger of the two nulls")
_J9B_SHARED = Expected(low=2.0, origin="'far more than chance' in the paper's abstract, read as twice")
_INFLUENCE = Expected(low=0.95, origin="the house's aim; published metagradients reach about 0.98")
_J9B_NEAR_CHANCE = Expected(high=1.6, origin=f"{_SEEDS}: 1.27 and 1.28")


def _claims(comparison: JacobianComparison, influence: list[dict[str, float]], scope: str, preset: str) -> list[Claim]:
    def claim(row: str, statement: str, expected: Expected, measured: Estimate, nulls: list[NullEvidence]) -> Claim:
        return Claim(
            study="training-jacobian",
            row=row,
            preset=preset,
            statement=statement,
            source=PAPER,
            scope=scope,
            expected=expected,
            measured=measured,
            nulls=tuple(nulls),
        )

    claims = [
        claim(name, row.statement, row.expected[preset], comparison.mean(REAL, row.read), _nulls(comparison, row))
        for name, row in _ROWS.items()
    ]
    chance = comparison.chance()

    def in_chances(estimate: Estimate) -> Estimate:
        return estimate.scaled(1 / chance)

    other_seed = in_chances(comparison.overlap(REAL, REAL, level=CONTRAST_LEVEL))
    explains = [
        _null(MATCHED, in_chances(comparison.overlap(REAL, MATCHED, level=CONTRAST_LEVEL))),
        NullEvidence(
            name=INPUT_SPAN,
            description=_INPUT_SPAN_TEXT,
            measured=in_chances(comparison.input_overlap(REAL, level=CONTRAST_LEVEL)),
        ),
    ]
    claims += [
        claim(
            "J9",
            "The bulk is shared between seeds beyond what the inputs alone explain: overlap minus the larger of two "
            "nulls (another seed on matched Gaussian inputs with random labels; low-variance inputs, no network).",
            _J9,
            comparison.excess(REAL),
            [_null(SHUFFLED, comparison.excess(SHUFFLED))],
        ),
        claim(
            "J9b1",
            "Published contrast: the bulk overlaps with another seed's, in units of chance.",
            _J9B_SHARED,
            other_seed,
            explains,
        ),
        claim(
            "J9b2",
            "Published contrast: the bulk overlaps with that of another seed on shuffled labels, in units of chance.",
            _J9B_SHARED,
            in_chances(comparison.overlap(REAL, SHUFFLED, level=CONTRAST_LEVEL)),
            explains,
        ),
        claim(
            "J9b3",
            "Published contrast: the bulk hardly overlaps with another seed's on white noise, in units of chance.",
            _J9B_NEAR_CHANCE,
            in_chances(comparison.overlap(REAL, NOISE, level=CONTRAST_LEVEL)),
            [
                NullEvidence(
                    name="another seed, real inputs",
                    description="where the overlap should not be near chance",
                    measured=other_seed,
                )
            ],
        ),
    ]
    if influence:
        permuted = NullEvidence(
            name="permuted",
            description="the same predictions, dealt to other subsets",
            measured=Estimate.mean([member["null"] for member in influence]),
        )
        claims.append(
            claim(
                "I1",
                "Influence of examples through training foretells retraining without them: linear datamodelling score "
                f"of {MEASURED} held-out losses, random hundredths of the data left out.",
                _INFLUENCE,
                Estimate.mean([member["score"] for member in influence]),
                [permuted],
            )
        )
    return sorted(claims, key=lambda c: ROWS.index(c.row))


def _nulls(comparison: JacobianComparison, row: _Row) -> list[NullEvidence]:
    nulls = [_null(group, comparison.mean(group, row.read)) for group in row.nulls]
    inputs = [member.input_null for member in comparison.groups[REAL]]
    if row.on_inputs is not None and None not in inputs:
        values = [row.on_inputs(null) for null in inputs if null is not None]
        nulls.append(NullEvidence(name=INPUT_SPAN, description=_INPUT_SPAN_TEXT, measured=Estimate.mean(values)))
    return nulls


def _null(group: str, measured: Estimate) -> NullEvidence:
    return NullEvidence(name=GROUP_NAMES[group], description=_NULL_GROUPS[group], measured=measured)


def _summary(comparison: JacobianComparison) -> list[str]:
    real = comparison.groups[REAL]
    sizes = real[0].regions[1]
    excess = comparison.excess(REAL)
    return [
        f"Of {real[0].num_live} live directions of the initial weights, training (seed 1 of {len(real)}) amplifies "
        f"{sizes.chaotic}, carries {sizes.bulk} over within 1 % and forgets {sizes.stable}.",
        f"Bulks of different seeds overlap by {comparison.overlap(REAL, REAL)} (chance {comparison.chance():.3f}). "
        "Networks trained on Gaussian noise of the data's covariance, with random labels, reach "
        f"{comparison.overlap(REAL, MATCHED)}, and a span computed from the inputs without any network "
        f"{comparison.input_overlap(REAL)}.",
        f"Beyond the larger of those two nulls, {excess} of overlap is left: "
        + (
            "the bulk tells of training as well."
            if excess.low > 0
            else "the shared bulk is explained by the inputs' low-variance directions."
            if excess.high <= 0
            else "too little to say that the bulk tells of training."
        ),
    ]


def _flags(groups: Mapping[str, list[TrainingJacobianMeasurement]]) -> list[str]:
    """Each flag once, with how many networks it holds for."""
    counts: dict[str, int] = {}
    for members in groups.values():
        for member in members:
            for flag in member.flags:
                counts[flag] = counts.get(flag, 0) + 1
    total = sum(len(members) for members in groups.values())
    return [f"{flag} ({count} of {total} networks)" for flag, count in counts.items()]

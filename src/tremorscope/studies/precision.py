"""Precision fitting: which approximator follows which law, and how low the error of a network can be brought."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import Field

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.results import Result, Table, drawn
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.executor import map_items
from tremorscope.methods.weights.precision.approximation import ApproximationMember, measure_approximation
from tremorscope.methods.weights.precision.approximation_claims import (
    APPROXIMATION_ROWS,
    approximation_claims,
    approximation_figures,
    approximation_tables,
)
from tremorscope.methods.weights.precision.floor_experiment import FloorMember, FloorPlan, measure_floor
from tremorscope.methods.weights.precision.pipeline import PrecisionBudget
from tremorscope.methods.weights.precision.precision_fit import path_figure, spectrum_figure, stage_table
from tremorscope.studies.study import Config, study

PAPER = "Michaud, Liu and Tegmark 2022, arXiv:2210.13447"
FLOOR_ROWS = ("P3a", "P4", "P4b", "P6")
RACE_ROWS = ("P2a", "P2b", "P3b", "P3c", "P9a")
ROWS = (*APPROXIMATION_ROWS, *FLOOR_ROWS, *RACE_ROWS)


class PrecisionConfig(Config):
    """Sizes of the fits; the defaults are those of `quick`."""

    num_seeds: int = Field(4, ge=2, description="Members: each draws its own teacher, points and initial weights.")
    num_points: int = Field(1000, ge=4, description="Training points of the teacher-student fit; the paper: 100,000.")
    hidden: int = Field(10, ge=1, le=200, description="Width of the student's two hidden layers; the paper: 20.")
    starts: int = Field(3, ge=1, description="Initialisations that each member screens, for each network of its sum.")
    lm_steps: int = Field(150, ge=1, description="Levenberg-Marquardt steps of the first network.")
    boosted_steps: int = Field(400, ge=1, description="Levenberg-Marquardt steps of the network added to it.")
    screening_steps: int = Field(40, ge=1, description="Steps of each start before the best is chosen.")
    bfgs_steps: int = Field(20, ge=1, description="BFGS steps after Levenberg-Marquardt; the paper, alone: 25,000.")
    low_curvature_steps: int = Field(1, ge=1, description="Steps in the flat directions after that; the paper: 500.")
    square_hidden: int = Field(20, ge=1, le=200, description="Width of the student on the parabola; the paper: 20.")
    square_steps: int = Field(10, ge=1, description="Steps of variable projection on the parabola, width 20.")
    race_steps: int = Field(
        0,
        ge=0,
        description="Steps of BFGS alone on the parabola, width 20; 0 leaves it, and the rows on the parabola, out.",
    )
    adam_steps: int = Field(500, ge=1, description="Steps of the Adam baseline, learning rate 1e-3.")
    approximators: bool = Field(True, description="Measure the scaling laws of interpolants and polynomials too.")


@study(
    name="precision",
    system=4,
    question="How low can the error of a fit go, what stops it, and which approximator should be used?",
    source=PAPER,
    presets={
        "quick": {},
        "desk": {
            "num_seeds": 5,
            "num_points": 2000,
            "lm_steps": 300,
            "boosted_steps": 2400,
            "screening_steps": 100,
            "bfgs_steps": 100,
            "low_curvature_steps": 5,
            "square_steps": 100,
            "race_steps": 2000,
            "adam_steps": 3000,
        },
        "paper": {
            "num_seeds": 5,
            "num_points": 100_000,
            "hidden": 20,
            "lm_steps": 2500,
            "boosted_steps": 12_000,
            "bfgs_steps": 25_000,
            "low_curvature_steps": 500,
            "screening_steps": 100,
            "square_steps": 500,
            "race_steps": 25_000,
            "adam_steps": 30_000,
        },
    },
    cost={
        "quick": "about 100 CPU-seconds: 4 x 4 fits of 141 weights, 4 approximator tables",
        "desk": "about 12 CPU-minutes: 5 x 4 fits of 141 weights, 15 runs of BFGS on 481",
        "paper": "days: five boosted fits of 481 weights on 100,000 points (not run)",
    },
    rows=ROWS,
)
def run(config: PrecisionConfig, seed: int, run: Run) -> Result:
    """Fit every member and its nulls, tabulate the approximators, judge the rows over the members."""
    preset = str(run.request.get("preset", "quick"))
    jobs = int(run.request.get("jobs") or 1)
    kinds = ("floor", "approximators") if config.approximators else ("floor",)
    items = {
        f"{kind}-{member}": {"config": config.model_dump(), "seed": seed, "member": member, "kind": kind}
        for member in range(config.num_seeds)
        for kind in kinds
    }
    floors: list[FloorMember] = []
    tables: list[ApproximationMember] = []
    for key, plain in map_items(_member, items, run=run, jobs=jobs, progress="fits"):
        if items[key]["kind"] == "floor":
            floors.append(FloorMember.of(plain))
        else:
            tables.append(ApproximationMember.of(plain))
    claims = approximation_claims(tables, study="precision", preset=preset) if tables else []
    claims += _claims(floors, config, preset)
    return Result(
        study="precision",
        preset=preset,
        seed=seed,
        config=config.model_dump(mode="json"),
        title="How low can the error of a fit go, and what stops it?",
        summary=_summary(floors),
        claims=sorted(claims, key=lambda claim: sorted(ROWS).index(claim.row)),
        tables=[*_tables(floors), *(approximation_tables(tables) if tables else [])],
        figures=[drawn(figure) for figure in (*_figures(floors), *(approximation_figures(tables) if tables else ()))],
        flags=_flags(floors, tables),
    )


def _member(item: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
    """One draw, as plain numbers."""
    config = PrecisionConfig(**item["config"])
    seed = derive(item["seed"], "member", item["member"])
    if item["kind"] == "approximators":
        return measure_approximation(seed).to_plain()
    tell = None if run is None else partial(_tell, run, item["member"])
    return measure_floor(_plan(config), seed, tell=tell).to_plain()


def _tell(run: Run, member: int, part: str, done: int, total: int) -> None:
    run.progress(f"member {member}: {part}", done, total)


def _plan(config: PrecisionConfig) -> FloorPlan:
    return FloorPlan(
        num_points=config.num_points,
        hidden=config.hidden,
        budget=PrecisionBudget(
            lm=config.lm_steps,
            boosted_lm=config.boosted_steps,
            bfgs=config.bfgs_steps,
            low_curvature=config.low_curvature_steps,
            screening=config.screening_steps,
        ),
        starts=config.starts,
        square_hidden=config.square_hidden,
        square_steps=config.square_steps,
        race_steps=config.race_steps,
        adam_steps=config.adam_steps,
    )


_NULLS = {
    "noisy": ("noisy targets", "the same pipeline on targets with normal noise of 1e-6 standard deviations"),
    "adam": ("Adam", "the same network and points, Adam on all points at once, learning rate 1e-3"),
    "square noisy": ("noisy targets", "the same recipe on a parabola with noise of 1e-6 standard deviations"),
    "square adam": ("Adam", "the same network and points, Adam on all points at once, learning rate 1e-3"),
    "square bfgs": ("BFGS", "the same network and points, BFGS"),
    "continued": (
        "no second network",
        "as many more steps on the first network, whose method ignores the loss's scale",
    ),
    "permuted residual": ("permuted residual", "a second network fitted to the residual dealt at random"),
    "permuted beyond": ("permuted residual", "the same for a second network on the residual dealt at random"),
    "pipeline": ("float64", "the same pipeline on the same points in float64"),
    "work ratio of starts": ("another start", "BFGS from one start over BFGS from two others"),
}
_ERROR = "log10 of the held-out RMSE, in standard deviations of the targets"
_AS_GIVEN = "the house's bar"
# Written in the open because a first claim run was seen before it.
_AGAIN = (
    "; desk was judged a second time, on claim seed 101, with 2,400 boosted steps: with 800, on seed 100, one member "
    "of five stopped at 5e-10, still falling, and the row was undecided; no threshold changed"
)


def _claims(members: Sequence[FloorMember], config: PrecisionConfig, preset: str) -> list[Claim]:
    def mean(score: str) -> Estimate:
        return Estimate.mean([member.scores[score] for member in members])

    def claim(row: str, statement: str, expected: Expected, score: str, *nulls: str) -> Claim:
        return Claim(
            study="precision",
            row=row,
            preset=preset,
            statement=statement,
            source=PAPER,
            scope=_scope(config),
            expected=expected,
            measured=mean(score),
            nulls=tuple(
                NullEvidence(name=_NULLS[null][0], description=_NULLS[null][1], measured=mean(null)) for null in nulls
            ),
        )

    published = "the paper's stored run reaches 3.2e-13 from 100,000 points"
    again = _AGAIN if preset == "desk" else ""
    claims = [
        claim(
            "P3a",
            f"The whole pipeline learns a 3-3 tanh teacher to below 1e-10: {_ERROR}.",
            Expected(high=-10.0, origin=f"{_AS_GIVEN}; {published}{again}"),
            "pipeline",
            "noisy",
            "adam",
        ),
        claim(
            "P4",
            "A second network on the rescaled residual lowers the held-out RMSE at least 30 times: log10 of the gain.",
            Expected(low=math.log10(30), origin=f"{_AS_GIVEN}; the paper's stored run gains 1e5{again}"),
            "boosted",
            "continued",
            "permuted residual",
        ),
        claim(
            "P4b",
            "It gains more than as many steps spent on the first network: log10 of the ratio of the two gains.",
            Expected(low=0.0, origin=f"by definition: more than time alone{again}"),
            "boosted beyond",
            "permuted beyond",
        ),
        claim(
            "P6",
            f"The same pipeline in float32 stops above 1e-9: {_ERROR}.",
            Expected(low=-9.0, origin="rounding of float32, 6e-8, sets the floor"),
            "float32",
            "pipeline",
        ),
    ]
    if config.race_steps:
        claims += [
            claim(
                "P2a",
                f"BFGS alone, width {config.square_hidden}, best of {config.starts} starts, gets below 1e-5 on "
                f"y = x^2: {_ERROR}.",
                Expected(high=-5.0, origin=_AS_GIVEN),
                "square bfgs",
                "square adam",
            ),
            claim(
                "P2b",
                f"Adam stays above 1e-4 there after {config.adam_steps} steps: {_ERROR}.",
                Expected(low=-4.0, origin=_AS_GIVEN),
                "square adam",
                "square bfgs",
            ),
            claim(
                "P3b",
                f"The whole pipeline learns a 3-3 tanh teacher to below 1e-13: {_ERROR}.",
                Expected(high=-13.0, origin=f"the house's aim; {published}{again}"),
                "pipeline",
                "noisy",
                "adam",
            ),
            claim(
                "P3c",
                f"Solving for the last layer brings width {config.square_hidden} on y = x^2 below 1e-12: {_ERROR}.",
                Expected(high=-12.0, origin="where the paper's best stages end on this target, read from its figure"),
                "square projected",
                "square noisy",
            ),
            claim(
                "P9a",
                "Levenberg-Marquardt reaches an RMSE of 1e-5 on y = x^2 with at most half the passes over the data "
                "that BFGS needs from the same starts: log10 of the ratio.",
                Expected(high=math.log10(0.5), origin=f"{_AS_GIVEN}, there in CPU time"),
                "work ratio",
                "work ratio of starts",
            ),
        ]
    return claims


def _scope(config: PrecisionConfig) -> str:
    is_published = (config.hidden, config.num_points) == (20, 100_000)
    return (
        f"judged on one-dimensional targets, {config.num_points} points, student 1-{config.hidden}-{config.hidden}-1 "
        f"(parabola: 400 points, width {config.square_hidden}), {config.num_seeds} draws, best of "
        f"{config.starts} starts each"
        + ("" if is_published else "; the paper's 100,000 points and width 20 were not run")
    )


def _tables(members: Sequence[FloorMember]) -> list[Table]:
    names = {
        "pipeline": "pipeline, float64",
        "noisy": "pipeline, noisy targets",
        "float32": "pipeline, float32",
        "adam": "Adam",
        "square projected": "y = x^2: variable projection",
        "square noisy": "y = x^2 with noise: variable projection",
        "square bfgs": "y = x^2: BFGS",
        "square adam": "y = x^2: Adam",
    }
    rows = [
        {
            "recipe": name,
            "held-out RMSE": Estimate.geometric_mean([10 ** member.scores[key] for member in members]),
            "best": min(10 ** member.scores[key] for member in members),
            "worst": max(10 ** member.scores[key] for member in members),
        }
        for key, name in names.items()
        if key in members[0].scores
    ]
    first = members[0]
    sizes = sorted((abs(value), value) for value in first.eigenvalues)[::-1]
    spectrum = [
        {"rank": rank, "|eigenvalue|": sizes[rank - 1][0], "sign": "+" if sizes[rank - 1][1] > 0 else "-"}
        for rank in _ranks(len(sizes))
    ]
    return [
        Table.of_rows(
            rows,
            name="floors",
            title="How low each recipe gets",
            caption="Root mean squared error on held-out points in standard deviations of the targets: geometric mean "
            f"over {len(members)} draws with its 99 % interval.",
        ),
        stage_table(first.stages, first.because["clean"]),
        Table.of_rows(
            spectrum,
            name="spectrum",
            title="Eigenvalues of the Hessian after training",
            caption=f"The network on the parabola ({len(sizes)} weights), first draw; by absolute value.",
        ),
        Table.of_rows(
            [
                {"draw": place, "data": data, "stopped because": because}
                for place, member in enumerate(members)
                for data, because in member.because.items()
            ],
            name="reasons",
            title="What stopped each fit",
            caption="Clean targets, targets with noise of 1e-6 standard deviations, and clean targets in float32.",
        ),
    ]


def _ranks(count: int) -> list[int]:
    """About 24 ranks, spread evenly."""
    return sorted({1 + round(place * (count - 1) / 23) for place in range(24)}) if count else []


def _figures(members: Sequence[FloorMember]) -> list[Any]:
    first = members[0]
    figures = [path_figure(first.paths, floor=first.floor)]
    if first.eigenvalues:
        figures.append(spectrum_figure(first.eigenvalues))
    return figures


def _summary(members: Sequence[FloorMember]) -> list[str]:
    def typical(score: str) -> Estimate:
        return Estimate.geometric_mean([10 ** member.scores[score] for member in members])

    gain = Estimate.geometric_mean([10 ** member.scores["boosted"] for member in members])
    continued = Estimate.geometric_mean([10 ** member.scores["continued"] for member in members])
    named = sum(member.scores["float32 names precision"] for member in members)
    return [
        f"Held-out RMSE on a tanh teacher, in standard deviations: {typical('pipeline')} with the pipeline in float64, "
        f"{typical('adam')} with Adam.",
        f"The second network lowered it {gain} times; as many more steps on the first one, {continued} times.",
        f"In float32 the same pipeline ends at {typical('float32')}, and names precision as the cause in {named:.0f} "
        f"of {len(members)} draws.",
    ]


def _flags(floors: Sequence[FloorMember], tables: Sequence[ApproximationMember]) -> list[str]:
    counts: dict[str, int] = {}
    for flags, total in [(member.flags, len(floors)) for member in floors] + [
        (member.flags, len(tables)) for member in tables
    ]:
        for flag in dict.fromkeys(flags):
            text = f"{flag} (of {total} draws)"
            counts[text] = counts.get(text, 0) + 1
    return [f"{count} x {flag}" for flag, count in counts.items()]

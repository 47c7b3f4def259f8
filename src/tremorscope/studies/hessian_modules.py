"""Modules in the Hessian of a network that reads digits and the patterns over them: can one be broken alone?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result, drawn
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.data import load_data
from tremorscope.instruments.executor import map_items
from tremorscope.instruments.null import untrained
from tremorscope.instruments.pattern_digits import (
    PatternDigits,
    Phase,
    curriculum,
    mixed_alone,
    pattern_cnn,
    train_in_phases,
)
from tremorscope.instruments.task import Task, digits
from tremorscope.methods.weights.hessian_modules.curves import ALPHAS
from tremorscope.studies.hessian_language import LANGUAGE_ROWS, LanguageRows, language_member
from tremorscope.studies.hessian_spheres import SPHERE_ROWS, SphereRows, addition_member, monitor_member, sphere_member
from tremorscope.studies.hessian_steering import (
    PAPER,
    STEERING_ROWS,
    STUDY,
    SteeringRows,
)
from tremorscope.studies.hessian_steering_member import alone_member, steering_member
from tremorscope.studies.study import Config, study

ROWS = (*STEERING_ROWS, *LANGUAGE_ROWS, *SPHERE_ROWS)
STEERING, ALONE, SPHERES, ADDITION, MONITOR, LANGUAGE = PARTS = (
    *("steering", "alone", "spheres"),
    *("addition", "monitor", "language"),
)


class HessianModulesConfig(Config):
    """The task, the network, and which parts are measured."""

    num_seeds: int = Field(5, ge=2, description="Members: each with its own split, patterns, noise and weights.")
    k: int = Field(50, ge=0, description="Stiff directions of the kept loss that are left alone; the paper: 50.")
    num_epochs: int = Field(10, ge=1, description="Epochs at each of the opacities 0, 0.4, 0.8 and 1.")
    last_epochs: int = Field(25, ge=1, description="Epochs at opacity 0.5, the last phase.")
    decay: float = Field(0.9, gt=0, le=1, description="Of the learning rate after each epoch of the first phases.")
    last_decay: float = Field(0.93, gt=0, le=1, description="The same in the last phase.")
    alone_epochs: int = Field(30, ge=1, description="Epochs of the networks that see mixed images alone.")
    channels: tuple[int, int] = Field((8, 16), description="Of the two convolutions; the paper: 6 and 6.")
    hidden_activation: Literal["silu", "relu"] = Field("silu", description="Of the hidden layer; the paper: relu.")
    digit_noise: float = Field(0.1, ge=0, description="Standard deviation on training digits; the paper: 0.2.")
    num_nulls: int = Field(2, ge=2, description="Random directions of each kind.")
    alphas: list[float] = Field(
        list(ALPHAS), min_length=1, description="Sizes of the step, in lengths of the direction; both signs are tried."
    )
    num_others: int = Field(0, ge=0, description="Stiff directions of patterns that are tried one by one.")
    num_test: int = Field(360, ge=10, description="Held-out digits of the built-in data.")
    num_curvature: int | None = Field(None, ge=1, description="Images that the curvature looks at; all by default.")
    whole: bool = Field(
        False, description="Also: generalised directions, one unknown half, mixed images alone, spheres, the monitor."
    )
    sphere_epochs: int = Field(3, ge=1, description="Epochs of a sphere search at each radius; the paper: 10.")
    addition_train_steps: int = Field(3000, ge=1, description="Steps that train a network to add mod 37.")
    addition_steps: int = Field(200, ge=1, description="Steps of its sphere search at each radius; the paper: 3000.")
    monitor_epochs: int = Field(8, ge=1, description="Epochs before and after the patterns come, under the monitor.")
    language_model: str = Field("builtin:microworld", description="Has one block steered between two sets of prompts.")
    language_block: str = Field("transformer.h.2.*", description="The weights of that block.")
    language_draws: int = Field(8, ge=2, description="Draws of prompts for it.")
    language_k: int = Field(10, ge=1, description="Stiff directions of the kept prompts that are left alone there.")
    num_prompts: int = Field(32, ge=4, description="Prompts of each set in a draw: for curvature, choice and test.")
    data: str | None = Field(None, description="An .npz of square images with classes (MNIST) for the 8x8 digits.")

    def parts(self) -> tuple[str, ...]:
        """What is measured of each member."""
        return PARTS if self.whole else (STEERING,)

    def plan(self) -> dict[str, int]:
        """Members and parts of each."""
        return {"members": self.num_seeds, "parts of each": len(self.parts())}


@study(
    name=STUDY,
    system=3,
    question="A network can solve a task in two ways. Do the Hessian's top eigenvectors find weight directions that "
    "break one and keep the other?",
    source=PAPER,
    presets={
        "quick": {},
        "desk": {"num_seeds": 8, "num_nulls": 4, "num_others": 10, "whole": True},
        "paper": {
            "num_seeds": 5,
            "num_nulls": 4,
            "num_others": 50,
            "whole": True,
            "num_epochs": 5,
            "last_epochs": 5,
            "decay": 0.7,
            "last_decay": 0.8,
            "alone_epochs": 25,
            "channels": [6, 6],
            "hidden_activation": "relu",
            "digit_noise": 0.2,
            "num_curvature": 3200,
            "sphere_epochs": 10,
            "addition_steps": 3000,
        },
    },
    cost={
        "quick": "about 100 CPU-seconds: 5 networks of 2,008 weights, each steered both ways",
        "desk": "about 25 CPU-minutes: 8 networks with every part, 8 draws of prompts for a language model",
        "paper": "hours; needs --set data=FILE.npz (MNIST)",
    },
    rows=ROWS,
)
def run(config: HessianModulesConfig, seed: int, run: Run) -> Result:
    """Train, steer and search every member; judge the rows over the members."""
    preset = str(run.request.get("preset", "quick"))
    if preset == "paper" and config.data is None:
        raise BadInput(
            f"data of study {STUDY!r} at preset paper",
            got="none",
            wanted="MNIST as an .npz with inputs and targets",
            remedy="Pass --set data=FILE.npz, or use --preset desk.",
        )
    items = {
        f"{part}-{member}": {"config": config.model_dump(), "seed": seed, "member": member, "part": part}
        for part in config.parts()
        for member in range(config.language_draws if part == LANGUAGE else config.num_seeds)
    }
    found: dict[str, list[dict[str, Any]]] = {
        part: [] for part in (STEERING, ALONE, LANGUAGE, SPHERES, ADDITION, MONITOR)
    }
    jobs = int(run.request.get("jobs") or 1)
    for key, plain in map_items(_part, items, run=run, jobs=jobs, progress="parts of members"):
        found[str(items[key]["part"])].append(plain)
    steering = SteeringRows(members=tuple(found[STEERING]), alone=tuple(found[ALONE]))
    spheres = SphereRows.of(found[SPHERES], found[ADDITION], found[MONITOR])
    language = LanguageRows(members=tuple(found[LANGUAGE]), model=config.language_model, block=config.language_block)
    scope = _scope(config)
    return Result(
        study=STUDY,
        preset=preset,
        seed=seed,
        config=config.model_dump(mode="json"),
        title="Can one way of solving a task be broken, and the other kept?",
        summary=steering.summary(),
        claims=[
            *steering.claims(preset=preset, scope=scope),
            *language.claims(preset=preset),
            *spheres.claims(preset=preset, scope=scope),
        ],
        tables=[*steering.tables(), *language.tables(), *spheres.tables()],
        figures=[drawn(figure) for figure in (*steering.figures(), *language.figures(), *spheres.figures())],
        flags=[*steering.flags(), *language.flags()],
    )


def _part(item: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
    """One part of one member, as plain numbers; all parts of a member share its seed, data and first weights."""
    config, part = HessianModulesConfig(**item["config"]), str(item["part"])
    seed = derive(item["seed"], "member", item["member"])
    if part == ADDITION:
        return addition_member(
            train_steps=config.addition_train_steps, num_steps=config.addition_steps, seed=derive(seed, part)
        )
    if part == LANGUAGE:
        return language_member(
            model=config.language_model,
            block=config.language_block,
            k=config.language_k,
            num_prompts=config.num_prompts,
            num_nulls=config.num_nulls,
            seed=derive(seed, part),
        )
    if part == MONITOR:
        return monitor_member(num_epochs=config.monitor_epochs, seed=derive(seed, part))
    data = _data(config, seed)
    start = pattern_cnn(data, seed=seed, channels=config.channels, hidden_activation=config.hidden_activation)
    phases = _phases(config) if part != ALONE else mixed_alone(num_epochs=config.alone_epochs, decay=config.last_decay)
    network = train_in_phases(start, data, phases).network
    if part == ALONE:
        return alone_member(network, untrained(network), data)
    if part == SPHERES:
        return sphere_member(network, data, num_epochs=config.sphere_epochs, seed=derive(seed, part))
    return steering_member(
        network,
        data,
        k=config.k,
        alphas=config.alphas,
        num_nulls=config.num_nulls,
        num_others=config.num_others,
        whole=config.whole,
        num_curvature=config.num_curvature,
        seed=derive(seed, part),
    )


def _phases(config: HessianModulesConfig) -> tuple[Phase, ...]:
    return curriculum(
        num_epochs=config.num_epochs,
        last_epochs=config.last_epochs,
        decay=config.decay,
        last_decay=config.last_decay,
    )


def _data(config: HessianModulesConfig, seed: int) -> PatternDigits:
    if config.data is None:
        # NumPy's old generator, which draws the split, takes 32 bits.
        task: Task = digits(num_test=config.num_test, split_seed=derive(seed, "split") % 2**32)
    else:
        task = load_data(config.data)
        largest = float(task.inputs.max())
        if task.test_inputs is not None and largest > 1:  # bytes
            task = replace(task, inputs=task.inputs / largest, test_inputs=task.test_inputs / largest)
    return PatternDigits.of(task, seed=seed, digit_noise=config.digit_noise)


def _scope(config: HessianModulesConfig) -> str:
    where = "8x8 digits" if config.data is None else config.data
    return (
        f"judged on {config.num_seeds} networks with channels {config.channels[0]}-{config.channels[1]} on {where} "
        f"under 4x4 patterns, k = {config.k}"
        + ("" if config.data is not None else "; the post's setting (28x28 digits) was not run at this preset")
    )

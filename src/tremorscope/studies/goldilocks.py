"""The Goldilocks zone on digits: where the loss is unusually convex, for which networks, and what it is good for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result, drawn
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive, numpy_generator
from tremorscope.instruments.centred import centred
from tremorscope.instruments.data import load_data
from tremorscope.instruments.executor import map_items
from tremorscope.instruments.initialisation import draw_weights
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import matched_covariance, permuted_targets
from tremorscope.instruments.optimisers import adam, momentum
from tremorscope.instruments.perceptrons import convolutional, perceptron
from tremorscope.instruments.task import Task, digits
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.goldilocks import (
    ForetoldCurve,
    GoldilocksMeasurement,
    HyperplaneTraining,
    foretell_goldilocks,
    measure_goldilocks,
    train_on_hyperplanes,
)
from tremorscope.methods.weights.goldilocks.comparison import (
    CNN,
    GAUSSIAN,
    PERMUTED,
    PERMUTED_AGAIN,
    RELU,
    RELU_HOT,
    SPHERE,
    TANH,
    TANH_HOT,
    ZoneComparison,
)
from tremorscope.methods.weights.goldilocks.position import share_of_peak
from tremorscope.methods.weights.goldilocks.selection_check import check_selection
from tremorscope.studies.goldilocks_rows import PAPER, ROWS, zone_claims
from tremorscope.studies.study import Config, study

BASIC = (RELU, TANH, TANH_HOT)
MORE = (RELU_HOT, PERMUTED, PERMUTED_AGAIN, GAUSSIAN, SPHERE, CNN)
MORE_PARTS = ("hyperplanes", "architectures", "selection", "foretold")


class GoldilocksConfig(Config):
    """Networks, scales and repetitions of every part."""

    hidden: list[int] = Field([64, 64], min_length=1, description="Widths of the hidden layers; the paper: 3 x 200.")
    data: str | None = Field(
        None, description="An .npz with inputs and targets (MNIST, CIFAR-10) in place of the 8x8 digits."
    )
    num_examples: int = Field(512, ge=8, description="Training examples that the curvature looks at.")
    dimension: int = Field(40, ge=2, description="Of the random subspaces.")
    num_seeds: int = Field(5, ge=2, description="Members; intervals are over them.")
    num_draws: int = Field(4, ge=1, description="Draws of weights and subspace in each member.")
    scales: list[float] = Field(
        [0.05, 0.2, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 60.0], min_length=3, description="Factors on the weights."
    )
    temperatures: list[float] = Field(
        [0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 1e3, 3e4], min_length=3, description="Factors on the logits."
    )
    whole: bool = Field(
        False,
        description="Also: spheres, convolutions, other data, hyperplane training, widths and depths, selection, the "
        "whole Hessian.",
    )
    channels: list[int] = Field([6, 12], min_length=1, description="Of the convolutional network.")
    cnn_examples: int = Field(128, ge=8, description="Training examples of the convolutional network.")
    widths: list[int] = Field([32, 64, 128, 256], min_length=1, description="Hidden widths whose draws are placed.")
    depths: list[int] = Field([2, 3, 4, 5], min_length=1, description="Numbers of hidden layers, likewise.")
    radii: list[float] = Field(
        [0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0], min_length=3, description="Scales of hyperplane training."
    )
    dimensions: list[int] = Field([10, 40, 160], min_length=1, description="Of the hyperplanes trained in.")
    num_steps: int = Field(100, ge=1, description="Steps of hyperplane training; selection has half as many again.")
    num_repeats: int = Field(5, ge=1, description="Selections among initialisations in each member.")
    num_probes: int = Field(32, ge=3, description="Random vectors for trace and norm of the whole Hessian.")
    num_candidates: int = Field(20, ge=6, description="Initialisations to choose among.")

    def plan(self) -> dict[str, int]:
        """Members, curves of each, and points of a curve."""
        return {
            "members": self.num_seeds,
            "curves": len(self.curves()),
            "points of a curve": len(self.scales) * self.num_draws,
        }

    def curves(self) -> tuple[str, ...]:
        """Names of the curves that each member measures."""
        return (*BASIC, *MORE) if self.whole else BASIC


@study(
    name="goldilocks",
    system=2,
    question="At what distance from the origin is the loss unusually convex, whose doing is it, and does it help "
    "training?",
    source=PAPER,
    presets={
        "quick": {},
        "desk": {
            "whole": True,
            "num_seeds": 8,
            "num_repeats": 3,
            "scales": [0.02, 0.1, 0.2, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 60.0],
            "temperatures": [0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 1e3, 1e4, 3e4],
        },
        "paper": {
            "whole": True,
            "hidden": [200, 200, 200],
            "num_examples": 4096,
            "num_draws": 10,
            "scales": [round(0.01 * 10 ** (4 * i / 19), 6) for i in range(20)] + [200.0],
            "temperatures": [1e-3, 0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 1e3, 1e4, 3e4],
            "channels": [32, 64],
            "cnn_examples": 1024,
            "widths": [100, 200, 500, 1000],
            "num_steps": 2000,
        },
    },
    cost={
        "quick": "about 90 CPU-seconds: 5 members, 3 curves",
        "desk": "about 20 CPU-minutes: 8 members, each 9 curves, hyperplane training, 32 architectures, 6 selections, "
        "trace and norm of 20 whole Hessians",
        "paper": "hours, a GPU advised; needs --set data=FILE.npz",
    },
    rows=ROWS,
)
def run(config: GoldilocksConfig, seed: int, run: Run) -> Result:
    """Measure every member's curves and trainings; judge the rows over the members."""
    preset = str(run.request.get("preset", "quick"))
    if preset == "paper" and config.data is None:
        raise BadInput(
            "data of study 'goldilocks' at preset paper",
            got="none",
            wanted="MNIST or CIFAR-10 as an .npz with inputs and targets",
            remedy="Pass --set data=FILE.npz, or use --preset desk.",
        )
    parts = [*config.curves(), *(MORE_PARTS if config.whole else ())]
    items = {
        f"{part}-{member}": {"config": config.model_dump(), "seed": seed, "member": member, "part": part}
        for member in range(config.num_seeds)
        for part in parts
    }
    found: dict[str, list[dict[str, Any]]] = {part: [] for part in parts}
    jobs = int(run.request.get("jobs") or 1)
    for key, plain in map_items(_part, items, run=run, jobs=jobs, progress="parts of members"):
        found[str(items[key]["part"])].append(plain)
    comparison = ZoneComparison(
        curves={name: [GoldilocksMeasurement.of(plain) for plain in found[name]] for name in config.curves()},
        hyperplanes=[
            (HyperplaneTraining.of(plain["plain"]), HyperplaneTraining.of(plain["equal loss"]))
            for plain in found.get("hyperplanes", [])
        ],
        architectures=[plain["cells"] for plain in found.get("architectures", [])],
        selections=[check for plain in found.get("selection", []) for check in plain["checks"]],
        foretold=[ForetoldCurve.of(plain) for plain in found.get("foretold", [])],
    )
    return Result(
        study="goldilocks",
        preset=preset,
        seed=seed,
        config=config.model_dump(mode="json"),
        title="Where is the loss unusually convex?",
        summary=comparison.summary(),
        claims=zone_claims(comparison, _scope(config), preset),
        tables=comparison.tables(),
        figures=[drawn(figure) for figure in comparison.figures()],
        flags=comparison.flags(),
    )


def _part(item: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
    """One part of one member, as plain numbers."""
    config, part = GoldilocksConfig(**item["config"]), str(item["part"])
    # All parts of a member share its seed: equal architectures get equal weights and subspaces, so that they can
    # be compared pair by pair.
    seed = derive(item["seed"], "member", item["member"])
    task = _task(config)
    if part == "hyperplanes":
        return _hyperplanes(config, task, seed)
    if part == "architectures":
        return {"cells": _architectures(config, task, seed)}
    if part == "selection":
        return {"checks": _selections(config, task, seed)}
    if part == "foretold":
        return _foretold(config, task, seed).to_plain()
    return _curve(config, task, seed, part).to_plain()


def _curve(config: GoldilocksConfig, task: Task, seed: int, part: str) -> GoldilocksMeasurement:
    task = centred(task, num_examples=config.cnn_examples if part == CNN else config.num_examples)
    task = {
        PERMUTED: lambda: permuted_targets(task, derive(seed, "permuted")),
        PERMUTED_AGAIN: lambda: permuted_targets(task, derive(seed, "permuted again")),
        GAUSSIAN: lambda: matched_covariance(task, derive(seed, "Gaussian")),
    }.get(part, lambda: task)()
    if part == CNN:
        network = convolutional(task, channels=config.channels)
    else:
        network = perceptron(task, hidden=config.hidden, activation="tanh" if part in (TANH, TANH_HOT) else "relu")
    is_hot = part in (TANH_HOT, RELU_HOT)
    return measure_goldilocks(
        network,
        scales=config.temperatures if is_hot else config.scales,
        scaling="temperature" if is_hot else "weights",
        surface="sphere" if part == SPHERE else "plane",
        dimension=config.dimension,
        num_draws=min(config.num_draws, 2) if part == CNN else config.num_draws,
        seed=seed,
        initialiser="xavier",
        split=part in (RELU, TANH) and (config.whole or part == RELU),
        name=part,
    )


def _foretold(config: GoldilocksConfig, task: Task, seed: int) -> ForetoldCurve:
    """At every other scale of the ReLU network's curve, whose weights these are."""
    task = centred(task, num_examples=config.num_examples)
    return foretell_goldilocks(
        perceptron(task, hidden=config.hidden, activation="relu"),
        scales=config.scales[1::2],
        dimension=config.dimension,
        num_draws=config.num_draws,
        num_probes=config.num_probes,
        seed=seed,
        initialiser="xavier",
    )


def _hyperplanes(config: GoldilocksConfig, task: Task, seed: int) -> dict[str, Any]:
    task = centred(task, num_examples=2 * config.num_examples)
    network = perceptron(task, hidden=[max(2, width // 2) for width in config.hidden])
    network = network.at(draw_weights(network, "xavier", seed=derive(seed, "hyperplanes")))
    trainer = Trainer(optimiser=adam(0.1), num_steps=config.num_steps, batch_size=64)
    batch = task.batch(range(min(config.num_examples, task.size)))
    both = {
        name: train_on_hyperplanes(
            network,
            trainer,
            scales=config.radii,
            dimensions=config.dimensions,
            batch=batch,
            equal_loss=name == "equal loss",
            seed=seed,
        )
        for name in ("plain", "equal loss")
    }
    return {name: training.to_plain() for name, training in both.items()}


def _architectures(config: GoldilocksConfig, task: Task, seed: int) -> list[dict[str, Any]]:
    """Where the He and the Xavier draw lie, one draw each for every width and depth."""
    task = centred(task, num_examples=min(config.num_examples, 128))
    cells: list[dict[str, Any]] = []
    for width in config.widths:
        for depth in config.depths:
            for scheme in ("xavier", "he"):
                measured = measure_goldilocks(
                    perceptron(task, hidden=[width] * depth),
                    scales=[0.1, 0.3, 0.6, 1.0, 2.0, 4.0, 10.0],
                    dimension=min(config.dimension, 20),
                    num_draws=1,
                    seed=derive(seed, width, depth),
                    initialiser="he" if scheme == "he" else "xavier",
                    split=False,
                )
                zone = measured.zone
                cells.append(
                    {
                        "width": width,
                        "depth": depth,
                        "scheme": scheme,
                        "share of peak": 0.0 if zone is None else share_of_peak(measured),
                        "peak": 0.0 if zone is None else zone.peak,
                        "shell": 0.0 if zone is None else zone.share_of(measured.scales),
                    }
                )
    return cells


def _selections(config: GoldilocksConfig, task: Task, seed: int) -> list[dict[str, Any]]:
    task = centred(task, num_examples=config.num_examples)
    network = perceptron(task, hidden=[max(2, width // 2) for width in config.hidden])
    trainer = Trainer(optimiser=momentum(0.02), num_steps=max(1, 3 * config.num_steps // 2))
    return [
        {"scales": kind}
        | check_selection(
            network,
            trainer,
            reached=1.0,
            initialiser=_mixed if kind == "mixed" else "xavier",
            num_draws=config.num_candidates,
            dimension=config.dimension,
            seed=derive(seed, "selection", repeat),
        ).to_plain()
        for repeat in range(config.num_repeats)
        for kind in ("one", "mixed")
    ]


def _mixed(network: Network, seed: int) -> Tensor:
    """A Xavier draw at a scale between 1/2 and 4, as in the published choice among several scales."""
    scale = 2.0 ** numpy_generator(seed, "scale").uniform(-1, 2)
    return float(scale) * draw_weights(network, "xavier", seed=seed)


def _task(config: GoldilocksConfig) -> Task:
    if config.data is None:
        return digits(dtype=torch.float64)
    task = load_data(Path(config.data))
    if not task.inputs.is_floating_point():
        task = replace(
            task,
            inputs=task.inputs.double(),
            test_inputs=None if task.test_inputs is None else task.test_inputs.double(),
        )
    return task.to(dtype=torch.float64)


def _scope(config: GoldilocksConfig) -> str:
    layers = "-".join(str(width) for width in config.hidden)
    where = "8x8 digits" if config.data is None else Path(config.data).name
    published = config.data is not None and config.hidden == [200, 200, 200]
    return (
        f"judged on perceptrons with hidden layers {layers} on {config.num_examples} centred {where}, "
        f"{config.num_seeds} members of {config.num_draws} draws, {config.dimension} dimensions"
        + ("; hyperplane training and selection at half these widths" if config.whole else "")
        + ("" if published else "; the paper's setting (MNIST and CIFAR-10, three layers of 200) was not run")
    )

"""`steer_weights`: break what one data set needs and keep what another needs, on any network, in a run directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tremorscope.foundations.arrays import write_arrays
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.files import write_json
from tremorscope.foundations.results import Result, drawn
from tremorscope.foundations.run import Run
from tremorscope.instruments.data import load_data
from tremorscope.instruments.load import load
from tremorscope.instruments.network import Network
from tremorscope.instruments.recording import recorded
from tremorscope.instruments.task import Task
from tremorscope.methods.weights.hessian_modules.curves import ALPHAS, signed
from tremorscope.methods.weights.hessian_modules.objectives import Objective
from tremorscope.methods.weights.hessian_modules.steering import SteeringMeasurement, steer

DIRECTION = "direction.safetensors"
DESCRIPTION = "direction.json"

Data = str | Path | Task


def steer_weights(
    model: str | Path | nn.Module | Network,
    *,
    keep: Data,
    break_: Data,
    mixed: Data | None = None,
    k: int = 50,
    parameters: str = "*",
    ggn: bool = False,
    method: str = "projection",
    alphas: Sequence[float] = ALPHAS,
    most: float = 0.02,
    bake: tuple[float, Path] | None = None,
    force: bool = False,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    out: Path | None = None,
    resume: Path | None = None,
) -> tuple[Result, Path]:
    """Which step in this network's weights breaks one data set and keeps another; beside its control and nulls.

    The run directory holds the report, the direction (`direction.safetensors`, one tensor for each parameter
    that it moves) and its description (`direction.json`). What `tremorscope steer weights` does.

    Args:
        model: What `load` takes.
        keep: What is to stay: a task, or what `load_data` takes.
        break_: What is to break.
        mixed: Data on which both work; see `steer`.
        k: Stiff directions of the kept loss to leave alone.
        parameters: Shell-style pattern of the weights that may move.
        ggn: Gauss-Newton curvature in place of the Hessian.
        method: `"projection"`, `"complement"` or `"generalised"`.
        alphas: Sizes; both signs of each are tried.
        most: Damage that the kept set may take on validation data.
        bake: A size and a path: the weights moved by it are written there.
        force: Steer although the eigensolver did not converge.
        seed: Names every random stream.
        device: Where to compute.
        dtype: `"float32"` or `"float64"`.
        out: Folder of runs.
        resume: Start again in this run, which was interrupted, instead of opening a new one.

    Returns:
        The result, and the run directory.

    Raises:
        BadInput: If model or data cannot be loaded, or steering makes no sense; see `steer`.
        NotConverged: If the eigensolver did not converge, unless forced.
    """
    signed(alphas)  # a mistake in the sizes is better told before the model is loaded
    network = load(model, device=device, dtype=dtype)
    given = {"keep": keep, "break": break_} | ({} if mixed is None else {"mixed": mixed})
    tasks = {role: data if isinstance(data, Task) else load_data(data) for role, data in given.items()}
    called = {role: task.name for role, task in tasks.items()}
    if len(set(called.values())) < len(called):  # files of one name in several folders
        called = {role: f"{role} ({name})" for role, name in called.items()}
    objectives = {role: Objective.of(called[role], network, task) for role, task in tasks.items()}
    if bake is not None and bake[1].exists() and bake[1].is_dir():
        raise BadInput(
            "file of baked weights", got=str(bake[1]), wanted="a file name", remedy="Add weights.safetensors."
        )
    named = isinstance(model, str | Path) and not any(isinstance(data, Task) for data in (keep, break_, mixed))
    request: dict[str, Any] = {
        "verb": "steer weights",
        "model": str(model) if named else None,
        "keep": _text(keep),
        "break": _text(break_),
        "mixed": None if mixed is None else _text(mixed),
        "k": k,
        "parameters": None if parameters == "*" else parameters,
        "ggn": ggn,
        "method": method,
        "alpha": [float(alpha) for alpha in alphas],
        "most": most,
        "force": force,
        "seed": seed,
        "device": device,
        "dtype": dtype,
    }

    def compute(run: Run) -> Result:
        run.say("Measuring: curvature of both losses")
        measured = steer(
            network,
            objectives["keep"],
            objectives["break"],
            mixed=objectives.get("mixed"),
            k=k,
            method=method,
            alphas=alphas,
            most=most,
            parameters=parameters,
            kind="ggn" if ggn else "hessian",
            seed=seed,
            force=force,
        )
        described = _description(network, measured)
        measured.direction.save(run.path / DIRECTION, described)
        write_json(run.path / DESCRIPTION, described)
        return _result(network, measured, request, seed)

    result, path = recorded(f"steer-{network.name}", request, compute, out=out, resume=resume)
    if bake is not None:
        bake_weights(network, path, bake[0], bake[1])
    return result, path


def bake_weights(network: Network, run: Path, alpha: float, to: Path) -> Path:
    """Write the network's weights moved by `alpha` along a run's direction, as safetensors.

    Raises:
        BadInput: If the run holds no direction, the direction is of another network, or `to` cannot be written.
    """
    from tremorscope.foundations.arrays import read_arrays

    moved = dict(network.params)
    for name, part in read_arrays(run / DIRECTION).items():
        if name not in moved or moved[name].shape != part.shape:
            raise BadInput(f"direction of {run}", got=f"a parameter {name!r}", wanted=f"parameters of {network.name!r}")
        moved[name] = moved[name] + alpha * part.to(moved[name])
    write_arrays(to, moved, metadata={"model": network.name, "steered by": str(run.name), "alpha": repr(alpha)})
    return to


def _description(network: Network, measured: SteeringMeasurement) -> dict[str, Any]:
    return {
        "model": network.name,
        "keep": measured.keep,
        "break": measured.breaking,
        "direction": measured.direction.name,
        "k": measured.k,
        "curvature": measured.kind,
        "parameters": measured.parameters,
        "norm": float(measured.direction.vector.norm()),
        "norm left after projection": measured.direction.left,
        "chosen alpha": measured.choice.alpha,
    }


def _result(network: Network, measured: SteeringMeasurement, request: dict[str, Any], seed: int) -> Result:
    choice = measured.choice
    return Result(
        study=f"steer {network.name}",
        preset="steer",
        seed=seed,
        config={key: value for key, value in request.items() if key not in ("verb", "seed")},
        title=f"Can {measured.breaking} be broken and {measured.keep} kept by a step in the weights?",
        summary=[
            f"Validation data chose alpha = {choice.alpha:g} along {measured.direction.name} (norm "
            f"{measured.steering.norm:.3g}): on test data {measured.breaking} loses {choice.break_damage:.3g} and "
            f"{measured.keep} {choice.keep_damage:.3g}."
            if choice.moved
            else f"No size left {measured.keep} within {measured.most:g} of what it was: nothing was chosen.",
            f"The best of the random directions breaks {_best_null(measured):.3g} under the same choice, the break "
            f"direction without projection {measured.control.break_damage:.3g}.",
        ],
        tables=measured.tables(),
        figures=[drawn(figure) for figure in measured.figures()],
        flags=list(measured.flags),
    )


def _best_null(measured: SteeringMeasurement) -> float:
    return max((one.break_damage for some in measured.null_choices.values() for one in some), default=0.0)


def _text(data: Data) -> str:
    return data.name if isinstance(data, Task) else str(data)

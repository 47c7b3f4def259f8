"""From a network to the smallest error it can reach: stages, switching, boosting, and why it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, final, get_args

import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import untrained
from tremorscope.instruments.task import Task
from tremorscope.methods.weights.precision.boosting import Boosted, Term, residual_task
from tremorscope.methods.weights.precision.gradient_bands import gradient_by_band, hessian_eigenvalues
from tremorscope.methods.weights.precision.levenberg_marquardt import levenberg_marquardt
from tremorscope.methods.weights.precision.low_curvature import low_curvature_training
from tremorscope.methods.weights.precision.precision_fit import PrecisionFit, StageReport
from tremorscope.methods.weights.precision.quasi_newton import quasi_newton
from tremorscope.methods.weights.precision.residuals import (
    Residuals,
    root_mean_square,
    rounding_floor,
    warn_of_precision,
)
from tremorscope.methods.weights.precision.stage_fit import StageFit
from tremorscope.methods.weights.precision.standardisation import Standardisation
from tremorscope.methods.weights.precision.variable_projection import variable_projection

Stage = Literal["variable_projection", "lm", "bfgs", "low_curvature", "boost"]
DEFAULT_STAGES: tuple[Stage, ...] = ("lm", "bfgs", "low_curvature", "boost")
NEAR_FLOOR = 30.0  # an error within this factor of the estimated floor is put down to rounding
DENSE_PARAMETERS = 1000  # up to which the Hessian is decomposed for the report


@final
@dataclass(frozen=True, kw_only=True)
class PrecisionBudget:
    """Steps that each stage may take at most; a stage that stalls hands over before."""

    variable_projection: int = 100
    lm: int = 500
    bfgs: int = 500
    low_curvature: int = 10
    screening: int = 50
    """Steps of each start before the best is chosen."""
    boosts: int = 1
    """Networks added to the first."""
    boosted_lm: int | None = None
    """Steps of `lm` in added networks; as `lm` by default."""


def fit_precisely(
    network: Network,
    *,
    stages: Sequence[str] = DEFAULT_STAGES,
    budget: PrecisionBudget | None = None,
    starts: int = 3,
    gains: Sequence[float] = (10.0, 3.0),
    standardise: bool = True,
    flat_below: float = 1e-15,
    curvature: bool = True,
    seed: int = 0,
) -> PrecisionFit:
    """How low can the error of this network on its data go, and what stops it?

    Several starts are screened with a few steps of the first stage; the one of smallest training error goes
    through the stages in order, each from where the one before stalled. `boost` then adds networks of the same
    kind, fitted by the same stages to the residual times `c = 1 / mean |y - f|`, and keeps each only if the
    training error falls. Errors are in standard deviations of the targets.

    Args:
        network: With a mean-squared-error task. Its own weights are the first start.
        stages: Some of `variable_projection lm bfgs low_curvature boost`, in order; `boost` last.
        budget: Steps of each stage.
        starts: Initialisations to screen, for each network of the sum.
        gains: How much the added networks stretch their inputs, taken in turn by their starts.
        standardise: Shift and scale inputs and targets first.
        flat_below: Threshold of `low_curvature`, in units of the largest curvature.
        curvature: Decompose the Hessian for the report, up to 1,000 parameters.
        seed: Names the streams of the starts.

    Cost: see the stages; the report adds one Jacobian a network and, with `curvature`, one dense Hessian a
    stage.

    Warns:
        PrecisionWarning: If the network is not in float64.

    Raises:
        BadInput: If the task is no squared error, a stage is unknown, or a layer cannot initialise itself.

    Source: Michaud, Liu and Tegmark 2022, arXiv:2210.13447.

    >>> from torch import nn
    >>> x = torch.linspace(-1, 1, 30, dtype=torch.float64)[:, None]
    >>> small = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1))
    >>> network = Network(small, task=Task.of(x, x**2), dtype=torch.float64)
    >>> fit_precisely(network, stages=("lm",), starts=1, budget=PrecisionBudget(lm=30)).train_rmse < 1e-2
    True
    """
    chosen, budget = _checked(stages), budget or PrecisionBudget()
    if starts < 1:
        raise BadInput("starts", got=starts, wanted="at least 1")
    whole = Residuals(network).why_whole  # refuses other losses before any work
    warned = warn_of_precision(network)
    given = network.required_task()
    standard = Standardisation.of(given) if standardise else Standardisation.identity(given)
    task = standard.task(given)
    base = [stage for stage in chosen if stage != "boost"]
    model, reports, total = Boosted(()), list[StageReport](), 0
    spectrum: torch.Tensor | None = None
    floor, flags = 0.0, [] if warned is None else [warned]
    if whole is not None:
        flags.append(f"one backward pass of the whole batch for each output (same numbers, slower): {whole}")
    for index in range(1 + (budget.boosts if "boost" in chosen else 0)):
        before = root_mean_square(model.residual(task.inputs, task.targets)) if index else float("inf")
        if index and before <= NEAR_FLOOR / 10 * floor:
            flags.append(f"network {index + 1} was not needed: the error was at the rounding floor")
            break
        term, start, screened = _best_start(network, task, model, base[0], budget, starts, gains, index, seed)
        total += screened
        steps: list[StageReport] = []
        for stage in base:
            fit = _runner(stage, budget, flat_below, seed, boosted=index > 0)(start)
            start = start.at(fit.theta)
            candidate = model.with_term(Term(network=start, scale=term.scale, gain=term.gain))
            steps.append(_report(index, stage, fit, start, candidate, task, term.scale, total, curvature))
            total += fit.works[-1]
        last = Term(network=start, scale=term.scale, gain=term.gain)
        now = root_mean_square(model.with_term(last).residual(task.inputs, task.targets))
        if not now < before:
            flags.append(f"network {index + 1} was dropped: with it the training error did not fall")
            break
        model, reports = model.with_term(last), [*reports, *steps]
        own = rounding_floor(start, start.theta, start.required_task().train_batch()) / term.scale
        floor = (floor**2 + own**2) ** 0.5
        if curvature and index == 0 and start.layout.size <= DENSE_PARAMETERS:
            spectrum = hessian_eigenvalues(start)
    return PrecisionFit(
        model=model,
        standardisation=standard,
        reports=tuple(reports),
        train_rmse=root_mean_square(model.residual(task.inputs, task.targets)),
        test_rmse=_test(model, task, root_mean_square),
        test_max=_test(model, task, lambda left: float(left.abs().max())),
        floor=floor,
        work=total,
        because=_because(model, task, reports, floor, network.dtype),
        eigenvalues=spectrum,
        flags=tuple(flags),
    )


def fresh_start(network: Network, task: Task, seed: int) -> Network:
    """The same module, initialised anew, on a task.

    Raises:
        BadInput: If a layer with parameters cannot initialise itself.
    """
    # Without the recipe and its start: `untrained` would go back to that start every time.
    bare = Network(network.module, name=network.name, dtype=network.dtype, device=network.device)
    return Network(
        untrained(bare, seed=seed).module, task=task, name=network.name, dtype=network.dtype, device=network.device
    )


def _checked(stages: Sequence[str]) -> list[Stage]:
    known = get_args(Stage)
    strange = [stage for stage in stages if stage not in known]
    fits = not strange and len(set(stages)) == len(stages) and any(stage != "boost" for stage in stages)
    if not fits or ("boost" in stages and stages[-1] != "boost"):
        raise BadInput(
            "stages",
            got=", ".join(stages) or "none",
            wanted=f"some of {', '.join(known)}, each once, one before boost, boost last",
        )
    return [cast(Stage, stage) for stage in stages]


def _best_start(
    network: Network,
    task: Task,
    model: Boosted,
    first: Stage,
    budget: PrecisionBudget,
    starts: int,
    gains: Sequence[float],
    index: int,
    seed: int,
) -> tuple[Term, Network, int]:
    """The start of smallest training error after a few steps, as a term and as a network on its own task."""
    found: list[tuple[float, Term, Network]] = []
    work = 0
    for number in range(starts):
        if index == 0:
            gain, own, scale = 1.0, task, 1.0
        else:
            gain = gains[number % len(gains)]
            own, scale = residual_task(task, model, gain=gain)
        if index == 0 and number == 0:
            start = Network(network.module, task=own, name=network.name, dtype=network.dtype, device=network.device)
            start = start.at(network.theta)
        else:
            start = fresh_start(network, own, derive(seed, "start", index, number))
        error = 0.0
        if starts > 1:
            fit = _runner(first, budget, 1e-15, seed, steps=budget.screening)(start)
            start, error, work = start.at(fit.theta), fit.rmses[-1], work + fit.works[-1]
        found.append((error, Term(network=start, scale=scale, gain=gain), start))
    _, term, start = min(found, key=lambda one: one[0])
    return term, start, work


def _runner(
    stage: Stage,
    budget: PrecisionBudget,
    flat_below: float,
    seed: int,
    *,
    steps: int | None = None,
    boosted: bool = False,
) -> Callable[[Network], StageFit]:
    lm = budget.boosted_lm if boosted and budget.boosted_lm is not None else budget.lm
    runners: dict[str, Callable[[Network], StageFit]] = {
        "variable_projection": lambda n: variable_projection(n, max_iterations=steps or budget.variable_projection),
        "lm": lambda n: levenberg_marquardt(n, max_iterations=steps or lm),
        "bfgs": lambda n: quasi_newton(n, max_iterations=steps or budget.bfgs),
        "low_curvature": lambda n: low_curvature_training(
            n, max_iterations=steps or budget.low_curvature, threshold=flat_below, relative=True, seed=seed
        ),
    }
    return runners[cast(str, stage)]


def _report(
    index: int,
    stage: Stage,
    fit: StageFit,
    network: Network,
    model: Boosted,
    task: Task,
    scale: float,
    before: int,
    curvature: bool,
) -> StageReport:
    bands: dict[str, float] = {}
    if curvature and network.layout.size <= DENSE_PARAMETERS:
        _, gradient = Residuals(network).gradient(network.theta)
        bands = gradient_by_band(network, gradient)
    return StageReport(
        network=index + 1,
        stage=stage,
        iterations=fit.num_iterations,
        works=tuple(before + work for work in fit.works),
        rmses=tuple(error / scale for error in fit.rmses),
        train_rmse=root_mean_square(model.residual(task.inputs, task.targets)),
        test_rmse=_test(model, task, root_mean_square),
        test_max=_test(model, task, lambda left: float(left.abs().max())),
        gradient=bands,
        outcome=fit.outcome,
        because=fit.because,
    )


def _test(model: Boosted, task: Task, measure: Callable[[torch.Tensor], float]) -> float | None:
    if task.test_inputs is None or task.test_targets is None:
        return None
    return measure(model.residual(task.test_inputs, task.test_targets))


def _because(model: Boosted, task: Task, reports: Sequence[StageReport], floor: float, dtype: torch.dtype) -> str:
    error = root_mean_square(model.residual(task.inputs, task.targets))
    test = _test(model, task, root_mean_square)
    name = str(dtype).removeprefix("torch.")
    if error <= NEAR_FLOOR * floor:
        return f"precision: the error is within {NEAR_FLOOR:.0f} times the rounding floor of {name}, about {floor:.1g}"
    if test is not None and test > 10 * error:
        return f"sampling: held-out points are {test / error:.0f} times worse than the training points"
    mine = [one for one in reports if one.network == reports[-1].network]
    falling = [one for one in mine if one.outcome == "budget" and _still_falls(one)]
    if falling:
        return f"budget: {falling[-1].stage} of network {falling[-1].network} was still falling when its steps ran out"
    return (
        f"optimisation: no stage of network {mine[-1].network} lowers the error by 1 % any more, "
        f"{error / floor:.1g} times above the rounding floor; noise in the targets looks the same"
    )


def _still_falls(report: StageReport) -> bool:
    """Whether the last tenth of a stage's steps still lowered the error by 1 %."""
    tail = max(1, report.iterations // 10)
    return report.rmses[-1] < 0.99 * report.rmses[-1 - min(tail, report.iterations)]

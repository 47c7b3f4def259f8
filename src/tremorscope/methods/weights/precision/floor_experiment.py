"""One draw of the floor experiment: the pipeline and its stages, each beside what it should not be able to do."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, final

import torch

from tremorscope.foundations.seeds import derive
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import permuted_targets
from tremorscope.instruments.optimisers import adam
from tremorscope.instruments.point_table import PrecisionWarning
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.precision.boosting import Boosted, Term, residual_task
from tremorscope.methods.weights.precision.levenberg_marquardt import levenberg_marquardt
from tremorscope.methods.weights.precision.pipeline import PrecisionBudget, Stage, fit_precisely
from tremorscope.methods.weights.precision.precision_fit import PrecisionFit
from tremorscope.methods.weights.precision.quasi_newton import quasi_newton
from tremorscope.methods.weights.precision.residuals import Residuals
from tremorscope.methods.weights.precision.standardisation import Standardisation
from tremorscope.methods.weights.precision.targets_to_fit import tanh_student, target_task

RACE = 1e-5  # the error to which Levenberg-Marquardt and BFGS race
Tell = Callable[[str, int, int], None]


@final
@dataclass(frozen=True, kw_only=True)
class FloorMember:
    """One draw. `scores` are decimal logarithms of held-out RMSEs, of gains in it, or of ratios of work.

    `stages` are rows of the stage report of the teacher-student fit, `paths` its curves
    `(stage, passes, training RMSE)`, `eigenvalues` those of the 481-parameter network on the parabola.
    """

    scores: Mapping[str, float]
    stages: tuple[Mapping[str, Any], ...]
    paths: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]
    eigenvalues: tuple[float, ...]
    floor: float
    because: Mapping[str, str]
    flags: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> FloorMember:
        """The inverse of `to_plain`, also after JSON."""
        return cls(
            scores=plain["scores"],
            stages=tuple(plain["stages"]),
            paths=tuple((name, tuple(works), tuple(errors)) for name, works, errors in plain["paths"]),
            eigenvalues=tuple(plain["eigenvalues"]),
            floor=plain["floor"],
            because=plain["because"],
            flags=tuple(plain["flags"]),
        )


@final
@dataclass(frozen=True, kw_only=True)
class FloorPlan:
    """How large the experiment is."""

    num_points: int = 1000
    hidden: int = 10
    stages: tuple[Stage, ...] = ("lm", "bfgs", "low_curvature", "boost")
    budget: PrecisionBudget = field(default_factory=PrecisionBudget)
    starts: int = 3
    noise: float = 1e-6
    adam_steps: int = 3000
    square_points: int = 400
    square_hidden: int = 20  # that of the published student
    square_steps: int = 50
    race_steps: int = 0
    """Steps of BFGS on the parabola; 0 leaves BFGS, its race with Levenberg-Marquardt and the noisy parabola out."""


def measure_floor(plan: FloorPlan, seed: int, *, tell: Tell | None = None) -> FloorMember:
    """How low does each recipe get, and how low where it should not?

    Cost: at the defaults about 40 CPU-seconds, and a minute more with `race_steps=2000`.
    """
    parts = _Parts(tell, 5 + (plan.race_steps > 0))
    task = target_task("teacher", plan.num_points, derive(seed, "teacher"))
    student = tanh_student(task, plan.hidden, derive(seed, "student"))
    parts.begin("pipeline")
    fit = fit_precisely(student, stages=plan.stages, budget=plan.budget, starts=plan.starts, seed=seed)
    scores = {"pipeline": _log(fit.test_rmse), **_boosting(fit, plan, seed, parts)}
    parts.begin("noisy targets")
    noisy = target_task("teacher", plan.num_points, derive(seed, "teacher"), noise=plan.noise)
    stopped = {"clean": fit.because}
    on_noise = fit_precisely(
        tanh_student(noisy, plan.hidden, derive(seed, "student")),
        stages=plan.stages,
        budget=plan.budget,
        starts=1,
        curvature=False,
        seed=seed,
    )
    scores["noisy"], stopped["noisy"] = _log(on_noise.test_rmse), on_noise.because
    scores["adam"] = _log(adam_baseline(student, plan.adam_steps))
    parts.begin("float32")
    coarse = _coarse(plan, task, seed)
    scores["float32"], stopped["float32"] = _log(coarse.test_rmse), coarse.because
    scores["float32 names precision"] = float("float32" in coarse.because)
    parts.begin("parabola")
    square = target_task("square", plan.square_points, derive(seed, "square"))
    projected = _square(plan, square, seed, curvature=True)
    scores["square projected"] = _log(projected.test_rmse)
    if plan.race_steps:
        noisy_square = target_task("square", plan.square_points, derive(seed, "square"), noise=plan.noise)
        scores["square noisy"] = _log(_square(plan, noisy_square, seed, curvature=False).test_rmse)
        parts.begin("race")
        scores |= _race(plan, square, seed)
    values = projected.eigenvalues
    return FloorMember(
        scores=scores,
        stages=tuple(report.row() for report in fit.reports),
        paths=tuple(
            (
                f"{one.stage}, network {one.network}",
                tuple(map(float, _thin(one.works))),
                tuple(map(float, _thin(one.rmses))),
            )
            for one in fit.reports
        ),
        eigenvalues=() if values is None else tuple(values.tolist()),
        floor=fit.floor,
        because=stopped,
        flags=fit.flags,
    )


def adam_baseline(network: Network, num_steps: int, *, lr: float = 1e-3) -> float:
    """Held-out RMSE of Adam on all points at once, in standard deviations of the targets."""
    task = network.required_task()
    standard = Standardisation.of(task).task(task)
    there = network.with_task(standard)
    trained = Trainer(optimiser=adam(lr), num_steps=num_steps).fit(there)
    return Residuals(there, standard.test_batch()).rmse(trained.last)


def _boosting(fit: PrecisionFit, plan: FloorPlan, seed: int, parts: _Parts) -> dict[str, float]:
    """What the second network gained, beside the same steps spent on the first, and a residual without pattern."""
    parts.begin("nulls of boosting")
    first = fit.model.terms[0]
    task = first.network.required_task()
    before = [report.test_rmse for report in fit.reports if report.network == 1][-1]
    steps = plan.budget.boosted_lm or plan.budget.lm
    # The rescaled loss without a second network: Levenberg-Marquardt does not know the loss's scale.
    more = levenberg_marquardt(first.network, max_iterations=steps)
    continued = Residuals(first.network, task.test_batch()).rmse(more.theta)
    alone = Boosted((first,))
    left, scale = residual_task(task, alone, gain=3.0)
    dealt = tanh_student(permuted_targets(left, seed), plan.hidden, derive(seed, "permuted"))
    fitted = levenberg_marquardt(dealt, max_iterations=steps)
    with_noise = alone.with_term(Term(network=dealt.at(fitted.theta), scale=scale, gain=3.0))
    permuted = _held_out(with_noise, task)
    gains = {
        "boosted": _log(before) - _log(fit.test_rmse),
        "continued": _log(before) - _log(continued),
        "permuted residual": _log(before) - _log(permuted),
    }
    return gains | {
        "boosted beyond": gains["boosted"] - gains["continued"],
        "permuted beyond": gains["permuted residual"] - gains["continued"],
    }


def _held_out(model: Boosted, task: Task) -> float:
    inputs, targets = task.test_inputs, task.test_targets
    if inputs is None or targets is None:
        return math.nan
    return float(model.residual(inputs, targets).square().mean().sqrt())


def _coarse(plan: FloorPlan, task: Task, seed: int) -> PrecisionFit:
    student = tanh_student(task, plan.hidden, derive(seed, "student"), dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)  # it is what is measured here
        return fit_precisely(student, stages=plan.stages, budget=plan.budget, starts=1, curvature=False, seed=seed)


def _square(plan: FloorPlan, task: Task, seed: int, *, curvature: bool) -> PrecisionFit:
    budget = replace(plan.budget, variable_projection=plan.square_steps, screening=max(1, plan.square_steps // 10))
    student = tanh_student(task, plan.square_hidden, derive(seed, "square student"))
    return fit_precisely(
        student,
        stages=("variable_projection",),
        budget=budget,
        starts=plan.starts,
        curvature=curvature,
        seed=seed,
    )


def _race(plan: FloorPlan, task: Task, seed: int) -> dict[str, float]:
    """BFGS until it stalls (or is well below the line), Levenberg-Marquardt until the line, from the same starts."""
    standard = Standardisation.of(task).task(task)
    bfgs, lm, errors = [], [], []
    for start in range(plan.starts):
        network = tanh_student(standard, plan.square_hidden, derive(seed, "race", start))
        slow = quasi_newton(network, max_iterations=plan.race_steps, target=RACE / 3)
        fast = levenberg_marquardt(network, max_iterations=plan.race_steps, target=RACE)
        # Who did not arrive is given what it has used so far, which flatters it.
        bfgs.append(slow.work_until(RACE) or slow.works[-1])
        lm.append(fast.work_until(RACE) or fast.works[-1])
        errors.append((slow.rmses[-1], Residuals(network, standard.test_batch()).rmse(slow.theta)))
    student = tanh_student(task, plan.square_hidden, derive(seed, "race", 0))
    logs = [math.log10(work) for work in bfgs]
    return {
        "square bfgs": _log(min(errors)[1]),
        "square adam": _log(adam_baseline(student, plan.adam_steps)),
        "work ratio": math.fsum(math.log10(a) - b for a, b in zip(lm, logs, strict=True)) / len(logs),
        "work ratio of starts": logs[0] - math.fsum(logs[1:]) / max(1, len(logs) - 1),
    }


class _Parts:
    def __init__(self, tell: Tell | None, total: int) -> None:
        self._tell, self._total, self._done = tell, total, 0

    def begin(self, name: str) -> None:
        if self._tell is not None:
            self._tell(name, self._done, self._total)
        self._done += 1


def _log(error: float | None) -> float:
    # An error of exactly 0 would be a bug of the measurement; its logarithm then says so in the tests.
    return math.log10(max(error if error is not None else math.nan, 1e-300))


def _thin(values: tuple[Any, ...], most: int = 150) -> tuple[Any, ...]:
    stride = max(1, len(values) // most)
    return values[::stride] if (len(values) - 1) % stride == 0 else (*values[::stride], values[-1])

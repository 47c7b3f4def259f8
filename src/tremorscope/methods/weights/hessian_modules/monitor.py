"""Mid-training monitor: do the stiff directions of the loss turn when a network finds another way to solve its task?

At each checkpoint, the top eigenvectors of the gradient-orthogonal, positive part of the Hessian,
`(I - g g^T / |g|^2) H (I - g g^T / |g|^2)`. Once a first way of solving the task is in place their span stands
nearly still from checkpoint to checkpoint; when it turns again, a flag goes up. Spans are compared, never single
vectors.

What would falsify the reading: a flag at the same place in a network that sees the same change of data and has
nothing new to learn from it. That null is measured in the study.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Hessian
from tremorscope.instruments.operators.deflated import Deflated
from tremorscope.instruments.operators.second_order import Route
from tremorscope.instruments.spectrum import eigsh
from tremorscope.instruments.subspace import Subspace
from tremorscope.instruments.task import Batch

CLASSES = 10  # stiff directions of a classifier: about one for each class, less one


@final
@dataclass(frozen=True, kw_only=True)
class TurnRule:
    """When a turn of the span counts as news.

    The rule is armed once the turn between checkpoints has been at most `settled`, and flags the first checkpoint
    after that at which it is at least `threshold`. The defaults were set on digits under patterns (calibration seeds
    0 and 1): turns reach 0.8 to 0.95 when the images change, and at most 0.43 when only the optimiser begins anew.

    >>> TurnRule(threshold=0.5, settled=0.3).first([math.nan, 0.9, 0.6, 0.2, 0.3, 0.7, 0.8])
    5

    Raises:
        BadInput: If the two are not `0 < settled < threshold < 1`.
    """

    threshold: float = 0.6
    settled: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.settled < self.threshold < 1:
            raise BadInput(
                "rule of the monitor", got=(self.settled, self.threshold), wanted="0 < settled < threshold < 1"
            )

    def first(self, turns: list[float] | tuple[float, ...]) -> int | None:
        """Place of the flag, or None."""
        armed = False
        for place, turn in enumerate(turns):
            if armed and turn >= self.threshold:
                return place
            armed = armed or turn <= self.settled
        return None


@final
@dataclass(frozen=True, kw_only=True)
class GeneralisationMonitor:
    """Checkpoint by checkpoint: how far the stiff span turned, and how well the network did on every named set.

    `turns[i]` is 1 less the overlap (mean squared cosine) of the spans at checkpoints `i` and `i - 1`, not a number
    at the first; `distances[i]` how far the weights moved meanwhile. `curvatures[i]` are the positive eigenvalues
    found, largest first, zero where there were fewer.
    """

    steps: tuple[int, ...]
    turns: tuple[float, ...]
    distances: tuple[float, ...]
    curvatures: Float[Tensor, "checkpoints k"]
    accuracies: Mapping[str, tuple[float, ...]]
    rule: TurnRule

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "steps": list(self.steps),
            "turns": [None if math.isnan(turn) else turn for turn in self.turns],
            "distances": list(self.distances),
            "curvatures": self.curvatures.tolist(),
            "accuracies": {name: list(found) for name, found in self.accuracies.items()},
            "rule": asdict(self.rule),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> GeneralisationMonitor:
        """The inverse of `to_plain`."""
        return cls(
            steps=tuple(plain["steps"]),
            turns=tuple(math.nan if turn is None else turn for turn in plain["turns"]),
            distances=tuple(plain["distances"]),
            curvatures=torch.tensor(plain["curvatures"], dtype=torch.float64),
            accuracies={name: tuple(found) for name, found in plain["accuracies"].items()},
            rule=TurnRule(**plain["rule"]),
        )

    @property
    def flagged(self) -> int | None:
        """The step of the first flag, None if there is none."""
        place = self.rule.first(self.turns)
        return None if place is None else self.steps[place]

    def onset(self, name: str, level: float) -> int | None:
        """First checkpoint from which on the accuracy on a set is never again below a level, as a step.

        Raises:
            BadInput: If the set was not measured.
        """
        if name not in self.accuracies:
            raise BadInput("set of the monitor", got=name, wanted=f"one of {', '.join(self.accuracies)}")
        below = [place for place, accuracy in enumerate(self.accuracies[name]) if accuracy < level]
        first = 0 if not below else below[-1] + 1
        return self.steps[first] if first < len(self.steps) else None


def monitor_generalisations(
    network: Network,
    snapshots: Mapping[int, Tensor],
    batch: Batch,
    *,
    num_directions: int = CLASSES - 1,
    rule: TurnRule | None = None,
    sets: Mapping[str, Batch] | None = None,
    route: Route = "double_backward",
    tol: float = 1e-2,
    seed: int = 0,
) -> GeneralisationMonitor:
    """At which checkpoint of a training does a second generalisation show in the curvature?

    Args:
        network: Any network with a task, for its loss; its own weights are not used.
        snapshots: Flat weights by step, as `Trajectory.snapshots`.
        batch: Examples of the loss that is watched, the same at every checkpoint: were they those of the moment, any
            change of the data would turn the span.
        num_directions: Dimension of the span.
        rule: When to flag.
        sets: Classified examples whose accuracy is noted beside, by name.
        route: Of Hessian products. Every checkpoint needs few of them, so a route that is cheap to build wins.
        tol: Of the eigenpairs, relative to the norm.
        seed: Of the eigensolver's start vectors.

    Cost: for each checkpoint one gradient and about `4 num_directions` Hessian products.

    >>> from tremorscope.instruments.builtin import digits_mlp
    >>> network = digits_mlp(hidden=2)
    >>> run = network.recipe.trainer.fit(network, keep=[0, 10, 20])
    >>> found = monitor_generalisations(network, run.snapshots, network.task.test_batch(), num_directions=2)
    >>> found.steps, found.flagged
    ((0, 10, 20), None)

    Raises:
        BadInput: If there are fewer than two snapshots, they are of another size, or `num_directions` does not fit.
        NotConverged: If the eigensolver does not reach its tolerance.
    """
    if len(snapshots) < 2:
        raise BadInput("checkpoints of a monitor", got=len(snapshots), wanted="at least 2")
    size = network.layout.size
    if not 1 <= num_directions < size:
        raise BadInput("num_directions", got=num_directions, wanted=f"1 to {size - 1}")
    steps, sets = tuple(sorted(snapshots)), sets or {}
    spans: list[Subspace | None] = []
    curvatures = torch.zeros(len(steps), num_directions, dtype=torch.float64)
    accuracies: dict[str, list[float]] = {name: [] for name in sets}
    for place, step in enumerate(steps):
        weights = snapshots[step]
        if weights.shape != (size,):
            raise BadInput(f"weights at step {step}", got=tuple(weights.shape), wanted=f"a vector of {size}")
        there = network.at(weights)
        values, span = _stiff_span(there, batch, num_directions, route, tol, seed)
        curvatures[place, : len(values)] = values
        spans.append(span)
        for name, known in sets.items():
            accuracies[name].append(_accuracy(there, known))
    pairs = list(itertools.pairwise(steps))
    return GeneralisationMonitor(
        steps=steps,
        turns=(math.nan, *(_turn(one, other) for one, other in itertools.pairwise(spans))),
        distances=(0.0, *(float((snapshots[now] - snapshots[before]).norm()) for before, now in pairs)),
        curvatures=curvatures,
        accuracies={name: tuple(found) for name, found in accuracies.items()},
        rule=rule or TurnRule(),
    )


def _stiff_span(
    network: Network, batch: Batch, k: int, route: Route, tol: float, seed: int
) -> tuple[Tensor, Subspace | None]:
    """Positive eigenvalues of the Hessian outside the gradient, and the span of their vectors."""
    theta = network.theta
    gradient: Tensor = grad(lambda at: network.loss(at, batch))(theta)
    norm = gradient.norm()
    direction = gradient[:, None] / norm if norm > 0 else gradient.new_zeros(len(gradient), 0)
    spectrum = eigsh(Deflated(Hessian(network, batch, route=route), direction), k, tol=tol, seed=seed)
    positive = spectrum.values > 2 * spectrum.residuals  # certainly so
    if not bool(positive.any()):
        return spectrum.values[:0], None
    return spectrum.values[positive], Subspace.span(spectrum.vectors[:, positive.to(theta.device)])


def _turn(before: Subspace | None, now: Subspace | None) -> float:
    """1 less the overlap; the smaller of two spans counts, and one that came or went has turned wholly."""
    if before is None or now is None:
        return 0.0 if before is now else 1.0
    return max(0.0, 1.0 - before.overlap(now))  # below 0 only by rounding


def _accuracy(network: Network, batch: Batch) -> float:
    if batch.target is None or batch.target.is_floating_point():
        raise BadInput("set of the monitor", got="no classes", wanted="classified examples")
    with torch.no_grad():
        right = network.apply(network.params, batch).argmax(-1) == batch.target
    return float(right.double().mean())

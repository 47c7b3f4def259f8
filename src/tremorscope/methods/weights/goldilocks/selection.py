"""Choosing among initialisations before any of them is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.initialisation import Initialiser, Scheme, draw_weights
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators.route_choice import AskedRoute
from tremorscope.instruments.task import Batch
from tremorscope.methods.weights.goldilocks.restricted import (
    check_inputs,
    random_basis,
    restricted_curvature,
    route_for_one_block,
)
from tremorscope.methods.weights.goldilocks.scaling import batch_in_precision, in_double_precision
from tremorscope.methods.weights.goldilocks.statistics import positivity

Score = Literal["kappa", "positive_share", "loss"]
SCORES: tuple[Score, ...] = ("kappa", "positive_share", "loss")


@final
@dataclass(frozen=True, kw_only=True)
class InitialisationRanking:
    """Candidates with their scores. `scores[name][i]` is that of `candidates[i]`, NaN where it is undefined."""

    candidates: tuple[Float[Tensor, " params"], ...]
    scores: dict[Score, tuple[float, ...]]
    flags: tuple[str, ...] = ()

    def order(self, score: Score) -> list[int]:
        """Candidates by one score, the most promising first: large kappa and share, small loss; undefined last.

        Raises:
            BadInput: If that score was not taken.
        """
        if score not in self.scores:
            raise BadInput("score", got=score, wanted=" or ".join(self.scores))
        sign = 1.0 if score == "loss" else -1.0
        values = [math.inf if math.isnan(value) else sign * value for value in self.scores[score]]
        return sorted(range(len(values)), key=values.__getitem__)

    def best(self, score: Score = "kappa") -> Float[Tensor, " params"]:
        """Weights of the most promising candidate, for `network.at(...)`."""
        return self.candidates[self.order(score)[0]]

    def tables(self) -> list[Table]:
        """All candidates, best kappa (or the first score taken) first."""
        first = next(iter(self.scores))
        rows = [
            {"candidate": i, "norm": float(self.candidates[i].norm())}
            | {name: None if math.isnan(values[i]) else values[i] for name, values in self.scores.items()}
            | {f"rank by {name}": self.order(name).index(i) + 1 for name in self.scores}
            for i in self.order(first)
        ]
        return [
            Table.of_rows(
                rows,
                name="initialisations",
                title="Candidate initialisations",
                caption="Scores before training: kappa and share of positive curvature inside one random subspace, the "
                "same for all candidates, and the loss.",
            )
        ]


def select_initialisation(
    network: Network,
    *,
    candidates: Sequence[Float[Tensor, " params"]] | None = None,
    num_draws: int = 20,
    initialiser: Scheme | Initialiser = "reset",
    scores: Sequence[Score] = SCORES,
    batch: Batch | None = None,
    dimension: int = 40,
    seed: int = 0,
) -> InitialisationRanking:
    """Which of several starting weights looks most promising before training?

    Every candidate is judged in the same random subspace, so that they differ by their weights alone.

    Args:
        network: Needs a task.
        candidates: Flat weights. None: `num_draws` fresh ones.
        num_draws: How many to draw.
        initialiser: How, as in `draw_weights`.
        scores: Any of kappa, positive_share and loss; the loss alone costs no Hessian.
        batch: Data; all training examples by default.
        dimension: Of the subspace.
        seed: Names the streams.

    Cost: one block of `dimension` Hessian products for each candidate.

    >>> from torch import nn
    >>> from tremorscope.instruments.task import Task
    >>> x = torch.tensor([[1.0], [2.0]])
    >>> network = Network(nn.Linear(1, 1, bias=False), task=Task.of(x, 3 * x))
    >>> ranking = select_initialisation(network, candidates=[torch.zeros(1), torch.ones(1) * 2.5], dimension=1)
    >>> ranking.order("loss")
    [1, 0]

    Raises:
        BadInput: If a score is unknown, there are fewer than two candidates, or one does not fit the network.

    Source: Fort and Scherlis 2018, arXiv:1807.02581, section on initialisation.
    """
    unknown = [score for score in scores if score not in SCORES]
    if unknown or not scores:
        raise BadInput("scores", got=", ".join(unknown) or "none", wanted=f"some of {', '.join(SCORES)}")
    batch = network.required_task().train_batch() if batch is None else batch
    check_inputs(network, batch)
    if candidates is None:
        candidates = [draw_weights(network, initialiser, seed=derive(seed, "draw", i)) for i in range(num_draws)]
    if len(candidates) < 2:
        raise BadInput("candidates", got=len(candidates), wanted="at least 2")
    wrong = [len(theta) for theta in candidates if len(theta) != network.layout.size]
    if wrong:
        raise BadInput("candidate weights", got=f"{wrong[0]} of them", wanted=f"{network.layout.size}")
    network = in_double_precision(network)
    sharp = batch_in_precision(batch, network.dtype)
    needs_curvature = "kappa" in scores or "positive_share" in scores
    basis = random_basis(candidates[0].double(), dimension, generator(seed, "basis")) if needs_curvature else None
    found: dict[Score, list[float]] = {score: [] for score in scores}
    flags: list[str] = []
    route: AskedRoute | None = None
    for place, theta in enumerate(candidates):
        there = network.at(theta)
        if basis is not None:
            route = route or route_for_one_block(there, sharp, basis)
            curvature = restricted_curvature(there, sharp, basis, route=route)
            seen = positivity(curvature.matrix)
            values = {"kappa": seen.kappa, "positive_share": seen.positive_share, "loss": curvature.loss}
            flags += [*curvature.flags, *([f"candidate {place}: {seen.flag}"] if seen.flag else [])]
        else:
            with torch.no_grad():
                values = {"loss": float(there.loss(there.params, sharp))}
        for score in found:
            found[score].append(values[score])
    return InitialisationRanking(
        candidates=tuple(candidates),
        scores={score: tuple(values) for score, values in found.items()},
        flags=tuple(dict.fromkeys(flags)),
    )

"""Does a score before training foretell how fast training goes? The chosen candidate against random ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import numpy_generator
from tremorscope.instruments.initialisation import Initialiser, Scheme
from tremorscope.instruments.network import Network
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.goldilocks.selection import SCORES, Score, select_initialisation


@final
@dataclass(frozen=True, kw_only=True)
class SelectionCheck:
    """Steps to a loss from the candidate that each score chose, relative to random candidates of the same draw.

    `gain[score]` is `log2(steps of the chosen / geometric mean of the random ones)`: negative is faster.
    `null` is the same for one more candidate that was picked at random. `num_censored` runs did not get there
    and count with all their steps.
    """

    gain: dict[Score, float]
    null: float
    num_censored: int

    def to_plain(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {"gain": dict(self.gain), "null": self.null, "num_censored": self.num_censored}


def check_selection(
    network: Network,
    trainer: Trainer,
    *,
    reached: float,
    initialiser: Scheme | Initialiser = "xavier",
    num_draws: int = 20,
    num_random: int = 4,
    scores: Sequence[Score] = SCORES,
    dimension: int = 40,
    seed: int = 0,
) -> SelectionCheck:
    """One repetition: draw candidates, choose one by each score, train it and some random ones to the same loss.

    Cost: `num_draws` blocks of Hessian products, and at most `len(scores) + num_random + 1` runs.

    Raises:
        BadInput: If there are fewer candidates than random picks, or as `select_initialisation`.
    """
    if not 1 <= num_random < num_draws:
        raise BadInput("random picks", got=num_random, wanted=f"1 to {num_draws - 1}, fewer than candidates")
    ranking = select_initialisation(
        network, num_draws=num_draws, initialiser=initialiser, scores=scores, dimension=dimension, seed=seed
    )
    picks = [int(i) for i in numpy_generator(seed, "random picks").permutation(num_draws)[: num_random + 1]]
    chosen = {score: ranking.order(score)[0] for score in scores}
    steps = {
        place: steps_to_loss(network, trainer, ranking.candidates[place], reached)
        for place in dict.fromkeys([*picks, *chosen.values()])
    }
    reference = sum(math.log2(steps[place]) for place in picks[1:]) / num_random
    return SelectionCheck(
        gain={score: math.log2(steps[place]) - reference for score, place in chosen.items()},
        null=math.log2(steps[picks[0]]) - reference,
        num_censored=sum(value >= trainer.num_steps for value in steps.values()),
    )


def steps_to_loss(network: Network, trainer: Trainer, theta: Float[Tensor, " params"], reached: float) -> float:
    """Steps until a run's loss first falls to `reached`, interpolated; all its steps when it never does.

    A run that diverges never does. At least one step is counted.
    """
    try:
        losses = trainer.bind(network).fit(theta).losses.double().numpy()
    except BadInput as error:
        if "diverged" not in error.what:
            raise
        return float(trainer.num_steps)
    below = numpy.flatnonzero(losses <= reached)
    if not len(below):
        return float(trainer.num_steps)
    step = int(below[0])
    if step == 0:
        return 1.0
    before, after = float(losses[step - 1]), float(losses[step])
    return max(1.0, step - 1 + (before - reached) / (before - after))

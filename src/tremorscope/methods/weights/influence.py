"""Which training examples moved a prediction? Exact influence through training, checked by retraining."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vjp, vmap

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.figures import NULL_COLOUR, Axis, Figure, line, points
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.losses import differentiable
from tremorscope.instruments.network import Network
from tremorscope.instruments.recipe import run_recipe
from tremorscope.instruments.tangents import TrainingMap
from tremorscope.instruments.trainer import Trainer, Training

Progress = Callable[[int, int], None]


@final
@dataclass(frozen=True, kw_only=True)
class InfluenceMeasurement:
    """First-order influence of every training example on every measured loss, and its check by retraining.

    `scores[i, j]` is the rise of measured loss `j` per unit of weight of example `i`; leaving it out is
    foretold to change the loss by `-scores[i, j]`. `foretold[s, j]` and `observed[s, j]` are changes for each
    left-out subset `s`.
    """

    scores: Float[Tensor, "examples measured"]
    foretold: Float[Tensor, "subsets measured"]
    observed: Float[Tensor, "subsets measured"]
    share_left_out: float
    seed: int

    @property
    def correlation(self) -> float:
        """The linear datamodelling score without an interval, for means over members."""
        return float(_correlations(numpy.stack([self.foretold.numpy(), self.observed.numpy()])))

    @property
    def null_correlation(self) -> float:
        """The same with the subsets' predictions permuted."""
        return float(_correlations(numpy.stack([self._permuted().numpy(), self.observed.numpy()])))

    def to_arrays(self) -> dict[str, Tensor]:
        """Tensors to keep, of a size that does not grow with the data."""
        return {"foretold": self.foretold, "observed": self.observed}

    def score(self, *, level: float = LEVEL) -> Estimate:
        """Linear datamodelling score: Spearman correlation over subsets, mean over measured losses.

        The interval is a bootstrap over subsets. Source: Park et al. 2023, arXiv:2303.14186, section 2.
        """
        return _rank_correlation(self.foretold, self.observed, self.seed, level)

    def null_score(self, *, level: float = LEVEL) -> Estimate:
        """The same with the examples' scores permuted: what random attributions would reach."""
        return _rank_correlation(self._permuted(), self.observed, self.seed, level)

    def _permuted(self) -> Tensor:
        return self.foretold[torch.randperm(len(self.foretold), generator=generator(self.seed, "null"))]

    def tables(self) -> list[Table]:
        """Score and its null."""
        return [
            Table(
                name="influence",
                title="Influence of training examples, checked by retraining",
                caption=f"Rank correlation of foretold with observed changes of {self.observed.shape[1]} held-out "
                f"losses when {100 * self.share_left_out:.1f} % of the examples are left out: "
                f"{len(self.observed)} random subsets, each retrained.",
                columns={
                    "attribution": ["through training", "permuted over subsets (null)"],
                    "linear datamodelling score": [self.score(), self.null_score()],
                },
            )
        ]

    def figures(self) -> list[Figure]:
        """Foretold against observed changes."""
        foretold, observed = self.foretold.flatten().numpy(), self.observed.flatten().numpy()
        reach = float(max(numpy.abs(foretold).max(), numpy.abs(observed).max()))
        return [
            Figure(
                name="influence",
                title="Leaving examples out: foretold and observed",
                caption=f"Each point is a held-out loss after retraining without {100 * self.share_left_out:.1f} % of "
                f"the examples; on the grey line the first-order prediction is exact. Rank correlation {self.score()}.",
                traces=[
                    line([-reach, reach], [-reach, reach], "exact", colour=NULL_COLOUR, dash="dash"),
                    points(foretold, observed, "held-out losses", size=4),
                ],
                x=Axis(title="foretold change of the loss, nats"),
                y=Axis(title="observed change of the loss, nats"),
            )
        ]


def example_influence(
    network: Network, measured: Sequence[int], *, chunk: int | None = None
) -> Float[Tensor, "examples measured"]:
    """How much does the weight of each training example move the loss of some held-out examples, after training?

    One backward sweep through the run gives the influence of all training examples on all measured losses.

    Args:
        network: With a `Trainer` and held-out data.
        measured: Indices of held-out examples.
        chunk: Measured losses that travel together.

    Cost: the run, and for each measured loss about three gradients a step, shared passes aside.

    Raises:
        BadInput: If the recipe is no `Trainer`, or there is no held-out data.

    Source: exact differentiation through training, as in Maclaurin et al. 2015, arXiv:1502.03492.
    """
    training = _training(network)
    through = TrainingMap(training, network.start, wrt="example_weights", chunk=chunk)
    last = through.tangents.last
    pull = vjp(lambda theta: _losses(network, theta, measured), last)[1]
    unit = torch.eye(len(measured), dtype=last.dtype, device=last.device)
    gradients: Tensor = vmap(lambda one: pull(one)[0])(unit)
    return through.rmm(gradients.T.contiguous())


def check_influence(
    network: Network,
    scores: Float[Tensor, "examples measured"],
    measured: Sequence[int],
    *,
    num_subsets: int = 50,
    share_left_out: float = 0.01,
    seed: int,
    progress: Progress | None = None,
) -> InfluenceMeasurement:
    """Leave random subsets out, retrain, and compare with what the scores foretell.

    Left-out examples weigh 0 and batches keep their size. Cost: `num_subsets + 1` runs.

    Raises:
        BadInput: If the recipe is no `Trainer`, or the share leaves nothing out or nothing in.
    """
    training = _training(network)
    size = training.task.size
    count = round(share_left_out * size)
    if not 1 <= count < size:
        raise BadInput("share left out", got=share_left_out, wanted=f"between {1 / size:.2g} and 1")
    start = network.start
    before = _losses(network, run_recipe(training, start), measured)
    foretold, observed = [], []
    for place in range(num_subsets):
        left_out = torch.randperm(size, generator=generator(seed, "left out", place))[:count]
        weights = torch.ones(size, dtype=start.dtype)
        weights[left_out] = 0
        after = _losses(network, run_recipe(replace(training, example_weights=weights), start), measured)
        observed.append((after - before).double().cpu())
        foretold.append(-scores[left_out].sum(0).double().cpu())
        if progress is not None:
            progress(place + 1, num_subsets)
    return InfluenceMeasurement(
        scores=scores,
        foretold=torch.stack(foretold),
        observed=torch.stack(observed).detach(),
        share_left_out=count / size,
        seed=derive(seed, "score"),
    )


def _training(network: Network) -> Training:
    recipe = network.recipe.bind(network) if isinstance(network.recipe, Trainer) else network.recipe
    if isinstance(recipe, Training):
        return recipe
    raise BadInput(
        "influence of examples", got=f"a recipe of type {type(recipe).__name__}", wanted="a Trainer, which knows them"
    )


def _losses(network: Network, theta: Tensor, measured: Sequence[int]) -> Float[Tensor, " measured"]:
    task = network.required_task()
    batch = task.test_batch()
    if batch.target is None:
        raise BadInput("held-out targets", got="none", wanted="one for each held-out example")
    chosen = torch.as_tensor(measured, device=theta.device)
    output = network.apply(theta, type(batch)((batch.args[0][chosen],), {}, None))
    loss = differentiable(task.loss)
    each: Tensor = vmap(lambda one, target: loss(one[None], target[None]))(output, batch.target[chosen])
    return each


def _correlations(pairs: numpy.ndarray) -> numpy.ndarray:
    """Spearman correlation over the last but one axis, mean over the last; `pairs` is `[2, ..., subsets, measured]`."""
    from scipy.stats import rankdata

    ranks = rankdata(pairs, axis=-2)
    ranks = ranks - ranks.mean(axis=-2, keepdims=True)
    products = (ranks[0] * ranks[1]).sum(-2)
    sizes = numpy.sqrt((ranks[0] ** 2).sum(-2) * (ranks[1] ** 2).sum(-2))
    scores: numpy.ndarray = numpy.asarray((products / sizes).mean(-1))
    return scores


def _rank_correlation(foretold: Tensor, observed: Tensor, seed: int, level: float) -> Estimate:
    pairs = numpy.stack([foretold.numpy(), observed.numpy()])

    def score(subsets: numpy.ndarray, axis: int = -1) -> numpy.ndarray:
        return _correlations(pairs[:, subsets.astype(int)])

    return Estimate.bootstrap(numpy.arange(len(foretold)), score, seed=seed, level=level, num_resamples=1999)

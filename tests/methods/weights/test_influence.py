"""Influence of examples through training, against retraining without them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import adam, momentum
from tremorscope.instruments.recipe import PureRecipe, run_recipe
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.influence import InfluenceMeasurement, check_influence, example_influence

F64 = torch.float64


def network(optimiser, *, residual=False):
    stream = torch.Generator().manual_seed(5)
    inputs = torch.randn(60, 4, generator=stream, dtype=F64)
    task = Task.of(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long(), num_test=20)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(x + torch.tanh(self.first(x)))

    module = Residual() if residual else nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    for weights in module.parameters():
        weights.data = torch.randn(weights.shape, generator=stream) / 2
    recipe = Trainer(optimiser=optimiser, num_steps=20, batch_size=10)
    return Network(module, task=task, recipe=recipe, dtype=F64)


@pytest.mark.parametrize("residual", [False, True], ids=["structured", "generic"])
@pytest.mark.parametrize("optimiser", [momentum(0.2), adam(0.02, eps_root=1e-6)], ids=["momentum", "adam"])
def test_influence_is_the_derivative_of_retraining(optimiser, residual):
    subject = network(optimiser, residual=residual)
    measured = [0, 3, 7]
    scores = example_influence(subject, measured)
    assert scores.shape == (40, 3)
    training, step = subject.recipe.bind(subject), 1e-5

    def losses(weights):
        last = run_recipe(replace(training, example_weights=weights), subject.start)
        output = subject.apply(last, subject.task.test_batch())[measured]
        return nn.functional.cross_entropy(output, subject.task.test_targets[measured], reduction="none")

    for example in (0, 17, 39):
        unit = torch.zeros(40, dtype=F64)
        unit[example] = 1
        twin = (losses(1 + step * unit) - losses(1 - step * unit)) / (2 * step)
        torch.testing.assert_close(scores[example], twin, rtol=1e-5, atol=1e-9)


def test_leaving_one_out_is_foretold_and_a_permutation_is_not():
    subject = network(momentum(0.05))
    measured = range(6)
    checked = check_influence(
        subject, example_influence(subject, measured), measured, num_subsets=25, share_left_out=1 / 40, seed=0
    )
    assert checked.share_left_out == pytest.approx(1 / 40)
    assert checked.correlation > 0.9
    assert abs(checked.null_correlation) < 0.5
    score = checked.score()
    assert score.value == pytest.approx(checked.correlation)
    assert score.low <= score.value <= score.high
    assert checked.figures()[0].name == "influence"
    assert checked.tables()[0].num_rows == 2


def test_the_rank_correlation_is_scipys():
    from scipy.stats import spearmanr

    stream = torch.Generator().manual_seed(0)
    foretold, observed = (torch.randn(12, 3, generator=stream, dtype=F64) for _ in range(2))
    measured = InfluenceMeasurement(
        scores=torch.zeros(5, 3), foretold=foretold, observed=observed, share_left_out=0.2, seed=0
    )
    twin = sum(spearmanr(foretold[:, j], observed[:, j]).statistic for j in range(3)) / 3
    assert measured.correlation == pytest.approx(twin)


def test_what_has_no_examples_is_refused():
    subject = network(momentum(0.1))
    training = subject.recipe.bind(subject)
    pure = PureRecipe(start=training.init, advance=training.step, num_steps=2)
    with pytest.raises(BadInput, match="wanted a Trainer"):
        example_influence(subject.with_recipe(pure), [0])
    with pytest.raises(BadInput, match="share left out"):
        check_influence(subject, torch.zeros(40, 1), [0], share_left_out=0.001, seed=0)

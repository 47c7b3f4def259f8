from __future__ import annotations

import json
import math

import jaxtyping
import pytest
import torch

from tests.methods.weights.goldilocks.networks import DOUBLE, blobs, drawn
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.initialisation import draw_weights
from tremorscope.instruments.optimisers import momentum, sgd
from tremorscope.instruments.perceptrons import perceptron
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.goldilocks import (
    HyperplaneTraining,
    rank_correlation,
    select_initialisation,
    train_on_hyperplanes,
)
from tremorscope.methods.weights.goldilocks.selection_check import check_selection, steps_to_loss


@pytest.fixture
def task(generator) -> Task:
    return blobs(generator)


def test_selection_ranks_by_each_score(task):
    network = perceptron(task, hidden=(4,))
    theta = draw_weights(network, "xavier", seed=0)
    zero = torch.zeros_like(theta)
    ranking = select_initialisation(network, candidates=[zero, theta, 40 * theta], dimension=8)
    assert ranking.scores["loss"][0] == pytest.approx(math.log(3))
    assert ranking.order("loss")[-1] == 2, "large random logits are wrong and sure of it"
    assert ranking.order("kappa") == sorted(range(3), key=lambda i: -ranking.scores["kappa"][i])
    assert ranking.best("kappa") is ranking.candidates[ranking.order("kappa")[0]]
    (table,) = ranking.tables()
    assert sorted(table.columns["rank by loss"]) == [1, 2, 3]
    again = select_initialisation(network, num_draws=3, initialiser="he", dimension=8, seed=4)
    assert again.scores == select_initialisation(network, num_draws=3, initialiser="he", dimension=8, seed=4).scores
    assert len(set(again.scores["loss"])) == 3


def test_selection_by_loss_alone_needs_no_hessian_and_undefined_comes_last(task, monkeypatch):
    network = perceptron(task, hidden=(4,), activation="relu", bias=False)
    monkeypatch.setattr(
        "tremorscope.methods.weights.goldilocks.selection.restricted_curvature",
        lambda *_, **__: pytest.fail("a Hessian was computed"),
    )
    ranking = select_initialisation(network, num_draws=2, initialiser="xavier", scores=["loss"])
    assert list(ranking.scores) == ["loss"]
    monkeypatch.undo()
    theta = draw_weights(network, "xavier", seed=0)
    undefined = select_initialisation(network, candidates=[torch.zeros_like(theta), theta], dimension=4)
    assert math.isnan(undefined.scores["kappa"][0])
    assert undefined.order("kappa") == [1, 0]
    assert any("candidate 0: the restricted Hessian is zero" in flag for flag in undefined.flags)
    assert undefined.tables()[0].columns["kappa"][-1] is None


def test_selection_refuses(task):
    network = perceptron(task, hidden=(4,))
    with pytest.raises((BadInput, jaxtyping.TypeCheckError), match="beauty"):  # checked types come first in tests
        select_initialisation(network, scores=["beauty"])
    with pytest.raises(BadInput, match="candidates: got 1; wanted at least 2"):
        select_initialisation(network, num_draws=1, initialiser="xavier")
    with pytest.raises(BadInput, match="candidate weights: got 3 of them; wanted 39"):
        select_initialisation(network, candidates=[torch.zeros(39), torch.zeros(3)])
    with pytest.raises(BadInput, match="score: got kappa; wanted loss"):
        select_initialisation(network, num_draws=2, initialiser="xavier", scores=["loss"]).order("kappa")


def test_steps_to_a_loss(task):
    network = drawn(task, "tanh")
    trainer = Trainer(optimiser=sgd(lr=0.5), num_steps=20)
    losses = trainer.bind(network).fit(network.theta).losses
    assert bool((losses[1:] < losses[:-1]).all())
    middle = float(losses[6] + losses[7]) / 2
    assert steps_to_loss(network, trainer, network.theta, middle) == pytest.approx(6.5)
    assert steps_to_loss(network, trainer, network.theta, 0.0) == 20
    assert steps_to_loss(network, trainer, network.theta, 100.0) == 1
    wild = Trainer(optimiser=sgd(lr=1e200), num_steps=20)
    assert steps_to_loss(network, wild, network.theta, 0.0) == 20, "a run that diverges never gets there"


def test_the_check_compares_the_chosen_with_random_ones(task):
    network = perceptron(task, hidden=(4,))
    trainer = Trainer(optimiser=momentum(lr=0.1), num_steps=30)
    found = check_selection(network, trainer, reached=0.9, num_draws=5, num_random=2, dimension=4, seed=3)
    assert set(found.gain) == {"kappa", "positive_share", "loss"}
    assert found == check_selection(network, trainer, reached=0.9, num_draws=5, num_random=2, dimension=4, seed=3)
    json.dumps(found.to_plain(), allow_nan=False)
    with pytest.raises(BadInput, match="random picks: got 5; wanted 1 to 4"):
        check_selection(network, trainer, reached=0.9, num_draws=5, num_random=5)


def test_rank_correlation_averages_rows_and_ties_share_ranks():
    up, down = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0])
    assert rank_correlation(torch.stack([up, up]), torch.stack([up, down])) == pytest.approx(0)
    assert rank_correlation(up[None], torch.ones(1, 3)) == 0
    from scipy.stats import spearmanr

    a, b = torch.tensor([1.0, 1.0, 2.0, 5.0, 4.0]), torch.tensor([0.0, 3.0, 3.0, 3.0, 9.0])
    assert rank_correlation(a[None], b[None]) == pytest.approx(float(spearmanr(a, b).statistic))
    with pytest.raises(BadInput, match="values to correlate"):
        rank_correlation(up[None], torch.full((1, 3), math.nan))


def test_hyperplanes_through_scaled_weights(task):
    network = drawn(task, "relu", hidden=(8,), bias=False)
    trainer = Trainer(optimiser=sgd(lr=0.3), num_steps=10)
    plain, equal = (
        train_on_hyperplanes(network, trainer, scales=(0.5, 1.0, 3.0), dimensions=(4, 12), equal_loss=flag, seed=2)
        for flag in (False, True)
    )
    # Without biases the network is homogeneous: equal outputs mean equal curvature at all radii.
    assert float((equal.loss - plain.loss[:, 1:2]).abs().max()) < 1e-10
    assert float((equal.kappa - plain.kappa[:, 1:2]).abs().max()) < 1e-7
    assert float(plain.kappa.std(1).min()) > 1e-3
    assert torch.equal(plain.accuracy[:, 1], equal.accuracy[:, 1])
    kept = HyperplaneTraining.of(json.loads(json.dumps(plain.to_plain())))
    assert torch.equal(kept.kappa, plain.kappa)
    assert kept.scales == plain.scales
    with pytest.raises(BadInput, match="dimension of a random subspace: got 9999"):
        train_on_hyperplanes(network, trainer, scales=(1.0,), dimensions=(9999,))
    with pytest.raises(BadInput, match="dimensions: got"):
        train_on_hyperplanes(network, trainer, scales=(1.0,), dimensions=())
    regression = Task.of(torch.zeros(3, 5, dtype=DOUBLE), torch.zeros(3, 3, dtype=DOUBLE))
    with pytest.raises(BadInput, match="got no classes; wanted a classification task"):
        train_on_hyperplanes(network.with_task(regression), trainer, scales=(1.0,), dimensions=(2,))


def test_training_never_leaves_the_hyperplane(task):
    """One direction only: what training reaches is the best of a line search."""
    network = drawn(task, "tanh")
    found = train_on_hyperplanes(
        network, Trainer(optimiser=sgd(lr=0.5), num_steps=200), scales=(1.0,), dimensions=(1, network.layout.size)
    )
    assert float(found.accuracy[1, 0]) > float(found.accuracy[0, 0])

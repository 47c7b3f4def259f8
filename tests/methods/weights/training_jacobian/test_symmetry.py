"""Shifts of all logits together: exact directions of sigma = 1 in every network with a softmax."""

import pytest
import torch
from torch import nn

from tests.methods.weights.training_jacobian.small_jacobians import made_up, orthonormal
from tremorscope.instruments.losses import squared_error
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import momentum
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.training_jacobian import training_jacobian
from tremorscope.methods.weights.training_jacobian.comparison import NOISE, REAL, JacobianComparison
from tremorscope.methods.weights.training_jacobian.symmetry import output_shift_directions, without


@pytest.fixture
def task(generator):
    inputs = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    return Task.of(inputs, torch.randint(3, (40,), generator=generator))


def network_on(task, *, bias=True):
    torch.random.set_rng_state(torch.Generator().manual_seed(0).get_state())
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3, bias=bias))
    recipe = Trainer(optimiser=momentum(0.1), num_steps=15, batch_size=10)
    return Network(module, task=task, recipe=recipe, dtype=torch.float64)


@pytest.mark.parametrize(("bias", "count"), [(True, 5), (False, 4)])
def test_training_carries_them_over_unchanged_and_unturned(task, bias, count):
    network = network_on(task, bias=bias)
    directions = output_shift_directions(network)
    assert directions.shape == (network.layout.size, count)
    torch.testing.assert_close(directions.T @ directions, torch.eye(count, dtype=torch.float64))
    matrix = training_jacobian(network).matrix
    torch.testing.assert_close(matrix @ directions, directions, rtol=0, atol=1e-12)
    torch.testing.assert_close(matrix.T @ directions, directions, rtol=0, atol=1e-12)


def test_the_loss_does_not_change_along_them(task):
    network = network_on(task)
    batch = task.train_batch()
    for direction in output_shift_directions(network).T:
        moved = network.loss(network.theta + 3 * direction, batch)
        torch.testing.assert_close(moved, network.loss(network.theta, batch), rtol=0, atol=1e-12)


def test_squared_error_sees_every_direction(task):
    real = Task.of(task.inputs, torch.nn.functional.one_hot(task.targets, 3).double(), loss=squared_error)
    assert output_shift_directions(network_on(real)).shape[1] == 0


def test_a_span_without_a_symmetry_it_holds_is_the_rest(generator):
    basis = orthonormal(12, 6, 1)
    rest = without(basis, basis[:, :2])
    assert rest.shape == (12, 4)
    torch.testing.assert_close(rest @ rest.T, basis[:, 2:] @ basis[:, 2:].T)


def test_overlap_that_is_all_symmetry_is_gone_without_it():
    """Spans that share two symmetric directions and nothing else overlap by 2 / 4 with them, by 0 without."""
    axes = torch.eye(20, dtype=torch.float64)
    symmetry = axes[:, :2]
    real = [made_up(i, central=axes[:, [0, 1, 2 + 2 * i, 3 + 2 * i]], symmetry=symmetry, k=4) for i in range(3)]
    noise = [made_up(i, central=axes[:, [0, 1, 10 + 2 * i, 11 + 2 * i]], symmetry=symmetry, k=4) for i in range(3)]
    comparison = JacobianComparison({REAL: real, NOISE: noise})
    assert comparison.overlap(REAL, NOISE).value == pytest.approx(0.5)
    assert comparison.overlap_without_symmetry(NOISE).value == pytest.approx(0.0, abs=1e-12)
    rows = next(table for table in comparison.tables() if table.name == "overlaps").columns["real bulk against"]
    assert "white-noise inputs, softmax symmetry removed" in rows

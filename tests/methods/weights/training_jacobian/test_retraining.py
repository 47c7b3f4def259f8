"""Retraining from nudged starts and inside spans, against plain loops and linear theory."""

import pytest
import torch
from torch import nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import momentum
from tremorscope.instruments.recipe import PureRecipe, run_recipe
from tremorscope.instruments.subspace_training import train_inside
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.training_jacobian import live_spectrum, training_jacobian
from tremorscope.methods.weights.training_jacobian.retraining import (
    BULK_FIRST,
    RANDOM,
    TOP,
    RetrainingMeasurement,
    characteristic_directions,
    measure_retraining,
    retrain_from_nudges,
    retrain_inside,
    retraining_figures,
    retraining_tables,
)
from tremorscope.methods.weights.training_jacobian.symmetry import output_shift_directions

F64 = torch.float64


@pytest.fixture(scope="module")
def network():
    stream = torch.Generator().manual_seed(3)
    inputs = torch.randn(48, 4, generator=stream, dtype=F64)
    task = Task.of(inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long(), num_test=16)
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    for weights in module.parameters():
        weights.data = torch.randn(weights.shape, generator=stream, dtype=F64) / 2
    return Network(module, task=task, recipe=Trainer(optimiser=momentum(0.2), num_steps=12, batch_size=8))


@pytest.fixture(scope="module")
def spectrum(network):
    return live_spectrum(training_jacobian(network))


def test_directions_and_images_are_those_of_the_jacobian(network, spectrum):
    matrix = training_jacobian(network).matrix
    symmetry = output_shift_directions(network)
    directions = characteristic_directions(spectrum, symmetry, seed=0)
    for direction, image in directions.values():
        assert float(direction.norm()) == pytest.approx(1)
        torch.testing.assert_close(matrix @ direction, image, rtol=0, atol=1e-10)
    central = directions["the centre of the bulk"][0]
    assert float((symmetry.T @ central).abs().max()) < 1e-12, "a symmetry is carried over exactly, and tells nothing"
    gains = {name: float(image.norm()) for name, (_, image) in directions.items()}
    assert gains["the most amplified direction"] == pytest.approx(float(spectrum.values[0]))


def test_small_nudges_end_where_the_jacobian_foretells(network, spectrum):
    directions = characteristic_directions(spectrum, output_shift_directions(network), seed=0)
    seen = []
    runs = retrain_from_nudges(network, directions, sizes=[1e-5, 1e-4], progress=lambda *at: seen.append(at))
    assert seen == [(i, 6) for i in range(1, 7)]
    for run in runs:
        torch.testing.assert_close(run.along, run.gain * run.sizes, rtol=1e-3, atol=0)
        assert float((run.across / run.along).max()) < 1e-2
        assert run.linear_until() == pytest.approx(1e-4)


def test_a_nudged_run_is_the_plain_run_from_there(network, spectrum):
    direction, image = characteristic_directions(spectrum, output_shift_directions(network), seed=0)[
        "a random direction"
    ]
    (run,) = retrain_from_nudges(network, {"one": (direction, image)}, sizes=[2.0])
    recipe = network.recipe.bind(network)
    moved = run_recipe(recipe, network.start + 2.0 * direction) - run_recipe(recipe, network.start)
    along = float(moved @ image / image.norm())
    assert float(run.along[0]) == pytest.approx(along)
    assert float(run.across[0]) == pytest.approx(float((moved.square().sum() - along**2).sqrt()))
    assert run.linear_until(1e-6) == 0.0


def test_training_inside_everything_is_training(network):
    recipe = network.recipe.bind(network)
    whole = torch.eye(network.layout.size, dtype=F64)
    torch.testing.assert_close(
        train_inside(recipe, network.start, whole), run_recipe(recipe, network.start), rtol=0, atol=1e-12
    )


def test_training_inside_a_span_is_gradient_descent_on_projected_gradients(network, spectrum):
    basis = spectrum.initial_directions(torch.arange(3))
    recipe = network.recipe.bind(network)
    theta, buffer = network.start, torch.zeros_like(network.start)
    for t in range(recipe.num_steps):
        buffer = 0.9 * buffer + basis @ (basis.T @ recipe.gradient(theta, t))
        theta = theta - 0.2 * buffer
    torch.testing.assert_close(train_inside(recipe, network.start, basis), theta, rtol=0, atol=1e-12)


def test_every_order_ends_at_the_whole_run_in_all_dimensions(network, spectrum):
    num_live = len(spectrum.values)
    losses = retrain_inside(network, spectrum, [2, num_live], seed=0)
    recipe = network.recipe.bind(network)
    whole = float(network.loss(run_recipe(recipe, network.start), network.task.test_batch()))
    for name, curve in losses.items():
        assert float(curve[1]) == pytest.approx(whole, rel=1e-9), name
    assert float(losses[TOP][0]) != float(losses[BULK_FIRST][0])
    again = retrain_inside(network, spectrum, [2], seed=1)
    assert float(again[RANDOM][0]) != float(losses[RANDOM][0])
    assert float(again[TOP][0]) == float(losses[TOP][0])


def test_what_cannot_be_confined_is_refused(network, spectrum):
    with pytest.raises(BadInput, match=r"got 0; wanted 1 to"):
        retrain_inside(network, spectrum, [0], seed=0)
    recipe = network.recipe.bind(network)
    pure = PureRecipe(start=recipe.init, advance=recipe.step, num_steps=recipe.num_steps)
    with pytest.raises(BadInput, match="pure functions"):
        retrain_inside(network.with_recipe(pure), spectrum, [1], seed=0)
    with pytest.raises(BadInput, match="k >= 1"):
        train_inside(recipe, network.start, torch.zeros(network.layout.size, 0, dtype=F64))
    nothing = torch.zeros(network.layout.size, dtype=F64)
    with pytest.raises(BadInput, match="got zero"):
        retrain_from_nudges(network, {"none": (nothing, nothing)}, sizes=[1.0])


def test_a_measurement_is_kept_and_drawn(network, spectrum):
    measured = measure_retraining(network, spectrum, num_nudges=3, num_spans=2, seed=0)
    again = RetrainingMeasurement.of(measured.to_plain(), measured.to_arrays())
    assert again.dimensions == measured.dimensions
    for one, other in zip(measured.nudges, again.nudges, strict=True):
        assert (one.name, one.gain) == (other.name, other.gain)
        assert torch.equal(one.across, other.across)
    members = [measured, again, again]
    assert [table.name for table in retraining_tables(members)] == ["nudges", "inside"]
    assert [figure.name for figure in retraining_figures(members)] == ["nudges", "nudge_losses", "inside"]
    assert retraining_tables([]) == []

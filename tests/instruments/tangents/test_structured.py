"""Row J2: the structured route against the generic one and against differentiation of the whole run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.instruments.tangents.reference import naive_product
from tests.instruments.tangents.training_runs import (
    DECAYS,
    F64,
    LOSSES,
    OPTIMISERS,
    STACKS,
    directions,
    relative,
    run_of,
    stack_run,
)
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.builtin import digits_mlp
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import sgd
from tremorscope.instruments.tangents import StructuredTangents, recognise_stack, tangents
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer


def both(network: Network, block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    recipe = network.recipe.bind(network)
    pushes = [tangents(recipe, network.start, route=route) for route in ("structured", "generic")]
    assert [push.route for push in pushes] == ["structured", "generic"]
    gap = float((pushes[0].last - pushes[1].last).abs().max())
    assert gap == 0  # one primal run serves both
    return pushes[0](block), pushes[1](block)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_both_routes_agree(stack, optimiser, loss):  # row J2, float64
    network = stack_run(stack, loss=loss, optimiser=OPTIMISERS[optimiser], num_steps=4)
    structured, generic = both(network, directions(network.layout.size, 3))
    assert relative(structured, generic) < 1e-10


@pytest.mark.parametrize("optimiser", DECAYS)
@pytest.mark.parametrize("stack", ["GELU", "ReLU, four deep", "functional"])
def test_both_routes_agree_under_every_decay(stack, optimiser):
    network = stack_run(stack, optimiser=DECAYS[optimiser])
    structured, generic = both(network, torch.eye(network.layout.size, dtype=F64))
    assert relative(structured, generic) < 1e-10


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": None},
        {"batch_size": 100},
        {"batch_size": 1},
        {"batch_size": 4, "seed": 3},
        {"batch_size": 4, "seed": 3, "order": "reshuffled", "num_steps": 9},
        {"schedule": "constant", "num_steps": 1},
        {"schedule": lambda t: 1.0 / (1 + t), "mode": "evaluate"},
    ],
    ids=["full batch", "more than all", "one by one", "one order", "new orders", "one step", "own schedule"],
)
def test_both_routes_see_the_same_batches(options):
    network = stack_run("GELU", optimiser=OPTIMISERS["adam"], **options)
    structured, generic = both(network, directions(network.layout.size, 4))
    assert relative(structured, generic) < 1e-10


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_both_routes_equal_one_derivative_of_the_whole_run(optimiser):
    network = stack_run("functional", optimiser=OPTIMISERS[optimiser])
    recipe, block = network.recipe.bind(network), directions(network.layout.size, 3)
    wanted = naive_product(recipe, network.start, block)
    for pushed in both(network, block):
        assert relative(pushed, wanted) < 1e-12


def test_a_bug_of_the_known_kind_would_show():
    """The law can fail: a chain with another activation, and one without its short last batch."""
    network = stack_run("GELU")
    recipe, block = network.recipe.bind(network), directions(network.layout.size, 3)
    wanted = tangents(recipe, network.start, route="generic")(block)
    tanh_gelu = Network(
        nn.Sequential(network.module[0], nn.GELU(approximate="tanh"), network.module[2]), task=network.task
    )
    stack = recognise_stack(tanh_gelu, tanh_gelu.task.train_batch())
    assert 1e-10 < relative(StructuredTangents(recipe, stack, network.start)(block), wanted) < 1e-2
    even = stack_run("GELU", batch_size=6)
    assert relative(tangents(even.recipe.bind(even), even.start)(block), wanted) > 1e-10


def test_the_way_columns_are_cut_hardly_matters():
    network = stack_run("functional", optimiser=OPTIMISERS["adamw"])
    push, block = tangents(network.recipe.bind(network), network.start), directions(network.layout.size, 7)
    whole = push(block)
    pieces = torch.cat([push(piece) for piece in (block[:, :1], block[:, 1:3], block[:, 3:])], dim=1)
    assert relative(pieces, whole) < 1e-13
    assert torch.equal(push(block), whole)
    assert torch.equal(block, directions(network.layout.size, 7))  # not written into


def test_outputs_of_one_column_meet_flat_targets():
    module = nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    x, y = torch.randn(13, 6, generator=torch.Generator().manual_seed(0)), torch.arange(13.0)
    flat, column = (
        Network(module, task=Task.of(x, target), recipe=Trainer(optimiser=OPTIMISERS["adam"], num_steps=4), dtype=F64)
        for target in (y, y[:, None])
    )
    block = directions(flat.layout.size, 4)
    (structured, generic), (wanted, _) = both(flat, block), both(column, block)
    assert relative(structured, generic) < 1e-12
    assert torch.equal(structured, wanted)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_classes_of_any_integer_type(dtype):
    network = stack_run("GELU")
    short = network.with_task(Task.of(network.task.inputs, network.task.targets.to(dtype)))
    block = directions(network.layout.size, 3)
    for pushed, wanted in zip(both(short, block), both(network, block), strict=True):
        assert torch.equal(pushed, wanted)


def test_inputs_that_are_always_zero_give_columns_of_the_identity():
    network = stack_run("GELU", optimiser=OPTIMISERS["adam"])
    inputs = network.task.inputs.clone()
    inputs[:, [1, 4]] = 0
    dark = network.with_task(Task.of(inputs, network.task.targets))
    push = tangents(dark.recipe.bind(dark), dark.start)
    assert push.null_columns.tolist() == [i * 6 + j for i in range(5) for j in (1, 4)]
    eye = torch.eye(dark.layout.size, dtype=F64)
    for pushed in both(dark, eye):
        assert torch.equal(pushed[:, push.null_columns], eye[:, push.null_columns])
        assert torch.equal(pushed[push.null_columns], eye[push.null_columns])
    # Decay moves every weight: nothing is known beforehand then.
    for optimiser in (OPTIMISERS["momentum"], OPTIMISERS["adamw"]):
        decayed = Network(dark.module, task=dark.task, recipe=Trainer(optimiser=optimiser, num_steps=2), dtype=F64)
        push = tangents(decayed.recipe.bind(decayed), decayed.start)
        assert push.null_columns.tolist() == []
        assert not torch.equal(push(eye)[:, 1], eye[:, 1])


def test_inputs_are_dark_only_if_no_batch_that_was_seen_lights_them():
    network = stack_run("GELU", optimiser=OPTIMISERS["sgd"])
    inputs = network.task.inputs.clone()
    inputs[:-1, 2] = 0  # lit in the last example alone, which only the short third batch holds
    for num_steps, dark in ((2, [i * 6 + 2 for i in range(5)]), (3, [])):
        trainer = Trainer(optimiser=sgd(0.1), num_steps=num_steps, batch_size=5)
        run = Network(network.module, task=Task.of(inputs, network.task.targets), recipe=trainer, dtype=F64)
        push = tangents(trainer.bind(run), run.start)
        assert push.null_columns.tolist() == dark
        eye = torch.eye(run.layout.size, dtype=F64)
        assert torch.equal(push(eye)[:, push.null_columns], eye[:, push.null_columns])


def test_dead_pixels_of_the_published_network():  # row J5: 192 of 4,810, by both routes
    network = digits_mlp(hidden=64, num_steps=25)
    push = tangents(network.recipe, network.start)
    assert (push.route, len(push.null_columns), len(push.last)) == ("structured", 192, 4810)
    dead = push.null_columns
    columns = torch.cat([dead, torch.tensor([1, 4200, 4809])])
    block = torch.zeros(4810, len(columns))
    block[columns, torch.arange(len(columns))] = 1
    for pushed in both(Network(network.module, task=network.task, recipe=network.recipe.trainer), block):
        assert torch.equal(pushed[:, :192], block[:, :192])
        assert torch.equal(pushed[dead], block[dead])
        assert not torch.equal(pushed[:, 192:], block[:, 192:])


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [16, 64])
def test_float32_after_a_whole_run(hidden):  # row J2, float32
    """625 steps of the published recipe: chaotic directions amplify rounding too, hence 5e-3."""
    network = digits_mlp(hidden=hidden, num_steps=625)
    block = directions(network.layout.size, 4, dtype=torch.float32)
    view = Network(network.module, task=network.task, recipe=network.recipe.trainer)
    structured, generic = both(view, block)
    assert float((structured - generic).norm() / generic.norm()) < 5e-3


def test_what_the_structured_route_refuses():
    network = run_of(lambda: nn.Sequential(nn.Linear(6, 3)))
    recipe = network.recipe.bind(network)

    def refused(task: Task) -> str:
        view = network.with_task(task)
        return tangents(network.recipe.bind(view), view.start).flags[0]

    x, y = network.task.inputs, network.task.targets
    smooth = nn.CrossEntropyLoss(label_smoothing=0.1)
    assert "neither cross-entropy nor mean squared error" in refused(Task.of(x, y, loss=smooth))
    assert "targets are to be ignored" in refused(Task.of(x, torch.where(y == 0, -100, y)))
    assert "no class indices" in refused(Task.of(x, torch.full((13, 3), 1 / 3), loss=nn.functional.cross_entropy))
    view = network.with_task(Task.of(x, y, loss=smooth))
    with pytest.raises(BadInput, match=r"structured, but the loss is neither .* Use route='auto'"):
        tangents(network.recipe.bind(view), view.start, route="structured")
    assert tangents(recipe, network.start).flags == ()


def test_too_many_coefficients_go_by_the_generic_route(monkeypatch):
    network = stack_run("GELU")
    recipe = network.recipe.bind(network)
    stack = recognise_stack(network, network.task.train_batch())
    needed = StructuredTangents.coefficient_bytes(recipe, stack)
    assert 1e4 < needed < 1e6
    monkeypatch.setattr("tremorscope.instruments.tangents.routes.COEFFICIENT_LIMIT", needed - 1)
    push = tangents(recipe, network.start)
    assert push.route == "generic"
    assert "coefficients would take" in push.flags[0]

"""A functional view: right values, every transform, and a user's module that nobody touched."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import grad, jvp, vmap

from tests.laws.operator_cases import NETWORKS, filled, stream
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.edit import Add
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import sgd
from tremorscope.instruments.recipe import PureRecipe
from tremorscope.instruments.task import Batch, Task
from tremorscope.instruments.trainer import Trainer

F64 = torch.float64


def snapshot(module: nn.Module):
    """Everything a user could find changed."""
    return {
        "state": {name: (value.data_ptr(), value.clone()) for name, value in module.state_dict(keep_vars=True).items()},
        "gradients": {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()},
        "flags": [(part.training, sorted(vars(part))) for part in module.modules()],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()],
        "requires": [p.requires_grad for p in module.parameters()],
        "random": torch.random.get_rng_state(),
    }


def assert_same(before, after) -> None:
    assert before["state"].keys() == after["state"].keys()
    for name, (place, value) in before["state"].items():
        assert after["state"][name][0] == place
        assert torch.equal(after["state"][name][1], value)
    for name, gradient in before["gradients"].items():
        other = after["gradients"][name]
        assert (gradient is None) == (other is None)
        assert gradient is None or torch.equal(gradient, other)
    assert torch.equal(before["random"], after["random"])
    assert all(before[part] == after[part] for part in ("flags", "hooks", "requires"))


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_the_modules_own(name):
    network = NETWORKS[name](F64)
    batch = network.task.train_batch()
    with torch.no_grad():
        wanted = copy.deepcopy(network.module).eval()(*batch.args)
    assert torch.allclose(network.apply(network.theta, batch), wanted, atol=1e-12)
    assert torch.equal(network.apply(network.params, batch), network.apply(network.theta, batch))
    assert torch.equal(network.at(network.theta * 0.5).theta, network.theta * 0.5)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [False, True])
def test_the_module_stays_bit_identical(name, training):
    network = NETWORKS[name](F64)
    network.module.train()
    next(network.module.children()).eval()
    for parameter in list(network.module.parameters())[::2]:
        parameter.grad = torch.ones_like(parameter)
    with torch.random.fork_rng(devices=[]):  # dropout may draw, from the stream of whoever calls
        before = snapshot(network.module)
        batch = network.task.train_batch()
        network.loss(network.theta, batch, training=training)
        grad(lambda theta: network.loss(theta, batch, training=training))(network.theta)
        if name == "mlp":  # vmap has no rule for recurrent layers, nor for running statistics
            several = vmap(lambda theta: network.apply(theta, batch, training=training), randomness="different")
            several(torch.stack([network.theta, network.theta]))
        after = snapshot(network.module)
        if training:
            after["random"] = before["random"]
        assert_same(before, after)


def test_flags_are_put_back_after_an_exception():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 1))
    module[1].eval()
    network = Network(module)
    with pytest.raises(RuntimeError):
        network.apply(network.theta, Batch((torch.zeros(3, 9),), {}, None))
    assert [part.training for part in module.modules()] == [True, True, False, True]


def test_every_derivative_agrees_with_differences():
    network = NETWORKS["mlp"](F64)
    batch, theta = network.task.train_batch(), network.theta
    along = torch.randn(theta.shape, generator=stream(0), dtype=F64)
    slope = jvp(lambda at: network.loss(at, batch), (theta,), (along,))[1]
    size = 1e-6
    difference = (network.loss(theta + size * along, batch) - network.loss(theta - size * along, batch)) / (2 * size)
    assert float(slope) == pytest.approx(float(difference), rel=1e-7)
    assert float(grad(lambda at: network.loss(at, batch))(theta) @ along) == pytest.approx(float(slope), rel=1e-12)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(torch.tanh(self.one(x)))


def test_tied_weights_are_one_parameter_and_move_together():
    network = Network(Tied())
    assert network.layout.names == ("one.weight", "one.bias", "two.bias")
    batch, theta = Batch((torch.randn(4, 3, generator=stream(0)),), {}, None), 2 * network.theta
    doubled = Tied()
    with torch.no_grad():
        for parameter, own in zip(doubled.parameters(), network.module.parameters(), strict=True):
            parameter.copy_(2 * own)
    assert torch.allclose(network.apply(theta, batch), doubled(batch.args[0]))


def test_a_view_may_have_its_own_precision():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    task = Task.of(torch.randn(8, 2, generator=stream(0)), torch.randint(3, (8,), generator=stream(1)))
    network = Network(module, task=task, dtype=F64, initial=torch.zeros(15))
    assert (network.dtype, network.theta.dtype, network.start.dtype, network.task.inputs.dtype) == (F64,) * 4
    assert network.buffers["1.running_mean"].dtype == F64
    assert network.buffers["1.num_batches_tracked"].dtype == torch.int64
    assert next(module.parameters()).dtype == torch.float32
    assert network.loss(network.theta, network.task.train_batch()).dtype == F64


def test_start_is_the_initial_point_or_the_weights_themselves():
    module = nn.Linear(2, 1)
    assert torch.equal(Network(module).start, Network(module).theta)
    network = Network(module, initial=torch.tensor([1.0, 2.0, 3.0]))
    network.start.zero_()  # a copy
    assert torch.equal(network.start, torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(network.at(torch.ones(3)).start, network.start)


class Answering(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x, *, scale=1.0):
        return SimpleNamespace(logits=scale * self.inner(x))


def test_logits_and_keywords():
    network = Network(Answering())
    x = torch.ones(1, 2)
    with torch.no_grad():
        wanted = 3 * network.module.inner(x)
    assert torch.equal(network.apply(network.theta, Batch((x,), {"scale": 3.0}, None)), wanted)


def test_new_data_take_the_trainer_along_and_leave_pure_functions_behind():
    module, trainer = nn.Linear(2, 1), Trainer(optimiser=sgd(0.1), num_steps=1)
    old, new = (Task.of(torch.full((3, 2), value), torch.zeros(3, 1)) for value in (1.0, 2.0))
    network = Network(module, task=old, recipe=trainer)
    assert network.with_task(new).recipe is trainer
    bound = Network(module, task=old, recipe=trainer.bind(network)).with_task(new)
    assert torch.equal(bound.recipe.task.inputs, new.inputs)
    pure = PureRecipe(start=lambda theta: theta, advance=lambda state, t: state, num_steps=1)
    assert Network(module, task=old, recipe=pure).with_task(new).recipe is None
    assert torch.equal(network.task.inputs, old.inputs)


def test_addresses():
    assert Network(nn.Linear(1, 1)).sites() == ["weights:weight", "weights:bias", "weights:*", "input", "train.init"]
    assert Network(nn.Sequential(nn.Linear(1, 1))).sites()[-2:] == ["train.init", "acts:0"]
    assert "3 parameters" in repr(Network(nn.Linear(2, 1)))
    assert Network(nn.Linear(2, 1), name="own").at(torch.zeros(3), name="other").name == "other"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network(nn.ReLU()), "network 'ReLU': got no parameters"),
        (
            lambda: Network(nn.Linear(2, 1), initial=torch.zeros(4)),
            r"initial weights: got \(4,\); wanted a vector of 3",
        ),
        (lambda: Network(nn.Linear(2, 1)).required_task(), "data of 'Linear': got none"),
        (
            lambda: Network(nn.Linear(2, 1)).loss(torch.zeros(3), Batch((torch.zeros(1, 2),), {}, torch.zeros(1, 1))),
            "loss of 'Linear': got no task",
        ),
        (
            lambda: Network(nn.GRU(2, 1)).apply(Network(nn.GRU(2, 1)).theta, Batch((torch.zeros(1, 1, 2),), {}, None)),
            "output of 'GRU': got tuple; wanted a tensor",
        ),
        (lambda: Network(nn.Linear(2, 1)).at(torch.zeros(2)), "flat vector: got 2 entries; wanted 3 entries"),
    ],
)
def test_what_is_no_network(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_views_of_an_edited_view_keep_its_edits():
    task = Task.of(torch.randn(3, 2, generator=stream(0)), torch.zeros(3, 2))
    network = Network(filled(nn.Sequential(nn.Linear(2, 2)), torch.float32), task=task)
    batch = task.train_batch()
    edited = network.with_edits(Add(torch.tensor([1.0, 2.0])).at("acts:0"))
    assert repr(edited).endswith("torch.float32, 1 edits of activations)".removeprefix("torch."))
    shift = torch.tensor([1.0, 2.0])
    for view in (edited, edited.at(edited.theta), edited.with_task(task)):
        torch.testing.assert_close(view.apply(view.params, batch), network.apply(network.params, batch) + shift)
    other = edited.at(2 * edited.theta)
    torch.testing.assert_close(other.apply(other.params, batch), network.apply(2 * network.theta, batch) + shift)
    assert float(edited.loss(edited.theta, batch)) != float(network.loss(network.theta, batch))
    assert network.edits == ()
    assert list(edited.record_all(["acts:0:in.0", "acts:0@all"], batch)) == ["acts:0:in.0", "acts:0@all"]


def test_a_loss_that_is_no_number():
    task = Task.of(torch.zeros(3, 2), torch.zeros(3, 1), loss=lambda output, target: (output - target) ** 2)
    network = Network(filled(nn.Linear(2, 1), torch.float32), task=task)
    with pytest.raises(BadInput, match=r"value of the loss: got shape \(3, 1\); wanted a scalar"):
        network.loss(network.theta, network.task.train_batch())

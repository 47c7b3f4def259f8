"""Which networks are chains, and the reason that every other one is told."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from tests.instruments.tangents.training_runs import CLASSES, STACKS, WIDE, run_of, stack_run
from tests.instruments.test_network import assert_same, snapshot
from tremorscope.instruments.tangents import LinearStack, recognise_stack, tangents
from tremorscope.instruments.tangents.stack import _MODULES, two_derivatives
from tremorscope.instruments.task import Batch


def found(network, **options):
    return recognise_stack(network, network.task.train_batch(), **options)


@pytest.mark.parametrize("name", STACKS)
def test_chains_are_recognised_and_compute_the_same(name):
    network = stack_run(name)
    stack = found(network)
    assert isinstance(stack, LinearStack)
    batch = network.task.train_batch()
    theta = 1.5 * network.theta
    gap = stack.forward(network.layout.unflatten(theta), batch.args[0]) - network.apply(theta, batch)
    assert float(gap.abs().max()) < 1e-13
    assert all(layer.shape == network.params[layer.weight].shape for layer in stack.layers)


def test_layers_are_in_the_order_of_use():
    stack = found(stack_run("functional"))
    assert [layer.weight for layer in stack.layers] == ["first.weight", "body.0.weight", "last.weight"]
    assert [layer.shape for layer in stack.layers] == [(5, WIDE), (4, 5), (CLASSES, 4)]
    assert stack.layers[-1].phi is None
    assert [layer.bias for layer in found(stack_run("no bias")).layers] == [None, None]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(WIDE, WIDE), nn.Linear(WIDE, CLASSES)

    def forward(self, x):
        return self.two(x + torch.tanh(self.one(x)))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(WIDE, WIDE), nn.Linear(WIDE, CLASSES)

    def forward(self, x):
        return self.two(torch.tanh(self.one(torch.tanh(self.one(x)))))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.last = nn.Linear(WIDE, WIDE), nn.Linear(WIDE, WIDE), nn.Linear(WIDE, CLASSES)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.last(torch.tanh(self.two(torch.tanh(self.one(x)))))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(WIDE, CLASSES)

    def forward(self, x):
        return self.one(x) if float(x.sum()) > 0 else self.one(-x)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.spare = nn.Linear(WIDE, CLASSES), nn.Linear(2, 2)

    def forward(self, x):
        return self.one(x)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(WIDE, CLASSES)

    def forward(self, x):
        return self.one(x) * torch.tensor(2.0, dtype=x.dtype)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(WIDE, 4), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.two(nn.functional.relu(self.one(x), inplace=True))


class SideBranch(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(WIDE, 4), nn.Linear(WIDE, 4), nn.Linear(4, CLASSES)

    def forward(self, x):
        self.seen = self.two(x)
        return self.three(torch.tanh(self.one(x)))


def two_layers(middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDE, 4), middle, nn.Linear(4, CLASSES))


def hooked(hook) -> nn.Module:
    module = two_layers(nn.Tanh())
    hook(module)
    return module


REFUSED = {
    "residual": (Residual, "does not follow|is neither linear nor"),
    "one layer twice": (Twice, "uses one twice"),
    "tied weights": (Tied, "layer 'two' is parametrised or shares its weights"),
    "branch on data": (Branching, "cannot be traced"),
    "unused weights": (Unused, "parameters outside the chain"),
    "constant": (Scaled, "does not follow"),
    "side branch": (SideBranch, "does not follow"),
    "parametrised": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(WIDE, CLASSES))),
        "layer '0' is a ParametrizedLinear",
    ),
    "dropout": (lambda: two_layers(nn.Dropout(0.5)), "layer '1' is a Dropout"),
    "softmax": (lambda: two_layers(nn.Softmax(1)), "layer '1' is a Softmax"),
    "norm": (lambda: two_layers(nn.LayerNorm(4)), "layer '1' is a LayerNorm"),
    "own weights in the activation": (lambda: two_layers(nn.PReLU()), "layer '1' is a PReLU"),
    "in place": (lambda: two_layers(nn.ReLU(inplace=True)), "layer '1' works in place"),
    "in place, functional": (InPlace, "works in place"),
    "convolution": (
        lambda: nn.Sequential(nn.Unflatten(1, (1, WIDE)), nn.Conv1d(1, 1, 4), nn.Flatten()),
        "layer '0' is a Unflatten",
    ),
    "flatten in the middle": (lambda: two_layers(nn.Flatten()), "layer '1' flattens in mid-chain"),
    "activation first": (lambda: nn.Sequential(nn.Tanh(), nn.Linear(WIDE, CLASSES)), "before the first linear layer"),
    "a hook that changes the output": (
        lambda: hooked(lambda m: m[1].register_forward_hook(lambda _m, _i, out: 2 * out)),
        "layer '1' has a hook",
    ),
    "a hook that sleeps on these data": (
        lambda: hooked(lambda m: m[0].register_forward_hook(lambda _m, _i, out: out.clamp(max=1e6))),
        "layer '0' has a hook",
    ),
    "a hook before": (
        lambda: hooked(lambda m: m.register_forward_pre_hook(lambda _m, args: (2 * args[0],))),
        "layer '' has a hook",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_told_why_and_goes_by_the_generic_route(name):
    build, reason = REFUSED[name]
    network = run_of(build, num_steps=2)
    why = found(network, training=True)
    assert isinstance(why, str)
    assert re.search(reason, why), why
    push = tangents(network.recipe.bind(network), network.start)
    assert push.route == "generic"
    assert push.flags == (f"generic route: {why}",)


def test_weight_norm_of_the_old_kind():
    with pytest.warns(FutureWarning):
        module = nn.Sequential(nn.utils.weight_norm(nn.Linear(WIDE, CLASSES)))
    assert "has a hook" in found(run_of(module.double()))


class Moody(nn.Module):
    """Another function in training than in evaluation."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(WIDE, 4), nn.Linear(4, CLASSES)

    def forward(self, x):
        hidden = torch.tanh(self.one(x))
        return self.two(torch.tanh(hidden) if self.training else hidden)


@pytest.mark.parametrize("mode", ["train", "evaluate"])
@pytest.mark.parametrize("flag", [True, False])
def test_the_chain_is_that_of_the_mode_of_training(mode, flag):
    network = run_of(Moody, mode=mode)
    network.module.train(flag)
    recipe, block = network.recipe.bind(network), torch.eye(network.layout.size, dtype=torch.float64)
    structured = tangents(recipe, network.start, route="structured")
    assert float((structured(block) - tangents(recipe, network.start, route="generic")(block)).abs().max()) < 1e-12
    batch = network.task.train_batch()
    training, evaluating = found(network, training=True), found(network)
    assert (
        float(
            (training.forward(network.params, batch.args[0]) - evaluating.forward(network.params, batch.args[0]))
            .abs()
            .max()
        )
        > 1e-3
    )
    assert network.module.training is flag


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(WIDE, CLASSES)

    def forward(self, x):
        return self.one(x) + torch.randn(CLASSES, dtype=x.dtype)


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(Scaled())

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize("build", [Noisy, Remembering, Scaled, Residual, *STACKS.values()])
def test_looking_changes_neither_the_module_nor_the_random_state(build):
    network = run_of(build, shape=(2, 3) if build in (STACKS["flatten first"], STACKS["functional"]) else (WIDE,))
    before = snapshot(network.module)
    found(network, training=True)
    found(network)
    assert_same(before, snapshot(network.module))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((2, WIDE), "not one vector per example"), ((1, WIDE), "does not reproduce"), ((2, 2, WIDE), "not one vector")],
)
def test_sequences_without_a_flatten_are_no_chain(shape, reason):
    network = run_of(lambda: nn.Sequential(nn.Linear(WIDE, CLASSES)), shape=shape, loss="squared_error")
    assert reason in found(network)


def test_a_single_input_vector_is_no_batch():
    network = run_of(lambda: nn.Sequential(nn.Linear(WIDE, CLASSES)))
    assert "not one vector per example" in recognise_stack(network, Batch((torch.zeros(WIDE).double(),), {}, None))


def test_only_one_tensor_goes_in():
    network = run_of(lambda: nn.Sequential(nn.Linear(WIDE, CLASSES)))
    x = network.task.inputs
    for batch in (Batch((x, x), {}, None), Batch((x,), {"scale": 2.0}, None), Batch(([x],), {}, None)):
        assert recognise_stack(network, batch) == "its forward takes more than one tensor"


@pytest.mark.parametrize("kind", _MODULES)
def test_derivatives_of_every_activation(kind):
    phi, at = kind(), torch.linspace(-7.03, 7.01, 57, dtype=torch.float64)
    slope, bend = two_derivatives(phi, at)
    size = 1e-5
    assert float((slope - (phi(at + size) - phi(at - size)) / (2 * size)).abs().max()) < 1e-8
    differences = (two_derivatives(phi, at + size)[0] - two_derivatives(phi, at - size)[0]) / (2 * size)
    assert float((bend - differences).abs().max()) < 1e-7

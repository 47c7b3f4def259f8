from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.instruments.test_network import assert_same, snapshot
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.losses import squared_error
from tremorscope.instruments.modular_addition import modular_addition, modular_addition_mlp
from tremorscope.instruments.operators import Hessian
from tremorscope.instruments.optimisers import adam
from tremorscope.instruments.scores import scores
from tremorscope.instruments.trainer import Trainer


def test_every_pair_occurs_once_with_its_sum():
    task = modular_addition(7, train_share=0.4, seed=3)
    assert (task.size, task.num_classes) == (19, 7)
    pairs = torch.cat([task.inputs, task.test_inputs])
    assert {tuple(pair) for pair in pairs.tolist()} == {(a, b) for a in range(7) for b in range(7)}
    for inputs, targets in ((task.inputs, task.targets), (task.test_inputs, task.test_targets)):
        assert torch.equal((inputs[:, 0] + inputs[:, 1]) % 7, targets)


def test_unordered_pairs_occur_in_one_order():
    task = modular_addition(6, train_share=0.5, pairs="unordered")
    pairs = torch.cat([task.inputs, task.test_inputs])
    assert len(pairs) == 21
    assert bool((pairs[:, 0] <= pairs[:, 1]).all())


def test_the_split_follows_the_seed():
    assert torch.equal(modular_addition(11, seed=1).inputs, modular_addition(11, seed=1).inputs)
    assert not torch.equal(modular_addition(11, seed=1).inputs, modular_addition(11, seed=2).inputs)
    everything = modular_addition(5, train_share=1.0)
    assert (everything.size, everything.test_inputs) == (25, None)
    assert modular_addition(5, loss=squared_error).loss is squared_error


def test_nonsense_is_named():
    with pytest.raises(BadInput, match="modulus: got 1; wanted at least 2"):
        modular_addition(1)
    for share in (0.0, 1.2):
        with pytest.raises(BadInput, match=f"share of training pairs: got {share}; wanted 1/25 to 1"):
            modular_addition(5, train_share=share)
    with pytest.raises(BadInput, match="hidden of the network: got 0; wanted at least 1"):
        modular_addition_mlp(5, hidden=0)
    with pytest.raises(BadInput, match="combine: got product; wanted sum or concat"):
        modular_addition_mlp.__wrapped__(5, combine="product")


@pytest.mark.parametrize("combine", ["sum", "concat"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_network_is_its_formula(combine, bias):
    network = modular_addition_mlp(5, width=3, hidden=4, combine=combine, bias=bias, dtype=torch.float64)
    batch, own = network.task.train_batch(), network.params
    first, second = own["embedding"][batch.args[0]].unbind(1)
    joined = first + second if combine == "sum" else torch.cat([first, second], dim=1)
    hidden = nn.functional.silu(nn.functional.linear(joined, own["first.weight"], own.get("first.bias")))
    wanted = nn.functional.linear(hidden, own["last.weight"], own.get("last.bias"))
    torch.testing.assert_close(network.apply(own, batch), wanted)


def test_the_draw_depends_on_the_seed_and_touches_no_random_state():
    state = torch.random.get_rng_state()
    network = modular_addition_mlp(5, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(network.theta, modular_addition_mlp(5, seed=1).theta)
    assert not torch.equal(network.theta, modular_addition_mlp(5, seed=2).theta)
    double = modular_addition_mlp(5, seed=1, dtype=torch.float64)
    assert torch.equal(network.theta, double.theta.float())
    assert float(double.params["last.weight"].abs().max()) <= 32**-0.5


def test_it_can_be_trained_and_differentiated_twice():
    network = modular_addition_mlp(5, width=4, hidden=12, task=modular_addition(5, train_share=0.8))
    before = snapshot(network.module)
    trained = network.at(Trainer(optimiser=adam(0.03), num_steps=150).fit(network).last)
    assert scores(trained)["training accuracy"] == 1.0
    hessian = Hessian(trained, trained.task.train_batch())
    assert (hessian.route, hessian.flags) == ("double_backward", ())
    assert_same(before, snapshot(network.module))

"""The recurrent language model against PyTorch's own layers, and under functional calls."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import untrained
from tremorscope.instruments.recurrent import GatedLayer, RecurrentConfig, RecurrentLanguageModel
from tremorscope.instruments.task import Batch

SIZES = RecurrentConfig(vocab_size=13, width=6, hidden_size=8, num_layers=3)
TOKENS = torch.tensor([[1, 4, 2, 12, 3], [5, 5, 0, 7, 9]])


def model(seed: int = 0) -> RecurrentLanguageModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RecurrentLanguageModel(SIZES).eval()


def test_a_layer_is_the_one_of_pytorch():
    layer, twin = GatedLayer(4, 7), nn.GRU(4, 7, batch_first=True)
    for mine, theirs in (
        ("input_weight", "weight_ih_l0"), ("hidden_weight", "weight_hh_l0"),
        ("input_bias", "bias_ih_l0"), ("hidden_bias", "bias_hh_l0"),
    ):  # fmt: skip
        getattr(layer, mine).data.copy_(getattr(twin, theirs).data)
    inputs = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(inputs), twin(inputs)[0])


def test_it_has_an_untrained_twin():
    network = Network(model(seed=5), name="gru")
    network.module.layers[1].input_bias.data.fill_(0.5)  # as training would leave it
    twins = [untrained(network, seed=seed).module for seed in (0, 0, 1)]
    first, again, other = (dict(twin.named_parameters()) for twin in twins)
    for name, trained in network.module.named_parameters():
        assert torch.equal(first[name], again[name])
        if name.startswith("layers") and name.endswith("weight"):
            assert not torch.equal(first[name], trained)
            assert not torch.equal(first[name], other[name])
            assert float(first[name].detach().abs().max()) <= SIZES.hidden_size**-0.5
    assert not first["layers.1.input_bias"].any()
    assert float(network.module.layers[1].input_bias.detach().max()) == 0.5


def test_the_future_changes_nothing_before_it():
    network = model()
    changed = TOKENS.clone()
    changed[:, 3] = 0
    one, other = network(TOKENS), network(changed)
    assert torch.equal(one.logits[:, :3], other.logits[:, :3])
    assert not torch.equal(one.logits[:, 3:], other.logits[:, 3:])
    assert [tuple(states.shape) for states in one.hidden_states] == [(2, 5, 6), *[(2, 5, 8)] * 3]


@pytest.mark.parametrize("cut", [1, 4])
def test_what_is_remembered_of_a_text_stands_for_it(cut):
    network = model()
    whole, first = network(TOKENS), network(TOKENS[:, :cut])
    rest = network(TOKENS[:, cut:], cache_params=first.cache_params)
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], 1), whole.logits, rtol=1e-5, atol=1e-6)
    for mine, all_at_once in zip(rest.cache_params, whole.cache_params, strict=True):
        torch.testing.assert_close(mine, all_at_once, rtol=1e-5, atol=1e-6)
        assert mine.shape == (2, SIZES.hidden_size)


def test_weights_that_are_passed_in_are_used():
    network, other = model(0), model(1)
    output = functional_call(network, dict(other.named_parameters()), (TOKENS,))
    assert torch.equal(output.logits, other(TOKENS).logits)
    assert Network(network).layout.size == sum(value.numel() for value in network.parameters())


def test_forward_derivatives_go_through():
    network = Network(model().double())
    direction = torch.randn(network.layout.size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    batch = Batch((TOKENS,), {}, None)

    def logits(theta: torch.Tensor) -> torch.Tensor:
        return network.apply(theta, batch)

    _, tangent = jvp(logits, (network.theta,), (direction,))
    step = 1e-6
    difference = (logits(network.theta + step * direction) - logits(network.theta - step * direction)) / (2 * step)
    assert torch.allclose(tangent, difference, atol=1e-6)


def test_a_size_of_nothing_is_refused():
    with pytest.raises(BadInput, match="hidden_size of a recurrent model: got 0; wanted at least 1"):
        RecurrentLanguageModel(RecurrentConfig(vocab_size=3, width=2, hidden_size=0, num_layers=1))

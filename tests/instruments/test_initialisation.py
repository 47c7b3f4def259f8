from __future__ import annotations

import pytest
import torch
from torch import nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.initialisation import draw_weights, expected_norm
from tremorscope.instruments.network import Network


@pytest.fixture
def network() -> Network:
    module = nn.Sequential(nn.Conv2d(2, 30, 3), nn.ReLU(), nn.Flatten(), nn.Linear(120, 40), nn.LayerNorm(40))
    return Network(module)


@pytest.mark.parametrize("scheme", ["xavier", "he"])
def test_variances_and_norm_are_those_of_torch(network, scheme):
    theta = draw_weights(network, scheme, seed=3)
    named = network.layout.unflatten(theta)
    twin = torch.empty(30, 2, 3, 3)
    (nn.init.xavier_normal_ if scheme == "xavier" else nn.init.kaiming_normal_)(
        twin, generator=torch.Generator().manual_seed(0)
    )
    assert float(named["0.weight"].std()) == pytest.approx(float(twin.std()), rel=0.15)
    fan = {"xavier": 160, "he": 120}[scheme]
    assert float(named["3.weight"].std()) == pytest.approx((2 / fan) ** 0.5, rel=0.05)
    assert not named["0.bias"].any()
    assert not named["4.bias"].any()
    assert torch.equal(named["4.weight"], torch.ones(40)), "gains keep their value"
    norms = torch.stack([draw_weights(network, scheme, seed=i).norm() ** 2 for i in range(20)])
    assert expected_norm(network, scheme) == pytest.approx(float(norms.mean()) ** 0.5, rel=0.02)


def test_draws_depend_on_the_seed_alone_and_not_on_precision(network):
    first, again, other = (draw_weights(network, "he", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    double = Network(network.module, dtype=torch.float64)
    torch.testing.assert_close(draw_weights(double, "he", seed=1).float(), first, rtol=0, atol=0)


def test_layers_may_reset_themselves_and_nothing_moves(network):
    before, state = network.theta, torch.random.get_rng_state()
    reset = draw_weights(network, "reset", seed=0)
    assert torch.equal(network.theta, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(reset, before)
    assert torch.equal(reset, draw_weights(network, "reset", seed=0))


def test_an_own_function_and_what_it_may_not_give(network):
    own = draw_weights(network, lambda net, seed: torch.full((net.layout.size,), float(seed)), seed=7)
    assert float(own[0]) == 7
    with pytest.raises(BadInput, match=rf"got shape \(3,\), finite; wanted a finite vector of {network.layout.size}"):
        draw_weights(network, lambda net, seed: torch.zeros(3), seed=0)
    with pytest.raises(BadInput, match="not all finite"):
        draw_weights(network, lambda net, seed: torch.full((net.layout.size,), torch.nan), seed=0)
    with pytest.raises(BadInput, match="scheme with a known norm: got reset"):
        expected_norm(network, "reset")

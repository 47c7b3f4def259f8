from __future__ import annotations

import math

import pytest
import torch

from tremorscope.foundations.cache import Cache
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments import builtin
from tremorscope.instruments.builtin import builtin_models, digits_mlp, load_builtin
from tremorscope.instruments.digit_networks import digits_cnn, digits_transformer
from tremorscope.instruments.null import white_noise
from tremorscope.instruments.recipe import run_recipe
from tremorscope.instruments.task import digits


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TREMORSCOPE_CACHE", str(tmp_path))
    return Cache()


def test_the_start_has_the_published_distribution():
    network = digits_mlp(hidden=4000, dtype=torch.float64)
    first, second = network.params["0.weight"], network.params["2.weight"]
    for kernel, fan_in in ((first, 64), (second, 4000)):
        # Variance 1 / fan_in although the normal is cut at two of its standard deviations.
        assert float(kernel.std()) == pytest.approx(fan_in**-0.5, rel=0.01)
        assert float(kernel.abs().max()) <= 2 * fan_in**-0.5 / 0.87962566
        assert float(kernel.abs().max()) > 1.99 * fan_in**-0.5 / 0.87962566
        assert abs(float(kernel.mean())) < 4 * fan_in**-0.5 / math.sqrt(kernel.numel())
    assert float(network.params["0.bias"].std()) == pytest.approx(0.125, rel=0.05)
    last_biases = torch.cat([digits_mlp(hidden=1, seed=seed).params["2.bias"] for seed in range(40)])
    assert float(last_biases.std()) == pytest.approx(0.125, rel=0.15)


def test_the_start_depends_on_the_seed_only():
    state = torch.random.get_rng_state()
    network = digits_mlp()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(network.theta, digits_mlp().theta)
    assert torch.equal(network.theta, digits_mlp(dtype=torch.float64).theta.float())
    assert not torch.equal(network.theta, digits_mlp(seed=1).theta)
    assert torch.equal(network.start, network.theta)
    assert network.layout.size == 1210
    assert digits_mlp(hidden=64).layout.size == 4810


def test_the_recipe_is_the_published_one():
    network = digits_mlp()
    assert [network.recipe.num_steps, digits_mlp(num_steps=625).recipe.num_steps] == [300, 625]
    assert torch.equal(network.recipe.indices(25), torch.arange(64))
    assert torch.equal(network.recipe.indices(26), torch.arange(64, 128))
    assert network.recipe.factor(0) == 1
    assert network.recipe.factor(299) < 1e-4
    noise = white_noise(digits(), 0)
    assert torch.equal(digits_mlp(task=noise).recipe.task.inputs, noise.inputs)


def test_loading_trains_once_and_then_reads(cache, monkeypatch):
    runs = []
    monkeypatch.setattr(builtin, "run_recipe", lambda *a: runs.append(a) or run_recipe(*a))
    assert not any(model.is_trained for model in builtin_models() if "digits" in model.name)
    network = load_builtin("builtin:digits-mlp")
    again = load_builtin("builtin:digits-mlp")
    assert len(runs) == 1
    assert torch.equal(network.theta, again.theta)
    assert torch.equal(network.theta, run_recipe(network.recipe, network.start))
    assert torch.equal(network.start, digits_mlp().theta)
    assert [model.name for model in builtin_models() if model.is_trained and "digits" in model.name] == [
        "builtin:digits-mlp"
    ]
    double = load_builtin("builtin:digits-mlp", dtype=torch.float64)
    assert len(runs) == 2
    assert double.dtype == torch.float64
    # A short run on easy data: rounding has not grown to where the networks differ in what they do.
    assert float((double.theta - network.theta).norm()) < 1e-2 * float((double.theta - double.start).norm())


def test_the_published_network_learns_what_it_should():
    network = load_builtin("builtin:digits-mlp-64")
    batch = network.task.test_batch()
    # Measured for the published notebook's recipe in PyTorch: loss 0.1624, accuracy 0.954, drift 12.56.
    assert float(network.loss(network.theta, batch)) == pytest.approx(0.162, abs=0.02)
    accuracy = (network.apply(network.theta, batch).argmax(dim=1) == batch.target).double().mean()
    assert float(accuracy) == pytest.approx(0.954, abs=0.02)
    assert float((network.theta - network.start).norm()) == pytest.approx(12.56, abs=1)


def test_the_list_of_models():
    rows = {model.name: model for model in builtin_models()}
    assert rows["builtin:digits-mlp"].parameters == 1210
    assert rows["builtin:digits-mlp-64"].parameters == 4810
    assert all(model.description for model in rows.values())


def test_what_is_refused():
    with pytest.raises(
        BadInput, match=r"no such built-in; wanted builtin:digits-mlp.*Did you mean 'builtin:digits-mlp'"
    ):
        load_builtin("builtin:digit-mlp")
    with pytest.raises(BadInput, match="hidden: got 0"):
        digits_mlp(hidden=0)


@pytest.mark.parametrize(("name", "size"), [("builtin:digits-cnn", 62_340), ("builtin:digits-transformer", 67_662)])
def test_the_large_networks_learn_and_depend_on_the_seed_only(name, size):
    network = load_builtin(name)
    batch = network.task.test_batch()
    accuracy = (network.apply(network.theta, batch).argmax(dim=1) == batch.target).double().mean()
    assert network.layout.size == size
    assert float(accuracy) > 0.85  # one unrecorded run: .949 and .919
    build = digits_cnn if "cnn" in name else digits_transformer
    assert torch.equal(network.start, build(name="other").theta)
    assert not torch.equal(network.start, build(seed=1).theta)

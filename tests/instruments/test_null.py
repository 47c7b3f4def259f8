from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.instruments.language.tiny_models import gpt2, llama, mamba
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import (
    equal_curvature,
    equal_norm,
    matched_covariance,
    permuted_targets,
    untrained,
    white_noise,
)
from tremorscope.instruments.operators import Dense
from tremorscope.instruments.optimisers import sgd
from tremorscope.instruments.task import Batch, Task, digits
from tremorscope.instruments.trainer import Trainer


def correlated(num: int = 4000, *, real_targets: bool = False) -> Task:
    stream = torch.Generator().manual_seed(0)
    mix = torch.tensor([[1.0, 0.9, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    inputs = torch.rand(num, 3, generator=stream, dtype=torch.float64) @ mix
    inputs = torch.cat([inputs, torch.full((num, 1), 0.3, dtype=torch.float64)], dim=1).reshape(num, 2, 2)
    targets = inputs[:, 0, 0] * 2 if real_targets else (inputs[:, 0, 0] > 0.7).long() + 2
    return Task.of(inputs, targets, num_test=1000, name="correlated")


TASK_NULLS = [permuted_targets, matched_covariance, white_noise]


@pytest.mark.parametrize("null", TASK_NULLS)
def test_a_null_is_a_task_of_the_same_kind(null):
    task = digits(dtype=torch.float32)
    other = null(task, 3)
    for name in ("inputs", "targets", "test_inputs", "test_targets"):
        before, after = getattr(task, name), getattr(other, name)
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
    assert other.loss is task.loss
    assert other.num_classes == 10
    assert other.name.startswith("digits (")
    assert "null: " in other.description


@pytest.mark.parametrize("null", TASK_NULLS)
def test_a_null_depends_on_its_seed_only(null):
    task, state = correlated(50 + 1000), torch.random.get_rng_state()

    def bits(seed: int) -> list[Tensor]:
        other = null(task, seed)
        return [other.inputs, other.targets, other.test_inputs, other.test_targets]

    assert all(torch.equal(one, two) for one, two in zip(bits(1), bits(1), strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(bits(1), bits(2), strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)
    # Precision does not enter the draw.
    rounded = null(task.to(dtype=torch.float32), 1)
    torch.testing.assert_close(rounded.inputs.double(), bits(1)[0], rtol=0, atol=1e-5)
    assert torch.equal(rounded.targets, bits(1)[1])


def test_permuted_targets_keep_inputs_and_the_count_of_each_class():
    task = correlated()
    null = permuted_targets(task, 0)
    assert torch.equal(null.inputs, task.inputs)
    assert torch.equal(null.targets.bincount(), task.targets.bincount())
    assert torch.equal(null.test_targets.bincount(), task.test_targets.bincount())
    agreement = float((null.targets == task.targets).double().mean())
    by_chance = float(task.targets.bincount().double().div(len(task.targets)).square().sum())
    assert agreement == pytest.approx(by_chance, abs=0.05)


def test_matched_covariance_matches_two_moments_and_nothing_else():
    task = correlated()
    null = matched_covariance(task, 0)
    before, after = task.inputs.flatten(1), null.inputs.flatten(1)
    # 3,000 draws: moments to about 1 / sqrt(3000), scaled by entries of size 0.75.
    torch.testing.assert_close(after.mean(0), before.mean(0), rtol=0, atol=0.06)
    torch.testing.assert_close(after.T.cov(), before.T.cov(), rtol=0, atol=0.06)
    torch.testing.assert_close(null.test_inputs.flatten(1).T.cov(), before.T.cov(), rtol=0, atol=0.1)
    kurtosis = ((after - after.mean(0)) / after.std(0))[:, 0].pow(4).mean()
    assert float(kurtosis) == pytest.approx(3.0, abs=0.4)  # a uniform feature has 1.8
    assert torch.equal(after[:, 3], before[:, 3])
    # The factor itself, exactly: a planted bug of 1 part in n would pass the tests above.
    centred = before - before.mean(0)
    factor = torch.linalg.qr(centred, mode="r").R / math.sqrt(len(before) - 1)
    torch.testing.assert_close(factor.T @ factor, before.T.cov(), rtol=0, atol=1e-12)


def test_constant_features_stay_exactly_constant():
    task = digits()
    dead = (task.inputs == task.inputs[0]).all(dim=0)
    null = matched_covariance(task, 0)
    assert int(dead.sum()) == 3
    assert torch.equal(null.inputs[:, dead], task.inputs[:, dead])
    assert float(null.inputs[:, ~dead].std(dim=0).min()) > 0


def test_fewer_examples_than_features():
    task = Task.of(torch.randn(5, 40, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 2)
    drawn = matched_covariance(task, 0).inputs.double()
    centred = (task.inputs - task.inputs.mean(0)).double()
    inside = torch.linalg.lstsq(centred.T, (drawn - task.inputs.mean(0)).T).solution
    torch.testing.assert_close(centred.T @ inside, (drawn - task.inputs.mean(0)).T, rtol=0, atol=1e-5)


def test_random_labels_are_uniform_over_the_classes():
    null = matched_covariance(correlated(), 0)
    shares = null.targets.bincount(minlength=4).double() / len(null.targets)
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.05)
    task = correlated()
    assert torch.equal(matched_covariance(task, 0, random_targets=False).targets, task.targets)


def test_real_targets_are_permuted():
    task = correlated(1200, real_targets=True)
    null = matched_covariance(task, 0)
    assert torch.equal(null.targets.sort().values, task.targets.sort().values)
    assert not torch.equal(null.targets, task.targets)


def test_white_noise_is_uniform_in_the_range_of_the_data():
    null = white_noise(digits(), 0)
    assert 0 <= float(null.inputs.min()) < 1e-3
    assert 1 - 1e-3 < float(null.inputs.max()) <= 1
    assert float(null.inputs.var()) == pytest.approx(1 / 12, rel=0.02)
    assert torch.equal(null.targets, digits().targets)
    wide = white_noise(Task.of(torch.tensor([[-3.0], [5.0]]).repeat(500, 1), torch.zeros(1000, 1)), 0)
    assert float(wide.inputs.min()) == pytest.approx(-3, abs=0.1)
    assert float(wide.inputs.max()) == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("null", [matched_covariance, white_noise])
def test_token_ids_have_no_gaussian_twin(null):
    task = Task.of(torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(BadInput, match=r"inputs of type torch\.int64; wanted real-valued inputs\. .*permuted_targets"):
        null(task, 0)


def test_equal_norm_is_a_random_direction_of_that_norm(generator):
    direction = 5 * torch.eye(300)[0]
    draws = torch.stack([equal_norm(direction, generator) for _ in range(50)])
    torch.testing.assert_close(draws.norm(dim=1), torch.full((50,), 5.0))
    assert abs(float((draws / 5 @ direction / 5).mean())) < 0.05
    assert draws.dtype == torch.float32


def test_equal_curvature_has_that_curvature(generator):
    root = torch.randn(30, 30, generator=generator, dtype=torch.float64)
    matrix = root @ root.T - 20 * torch.eye(30, dtype=torch.float64)
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    assert float(eigenvalues[0]) < 0
    for direction in (vectors[:, -1], 0.1 * vectors[:, 0], vectors[:, 3].float()):
        null = equal_curvature(direction, Dense(matrix), generator, num_draws=10_000)
        assert null.dtype == direction.dtype
        there, here = null.double(), direction.double()
        assert float(there @ matrix @ there) == pytest.approx(float(here @ matrix @ here), rel=1e-5)
        assert abs(float(there @ here) / float(there.norm() * here.norm())) < 0.9


@pytest.mark.parametrize(
    ("direction", "diagonal", "sentence"),
    [
        ([1.0, 0.0], [0.0, 1.0], "curvature along the direction: got 0.0.*use equal_norm"),
        ([0.0, 1.0], [1e6, -1e-9], "no draw of 7 with curvature of the sign of -1e-09"),
        ([0.0, 0.0], [1.0, 1.0], "direction: got norm 0"),
        ([math.nan, 0.0], [1.0, 1.0], "direction: got norm nan"),
    ],
)
def test_no_equal_curvature(direction, diagonal, sentence, generator):
    with pytest.raises(BadInput, match=sentence):
        equal_curvature(torch.tensor(direction), Dense(torch.diag(torch.tensor(diagonal))), generator, num_draws=7)


def test_zero_has_no_null(generator):
    with pytest.raises(BadInput, match="got norm 0; wanted a finite vector other than 0"):
        equal_norm(torch.zeros(3), generator)


def test_untrained_is_the_start_of_the_recipe():
    module = nn.Linear(3, 2)
    task = Task.of(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))
    recipe = Trainer(optimiser=sgd(lr=0.1), num_steps=2).bind(Network(module, task=task))
    network = Network(module, task=task, recipe=recipe, initial=torch.arange(8.0))
    twin = untrained(network)
    assert twin.theta.tolist() == list(range(8))
    assert twin.name == "Linear (untrained)"
    assert twin.task is network.task


def test_untrained_without_a_recipe_is_initialised_anew():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.MultiheadAttention(4, 2))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(7.0)
        module[1].running_mean.fill_(5.0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    network = Network(module, dtype=torch.float64)
    twin, again, other = untrained(network), untrained(network), untrained(network, seed=1)
    assert torch.equal(twin.theta, again.theta)
    assert not torch.equal(twin.theta, other.theta)
    assert float(twin.params["0.weight"].abs().max()) <= 1 / math.sqrt(3)
    assert float(twin.params["2.in_proj_weight"].abs().max()) < 7
    assert not twin.buffers["1.running_mean"].any()
    assert twin.dtype == torch.float64
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model, self.head = gpt2(), nn.Linear(3, 3)

    def forward(self, tokens):
        return self.model(tokens).logits


@pytest.mark.parametrize("family", [gpt2, llama, mamba, Wrapped])
def test_models_of_transformers_are_made_anew_from_their_configuration(family):
    module = family()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(7.0)
    state = torch.random.get_rng_state()
    network = Network(module)
    twin, again, other = untrained(network), untrained(network), untrained(network, seed=1)
    assert torch.equal(twin.theta, again.theta)
    assert not torch.equal(twin.theta, other.theta)
    assert not bool((twin.theta == 7).any())
    assert bool((network.theta == 7).all())
    assert torch.equal(torch.random.get_rng_state(), state)
    tokens = Batch((torch.tensor([[1, 2, 3]]),), {}, None)
    assert twin.apply(twin.theta, tokens).isfinite().all()


def test_untrained_refuses_layers_that_cannot_start_anew():
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    with pytest.raises(BadInput, match=r"layer 'Sequential\.0' \(Scale\).*initial=theta0"):
        untrained(Network(nn.Sequential(Scale())))


@pytest.mark.parametrize("change", ["added", "resized", "removed"])
def test_untrained_refuses_models_that_are_not_as_their_configuration_makes_them(change):
    module = gpt2()
    if change == "added":
        module.transformer.h[1].gate = nn.Parameter(torch.ones(3))
    elif change == "resized":
        module.transformer.wpe = nn.Embedding(20, 16)
    else:
        module.transformer.ln_f = nn.Identity()
    name = {"added": "h.1.gate", "resized": "wpe.weight", "removed": "ln_f.weight and 1 more"}[change]
    message = (
        r"untrained twin of 'mine': got 'mine' \(GPT2LMHeadModel\), which is not as its configuration makes it: "
        rf"transformer\.{name}; wanted a model of transformers without .* weights\. .*initial=theta0"
    )
    with pytest.raises(BadInput, match=message):
        untrained(Network(module, name="mine"))

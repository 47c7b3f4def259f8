"""Training as a pure map: PyTorch's own loop, bit for bit the same twice, and every way to diverge named."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.laws.operator_cases import NETWORKS, filled, stream
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import adam, adamw, momentum, nesterov, sgd
from tremorscope.instruments.recipe import PureRecipe, run_recipe
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer, check_deterministic, primal_states

F64 = torch.float64
NUM = 13


def mlp(dropout: float = 0.0, dtype: torch.dtype = F64, **options) -> Network:
    with torch.random.fork_rng(devices=[]):
        module = filled(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(dropout), nn.Linear(5, 3)), dtype)
    inputs = torch.randn(NUM, 4, generator=stream(1), dtype=F64)
    return Network(module, task=Task.of(inputs, torch.randint(0, 3, (NUM,), generator=stream(2))), **options)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (sgd(0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (momentum(0.1), lambda p: torch.optim.SGD(p, 0.1, 0.9)),
        (nesterov(0.1), lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True)),
        (adam(0.05), lambda p: torch.optim.Adam(p, 0.05)),
        (adamw(0.05), lambda p: torch.optim.AdamW(p, 0.05)),
    ],
)
def test_equals_an_ordinary_training_loop(ours, theirs):
    """The twin: a DataLoader in order, torch.optim, a cosine schedule, two epochs and a bit with a short batch."""
    network = mlp()
    num_steps = 8
    trained = Trainer(optimiser=ours, num_steps=num_steps, batch_size=5, schedule="cosine").fit(network)
    module = mlp().module
    optimiser = theirs(module.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, num_steps)
    batches = [torch.arange(start, min(start + 5, NUM)) for start in range(0, NUM, 5)]
    losses = []
    for t in range(num_steps):
        chosen = batches[t % 3]
        loss = nn.functional.cross_entropy(module(network.task.inputs[chosen]), network.task.targets[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    assert trained.losses.tolist() == pytest.approx(losses, rel=1e-9)
    wanted = nn.utils.parameters_to_vector(module.parameters()).detach()
    assert torch.allclose(trained.last, wanted, rtol=1e-9, atol=1e-12)
    assert torch.equal(trained.first, network.theta)


@pytest.mark.parametrize("name", NETWORKS)
def test_fit_and_the_pure_map_agree_to_the_bit(name):
    network = NETWORKS[name](F64)
    trainer = Trainer(optimiser=momentum(0.05), num_steps=4, batch_size=4, seed=1, mode="evaluate")
    state = torch.random.get_rng_state()
    trained = trainer.fit(network, keep=[0, 3])
    bound = trainer.bind(network)
    assert torch.equal(trained.last, run_recipe(bound, network.start))
    assert torch.equal(trained.last, trainer.fit(network).last)
    states = primal_states(bound, network.start)
    assert [torch.equal(trained.snapshots[t], states[t][0]) for t in (0, 3)] == [True, True]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_training_starts_at_the_initial_weights():
    start = torch.zeros(mlp().layout.size, dtype=F64)
    trainer = Trainer(optimiser=sgd(0.1), num_steps=2)
    assert torch.equal(trainer.fit(mlp(initial=start)).first, start)
    assert torch.equal(trainer.fit(mlp().at(start)).last, trainer.fit(mlp(initial=start)).last)


@settings(deadline=None, max_examples=60)
@given(
    batch_size=st.integers(1, 2 * NUM),
    seed=st.none() | st.integers(0, 3),
    reshuffled=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_every_epoch_sees_every_example_once(batch_size, seed, reshuffled, epoch):
    order = "reshuffled" if reshuffled and seed is not None else "fixed"
    bound = Trainer(optimiser=sgd(0.1), num_steps=1, batch_size=batch_size, seed=seed, order=order).bind(mlp())
    per_epoch = math.ceil(NUM / batch_size)
    batches = [bound.indices(t) for t in range(epoch * per_epoch, (epoch + 1) * per_epoch)]
    assert [len(batch) for batch in batches[:-1]] == [min(batch_size, NUM)] * (per_epoch - 1)
    assert sorted(torch.cat(batches).tolist()) == list(range(NUM))
    first = torch.cat([bound.indices(t) for t in range(per_epoch)])
    if order == "fixed":
        assert torch.equal(torch.cat(batches), first)
    elif epoch > 0:
        assert not torch.equal(torch.cat(batches), first)
    if seed is None:
        assert torch.equal(first, torch.arange(NUM))


def test_seeded_dropout_repeats_and_leaves_the_global_stream_alone():
    state = torch.random.get_rng_state()

    def last(seed: int) -> torch.Tensor:
        return Trainer(optimiser=sgd(0.5), num_steps=3, seed=seed).fit(mlp(dropout=0.5)).last

    assert torch.equal(last(0), last(0))
    assert not torch.equal(last(0), last(1))
    assert torch.equal(torch.random.get_rng_state(), state)
    frozen = Trainer(optimiser=sgd(0.5), num_steps=3, mode="evaluate").fit(mlp(dropout=0.5)).last
    assert torch.equal(frozen, Trainer(optimiser=sgd(0.5), num_steps=3).fit(mlp()).last)


def shaky(source: torch.Generator | None = None) -> PureRecipe:
    def advance(state, t):
        return state + 1e-3 * torch.randn(3, generator=source)

    return PureRecipe(start=lambda theta: theta, advance=advance, num_steps=2)


@pytest.mark.parametrize(
    "recipe",
    [
        lambda: Trainer(optimiser=sgd(0.5), num_steps=3).bind(mlp(dropout=0.5)),
        lambda: shaky(),
        lambda: shaky(torch.Generator().manual_seed(0)),
    ],
    ids=["dropout without a seed", "global noise", "a generator that goes on"],
)
def test_what_does_not_repeat_itself_is_refused_with_the_gap(recipe):
    recipe = recipe()
    start = recipe.network.start if hasattr(recipe, "network") else torch.zeros(3)
    state = torch.random.get_rng_state()
    with pytest.raises(BadInput, match=r"not deterministic: got theta_T differed by 0?\.?\d+.*Trainer\(seed=0\)"):
        check_deterministic(recipe, start)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_random_batch_order_is_not_deterministic():
    network = mlp()

    def advance(theta, t):
        batch = network.task.batch(torch.randperm(NUM)[:4])
        return theta - 0.1 * torch.func.grad(lambda at: network.loss(at, batch))(theta)

    with pytest.raises(BadInput, match="theta_T differed by"):
        check_deterministic(PureRecipe(start=lambda theta: theta, advance=advance, num_steps=2), mlp().start)


def test_what_repeats_itself_passes_with_its_last_weights():
    bound = Trainer(optimiser=adam(0.1), num_steps=3, seed=0).bind(mlp(dropout=0.5))
    assert torch.equal(check_deterministic(bound, mlp().start), run_recipe(bound, mlp().start))


def regression(rate: float, num_steps: int = 400) -> tuple[Trainer, Network]:
    module = filled(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), F64)
    task = Task.of(torch.randn(6, 2, generator=stream(0), dtype=F64), torch.ones(6, 1, dtype=F64))
    return Trainer(optimiser=sgd(rate), num_steps=num_steps, schedule=lambda t: 1.0), Network(module, task=task)


def test_divergence_names_the_step_and_the_learning_rate():
    trainer, network = regression(1e30)
    with pytest.raises(
        BadInput, match=r"training diverged at step (\d+): got loss .*, learning rate 1e\+30; .* Lower"
    ) as caught:
        trainer.fit(network)
    step = int(str(caught.value).split("step ")[1].split(":")[0])
    assert 0 < step < 400
    Trainer(optimiser=sgd(1e30), num_steps=step).fit(network)  # up to there all is finite
    # The loss overflows before the weights do: who looks at weights only sees it a step later.
    for watch in (primal_states, check_deterministic):
        with pytest.raises(BadInput, match=rf"diverged at step ({step}|{step + 1}): got .* learning rate 1e\+30"):
            watch(trainer.bind(network), network.start)


def test_divergence_of_pure_functions_names_the_step():
    recipe = PureRecipe(
        start=lambda theta: theta, advance=lambda state, t: state / (0.0 if t == 2 else 1.0), num_steps=5
    )
    for watch in (primal_states, check_deterministic):
        with pytest.raises(BadInput, match="training diverged at step 2: got a state that is not finite"):
            watch(recipe, torch.ones(2))


@pytest.mark.parametrize("start", [lambda theta: theta, lambda theta: theta.clone()], ids=["same", "copy"])
def test_a_step_that_writes_into_its_state_is_refused(start):
    recipe = PureRecipe(start=start, advance=lambda state, t: state.mul_(0.5), num_steps=3)
    theta = torch.ones(2)
    assert torch.equal(check_deterministic(recipe, theta), torch.full((2,), 0.125))
    assert torch.equal(theta, torch.ones(2))
    with pytest.raises(BadInput, match="step 0 of the recipe: got a state that was changed in place; wanted a pure"):
        primal_states(recipe, theta)


def test_batch_norm_is_refused_unless_frozen():
    network = NETWORKS["cnn"](F64)
    trainer = Trainer(optimiser=sgd(0.1), num_steps=2)
    with pytest.raises(
        BadInput, match=r"layer '1' \(BatchNorm2d\): got running statistics .* Trainer\(mode='evaluate'\), or carry"
    ):
        trainer.bind(network)
    frozen = Trainer(optimiser=sgd(0.1), num_steps=2, mode="evaluate").fit(network)
    assert not torch.equal(frozen.last, frozen.first)
    assert torch.equal(network.module[1].running_mean, torch.zeros(2, dtype=F64))
    stateless = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False))
    trainer.fit(Network(stateless.double(), task=mlp().task))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Trainer(optimiser=sgd(0.1), num_steps=0), "num_steps: got 0"),
        (lambda: Trainer(optimiser=sgd(0.1), num_steps=1, batch_size=0), "batch_size: got 0"),
        (lambda: Trainer(optimiser=sgd(0.1), num_steps=1, order="reshuffled"), "wanted a seed. Pass seed=0"),
        (lambda: Trainer(optimiser=sgd(0.1), num_steps=1).bind(Network(nn.Linear(1, 1))), "data of 'Linear': got none"),
    ],
)
def test_what_is_no_recipe(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_a_penalty_on_the_weights_is_part_of_the_loss():
    """The twin: torch.optim on the loss plus half the norm of all parameters together."""
    network = mlp()
    trained = Trainer(optimiser=adam(0.05), num_steps=4, penalty=lambda theta: 0.5 * theta.norm()).fit(network)
    module = mlp().module
    optimiser = torch.optim.Adam(module.parameters(), 0.05)
    losses = []
    for _ in range(4):
        loss = nn.functional.cross_entropy(module(network.task.inputs), network.task.targets)
        loss = loss + 0.5 * torch.cat([parameter.flatten() for parameter in module.parameters()]).norm()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert trained.losses.tolist() == pytest.approx(losses, rel=1e-9)
    assert torch.allclose(trained.last, nn.utils.parameters_to_vector(module.parameters()).detach(), rtol=1e-9)
    free = Trainer(optimiser=adam(0.05), num_steps=4).fit(network)
    assert float(free.last.norm()) > float(trained.last.norm())


def test_a_penalty_acts_beside_example_weights():
    network = mlp()
    trainer = Trainer(optimiser=sgd(0.1), num_steps=1, penalty=lambda theta: theta.square().sum())
    bound = trainer.bind(network)
    none = replace(bound, example_weights=torch.zeros(NUM))
    assert torch.allclose(none.gradient(network.theta, 0), 2 * network.theta, rtol=1e-12)
    assert float((bound.gradient(network.theta, 0) - 2 * network.theta).norm()) > 1e-3


def test_a_penalty_is_a_scalar():
    trainer = Trainer(optimiser=sgd(0.1), num_steps=1, penalty=lambda theta: theta)
    with pytest.raises(BadInput, match=r"penalty on the weights: got shape \(43,\); wanted a scalar"):
        trainer.fit(mlp())

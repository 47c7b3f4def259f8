from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.instruments.activations.engine_networks import batch_of, made, vector
from tremorscope.foundations.errors import BadInput, SiteNotFound
from tremorscope.instruments import respond as module_under_test
from tremorscope.instruments.edit import Add, Noise, Replace, Rotate
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import momentum
from tremorscope.instruments.recipe import PureRecipe, run_recipe
from tremorscope.instruments.respond import Response, respond
from tremorscope.instruments.task import Batch, Task
from tremorscope.instruments.trainer import Trainer

SIZES = [0.0, 0.01, 0.1, 1.0, 3.0]


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classifier(dtype: torch.dtype = torch.float64) -> Network:
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    task = Task.of(draw(12, 4, seed=1), torch.arange(12) % 3)
    network = Network(module, task=task, dtype=dtype)
    return network.at(0.5 * draw(network.layout.size, seed=0))


def slow_twin(network: Network, batch: Batch, placed, size: float, measure: str) -> list[float]:
    """One size, example by example, from the formulas."""
    edited, moved = network.theta, batch
    clean_theta = network.theta
    if placed.site.kind == "weights":
        edited = placed.scaled(size).applied_to_weights(network.layout, network.theta)
    elif placed.site.kind == "input":
        moved = placed.scaled(size).applied_to_batch(batch)
    else:
        clean_theta = run_recipe(network.recipe, network.start)
        edited = run_recipe(network.recipe, placed.scaled(size).applied_to_start(network.start))
    values = []
    for row, target in enumerate(batch.target):
        before = network.apply(clean_theta, Batch((batch.args[0][[row]],), {}, None))[0].double()
        after = network.apply(edited, Batch((moved.args[0][[row]],), {}, None))[0].double()
        if measure == "l2":
            values.append(math.dist(before.tolist(), after.tolist()))
        elif measure == "loss":
            values.append(float(functional.cross_entropy(after, target) - functional.cross_entropy(before, target)))
        else:
            p, q = before.softmax(0), after.softmax(0)
            values.append(float((p * (p / q).log()).sum()))
    return values


@pytest.mark.parametrize("measure", ["kl", "l2", "loss"])
@pytest.mark.parametrize(
    "placed",
    [
        Add(draw(67, seed=2)).at("weights:*"),
        Add(draw(11, seed=3)).at("weights:*.bias"),
        Rotate(draw(67, seed=4), 0.0).at("weights:0.weight"),
        Noise(0.0, seed=5).at("weights:2.*"),
        Add(draw(4, seed=6)).at("input"),
        Noise(0.0, seed=7).at("input"),
        Add(draw(67, seed=8)).at("train.init"),
    ],
    ids=str,
)
def test_sizes_together_are_sizes_one_at_a_time(placed, measure):
    network = classifier()
    if placed.site.kind == "train.init":
        recipe = Trainer(optimiser=momentum(lr=0.2), num_steps=4, batch_size=5).bind(network)
        network = Network(network.module, task=network.task, recipe=recipe, dtype=torch.float64).at(network.theta)
    batch = network.task.train_batch()
    response = respond(network, batch, placed, sizes=SIZES, measure=measure)
    assert response.flags == ()
    twin = [slow_twin(network, batch, placed, size, measure) for size in SIZES]
    torch.testing.assert_close(response.values, torch.tensor(twin, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(response.values[-1].abs().max()) > 1e-3
    for chunk in (1, 2, 5):
        again = respond(network, batch, placed, sizes=SIZES, measure=measure, chunk=chunk)
        torch.testing.assert_close(again.values, response.values, rtol=0, atol=1e-12)


def test_float32_networks_are_measured_in_double():
    network, placed = classifier(torch.float32), Add(draw(67, seed=2)).at("weights:*")
    response = respond(network, network.task.train_batch(), placed, sizes=[1e-3, 1e-2, 1e-1, 1.0])
    twin = respond(classifier(), classifier().task.train_batch(), placed, sizes=[1e-3, 1e-2, 1e-1, 1.0])
    assert response.values.dtype == torch.float64
    # Logits are off by 1e-6; at the smallest size they differ by 1e-2 or so.
    torch.testing.assert_close(response.values, twin.values, rtol=1e-2, atol=1e-9)


def test_kl_is_quadratic_at_the_origin_and_length_linear():
    network, placed = classifier(), Add(draw(67, seed=2)).at("weights:*")
    batch, sizes = network.task.train_batch(), [1e-4, 1e-3, 1e-2]
    slope = respond(network, batch, placed, sizes=sizes).slope()
    assert slope.low <= 2 <= slope.high or slope.value == pytest.approx(2, abs=0.01)
    assert respond(network, batch, placed, sizes=sizes, measure="l2").slope().value == pytest.approx(1, abs=0.01)


def test_outputs_with_positions_are_averaged_over_them():
    network = Network(nn.Linear(4, 3), dtype=torch.float64)
    inputs, placed = draw(2, 5, 4, seed=1), Add(draw(15, seed=2)).at("weights:*")
    together = respond(network, Batch((inputs,), {}, None), placed, sizes=[0.5])
    apart = respond(network, Batch((inputs.reshape(10, 4),), {}, None), placed, sizes=[0.5])
    torch.testing.assert_close(together.values, apart.values.reshape(1, 2, 5).mean(dim=2), rtol=0, atol=1e-14)


def test_classes_that_are_masked_cost_nothing():
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.layer(x), x.new_full((len(x), 1), -1e30)], dim=1)

    network, plain = Network(Masked(), dtype=torch.float64), Network(nn.Linear(4, 3), dtype=torch.float64)
    theta, batch = draw(15, seed=1), Batch((draw(6, 4, seed=2),), {}, None)
    placed = Add(draw(15, seed=3)).at("weights:*")
    masked, free = (respond(each.at(theta), batch, placed, sizes=[0.3]) for each in (network, plain))
    torch.testing.assert_close(masked.values, free.values, rtol=0, atol=1e-14)


class Transformer(nn.Module):
    """Fused attention and layers, which torch maps in its own slow way."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Recurrent(nn.Module):
    """A layer that torch cannot map at all."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.GRU(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)[0]


@pytest.mark.parametrize(("kind", "num_flags"), [(Transformer, 0), (Recurrent, 1)])
def test_a_strangers_layers_give_the_same_by_either_route(kind, num_flags):
    network = Network(kind(), dtype=torch.float64)
    network = network.at(0.3 * draw(network.layout.size, seed=1))
    batch, placed = Batch((draw(2, 5, 4, seed=2),), {}, None), Add(draw(network.layout.size, seed=3)).at("weights:*")
    response = respond(network, batch, placed, sizes=[0.01, 0.1])
    assert len(response.flags) == num_flags
    loop = [respond(network, batch, placed, sizes=[size]).values for size in (0.01, 0.1)]
    torch.testing.assert_close(response.values, torch.cat(loop), rtol=0, atol=1e-12)
    theta = placed.scaled(0.1).applied_to_weights(network.layout, network.theta)
    before, after = (network.apply(each, batch).log_softmax(-1) for each in (network.theta, theta))
    twin = (before.exp() * (before - after)).sum(-1).mean(-1)
    torch.testing.assert_close(response.values[1], twin, rtol=0, atol=1e-12)


class Branching(nn.Module):
    """Looks at its data: cannot be vmapped."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y if float(y.sum()) > 0 else 2 * y


def test_a_module_that_cannot_be_vmapped_is_looped_and_flagged():
    network = Network(Branching(), task=Task.of(draw(6, 4, seed=1), torch.arange(6) % 3), dtype=torch.float64)
    network = network.at(draw(15, seed=2))
    batch, placed = network.task.train_batch(), Add(draw(15, seed=3)).at("weights:*")
    response = respond(network, batch, placed, sizes=SIZES, chunk=2)
    assert len(response.flags) == 1
    assert "one size at a time" in response.flags[0]
    twin = [slow_twin(network, batch, placed, 0.0, "kl")]
    torch.testing.assert_close(response.values[:1], torch.tensor(twin, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(response.values[-1].mean()) > 0.1


def test_a_broken_module_shows_its_own_error():
    class Broken(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) @ x.new_zeros(7, 7)

    with pytest.raises(RuntimeError, match=r"cannot be multiplied|size mismatch"):
        respond(
            Network(Broken(4, 3)), Batch((torch.zeros(2, 4),), {}, None), Add(torch.ones(15)).at("weights:*"), sizes=[1]
        )


def test_the_memory_bound_sets_the_chunk(monkeypatch):
    network = classifier()
    batch, placed = network.task.train_batch(), Add(draw(67, seed=2)).at("weights:*")
    widths = []
    mapped = module_under_test._mapped

    def watched(output, prepared):
        widths.append(len(prepared))
        return mapped(output, prepared)

    monkeypatch.setattr(module_under_test, "_mapped", watched)
    whole = respond(network, batch, placed, sizes=SIZES)
    monkeypatch.setattr(module_under_test, "CHUNK_BYTES", 8_000)  # about two sizes of this network
    parts = respond(network, batch, placed, sizes=SIZES)
    assert widths[0] == 5
    assert len(widths) > 2
    torch.testing.assert_close(parts.values, whole.values, rtol=0, atol=1e-12)


def test_nothing_of_the_user_moves():
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    network = Network(module, task=Task.of(draw(12, 4, seed=1).float(), torch.arange(12) % 3))
    respond(network, network.task.train_batch(), Noise(1.0, 0).at("weights:*"), sizes=[0.1, 1.0])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(part.training for part in module.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_trainer_that_is_not_bound_yet_trains_too():
    trainer, network = Trainer(optimiser=momentum(lr=0.2), num_steps=2), classifier()
    placed, batch = Add(draw(67, seed=2)).at("train.init"), network.task.train_batch()
    loose, bound = (
        respond(
            Network(network.module, task=network.task, recipe=each, initial=network.theta, dtype=torch.float64),
            batch,
            placed,
            sizes=[0.5],
        )
        for each in (trainer, trainer.bind(network))
    )
    assert torch.equal(loose.values, bound.values)
    assert float(loose.values.mean()) > 1e-3


def test_the_start_of_a_users_own_recipe_can_be_moved():
    halving = PureRecipe(start=lambda theta: theta, advance=lambda state, t: 0.5 * state, num_steps=3)
    network = Network(nn.Linear(2, 2, bias=False), recipe=halving, initial=torch.zeros(4))
    batch = Batch((torch.eye(2),), {}, None)
    response = respond(network, batch, Add(torch.ones(4)).at("train.init"), sizes=[8.0], measure="l2")
    torch.testing.assert_close(response.values, torch.full((1, 2), math.sqrt(2), dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"placed": Replace(torch.zeros(67)).at("weights:*")}, BadInput, "an edit without a size"),
        ({"placed": Add(torch.ones(67)).at("acts:0")}, BadInput, "got 67 entries in the edit; wanted 8, the width"),
        ({"placed": Add(torch.ones(67)).at("weights:nothing")}, SiteNotFound, "no parameter matches"),
        ({"placed": Add(torch.ones(5)).at("weights:*")}, BadInput, "got 5 entries; wanted 67"),
        ({"placed": Add(torch.ones(67)).at("train.init")}, BadInput, "training recipe: got NoneType"),
        ({"sizes": []}, BadInput, r"sizes: got shape \(0,\)"),
        ({"sizes": [1.0, 1.0]}, BadInput, "strictly increasing"),
        ({"sizes": [1.0, math.nan]}, BadInput, "finite, strictly increasing"),
        ({"sizes": torch.ones(2, 2)}, BadInput, r"sizes: got shape \(2, 2\)"),
        ({"chunk": 0}, BadInput, "chunk: got 0"),
        (
            {"sizes": [1e308], "placed": Add(1e3 * torch.ones(67)).at("weights:*")},
            BadInput,
            "not finite at size 1e\\+308",
        ),
    ],
)
def test_what_is_refused(change, error, sentence):
    network = classifier()
    arguments = {"placed": Add(torch.ones(67)).at("weights:*"), "sizes": [1.0], **change}
    placed = arguments.pop("placed")
    with pytest.raises(error, match=sentence):
        respond(network, network.task.train_batch(), placed, **arguments)


def test_a_measure_needs_its_outputs():
    batch, placed = Batch((torch.ones(3, 2),), {}, None), Add(torch.ones(3)).at("weights:*")
    with pytest.raises(BadInput, match=r"outputs of shape \(3, 1\); wanted logits of at least two classes"):
        respond(Network(nn.Linear(2, 1)), batch, placed, sizes=[1.0])
    with pytest.raises(BadInput, match="no task or no targets"):
        respond(Network(nn.Linear(2, 1)), batch, placed, sizes=[1.0], measure="loss")
    broken = Network(nn.Linear(2, 1)).at(torch.full((3,), math.inf))
    with pytest.raises(BadInput, match="entries that are not finite; wanted finite outputs"):
        respond(broken, batch, placed, sizes=[1.0], measure="l2")


def curve(sizes: list[float], *rows: list[float]) -> Response:
    return Response(
        sizes=torch.tensor(sizes, dtype=torch.float64),
        values=torch.tensor(rows, dtype=torch.float64),
        measure="kl",
        place="here",
    )


def test_thresholds_of_a_power_law_are_exact_between_sizes():
    sizes = [0.0, 1.0, 10.0, 100.0]
    response = curve(sizes, *([s**2 * c for c in (0.5, 1.0, 1.5)] for s in sizes))
    found = response.threshold(25.0, level=0.9)
    assert found.value == pytest.approx(5.0)
    # Band of three numbers 0.5, 1, 1.5: t(2, 0.95) * 0.5 / sqrt(3) around 1.
    half = 2.919986 * 0.5 / math.sqrt(3)
    assert found.low == pytest.approx(math.sqrt(25 / (1 + half)), rel=1e-5)
    assert found.high == pytest.approx(math.sqrt(25 / (1 - half)), rel=1e-5)
    assert response.threshold(1e5) is None
    assert response.threshold(0.9e4, level=0.9).high == math.inf
    assert response.slope().value == pytest.approx(2.0)
    assert response.slope().high - response.slope().low == pytest.approx(0.0, abs=1e-9)
    assert response.plateau_width(0.25).value == pytest.approx(50.0)
    assert [mean.value for mean in response.mean()] == pytest.approx([0, 1, 100, 1e4])


def test_thresholds_below_the_first_size_and_on_straight_lines():
    assert curve([2.0, 4.0], [3.0], [9.0]).threshold(1.0).value == 2.0
    assert curve([0.0, 4.0], [0.0], [8.0]).threshold(2.0).value == pytest.approx(1.0)  # no logarithm of 0
    signed = curve([-1.0, 0.0, 1.0], [9.0, 9.0], [0.0, 0.0], [1.0, 1.0])
    assert signed.threshold(0.5).value == pytest.approx(0.5)
    assert curve([0.0, 4.0], [0.0], [8.0]).threshold(2.0).method == "one seed"
    assert curve([0.0, 1.0], [0.0, 0.0], [0.0, 0.0]).plateau_width() is None


def test_a_plateau_is_wider_than_a_bowl():
    sizes = [0.25, 0.5, 0.75, 1.0]
    bowl, plateau = (curve(sizes, *([s**power] * 2 for s in sizes)) for power in (2, 8))
    assert bowl.plateau_width().value == pytest.approx(math.sqrt(0.5))
    assert plateau.plateau_width().value > 0.9


def test_the_interval_of_a_slope_covers_it():
    inside = 0
    for seed in range(60):
        stream = torch.Generator().manual_seed(seed)
        powers = 2 + 0.3 * torch.randn(40, generator=stream, dtype=torch.float64)
        sizes = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
        response = Response(sizes=sizes, values=sizes[:, None] ** powers, measure="kl", place="here")
        estimate = response.slope(level=0.9)
        inside += estimate.low <= 2 <= estimate.high  # the spread of powers bends both ends alike
    assert 46 <= inside <= 60  # 54 expected


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda r: r.plateau_width(1.0), "share of the largest response: got 1.0"),
        (lambda r: r.slope(), "got 0 sizes with a positive response"),
        (lambda r: r.threshold(1.0), "negative sizes only"),
    ],
)
def test_summaries_that_cannot_be_had(call, sentence):
    with pytest.raises(BadInput, match=sentence):
        call(curve([-2.0, -1.0], [1.0, 1.0], [1.0, 1.0]))


@pytest.mark.parametrize("site", ["acts:resid_pre.1@last", "acts:resid_mid.0@2:4", "acts:head_out.1.1"])
def test_activations_are_moved_by_sizes_together_as_one_at_a_time(site):
    network, batch = made("gpt2"), batch_of("gpt2")
    placed = Add(vector(8 if "head" in site else 16)).at(site)
    response = respond(network, batch, placed, sizes=[0.0, 0.3, 1.0], measure="l2")
    assert response.flags == ()
    clean = network.apply(network.params, batch).double()
    for size, row in zip([0.0, 0.3, 1.0], response.values, strict=True):
        view = network.with_edits(placed.scaled(size))
        wanted = (view.apply(view.params, batch).double() - clean).flatten(1).norm(dim=1)
        torch.testing.assert_close(row, wanted, rtol=1e-5, atol=1e-5)
    assert float(response.values[0].max()) == 0.0
    assert float(response.values[2].min()) > 0.01

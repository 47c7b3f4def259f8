"""Steering on networks whose modules are known by construction, and every way in which it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest
import torch
from torch import nn

from tremorscope.foundations.arrays import read_arrays_and_metadata
from tremorscope.foundations.errors import BadInput, NotConverged, SiteNotFound
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.losses import cross_entropy
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Dense
from tremorscope.instruments.optimisers import adam
from tremorscope.instruments.spectrum import Spectrum
from tremorscope.instruments.task import Batch, Task
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.hessian_modules import steering as steering_module
from tremorscope.methods.weights.hessian_modules.curves import (
    SteeringCurve,
    choose,
    keep_damage_at,
    signed,
    steering_curve,
)
from tremorscope.methods.weights.hessian_modules.directions import (
    SteeringDirection,
    curvature_along,
    in_complement,
    projected,
)
from tremorscope.methods.weights.hessian_modules.independence import measure_independence
from tremorscope.methods.weights.hessian_modules.objectives import Objective, Reading
from tremorscope.methods.weights.hessian_modules.steering import (
    EQUAL_CURVATURE,
    EQUAL_NORM,
    NO_PROJECTION,
    steer,
    stiff_directions,
)


class TwoModules(nn.Module):
    """Two networks side by side: the first sees the first half of the input, the second the other half."""

    def __init__(self) -> None:
        super().__init__()
        # Without biases a module whose input is zero is silent, so that each loss belongs to one of them alone.
        self.left, self.right = (
            nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=False)) for _ in range(2)
        )

    def forward(self, x):
        return self.left(x[:, :3]) + self.right(x[:, 3:])


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def halves(num=90):
    """Inputs of one half only, for each half, with three classes of that half."""
    stream = generator(0, "halves")
    labels = torch.arange(num) % 3
    shown = 2.0 * torch.eye(3, dtype=torch.float64)[labels]
    shown = shown + 0.3 * torch.randn(num, 3, generator=stream, dtype=torch.float64)
    left = torch.cat([shown, torch.zeros_like(shown)], dim=1)
    return left, left.flip(1).reshape(num, 2, 3).flip(2).reshape(num, 6), labels


@pytest.fixture(scope="module")
def two_modules():
    """Trained on both halves, with an objective for each."""
    left, right, labels = halves()
    network = Network(seeded(TwoModules), dtype=torch.float64)
    both = Task.of(torch.cat([left, right]), torch.cat([labels, labels]))
    trainer = Trainer(optimiser=adam(0.05), num_steps=120)
    trained = network.with_task(both)
    trained = trained.at(trainer.fit(trained).last)
    objectives = [
        Objective.of(name, trained, Task.of(data, labels, name=name, num_test=30))
        for name, data in (("left", left), ("right", right))
    ]
    return trained, *objectives


def test_disjoint_modules_do_not_overlap_and_steering_breaks_exactly_one(two_modules):
    network, left, right = two_modules
    for keep, breaking, own in ((left, right, "right"), (right, left, "left")):
        measured = steer(network, keep, breaking, k=6, alphas=(1.0, 4.0, 16.0), num_nulls=2)
        assert measured.independence.overlap() < 1e-6
        assert measured.independence.cross[0].abs().max() < 1e-10
        moved = measured.direction.layout.unflatten(measured.direction.vector)
        assert max(float(part.abs().max()) for name, part in moved.items() if not name.startswith(own)) < 1e-6
        assert measured.direction.left == pytest.approx(1.0, abs=1e-9)
        assert measured.choice.keep_damage == pytest.approx(0.0, abs=1e-12)
        assert measured.choice.break_damage > 0.3
        # Nothing to project away here: the control is as good, and a random direction hits both.
        assert measured.control.break_damage == pytest.approx(measured.choice.break_damage)


def test_projection_is_exact_and_flattens_the_kept_loss_to_second_order():
    stream = generator(2, "minimum")
    network = Network(seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))), dtype=torch.float64)
    # Targets are the network's own outputs: an exact minimum of both losses, without any training.
    keep, breaking = (
        Objective.of(name, network, Task.of(inputs, network.apply(network.params, Batch((inputs,), {}, None))))
        for name, inputs in (
            ("keep", torch.randn(40, 4, generator=stream, dtype=torch.float64) * torch.tensor([2.0, 1.0, 0.1, 0.1])),
            ("break", torch.randn(40, 4, generator=stream, dtype=torch.float64)),
        )
    )
    assert float(keep.gradient().norm()) < 1e-12
    k = 36
    known = [stiff_directions(one, k) for one in (keep, breaking)]
    spectrum, layout, operator = known[0].spectrum, known[0].layout, known[0].operator
    u = projected(spectrum, known[1].spectrum, layout, k=k)
    v = projected(spectrum, known[1].spectrum, layout, k=0)
    assert float((spectrum.vectors.T @ u.vector).norm()) < 1e-6
    assert float(v.vector.norm()) == pytest.approx(1.0)
    assert u.left == pytest.approx(float(u.vector.norm()))
    assert 0.01 < u.left < 0.99
    along_u, along_v = (curvature_along(operator, one.vector) for one in (u, v))
    assert abs(along_u) < 1e-3 * along_v

    def bend(one, step=1e-3):
        """The same by the loss itself: second differences."""
        low, here, high = (keep.read(one.weights(network, alpha), "validation").loss for alpha in (-step, 0.0, step))
        return (low - 2 * here + high) / step**2

    assert bend(v) == pytest.approx(along_v, rel=1e-4)
    assert abs(bend(u)) < 1e-3 * along_v
    # The planted bug: to forget one of the directions is seen.
    rest = replace(
        spectrum,
        values=spectrum.values[1:],
        vectors=spectrum.vectors[:, 1:],
        residuals=spectrum.residuals[1:],
    )
    forgetful = projected(rest, known[1].spectrum, layout)
    assert float((spectrum.vectors.T @ forgetful.vector).norm()) > 1e-3


@pytest.fixture(scope="module")
def overlapping():
    """One small network that two tasks share."""
    stream = generator(1, "shared")
    inputs = torch.randn(80, 4, generator=stream, dtype=torch.float64)
    network = Network(
        seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))),
        dtype=torch.float64,
        task=Task.of(inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()),
    )
    network = network.at(Trainer(optimiser=adam(0.03), num_steps=150).fit(network).last)
    task = network.required_task()
    parts = [
        Objective.of(name, network, Task.of(task.inputs[rows], task.targets[rows], num_test=16))
        for name, rows in (("first", inputs[:, 2] > 0), ("second", inputs[:, 2] <= 0))
    ]
    return network, *parts


def test_the_measurement_says_what_was_chosen_beside_control_and_nulls(overlapping):
    network, keep, breaking = overlapping
    before = network.theta.clone()
    measured = steer(network, keep, breaking, k=8, alphas=(0.5, 1.0, 2.0), num_nulls=3, most=0.1, seed=5)
    assert torch.equal(network.theta, before)
    assert list(measured.curves) == ["steering", NO_PROJECTION]
    assert {what: len(curves) for what, curves in measured.null_curves.items()} == {EQUAL_NORM: 3, EQUAL_CURVATURE: 3}
    assert measured.steering.alphas == (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
    for curve in measured.null_curves[EQUAL_NORM]:
        assert curve.norm == pytest.approx(measured.steering.norm)
        assert curve.damage("first", "test")[3] == 0.0
    place = measured.steering.alphas.index(measured.choice.alpha)
    assert measured.choice.break_damage == measured.steering.damage("second", "test")[place]
    assert measured.steering.damage("first", "validation")[place] <= 0.1
    assert measured.independence is not None
    again = steer(
        network, keep, breaking, independence=False, k=8, alphas=(0.5, 1.0, 2.0), num_nulls=3, most=0.1, seed=5
    )
    assert again.null_choices == measured.null_choices
    assert torch.equal(again.direction.vector, measured.direction.vector)
    names = [table.name for table in measured.tables()]
    assert names == ["steering", "steering_curve", "independence", "cross_curvature"]
    assert measured.tables()[0].num_rows == 2 + 3 + 3
    assert [figure.name for figure in measured.figures()] == ["steering_first", "kept_against_broken_first", "gram"]
    assert SteeringCurve.of(measured.steering.to_plain()) == measured.steering


def test_nulls_lie_where_they_should(overlapping):
    _, keep, breaking = overlapping
    known = {one.name: stiff_directions(one, 8) for one in (keep, breaking)}
    side = known[keep.name]
    u = projected(side.spectrum, known[breaking.name].spectrum, side.layout, k=8)
    outside = steering_module._random_outside(side, 8, u, 0, 0)
    assert float((side.spectrum.vectors[:, :8].T @ outside.vector).norm()) < 1e-10
    assert float(outside.vector.norm()) == pytest.approx(u.left)
    flags: list[str] = []
    level = 0.5 * (side.operator + known[breaking.name].operator)
    (bent,) = steering_module._of_equal_curvature(level, [u], 1, 0, flags)
    assert curvature_along(level, bent.vector) == pytest.approx(curvature_along(level, u.vector), rel=1e-8)
    assert flags == []
    flat = replace(u, vector=torch.zeros_like(u.vector))
    with pytest.raises(BadInput, match="finite vector other than 0"):
        steering_module._random_outside(side, 8, flat, 0, 0)
    assert steering_module._of_equal_curvature(level, [flat], 1, 0, flags) == []
    assert flags[0].startswith("no null of equal curvature")


def test_complement_is_the_stiffest_of_all_that_is_left(overlapping):
    _, keep, breaking = overlapping
    known = {one.name: stiff_directions(one, 8) for one in (keep, breaking)}
    side, other = known[keep.name], known[breaking.name]
    found = in_complement(side.spectrum, other.operator, side.layout, k=8, num=2)
    basis, matrix = side.spectrum.vectors, other.operator.dense()
    outside = torch.eye(len(matrix), dtype=matrix.dtype) - basis @ basis.T
    values = torch.linalg.eigvalsh(outside @ matrix @ outside)
    for direction, value in zip(found, values.flip(0), strict=False):
        assert curvature_along(other.operator, direction.vector) == pytest.approx(float(value), rel=1e-5)
        assert float((basis.T @ direction.vector).norm()) < 1e-8
    u = projected(side.spectrum, other.spectrum, side.layout, k=8).vector
    assert float(values[-1]) >= curvature_along(other.operator, u / u.norm()) - 1e-12


def test_many_break_directions_and_one_unknown_half(overlapping):
    network, keep, breaking = overlapping
    judged = replace(breaking, name="judged only")
    several = steer(
        network, keep, breaking, judged=judged, k=4, indices=(0, 1, 2), alphas=(1.0, 2.0), num_nulls=2, most=0.2
    )
    assert several.direction.index in (0, 1, 2)
    assert several.judged == "judged only"
    assert {what: len(curves) for what, curves in several.null_curves.items()} == {EQUAL_NORM: 6, EQUAL_CURVATURE: 6}
    assert all(len(choices) == 2 for choices in several.null_choices.values())
    one = steer(network, keep, breaking, k=4, indices=(1,), alphas=(1.0, 2.0), num_nulls=0, most=0.2)
    gain = one.steering.damage("second", "validation")[one.steering.alphas.index(one.choice.alpha)]
    best = several.steering.damage("second", "validation")[several.steering.alphas.index(several.choice.alpha)]
    assert best >= gain


def test_gauss_newton_steers_too(overlapping):
    network, keep, breaking = overlapping
    measured = steer(network, keep, breaking, k=6, kind="ggn", alphas=(1.0,), num_nulls=1)
    assert measured.kind == "ggn"
    assert not any("not at a minimum" in flag and "none" not in flag for flag in measured.flags)
    assert bool((measured.independence.values[0] >= -1e-12).all())


def test_only_the_chosen_parameters_move(overlapping, tmp_path):
    network, keep, breaking = overlapping
    measured = steer(network, keep, breaking, k=3, parameters="2.*", alphas=(1.0,), num_nulls=1)
    direction = measured.direction
    assert direction.layout.names == ("2.weight", "2.bias")
    moved = network.layout.unflatten(direction.weights(network, 2.0) - network.theta)
    assert float(moved["0.weight"].abs().max()) == 0.0
    torch.testing.assert_close(moved["2.bias"], 2.0 * direction.layout.unflatten(direction.vector)["2.bias"])
    direction.save(tmp_path / "direction.safetensors", {"k": 3})
    tensors, metadata = read_arrays_and_metadata(tmp_path / "direction.safetensors")
    assert set(tensors) == {"2.weight", "2.bias"}
    assert metadata == {"k": "3"}
    with pytest.raises(SiteNotFound, match="no parameter matches"):
        steer(network, keep, breaking, k=3, parameters="7.*")


def test_independence_against_dense_matrices():
    stream = generator(3, "dense")
    turns = [torch.linalg.qr(torch.randn(12, 12, generator=stream, dtype=torch.float64)).Q for _ in range(2)]
    values = torch.arange(12, 0, -1, dtype=torch.float64)
    a, b = (Dense((turn * values) @ turn.T) for turn in turns)
    a, b = (Dense(0.5 * (one.matrix + one.matrix.T)) for one in (a, b))

    def top(turn):
        return Spectrum(
            values=values[:3],
            vectors=turn[:, :3].contiguous(),
            residuals=torch.zeros(3, dtype=torch.float64),
            num_products=0,
            method="given",
        )

    found = measure_independence(
        {"a": top(turns[0]), "b": top(turns[1])}, {"a": a, "b": b}, mixed=Dense(0.5 * (a.matrix + b.matrix))
    )
    assert found.additivity < 1e-12
    q, p = turns[0][:, :3], turns[1][:, :3]
    assert found.overlap() == pytest.approx(float((q @ q.T @ p @ p.T).trace()) / 3)
    assert found.chance() == 3 / 12
    torch.testing.assert_close(found.left, (p - q @ (q.T @ p)).norm(dim=0))
    torch.testing.assert_close(found.cross[0], (q.T @ b.matrix @ q).diagonal())
    doubled = measure_independence(
        {"a": top(turns[0]), "b": top(turns[1])}, {"a": a, "b": b}, mixed=Dense(a.matrix + b.matrix)
    )
    assert doubled.additivity == pytest.approx(0.5)


def curve_of(keep, breaking, alphas=(-2.0, -1.0, 0.0, 1.0, 2.0)):
    readings = {"keep": [Reading(0.0, score) for score in keep], "break": [Reading(0.0, score) for score in breaking]}
    return SteeringCurve(name="made", alphas=alphas, norm=1.0, readings={"validation": readings, "test": readings})


def test_the_choice_breaks_most_within_what_may_be_lost():
    curve = curve_of(keep=[0.5, 0.89, 0.9, 0.895, 0.7], breaking=[0.0, 0.6, 0.9, 0.4, 0.1])
    assert choose(curve, "keep", "break", most=0.02).alpha == 1.0
    assert choose(curve, "keep", "break", most=0.25).alpha == 2.0
    assert choose(curve, "keep", "break", most=0.001).alpha == 0.0
    assert not choose(curve, "keep", "break", most=0.001).moved
    # Half way between 0 and 1 the broken one has lost 0.25, and the kept one 0.0025; the other sign costs more.
    assert keep_damage_at(curve, "keep", "break", break_damage=0.25) == pytest.approx(0.0025)
    # Only one sign loses 0.85; never to lose that much is to be read at the end.
    assert keep_damage_at(curve, "keep", "break", break_damage=0.85) == pytest.approx(0.4 - 0.39 * 0.05 / 0.6)
    assert keep_damage_at(curve, "keep", "break", break_damage=2.0) == pytest.approx(0.2)


def test_without_a_score_the_loss_decides(overlapping):
    network, keep, breaking = overlapping
    unscored = [replace(one, score=None) for one in (keep, breaking)]
    measured = steer(network, *unscored, k=4, alphas=(1.0,), num_nulls=1, most=0.05)
    place = measured.steering.alphas.index(measured.choice.alpha)
    assert measured.choice.break_damage == measured.steering.loss_rise("second", "test")[place]
    assert measured.figures()[0].y.log


# What it refuses, and what it warns of.


def test_equal_losses_leave_nothing(overlapping):
    network, keep, _ = overlapping
    with pytest.raises(BadInput, match=r"nothing left after projection: \|u\| = .*equal curvature"):
        steer(network, keep, replace(keep, name="the same"), k=8)


@pytest.mark.parametrize("k", [-1, 51, 200])
def test_k_must_leave_something(overlapping, k):
    network, keep, breaking = overlapping
    assert network.layout.size == 51
    with pytest.raises(BadInput, match=rf"number of keep directions k: got {k}; wanted 0 to 50"):
        steer(network, keep, breaking, k=k)


def test_away_from_a_minimum_is_said_with_the_negative_eigenvalues(overlapping):
    network, _, _ = overlapping
    far = network.at(3 * torch.randn(51, generator=generator(0, "far"), dtype=torch.float64))
    task = network.required_task()
    keep = Objective.of("keep", far, Task.of(task.inputs[:40], task.targets[:40], num_test=10))
    flags = stiff_directions(keep, 4).flags
    (flag,) = (flag for flag in flags if "not at a minimum" in flag)
    lowest = float(torch.linalg.eigvalsh(keep.operator("hessian").dense())[0])
    assert f"eigenvalues of its curvature: {lowest:.3g}" in flag
    assert "gradient norm" in flag


def test_training_mode_with_dropout_is_said(overlapping):
    network, _, _ = overlapping
    module = seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3)))
    task = network.required_task()
    noisy = Network(module, dtype=torch.float64, task=task)
    parts = [
        Objective.of(name, noisy, Task.of(task.inputs[rows], task.targets[rows], num_test=8))
        for name, rows in (("a", slice(0, 40)), ("b", slice(40, 80)))
    ]
    module.train()
    flags = steer(noisy, *parts, k=2, alphas=(1.0,), num_nulls=0).flags
    assert "the module is in training mode with 1: everything here is in evaluation mode" in flags
    assert module.training
    module.eval()
    assert not any("training mode" in flag for flag in steer(noisy, *parts, k=2, alphas=(1.0,), num_nulls=0).flags)


def test_unconverged_eigenpairs_steer_only_when_forced(overlapping, monkeypatch):
    network, keep, breaking = overlapping
    real = steering_module.eigsh

    def stubborn(operator, k, *, allow_partial=False, **options):
        if not allow_partial:
            raise NotConverged(f"{k} eigenpairs", got="2", wanted=f"{k}")
        return replace(real(operator, k, allow_partial=True, **options), flags=("not converged: 2 of 4 eigenpairs",))

    monkeypatch.setattr(steering_module, "eigsh", stubborn)
    with pytest.raises(NotConverged, match="4 eigenpairs") as caught:
        steer(network, keep, breaking, k=4, alphas=(1.0,), num_nulls=0)
    assert "unless force=True" in caught.value.__notes__[0]
    forced = steer(network, keep, breaking, k=4, alphas=(1.0,), num_nulls=0, force=True)
    assert "curvature of first: not converged: 2 of 4 eigenpairs" in forced.flags


def test_other_mistakes_are_named(overlapping):
    network, keep, breaking = overlapping
    with pytest.raises(BadInput, match="method: got sideways; wanted one of projection, complement, generalised"):
        steer(network, keep, breaking, method="sideways")
    with pytest.raises(BadInput, match="break directions: got none"):
        steer(network, keep, breaking, indices=())
    with pytest.raises(BadInput, match="finite sizes other than 0"):
        steer(network, keep, breaking, k=2, alphas=(0.0,))
    known = stiff_directions(keep, 4)
    with pytest.raises(BadInput, match="break direction: got number 9; wanted 1 to 4"):
        projected(known.spectrum, known.spectrum, known.layout, index=8)
    with pytest.raises(BadInput, match="data of objective 'blind': got no targets"):
        Objective.of("blind", network, Batch((torch.zeros(2, 4),), {}, None))
    with pytest.raises(BadInput, match="alpha: got 9"):
        curve_of([1.0] * 5, [1.0] * 5).at(9.0, "keep", "test")
    assert signed((1, -1, 2.0)) == (-2.0, -1.0, 0.0, 1.0, 2.0)


# A language model: prompts to keep, prompts to break, one block's weights.


def next_token(output, target):
    return cross_entropy(output[:, :-1].reshape(-1, output.shape[-1]), target[:, 1:].reshape(-1))


def test_one_block_of_a_language_model():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=24, n_positions=12, n_embd=32, n_layer=2, n_head=2, attn_implementation="eager")
    module = seeded(lambda: GPT2LMHeadModel(config))
    module.eval()
    stream = generator(0, "prompts")
    # One family counts upwards, the other repeats.
    start = torch.randint(12, (24, 1), generator=stream)
    counting, repeating = start + torch.arange(10), 12 + start.expand(24, 10)
    network = Network(module)
    both = torch.cat([counting, repeating])
    trained = network.with_task(Task(name="both", inputs=both, targets=both, loss=next_token))
    trained = trained.at(Trainer(optimiser=adam(0.01), num_steps=25).fit(trained).last)
    keep, breaking = (
        Objective.of(
            name,
            trained,
            Batch((prompts[:12],), {}, prompts[:12]),
            validation=Batch((prompts[12:18],), {}, prompts[12:18]),
            test=Batch((prompts[18:],), {}, prompts[18:]),
            loss=next_token,
        )
        for name, prompts in (("counting", counting), ("repeating", repeating))
    )
    assert keep.score is None
    measured = steer(
        trained,
        keep,
        breaking,
        k=4,
        parameters="transformer.h.1.*",
        kind="ggn",
        alphas=(1.0, 4.0),
        num_nulls=2,
        most=0.1,
    )
    assert all(name.startswith("transformer.h.1.") for name in measured.direction.layout.names)
    assert len(measured.null_curves[EQUAL_NORM]) == len(measured.null_curves[EQUAL_CURVATURE]) == 2
    # Both prompts are cheap to break along v_B; without the keep directions the kept ones bend less.
    assert measured.curvatures["steering"][0] < measured.curvatures[NO_PROJECTION][0]
    assert measured.steering.damage("repeating", "test")[0] != 0.0


def test_a_curve_reads_what_the_weights_give(overlapping):
    network, keep, breaking = overlapping
    along = SteeringDirection(name="given", vector=torch.ones(51, dtype=torch.float64), layout=network.layout, left=1.0)
    curve = steering_curve(network, along, [keep, breaking], (0.5,))
    there = network.at(network.theta + 0.5)
    batch = keep.test
    output = there.apply(there.params, batch)
    assert curve.at(0.5, "first", "test").loss == pytest.approx(float(cross_entropy(output, batch.target)))
    assert curve.at(0.5, "first", "test").score == pytest.approx(
        float((output.argmax(1) == batch.target).double().mean())
    )


def test_the_generalised_direction_breaks_most_for_what_it_costs(overlapping):
    from scipy.linalg import eigh

    network, keep, breaking = overlapping
    damping = 0.01
    measured = steer(network, keep, breaking, k=6, method="generalised", damping=damping, alphas=(1.0,), num_nulls=0)
    a, b = (one.dense().numpy() for one in (breaking.operator("hessian"), keep.operator("ggn")))
    values = eigh(a, b + damping * numpy.eye(len(b)), eigvals_only=True)
    u = measured.direction.vector.numpy()
    assert u @ a @ u / (u @ (b @ u + damping * u)) == pytest.approx(values[-1], rel=1e-6)
    # At the length at which it bends the break-loss as the published direction does.
    published = steer(network, keep, breaking, k=6, alphas=(1.0,), num_nulls=0)
    assert measured.curvatures["steering"][1] == pytest.approx(published.curvatures["steering"][1])
    with pytest.raises(BadInput, match="damping"):
        steer(network, keep, breaking, k=6, method="generalised", damping=-1.0, alphas=(1.0,), num_nulls=0)

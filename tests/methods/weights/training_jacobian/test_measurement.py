from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn

from tests.instruments.test_network import assert_same, snapshot
from tests.laws.operator_cases import NETWORKS
from tests.methods.weights.training_jacobian.reference import naive_worst_divergence
from tests.methods.weights.training_jacobian.small_jacobians import F64, jacobian, made_up, network, task
from tremorscope.foundations.arrays import read_arrays, write_arrays
from tremorscope.foundations.results import drawn
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import sgd
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.training_jacobian import (
    TrainingJacobianMeasurement,
    live_spectrum,
    low_variance_directions,
    measure_training_jacobian,
    training_jacobian,
)
from tremorscope.methods.weights.training_jacobian.measurement import BULK_TOLERANCE, scores
from tremorscope.methods.weights.training_jacobian.steps import probe_batches


@pytest.fixture(scope="module")
def measured() -> TrainingJacobianMeasurement:
    return measure_training_jacobian(network(), jacobian(), seed=1, overlap_share=0.2)


def test_everything_is_that_of_the_spectrum(measured):
    spectrum = live_spectrum(jacobian())
    assert torch.equal(measured.values, spectrum.values)
    assert torch.equal(measured.alignment, spectrum.alignment)
    assert (measured.num_live, measured.num_dead, measured.route, measured.flags) == (43, 4, "structured", ())
    assert all(sum(size[1:]) == 43 for size in measured.regions)
    assert measured.central.shape == (47, 9)  # a fifth of 43
    assert torch.equal(measured.central, spectrum.initial_directions(spectrum.central(9)))
    for size, alignment in zip(measured.regions, measured.span_alignment, strict=True):
        bulk = (measured.values - 1).abs() <= size.tolerance
        assert int(bulk.sum()) == size.bulk
        assert math.isnan(alignment) if size.bulk == 0 else 0 <= alignment <= 1 + 1e-12


def test_drift_is_that_of_training_and_shares_add_up(measured):
    found = jacobian()
    drift = found.last - found.first
    # Dead weights do not move, so the live directions hold all of it.
    assert float(measured.drift.norm()) == pytest.approx(float(drift.norm()), rel=1e-12)
    v = live_spectrum(found).initial_directions(torch.arange(43))
    for i in (0, 20, 42):
        assert float(measured.drift[i]) == pytest.approx(abs(float(v[:, i] @ drift)), abs=1e-12)
    inside = float(measured.drift[measured.bulk].norm())
    outside = float(measured.drift[~measured.bulk].norm())
    assert measured.bulk_drift_share == pytest.approx(inside / math.hypot(inside, outside), rel=1e-12)
    assert 0 < measured.bulk_drift_share < 1
    everything = replace(measured, values=torch.ones(43, dtype=F64))
    assert everything.bulk_drift_share == pytest.approx(1)
    assert replace(measured, values=torch.full((43,), 2.0, dtype=F64)).bulk_drift_share == 0


def test_unit_steps_start_from_the_trained_weights(measured):
    trained, batches = network().at(jacobian().last), probe_batches(network().task, 1)
    v = live_spectrum(jacobian()).initial_directions(torch.arange(43))
    for kind, batch in batches.items():
        wanted = naive_worst_divergence(trained, v, batch)
        assert torch.allclose(measured.divergence[kind], wanted, rtol=1e-8, atol=1e-14)
    nearest = (measured.values - 1).abs().argsort(stable=True)[:2]  # 200 of 4618, of 43
    assert measured.step("training") == float(measured.divergence["training"][nearest].min())
    assert measured.step("normal") != measured.step("training")


def test_the_null_without_a_network(measured):
    null = measured.input_null
    size = measured.regions[1].bulk
    basis = low_variance_directions(network(), 24)
    assert torch.equal(null.basis, basis[:, :9])
    drift = jacobian().last - jacobian().first
    assert null.drift_share == pytest.approx(float((basis[:, :size].T @ drift).norm() / drift.norm()), rel=1e-12)
    trained, batches = network().at(jacobian().last), probe_batches(network().task, 1)
    wanted = naive_worst_divergence(trained, basis[:, :2], batches["normal"])
    assert torch.allclose(null.divergence["normal"], wanted, rtol=1e-8)
    assert null.step("normal") == float(null.divergence["normal"].min())


def test_scores_are_the_trained_networks(measured):
    trained = network().at(jacobian().last)
    with torch.no_grad():
        output = trained.apply(trained.theta, trained.task.test_batch())
    wanted = nn.functional.cross_entropy(output, trained.task.test_targets)
    assert measured.scores["held-out loss"] == pytest.approx(float(wanted), rel=1e-12)
    assert measured.scores["held-out accuracy"] == float(
        (output.argmax(1) == trained.task.test_targets).double().mean()
    )
    assert measured.scores["training loss"] < scores(network())["training loss"]
    assert list(scores(Network(nn.Linear(7, 3).double(), task=task(num_test=0)))) == [
        "training loss",
        "training accuracy",
    ]
    unlabelled = replace(task(), test_targets=None)
    assert list(scores(network(task=unlabelled))) == ["training loss", "training accuracy"]


def test_small_numbers_from_vectors():
    values = torch.tensor([2.0, 1.005, 1.0, 0.991, 0.5, 0.0], dtype=F64)
    alignment = torch.tensor([0.9, 0.5, 1.0, 0.6, 0.3, -0.2], dtype=F64)
    one = made_up(0, num_params=8, values=values, alignment=alignment)
    assert one.bulk.tolist() == [False, True, True, True, False, False]
    assert one.bulk_alignment == pytest.approx(0.7)
    assert one.tail_alignment == pytest.approx(-0.2)
    assert one.share(within=0.01) == 0.5
    assert one.share(within=0.005 + 1e-12) == pytest.approx(2 / 6)
    assert one.share(within=10) == 1
    assert math.isnan(replace(one, values=torch.full((6,), 3.0, dtype=F64)).bulk_alignment)
    assert BULK_TOLERANCE == 1e-2


@pytest.mark.parametrize("null", [True, False])
def test_plain_numbers_and_arrays_make_it_whole_again(measured, tmp_path, null):
    one = measured if null else replace(measured, input_null=None, flags=("no null",))
    plain = json.loads(json.dumps(one.to_plain(), allow_nan=False))
    write_arrays(tmp_path / "arrays.safetensors", one.to_arrays())
    again = TrainingJacobianMeasurement.of(plain, read_arrays(tmp_path / "arrays.safetensors"))
    for part in fields(one):
        before, after = getattr(one, part.name), getattr(again, part.name)
        if part.name in ("central", "input_null"):
            continue
        if part.name == "span_alignment":
            assert after == pytest.approx(before, nan_ok=True, abs=0)
        elif isinstance(before, Tensor):
            assert torch.equal(before, after)
        elif part.name == "divergence":
            assert before.keys() == after.keys()
            assert all(torch.equal(before[kind], after[kind]) for kind in before)
        else:
            assert before == after, part.name
    # Bases are kept in single precision: overlaps need no more.
    assert torch.equal(again.central, one.central.float())
    assert (again.input_null is None) == (one.input_null is None)
    if null:
        assert torch.equal(again.input_null.basis, one.input_null.basis.float())
        assert again.input_null.drift_share == one.input_null.drift_share
        assert {k: v.tolist() for k, v in again.input_null.divergence.items()} == {
            k: v.tolist() for k, v in one.input_null.divergence.items()
        }
    second = TrainingJacobianMeasurement.of(again.to_plain(), again.to_arrays())
    assert second.to_plain() == again.to_plain()
    assert all(torch.equal(tensor, again.to_arrays()[name]) for name, tensor in second.to_arrays().items())


def test_tables_and_figures_are_json(measured):
    for one in (measured, made_up(0), replace(measured, divergence={}, input_null=None)):
        (table,) = one.tables()
        assert table.num_rows == 4
        json.dumps(table.to_dict(), allow_nan=False)
        figures = one.figures()
        assert [figure.name for figure in figures] == [
            name for name in ("spectrum", "alignment", "unit_steps", "drift") if one.divergence or name != "unit_steps"
        ]
        for figure in figures:
            assert len(json.dumps(drawn(figure), allow_nan=False)) > 500
            assert figure.caption.endswith(".")
            for trace in figure.traces:
                assert len(trace["x"]) == len(trace["y"])


def test_what_is_turned_right_round_is_drawn_too():
    turned = made_up(0, alignment=torch.linspace(1, -1, 18, dtype=F64))
    low, high = next(figure for figure in turned.figures() if figure.name == "alignment").y.range
    assert low < -1
    assert high > 1


def test_measuring_depends_on_its_seed_only_and_touches_nothing():
    subject = network()
    before = snapshot(subject.module)
    one, two, other = (measure_training_jacobian(subject, jacobian(), seed=seed) for seed in (1, 1, 2))
    assert_same(before, snapshot(subject.module))
    assert torch.equal(one.divergence["normal"], two.divergence["normal"])
    assert not torch.equal(one.divergence["normal"], other.divergence["normal"])
    assert torch.equal(one.divergence["training"], other.divergence["training"])


def trained(module: nn.Module, data: Task) -> Network:
    return Network(module.double(), task=data, recipe=Trainer(optimiser=sgd(0.1), num_steps=3, mode="evaluate"))


def test_regression_has_regions_and_no_unit_steps():
    subject = trained(nn.Sequential(nn.Linear(7, 4), nn.Tanh(), nn.Linear(4, 3)), task(loss="squared_error"))
    measured = measure_training_jacobian(subject, training_jacobian(subject), seed=0)
    assert measured.divergence == {}
    assert measured.flags == ("no unit steps: outputs under squared error: got real numbers; wanted logits.",)
    assert measured.input_null.divergence == {}
    assert 0 < measured.input_null.drift_share < 1
    assert list(measured.scores) == ["training loss", "held-out loss"]
    again = TrainingJacobianMeasurement.of(measured.to_plain(), measured.to_arrays())
    assert again.divergence == {}
    assert [figure.name for figure in again.figures()] == ["spectrum", "alignment", "drift"]


@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_other_networks_say_what_is_missing(name):
    case = NETWORKS[name](F64)
    subject = trained(case.module, case.task)
    measured = measure_training_jacobian(subject, training_jacobian(subject), seed=0)
    assert measured.route == "generic"
    assert measured.input_null is None
    assert "generic route: layer" in measured.flags[0]
    assert "no null without a network: low-variance directions: got layer" in measured.flags[-1]
    if name == "transformer":
        assert "no unit steps: inputs out of distribution: got torch.int64 inputs" in measured.flags[1]
        assert measured.divergence == {}
    else:
        assert set(measured.divergence) == {"training", "normal", "inverted"}

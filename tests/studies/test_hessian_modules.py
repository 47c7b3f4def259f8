"""The study at smoke size: every row with its nulls, repeatable; a tiny file in the format of the published data."""

from __future__ import annotations

import json
import math

import numpy
import pytest
import torch

from tremorscope.foundations.claims import Claim
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result
from tremorscope.instruments.pattern_digits import PatternDigits, curriculum, mixed_alone, pattern_cnn
from tremorscope.instruments.task import Task
from tremorscope.studies import hessian_modules
from tremorscope.studies.execute import execute
from tremorscope.studies.hessian_modules import ROWS, HessianModulesConfig
from tremorscope.studies.hessian_steering import STEERING_ROWS, SUPERVISED_ROWS
from tremorscope.studies.study import get_study, make_config

SMOKE = {
    "num_epochs": 1,
    "last_epochs": 1,
    "num_seeds": 2,
    "k": 3,
    "num_curvature": 60,
    "channels": [2, 2],
    "num_test": 60,
    "alphas": [1.0, 3.0],
}


def numbers(claim: Claim) -> list[float]:
    return [end for e in (claim.measured, *(null.measured for null in claim.nulls)) for end in (e.value, e.low, e.high)]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One run of a few seconds."""
    return execute("hessian-modules", overrides=SMOKE, seed=7, out=tmp_path_factory.mktemp("runs"))


def test_the_supervised_rows_are_judged_beside_their_nulls(smoke):
    result, path = smoke
    assert tuple(claim.row for claim in result.claims) == SUPERVISED_ROWS
    assert get_study("hessian-modules").rows == ROWS
    for claim in result.claims:
        assert claim.nulls, claim.row
        assert all(math.isfinite(number) for number in numbers(claim)), claim.row
        assert claim.measured.n == 2
        assert "28x28 digits" in claim.scope
    nulls = {claim.row: {null.name for null in claim.nulls} for claim in result.claims}
    assert nulls["M2a"] == nulls["M3a"]
    assert len(nulls["M2a"]) == 3
    assert (path / "report.html").is_file()
    assert [figure["name"] for figure in result.figures] == [
        "steering_digits",
        "kept_against_broken_digits",
        "steering_patterns",
        "kept_against_broken_patterns",
        "gram",
    ]


@pytest.mark.slow
def test_equal_runs_are_equal(smoke, tmp_path):
    result, _ = smoke
    again, _ = execute("hessian-modules", overrides=SMOKE, seed=7, out=tmp_path)

    def plain(one: Result) -> dict[str, object]:
        found = json.loads(json.dumps(one.to_dict()))
        del found["provenance"]
        return found

    assert plain(again) == plain(result)


@pytest.mark.slow
def test_every_row_of_the_steering_is_judged_at_desk(tmp_path, monkeypatch):
    # The sphere searches and the monitor have tests of their own.
    monkeypatch.setattr(HessianModulesConfig, "parts", lambda self: (hessian_modules.STEERING, hessian_modules.ALONE))
    overrides = {**SMOKE, "num_others": 2, "num_nulls": 2, "alone_epochs": 1, "k": 6, "num_epochs": 2}
    result, _ = execute("hessian-modules", preset="desk", overrides=overrides, seed=7, out=tmp_path)
    assert tuple(claim.row for claim in result.claims) == STEERING_ROWS
    assert all(math.isfinite(number) for claim in result.claims for number in numbers(claim))
    assert result.table("other_directions").num_rows == 2
    assert result.table("one_half_known").num_rows == 4
    assert result.table("mixed_alone").num_rows == 2


def test_a_file_of_larger_images_takes_the_published_path(tmp_path):
    stream = numpy.random.default_rng(0)
    labels = numpy.arange(120) % 10
    images = stream.integers(0, 256, size=(120, 28, 28)).astype(numpy.uint8)
    numpy.savez(
        tmp_path / "mnist.npz",
        inputs=images[:90],
        targets=labels[:90],
        test_inputs=images[90:],
        test_targets=labels[90:],
    )
    config = make_config(get_study("hessian-modules"), "paper", {"data": str(tmp_path / "mnist.npz")})
    assert isinstance(config, HessianModulesConfig)
    data = hessian_modules._data(config, 0)
    assert data.digits.inputs.max() == 1.0
    assert (data.side, data.num_train, data.digit_noise) == (28, 75, 0.2)
    network = pattern_cnn(data, channels=config.channels, hidden_activation=config.hidden_activation)
    assert network.layout.size == 3450
    phases = hessian_modules._phases(config)
    assert phases == curriculum(num_epochs=5, last_epochs=5, decay=0.7, last_decay=0.8)
    overrides = {
        "data": str(tmp_path / "mnist.npz"),
        "num_seeds": 2,
        "k": 2,
        "num_epochs": 1,
        "last_epochs": 1,
        "whole": False,
        "num_others": 0,
        "num_nulls": 2,
        "num_curvature": 20,
        "alphas": [1.0],
    }
    result, _ = execute("hessian-modules", preset="paper", overrides=overrides, seed=7, out=tmp_path)
    assert len(result.claims) == len(SUPERVISED_ROWS)
    assert "was not run" not in result.claims[0].scope


def test_the_published_size_needs_its_data(tmp_path):
    with pytest.raises(BadInput, match="data of study 'hessian-modules' at preset paper: got none"):
        execute("hessian-modules", preset="paper", seed=7, out=tmp_path)


def images(num=60, side=8, **more):
    stream = torch.Generator().manual_seed(0)
    return Task.of(torch.rand(num, side, side, generator=stream), torch.arange(num) % 10, num_test=20, **more)


def test_members_differ_and_repeat():
    config = HessianModulesConfig(num_test=60)
    one, same, other = (hessian_modules._data(config, seed) for seed in (1, 1, 2))
    assert torch.equal(one.patterns, same.patterns)
    assert torch.equal(one.training_task(curriculum()[1]).inputs[:99], same.training_task(curriculum()[1]).inputs[:99])
    assert not torch.equal(one.patterns, other.patterns)
    assert not torch.equal(one.digits.test_inputs, other.digits.test_inputs)


def test_mixed_alone_never_shows_a_pure_image():
    data = PatternDigits.of(images(), seed=0, digit_noise=0.0, pattern_noise=0.0)
    (phase,) = mixed_alone(num_epochs=2)
    shown = data.training_task(phase).inputs
    assert float(shown.max()) <= 1.0
    # Half of a pattern is on, so no image is without one, and no image is a pattern alone.
    assert bool((shown.max(dim=1).values >= 0.5).all())
    assert not bool((shown == 1).any(dim=1).all())

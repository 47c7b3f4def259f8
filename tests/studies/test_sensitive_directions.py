"""The study of sensitive directions at smoke size: rows with their nulls, planted features, the encoder."""

from __future__ import annotations

import math

import numpy
import pytest

from tests.methods.language.planted import random_gpt2, tokenizer
from tremorscope.instruments.microworld import prose
from tremorscope.studies import plateau_curves
from tremorscope.studies.execute import execute
from tremorscope.studies.plateau_curves import (
    ENCODER,
    ENCODER_UNTRAINED,
    activation_items,
    measured_part,
    minilm_folder,
)
from tremorscope.studies.sensitive_directions import (
    ANYWHERE,
    HALF,
    ROWS,
    SPHERE_CONDITIONS,
    TOWARDS_RANDOM,
    TOWARDS_REAL,
    SensitiveDirectionsConfig,
)
from tremorscope.studies.sensitive_features import PlantedRows, planted_part
from tremorscope.studies.study import get_study

SMOKE = {
    "num_seeds": 1,
    "num_bases": 3,
    "num_directions": 3,
    "num_samples": 40,
    "length": 6,
    "num_optima": 1,
    "num_starts": 2,
    "triangle": 2,
}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One run of some seconds, on a few short texts."""
    stream = numpy.random.default_rng(0)
    words = "the garden teacher of in is and module was a list value number returns string".split()  # noqa: SIM905
    made = tuple(" ".join(stream.choice(words, size=40)) for _ in range(80))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plateau_curves, "prose_texts", lambda: made)
        folder = tmp_path_factory.mktemp("models")
        specs = [str(folder / str(seed)) for seed in (0, 1)]
        for seed, spec in enumerate(specs):
            network = random_gpt2(tokenizer(), seed=seed)
            network.module.save_pretrained(spec)
            network.tokenizer.save_pretrained(spec)
        overrides = {**SMOKE, "model": f"hf:{specs[0]}", "shuffled": f"hf:{specs[1]}"}
        yield execute("sensitive-directions", overrides=overrides, seed=7, out=tmp_path_factory.mktemp("runs"))


def test_rows_are_judged_beside_their_nulls(smoke):
    result, path = smoke
    rows = [claim.row for claim in result.claims]
    assert rows == ["P8a", "P8b", "P8c", "P8d", "P8m", "P10r", "P13a", "P13b", "P13c", "P14"]
    assert set(rows) < set(ROWS) == set(get_study("sensitive-directions").rows)
    for claim in result.claims:
        assert claim.nulls
        assert math.isfinite(claim.measured.value), claim.row
    assert (path / "report.html").is_file()
    assert result.table("optimality").num_rows == 9
    assert result.table("search").num_rows == 3
    assert any(figure["name"] == "triangle_model" for figure in result.figures)


def test_planted_rows_hold_and_their_nulls_do_not():
    found = PlantedRows.of([planted_part(seed, num_searches=1) for seed in range(2)])
    claims = {claim.row: claim for claim in found.claims("quick")}
    assert claims["P13a"].holds
    assert claims["P13b"].measured.low > 0
    assert claims["P14"].measured.value > 0.5
    assert claims["P14"].nulls[0].measured.value < 0.1
    assert found.table().num_rows == 4


@pytest.mark.slow
def test_directions_are_ordered_in_the_encoder(monkeypatch):
    """Row P8: real-other before cov-random before isotropic at blocks 1 and 3; alike within 1.5 degrees at random."""
    folder = minilm_folder()
    if folder is None:
        pytest.skip("the MiniLM sentence encoder is not installed: `make real` installs it")
    pieces = tuple(piece.text for piece in prose.pieces())
    monkeypatch.setattr(plateau_curves, "prose_texts", lambda: pieces)
    config = SensitiveDirectionsConfig(encoder=f"hf:{folder}", num_bases=12)
    items = activation_items(config, 0, ("sphere",))
    for layer in (1, 3):
        trained, null = (
            measured_part(items[f"{name.replace(' ', '-')}-{layer}"], config, SPHERE_CONDITIONS)
            for name in (ENCODER, ENCODER_UNTRAINED)
        )
        real, random, isotropic = (
            trained.median(kind, HALF).value for kind in (TOWARDS_REAL, TOWARDS_RANDOM, ANYWHERE)
        )
        assert real < random < isotropic
        found = [null.median(kind, HALF).value for kind in SPHERE_CONDITIONS]
        assert max(found) - min(found) < 1.5

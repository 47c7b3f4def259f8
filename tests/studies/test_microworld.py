"""The study at smoke size, on tiny random networks from a file. The real sizes are run by `claims`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tremorscope.foundations.claims import Verdict
from tremorscope.foundations.results import Result
from tremorscope.instruments.microworld import prose
from tremorscope.studies.execute import execute
from tremorscope.studies.microworld import INIT, MODEL, RECURRENT, ROWS, SHUFFLED
from tremorscope.studies.study import get_study

SMOKE = {
    "num_seeds": 2,
    "count": 3,
    "num_prose_rows": 6,
    "prose_length": 16,
    "num_fitted": 16,
    "num_probed": 6,
    "all_professions": False,
}
NETWORKS = '''
"""Three networks of a few thousand weights that were never trained."""
from tests.methods.language.planted import random_gpt2, tokenizer


def one():
    return random_gpt2(tokenizer())


def two():
    return random_gpt2(tokenizer(), seed=1)


def three():
    return random_gpt2(tokenizer(), seed=2)
'''


@pytest.fixture(scope="module")
def overrides(tmp_path_factory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("networks")
    (folder / "networks.py").write_text(NETWORKS)
    names = {"model": "one", "untrained": "two", "shuffled": "two", "recurrent": "three"}
    return {**SMOKE, **{key: f"{folder / 'networks.py'}:{name}" for key, name in names.items()}}


@pytest.fixture(scope="module", autouse=True)
def library(tmp_path_factory):
    """A standard library of forty sentences."""
    folder = tmp_path_factory.mktemp("library")
    for number in range(40):
        text = f"Module {number} is of the garden, and the teacher of module {number} is in the garden. " * 2
        (folder / f"module{number}.py").write_text(f'"""{text}"""\n')
    with pytest.MonkeyPatch.context() as patch:
        everything = prose.examples
        patch.setattr(prose, "examples", lambda split, root=None: everything(split, root=folder))
        yield


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, overrides) -> tuple[Result, Path]:
    return execute("microworld", overrides=overrides, seed=7, out=tmp_path_factory.mktemp("runs"))


def test_every_row_is_judged_beside_its_nulls(smoke):
    result, _ = smoke
    assert sorted(claim.row for claim in result.claims) == sorted(ROWS) == sorted(get_study("microworld").rows)
    for claim in result.claims:
        names = {null.name for null in claim.nulls}
        assert names == (
            {"shuffled labels"}
            if claim.row in ("L4b", "L4d")
            else {INIT}
            if claim.row in ("L4a", "L4ar", "L4c", "L4cr")
            else {INIT, SHUFFLED}
        ), claim.row
        assert claim.measured.low <= claim.measured.value <= claim.measured.high


def test_networks_that_were_never_trained_show_nothing(smoke):
    result, _ = smoke
    held = [claim.row for claim in result.claims if claim.verdict is Verdict.HOLDS]
    assert held == []
    assert result.claim("L6").measured.low > 1


def test_thresholds_are_those_of_the_aims(smoke):
    result, _ = smoke
    for row, low in (("L1a", 0.95), ("L1d", 0.95), ("L2a", 0.97), ("L2b", 0.97), ("L3a", 0.95), ("L4a", 0.95)):
        assert result.claim(row).expected.low == low
    assert result.claim("L5a1").expected.low == result.claim("L5d2").expected.low == 0.95
    assert result.claim("L2d").expected.low == 0.97
    assert result.claim("L5b1").expected.low == pytest.approx(1 / 7)
    assert result.claim("L5b2").expected.low == pytest.approx(1 / 12)
    assert result.claim("L6").expected.high == 1.0


def test_tables_and_figures_show_all_networks(smoke):
    result, folder = smoke
    abilities = result.table("abilities")
    assert set(abilities.columns["network"]) == {MODEL, INIT, SHUFFLED, RECURRENT}
    assert set(result.table("prose").columns["predictor"]) >= {MODEL, RECURRENT, "trigram"}
    figures = {figure["name"] for figure in result.figures}
    assert figures == {"abilities", "pair_probe_layers", "pair_last_token_probe_layers"}
    assert (folder / "report.html").is_file()
    assert any("wording" in flag for flag in result.flags)


def test_members_draw_other_examples_and_nulls_are_judged_alike(smoke):
    result, _ = smoke
    rows = zip(*(result.table("abilities").columns[key] for key in ("network", "examples")), strict=True)
    most = dict(rows)
    assert most[MODEL] > 3  # two draws of three, pooled
    assert most[INIT] >= 1
    columns = result.table("abilities").columns
    values = {
        name: [
            estimate.value
            for estimate, network in zip(columns["accuracy"], columns["network"], strict=True)
            if network == name
        ]
        for name in (INIT, SHUFFLED)
    }
    assert values[INIT] == values[SHUFFLED]  # one network under both names


def test_a_second_run_without_a_recurrent_twin_judges_the_other_rows_the_same(smoke, overrides, tmp_path_factory):
    result, _ = smoke
    again, _ = execute(
        "microworld", overrides={**overrides, "recurrent": None}, seed=7, out=tmp_path_factory.mktemp("runs")
    )
    assert {claim.row for claim in again.claims} == {row for row in ROWS if not row.endswith("r")}
    for claim in again.claims:
        assert claim.to_dict() == result.claim(claim.row).to_dict()

"""The study at smoke size: a few epochs on digits, tiny random language models from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tremorscope.foundations.claims import Verdict
from tremorscope.foundations.results import Result
from tremorscope.instruments.microworld import prose
from tremorscope.studies.ace import AceConfig
from tremorscope.studies.ace_digits import DIGITS_ROWS
from tremorscope.studies.ace_language import LANGUAGE_ROWS
from tremorscope.studies.ace_language_member import CONDITIONS, CURVES, PROMPT, RANK_ONE
from tremorscope.studies.execute import execute
from tremorscope.studies.study import get_study

SMOKE = {
    "num_seeds": 2,
    "num_epochs": 2,
    "num_pairs": 1,
    "num_draws": 2,
    "num_fitted": 3,
    "num_validated": 2,
    "num_tested": 2,
    "num_rows": 2,
    "num_sentences": 1,
    "num_steps": 2,
}
NETWORKS = '''
"""A network of a few thousand weights that was never trained."""
from tests.methods.language.planted import random_gpt2, tokenizer
from tremorscope.instruments.microworld.requests import ANSWER_STARTERS, REFUSAL_STARTERS


def one():
    return random_gpt2(tokenizer(*ANSWER_STARTERS, *REFUSAL_STARTERS))
'''


@pytest.fixture(scope="module", autouse=True)
def library(tmp_path_factory):
    """A standard library of forty sentences."""
    folder = tmp_path_factory.mktemp("library")
    for number in range(40):
        text = f"Module {number} is of the garden, and the teacher of module {number} is in the garden. " * 4
        (folder / f"module{number}.py").write_text(f'"""{text}"""\n')
    with pytest.MonkeyPatch.context() as patch:
        everything = prose.examples
        patch.setattr(prose, "examples", lambda split, root=None: everything(split, root=folder))
        yield


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("networks")
    (folder / "networks.py").write_text(NETWORKS)
    model = f"{folder / 'networks.py'}:one"
    overrides = {
        **SMOKE,
        "model": model,
        "recurrent": model,
        "sites": ["acts:transformer.h.0@last"],
        "recurrent_sites": ["acts:transformer.h.1@last"],
    }
    return execute("ace", overrides=overrides, seed=7, out=tmp_path_factory.mktemp("runs"))


def test_every_row_is_judged_beside_its_nulls(smoke):
    result, folder = smoke
    assert sorted(claim.row for claim in result.claims) == sorted((*DIGITS_ROWS, *LANGUAGE_ROWS))
    assert set(get_study("ace").rows) == {claim.row for claim in result.claims}
    for claim in result.claims:
        names = {null.name for null in claim.nulls}
        assert names == ({"random direction", "untrained network"} if claim.row in DIGITS_ROWS else {"random"})
        for null in claim.nulls:
            assert not claim.expected.meets(null.measured) or claim.verdict is not Verdict.HOLDS
    assert (folder / "report.html").is_file()


def test_language_models_that_were_never_trained_show_nothing(smoke):
    result, _ = smoke
    assert [claim.row for claim in result.claims if claim.holds and claim.row in LANGUAGE_ROWS] == []


def test_every_method_and_baseline_stands_side_by_side(smoke):
    result, _ = smoke
    for network in ("model", "recurrent"):
        methods = set(result.table(f"refusals_{network}").columns["method"])
        assert methods >= {"none", *CURVES, "ablate", "LEACE", PROMPT, RANK_ONE}
        assert result.table(f"side_effects_{network}").columns["edit"] == list(CONDITIONS)
        assert set(result.table(f"sites_{network}").columns) >= {"site", "error", "forbidden at 0", "allowed at 1"}
    edits = result.table("digits_edits")
    assert set(edits.columns["network"]) == {"trained", "random direction", "untrained network"}
    assert result.table("digits_fits").num_rows == 2 * 3
    names = {figure["name"] for figure in result.figures}
    assert {"digits_ace", "digits_oblique", "refusals_model_ace", "refusals_recurrent_caa"} <= names


def test_thresholds_are_those_of_the_specification(smoke):
    result, _ = smoke
    lows = {row: result.claim(row).expected.low for row in DIGITS_ROWS}
    assert lows == {"A7": 1.0, "A8a": pytest.approx(8 / 9), "A8b": 0.1, "A9a": 0.01, "A9b": 0.95, "A9c": 0.95}


def test_a_language_model_may_be_left_out():
    assert AceConfig(recurrent=None).plan() == {"members": 10, "language models": 1, "draws of each": 5}
    assert AceConfig(model=None, recurrent=None).models() == {}

"""The study at smoke size: a few epochs on digits, tiny random language models from a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tremorscope.foundations.claims import Verdict
from tremorscope.foundations.results import Result
from tremorscope.instruments.microworld import prose
from tremorscope.methods.activations.concept_editing.free_text import FreeTextMeasurement
from tremorscope.studies.ace import AceConfig
from tremorscope.studies.ace_calibration import CALIBRATION_ROWS, NOTHING, SETTINGS, error_of
from tremorscope.studies.ace_digits import DIGITS_ROWS
from tremorscope.studies.ace_language import LANGUAGE_ROWS
from tremorscope.studies.ace_language_member import CLASSES, CURVES, LEVELS, PROMPT
from tremorscope.studies.ace_rows import RowMaker
from tremorscope.studies.ace_side_effects import COMPARED, CONDITIONS, SIDE_EFFECT_ROWS, WRITTEN, SideEffectRows
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
    "num_continuations": 1,
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
        if claim.row in DIGITS_ROWS:
            assert names == {"random direction", "untrained network"}
        else:
            assert names == ({"random", "untrained"} if claim.row.rstrip("r") in CALIBRATION_ROWS else {"random"})
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
        assert methods >= {"none", *CURVES, "ablate", "LEACE", PROMPT}
        effects = result.table(f"side_effects_{network}")
        assert effects.columns["edit"] == list(CONDITIONS)
        judged = dict(zip(effects.columns["edit"], effects.columns["texts with a verb"], strict=True))
        assert {name for name, share in judged.items() if share is not None} == set(WRITTEN)
        calibration = result.table(f"calibration_{network}")
        assert calibration.columns["method"] == list(SETTINGS)
        assert all(one is not None for one in calibration.columns["untrained network"])
        beside = dict(zip(calibration.columns["method"], calibration.columns["chance"], strict=True))
        assert [name for name, one in beside.items() if one is None] == [NOTHING]
        assert result.table(f"oblique_{network}").num_rows == 6 + 3
        assert set(result.table(f"sites_{network}").columns) >= {"site", "error", "forbidden at 0", "allowed at 1"}
    edits = result.table("digits_edits")
    assert set(edits.columns["network"]) == {"trained", "random direction", "untrained network"}
    assert result.table("digits_fits").num_rows == 2 * 3
    names = {figure["name"] for figure in result.figures}
    assert {"digits_ace", "digits_oblique", "refusals_model_ace", "refusals_recurrent_caa"} <= names
    assert {"calibration_model", "free_text_recurrent", "oblique_digits", "oblique_model_agreement"} <= names
    assert result.table("oblique_digits").num_rows == 6 + 3


def test_what_edits_cost_is_over_fits(smoke):
    result, _ = smoke
    for row in (f"{row}{ending}" for row in SIDE_EFFECT_ROWS for ending in ("", "r")):
        claim = result.claim(row)
        if claim.measured.n == 0:  # a random little model may write no verb under some fit
            assert "c" in row
            assert any("no text had a verb" in flag for flag in result.flags)
        else:
            assert claim.measured.n == SMOKE["num_draws"]
        assert claim.scope.endswith(f"intervals over {SMOKE['num_draws']} fits to different requests")
    effects = result.table("side_effects_model")
    unedited = effects.columns["nats per token"][0]
    assert unedited.low == unedited.value == unedited.high  # no edit is the same under every fit


def written(*verdicts: bool | None) -> dict[str, Any]:
    places = tuple(str(place) for place in range(len(verdicts)))
    return FreeTextMeasurement(
        prompts=places, written=places, verdicts=verdicts, clusters=places, units=places, seed=0
    ).to_plain()


def cost(**changes: Any) -> dict[str, Any]:
    """What two fits cost: under ablation the second pair of verbs is wrong in one fit, and a written verb in both."""
    right: dict[str, Any] = {name: [[True, True]] * (2 if name in COMPARED else 1) for name in CONDITIONS}
    texts = {name: [written(True, True, None)] * (2 if name in COMPARED else 1) for name in WRITTEN}
    right["ablate"] = [[True, False], [True, True]]
    texts["ablate"] = [written(True, False, None), written(False, None, None)]
    parts = {
        "prose": {"losses": {name: [[1.0, 2.0], [1.0, 2.0]] for name in CONDITIONS}},
        "grammar": {"right": right, "templates": ["a", "b"], "units": ["c", "d"]},
        "written": texts,
    }
    return parts | changes


def side_effects(**changes: Any) -> tuple[dict[str, Any], list[str]]:
    rows = SideEffectRows(network="model", cost=cost(**changes))
    claims = rows.claims(RowMaker(preset="quick", scope="here", ending=""))
    return {claim.row: claim.measured for claim in claims}, rows.flags()


def test_grammar_is_compared_fit_by_fit():
    rows, flags = side_effects()
    assert flags == []
    assert (rows["A13b"].value, rows["A13b"].n) == (pytest.approx(0.25), 2)
    assert (rows["A13c"].value, rows["A13c"].n) == (pytest.approx(0.75), 2)
    assert rows["A13b"].low < 0.25 < rows["A13b"].high


def test_some_texts_are_shown_however_many_an_edit_has():
    many = cost()
    many["written"]["none"] = [written(*[True] * 20)]
    table = SideEffectRows(network="model", cost=many).tables()[1]
    shown = [list(table.columns["edit"]).count(name) for name in WRITTEN]
    assert shown == [5, *[3] * (len(WRITTEN) - 1)]
    assert table.columns["prompt"][:5] == ["0", "4", "8", "12", "16"]


def test_grammar_that_tells_nothing_apart_or_cannot_be_judged_is_flagged():
    same = cost()
    same["grammar"]["right"]["ablate"] = [[True, True], [True, True]]
    rows, flags = side_effects(**same)
    assert rows["A13b"].low == rows["A13b"].high == 0
    assert [flag for flag in flags if flag == "model: A13b is 0 in every fit, so its interval has no width"]
    mute = cost()
    mute["written"]["ablate"][1] = written(None, None, None)
    rows, flags = side_effects(**mute)
    assert math.isnan(rows["A13c"].value)
    assert flags == ["model: under ablate, no text had a verb to judge in 1 fits"]


def test_thresholds_are_those_of_the_specification(smoke):
    result, _ = smoke
    lows = {row: result.claim(row).expected.low for row in DIGITS_ROWS}
    assert lows == {"A7": 1.0, "A8a": pytest.approx(8 / 9), "A8b": 0.1, "A9a": 0.01, "A9b": 0.95, "A9c": 0.95}


def test_calibration_errors_of_one_draw_are_the_mean_distances():
    def plain(alphas: tuple[float, ...], forbidden: list[float], allowed: list[float]) -> dict:
        """Four requests of each kind; shares are quarters."""
        rows = {
            key: [[float(place < 4 * share) for place in range(4)] for share in shares]
            for key, shares in zip(CLASSES, (forbidden, allowed), strict=True)
        }
        unedited = {"forbidden": [1.0] * 4, "allowed": [0.0, 0.0, 0.0, 1.0]}
        return {
            "alphas": list(alphas),
            "classes": {key: {"edited": one, "unedited": unedited[key]} for key, one in rows.items()},
        }

    member = {
        "responses": {
            "ACE": plain(LEVELS, [0.0, 0.25, 0.5, 0.75, 1.0], [0.25] * 5),
            "CAA": plain(LEVELS, [1.0] * 5, [0.0, 0.0, 0.0, 1.0, 1.0]),
            "ablate": plain((0.0,), [0.5], [0.0]),
            PROMPT: plain((0.0, 1.0), [1.0, 1.0], [0.25, 0.25]),
        }
    }
    assert error_of(member, "ACE", None) == pytest.approx((0.25 / 2 + 0 + 0.25 + 0.5 + 0.75 / 2) / 4 / 2)
    assert error_of(member, "ACE", (0.0, 1.0)) == pytest.approx((0 + 0 + 0.25 + 0.75) / 4)
    assert error_of(member, "ablate", (0.0,)) == pytest.approx(0.25)
    assert error_of(member, "ablate at 0, add r at 1", (0.0, 1.0)) == pytest.approx((0.5 + 0 + 0 + 0) / 4)
    assert error_of(member, PROMPT, (0.0, 1.0)) == pytest.approx((1 + 0 + 0.25 + 0.75) / 4)
    # Unedited: all of the forbidden and a quarter of the allowed, whatever is asked for.
    assert error_of(member, NOTHING, None) == pytest.approx((0.5 + (0.125 + 0 + 0.25 + 0.5 + 0.375) / 4) / 2)


def test_a_language_model_may_be_left_out():
    assert AceConfig(recurrent=None).plan() == {"members": 10, "language models": 1, "draws of each": 5}
    assert AceConfig(model=None, recurrent=None).models() == {}

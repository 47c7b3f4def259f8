from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tremorscope.foundations.results import Result


def only_run(folder):
    (path,) = folder.iterdir()
    return path


def test_a_run_prints_verdicts_and_ends_with_the_path_of_the_report(call, folder):
    answer = call("run", "coins")
    assert answer.code == 0
    report = Path(answer.out.splitlines()[-1])
    assert report.name == "report.html"
    assert report.is_file()
    result = Result.load(report.parent)
    for claim in result.claims:
        block = answer.out[answer.out.index(f" {claim.row} ") :]
        for part in (str(claim.expected), str(claim.measured), str(claim.nulls[0].measured), str(claim.verdict)):
            assert part in block, part
    assert result.summary[0] in answer.out
    assert "! few flips" in answer.out
    assert all(len(line) <= 80 for line in answer.out.splitlines()[:-1])
    assert f"Run {report.parent.name} in runs" in answer.err
    assert "Flipping 50 times." in answer.err


def test_json_is_one_document_and_nothing_else(call):
    answer = call("run", "coins", "--json", "--set", "trouble=chatter")
    assert answer.code == 0
    document = answer.document
    assert Path(document["report"]).is_file()
    assert document["result"] == json.loads((Path(document["path"]) / "result.json").read_text())
    assert "this study prints" in answer.err


def test_options_reach_the_study(call):
    result = call(
        "run", "coins", "--preset", "desk", "--seed", 107, "--set", "mint.bias=0.6", "--set", "flips=20", "--json"
    ).document["result"]
    assert (result["preset"], result["seed"], len(result["tables"][0]["columns"]["heads"])) == ("desk", 107, 5)
    assert (result["config"]["mint"]["bias"], result["config"]["flips"]) == (0.6, 20)
    assert result["provenance"]["command"] == (
        "tremorscope run coins --preset desk --seed 107 --set mint.bias=0.6 --set flips=20"
    )


def test_strict_exits_with_4_when_a_claim_fails(call):
    document = call("run", "coins", "--json").document
    assert "fails" in [claim["verdict"] for claim in document["result"]["claims"]]
    assert call("run", "coins", "--strict").code == 4
    assert call("resume", "nothing", "--strict").code == 2


def test_a_dry_run_shows_the_plan_and_creates_nothing(call, folder):
    answer = call("run", "coins", "--dry-run", "--preset", "desk", "--set", "flips=77", "--jobs", 2)
    assert answer.code == 0
    for part in ("5 members", "2 CPU-seconds", "Are these coins fair?", "seed 100", "2 worker processes"):
        assert part in answer.out
    assert re.search(r"flips +77 +Flips of each coin\.", answer.out)
    document = call("run", "coins", "--dry-run", "--json").document
    assert document["plan"] == {"members": 3}
    assert document["config"]["mint"] == {"bias": 0.9, "metal": "gold"}
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "coin"], "study: got coin; wanted one of coins. Did you mean 'coins'?"),
        (["run", "coins", "--set", "flip=3"], "Did you mean 'flips'?"),
        (["run", "coins", "--set", "flips"], "--set: got flips; wanted KEY=VALUE. For example --set num_seeds=5."),
        (["run", "coins", "--set", "flips=few"], "flips of study 'coins': got 'few'; wanted a valid integer."),
        (["run", "coins", "--preset", "paper"], "preset of study 'coins': got paper; wanted quick or desk."),
        (["run", "coins", "--device", "cuda"], "key of study 'coins': got device; wanted one of"),
        (["run", "coins", "--set", "trouble=bad input"], "got NaN at step 3; wanted finite numbers. Lower lr."),
        (["list", "studes"], "Did you mean 'studies'?"),
        (["show", "2026"], "There are no runs in runs"),
        (["claims", "coins", "--preset", "paper"], "wanted quick or desk"),
        (["claims", "--preset", "papr"], "--preset: got papr; wanted one of quick, desk, paper"),
        (["rnu"], "No such command 'rnu'. Did you mean 'run'?"),
        (["run", "coins", "--preste", "desk"], "--preset"),
        (["run"], "Missing argument"),
        (["run", "coins", "--seed", "first"], "'--seed'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_2(call, words, sentence):
    answer = call(*words)
    assert answer.code == 2
    assert sentence in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


def test_a_mistake_is_json_too_when_json_was_asked_for(call):
    answer = call("run", "coins", "--set", "flip=3", "--json")
    assert answer.code == 2
    assert "Did you mean 'flips'?" in answer.document["error"]
    assert "Did you mean 'flips'?" in answer.err
    assert "Try: tremorscope run --help" in call("run", "coins", "--jsn", "--json").document["notes"]


@pytest.mark.parametrize("how", ["option", "variable"])
def test_debug_shows_the_traceback_of_a_mistake(call, monkeypatch, how):
    words = ["run", "coins", "--set", "flip=3"]
    if how == "option":
        words.append("--debug")
    else:
        monkeypatch.setenv("TREMORSCOPE_DEBUG", "1")
    answer = call(*words)
    assert answer.code == 2
    assert "Traceback" in answer.err


def test_a_run_below_a_file_is_refused_before_anything_is_lost(call, folder):
    (folder / "file").write_text("mine")
    answer = call("run", "coins", "--out", folder / "file" / "runs")
    assert answer.code == 2
    assert answer.err.startswith("cannot write")
    assert "--out" in answer.err
    assert (folder / "file").read_text() == "mine"


def test_a_bug_has_a_traceback_exit_1_and_a_way_on(call, folder):
    answer = call("run", "coins", "--set", "trouble=bug")
    path = only_run(folder / "runs")
    assert answer.code == 1
    assert "ZeroDivisionError: a planted bug" in answer.err
    assert f"tremorscope resume {path.name}" in answer.err
    assert "bug in tremorscope" in answer.err
    shown = call("show", path.name)
    assert shown.code == 0
    assert "failed" in shown.out
    assert "a planted bug" in shown.out
    assert "members 1/3" in shown.out
    again = call("resume", path.name)
    assert again.code == 1, "the planted bug is in the configuration"


def test_the_way_on_names_the_path_where_an_id_is_not_enough(call, folder):
    answer = call("run", "coins", "--set", "trouble=bug", "--out", folder / "other place")
    assert f"tremorscope resume '{only_run(folder / 'other place')}'" in answer.err


def test_without_arguments_there_is_help(call):
    assert "examine" in call().out
    assert call().code == 0
    assert call("--version").out.startswith("tremorscope 0.")

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result
from tremorscope.foundations.run import Run
from tremorscope.foundations.run_list import read_header
from tremorscope.studies.execute import execute, resume


def without_provenance(path: Path) -> dict[str, object]:
    data = json.loads((path / "result.json").read_text())
    data.pop("provenance")
    return data


def test_a_run_leaves_result_report_and_provenance(coins, tmp_path):
    result, path = execute(coins, overrides={"mint.bias": "0.8"}, seed=101, out=tmp_path, jobs=2)
    assert Result.load(path).to_dict() == result.to_dict()
    assert (path / "report.html").stat().st_size > 1000
    assert read_header(path).status == "finished"
    kept = result.provenance
    assert kept["command"] == "tremorscope run coins --preset quick --seed 101 --jobs 2 --set mint.bias=0.8"
    assert (kept["run"], kept["jobs"], kept["sittings"]) == (path.name, 2, 1)
    assert kept["environment"]["packages"]["torch"] == torch.__version__
    assert 0 < kept["cpu_seconds"] < 60
    assert 0 < kept["seconds"] < 60
    assert isinstance(kept["pid"], int), "what the study itself put there stays"


def test_two_runs_with_one_seed_differ_in_provenance_only(coins, tmp_path):
    (_, first), (_, second), (_, other) = (execute("coins", seed=seed, out=tmp_path) for seed in (100, 100, 101))
    assert without_provenance(first) == without_provenance(second)
    assert without_provenance(first) != without_provenance(other)
    for part in ("tables", "figures"):
        for file in (first / part).iterdir():
            assert file.read_bytes() == (second / part / file.name).read_bytes()


def test_a_resumed_run_equals_an_unbroken_one(coins, tmp_path):
    with pytest.raises(ZeroDivisionError, match="planted"):
        execute(coins, overrides={"trouble": "bug"}, out=tmp_path)
    (broken,) = tmp_path.iterdir()
    assert read_header(broken).status == "failed"
    before = (broken / "items" / "member-0.json").stat().st_mtime_ns

    # The bug is mended: the same request without it.
    manifest = json.loads((broken / "manifest.json").read_text())
    manifest["request"]["config"]["trouble"] = ""
    manifest["request"]["set"] = {}
    (broken / "manifest.json").write_text(json.dumps(manifest))
    result, path = resume(broken)
    assert path == broken
    assert (broken / "items" / "member-0.json").stat().st_mtime_ns == before, "finished items are not done again"
    assert result.provenance["sittings"] == 2
    _, unbroken = execute(coins, out=tmp_path)
    assert without_provenance(broken) == without_provenance(unbroken)


def test_a_user_mistake_marks_the_run_and_passes_through(coins, tmp_path):
    with pytest.raises(BadInput, match=r"got NaN at step 3; wanted finite numbers\. Lower lr\."):
        execute(coins, overrides={"trouble": "bad input"}, out=tmp_path)
    (path,) = tmp_path.iterdir()
    assert read_header(path).status == "failed"
    assert not (path / "report.html").exists()


def test_a_wrong_key_creates_nothing(coins, tmp_path):
    with pytest.raises(BadInput, match="Did you mean 'flips'"):
        execute(coins, overrides={"flip": 3}, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_finished_run_is_not_resumed(coins, tmp_path):
    _, path = execute(coins, out=tmp_path)
    with pytest.raises(BadInput, match="is finished"):
        resume(path)


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"verb": "serve"}, "got serve; wanted run, examine, train or steer"),
        ({"verb": "run", "study": "coin", "config": {}, "seed": 1}, "Did you mean 'coins'"),
        ({"verb": "run", "study": "coins", "config": {"flip": 1}, "seed": 1}, "got flip; .* Did you mean 'flips'"),
        ({"verb": "examine", "model": None}, "wanted a model that can be loaded by name"),
    ],
)
def test_a_request_of_another_version_is_refused(coins, tmp_path, request_, sentence):
    path = Run.create(tmp_path, name="other", request=request_).path
    with pytest.raises(BadInput, match=sentence):
        resume(path)


def test_a_study_that_answers_for_another_is_a_bug(coins, tmp_path, monkeypatch):
    from dataclasses import replace

    impostor = replace(coins, name="notes")
    with pytest.raises(RuntimeError, match="study 'notes' returned a result of 'coins'"):
        execute(impostor, out=tmp_path)

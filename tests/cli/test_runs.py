"""The verbs that look at what has been run: list, show, report, resume, claims, doctor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tremorscope.cli import doctor
from tremorscope.instruments import hub


@pytest.fixture
def finished(call):
    """Path of one finished run."""
    return Path(call("run", "coins", "--json").document["path"])


def test_list_shows_studies_models_data_and_runs(call, finished):
    everything = call("list", "--json").document
    assert list(everything) == ["studies", "models", "data", "runs"]
    assert everything["studies"][0]["presets"] == {"quick": "1 CPU-second", "desk": "2 CPU-seconds"}
    assert "builtin:digits-mlp" in [model["name"] for model in everything["models"]]
    assert "builtin:digits" in [data["name"] for data in everything["data"]]
    assert everything["runs"][0]["status"] == "finished"
    assert call("list", "runs", "--json").document == everything["runs"]
    text = call("list").out
    for part in ("Are these coins fair?", "builtin:digits-mlp", "builtin:digits", finished.name):
        assert part in text
    assert call("list", "runs", "--out", "elsewhere").out.strip() == "No runs in elsewhere yet."


def test_show_gives_what_the_run_gave(call, finished):
    answer = call("show", finished.name[:20])
    assert answer.code == 0
    assert answer.out.splitlines()[0].startswith(f"{finished.name} finished, preset quick, seed 100")
    assert "expected  at least 0.7" in answer.out
    assert answer.out.splitlines()[-1] == f"runs/{finished.name}/report.html"
    assert call("show", finished, "--json").document["result"] == json.loads((finished / "result.json").read_text())


def test_a_half_written_run_is_named_by_list_and_refused_by_the_others(call, finished):
    manifest = finished / "manifest.json"
    manifest.write_text(manifest.read_text()[:100])
    assert call("list", "runs", "--json").document[0]["status"] == "damaged"
    for verb in ("show", "resume"):
        answer = call(verb, finished.name)
        assert answer.code == 2
        assert "half written" in answer.err
        assert "Traceback" not in answer.err
    assert "wanted a finished run" in call("report", finished.name).err


def test_a_finished_run_is_not_resumed(call, finished):
    answer = call("resume", finished.name)
    assert answer.code == 2
    assert f"tremorscope show {finished.name}" in answer.err


def test_an_interrupted_run_goes_on_where_it_stopped(call, finished):
    """A killed process leaves the manifest saying "running", and no result."""
    manifest = json.loads((finished / "manifest.json").read_text())
    (finished / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    before = json.loads((finished / "result.json").read_text())
    (finished / "result.json").unlink()
    (finished / "items" / "member-2.json").unlink()
    assert call("show", finished.name, "--json").document["status"] == "interrupted"
    answer = call("resume", finished.name, "--json")
    assert answer.code == 0
    after = answer.document["result"]
    assert after.pop("provenance")["sittings"] == 2
    before.pop("provenance")
    assert after == before


def test_report_draws_one_run_again_and_several_together(call, finished, folder):
    (finished / "report.html").unlink()
    assert call("report", finished.name).out.strip() == f"runs/{finished.name}/report.html"
    second = call("run", "coins", "--seed", 101, "--json").document["run"]
    document = call("report", finished.name, second, "-o", "both.html", "--json").document
    assert document == {"report": "both.html", "runs": [finished.name, second]}
    assert (folder / "both.html").read_text().count("coins never show heads") >= 2


def test_claims_runs_and_merges(call, folder):
    answer = call("claims")
    assert answer.code == 0
    assert answer.out.splitlines()[-2:] == ["2 rows, 2 of them new.", "docs/claims.md"]
    kept = json.loads((folder / "docs" / "claims.json").read_text())["rows"]
    rows = call("claims", "coins", "--preset", "desk", "--json").document["rows"]
    assert len(rows) == 4
    assert [row for row in rows if row["preset"] == "quick"] == kept, "rows that were not run are not rewritten"
    assert (folder / "docs" / "claims.md").read_text().count("| coins") == 4
    assert call("claims", "--strict").code == 4


def test_claims_takes_a_finished_run_instead(call, finished, folder):
    answer = call("claims", "--from-run", finished.name, "--json")
    assert answer.code == 0
    assert len(answer.document["rows"]) == 2
    assert len(list((folder / "runs").iterdir())) == 1, "nothing was run"
    changed = call("run", "coins", "--set", "flips=20", "--json").document["run"]
    refused = call("claims", "--from-run", changed)
    assert refused.code == 2
    assert "got other values of flips" in refused.err
    both = call("claims", "coins", "--from-run", finished.name)
    assert both.code == 2
    assert "a name would run that study anew" in both.err


def test_claims_goes_on_after_a_study_that_cannot_run(call, folder, monkeypatch):
    from dataclasses import replace

    from tremorscope.foundations.errors import BadInput
    from tremorscope.studies import study as registry

    def refuse(config, seed, run):
        raise BadInput("data", got="none", wanted="some")

    good = registry.get_study("coins")
    monkeypatch.setitem(registry._registry, "bad", replace(good, name="bad", run=refuse))
    answer = call("claims", "--json")
    assert answer.code == 3
    assert answer.document["not_finished"] == ["bad"]
    assert len(answer.document["rows"]) == 2
    assert "bad: data: got none; wanted some." in answer.err


def test_a_damaged_scoreboard_is_found_before_the_work(call, folder):
    (folder / "docs").mkdir()
    (folder / "docs" / "claims.json").write_text("{")
    assert call("claims").code == 2
    assert not (folder / "runs").exists()


def test_doctor_has_a_line_for_everything_and_a_remedy_for_warnings(call, monkeypatch, folder):
    (folder / "file").write_text("")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TREMORSCOPE_CACHE", str(folder / "file" / "cache"))
    monkeypatch.setenv("TREMORSCOPE_RUNS", str(folder / "new" / "runs"))
    answer = call("doctor", "--json")
    assert answer.code == 0
    checks = {check["name"]: check for check in answer.document["checks"]}
    assert list(checks) == [
        "versions",
        "torch build",
        "threads",
        "devices",
        "memory",
        "cache",
        "runs",
        "browser",
        "hub",
    ]
    assert checks["cache"]["status"] == "warn"
    assert "TREMORSCOPE_CACHE" in checks["cache"]["remedy"]
    assert checks["runs"]["status"] == "ok"
    assert not (folder / "new").exists(), "looking creates nothing"
    assert checks["hub"]["found"].startswith("offline")
    lines = call("doctor").out.splitlines()
    assert sum(line.startswith(("ok ", "warn ")) for line in lines) == len(checks)


def test_doctor_does_not_wait_for_a_hub_that_does_not_answer(monkeypatch):
    def refuse(*address, **options):
        raise OSError("no route")

    for name in hub.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub.socket, "create_connection", refuse)
    assert "does not answer" in doctor.hub_check().found

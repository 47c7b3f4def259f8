from __future__ import annotations

import json

import pytest

from tremorscope.foundations.results import Result
from tremorscope.foundations.run_list import find_run


@pytest.fixture
def runs(call):
    """Ids of two runs that differ in seed and in one nested key."""
    return [
        call("run", "coins", "--json", *words).document["run"]
        for words in ((), ("--seed", 101, "--set", "mint.bias=0.2"))
    ]


def test_differences_are_those_of_the_result_files(call, runs, folder):
    document = call("compare", *runs, "--json").document
    assert {each["key"]: (each["first"], each["second"]) for each in document["settings"]} == {
        "seed": (100, 101),
        "config.mint.bias": (0.9, 0.2),
    }
    one, two = (Result.load(find_run(run, folder / "runs")) for run in runs)
    assert len(document["claims"]) == 2
    for pair in document["claims"]:
        row = pair["id"].partition("/")[2]
        assert pair["first"] == json.loads(json.dumps(one.claim(row).to_dict()))
        assert pair["second"]["measured"]["value"] == two.claim(row).measured.value
        assert pair["apart"] is True


def test_the_screen_is_80_columns_wide(call, runs, folder):
    answer = call("compare", *runs)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[:2] == [f"A  {runs[0]}", f"B  {runs[1]}"]
    assert max(map(len, lines)) <= 80
    one, two = (Result.load(find_run(run, folder / "runs")) for run in runs)
    text = " ".join(answer.out.split())
    for part in ("config.mint.bias 0.9 0.2", "seed 100 101", str(one.claim("C1").measured), "fails", "apart"):
        assert part in text
    assert str(two.claim("C1").measured) in text
    assert lines[-1] == "Equal: 0 claims, 0 estimates in tables."


def test_equal_runs_are_said_to_be_equal(call, runs):
    answer = call("compare", runs[0], runs[0])
    assert answer.out.splitlines()[2:] == ["", "Equal: 2 claims, 0 estimates in tables."]


def test_estimates_that_look_alike_are_told_so(call, folder, runs):
    path = find_run(runs[0], folder / "runs") / "result.json"
    other = find_run(runs[1], folder / "runs") / "result.json"
    data = json.loads(path.read_text())
    estimate = data["claims"][0]["measured"]
    for file, by in ((path, 0.0), (other, 1e-9)):
        cells = [{"estimate": estimate | {"value": estimate["value"] + by * (row < 2)}} for row in range(30)]
        table = data["tables"][0] | {"name": "many", "columns": {"row": list(range(30)), "x": cells}}
        file.write_text(json.dumps(data | {"tables": [table]}))
    answer = call("compare", *runs)
    assert answer.out.count("same to 4 digits") == 2
    assert "Equal: 2 claims, 28 estimates in tables." in answer.out
    for file, by in ((path, 0.0), (other, 5.0)):
        cells = [
            {"estimate": {k: v + by * (row + 1) if k in ("value", "low", "high") else v for k, v in estimate.items()}}
            for row in range(30)
        ]
        table = data["tables"][0] | {"name": "many", "columns": {"row": list(range(30)), "x": cells}}
        file.write_text(json.dumps(data | {"tables": [table]}))
    answer = call("compare", *runs)
    assert "... and 10 more; --json has all." in answer.out
    assert len(call("compare", *runs, "--json").document["estimates"]) == 30


def test_unfinished_and_unknown_runs_are_refused(call, runs, folder):
    broken = call("run", "coins", "--set", "trouble=bug")
    assert broken.code == 1
    (path,) = [path for path in (folder / "runs").iterdir() if path.name not in runs]
    answer = call("compare", runs[0], path.name)
    assert answer.code == 2
    assert f"run {path.name}: got failed; wanted a finished run. Finish it with" in answer.err
    assert call("compare", runs[0], "nothing").code == 2
    assert "Missing argument" in call("compare", runs[0]).err

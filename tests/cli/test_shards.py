"""Several processes and one run: the whole way, through the command line."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from tremorscope.foundations.run_list import read_header
from tremorscope.foundations.run_record import read_events


@pytest.fixture
def dice(call, monkeypatch):
    """The command line in this process, knowing the dice too."""
    monkeypatch.delitem(import_module("sys").modules, "dice", raising=False)
    import_module("dice")
    return call


def only_run(root: Path) -> Path:
    (path,) = root.iterdir()
    return path


def numbers(document):
    """A result without what differs between two runs of the same."""
    return {key: value for key, value in document["result"].items() if key != "provenance"}


def thrown(path):
    return Counter(event["die"] for event in read_events(path)[0] if event["kind"] == "thrown")


def unsharded(dice, *words):
    return dice("run", "dice", *words, "--out", "unsharded", "--json").document


def test_two_processes_at_once_give_the_result_of_one(start, dice, tmp_path):
    words = ("run", "dice", "--set", "seconds=0.1", "--json")
    processes = [start(*words, "--shard", shard) for shard in ("1/2", "2/2")]
    answers = [process.communicate(timeout=60) for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) in ([0, 3], [0, 0]), [err for _, err in answers]  # [0, 0]: both ended at one moment
    document = json.loads(answers[codes.index(0)][0])
    path = tmp_path / document["path"]
    assert path == only_run(tmp_path / "runs"), "both found one run"
    assert json.loads((path / "result.json").read_text()) == document["result"]
    assert numbers(document) == numbers(unsharded(dice, "--set", "seconds=0.1"))
    assert thrown(path) == {f"die-{i}": 1 for i in range(8)}, "nothing was computed twice"
    header = read_header(path)
    assert header.status == "finished"
    assert header.seconds > 0.8, "the time of both"
    assert {event["shard"] for event in read_events(path)[0] if event["kind"] == "joined"} == {"1/2", "2/2"}
    assert (
        document["result"]["provenance"]["command"]
        == "tremorscope run dice --preset quick --seed 100 --set seconds=0.1"
    )
    assert Path(tmp_path / document["report"]).is_file()


def test_a_killed_shard_is_made_good_by_resume(start, dice, tmp_path):
    process = start("run", "dice", "--set", "seconds=0.3", "--shard", "2/2")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/items/*.json")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    path = only_run(tmp_path / "runs")
    refused = dice("resume", path.name)
    assert refused.code == 2
    assert "got shard 2/2 at work; wanted a run that stopped" in refused.err
    assert read_header(path).status == "running"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_header(path).status == "interrupted"
    before = thrown(path)
    (path / "items" / ".die-3.json.77.tmp").write_text("{")

    answer = dice("run", "dice", "--set", "seconds=0.3", "--shard", "1/2", "--json")
    assert answer.code == 3
    assert answer.document["status"] == "partly done"
    assert list(answer.document["missing"]) == ["2/2"]
    assert f"or let one process finish it all with: tremorscope resume {path.name}" in answer.err
    resumed = dice("resume", path.name, "--json")
    assert resumed.code == 0
    assert numbers(resumed.document) == numbers(unsharded(dice, "--set", "seconds=0.3"))
    assert sum(thrown(path).values()) == 8, "what was finished was not computed again"
    assert before <= thrown(path)
    assert list(path.rglob("*.tmp")) == []


def test_a_shard_that_never_ran_is_named(dice, folder):
    for shard in ("1/3", "3/3"):
        answer = dice("run", "dice", "--shard", shard)
        assert answer.code == 3
        assert answer.out == ""
        assert "Traceback" not in answer.err
    path = only_run(folder / "runs")
    assert f"Run {path.name} is partly done: 5 of 8 items." in answer.err
    assert "Missing: shard 2/3 (not running) die-" in answer.err
    assert "Start the same with --shard 2/3" in answer.err
    assert not (path / "result.json").exists()
    shown = dice("show", path.name)
    assert "Partly done: 5 of 8 items when the last shard ended." in shown.out
    assert f"tremorscope resume {path.name}" in shown.out
    assert dice("show", path.name, "--json").document["partly_done"]["missing"] == {"2/3": sorted(set(missing(path)))}

    last = dice("run", "dice", "--shard", "2/3", "--json")
    assert last.code == 0
    assert numbers(last.document) == numbers(unsharded(dice))
    again = dice("run", "dice", "--shard", "1/3", "--json")
    assert (again.code, again.document) == (0, last.document), "a task that is queued once more does no harm"
    assert "was finished before: nothing was computed" in again.err


def missing(path):
    finished = {file.stem for file in (path / "items").glob("*.json")}
    return [f"die-{i}" for i in range(8) if f"die-{i}" not in finished]


def test_other_work_is_another_run(dice, folder):
    dice("run", "dice", "--shard", "1/2")
    dice("run", "dice", "--shard", "1/2", "--jobs", "1", "--set", "num_seeds=8")  # the same, said otherwise
    assert len(list((folder / "runs").iterdir())) == 1
    dice("run", "dice", "--shard", "1/2", "--seed", "101")
    dice("run", "dice", "--shard", "1/2", "--set", "num_seeds=7")
    assert len(list((folder / "runs").iterdir())) == 3


def test_a_study_that_cannot_be_shared_is_done_by_one_shard(dice):
    answer = dice("run", "coins", "--shard", "1/2", "--json")
    assert answer.code == 0
    assert "warning: The items of this work cannot be shared" in answer.err
    assert numbers(answer.document) == numbers(dice("run", "coins", "--json").document)


def test_a_bug_in_one_shard_ends_that_shard_alone(dice, folder, monkeypatch):
    module = import_module("dice")

    def trip(item, run):
        raise ZeroDivisionError("a planted bug")

    with monkeypatch.context() as patch:
        patch.setattr(module, "throw", trip)
        answer = dice("run", "dice", "--shard", "1/2")
    assert answer.code == 1
    assert "a planted bug" in answer.err
    path = only_run(folder / "runs")
    assert json.loads((path / "manifest.json").read_text())["status"] == "running"
    assert read_header(path).status == "interrupted"
    assert dice("run", "dice", "--shard", "2/2").code == 3
    assert dice("run", "dice", "--shard", "1/2").code == 0


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "1/2/3", "-1/2"])
def test_a_shard_is_written_i_of_n(dice, folder, shard):
    answer = dice("run", "dice", f"--shard={shard}")
    assert answer.code == 2
    assert f"shard: got {shard}; wanted i/n with 1 <= i <= n. The second of three is 2/3." in answer.err
    assert not (folder / "runs").exists()


def test_a_dry_run_of_a_shard_creates_nothing(dice, folder):
    assert "Shard 2/3" in dice("run", "dice", "--shard", "2/3", "--dry-run").out
    assert dice("run", "dice", "--shard", "2/3", "--dry-run", "--json").document["shard"] == "2/3"
    assert not (folder / "runs").exists()

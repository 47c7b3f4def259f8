import json
import subprocess
import sys
from pathlib import Path

import pytest

from tremorscope.foundations import run_record as module
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.run_list import find_run, list_runs, runs_root

REQUEST = {"verb": "run", "study": "waves", "preset": "quick", "seed": 100, "config": {"width": 4}, "jobs": 1}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs"


def plant(root, run_id, **changes):
    path = root / run_id
    path.mkdir(parents=True)
    manifest = {
        "schema": "tremorscope.run/1",
        "id": run_id,
        "name": "waves",
        "request": REQUEST,
        "status": "finished",
        "started": "2026-01-01T00:00:00.000+00:00",
        "heartbeat": "2026-01-01T00:00:00.000+00:00",
        "seconds": 1.5,
    }
    (path / "manifest.json").write_text(json.dumps(manifest | changes))
    return path


def test_runs_are_found_by_id_prefix_and_path(root):
    first = plant(root, "20260101-000000-waves-0001")
    second = plant(root, "20260102-000000-waves-0002")
    assert find_run(first.name, root) == first
    assert find_run("20260102", root) == second
    assert find_run(str(second), Path("elsewhere")) == second


def test_runs_that_are_not_found_are_told_what_there_is(root, tmp_path):
    with pytest.raises(BadInput, match=r"There are no runs in .*TREMORSCOPE_RUNS"):
        find_run("2026", root)
    plant(root, "20260101-000000-waves-0001")
    plant(root, "20260102-000000-ponds-0002")
    with pytest.raises(BadInput, match="is not one run: got 20260101-000000-waves-0001, 20260102-000000-ponds-0002"):
        find_run("2026", root)
    with pytest.raises(BadInput, match=r"Did you mean 20260101-000000-waves-0001\?"):
        find_run("waves", root)
    with pytest.raises(BadInput, match=r"Did you mean 20260102-000000-ponds-0002"):
        find_run("20260102-000000-ponds-0003", root)
    with pytest.raises(BadInput, match="The latest is 20260102-000000-ponds-0002"):
        find_run("zzz", root)
    with pytest.raises(BadInput, match="The latest is"):
        find_run("", root)
    with pytest.raises(BadInput, match=r"is no run directory: got no manifest.json"):
        find_run(str(tmp_path), root)


def test_the_list_is_headers_latest_first(root, tmp_path):
    plant(root, "20260101-000000-waves-0001")
    plant(root, "20260102-000000-waves-0002", started="2026-01-02T00:00:00+00:00", status="failed")
    (root / "notes").mkdir()
    (root / "file.txt").write_text("not a run")
    (root / "20260103-000000-waves-0003").mkdir()
    headers = list_runs(root)
    assert [header.id[-4:] for header in headers] == ["0002", "0001", "0003"]
    assert [header.status for header in headers] == ["failed", "finished", "damaged"]
    assert (headers[1].name, headers[1].preset, headers[1].seed, headers[1].seconds) == ("waves", "quick", 100, 1.5)
    assert list_runs(tmp_path / "nothing") == []
    assert list_runs(root / "file.txt") == []


def test_listing_reads_one_small_file_a_run(root, monkeypatch):
    for index in range(20):
        path = plant(root, f"20260101-000000-waves-{index:04x}")
        (path / "events.jsonl").write_text("x" * 1000)
    read = []
    monkeypatch.setattr(module, "read_json", lambda path: read.append(path.name) or json.loads(path.read_text()))
    assert len(list_runs(root)) == 20
    assert read == ["manifest.json"] * 20


def test_where_runs_live(monkeypatch):
    monkeypatch.delenv("TREMORSCOPE_RUNS", raising=False)
    assert runs_root(None) == Path("runs")
    monkeypatch.setenv("TREMORSCOPE_RUNS", "/data/runs")
    assert runs_root(None) == Path("/data/runs")
    assert runs_root(Path("here")) == Path("here")


def test_listing_runs_needs_no_torch():
    script = (
        "import sys; from pathlib import Path; from tremorscope.foundations.run_list import list_runs; "
        "list_runs(Path('nothing')); print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"

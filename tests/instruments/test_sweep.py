import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.run import _KEY, Run
from tremorscope.foundations.run_record import read_events
from tremorscope.foundations.shard import PartlyDone, Shard
from tremorscope.instruments.sweep import Sweep, point_key

SWEEP = Sweep({"lr": [0.1, 1e-5], "seed": range(3), "site": ["input", "weights:*"]})


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "runs", name="sweep", request={})
    yield run
    run.close()


def cells(lr, seed, site, run):
    return {
        "loss": lr * seed,
        "size": Estimate(value=lr, low=-math.inf, high=lr, level=0.99, n=3, method="t"),
        "diverged": math.inf if seed == 2 else None,
        "label": f"{site}/{seed}",
        "is_even": seed % 2 == 0,
    }


def test_the_table_has_a_row_for_each_point_with_the_last_axis_fastest():
    table = SWEEP.run(cells, name="map", title="A map", caption="Loss.")
    assert SWEEP.plan() == table.num_rows == 12
    assert list(table.columns) == ["lr", "seed", "site", "loss", "size", "diverged", "label", "is_even"]
    assert table.columns["site"][:3] == ["input", "weights:*", "input"]
    assert table.columns["seed"][:7] == [0, 0, 1, 1, 2, 2, 0]
    assert table.columns["loss"] == [lr * seed for lr in (0.1, 1e-5) for seed in range(3) for _ in range(2)]
    assert table.columns["size"][0] == Estimate(value=0.1, low=-math.inf, high=0.1, level=0.99, n=3, method="t")
    assert table.columns["diverged"][3:5] == [None, math.inf]
    assert (table.name, table.title, table.caption) == ("map", "A map", "Loss.")


def test_rows_read_again_are_the_rows_computed(run):
    first = SWEEP.run(cells, run=run)
    again = SWEEP.run(lambda **point: pytest.fail("computed again"), run=run)
    assert first == again == SWEEP.run(cells)


def test_two_sweeps_of_one_run_do_not_mix(run):
    axis = Sweep({"seed": [0, 1]})
    assert axis.run(lambda seed, run: {"x": seed}, run=run, name="first").columns["x"] == [0, 1]
    assert axis.run(lambda seed, run: {"x": -seed}, run=run, name="second").columns["x"] == [0, -1]


def test_the_run_reaches_the_function(run):
    seen = []
    Sweep({"a": [1]}).run(lambda a, run: seen.append(run) or {"b": 1}, run=run)
    assert seen == [run]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"a b": [1]}, "name of a sweep axis: got 'a b'"),
        ({"run": [1]}, "name of a sweep axis: got 'run'"),
        ({"a": []}, r"axis 'a': got \[\]; wanted a sequence of at least one value"),
        ({"a": "text"}, "axis 'a': got 'text'"),
        ({"a": [1, 2, 1]}, "axis 'a': got 1 more than once"),
        ({"a": [1, "1"]}, "axis 'a': got 1 more than once"),
        ({"a": [object()]}, r"value on axis 'a': got object.* Put names on the axis"),
    ],
)
def test_axes_that_name_nothing_are_refused(axes, message):
    with pytest.raises(BadInput, match=message):
        Sweep(axes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": 1}, r"cells of the point .* got a cell 'lr'; wanted names that no axis has"),
        ({"loss": [1]}, r"cell 'loss': got list; wanted text, a number.* Write float\(...\)"),
    ],
)
def test_cells_that_are_none_are_refused(given, message):
    with pytest.raises(BadInput, match=message):
        Sweep({"lr": [0.1]}).run(lambda lr, run: given)


def never(**point):
    pytest.fail("an over-budget sweep computed something")


def test_a_sweep_over_budget_is_refused_before_anything_is_computed():
    with pytest.raises(BadInput, match=r"a sweep of 12 points needs ~9 GB, limit 4 GB\. Lower jobs \(jobs is 3\)"):
        SWEEP.run(never, jobs=3, bytes_per_point=3_000_000_000, limit_bytes=4_000_000_000)
    with pytest.raises(BadInput, match=r"needs ~9 GB, limit 4 GB\. Lower what one point needs"):
        SWEEP.run(never, bytes_per_point=9_000_000_000, limit_bytes=4_000_000_000)
    with pytest.raises(
        BadInput, match=r"needs ~2 min, limit 60 s\. Shorten an axis \(seed has 3 values\) or raise jobs"
    ):
        SWEEP.run(never, seconds_per_point=10.0, limit_seconds=60.0)


def test_a_sweep_within_its_budget_runs():
    assert SWEEP.run(cells, bytes_per_point=10, limit_bytes=10, seconds_per_point=1, limit_seconds=12).num_rows == 12


def test_finished_points_cost_nothing(run):
    SWEEP.run(cells, run=run)
    assert SWEEP.run(cells, run=run, seconds_per_point=10.0, limit_seconds=1.0).num_rows == 12


def test_a_shard_counts_its_own_points_only(tmp_path):
    run = Run.join(tmp_path, name="sweep", request={}, shard=Shard.parse("1/3"))
    with pytest.raises(PartlyDone):
        SWEEP.run(cells, run=run, seconds_per_point=10.0, limit_seconds=40.0)  # 4 of 12 points
    run.close()
    run = Run.join(tmp_path, name="sweep", request={}, shard=Shard.parse("1/2"))
    with pytest.raises(BadInput, match="needs ~"):
        SWEEP.run(never, run=run, seconds_per_point=10.0, limit_seconds=1.0)
    run.close()


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=150)
POINTS = st.dictionaries(st.sampled_from(["a", "b", "long_name"]), SCALARS, min_size=1)


@given(POINTS)
def test_keys_are_file_names_and_canonical(point):
    key = point_key("sweep", point)
    assert _KEY.fullmatch(key)
    assert len(key) <= 110
    assert key == point_key("sweep", dict(reversed(point.items())))
    assert key == key.lower()


@given(st.lists(SCALARS, unique_by=lambda value: value if isinstance(value, str) else json.dumps(value).lower()))
def test_different_points_have_different_keys(values):
    keys = {point_key("sweep", {"a": value, "b": 0}).casefold() for value in values}
    assert len(keys) == len(values)


SCRIPT = """
import os, sys, time
from pathlib import Path
from tremorscope.foundations.run import Run
from tremorscope.foundations.shard import PartlyDone, Shard
from tremorscope.instruments.sweep import Sweep

def cell(width, seed, run):
    run.event("computed", width=width, seed=seed, pid=os.getpid())
    time.sleep(0.15)
    return {"loss": (width + 0.1) / (seed + 0.3)}

if __name__ == "__main__":
    root, jobs = Path(sys.argv[1]), int(sys.argv[2])
    run = Run.open(root) if (root / "manifest.json").exists() else Run.create(root, name="sweep", request={})
    print(run.path, flush=True)
    table = Sweep({"width": range(4), "seed": range(4)}).run(cell, run=run, jobs=jobs)
    print(table.flat_columns())
"""


def computed(path):
    return [event for event in read_events(path)[0] if event["kind"] == "computed"]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_sweep_killed_in_the_middle_is_finished_by_computing_what_is_missing(tmp_path, jobs):
    grid = Sweep({"width": range(4), "seed": range(4)})
    unbroken = grid.run(lambda width, seed, run: {"loss": (width + 0.1) / (seed + 0.3)})
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def launch(place):
        command = [sys.executable, script, place, str(jobs)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with launch(tmp_path / "runs") as process:
        path = Path(process.stdout.readline().strip())
        while len(list(path.glob("items/*.json"))) < 5:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    before = computed(path)
    while any(is_running(event["pid"]) for event in before):  # workers end with their parent; else the test times out
        time.sleep(0.01)
    before = computed(path)
    finished = {file.stem for file in path.glob("items/*.json")}
    assert 5 <= len(finished) < 16

    with launch(path) as process:
        assert process.stdout.readline().strip() == str(path)
        assert process.stdout.read().strip() == str(unbroken.flat_columns())
    again = [point_key("sweep", {axis: event[axis] for axis in grid.axes}) for event in computed(path)[len(before) :]]
    assert sorted([*again, *finished]) == sorted(point_key("sweep", point) for point in grid.points())

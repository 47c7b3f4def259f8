import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
import torch

from tremorscope.foundations.errors import BadInput, NotConverged, TremorscopeError
from tremorscope.foundations.results import Result
from tremorscope.foundations.run import Run
from tremorscope.foundations.run_list import read_header
from tremorscope.foundations.run_record import read_events
from tremorscope.foundations.shard import AlreadyFinished, PartlyDone, Shard
from tremorscope.instruments.executor import _compute_in_worker, map_items, one_thread

NUMBERS = {f"n{index}": index for index in range(6)}


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "runs", name="sweep", request={})
    yield run
    run.close()


def events(run, kind):
    return [event for event in read_events(run.path)[0] if event["kind"] == kind]


# What the workers call: functions of a module, as a user's must be.


def square(item, run):
    if run is not None:
        run.event("computed", item=item, pid=os.getpid())
    return item * item


def sums(item, run):
    """Long sums, whose last digits depend on the number of threads; the first item finishes late."""
    values = torch.randn(400_000, generator=torch.Generator().manual_seed(item))
    matrix = values[:90_000].reshape(300, 300)
    time.sleep(0.3 if item == 0 else 0.0)
    square(item, run)
    return {
        "sum": float(values.sum()),
        "top": float(torch.linalg.svdvals(matrix @ matrix.T)[0]),
        "blas": float(numpy.linalg.eigvalsh(matrix.numpy() + matrix.numpy().T)[0]),
        "threads": torch.get_num_threads(),
    }


def refuse_two(item, run):
    if item == 2:
        raise NotConverged("iteration", got=item, wanted="less")
    return square(item, run)


class TwoPart(Exception):
    def __init__(self, left, right):
        super().__init__(f"{left} and {right}")


def raise_two_part(item, run):
    raise TwoPart("left", "right")


def die_once(item, run):
    """The worker of item 1 is killed, the first time."""
    if item == 1 and not run.has_arrays("died"):
        run.save_arrays("died", {"x": torch.ones(1)})
        os.kill(os.getpid(), signal.SIGKILL)
    return square(item, run)


def die_always(item, run):
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(item, run)


def not_json(item, run):
    return float("nan")


def test_order_and_values_are_the_same_bit_for_bit_whatever_jobs_is(run):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        here = list(map_items(sums, NUMBERS))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    there = list(map_items(sums, NUMBERS, run=run, jobs=2, progress="sums"))
    from_disk = list(map_items(square, NUMBERS, run=run))
    assert [key for key, _ in here] == list(NUMBERS)
    assert here == there == from_disk
    assert {value["threads"] for _, value in here} == {1}
    workers = {event["pid"] for event in events(run, "computed")}
    assert os.getpid() not in workers
    assert len(events(run, "computed")) == 6


def test_progress_is_told_with_its_end(run):
    run.save_item("n3", 9)
    assert list(map_items(square, NUMBERS, run=run, progress="squares")) == [(f"n{i}", i**2) for i in range(6)]
    told = events(run, "progress")
    assert (told[0]["done"], told[-1]["done"], told[-1]["total"]) == (1, 6, 6)
    assert {event["label"] for event in told} == {"squares"}
    assert [event["pid"] for event in events(run, "computed")] == [os.getpid()] * 5


def test_finished_items_are_read_and_not_computed(run):
    run.save_item("n1", "from disk")
    run.save_item("n4", None)
    (run.path / "items" / "n5.json").write_text("{")
    values = dict(map_items(square, NUMBERS, run=run))
    assert values == {"n0": 0, "n1": "from disk", "n2": 4, "n3": 9, "n4": None, "n5": 25}
    assert [event["item"] for event in events(run, "computed")] == [0, 2, 3, 5]
    assert "n5 was damaged" in events(run, "message")[0]["text"]


def test_a_value_is_saved_before_it_is_yielded(run):
    for key, value in map_items(square, NUMBERS, run=run):
        assert run.item(key) == value
        assert not run.has_item("n5") or key == "n5"  # and nothing is computed ahead in one process


def test_values_are_json_with_and_without_a_run():
    assert dict(map_items(lambda item, run: (item, {1: None}), {"a": 1})) == {"a": [1, {"1": None}]}
    with pytest.raises(BadInput, match=r"value of item 'a': got .* wanted JSON"):
        dict(map_items(not_json, {"a": 1}))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_passes_as_itself_after_the_items_before_it(run, jobs):
    got = []
    with pytest.raises(NotConverged, match="iteration: got 2; wanted less"):
        got.extend(map_items(refuse_two, NUMBERS, run=run, jobs=jobs))
    # `extend` keeps what came before the error
    assert got == [("n0", 0), ("n1", 1)]
    assert run.item("n1") == 1
    assert not run.has_item("n5")  # nothing new is started after an error


def test_an_error_that_cannot_travel_still_tells_its_story():
    with pytest.raises(RuntimeError, match="TwoPart: left and right"):
        _compute_in_worker(raise_two_part, "a", 1, None)
    with pytest.raises(NotConverged, match="iteration: got 2"):
        _compute_in_worker(refuse_two, "a", 2, None)


def test_a_killed_worker_costs_only_its_items_and_is_said(run):
    assert dict(map_items(die_once, NUMBERS, run=run, jobs=2)) == {f"n{index}": index**2 for index in range(6)}
    warnings = [event["text"] for event in events(run, "message") if event["level"] == "warning"]
    assert len(warnings) == 1
    assert "n1" in warnings[0]
    computed = [event["item"] for event in events(run, "computed")]
    assert computed.count(1) == 1
    assert len(computed) <= 7  # at most the other item in flight was computed twice


@pytest.mark.slow
def test_a_worker_that_always_dies_is_an_error_that_loses_nothing(run):
    with pytest.raises(TremorscopeError, match=r"died twice while it computed .*n1.* finished items are kept"):
        dict(map_items(die_always, NUMBERS, run=run, jobs=2))
    assert run.item("n0") == 0


@pytest.mark.slow
def test_stopping_early_leaves_no_workers(run):
    values = map_items(square, NUMBERS, run=run, jobs=2)
    assert next(values) == ("n0", 0)
    values.close()
    (pid, *_) = {event["pid"] for event in events(run, "computed")}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_mistakes_are_told_at_once():
    with pytest.raises(BadInput, match=r"jobs: got 0; wanted at least 1"):
        map_items(square, NUMBERS, jobs=0)
    with pytest.raises(BadInput, match=r"function for worker processes: got function that cannot be sent.*jobs=1"):
        map_items(lambda item, run: item, NUMBERS, jobs=2)
    with pytest.raises(BadInput, match=r"item for worker processes: got generator"):
        map_items(square, {"a": (x for x in ()), "b": 1}, jobs=2)


def test_one_thread_is_given_back_also_after_an_error():
    before = torch.get_num_threads()
    inside = []
    with contextlib.suppress(KeyError), one_thread():
        inside.append(torch.get_num_threads())
        raise KeyError
    assert inside == [1]
    assert torch.get_num_threads() == before


# Shards


@pytest.fixture
def join(tmp_path):
    opened = []

    def join(text):
        opened.append(Run.join(tmp_path / "runs", name="sweep", request={"seed": 1}, shard=Shard.parse(text)))
        return opened[-1]

    yield join
    for run in opened:
        run.close()


def test_a_shard_computes_its_share_and_the_last_one_yields_everything(join):
    first, second = join("1/2"), join("2/2")
    with pytest.raises(PartlyDone) as partly:
        list(map_items(square, NUMBERS, run=first, progress="squares"))
    mine = Shard.parse("1/2").share(NUMBERS)
    assert {f"n{event['item']}" for event in events(first, "computed")} == mine
    assert partly.value.missing == {"2/2": [key for key in NUMBERS if key not in mine]}
    assert (partly.value.num_done, partly.value.at_work) == (3, ["2/2"])
    assert list(map_items(square, NUMBERS, run=second)) == [(f"n{i}", i**2) for i in range(6)]
    assert len(events(first, "computed")) == 6
    assert {event["label"] for event in events(first, "progress")} == {"squares (shard 1/2)"}


@pytest.mark.slow
def test_a_shard_may_have_workers_of_its_own(join):
    run = join("2/2")
    with pytest.raises(PartlyDone):
        list(map_items(square, NUMBERS, run=run, jobs=2))
    assert len(events(run, "computed")) == 3
    assert os.getpid() not in {event["pid"] for event in events(run, "computed")}


def inner(item, run):
    return sum(value for _, value in map_items(square, {f"{item}-a": item, f"{item}-b": 1}, run=run))


def test_an_item_that_has_items_itself_is_not_divided(join):
    first, second = join("1/2"), join("2/2")
    with pytest.raises(PartlyDone):
        list(map_items(inner, NUMBERS, run=first))
    assert dict(map_items(inner, NUMBERS, run=second)) == {f"n{i}": i**2 + 1 for i in range(6)}
    assert len(events(first, "computed")) == 12


def test_two_sweeps_of_one_study_are_both_divided(join):
    def study(run):
        first = dict(map_items(square, NUMBERS, run=run))
        return dict(map_items(square, {f"m{value}": value for value in first.values()}, run=run))

    for text, num_computed in (("1/2", 3), ("2/2", 9), ("1/2", 12)):
        run = join(text)
        if num_computed < 12:
            with pytest.raises(PartlyDone):
                study(run)
        else:
            assert study(run) == {f"m{i**2}": i**4 for i in range(6)}
            run.finish(Result(study="s", preset="quick", seed=1, config={}, title="T"))
        run.close()
        assert len(events(run, "computed")) == num_computed
    with pytest.raises(AlreadyFinished):
        join("2/2")


def test_a_damaged_item_of_another_shard_is_made_again(join):
    first, second = join("1/2"), join("2/2")
    with pytest.raises(PartlyDone):
        list(map_items(square, NUMBERS, run=first))
    (damaged, *_) = sorted(Shard.parse("1/2").share(NUMBERS))
    (first.path / "items" / f"{damaged}.json").write_text("{")
    assert dict(map_items(square, NUMBERS, run=second)) == {f"n{i}": i**2 for i in range(6)}


# A process of its own, killed and interrupted

SCRIPT = """
import sys, time
from pathlib import Path
from tremorscope.foundations.run import Run
from tremorscope.instruments.executor import map_items

def slow(item, run):
    run.event("begun", item=item)
    time.sleep(0.4)
    return item * 0.1

if __name__ == "__main__":
    run = Run.create(Path(sys.argv[1]), name="sweep", request={})
    print(run.path, flush=True)
    try:
        dict(map_items(slow, {f"n{i}": i for i in range(50)}, run=run, jobs=2, progress="slow"))
    except KeyboardInterrupt as error:
        run.fail(error)
        sys.exit(130)
"""


def test_ctrl_c_keeps_what_is_finished_and_what_is_in_flight(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, tmp_path / "runs"]
    # A session of its own: a terminal sends Ctrl-C to the whole group, workers too.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A suite started in the background ignores Ctrl-C, and children inherit that: here it must arrive.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        path = Path(process.stdout.readline().strip())
        while len(list(path.glob("items/*.json"))) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=120) == 130
    assert read_header(path).status == "interrupted"
    begun = {f"n{event['item']}" for event in read_events(path)[0] if event["kind"] == "begun"}
    saved = {file.stem for file in path.glob("items/*.json")}
    assert saved == begun
    assert 2 <= len(saved) < 50
    for file in path.glob("items/*.json"):
        assert json.loads(file.read_text())["value"] == int(file.stem[1:]) * 0.1


def test_ctrl_c_in_one_process_passes_at_once(run):
    def interrupted(item, run):
        if item == 3:
            raise KeyboardInterrupt
        return square(item, run)

    with pytest.raises(KeyboardInterrupt):
        list(map_items(interrupted, NUMBERS, run=run))
    assert [run.has_item(key) for key in NUMBERS] == [True] * 3 + [False] * 3

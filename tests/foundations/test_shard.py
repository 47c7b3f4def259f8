import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tremorscope.foundations import run as module
from tremorscope.foundations import run_sharing
from tremorscope.foundations import shard as shards
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.run import Run
from tremorscope.foundations.run_list import find_run, read_header
from tremorscope.foundations.run_lock import living_shards
from tremorscope.foundations.run_record import read_events
from tremorscope.foundations.shard import AlreadyFinished, PartlyDone, Shard, sharded_id

REQUEST = {"verb": "run", "study": "waves", "preset": "quick", "seed": 100, "config": {"width": 4}, "jobs": 1}


@pytest.fixture
def join(tmp_path):
    """Join a run as a shard; whatever is still open is closed in the end."""
    opened = []

    def join(text, root=tmp_path / "runs", **changes):
        opened.append(Run.join(root, name="Waves", request=REQUEST | changes, shard=Shard.parse(text)))
        return opened[-1]

    yield join
    for run in opened:
        run.close()


# Who computes what


@given(st.sets(st.text(min_size=1), max_size=60), st.integers(1, 9))
def test_every_key_has_one_owner_and_shares_are_even(keys, count):
    shares = [Shard(index=index, count=count).share(keys) for index in range(1, count + 1)]
    assert Counter(key for share in shares for key in share) == Counter(keys)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert shares[0] == Shard(index=1, count=count).share(sorted(keys, reverse=True)), "the order does not matter"


def test_shares_are_the_same_on_every_machine_and_spread_neighbours():
    keys = [f"die-{i}" for i in range(8)]
    owners = Shard.parse("1/2").owners(keys)
    assert [owners[key].index for key in keys] == [2, 1, 1, 2, 1, 1, 2, 2]


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "", "one/two", "1/2/3", "1 2"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(BadInput, match=r"shard: got .*; wanted i/n with 1 <= i <= n"):
        Shard.parse(text)
    with pytest.raises(BadInput, match="shard: got 3/2"):
        Shard(index=3, count=2)


def test_the_id_is_of_the_work_and_not_of_how_it_is_done(monkeypatch):
    known = sharded_id("waves", REQUEST)
    assert known.startswith("sharded-waves-")
    assert known == sharded_id("waves", REQUEST | {"jobs": 4, "shard": "2/3", "set": {"width": "4"}})
    others = [REQUEST | {"seed": 101}, REQUEST | {"config": {"width": 5}}, REQUEST | {"preset": "desk"}]
    assert known not in {sharded_id("waves", other) for other in others}
    monkeypatch.setattr(shards.metadata, "version", lambda name: "99.0")
    assert known != sharded_id("waves", REQUEST), "another version may give other numbers"


def test_partly_done_names_what_is_missing():
    missing = {"2/3": [f"item-{i}" for i in range(7)], "3/3": ["last"]}
    error = PartlyDone(Path("runs/x"), 20, missing, ["3/3"])
    assert str(error) == (
        "Run x is partly done: 12 of 20 items. Missing: shard 2/3 (not running) item-0, item-1, item-2, item-3, "
        "item-4 and 2 more; shard 3/3 (at work) last."
    )
    assert error.to_dict() == {"done": 12, "total": 20, "missing": missing, "at_work": ["3/3"]}


# Joining


def test_the_first_shard_makes_the_run_and_others_find_it(join, tmp_path):
    first, second = join("1/2"), join("2/2", jobs=3)
    assert first.path == second.path == tmp_path / "runs" / sharded_id("waves", REQUEST)
    manifest = json.loads((first.path / "manifest.json").read_text())
    assert (manifest["status"], manifest["request"]) == ("running", REQUEST)
    assert (first.request["shard"], second.request["shard"], second.request["jobs"]) == ("1/2", "2/2", 3)
    assert "shard" not in Run.attach(first.path).request, "workers have an item to themselves"
    assert find_run("sharded-waves", tmp_path / "runs") == first.path
    first.save_item("a", 1)
    assert second.item("a") == 1
    assert living_shards(first.path) == [Shard.parse("1/2"), Shard.parse("2/2")]


def test_many_that_come_at_once_make_one_run(tmp_path):
    """Threads hold locks of their own, as processes do."""
    came, barrier = [], threading.Barrier(6)

    def come(index):
        barrier.wait()
        came.append(Run.join(tmp_path, name="w", request=REQUEST, shard=Shard(index=index, count=6)))

    threads = [threading.Thread(target=come, args=(index,)) for index in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.path for run in came}) == 1
    assert len(living_shards(came[0].path)) == 6
    assert [event["kind"] for event in read_events(came[0].path)[0]].count("joined") == 6
    for run in came:
        run.close()


def test_one_shard_is_computed_once_at_a_time(join):
    run = join("1/2")
    with pytest.raises(BadInput, match=r"shard 1/2 of run sharded-waves-\w+ is being computed by another process"):
        join("1/2")
    run.close()
    join("1/2")


def test_shards_that_run_at_once_are_parts_of_one_division(join):
    run = join("1/2")
    with pytest.raises(BadInput, match=r"shard 2/3 .*: got shard 1/2 at work.* Start --shard i/2, or wait"):
        join("2/3")
    run.close()
    join("2/3")


def test_whoever_resumes_has_the_run_alone(join, monkeypatch):
    run = join("1/2")
    assert read_header(run.path).status == "running"
    with pytest.raises(BadInput, match=r"is being computed: got shard 1/2 at work.* the last one puts the result"):
        Run.open(run.path)
    run.close()
    assert read_header(run.path).status == "interrupted"
    alone = Run.open(run.path)
    monkeypatch.setattr(run_sharing, "JOIN_SECONDS", 0.1)
    with pytest.raises(BadInput, match="is being written by another process"):
        join("2/2")
    assert living_shards(run.path) == [], "the refused one keeps no lock"
    alone.fail(KeyboardInterrupt())
    assert read_header(run.path).status == "interrupted"
    assert read_header(join("2/2").path).status == "running", "a run that was resumed in vain is shared again"


def test_a_damaged_manifest_is_told(join):
    run = join("1/2")
    run.close()
    (run.path / "manifest.json").write_text("{")
    with pytest.raises(BadInput, match="half written"):
        join("1/2")
    assert living_shards(run.path) == []


def test_a_place_that_cannot_be_written_is_told(join, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot write .*--out"):
        join("1/2", root=tmp_path / "file")


def test_another_environment_is_said(join):
    run = join("1/2")
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["environment"]["cpu"] = "an abacus"
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    join("2/2")
    assert any(
        event.get("text", "").startswith("Shard 2/2 differs from the first: cpu was 'an abacus'")
        for event in read_events(run.path)[0]
    )


# Putting the result together


def test_one_shard_at_a_time_has_the_run_to_itself(join, result):
    first, second = join("1/2"), join("2/2")
    first.enter_merge()
    first.enter_merge()  # again changes nothing
    ended = []

    def wait_for_it():
        try:
            second.enter_merge()
        except AlreadyFinished as finished:
            ended.append(finished.path)

    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    time.sleep(1.3)  # as long as it takes until it says that it waits
    assert waiting.is_alive()
    assert any("waits for another one" in event.get("text", "") for event in read_events(first.path)[0])
    first.finish(result)
    waiting.join(timeout=30)
    assert ended == [first.path]
    second.close()
    assert read_header(first.path).status == "finished"
    with pytest.raises(AlreadyFinished):
        join("1/2")


def test_between_two_sweeps_the_run_is_passed_on(join, result):
    first, second = join("1/2"), join("2/2")
    first.enter_merge()
    first.leave_merge()
    second.enter_merge()
    second.finish(result)
    with pytest.raises(AlreadyFinished):
        first.finish(result)


def test_the_end_of_a_shard_is_no_end_of_the_run(join):
    first, second, third = join("1/3"), join("2/3"), join("3/3")
    first.fail(PartlyDone(first.path, 3, {"2/3": ["b"]}, []))
    second.fail(KeyboardInterrupt())
    third.fail(ValueError("no"))
    told = [event for event in read_events(first.path)[0] if "shard" in event and event["kind"] != "joined"]
    assert [(event["kind"], event["shard"]) for event in told] == [
        ("partly done", "1/3"),
        ("interrupted", "2/3"),
        ("failed", "3/3"),
    ]
    assert told[0]["missing"] == {"2/3": ["b"]}
    assert json.loads((first.path / "manifest.json").read_text())["status"] == "running"
    assert read_header(first.path).is_resumable


def test_an_error_while_the_result_is_put_together_lets_the_next_one_try(join, result):
    first, second = join("1/2"), join("2/2")
    first.enter_merge()
    first.fail(ZeroDivisionError("a planted bug"))
    second.enter_merge()
    second.finish(result)
    manifest = json.loads((first.path / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert "error" not in manifest


def test_half_written_files_of_others_are_left_while_those_live(join):
    first, second = join("1/2"), join("2/2")
    first.save_item("a", 1)
    half = first.path / "items" / ".b.json.77.tmp"
    half.write_text("{")
    first.enter_merge()
    assert half.exists()
    first.leave_merge()
    second.close()
    first.enter_merge()
    assert not half.exists()


def test_time_worked_by_all_is_counted(join, result):
    first, second = join("1/2"), join("2/2")
    for run, seconds in ((first, 100.0), (second, 50.0)):
        run.event("clock", seconds=seconds, cpu_seconds=1.0)
    second.close()
    first.finish(result)
    assert 150 <= read_header(first.path).seconds < 160


def test_without_locks_a_fresh_heartbeat_of_the_shard_decides(join, monkeypatch):
    import errno
    import fcntl
    import os

    def no_locks(descriptor, how):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    run = join("1/2")
    assert living_shards(run.path) == [Shard.parse("1/2")]
    os.utime(run.path / "shards" / "1-of-2.lock", (1, 1))
    assert living_shards(run.path) == []
    now = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 11)
    run.say("ten seconds later")
    assert living_shards(run.path) == [Shard.parse("1/2")]
    run.close()
    assert living_shards(run.path) == [], "what has ended does not count as alive for a minute"

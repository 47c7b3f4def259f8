import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from tremorscope.foundations import run as module
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result
from tremorscope.foundations.run import Run
from tremorscope.foundations.run_list import list_runs, read_header
from tremorscope.foundations.run_record import read_events, read_manifest

REQUEST = {"verb": "run", "study": "waves", "preset": "quick", "seed": 100, "config": {"width": 4}, "jobs": 1}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def run(root):
    run = Run.create(root, name="Training Jacobian", request=REQUEST)
    yield run
    run.close()


def manifest_of(path):
    return json.loads((path / "manifest.json").read_text())


def messages(path):
    return [event["text"] for event in read_events(path)[0] if event["kind"] == "message"]


# One life, from creation to the end


def test_a_new_run_says_everything_that_resuming_needs(run, root):
    assert re.fullmatch(r"\d{8}-\d{6}-training-jacobian-[0-9a-f]{4}", run.id)
    assert run.path == root / run.id
    manifest = manifest_of(run.path)
    assert manifest["schema"] == "tremorscope.run/1"
    assert manifest["request"] == REQUEST == read_manifest(run.path)["request"]
    assert (manifest["status"], manifest["pid"], manifest["finished"]) == ("running", os.getpid(), None)
    assert manifest["environment"]["packages"]["torch"] == torch.__version__
    assert datetime.now(UTC).timestamp() - datetime.fromisoformat(manifest["started"]).timestamp() < 60


def test_a_finished_run_lists_its_artefacts_and_is_closed(run, result):
    run.save_arrays("matrix", {"J": torch.eye(2)})
    run.finish(result)
    manifest = manifest_of(run.path)
    assert manifest["status"] == "finished"
    assert sorted(manifest["artefacts"]) == [
        "arrays/matrix.safetensors",
        "figures/shape.json",
        "result.json",
        "tables/heights.parquet",
    ]
    for name, entry in manifest["artefacts"].items():
        content = (run.path / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert Result.load(run.path).to_dict()["claims"] == result.to_dict()["claims"]
    with pytest.raises(BadInput, match=f"run {run.id} is finished.*tremorscope show"):
        Run.open(run.path)
    with pytest.raises(RuntimeError, match="only the process that owns it may, and only once"):
        run.finish(result)


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "interrupted"), (BadInput("no"), "failed"), (OSError(), "failed")]
)
def test_a_failed_run_says_why_and_can_be_resumed(run, result, error, status):
    run.save_item("a", 1)
    run.fail(error)
    assert (manifest_of(run.path)["status"], read_header(run.path).status) == (status, status)
    assert manifest_of(run.path)["error"] == (str(error) or type(error).__name__)
    again = Run.open(run.path)
    assert again.item("a") == 1
    assert read_header(run.path).status == "running"
    again.finish(result)
    assert manifest_of(run.path)["status"] == "finished"
    assert "error" not in manifest_of(run.path)
    assert [event["kind"] for event in read_events(run.path)[0]] == ["started", status, "resumed", "finished"]


def test_working_time_adds_up_over_resumptions(run, monkeypatch):
    clock = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: clock)
    run._started = clock - 40
    run.fail(KeyboardInterrupt())
    again = Run.open(run.path)
    again._started = clock - 2
    again.fail(KeyboardInterrupt())
    assert read_header(run.path).seconds == pytest.approx(42)


def test_a_forgotten_run_counts_as_interrupted(root):
    path = Run.create(root, name="x", request={}).path  # no close: the object is gone, and with it the lock
    assert read_header(path).status == "interrupted"
    assert read_header(path).is_resumable


# The lock


def test_a_living_run_cannot_be_opened_again(run):
    with pytest.raises(BadInput, match="is being written by another process"):
        Run.open(run.path)
    assert read_header(run.path).status == "running"


def test_looking_at_a_run_does_not_get_in_the_way_of_opening_it(run):
    run.close()
    descriptor = os.open(run.path / "lock", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        assert read_header(run.path).status == "interrupted"  # somebody else who looks is no writer
        with pytest.raises(BadInput, match="being written"):
            Run.open(run.path)  # held for longer than any look takes
    finally:
        os.close(descriptor)
    Run.open(run.path).close()


def test_a_killed_process_leaves_an_interrupted_run(root):
    script = (
        "import sys, time; from pathlib import Path; from tremorscope.foundations.run import Run\n"
        "run = Run.create(Path(sys.argv[1]), name='x', request={'seed': 3}); run.save_item('a', [1])\n"
        "(run.path / 'items' / '.b.json.77.tmp').write_text('{'); print(run.path, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(root)], stdout=subprocess.PIPE, text=True) as process:
        path = Path(process.stdout.readline().strip())
        try:
            assert read_header(path).status == "running"
            with pytest.raises(BadInput, match="another process"):
                Run.open(path)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert manifest_of(path)["status"] == "running"  # it could not say any more
    assert (read_header(path).status, read_header(path).seed) == ("interrupted", 3)
    run = Run.open(path)
    assert run.item("a") == [1]
    assert [file.name for file in (path / "items").iterdir()] == ["a.json"]  # the half-written file is gone
    run.close()


def test_without_locks_a_fresh_heartbeat_decides(run, monkeypatch):
    def no_locks(descriptor, how):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    run.close()
    assert read_header(run.path).status == "running"
    manifest = manifest_of(run.path) | {"heartbeat": "2020-01-01T00:00:00+00:00"}
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    assert read_header(run.path).status == "interrupted"
    Run.open(run.path).close()


# Events


def test_events_are_lines_with_a_time(run):
    run.say("Über.", "warning")
    run.event("fallback", reason="too wide", width=7)
    events, position = read_events(run.path)
    assert [event["kind"] for event in events] == ["started", "message", "fallback"]
    assert events[1] | {"time": 0} == {"time": 0, "kind": "message", "text": "Über.", "level": "warning"}
    assert abs(events[2]["time"] - time.time()) < 60
    run.say("next")
    assert [event["text"] for event in read_events(run.path, position)[0]] == ["next"]
    assert read_events(run.path.parent / "nothing") == ([], 0)


def test_readers_leave_a_line_that_is_still_being_written(run):
    before = len(read_events(run.path)[0])
    with open(run.path / "events.jsonl", "a") as handle:
        handle.write('{"time": 1, "kind": "mess')
    events, position = read_events(run.path)
    assert len(events) == before
    with open(run.path / "events.jsonl", "a") as handle:
        handle.write('age"}\n')
    assert read_events(run.path, position)[0] == [{"time": 1, "kind": "message"}]


def test_a_line_cut_short_by_a_kill_hides_no_later_one(run):
    with open(run.path / "events.jsonl", "a") as handle:
        handle.write('{"time": 1, "kind": "mess')
    run.close()
    again = Run.open(run.path)
    again.say("on we go")
    again.close()
    assert [event["kind"] for event in read_events(run.path)[0]] == ["started", "resumed", "message"]


def test_progress_is_thinned_but_its_end_is_kept(run):
    for done in range(1001):
        run.progress("training", done, 1000)
        run.progress("other", done, 1000)
    events = [event for event in read_events(run.path)[0] if event["kind"] == "progress"]
    assert len(events) < 200
    for label in ("training", "other"):
        mine = [event["done"] for event in events if event["label"] == label]
        assert (mine[0], mine[-1]) == (0, 1000)
        assert mine == sorted(mine)


def test_the_heartbeat_is_written_every_ten_seconds_and_by_the_owner_only(run, monkeypatch):
    def beat():
        return manifest_of(run.path)["heartbeat"]

    first, now = beat(), time.monotonic()
    worker = Run.attach(run.path)
    time.sleep(0.002)
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 9)
    run.say("soon")
    assert beat() == first
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 11)
    worker.say("a worker's")
    assert beat() == first
    run.say("now")
    assert beat() > first


# What the work leaves


@pytest.mark.parametrize("value", [None, 0, [1, [2.5, None]], {"a": {"b": "ü"}}, 0.1 + 0.2, 1e-310])
def test_items_come_back_bit_for_bit(run, value):
    assert run.item("lr=0.1,seed=3") is None
    assert not run.has_item("lr=0.1,seed=3")
    run.save_item("lr=0.1,seed=3", value)
    assert run.item("lr=0.1,seed=3") == value
    assert run.has_item("lr=0.1,seed=3")  # None is a value too


@pytest.mark.parametrize("key", ["", ".", "..", ".hidden", "a/b", "a b", "é", "x" * 200, "a\n", "weights:*"])
def test_keys_that_are_no_file_names_are_refused(run, key):
    for use in (run.item, run.has_arrays, run.blocks, lambda key: run.save_item(key, 1)):
        with pytest.raises(BadInput, match="key of an item or array: got"):
            use(key)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, torch.ones(1), {"a": float("inf")}])
def test_values_that_are_no_json_are_refused(run, value):
    with pytest.raises(BadInput, match=r"value of item 'a': got .* wanted JSON.*save_arrays"):
        run.save_item("a", value)
    assert not run.has_item("a")


@pytest.mark.parametrize("text", ["", '{"key": "a", "val', "[]", '{"key": "a"}'])
def test_a_damaged_item_is_said_and_counts_as_not_done(run, text):
    run.save_item("a", 1)
    (run.path / "items" / "a.json").write_text(text)
    assert run.item("a") is None
    assert not run.has_item("a")
    assert messages(run.path)[-1].startswith("Item a was damaged")
    assert read_events(run.path)[0][-1]["level"] == "warning"


def test_arrays_come_back(run):
    theta = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert not run.has_arrays("J")
    path = run.save_arrays("J", {"theta": theta, "part": theta[1:3]})
    assert path == run.path / "arrays" / "J.safetensors"
    assert run.has_arrays("J")
    assert torch.equal(run.arrays("J")["part"], theta[1:3])
    with pytest.raises(BadInput, match=r"K.safetensors is missing"):
        run.arrays("K")


def test_workers_write_and_own_nothing(run, result):
    worker = Run.attach(run.path)
    worker.save_item("a", 1)
    worker.save_arrays("b", {"x": torch.ones(1)})
    (worker.blocks("J") / "0.bin").write_bytes(b"x")
    worker.say("hello")
    assert (run.item("a"), run.has_arrays("b"), messages(run.path)) == (1, True, ["hello"])
    assert [file.name for file in run.blocks("J").iterdir()] == ["0.bin"]
    for end in (lambda: worker.finish(result), lambda: worker.fail(KeyboardInterrupt())):
        with pytest.raises(RuntimeError, match="only the process that owns it"):
            end()
    assert manifest_of(run.path)["status"] == "running"


# Half-written and foreign folders


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is half written: .*manifest.json is missing.*cannot be resumed"),
        ("", "is half written: .*manifest.json is damaged"),
        ('{"schema": "tremorscope.run/1", "id"', "is half written: .*manifest.json is damaged"),
        ('{"schema": "tremorscope.run/9"}', "got tremorscope.run/9; wanted tremorscope.run/1"),
        ('{"schema": "tremorscope.run/1", "id": "x"}', "is damaged: got no heartbeat, name, request"),
        ("[]", "got list; wanted tremorscope.run/1"),
    ],
)
def test_a_half_written_run_is_told_and_listed_as_damaged(run, root, text, message):
    run.close()
    (run.path / "manifest.json").unlink()
    if text is not None:
        (run.path / "manifest.json").write_text(text)
    for use in (Run.open, Run.attach, read_manifest):
        with pytest.raises(BadInput, match=message):
            use(run.path)
    (header,) = list_runs(root)
    assert (header.id, header.status, header.is_resumable) == (run.id, "damaged", False)


def test_another_environment_is_said_on_resuming(run):
    run.close()
    manifest = manifest_of(run.path)
    manifest["environment"]["packages"]["torch"] = "1.0.0"
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    Run.open(run.path).close()
    assert "'torch': '1.0.0'" in messages(run.path)[-1]
    assert "Numbers may differ" in messages(run.path)[-1]


def test_the_same_environment_is_not_worth_a_word(run):
    run.close()
    Run.open(run.path).close()
    assert messages(run.path) == []


# Places that cannot be written


def test_a_root_below_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for root in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(BadInput, match=r"cannot write .*file.*Choose another place with --out"):
            Run.create(root, name="x", request={})
    assert (tmp_path / "file").read_text() == "in the way"


@contextlib.contextmanager
def files_of_at_most(num_bytes):
    """What a full disk does, wherever the tests run: no file may grow past this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_for_a_manifest_leaves_no_run(root):
    root.mkdir()
    with files_of_at_most(16), pytest.raises(BadInput, match=r"cannot write .*manifest.json"):
        Run.create(root, name="x", request={})
    assert list(root.iterdir()) == []


def test_no_room_for_more_loses_nothing_that_was_saved(run, result):
    run.save_item("a", [1, 2, 3])
    room = (run.path / "events.jsonl").stat().st_size + 20
    with files_of_at_most(room):
        with pytest.raises(BadInput, match=r"cannot write .*b.json"):
            run.save_item("b", list(range(1000)))
        with pytest.raises(BadInput, match=r"cannot write .*J.safetensors"):
            run.save_arrays("J", {"x": torch.ones(1000)})
        with pytest.raises(BadInput, match=r"cannot write .*events.jsonl: got only 20 of .* bytes fitted"):
            run.say("a sentence that is too long for the room that is left")
        with pytest.raises(BadInput, match=r"cannot write .*events.jsonl"):
            run.say("again")
        with pytest.raises(BadInput, match="cannot write"):
            run.finish(result)
        run.fail(BadInput("disk full"))  # says nothing, raises nothing: the freed lock speaks
    assert read_header(run.path).status == "interrupted"
    again = Run.open(run.path)
    assert (again.item("a"), again.item("b"), again.has_arrays("J")) == ([1, 2, 3], None, False)
    assert read_events(run.path)[0][-1]["kind"] == "resumed"
    again.close()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 kB, mounted where that is allowed; `files_of_at_most` stands in for it elsewhere."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
        refusal = mounted.stderr.strip() if mounted.returncode else None
    except FileNotFoundError as error:
        refusal = str(error)
    if refusal is not None:
        pytest.skip(f"cannot mount a small tmpfs here ({refusal}); files_of_at_most covers the same code")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(small_disk):
    run = Run.create(small_disk / "runs", name="x", request={})
    run.save_item("a", 1)
    with pytest.raises(BadInput, match=r"cannot write .*J.safetensors: got .*No space left on device"):
        run.save_arrays("J", {"x": torch.ones(100_000)})
    with open(small_disk / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(b"x" * 512):
            pass
    with pytest.raises(BadInput, match=r"cannot write .*b\.json: got No space left on device"):
        run.save_item("b", 1)
    with pytest.raises(BadInput, match=r"cannot write .*events\.jsonl"):
        run.say("more words than a page holds " * 200)
    with pytest.raises(BadInput, match=r"cannot write .*: got .*No space left on device"):
        Run.create(small_disk / "runs", name="y", request={})
    run.fail(KeyboardInterrupt())
    assert [header.id for header in list_runs(small_disk / "runs")] == [run.id]
    (small_disk / "filler").unlink()
    again = Run.open(run.path)
    assert again.item("a") == 1
    again.close()

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from tremorscope.foundations.cache import Cache, _kept, cache_root, key
from tremorscope.foundations.errors import BadInput

KEY = key("train", 1, seed=0)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def test_what_was_stored_is_loaded(cache):
    weights = {"theta": torch.linspace(0, 1, 7, dtype=torch.float64)}
    assert cache.load(KEY) is None
    path = cache.store(KEY, weights, {"seed": 0})
    assert torch.equal(cache.load(KEY)["theta"], weights["theta"])
    assert cache.load(key("train", 1, seed=1)) is None
    assert cache.size() == (1, path.stat().st_size)


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_a_damaged_entry_is_said_dropped_and_made_again(cache, damage):
    path = cache.store(KEY, {"theta": torch.ones(5)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="was damaged and is made again"):
        assert cache.load(KEY) is None
    assert not path.exists()
    cache.store(KEY, {"theta": torch.ones(5)})
    assert torch.equal(cache.load(KEY)["theta"], torch.ones(5))


def test_keys_see_every_part_and_the_torch_release(monkeypatch):
    different = [key("train", 1, seed=0), key("train", 2, seed=0), key("fit", 1, seed=0), key("train", 1, seed="0")]
    monkeypatch.setattr("tremorscope.foundations.cache.metadata.version", lambda name: "1.99.3+cpu")
    different.append(key("train", 1, seed=0))
    monkeypatch.setattr("tremorscope.foundations.cache.metadata.version", lambda name: "1.99.4")
    assert len(set(different)) == 5
    assert key("train", 1, seed=0) == different[-1]  # a patch release keeps the cache
    assert key("a", 1, x={"p": 1, "q": [1, 2]}) == key("a", 1, x={"q": [1, 2], "p": 1})


@pytest.mark.parametrize("part", [torch.ones(1), float("nan"), object()])
def test_parts_that_are_no_json_are_refused(part):
    with pytest.raises(BadInput, match=r"cache key of 'train'.*hash_tensors"):
        key("train", 1, part=part)


def test_the_place_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("TREMORSCOPE_CACHE", str(tmp_path))
    assert cache_root() == tmp_path == Cache().root
    monkeypatch.delenv("TREMORSCOPE_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_root() == Path("/somewhere/tremorscope")


def test_a_cache_that_cannot_be_written_says_which_variable_to_set(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match=r"cannot write .* Point TREMORSCOPE_CACHE"):
        Cache(tmp_path / "file").store(KEY, {"a": torch.ones(1)})
    assert Cache(tmp_path / "file").load(KEY) is None


# Looking in, and making room


def used_at(path, seconds_ago):
    moment = time.time() - seconds_ago
    os.utime(path, (moment, moment))


@pytest.fixture
def filled(cache):
    """Three values, c used last and a longest ago: their paths by letter."""
    paths = {}
    for seconds_ago, letter in ((300, "a"), (200, "b"), (100, "c")):
        paths[letter] = cache.store(key("train", 1, name=letter), {"x": torch.ones(1000)}, {"model": letter})
        used_at(paths[letter], seconds_ago)
    return paths


def test_entries_say_what_they_are_and_come_least_recently_used_first(cache, filled):
    entries = cache.entries()
    assert [entry.meta for entry in entries] == [{"model": "a"}, {"model": "b"}, {"model": "c"}]
    assert [entry.path for entry in entries] == list(filled.values())
    assert [entry.key for entry in entries] == [key("train", 1, name=letter) for letter in "abc"]
    assert sum(entry.bytes for entry in entries) == cache.size()[1]
    assert {entry.state for entry in entries} == {"whole"}
    assert all(abs((entry.made - datetime.now(UTC)).total_seconds()) < 60 for entry in entries)
    assert Cache(cache.root / "nothing").entries() == []


def test_reading_is_using(cache, filled):
    cache.load(key("train", 1, name="a"))
    assert [entry.meta["model"] for entry in cache.entries()] == ["b", "c", "a"]
    cache.entries(check=True)
    assert [entry.meta["model"] for entry in cache.entries()] == ["b", "c", "a"], "looking is not"


def test_the_least_recently_used_go_first_and_only_as_many_as_needed(cache, filled):
    size = filled["a"].stat().st_size
    done = cache.collect(2 * size)
    assert [entry.path for entry in done.removed] == [filled["a"]]
    assert (done.bytes_left, done.in_use) == (2 * size, ())
    assert cache.collect(2 * size).removed == ()
    assert [path.exists() for path in filled.values()] == [False, True, True]
    assert len(cache.collect(0).removed) == 2
    assert cache.size() == (0, 0)
    with pytest.raises(BadInput, match="wanted 0 bytes or more"):
        cache.collect(-1)


def test_what_is_being_read_stays(cache, filled):
    with _kept(filled["a"]):
        done = cache.collect(0)
    assert [entry.path for entry in done.in_use] == [filled["a"]]
    assert [path.exists() for path in filled.values()] == [True, False, False]
    assert done.bytes_left == filled["a"].stat().st_size
    assert torch.equal(cache.load(key("train", 1, name="a"))["x"], torch.ones(1000))
    assert len(cache.collect(0).removed) == 1


def test_damaged_and_left_over_files_are_shown_and_go_whatever_the_limit(cache, filled):
    filled["c"].write_bytes(filled["c"].read_bytes()[:-3])
    flipped = filled["b"].read_bytes()
    filled["b"].write_bytes(flipped[:-1] + bytes([flipped[-1] ^ 1]))
    half, fresh = (filled["a"].with_name(f".{filled['a'].name}.{pid}.tmp") for pid in (1, 2))
    half.write_bytes(b"x" * 10)
    fresh.write_bytes(b"x" * 10)
    used_at(half, 7200)

    def states(**options):
        return {entry.path: entry.state for entry in cache.entries(**options)}

    assert states()[filled["b"]] == "whole", "one bit is seen by reading all of them only"
    assert states(check=True) == {
        half: "left over",
        fresh: "left over",
        filled["a"]: "whole",
        filled["b"]: "damaged",
        filled["c"]: "damaged",
    }
    done = cache.collect(10**9)
    assert {entry.path for entry in done.removed} == {half, filled["c"]}
    assert fresh.exists(), "somebody may be writing it"


def test_a_value_that_is_deleted_while_others_read_does_no_harm(tmp_path):
    """One process deletes all the time, another makes and reads: no warning, no error, never a wrong value."""
    script = (
        "import sys; from pathlib import Path; from tremorscope.foundations.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1])); print('ready', flush=True)\n"
        "while True: cache.collect(0)"
    )
    cache, value, lost = Cache(tmp_path), {"x": torch.arange(5000)}, 0
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            cache.store(KEY, value)
            for _ in range(5):
                found = cache.load(KEY)
                lost += found is None
                assert found is None or torch.equal(found["x"], value["x"])
        assert process.poll() is None, "nor there"
        process.kill()
    assert lost > 0, "nothing was deleted: this test saw nothing"

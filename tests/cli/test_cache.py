from __future__ import annotations

import os
import time

import pytest
import torch

from tremorscope.cli.cache import size
from tremorscope.foundations.cache import Cache, key


@pytest.fixture
def cache(folder, monkeypatch):
    """A cache with two values, the network's used longer ago."""
    monkeypatch.setenv("TREMORSCOPE_CACHE", str(folder / "cache"))
    cache = Cache()
    for hours_ago, model in ((50, "builtin:net"), (3, "builtin:other")):
        path = cache.store(key("train", 1, name=model), {"theta": torch.ones(25_000)}, {"model": model})
        os.utime(path, (time.time() - 3600 * hours_ago,) * 2)
    return cache


def test_ls_shows_entries_and_total(call, cache):
    answer = call("cache")
    assert answer.code == 0
    assert answer.out == call("cache", "ls").out
    lines = answer.out.splitlines()
    other, net = (next(line for line in lines if model in line) for model in ("other", "net"))
    assert lines.index(other) < lines.index(net), "the latest first"
    assert other.split()[:5] == [key("train", 1, name="builtin:other")[:10], "model", "builtin:other", "100", "kB"]
    assert "3 h ago" in other
    assert "2 d ago" in net
    assert lines[-1] == f"2 entries, 200 kB, in {cache.root}"
    assert all(len(line) <= 80 for line in lines[:-1])
    document = call("cache", "--json").document
    assert document["bytes"] == sum(entry["bytes"] for entry in document["entries"]) == cache.size()[1]
    assert [entry["what"] for entry in document["entries"]] == [{"model": "builtin:other"}, {"model": "builtin:net"}]


def test_an_empty_cache_is_no_error(call, folder, monkeypatch):
    monkeypatch.setenv("TREMORSCOPE_CACHE", str(folder / "none"))
    assert call("cache").out.startswith("0 entries, 0 B, in ")
    assert call("cache", "gc", "--max-gb", "0").out.startswith("Deleted 0 entries, 0 B; 0 B left in ")
    assert not (folder / "none").exists()


def test_gc_deletes_the_least_recently_used(call, cache):
    document = call("cache", "gc", "--max-gb", "0.00015", "--json").document
    assert [entry["what"] for entry in document["removed"]] == [{"model": "builtin:net"}]
    assert document["bytes_left"] == cache.size()[1] <= 150_000
    assert call("cache", "gc", "--max-gb", "0").out.startswith("Deleted 1 entry, 100 kB; 0 B left in ")


def test_damage_is_shown(call, cache):
    path = cache.path(key("train", 1, name="builtin:net"))
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "damaged" not in call("cache").out
    assert "damaged: model builtin:net" in call("cache", "--check").out
    path.write_bytes(data[:100])
    answer = call("cache")
    assert "damaged" in answer.out
    assert "`tremorscope cache gc` deletes what is damaged" in answer.out
    removed = call("cache", "gc", "--max-gb", "100", "--json").document["removed"]
    assert [(entry["path"], entry["state"]) for entry in removed] == [(str(path), "damaged")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["gc"], "cache gc: got no limit; wanted how much may stay. For example --max-gb 5."),
        (["ls", "--max-gb", "1"], "Only `tremorscope cache gc --max-gb ...` deletes."),
        (["gc", "--max-gb", "1", "--check"], "cache gc: got --check."),
        (["gx"], "cache: got gx; wanted ls or gc. Did you mean 'gc'?"),
        (["gc", "--max-gb", "-1"], "Invalid value for '--max-gb'"),
    ],
)
def test_mistakes_delete_nothing(call, cache, words, sentence):
    answer = call("cache", *words)
    assert answer.code == 2
    assert sentence in answer.err
    assert cache.size()[0] == 2


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB")])
def test_sizes_are_for_people(count, text):
    assert size(count) == text

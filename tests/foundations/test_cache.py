from pathlib import Path

import pytest
import torch

from tremorscope.foundations.cache import Cache, cache_root, key
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

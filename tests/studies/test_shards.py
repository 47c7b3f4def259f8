"""A published experiment in two shards gives what it gives in one process, to the last bit."""

from __future__ import annotations

import json

import pytest

from tremorscope.foundations.shard import PartlyDone, Shard
from tremorscope.studies.execute import execute

SMOKE = {"hidden": 2, "num_epochs": 1, "num_seeds": 2}


def test_the_training_jacobian_in_two_shards(tmp_path):
    def shard(text):
        return execute("training-jacobian", overrides=SMOKE, out=tmp_path / "shared", shard=Shard.parse(text))

    with pytest.raises(PartlyDone, match=r"4 of 8 items\. Missing: shard 1/2 \(not running\)"):
        shard("2/2")
    result, path = shard("1/2")
    whole, unsharded = execute("training-jacobian", overrides=SMOKE, out=tmp_path / "whole")
    assert result.to_dict() | {"provenance": None} == whole.to_dict() | {"provenance": None}
    for part in ("tables", "figures", "arrays"):
        files = sorted(file.relative_to(unsharded) for file in (unsharded / part).rglob("*") if file.is_file())
        assert files == sorted(file.relative_to(path) for file in (path / part).rglob("*") if file.is_file())
        assert all((path / file).read_bytes() == (unsharded / file).read_bytes() for file in files), part
    assert json.loads((path / "result.json").read_text()) == result.to_dict()
    assert result.provenance["command"] == whole.provenance["command"]
    assert result.provenance["sittings"] == 2

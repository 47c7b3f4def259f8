import math
import os

import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.files import read_json, write_atomically, write_json


def test_json_round_trip_keeps_order_and_letters(tmp_path):
    path = tmp_path / "new" / "folder" / "data.json"
    data = {"b": [1, 0.1, None], "a": "ü"}
    write_json(path, data)
    assert read_json(path) == data
    assert list(read_json(path)) == ["b", "a"]
    assert "ü" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["data.json"]


def test_a_writer_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "data.json"
    write_json(path, {"old": 1})

    def half(temporary):
        temporary.write_text('{"ne')
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_atomically(path, half)
    assert read_json(path) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["data.json"]


def test_nan_is_refused_before_anything_is_touched(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "data.json", {"loss": math.nan})
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match=r"cannot write .*file/data.json: got .* TREMORSCOPE_RUNS"):
        write_json(tmp_path / "file" / "data.json", {})
    with pytest.raises(BadInput, match="not inside a folder"):
        read_json(tmp_path / "file" / "data.json")


def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("root may write anywhere")
        with pytest.raises(BadInput, match="Permission denied"):
            write_json(tmp_path / "data.json", {})
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("text", [b"", b'{"a": 1', b"\xff\xfe"])
def test_damaged_json_is_named(text, tmp_path):
    (tmp_path / "data.json").write_bytes(text)
    with pytest.raises(BadInput, match=r"data.json is damaged: got .* wanted whole JSON"):
        read_json(tmp_path / "data.json")


def test_missing_and_unreadable_files_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"data.json is missing"):
        read_json(tmp_path / "data.json")
    with pytest.raises(BadInput, match=r"cannot read .*: got Is a directory"):
        read_json(tmp_path)

import json
import math
from dataclasses import replace

import pyarrow.parquet
import pytest

from tests.foundations.conftest import claim_about, interval
from tremorscope.foundations.claims import Expected
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result, Table


def as_data(result):
    return json.loads(json.dumps(result.to_dict(), allow_nan=False))


def test_what_was_saved_is_loaded(result, tmp_path):
    path = result.save(tmp_path / "run")
    loaded = Result.load(tmp_path / "run")
    assert as_data(loaded) == as_data(result) == json.loads(path.read_text())
    assert loaded.claim("W1") == result.claim("W1")
    assert loaded.table("heights").columns["height"] == [interval(0.5, 1.5), None]
    assert loaded.figures == list(result.figures)
    assert sorted(file.name for file in path.parent.rglob("*")) == sorted(
        ["result.json", "tables", "heights.parquet", "figures", "shape.json"]
    )


def test_infinite_ends_survive(result, tmp_path):
    endless = interval(-math.inf, math.inf)
    claims = (
        claim_about(endless, interval(0, math.inf)),
        claim_about(endless, endless, row="W2", expected=Expected(high=2.0, origin="paper")),
    )
    table = Table(name="ends", title="", caption="", columns={"wide": [endless], "loss": [math.inf]})
    replace(result, claims=claims, tables=(table,)).save(tmp_path)
    loaded = Result.load(tmp_path)
    assert (loaded.claim("W2").expected.low, loaded.claim("W1").expected.high) == (-math.inf, math.inf)
    assert loaded.claim("W1").nulls[0].measured.high == math.inf
    assert loaded.table("ends").columns["wide"][0].low == -math.inf
    assert loaded.table("ends").columns["loss"] == [None]
    assert pyarrow.parquet.read_table(tmp_path / "tables/ends.parquet").to_pydict()["wide_high"] == [math.inf]


def test_parquet_spreads_estimates_over_six_columns(result, tmp_path):
    result.save(tmp_path)
    columns = pyarrow.parquet.read_table(tmp_path / "tables/heights.parquet").to_pydict()
    assert columns["height"] == [1.0, None]
    assert columns["height_low"] == [0.5, None]
    assert columns["height_method"] == ["t", None]
    assert columns["pond"] == ["north", "south"]


def test_a_column_of_several_kinds_is_saved_as_text(result, tmp_path):
    table = Table(
        name="mixed",
        title="",
        caption="",
        columns={"a": [1, "x", None], "b": [True, 2, 0.5], "c": [1, 2.5, None], "d": [interval(0, 2), "n/a", 3]},
    )
    replace(result, tables=(table,)).save(tmp_path)
    columns = pyarrow.parquet.read_table(tmp_path / "tables/mixed.parquet").to_pydict()
    assert columns["a"] == ["1", "x", None]
    assert columns["b"] == ["True", "2", "0.5"]
    assert columns["c"] == [1.0, 2.5, None]
    assert columns["d"] == ["1.0", "n/a", "3"]


def test_tables_from_rows_keep_order_and_gaps():
    table = Table.of_rows([{"a": 1}, {"b": 2, "a": 3}], name="t", title="", caption="")
    assert table.columns == {"a": [1, 3], "b": [None, 2]}
    assert table.num_rows == 2
    assert Table.of_rows([], name="t", title="", caption="").num_rows == 0


def test_unequal_columns_are_refused():
    with pytest.raises(BadInput, match=r"columns of table 't': got \{'a': 1, 'b': 2\}; wanted equal lengths"):
        Table(name="t", title="", caption="", columns={"a": [1], "b": [1, 2]})


def test_missing_rows_and_tables_are_named(result):
    with pytest.raises(BadInput, match="claim row: got W9; wanted one of W1"):
        result.claim("W9")
    with pytest.raises(BadInput, match="table: got depths; wanted one of heights"):
        result.table("depths")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "result.json is missing"),
        ('{"schema": "tremorscope.result/1", "stu', "result.json is damaged"),
        ('{"schema": "tremorscope.result/99"}', "got tremorscope.result/99; wanted tremorscope.result/1"),
        ("[]", "got list; wanted tremorscope.result/1"),
    ],
)
def test_other_files_are_refused(text, message, tmp_path):
    if text is not None:
        (tmp_path / "result.json").write_text(text)
    with pytest.raises(BadInput, match=message):
        Result.load(tmp_path)

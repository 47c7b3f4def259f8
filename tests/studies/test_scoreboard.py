from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.studies.execute import execute
from tremorscope.studies.scoreboard import markdown, merge, read_rows, rows_of


@pytest.fixture
def result(coins, tmp_path):
    return execute(coins, out=tmp_path / "runs")[0]


def test_rows_are_keyed_and_rows_of_other_runs_stay(coins, result, tmp_path):
    docs = tmp_path / "docs"
    foreign = {**rows_of(result)[0], "study": "zebras", "row": "Z1", "id": "zebras/Z1", "cpu_seconds": 12.3456}
    docs.mkdir()
    (docs / "claims.json").write_text(json.dumps({"schema": "tremorscope.claims/1", "rows": [foreign]}))
    rows = merge([result], docs)
    assert [(row["study"], row["row"], row["preset"]) for row in rows] == [
        ("coins", "C1", "quick"),
        ("coins", "C2", "quick"),
        ("zebras", "Z1", "quick"),
    ]
    desk = execute(coins, preset="desk", seed=102, out=tmp_path / "runs")[0]
    merged = merge([desk], docs)
    assert [(row["row"], row["preset"]) for row in merged[:4]] == [
        ("C1", "quick"),
        ("C1", "desk"),
        ("C2", "quick"),
        ("C2", "desk"),
    ]
    assert merged[4] == foreign, "a row that was not run is not rewritten"
    assert merged[0] == rows[0]
    assert read_rows(docs) == merged


def test_a_new_run_replaces_its_own_row(coins, result, tmp_path):
    merge([result], tmp_path)
    again = execute(coins, seed=103, out=tmp_path / "runs")[0]
    assert {row["seed"] for row in merge([again], tmp_path)} == {103}


def test_the_page_has_the_columns_of_the_contract(result, tmp_path):
    merge([result], tmp_path)
    text = (tmp_path / "claims.md").read_text()
    assert "| study | claim | scope | expected | measured | null | verdict | CPU seconds |" in text
    lines = [line for line in text.splitlines() if line.startswith("| coins")]
    assert len(lines) == 2
    assert "more often than fair \\| honest ones" in lines[0], "a bar in a statement must not open a column"
    claim = result.claim("C1")
    assert f"| {claim.measured} |" in lines[0]
    assert f"fair coins: {claim.nulls[0].measured}" in lines[0]
    assert f"**{claim.verdict}**" in lines[0]
    assert "at least 0.7 (seeds 0-9)" in lines[0]


def test_rows_are_ordered_as_a_reader_counts(result):
    rows = [{**rows_of(result)[0], "row": row} for row in ("J10", "J9b", "J9a", "J6", "E1")]
    from tremorscope.studies.scoreboard import _order

    assert [row["row"] for row in sorted(rows, key=_order)] == ["E1", "J6", "J9a", "J9b", "J10"]


def test_calibration_seeds_and_changed_configurations_are_kept_out(coins, result, tmp_path):
    early = replace(result, seed=7)
    with pytest.raises(BadInput, match="seed of the coins run: got 7; wanted 100 or more"):
        merge([early], tmp_path)
    changed = execute(coins, overrides={"flips": 60, "mint.bias": 0.8}, out=tmp_path / "runs")[0]
    with pytest.raises(BadInput, match="got other values of flips, mint; wanted the preset 'quick' unchanged"):
        merge([changed], tmp_path)
    assert not (tmp_path / "claims.json").exists()


def test_a_damaged_scoreboard_is_not_overwritten(result, tmp_path):
    (tmp_path / "claims.json").write_text('{"schema": "tremorscope.claims/1", "rows": [')
    with pytest.raises(BadInput, match="damaged"):
        merge([result], tmp_path)
    (tmp_path / "claims.json").write_text('{"schema": "tremorscope.claims/9", "rows": []}')
    with pytest.raises(BadInput, match=r"got tremorscope\.claims/9"):
        merge([result], tmp_path)
    assert "claims/9" in (tmp_path / "claims.json").read_text()


def test_an_empty_page_says_so():
    assert "No claims have been judged yet." in markdown([])

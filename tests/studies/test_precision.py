"""The study at smoke size: every row with its nulls, repeatable. The real sizes are run by `claims`."""

from __future__ import annotations

import json
import math

import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.studies.execute import execute
from tremorscope.studies.precision import FLOOR_ROWS, RACE_ROWS, ROWS, PrecisionConfig, _plan
from tremorscope.studies.study import get_study, make_config

SMOKE = {
    "num_seeds": 2,
    "num_points": 40,
    "hidden": 2,
    "starts": 2,
    "lm_steps": 6,
    "boosted_steps": 6,
    "screening_steps": 2,
    "bfgs_steps": 2,
    "low_curvature_steps": 1,
    "square_hidden": 3,
    "square_steps": 1,
    "race_steps": 2,
    "adam_steps": 3,
    "approximators": False,
}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One run of a few seconds."""
    return execute("precision", overrides=SMOKE, seed=7, out=tmp_path_factory.mktemp("runs"))


def test_every_row_is_judged_beside_its_nulls(smoke):
    result, _ = smoke
    assert {claim.row for claim in result.claims} == {*FLOOR_ROWS, *RACE_ROWS}
    assert set(get_study("precision").rows) == set(ROWS)
    for claim in result.claims:
        assert claim.nulls, claim.row
        assert claim.measured.n == 2
        assert all(math.isfinite(null.measured.value) for null in claim.nulls), claim.row
        assert "100,000 points and width 20 were not run" in claim.scope
    nulls = {claim.row: {null.name for null in claim.nulls} for claim in result.claims}
    assert nulls["P3a"] == {"noisy targets", "Adam"}
    assert nulls["P4"] == {"no second network", "permuted residual"}
    assert nulls["P6"] == {"float64"}


def test_tables_and_figures_are_sound(smoke):
    result, path = smoke
    assert [table.name for table in result.tables] == ["floors", "stages", "spectrum", "reasons"]
    assert result.table("reasons").num_rows == 6
    assert len(result.table("spectrum").columns["rank"]) == 22
    assert result.table("spectrum").columns["rank"][-1] == 22
    assert {figure["name"] for figure in result.figures} == {"stages", "spectrum"}
    for figure in result.figures:
        json.dumps(figure, allow_nan=False)
        assert "nan" not in figure["caption"]
    assert (path / "items" / "floor-1.json").is_file()


def test_one_member_twice_gives_the_same_bits(smoke, tmp_path):
    _, first = smoke
    _, second = execute("precision", overrides=SMOKE, seed=7, out=tmp_path)
    for member in (0, 1):
        name = f"items/floor-{member}.json"
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_the_published_size_is_that_of_the_paper():
    study = get_study("precision")
    paper = make_config(study, "paper")
    assert isinstance(paper, PrecisionConfig)
    plan = _plan(paper)
    assert (plan.num_points, plan.hidden, plan.budget.bfgs) == (100_000, 20, 25_000)
    assert plan.stages[-1] == "boost"
    with pytest.raises(BadInput, match=r"Did you mean 'lm_steps'\?"):
        make_config(study, "quick", {"lm_step": 3})

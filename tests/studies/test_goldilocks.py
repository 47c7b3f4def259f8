"""The study at smoke size: every row with its nulls, and its path for published data."""

from __future__ import annotations

import json
import math

import numpy
import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result
from tremorscope.studies.execute import execute
from tremorscope.studies.goldilocks_rows import ROWS
from tremorscope.studies.study import get_study

SMOKE = {
    "hidden": [4],
    "num_examples": 24,
    "dimension": 5,
    "num_seeds": 2,
    "num_draws": 1,
    "scales": [0.2, 1.0, 20.0, 60.0],
    "temperatures": [0.1, 3.0, 30.0, 3e4],
}
WHOLE = {
    "whole": True,
    "channels": [2],
    "cnn_examples": 8,
    "widths": [4],
    "depths": [1],
    "radii": [0.2, 1.0, 5.0],
    "dimensions": [3],
    "num_steps": 6,
    "num_repeats": 1,
    "num_candidates": 6,
}
ONLY_WHOLE = ("G9", "G10", "G11", "G12", "G13", "G14", "G15", "G16", "G17")


def sound(result: Result) -> None:
    for claim in result.claims:
        estimates = [claim.measured, *(null.measured for null in claim.nulls)]
        assert claim.nulls, claim.row
        assert all(math.isfinite(end) for e in estimates for end in (e.value, e.low, e.high)), claim.row
        assert "the paper's setting" in claim.scope
        assert claim.verdict in ("holds", "fails", "vacuous", "undecided")
    for figure in result.figures:
        json.dumps(figure, allow_nan=False)
    names = [figure["name"] for figure in result.figures]
    assert len(names) == len(set(names))
    assert not any("nan" in sentence for sentence in (*result.summary, *result.flags))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Result:
    return execute("goldilocks", overrides=SMOKE, seed=7, out=tmp_path_factory.mktemp("runs"))[0]


def test_the_flagship_rows_are_judged_beside_their_nulls(smoke):
    sound(smoke)
    assert [c.row for c in smoke.claims] == [row for row in ROWS if not row.startswith(ONLY_WHOLE)]
    assert get_study("goldilocks").rows == ROWS
    signs = [c.row for c in smoke.claims if {n.name for n in c.nulls} == {"random signs", "random symmetric matrix"}]
    assert signs == ["G3a", "G3b", "G4a", "G5b", "V1", "V2", "V4"]
    assert smoke.claim("G3c").nulls[0].measured.value == pytest.approx(smoke.claim("G3d").nulls[0].measured.value)
    both = smoke.claim("V2").measured, smoke.claim("V3").measured
    assert both[0] == both[1], "the two versions are judged on one number"
    assert smoke.table("goldilocks_relu_weights").num_rows == 4
    assert {figure["name"] for figure in smoke.figures} >= {"kappa_weights", "kappa_temperature"}


def test_the_paper_needs_data_and_says_so(tmp_path):
    with pytest.raises(BadInput, match=r"got none; wanted MNIST or CIFAR-10 .* Pass --set data=FILE\.npz"):
        execute("goldilocks", preset="paper", overrides=SMOKE, out=tmp_path)


@pytest.mark.slow
def test_every_row_and_two_processes(tmp_path):
    result, path = execute("goldilocks", overrides={**SMOKE, **WHOLE}, seed=7, out=tmp_path / "one")
    sound(result)
    assert [c.row for c in result.claims] == list(ROWS)
    quick, _ = execute("goldilocks", overrides=SMOKE, seed=7, out=tmp_path / "quick")
    for claim in quick.claims:
        assert result.claim(claim.row).measured == claim.measured, "more parts change no draw of the flagship rows"
    assert {t.name for t in result.tables} >= {"zones", "architectures", "selection", "foretold"}
    again, _ = execute("goldilocks", overrides={**SMOKE, **WHOLE}, seed=7, out=tmp_path / "two", jobs=2)
    assert [c.to_dict() for c in again.claims] == [c.to_dict() for c in result.claims]
    assert (path / "report.html").is_file()


@pytest.mark.slow
def test_the_published_path_on_a_tiny_file_of_the_same_format(tmp_path):
    stream = numpy.random.default_rng(0)
    numpy.savez(
        tmp_path / "mnist.npz",
        inputs=stream.integers(0, 256, (60, 6, 6), dtype=numpy.uint8),
        targets=stream.integers(0, 10, 60).astype(numpy.uint8),
    )
    small = {**SMOKE, **WHOLE, "hidden": [12, 12, 12], "data": str(tmp_path / "mnist.npz")}
    result, _ = execute("goldilocks", preset="paper", overrides=small, seed=7, out=tmp_path)
    sound(result)
    assert "mnist.npz" in result.claims[0].scope
    assert len(result.claims) == len(ROWS)

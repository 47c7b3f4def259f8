"""The study at smoke size: every row with its nulls, repeatable, resumable. The real sizes are run by `claims`."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tremorscope.cli import main
from tremorscope.foundations.claims import Claim
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result
from tremorscope.foundations.run_list import read_header
from tremorscope.studies.execute import execute
from tremorscope.studies.study import get_study, make_config
from tremorscope.studies.training_jacobian_rows import GROUPS, ROWS

SMOKE = {"hidden": 2, "num_epochs": 1, "num_seeds": 3}
DRAWN = "document.querySelectorAll('figure.drawn').length === document.querySelectorAll('figure.figure').length"


def without_provenance(path: Path) -> dict[str, object]:
    found = json.loads((path / "result.json").read_text())
    assert found.pop("provenance")
    return found


def assert_equal_runs(one: Path, other: Path) -> None:
    """Equal bit for bit, provenance apart."""
    assert without_provenance(one) == without_provenance(other)
    for folder in ("figures", "tables", "arrays"):
        files = sorted(file.name for file in (one / folder).iterdir())
        assert files == sorted(file.name for file in (other / folder).iterdir())
        for name in files:
            assert (one / folder / name).read_bytes() == (other / folder / name).read_bytes(), name


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> tuple[Result, Path]:
    """One run of a few seconds."""
    return execute("training-jacobian", overrides=SMOKE, seed=7, out=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def result(smoke) -> Result:
    return smoke[0]


def numbers(claim: Claim) -> list[float]:
    return [end for e in (claim.measured, *(null.measured for null in claim.nulls)) for end in (e.value, e.low, e.high)]


def test_every_row_is_judged_beside_its_nulls(result):
    assert [claim.row for claim in result.claims] == [row for row in ROWS if row.startswith("J")]
    assert get_study("training-jacobian").rows == ROWS[:-1]
    for claim in result.claims:
        assert claim.nulls, claim.row
        assert all(math.isfinite(number) for number in numbers(claim)), claim.row
        assert claim.measured.n == 3
        assert claim.measured.low <= claim.measured.value <= claim.measured.high
        assert claim.verdict in ("holds", "fails", "vacuous", "undecided")
        assert "the paper's network (hidden 64, 625 steps) was not run" in claim.scope
        assert "64-2-10 after 25 steps" in claim.scope
        assert "2412.07003" in claim.source
    nulls = {claim.row: {null.name for null in claim.nulls} for claim in result.claims}
    shuffled, matched = "shuffled labels", "matched Gaussian inputs"
    untrained = "the inputs alone, no network"
    for row in ("J7a", "J7b"):
        assert nulls[row] == {shuffled, matched}
    for row in ("J8a", "J8b", "J10"):
        assert nulls[row] == {shuffled, matched, untrained}
    assert nulls["J9b1"] == {matched, untrained}
    assert nulls["J9"] == {shuffled}


def test_thresholds_say_where_they_come_from(result):
    for claim in result.claims:
        origin = claim.expected.origin
        assert any(word in origin for word in ("calibration seeds", "the paper", "by definition")), claim.row
    calibrated = [claim.row for claim in result.claims if "calibration seeds 0 and 1" in claim.expected.origin]
    assert {"J6a", "J6b", "J6c", "J6d", "J9b3"} <= set(calibrated)


def test_the_nulls_are_other_networks_of_one_start(smoke):
    result, path = smoke
    run = {group: path / "arrays" / f"{group}-0.safetensors" for group in GROUPS}
    assert all(file.is_file() for file in run.values())
    assert len({file.read_bytes() for file in run.values()}) == len(GROUPS)
    assert not list(path.glob("arrays/jacobian-*")), "every J is thrown away once it is measured"
    scores = result.table("scores")
    assert scores.columns["group"][0] == "real labels"
    trained, shuffled = scores.columns["held-out accuracy"][:2]
    assert trained.value > shuffled.value, "there is nothing to learn in shuffled labels"


def test_tables_and_figures_are_sound(result):
    assert {table.name for table in result.tables} == {"regions", "overlaps", "scores"}
    regions = result.table("regions").columns
    for row, live in enumerate(regions["live directions"]):
        parts = sum(regions[name][row].value for name in ("chaotic", "bulk", "stable"))
        if regions["group"][row] != "white-noise inputs":  # pixels that are dead in digits live in noise
            assert parts == pytest.approx(live)
    overlaps = result.table("overlaps").columns
    shown = dict(zip(overlaps["real bulk against"], overlaps["overlap"], strict=True))
    assert shown["another seed, dead weights left in"].value > shown["another seed"].value
    assert all(0 <= estimate.value <= 1 + 1e-9 for estimate in shown.values())
    names = [figure["name"] for figure in result.figures]
    assert len(names) == len(set(names)) >= 5
    for figure in result.figures:
        json.dumps(figure, allow_nan=False)
        assert figure["caption"]
        assert "nan" not in figure["caption"]
    assert not any("nan" in sentence for sentence in result.summary)


def test_a_configuration_that_does_not_fit_is_refused_before_the_work():
    study = get_study("training-jacobian")
    with pytest.raises(BadInput, match=r"Did you mean 'hidden'\?"):
        make_config(study, "quick", {"hiden": 3})
    with pytest.raises(BadInput, match="num_seeds"):
        make_config(study, "quick", {"num_seeds": 1})
    with pytest.raises(BadInput, match="float32"):
        make_config(study, "quick", {"dtype": "float8"})


def test_a_killed_run_goes_on_and_ends_the_same_bit_for_bit(smoke, tmp_path):
    options = [word for key, value in SMOKE.items() for word in ("--set", f"{key}={value}")]
    words = ["run", "training-jacobian", *options, "--seed", "7", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tremorscope", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*/arrays/jacobian-matched-0/columns-00001.safetensors")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (path,) = tmp_path.iterdir()
    assert read_header(path).status == "interrupted"
    finished = {file: file.stat().st_mtime_ns for file in (path / "items").iterdir()}
    assert {"real-0.json", "shuffled-0.json"} <= {file.name for file in finished}
    assert len(finished) < 3 * len(GROUPS), "the kill came too late to show anything"

    with pytest.raises(SystemExit) as end:
        main(["resume", str(path)])
    assert end.value.code == 0
    assert all(file.stat().st_mtime_ns == when for file, when in finished.items()), "finished members stay as they are"
    assert Result.load(path).provenance["sittings"] == 2
    assert_equal_runs(path, smoke[1])


@pytest.mark.browser
def test_its_report_opens(smoke, page):
    result, path = smoke
    page.goto((path / "report.html").as_uri())
    page.wait_for_function(DRAWN)
    assert page.locator("table.claims tbody tr").count() == len(result.claims)
    assert page.locator("figure.figure").count() == len(result.figures)
    first = page.locator("table.claims tbody tr").first
    assert result.claims[0].verdict in first.inner_text()


@pytest.mark.slow
def test_worker_processes_change_no_number_and_another_seed_does(smoke, tmp_path):
    _, path = execute("training-jacobian", overrides=SMOKE, seed=7, out=tmp_path, jobs=2)
    assert_equal_runs(path, smoke[1])
    _, other = execute("training-jacobian", overrides=SMOKE, seed=8, out=tmp_path)
    assert without_provenance(other)["claims"] != without_provenance(smoke[1])["claims"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_quick_preset_on_a_calibration_seed(tmp_path):
    """The shape of the finding, on a seed whose numbers decide nothing."""
    result, _ = execute("training-jacobian", seed=0, out=tmp_path, jobs=2)
    assert {claim.row for claim in result.claims} >= {row for row in ROWS if row.startswith("J")}
    assert all(math.isfinite(number) for claim in result.claims for number in numbers(claim))
    assert result.claim("J7a").measured.low >= 0.99
    assert result.claim("J6a").measured.value > 1, "the most sensitive direction grows more than tenfold"
    assert result.claim("J9").verdict != "holds", "the inputs alone explain the shared bulk"
    assert result.claim("J8a").verdict == "vacuous", "a step along quiet inputs is quiet in any network"
    assert not any(claim.measured.is_point for claim in result.claims)

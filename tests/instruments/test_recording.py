from __future__ import annotations

import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result
from tremorscope.foundations.run import Run
from tremorscope.foundations.run_list import read_header
from tremorscope.foundations.run_record import read_events
from tremorscope.instruments.recording import command_line, recorded, watched, write_report

REQUEST = {"verb": "examine", "model": "builtin:x", "data": None, "preset": "quick", "jobs": 3}


def answer(run: Run) -> Result:
    return Result(study="examine", preset="quick", seed=0, config={}, title="Hello", provenance={"own": 1})


def test_a_computation_leaves_result_report_and_command(tmp_path):
    result, path = recorded("x", REQUEST, answer, out=tmp_path)
    assert path.parent == tmp_path
    assert Result.load(path).provenance == result.provenance
    assert result.provenance["command"] == "tremorscope examine builtin:x --preset quick --jobs 3"
    assert (result.provenance["own"], result.provenance["run"], result.provenance["jobs"]) == (1, path.name, 3)
    assert "Hello" in (path / "report.html").read_text()


def test_times_add_up_over_sittings(tmp_path):
    def fail(run):
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            recorded("x", REQUEST, fail, out=tmp_path, resume=next(iter(tmp_path.iterdir()), None))
    (path,) = tmp_path.iterdir()
    assert read_header(path).status == "interrupted"
    result, _ = recorded("x", {}, answer, resume=path)
    clocks = [event for event in read_events(path)[0] if event["kind"] == "clock"]
    assert result.provenance["sittings"] == 3
    assert len(clocks) == 3
    # The last clock also counts the writing of the result, however long that takes on a busy machine.
    earlier, whole = sum(clock["seconds"] for clock in clocks[:2]), sum(clock["seconds"] for clock in clocks)
    assert earlier - 0.001 <= result.provenance["seconds"] <= whole + 0.001


def test_an_error_marks_the_run_and_passes_through_unchanged(tmp_path):
    mistake = BadInput("x", got=1, wanted=2)

    def fail(run):
        raise mistake

    with pytest.raises(BadInput) as caught:
        recorded("x", REQUEST, fail, out=tmp_path)
    assert caught.value is mistake
    (path,) = tmp_path.iterdir()
    assert read_header(path).status == "failed"


def test_a_watcher_gets_the_run_before_the_work_and_only_inside(tmp_path):
    seen = []

    def compute(run):
        assert seen == [run]
        return answer(run)

    with watched(seen.append):
        recorded("x", REQUEST, compute, out=tmp_path)
    recorded("x", REQUEST, answer, out=tmp_path)
    assert len(seen) == 1


def test_a_report_can_be_drawn_again(tmp_path):
    result, path = recorded("x", REQUEST, answer, out=tmp_path)
    before = (path / "report.html").read_bytes()
    (path / "report.html").unlink()
    assert write_report(result, path).read_bytes() == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"dtype": "float64", "out": None}, "--dtype float64"),
        ({"set": {"a.b": [1, 2], "text": "two words"}}, "--set 'a.b=[1, 2]' --set 'text=two words'"),
        ({"strict": True, "debug": False}, "--strict"),
        ({"prompt": ["one", "two"]}, "--prompt one --prompt two"),
        ({"num_probes": 3, "config": {"x": 1}}, "--num-probes 3"),
    ],
)
def test_the_command_has_each_option_as_one_would_type_it(more, words):
    assert command_line({"verb": "examine", "model": "m", **more}) == f"tremorscope examine m {words}"

"""What only a process of its own can show: signals, purity of stdout, what is imported."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest


def wait_for(condition, process, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def items(runs: Path) -> list[Path]:
    return sorted(runs.glob("*/items/*.json"))


@pytest.fixture
def interrupted(start, tmp_path):
    """A run that got a signal after its first member: the ended process and its run directory."""

    def interrupt(number):
        process = start("run", "coins", "--set", "seconds=0.4", "--set", "num_seeds=4", "--json")
        wait_for(lambda: len(items(tmp_path / "runs")) >= 1, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert out == ""
        assert "Traceback" not in err
        (path,) = (tmp_path / "runs").iterdir()
        assert f"Interrupted. Take it up with: tremorscope resume {path.name}" in err
        assert json.loads((path / "manifest.json").read_text())["status"] == "interrupted"
        assert 1 <= len(items(tmp_path / "runs")) < 4
        return path

    return interrupt


def test_after_ctrl_c_the_run_goes_on(interrupted, start):
    path = interrupted(signal.SIGINT)
    resumed = start("resume", path.name, "--json")
    out, err = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, err
    result = json.loads(out)["result"]
    assert result["provenance"]["sittings"] == 2
    assert len(result["tables"][0]["columns"]["heads"]) == 4


def test_a_scheduler_s_signal_is_an_interruption_too(interrupted):
    interrupted(signal.SIGTERM)


def test_without_a_terminal_there_are_plain_lines_and_no_control_characters(start):
    process = start("run", "coins", "--set", "trouble=chatter")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "\x1b" not in out + err
    assert "this study prints" in err
    assert "this study prints" not in out
    assert out.splitlines()[-1].endswith("report.html")


def test_a_closed_pipe_is_no_error(start):
    process = start("list", "runs")
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert "Traceback" not in process.stderr.read()

"""A folder to stand in, the study of coins in the registry, and ways to call the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from tremorscope.cli import main
from tremorscope.studies import study as registry

STUDIES = Path(__file__).parents[1] / "studies"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def document(self):
        """The one JSON document on stdout; anything else there is an error."""
        return json.loads(self.out)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """An empty working folder; only the study of coins is registered."""
    monkeypatch.chdir(tmp_path)
    for name in ("TREMORSCOPE_RUNS", "TREMORSCOPE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(registry, "_registry", {})
    monkeypatch.setattr(registry, "_loaded", [True])
    monkeypatch.syspath_prepend(str(STUDIES))
    monkeypatch.delitem(sys.modules, "coins", raising=False)
    import_module("coins")
    return tmp_path


@pytest.fixture
def call(folder, capsys):
    """The command line in this process."""

    def answer(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        return Answer(code=stop.value.code, out=captured.out, err=captured.err)

    return answer


@pytest.fixture
def start(tmp_path):
    """The command line in a process of its own, where coins and dice are another package's entry points."""
    installed = tmp_path / "installed"
    info = installed / "coins-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: coins\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[tremorscope.studies]\ncoins = coins\ndice = dice\n")
    paths = [str(installed), str(STUDIES), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("TREMORSCOPE")},
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
    }
    started = []

    def begin(*words):
        process = subprocess.Popen(
            [sys.executable, "-m", "tremorscope", *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            # A suite started in the background ignores Ctrl-C, and children inherit that: here it must arrive.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()

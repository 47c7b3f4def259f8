"""`tremorscope train`: a tiny language model from the shell, killed in between, loaded by its folder."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tremorscope.foundations.arrays import read_arrays
from tremorscope.instruments.load import load

TINY = [
    f"--set={pair}"
    for pair in (
        "num_layers=1", "width=16", "num_heads=2", "length=24", "vocabulary_size=4096", "corpus.characters=40000",
        "corpus.weights.prose=0", "training.batch_rows=8", "training.save_every=5", "training.warmup_steps=5",
        "training.precision=float32", "training.learning_rate=0.003",
    )
]  # fmt: skip


def test_a_model_is_trained_and_loads_by_its_folder(folder, call):
    answer = call("train", "microworld", *TINY, "--json")
    assert answer.code == 0, answer.err
    run = Path(answer.document["path"])
    table = next(table for table in answer.document["result"]["tables"] if table["name"] == "loss")
    assert table
    assert not list(run.glob("*.safetensors")), "the state of the training goes when it is finished"
    network = load(f"hf:{run / 'model'}")
    assert network.layout.size == sum(value.numel() for value in read_arrays(run / "model/model.safetensors").values())
    assert "tremorscope train microworld" in (run / "model/README.md").read_text()
    assert (run / "report.html").is_file()


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(folder, call):
    command = [sys.executable, "-m", "tremorscope", "train", "microworld", *TINY, "--set=training.epochs=6"]
    process = subprocess.Popen([*command, "--out", "killed"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(Path("killed").glob("*/training.safetensors")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (run,) = (path for path in Path("killed").iterdir() if path.is_dir())
    assert not (run / "result.json").exists(), "it was too fast to be killed"
    answer = call("resume", str(run))
    assert answer.code == 0, answer.err
    whole = call("train", "microworld", *TINY, "--set=training.epochs=6", "--out", "whole")
    assert whole.code == 0, whole.err
    (unbroken,) = (path for path in Path("whole").iterdir() if path.is_dir())
    one, other = (read_arrays(path / "model/model.safetensors") for path in (run, unbroken))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_recipe_is_shown_and_wrong_names_are_refused(folder, call):
    shown = call("train", "microworld@shuffled", "--dry-run")
    assert shown.code == 0
    assert "is_shuffled" in shown.out
    assert "4,240,896 parameters" in shown.out
    assert not Path("runs").exists()
    assert call("train", "microworld", "--dry-run", "--json").document["recipe"]["width"] == 256
    for arguments, message in (
        (["microworld@init"], "wanted one that is trained"),
        (["microwold"], "Did you mean 'builtin:microworld'"),
        (["microworld", "--set", "widht=3"], "Did you mean 'width'"),
    ):
        answer = call("train", *arguments)
        assert answer.code == 2
        assert message in answer.err

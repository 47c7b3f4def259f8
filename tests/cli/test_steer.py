"""`tremorscope steer weights` on a small network with a file for each data set, and its twin in Python."""

from __future__ import annotations

import json

import numpy
import pytest
import torch

from tremorscope.examine.weight_steering import DESCRIPTION, DIRECTION, steer_weights
from tremorscope.foundations.arrays import read_arrays_and_metadata
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result
from tremorscope.instruments.load import load

NETWORK = """
import torch
from torch import nn
from tremorscope import Network, Task, Trainer, adam

def make():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    task = Task.of(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())
    network = Network(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), task=task, name="small")
    return network.at(Trainer(optimiser=adam(0.03), num_steps=60).fit(network).last)
"""


@pytest.fixture
def files(folder):
    """A network, and the two halves of its data."""
    (folder / "net.py").write_text(NETWORK)
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    for name, rows in (("up", x[:, 2] > 0), ("down", x[:, 2] <= 0)):
        numpy.savez(folder / f"{name}.npz", inputs=x[rows].numpy(), targets=y[rows].numpy())
    return folder


OPTIONS = ("--keep", "up.npz", "--break", "down.npz", "--k", "6", "--alpha", "0.5", "--alpha", "2", "--most", "0.2")


def test_steering_from_the_shell(files, call):
    answer = call("steer", "weights", "net.py:make", *OPTIONS, "--bake", "0.5", "baked.safetensors")
    assert answer.code == 0, answer.err
    assert "Steering curve" in answer.out
    for alpha in ("-2", "-0.5", "0", "0.5", "2"):
        assert any(line.split()[:1] == [alpha] for line in answer.out.splitlines()), alpha
    (run,) = (path for path in (files / "runs").iterdir() if path.is_dir())
    assert answer.out.splitlines()[-1].endswith("report.html")
    assert (run / "report.html").is_file()
    described = json.loads((run / DESCRIPTION).read_text())
    assert (described["keep"], described["break"], described["k"]) == ("up", "down", 6)
    parts, metadata = read_arrays_and_metadata(run / DIRECTION)
    assert set(parts) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert metadata["direction"] == "v_B 1 without 6 keep directions"
    network = load("net.py:make")
    baked, about = read_arrays_and_metadata(files / "baked.safetensors")
    for name, weight in network.params.items():
        torch.testing.assert_close(baked[name], weight + 0.5 * parts[name])
    assert about["alpha"] == "0.5"
    command = Result.load(run).provenance["command"]
    assert command.startswith("tremorscope steer weights net.py:make --keep up.npz --break down.npz --k 6")
    assert "--alpha 0.5 --alpha 2.0" in command


def test_the_twin_in_python_gives_the_same(files, call):
    shown = call("steer", "weights", "net.py:make", *OPTIONS, "--ggn", "--parameters", "2.*", "--json").document
    result, path = steer_weights(
        "net.py:make",
        keep="up.npz",
        break_="down.npz",
        k=6,
        ggn=True,
        parameters="2.*",
        alphas=(0.5, 2.0),
        most=0.2,
        out=files / "elsewhere",
    )
    fresh, document = json.loads(json.dumps(result.to_dict())), shown["result"]
    for plain in (fresh, document):
        plain.pop("provenance")
    assert fresh == document
    assert set(read_arrays_and_metadata(path / DIRECTION)[0]) == {"2.weight", "2.bias"}
    assert [figure["name"] for figure in result.figures] == ["steering_up", "kept_against_broken_up", "gram"]
    assert result.table("steering").num_rows == 2 + 4 + 4


def test_data_of_equal_names_are_told_apart(files):
    (files / "other").mkdir()
    (files / "other" / "up.npz").write_bytes((files / "down.npz").read_bytes())
    result, _ = steer_weights(
        "net.py:make", keep="up.npz", break_="other/up.npz", k=4, alphas=(1.0,), out=files / "runs"
    )
    assert "break (up): loss" in result.table("steering_curve").columns


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--keep", "up.npz", "--break", "up.npz", "--k", "6"), "nothing left after projection"),
        (("--keep", "up.npz", "--break", "down.npz", "--k", "51"), "number of keep directions k: got 51"),
        (("--keep", "up.npz", "--break", "downn.npz"), "Did you mean 'down.npz'?"),
        (("--keep", "up.npz", "--break", "down.npz", "--alpha", "0"), "finite sizes other than 0"),
        (("--keep", "up.npz", "--break", "down.npz", "--method", "best"), "method: got best"),
        (("--keep", "up.npz", "--break", "down.npz", "--parameters", "9.*"), "no parameter matches"),
        (("--keep", "up.npz"), "break"),
    ],
)
def test_mistakes_are_one_sentence(files, call, words, sentence):
    answer = call("steer", "weights", "net.py:make", *words)
    assert answer.code == 2
    assert sentence in answer.err
    assert "Traceback" not in answer.err


def test_a_folder_cannot_be_baked_into(files):
    with pytest.raises(BadInput, match="wanted a file name"):
        steer_weights("net.py:make", keep="up.npz", break_="down.npz", bake=(1.0, files))


def test_an_interrupted_steering_starts_again_in_its_run(files, call, monkeypatch):
    from tremorscope.examine import weight_steering

    whole, path = steer_weights("net.py:make", keep="up.npz", break_="down.npz", k=6, alphas=(0.5, 2.0), most=0.2)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(weight_steering, "steer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            steer_weights("net.py:make", keep="up.npz", break_="down.npz", k=6, alphas=(0.5, 2.0), most=0.2)
    (broken,) = (run for run in (files / "runs").iterdir() if run.is_dir() and run.name != path.name)
    answer = call("resume", broken.name)
    assert answer.code == 0, answer.err
    again = Result.load(broken)
    assert [table.to_dict() for table in again.tables] == [table.to_dict() for table in whole.tables]
    (parts, about), (wanted, about_wanted) = (read_arrays_and_metadata(run / DIRECTION) for run in (broken, path))
    assert about == about_wanted
    assert all(torch.equal(parts[name], wanted[name]) for name in wanted)

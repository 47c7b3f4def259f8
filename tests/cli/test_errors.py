"""Mistakes of every kind from the shell: exit 2, one sentence that says what to do, and nothing lost.

Mistakes in options, keys, studies and run directories are in test_run.py and test_runs.py; here are those in
networks, recipes, data and disks.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tremorscope.examine import examination, large_jacobian
from tremorscope.examine.examination import Effort
from tremorscope.foundations.results import Result
from tremorscope.methods.weights.training_jacobian import dense

NETWORKS = """
import torch
from torch import nn
from tremorscope import Add, Network, Task, Trainer, momentum

x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
task = Task.of(x, (x[:, 0] > 0).long())

def mlp(*more):
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), *more, nn.Linear(3, 2))

def recipe(**more):
    return Trainer(**{"optimiser": momentum(lr=0.1), "num_steps": 5, **more})

def good():
    return mlp(), task, recipe()

def wrong_site():
    return Network(mlp()).with_edits(Add(torch.ones(3)).at("weights:0.bais"))

def returns_weights():
    return mlp().state_dict()

def raises():
    return {}["weights"]

def hot():
    return nn.Linear(4, 1), Task.of(x, x[:, :1]), recipe(optimiser=momentum(lr=1e9), num_steps=30)

def dropout():
    return mlp(nn.Dropout(0.5)), task, recipe()

def seeded_dropout():
    return mlp(nn.Dropout(0.5)), task, recipe(seed=1)

def batch_norm():
    return mlp(nn.BatchNorm1d(3)), task, recipe()

def frozen_batch_norm():
    return mlp(nn.BatchNorm1d(3)), task, recipe(mode="evaluate")

def reshuffled():
    return mlp(), task, recipe(order="reshuffled", batch_size=8)

def convolution():
    return nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Linear(6, 2)), task, recipe()
"""


@pytest.fixture(autouse=True)
def _little_effort(monkeypatch):
    small = Effort(
        num_eigenvalues=2,
        num_probes=4,
        num_steps=2,
        num_draws=2,
        num_directions=2,
        num_examples=64,
        jacobian_seconds=30,
    )
    monkeypatch.setattr(examination, "EFFORTS", {"quick": small})


@pytest.fixture
def look(call, folder):
    """`tremorscope examine net.py:NAME`."""
    (folder / "net.py").write_text(NETWORKS)
    (folder / "broken.py").write_text("import torch\nimport nosuchthing\n\ndef mlp():\n    return None\n")
    (folder / "half.py").write_text("def mlp(:\n")
    return lambda name, *words: call("examine", name if ":" in name else f"net.py:{name}", *words)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("wrong_site", "Did you mean '0.bias'?"),
        ("godo", "no function 'godo' in net.py"),
        ("nett.py:good", "Did you mean 'net.py'?"),
        ("broken.py:mlp", "ModuleNotFoundError: No module named 'nosuchthing' (line 2 of broken.py)"),
        ("half.py:mlp", "SyntaxError"),
        ("raises", "KeyError: 'weights' (line 25 of net.py)"),
        ("returns_weights", "wanted a Network, a module, or (module, Task[, Trainer])"),
        ("batch_norm", "layer '2' (BatchNorm1d): got running statistics that training would change"),
        ("reshuffled", "batch order: got order='reshuffled' without a seed; wanted a seed. Pass seed=0."),
        ("hf:./nowhere", "model 'hf:./nowhere': got no such folder; wanted a folder that exists."),
        ("builtin:digit-mlp", "Did you mean 'builtin:digits-mlp'?"),
    ],
)
def test_a_model_that_cannot_be_had_creates_no_run(look, folder, name, sentence):
    answer = look(name)
    assert answer.code == 2
    assert sentence in answer.err
    assert len(answer.err.strip().splitlines()) == 1, "one sentence"
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data", "nothing.npz"], "nothing.npz"),
        (["--data", "builtin:digit"], "Did you mean 'builtin:digits'?"),
        (["--preset", "quik"], "Did you mean 'quick'?"),
        (["--dtype", "float23"], "Did you mean 'float32'?"),
        (["--device", "abacus"], "Use 'cpu'."),
        (["--out", "net.py/runs"], "cannot write"),
    ],
)
def test_an_option_that_does_not_fit_creates_no_run(look, folder, words, sentence):
    answer = look("good", *words)
    assert answer.code == 2
    assert sentence in answer.err
    assert "Traceback" not in answer.err
    assert not (folder / "runs").exists()
    assert (folder / "net.py").read_text() == NETWORKS


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hot", "training diverged at step"),
        ("dropout", "training recipe is not deterministic: got theta_T differed by"),
    ],
)
def test_a_recipe_that_cannot_be_used_says_why_and_the_run_keeps_it(look, call, folder, name, sentence):
    answer = look(name)
    assert answer.code == 2
    assert sentence in answer.err
    assert "Traceback" not in answer.err
    (path,) = (folder / "runs").iterdir()
    shown = call("show", path.name)
    assert shown.code == 0
    assert "failed" in shown.out
    assert sentence.split(":")[0] in shown.out


@pytest.mark.parametrize("name", ["seeded_dropout", pytest.param("frozen_batch_norm", marks=pytest.mark.slow)])
def test_the_remedies_that_the_sentences_name_work(look, name):
    answer = look(name, "--json")
    assert answer.code == 0, answer.err
    tables = [table["name"] for table in answer.document["result"]["tables"]]
    assert "training_jacobian" in tables


def test_a_layer_that_the_fast_route_does_not_know_is_said_aloud(look):
    answer = look("convolution")
    assert answer.code == 0
    assert "! training Jacobian: generic route: layer '0' is a Unflatten" in answer.out


def test_a_jacobian_larger_than_memory_is_measured_by_products(look, monkeypatch):
    monkeypatch.setattr(dense, "memory_bytes", lambda: 10_000)
    answer = look("good", "--json")
    assert answer.code == 0
    result = answer.document["result"]
    names = {table["name"] for table in result["tables"]}
    assert {"operator_regions", "chaotic_triples", "large_training_jacobian"} <= names
    assert "training_jacobian" not in names
    (beside,) = [table for table in result["tables"] if table["name"] == "large_training_jacobian"]
    assert {"this network", "twin on shuffled labels"} <= set(beside["columns"])
    assert any("by products, no matrix" in sentence for sentence in result["summary"])


def test_products_that_do_not_fit_either_cost_only_themselves(look, monkeypatch):
    monkeypatch.setattr(dense, "memory_bytes", lambda: 10_000)
    monkeypatch.setattr(large_jacobian, "MEMORY", 1000)
    answer = look("good", "--json")
    assert answer.code == 0
    result = answer.document["result"]
    (flag,) = [flag for flag in result["flags"] if "bytes needed" in flag]
    assert "wanted at most 1,000 bytes" in flag
    assert {table["name"] for table in result["tables"]} == {
        "layers",
        "curvature",
        "stiffness",
        "goldilocks_position",
        "sensitivity",
        "layer_ranks",
        "layer_responses",
    }


@pytest.fixture
def disk(tmp_path):
    """A disk of 512 kB: room for a result, not for a report."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"cannot mount a small tmpfs here: {error}")
    if mounted.returncode:
        pytest.skip(f"cannot mount a small tmpfs here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_the_result_and_says_what_could_not_be_written(call, disk):
    answer = call("run", "coins", "--out", disk / "runs")
    assert answer.code == 2
    assert "report.html: got " in answer.err
    assert "No space left on device" in answer.err
    (path,) = (disk / "runs").iterdir()
    assert f"The result is kept in {path}" in answer.err
    assert Result.load(path).claims
    assert call("show", path, "--json").document["status"] == "finished"
    elsewhere = call("report", path, "--output", "report.html")
    assert elsewhere.code == 0, elsewhere.err
    assert Path("report.html").stat().st_size > 512 * 1024

    with open(disk / "filler", "wb", buffering=0) as filler:
        try:
            while filler.write(b"x" * 4096):
                pass
        except OSError:
            pass
    again = call("run", "coins", "--out", disk / "runs", "--json")
    assert again.code == 2
    assert "No space left on device" in again.document["error"]
    assert [one["id"] for one in call("list", "runs", "--out", disk / "runs", "--json").document] == [path.name]


@pytest.mark.parametrize("damage", ["no manifest", "half a manifest", "no result", "half a result"])
def test_a_half_written_run_is_named_by_every_verb(call, folder, damage):
    path = Path(call("run", "coins", "--json").document["path"])
    file = path / ("manifest.json" if "manifest" in damage else "result.json")
    text = file.read_text()
    file.unlink()
    if damage.startswith("half"):
        file.write_text(text[: len(text) // 2])
    listed = call("list", "runs", "--json")
    assert listed.code == 0
    for verb in ("show", "resume", "report"):
        answer = call(verb, path)
        assert answer.code == 2, (verb, answer.out)
        assert "Traceback" not in answer.err
        assert path.name in answer.err or file.name in answer.err, (verb, answer.err)
    assert json.loads((path / "items" / "member-0.json").read_text()), "nothing was lost by looking"

"""`examine` on networks of many kinds: what it measures, and what it says when it cannot."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tremorscope.cli import main
from tremorscope.examine import examination, examine
from tremorscope.examine.examination import Effort
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result
from tremorscope.foundations.run_list import read_header
from tremorscope.instruments.builtin import digits_mlp
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import momentum
from tremorscope.instruments.recipe import PureRecipe
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.training_jacobian import training_jacobian

SMALL = {
    "num_eigenvalues": 3,
    "num_probes": 4,
    "num_steps": 4,
    "num_draws": 2,
    "num_directions": 2,
    "num_examples": 64,
    "jacobian_seconds": 30,
}
RECIPE = Trainer(optimiser=momentum(lr=0.1), num_steps=6)
ACTIVATIONS = ["layer_ranks", "layer_responses"]
WITHOUT_JACOBIAN = ["layers", "curvature", "stiffness", "goldilocks_position", "sensitivity", *ACTIVATIONS]
NULL_COLUMNS = ["this network", "twin on shuffled labels", "twin on matched Gaussian inputs, random labels"]


@pytest.fixture(autouse=True)
def _little_effort(monkeypatch):
    monkeypatch.setattr(examination, "EFFORTS", {"quick": Effort(**SMALL)})


def classification(generator, *, inputs=4, size=40):
    return Task.of(torch.randn(size, inputs, generator=generator), torch.randint(3, (size,), generator=generator))


def mlp(inputs=4, outputs=3):
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(inputs, 3), nn.Tanh(), nn.Linear(3, outputs))


def without_provenance(path):
    found = json.loads((path / "result.json").read_text())
    assert found.pop("provenance")
    return found


def tables(result):
    return [table.name for table in result.tables]


def figures(result):
    return [figure["name"] for figure in result.figures]


def test_the_built_in_digits_have_everything_beside_its_nulls(monkeypatch):
    tiny = digits_mlp(2, num_steps=8, name="digits-mlp")
    result, path = examine(tiny, seed=3)
    assert Result.load(path).to_dict() == json.loads((path / "result.json").read_text()) == result.to_dict()
    assert tables(result) == [
        "layers",
        "curvature",
        "stiffness",
        "goldilocks_position",
        "sensitivity",
        "layer_ranks",
        "layer_responses",
        "training_jacobian_regions",
        "training_jacobian",
    ]
    assert {"sensitivity", "hessian_spectrum", "spectrum", "distance_from_one", "unit_steps"} <= {*figures(result)}
    curvature = result.table("curvature").columns["network"]
    assert curvature == ["this network", "untrained twin", "same weights, permuted labels"]
    jacobian = result.table("training_jacobian")
    assert list(jacobian.columns)[1:] == [*NULL_COLUMNS, "the inputs alone, no network"]
    assert all(value is not None for name in NULL_COLUMNS for value in jacobian.columns[name])
    assert {"response / equal norm", "curvature v'Hv"} <= {*result.table("sensitivity").columns}
    assert result.provenance["command"] == "tremorscope.examine(network, preset='quick', seed=3)"
    assert result.flags[0] == "curvature and responses look at 64 of 1600 training examples"
    assert (path / "report.html").stat().st_size > 100_000
    assert len(result.summary) == 8
    for figure in result.figures:
        json.dumps(figure, allow_nan=False)


@pytest.mark.parametrize(
    "kind", ["classification", "regression", pytest.param("one class only", marks=pytest.mark.slow)]
)
def test_a_stranger_s_module_with_a_task(kind, generator):
    task = classification(generator)
    if kind == "regression":
        task = Task.of(task.inputs, task.inputs[:, :1].sin())
    if kind == "one class only":
        task = Task.of(task.inputs, torch.zeros(40, dtype=torch.int64))
    module = mlp(outputs=1 if kind == "regression" else 3)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    result, _ = examine(Network(module, task=task, recipe=RECIPE, name="mine"))
    assert result.title == "What is mine like?"
    assert "the weights given are the start of the recipe: measured after its 6 steps" in result.flags
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items()), "the module is as it was"
    assert result.summary[-1].startswith("Training amplifies ")
    moved = result.table("layers").columns["distance moved / untrained norm"]
    assert all(0 < value < 10 for value in moved)
    if kind == "regression":
        assert any("no unit steps" in flag for flag in result.flags)
        assert "unit_steps" not in figures(result)
        assert "distance of outputs" in result.table("sensitivity").caption
    else:
        assert "nats" in result.summary[-1]


def test_without_data_there_are_layers_and_a_flag():
    result, _ = examine(mlp())
    assert tables(result) == ["layers"]
    assert result.flags == ["no data: curvature, responses and the training Jacobian need inputs and targets"]
    assert result.summary == ["Sequential: 27 weights in 4 tensors."]
    assert "distance moved / untrained norm" not in result.table("layers").columns, "nobody knows where it started"


def test_data_without_a_recipe(generator):
    result, _ = examine(mlp(), data=classification(generator))
    assert tables(result) == WITHOUT_JACOBIAN
    assert result.flags[0] == "no training recipe: the training Jacobian needs one"


def test_a_recipe_of_pure_functions_has_no_twins_on_other_data(generator):
    task, module = classification(generator), mlp()
    bare = Network(module, task=task)

    def advance(theta, t):
        return theta - 0.1 * torch.func.grad(lambda at: bare.loss(at, task.train_batch()))(theta)

    recipe = PureRecipe(start=lambda theta: theta, advance=advance, num_steps=4)
    result, _ = examine(Network(module, task=task, recipe=recipe, initial=bare.theta))
    assert list(result.table("training_jacobian").columns)[1:2] == ["this network"]
    missing = "a recipe of pure functions cannot be moved to other data"
    assert [flag for flag in result.flags if missing in flag] == [f"no {name}: {missing}" for name in NULL_COLUMNS[1:]]


def test_a_jacobian_that_would_take_too_long_is_a_flag(monkeypatch, generator):
    monkeypatch.setattr(examination, "EFFORTS", {"quick": Effort(**{**SMALL, "jacobian_seconds": 1e-9})})
    result, _ = examine(Network(mlp(), task=classification(generator), recipe=RECIPE))
    (flag,) = [flag for flag in result.flags if "CPU-seconds" in flag]
    assert flag.startswith("training Jacobian could not be measured: training Jacobian of 27 weights: got about 0 CPU")
    assert "Use a larger preset" in flag
    assert tables(result) == WITHOUT_JACOBIAN


def test_tokens_lose_the_gaussian_twin_only(generator):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = nn.Embedding(5, 2), nn.Linear(6, 3)

        def forward(self, x):
            return self.out(self.table(x).flatten(1))

    task = Task.of(torch.randint(5, (30, 3), generator=generator), torch.randint(3, (30,), generator=generator))
    result, _ = examine(Network(Tokens(), task=task, recipe=RECIPE))
    assert list(result.table("training_jacobian").columns)[1:] == NULL_COLUMNS[:2]
    said = "\n".join(result.flags)
    assert "no twin on matched Gaussian inputs, random labels: null of task" in said
    assert "generic route: layer 'table' is a Embedding" in said, "the slower route is said aloud"


def test_a_loss_without_curvature_is_no_bug(generator):
    task = classification(generator)
    flat = Task.of(task.inputs, task.inputs[:, :1], loss=nn.functional.l1_loss)
    result, _ = examine(nn.Linear(4, 1), data=flat)
    assert "sensitivity" in tables(result)
    assert result.table("curvature").columns["largest eigenvalue"][0] == pytest.approx(0, abs=1e-9)
    assert any("no null of equal curvature" in flag for flag in result.flags)


def test_what_cannot_be_drawn_anew_or_is_frozen_is_said(generator):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 3), requires_grad=False)

        def forward(self, x):
            return x @ self.weight

    result, _ = examine(Own(), data=classification(generator))
    said = "\n".join(result.flags)
    assert "untrained twin could not be measured" in said
    assert "Pass the starting weights" in said
    assert "weights that require no gradient are disturbed, and trained, too: weight" in said
    assert result.summary[0] == "Own: 12 weights in 1 tensor."
    assert result.table("curvature").columns["network"] == ["this network", "same weights, permuted labels"]


@pytest.mark.parametrize(
    ("module", "recipe", "sentence"),
    [
        (
            nn.Linear(4, 1),
            Trainer(optimiser=momentum(lr=1e9), num_steps=20),
            r"training diverged at step \d+: .*learning rate",
        ),
        (
            nn.Sequential(nn.Linear(4, 1), nn.Dropout(0.5)),
            RECIPE,
            r"not deterministic: got theta_T differed by [\d.e-]+ .*Trainer\(seed=0\)",
        ),
    ],
)
def test_a_recipe_without_an_end_is_refused_and_leaves_a_run_that_says_so(
    module, recipe, sentence, generator, tmp_path
):
    inputs = classification(generator).inputs
    network = Network(module, task=Task.of(inputs, inputs[:, :1]), recipe=recipe)
    with pytest.raises(BadInput, match=sentence):
        examine(network, out=tmp_path)
    (path,) = tmp_path.iterdir()
    assert read_header(path).status == "failed"


def test_a_diverging_twin_costs_only_itself(generator, monkeypatch):
    """The network is known to have trained; its twin on other labels need not."""
    from tremorscope.examine import jacobian

    def refused(task, seed):
        raise BadInput("training diverged at step 3", got="loss inf", wanted="finite numbers")

    monkeypatch.setattr(jacobian, "NULLS", {**jacobian.NULLS, NULL_COLUMNS[1]: refused})
    result, _ = examine(Network(mlp(), task=classification(generator), recipe=RECIPE))
    assert list(result.table("training_jacobian").columns)[1:3] == [NULL_COLUMNS[0], NULL_COLUMNS[2]]
    assert f"no {NULL_COLUMNS[1]}: training diverged at step 3: got loss inf; wanted finite numbers." in result.flags


@pytest.mark.slow
def test_one_seed_gives_one_result_and_another_seed_another(generator, tmp_path):
    task = classification(generator)
    paths = [examine(Network(mlp(), task=task, recipe=RECIPE), seed=seed, out=tmp_path)[1] for seed in (0, 0, 1)]
    first, second, other = (without_provenance(path) for path in paths)
    assert first == second
    for file in (paths[0] / "figures").iterdir():
        assert file.read_bytes() == (paths[1] / "figures" / file.name).read_bytes()
    assert first["tables"] != other["tables"]
    assert first["tables"][0] == other["tables"][0], "layers hold nothing random"


def test_an_unknown_preset_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(BadInput, match=r"preset: got quik; wanted quick. Did you mean 'quick'\?"):
        examine(mlp(), preset="quik", out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


MODEL = """
import torch
from torch import nn
from tremorscope import Task, Trainer, momentum

def mine():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(60, 12, generator=generator)
    y = torch.randint(4, (60,), generator=generator)
    task = Task.of(x, y)
    recipe = Trainer(optimiser=momentum(lr=0.1), num_steps=60)
    return nn.Sequential(nn.Linear(12, 14), nn.Tanh(), nn.Linear(14, 4)), task, recipe
"""
# Little effort, and narrow blocks of columns that take their time: a kill finds some done and others not.
DRIVER = """
import time
from tremorscope.cli import main
from tremorscope.cli import main
from tremorscope.examine import examination, jacobian
from tremorscope.methods.weights.training_jacobian import training_jacobian

examination.EFFORTS = {{"quick": examination.Effort(**{effort})}}

def slowly(network, *, folder, progress):
    def step(done, total):
        progress(done, total)
        time.sleep(0.1)
    return training_jacobian(network, folder=folder, progress=step, chunk=16)

jacobian.training_jacobian = slowly
main(["examine", "net.py:mine", "--seed", "4", "--out", "runs"])
"""


def test_a_killed_examination_goes_on_and_ends_the_same_bit_for_bit(tmp_path, monkeypatch):
    from tremorscope.examine import jacobian

    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    Path("net.py").write_text(MODEL)
    Path("driver.py").write_text(DRIVER.format(effort=SMALL))
    process = subprocess.Popen([sys.executable, "driver.py"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(runs.glob("*/arrays/jacobian-1/columns-00003.safetensors")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (path,) = runs.iterdir()
    assert not (path / "result.json").exists()
    blocks = {file: file.stat().st_mtime_ns for file in path.glob("arrays/jacobian-*/columns-*.safetensors")}
    assert len(blocks) < 2 * 16, "242 weights in blocks of 16, and the kill came in the second Jacobian"

    unchanged = []

    def watched(network, *, folder, progress):
        finished = training_jacobian(network, folder=folder, progress=progress, chunk=16)
        unchanged.extend(file for file, when in blocks.items() if file.exists() and file.stat().st_mtime_ns == when)
        return finished

    monkeypatch.setattr(jacobian, "training_jacobian", watched)
    with pytest.raises(SystemExit) as end:
        main(["resume", str(path)])
    assert end.value.code == 0
    assert set(unchanged) == set(blocks), "finished blocks stay as they are"
    assert not list(path.glob("arrays/jacobian-*")), "columns are kept against a kill only"
    monkeypatch.setattr(jacobian, "training_jacobian", partial(training_jacobian, chunk=16))

    _, unbroken = examine("net.py:mine", seed=4, out=runs)
    assert without_provenance(path) == without_provenance(unbroken)
    compared = [file for folder in ("figures", "arrays") for file in (path / folder).rglob("*") if file.is_file()]
    assert len(compared) > 8
    for file in compared:
        assert file.read_bytes() == (unbroken / file.relative_to(path)).read_bytes(), file


def test_a_network_given_from_python_cannot_be_resumed_by_name(generator, tmp_path, monkeypatch):
    from tremorscope.studies.execute import resume

    monkeypatch.setattr(examination, "summarise_layers", lambda *parts, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        examine(mlp(), out=tmp_path)
    (path,) = tmp_path.iterdir()
    with pytest.raises(BadInput, match=r"call the function again from Python with resume=path"):
        resume(path)
    monkeypatch.undo()
    monkeypatch.setattr(examination, "EFFORTS", {"quick": Effort(**SMALL)})
    result, again = examine(mlp(), resume=path)
    assert again == path
    assert result.provenance["sittings"] == 2

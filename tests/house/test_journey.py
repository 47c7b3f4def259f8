"""The user's journey: somebody's own module and data, any method, one report, in ten lines and without a subclass."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tremorscope import Hessian, Network, Task, Trainer, momentum, report
from tremorscope.foundations.results import Result, drawn
from tremorscope.instruments.spectrum import eigsh
from tremorscope.methods.weights.layers import summarise_layers

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_network.py"
DRAWN = "document.querySelectorAll('figure.drawn').length === document.querySelectorAll('figure.figure').length"


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> tuple[list[str], Path]:
    """What the example prints, and its run directory."""
    folder = tmp_path_factory.mktemp("somewhere")
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no warning reaches a newcomer"
    lines = done.stdout.splitlines()
    return lines, folder / Path(lines[-1]).parent


def test_ten_lines_bring_a_stranger_s_network_to_a_report(example):
    lines, path = example
    result = Result.load(path)
    assert lines[:-1] == list(result.summary)
    assert {"layers", "curvature", "sensitivity", "training_jacobian"} <= {table.name for table in result.tables}
    tree = ast.parse(EXAMPLE.read_text())
    statements = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    assert len(statements) - 1 <= 10, "ten lines, the docstring aside"
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)]


@pytest.mark.browser
def test_and_the_report_opens(example, page):
    _, path = example
    page.goto((path / "report.html").as_uri())
    page.wait_for_function(DRAWN)
    assert page.locator("h1").inner_text() == "What is same sign? like?"
    shown = page.locator("figure.figure").count()
    assert shown == len(Result.load(path).figures) >= 5


def test_the_readme_shows_this_very_example():
    readme = (ROOT / "README.md").read_text()
    block = readme.split("```python\n")[1].split("```")[0]
    assert EXAMPLE.read_text().endswith('"""\n\n' + block)


def test_any_method_takes_the_same_network(tmp_path):
    """One module, three methods of different kinds, one page; the module is left bit for bit as it was."""
    module = nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(18, 2))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    task = Task.of(torch.randn(30, 1, 8, generator=generator), torch.arange(30) % 2)
    network = Network(module, task=task, recipe=Trainer(optimiser=momentum(lr=0.1), num_steps=3, seed=0))

    trained = network.at(network.recipe.fit(network).last)
    layers = summarise_layers(trained, network)
    spectrum = eigsh(Hessian(trained, task.train_batch()), 2)
    assert spectrum.residuals.max() < 1e-2
    figures = [drawn(figure) for figure in layers.figures()]
    page = report(
        Result(study="mine", preset="quick", seed=0, config={}, title="Mine", tables=layers.tables(), figures=figures),
        path=tmp_path / "mine.html",
    )
    assert page.stat().st_size > 100_000
    assert module.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())

from __future__ import annotations

import sys
from textwrap import dedent

import pytest
import torch
from torch import nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.load import builtin_models, load
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import sgd
from tremorscope.instruments.recipe import PureRecipe, run_recipe
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer

TASK = Task.of(torch.eye(4), torch.arange(4) % 2)
OTHER = Task.of(2 * torch.eye(4), torch.arange(4) % 2)


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setenv("TREMORSCOPE_CACHE", str(tmp_path / "cache"))

    def write(text: str, name: str = "mine.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(dedent(text))
        return str(path)

    return write


def test_modules_and_networks_are_themselves():
    module = nn.Linear(4, 2)
    assert load(module).module is module
    network = Network(module)
    assert load(network) is network
    assert load(network, dtype=torch.float32, device="cpu") is network


def test_data_precision_and_recipe_move_together():
    module = nn.Linear(4, 2)
    recipe = Trainer(optimiser=sgd(lr=0.5), num_steps=3).bind(Network(module, task=TASK))
    network = Network(module, task=TASK, recipe=recipe, initial=torch.zeros(10), name="mine").at(torch.ones(10))
    moved = load(network, data=OTHER, dtype="float64")
    assert moved.theta.tolist() == [1.0] * 10
    assert moved.start.tolist() == [0.0] * 10
    assert moved.name == "mine"
    assert {moved.dtype, moved.task.inputs.dtype, moved.recipe.task.inputs.dtype} == {torch.float64}
    assert torch.equal(moved.recipe.task.inputs, OTHER.inputs.double())
    assert run_recipe(moved.recipe, moved.start).dtype == torch.float64
    assert network.task.inputs.dtype == module.weight.dtype == torch.float32


def test_a_trainer_on_its_own_is_bound():
    network = Network(nn.Linear(4, 2), task=TASK, recipe=Trainer(optimiser=sgd(lr=0.5), num_steps=3))
    assert load(network) is network
    assert torch.equal(load(network, data=OTHER).recipe.task.inputs, OTHER.inputs)


def test_a_recipe_that_holds_its_data_is_dropped_with_them():
    own = PureRecipe(start=lambda theta: theta, advance=lambda state, t: state, num_steps=1)
    network = Network(nn.Linear(4, 2), task=TASK, recipe=own)
    assert load(network, dtype=torch.float64).recipe is own
    assert load(network, data=OTHER).recipe is None


def test_built_in_names(write):
    network = load("builtin:digits-mlp", data="builtin:digits")
    assert (network.layout.size, network.dtype, network.task.name) == (1210, torch.float32, "digits")
    assert next(model for model in builtin_models() if model.name == "builtin:digits-mlp").is_trained


RETURNS = {
    "module": ("nn.Linear(4, 2)", False, False),
    "pair": ("(nn.Linear(4, 2), task)", True, False),
    "triple": ("(nn.Linear(4, 2), task, Trainer(optimiser=sgd(lr=0.1), num_steps=2))", True, True),
    "recipe": (
        "(nn.Linear(4, 2), task, PureRecipe(start=lambda x: x, advance=lambda x, t: x / 2, num_steps=2))",
        True,
        True,
    ),
    "network": ("Network(nn.Linear(4, 2), task=task)", True, False),
}
HEADER = """
    import torch
    from torch import nn
    from tremorscope.instruments.network import Network
    from tremorscope.instruments.optimisers import sgd
    from tremorscope.instruments.recipe import PureRecipe
    from tremorscope.instruments.task import Task
    from tremorscope.instruments.trainer import Trainer
    task = Task.of(torch.eye(4), torch.arange(4) % 2)
"""


@pytest.mark.parametrize("kind", RETURNS)
def test_a_function_in_a_file(kind, write):
    returned, has_task, has_recipe = RETURNS[kind]
    path = write(f"{HEADER}\n    def make():\n        return {returned}\n")
    network = load(f"{path}:make")
    assert network.layout.size == 10
    assert (network.task is not None, network.recipe is not None) == (has_task, has_recipe)
    if has_recipe:
        assert run_recipe(network.recipe, network.start).shape == (10,)
        assert torch.equal(network.start, network.theta)


def test_a_file_is_repeatable_and_leaves_no_trace(write, tmp_path):
    path = write("from torch import nn\ndef make():\n    return nn.Linear(4, 2)\n")
    state, search, modules = torch.random.get_rng_state(), list(sys.path), set(sys.modules)
    one, two = load(f"{path}:make"), load(f"{path}:make")
    assert torch.equal(one.theta, two.theta)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert sys.path == search
    assert all(name.startswith("_tremorscope_file_") for name in set(sys.modules) - modules)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["mine.py"]


def test_two_folders_may_hold_modules_of_one_name(write):
    for folder, width in (("a", 3), ("b", 5)):
        write(f"WIDTH = {width}\n", f"{folder}/parts.py")
        write(
            "from torch import nn\nimport parts\ndef make():\n    return nn.Linear(parts.WIDTH, 1)\n", f"{folder}/m.py"
        )
    sizes = [load(f"{write('', 'x.py')[:-4]}{folder}/m.py:make").layout.size for folder in "ab"]
    assert sizes == [4, 6]


def test_an_edited_file_is_read_again(write):
    for width in (3, 5):
        path = write(f"from torch import nn\ndef make():\n    return nn.Linear({width}, 1)\n")
        assert load(f"{path}:make").layout.size == width + 1


def test_dataclasses_in_a_users_file(write):
    path = write(
        """
        from __future__ import annotations
        from dataclasses import dataclass
        from torch import nn

        @dataclass
        class Config:
            width: int = 3

        def make():
            return nn.Linear(Config().width, 1)
        """
    )
    assert load(f"{path}:make").layout.size == 4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def make(:\n", r"got SyntaxError: .*\(line 1 of mine.py\); wanted a file that imports"),
        ("import nosuchthing\ndef make(): pass\n", r"ModuleNotFoundError: No module named 'nosuchthing' \(line 1 of"),
        ("raise SystemExit(3)\ndef make(): pass\n", "got SystemExit: 3"),
        (
            "def make():\n\n    return 1 / 0\n",
            r"ZeroDivisionError: division by zero \(line 3 of mine.py\); wanted make\(\)",
        ),
        ("def make(x): pass\n", "TypeError: make.. missing 1 required positional argument"),
        ("def maker(): pass\n", "no function 'make' in mine.py; wanted one of maker. Did you mean 'maker'"),
        ("make = 3\n", "no function 'make' in mine.py; wanted a function at the top level"),
        ("def make(): return {}\n", r"make\(\) returned dict; wanted a Network, a module, or \(module, Task"),
        ("def make(): return None\n", r"make\(\) returned NoneType"),
        ("from torch import nn\ndef make(): return nn.Linear(1, 1), 3\n", r"returned \(Linear, int\)"),
        ("def make(): return ()\n", r"returned \(\); wanted"),
        ("from torch import nn\ndef make(): return nn.GELU()\n", "got no parameters"),
        (
            "from torch import nn, eye\nfrom tremorscope.instruments.task import Task\n"
            "def make(): return nn.Linear(2, 2), Task.of(eye(2), eye(2)), lambda theta: theta\n",
            "training recipe: got function; .*An opaque training loop cannot be differentiated",
        ),
    ],
)
def test_files_that_do_not_work(text, sentence, write):
    path, search = write(text), list(sys.path)
    with pytest.raises(BadInput, match=sentence):
        load(f"{path}:make")
    assert sys.path == search


def test_a_users_interrupt_is_not_swallowed(write):
    path = write("def make():\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load(f"{path}:make")


def test_names_that_are_no_model(write):
    path = write("def make(): pass\n")
    for spec, sentence in (
        ("builtin:digits_mlp", "no such built-in; wanted builtin:digits-mlp"),
        ("digits-mlp", "a name of no known kind.*Did you mean 'builtin:digits-mlp'"),
        ("hf:./nowhere", "no such folder; wanted a folder that exists"),
        ("nowhere", "a name of no known kind; wanted builtin:.*, hf:FOLDER_OR_NAME, or file.py:fn"),
        (path, f"a file without a function; wanted file.py:fn. Write {path}:make."),
        (path.replace("mine", "mime") + ":make", "No such file.*Did you mean '.*mine.py'"),
    ):
        with pytest.raises(BadInput, match=sentence):
            load(spec)


def test_precision_and_devices_that_are_not_there():
    module = nn.Linear(1, 1)
    with pytest.raises(BadInput, match=r"dtype: got float46; wanted float32.*Did you mean 'float64'"):
        load(module, dtype="float46")
    with pytest.raises(BadInput, match=r"dtype: got int64; wanted float32"):
        load(module, dtype=torch.int64)
    with pytest.raises(BadInput, match=r"device 'abacus': got .*Use 'cpu'"):
        load(module, device="abacus")

"""One way in for every model: a module, a built-in name, or a function in somebody's file."""

from __future__ import annotations

import ast
import hashlib
import linecache
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from tremorscope.foundations.errors import BadInput, TremorscopeError, did_you_mean
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.builtin import BuiltinModel as BuiltinModel
from tremorscope.instruments.builtin import builtin_models as builtin_models
from tremorscope.instruments.builtin import load_builtin
from tremorscope.instruments.data import load_data
from tremorscope.instruments.hugging_face import load_hugging_face
from tremorscope.instruments.network import Network
from tremorscope.instruments.recipe import Recipe, check_recipe
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer, Training

Spec = str | Path | nn.Module | Network
DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load(
    spec: Spec,
    *,
    data: str | Path | Task | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Network:
    """A network from whatever names one.

    | spec | network |
    |---|---|
    | a module or a `Network` | itself |
    | `builtin:digits-mlp`, ... | see `builtin_models()` |
    | `hf:FOLDER`, `hf:OWNER/NAME[@REVISION]` | a Hugging Face model with its tokenizer: see `load_hugging_face` |
    | `file.py:fn` | what `fn()` returns: a Network, a module, or `(module, Task[, Trainer or recipe])` |

    A user's file is run, with its folder importable and the random state set for the moment: the same
    file gives the same weights every time, and the random state outside does not move. Modules that it
    imports from its own folder are its own: another file may bring others of the same name.

    Args:
        spec: See above.
        data: A `Task`, or what `load_data` takes; in place of the data that come with the model. A
            `Trainer` that came with it follows; a recipe of pure functions is dropped.
        device: Where to compute.
        dtype: Precision of the weights: a torch dtype or its name; by default float32 for built-ins, else as they are.

    Raises:
        BadInput: If the spec names nothing, the file does not import, has no such function, fails or returns
            something else, or the folder holds no such model.
    """
    precision, place = _checked_dtype(dtype), _checked_device(device)
    task = data if isinstance(data, Task) or data is None else load_data(data)
    if isinstance(spec, Network):
        network = spec
    elif isinstance(spec, nn.Module):
        network = Network(spec)
    elif isinstance(spec, str | Path):
        network = _named(str(spec), precision, place)
    else:
        raise BadInput("model", got=type(spec).__name__, wanted="a module, a Network or a name")
    return _moved(network, task, precision, place)


def _named(spec: str, dtype: torch.dtype | None, device: torch.device | None) -> Network:
    if spec.startswith("builtin:"):
        return load_builtin(spec, dtype=dtype or torch.float32)
    if spec.startswith("hf:"):
        return load_hugging_face(spec, dtype=dtype, device=device)
    path, _, function = spec.rpartition(":")
    if path.endswith(".py"):
        return _from_file(spec, Path(path), function)
    if spec.endswith(".py"):
        offered = _functions(spec, Path(spec))
        raise BadInput(
            f"model {spec!r}",
            got="a file without a function",
            wanted="file.py:fn",
            remedy=f"Write {spec}:{offered[0]}." if offered else None,
        )
    models = [model.name for model in builtin_models()]
    raise BadInput(
        f"model {spec!r}",
        got="a name of no known kind",
        wanted=f"{', '.join(models)}, hf:FOLDER_OR_NAME, or file.py:fn",
        remedy=did_you_mean(f"builtin:{spec}", models),
    )


def _moved(network: Network, task: Task | None, dtype: torch.dtype | None, device: torch.device | None) -> Network:
    if task is None and dtype in (None, network.dtype) and device in (None, network.device):
        return network
    fresh = Network(
        network.module,
        task=network.task if task is None else task,
        tokenizer=network.tokenizer,
        name=network.name,
        dtype=dtype,
        device=device,
    )
    recipe = network.recipe
    if isinstance(recipe, Training):
        recipe = recipe.trainer
    if task is not None and not isinstance(recipe, Trainer):
        recipe = None  # it has the old data inside, as in Network.with_task
    return _with_recipe(fresh.at(network.theta), recipe, network.initial)


def _with_recipe(network: Network, recipe: Trainer | Recipe | None, initial: torch.Tensor | None) -> Network:
    bound = recipe.bind(network) if isinstance(recipe, Trainer) else recipe
    return Network(
        network.module,
        task=network.task,
        recipe=bound,
        initial=initial,
        tokenizer=network.tokenizer,
        name=network.name,
        dtype=network.dtype,
        device=network.device,
    ).at(network.theta)


def _checked_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    if dtype is None or name in DTYPES:
        return DTYPES.get(name)
    raise BadInput("dtype", got=name, wanted=", ".join(DTYPES), remedy=did_you_mean(name, DTYPES))


def _checked_device(device: torch.device | str | None) -> torch.device | None:
    if device is None:
        return None
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # an unknown name, or a build without that backend
        raise BadInput(
            f"device {str(device)!r}",
            got=str(error).splitlines()[0],
            wanted="a device that this machine and this build of torch have",
            remedy="Use 'cpu'.",
        ) from None


def _from_file(spec: str, path: Path, function: str) -> Network:
    offered = _functions(spec, path)
    if function not in offered:
        raise BadInput(
            f"model {spec!r}",
            got=f"no function {function!r} in {path.name}",
            wanted=f"one of {', '.join(offered)}" if offered else "a function at the top level of the file",
            remedy=did_you_mean(function, offered),
        )
    source = path.read_text(encoding="utf-8")
    with _visiting(path.resolve()) as module, _repeatable():
        try:
            # Compiled from the source rather than imported: no stale byte code, nothing written beside it.
            exec(compile(source, str(path), "exec"), module.__dict__)
        except (Exception, SystemExit) as error:
            raise _failure(spec, path, error, "a file that imports") from error
        try:
            made = module.__dict__[function]()
        except TremorscopeError:
            raise
        except (Exception, SystemExit) as error:
            raise _failure(spec, path, error, f"{function}() that returns a network") from error
    return _assembled(spec, function, made)


def _assembled(spec: str, function: str, made: Any) -> Network:
    if isinstance(made, Network):
        return made
    parts = made if isinstance(made, tuple) else (made,)
    module, task, recipe = (*parts, None, None, None)[:3]
    if isinstance(module, nn.Module) and (task is None or isinstance(task, Task)) and len(parts) <= 3:
        if recipe is not None and not isinstance(recipe, Trainer):
            recipe = check_recipe(recipe)
        return _with_recipe(Network(module, task=task, name=function), recipe, None)
    kinds = ", ".join(type(part).__name__ for part in parts)
    raise BadInput(
        f"model {spec!r}",
        got=f"{function}() returned {f'({kinds})' if isinstance(made, tuple) else kinds}",
        wanted="a Network, a module, or (module, Task[, Trainer])",
        remedy="Data: Task.of(inputs, targets).",
    )


def _functions(spec: str, path: Path) -> list[str]:
    """Names that the file defines at its top level, read without running it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except OSError as error:
        near = (str(other) for other in path.parent.glob("*.py")) if path.parent.is_dir() else ()
        raise BadInput(
            f"model {spec!r}",
            got=error.strerror or str(error),
            wanted="a file that can be read",
            remedy=did_you_mean(str(path), near),
        ) from None
    except (SyntaxError, ValueError) as error:
        raise _failure(spec, path, error, "a file that imports") from error
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


@contextmanager
def _visiting(path: Path) -> Iterator[ModuleType]:
    """A module for the file, under a private name, with its folder importable until the end."""
    name = f"_tremorscope_file_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    linecache.checkcache(str(path))
    before, folder = set(sys.modules), str(path.parent)
    # Registered: dataclasses and type hints of the user's classes look their module up by name.
    sys.modules[name] = module
    sys.path.insert(0, folder)
    try:
        yield module
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
        for other in set(sys.modules) - before - {name}:
            origin = getattr(sys.modules[other], "__file__", None)
            if origin and Path(origin).resolve().is_relative_to(folder) and "site-packages" not in Path(origin).parts:
                del sys.modules[other]


@contextmanager
def _repeatable() -> Iterator[None]:
    """The random state set for a moment: weights drawn in a user's file are the same at every load."""
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch.Generator().manual_seed(derive(0, "load")).get_state())
        yield


def _failure(spec: str, path: Path, error: BaseException, wanted: str) -> BadInput:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = frames[-1].lineno if frames else getattr(error, "lineno", None)
    place = f" (line {line} of {path.name})" if line else ""
    return BadInput(f"model {spec!r}", got=f"{type(error).__name__}: {error}{place}", wanted=wanted)

"""The walls of the house, read from the source with `ast`: every rule is one function from a tree to sentences.

A rule takes the modules of a package folder and returns one sentence for each place that breaks it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

FLOOR = {"foundations": 0, "instruments": 1, "methods": 2, "studies": 3, "examine": 3, "cli": 4, "web": 4}
DOORS = 4  # the floor of files that lie beside the folders, such as __main__.py
FORBIDDEN_FILES = {"utils", "helpers", "misc", "common", "core"}
FORBIDDEN_IMPORTS = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
# Each exception is one file and one name, with its reason.
EXCEPTIONS = {
    # What crosses to a worker process is pickled in any case, and this file tries that first. Even there, nothing is
    # read that the same expression did not write.
    ("instruments/executor.py", "pickle"),
    # `file.py:fn` is the user's own file, named by the user; it is never offered on the web.
    ("instruments/load.py", "exec"),
}
FORBIDDEN_CALLS = {
    "torch.manual_seed": "take a torch.Generator",
    "torch.random.manual_seed": "take a torch.Generator",
    "torch.cuda.manual_seed_all": "take a torch.Generator",
    "np.random.seed": "take a numpy Generator",
    "numpy.random.seed": "take a numpy Generator",
    "random.seed": "take a generator",
    "torch.set_default_dtype": "pass dtype",
    "set_default_dtype": "pass dtype",
    "torch.set_default_device": "pass device",
    "eval": "no text is executed",
    "exec": "no text is executed",
}
STUDY_MACHINERY = {"study", "execute", "scoreboard"}  # modules of studies/ that are not themselves studies
ASSERTS_PER_LINE = 0.5 / 1000


@dataclass(frozen=True)
class Module:
    """One source file: where it is, its dotted parts below the package, and its syntax."""

    path: str
    parts: tuple[str, ...]
    is_package: bool
    tree: ast.Module
    num_lines: int

    @property
    def folder(self) -> tuple[str, ...]:
        """The dotted parts of the folder it lies in."""
        return self.parts if self.is_package else self.parts[:-1]

    @property
    def floor(self) -> int:
        """How high it lives."""
        return FLOOR.get(self.parts[0], DOORS) if self.parts else DOORS


def read(package: Path) -> list[Module]:
    """Every module below `package` (a folder such as src/tremorscope)."""
    modules = []
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        below = path.relative_to(package)
        is_package = path.name == "__init__.py"
        parts = below.parent.parts if is_package else below.with_suffix("").parts
        modules.append(Module(below.as_posix(), parts, is_package, ast.parse(text), text.count("\n")))
    return modules


def imports(module: Module) -> Iterator[tuple[int, tuple[str, ...], bool]]:
    """Line, dotted parts below the package, and whether the last part may be a name rather than a module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "tremorscope":
                    yield node.lineno, tuple(alias.name.split(".")[1:]), False
        elif isinstance(node, ast.ImportFrom):
            named = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                base = module.folder[: len(module.folder) - node.level + 1] + named
            elif named[0] == "tremorscope":
                base = named[1:]
            else:
                continue
            for alias in node.names:
                yield node.lineno, (*base, alias.name), True


def upward_imports(modules: list[Module]) -> Iterator[str]:
    """A floor imports itself and the floors below; the door of the package, __init__.py, is a list of names."""
    for module in modules:
        if not module.parts:
            continue
        for line, target, _ in imports(module):
            if len(target) == 1 and target[0] not in FLOOR:
                yield f"{module.path}:{line} imports {target[0]} from the front door; import it from its own module"
            elif target and FLOOR.get(target[0], DOORS) > module.floor:
                yield f"{module.path}:{line} (floor {module.floor}) imports {'.'.join(target)} (floor above)"


def imports_between_groups(modules: list[Module]) -> Iterator[str]:
    """One group of methods never imports another; what two groups need moves down to instruments."""
    for module in modules:
        if len(module.parts) < 2 or module.parts[0] != "methods":
            continue
        for line, target, _ in imports(module):
            if len(target) > 1 and target[0] == "methods" and target[1] != module.parts[1]:
                yield f"{module.path}:{line} imports {'.'.join(target)}, a method of another group"


def foreign_underscores(modules: list[Module]) -> Iterator[str]:
    """Nobody imports an underscore, module or name, of another folder."""
    folders = {module.folder for module in modules}
    for module in modules:
        for line, target, _ in imports(module):
            for index, part in enumerate(target):
                if not part.startswith("_") or part.startswith("__"):
                    continue
                owner = target[:index]
                owner = owner if owner in folders else owner[:-1]
                if owner != module.folder:
                    yield f"{module.path}:{line} imports {'.'.join(target)}, private to {'.'.join(owner)}"


def attic_names(modules: list[Module]) -> Iterator[str]:
    """A file is named after what it does."""
    for module in modules:
        if module.parts and module.parts[-1].strip("_") in FORBIDDEN_FILES:
            yield f"{module.path} is named {module.parts[-1]}; name the thing that it does"


def missing_docstrings(modules: list[Module]) -> Iterator[str]:
    """Every module, and every public function and class at its top, says what it is for."""
    for module in modules:
        if ast.get_docstring(module.tree) is None:
            yield f"{module.path} has no docstring"
        for node in module.tree.body:
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                and not node.name.startswith("_")
                and "overload" not in decorators(node)
                and ast.get_docstring(node) is None
            ):
                yield f"{module.path}:{node.lineno} {node.name} has no docstring"


def too_many_asserts(modules: list[Module]) -> Iterator[str]:
    """An assert tells a user nothing and vanishes under -O: users get BadInput."""
    found = [
        f"{module.path}:{node.lineno}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assert)
    ]
    allowed = ASSERTS_PER_LINE * sum(module.num_lines for module in modules)
    if len(found) > allowed:
        yield f"{len(found)} asserts, at most {allowed:.1f} for a house of this size: {', '.join(found)}"


def forbidden_calls(modules: list[Module]) -> Iterator[str]:
    """No pickle is read, no global state is set, no text is executed."""
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                for name in named:
                    if (module.path, name) in EXCEPTIONS:
                        continue
                    if name.split(".")[0] in FORBIDDEN_IMPORTS:
                        yield f"{module.path}:{node.lineno} imports {name}"
            elif isinstance(node, ast.Call):
                name, keywords = dotted(node.func), {keyword.arg: keyword.value for keyword in node.keywords}
                if name in FORBIDDEN_CALLS and (module.path, name) not in EXCEPTIONS:
                    yield f"{module.path}:{node.lineno} calls {name}: {FORBIDDEN_CALLS[name]}"
                if name in ("pickle.load", "pickle.loads", "pickle.Unpickler") and not is_round_trip(node):
                    yield f"{module.path}:{node.lineno} calls {name}: no pickle is read"
                if name == "torch.load" and not is_constant(keywords.get("weights_only"), True):
                    yield f"{module.path}:{node.lineno} calls torch.load without weights_only=True"
                if name.rpartition(".")[2] == "load" and is_constant(keywords.get("allow_pickle"), True):
                    yield f"{module.path}:{node.lineno} calls {name} with allow_pickle=True"


def unregistered_studies(modules: list[Module]) -> Iterator[str]:
    """What `tremorscope list` does not show does not exist. A study may keep a part of itself in a file beside it."""
    inside = [
        module
        for module in modules
        if module.parts[:1] == ("studies",) and len(module.parts) == 2 and not module.is_package
    ]
    registered = [module for module in inside if registers_a_study(module)]
    parts_of_studies = {target[1] for study in registered for _, target, _ in imports(study) if target[0] == "studies"}
    for module in inside:
        if module.parts[1] in STUDY_MACHINERY | parts_of_studies or module.parts[1].startswith("_"):
            continue
        if module not in registered:
            yield f"{module.path} registers no study; decorate its run with @study(name=...)"


RULES: tuple[Callable[[list[Module]], Iterator[str]], ...] = (
    upward_imports,
    imports_between_groups,
    foreign_underscores,
    attic_names,
    missing_docstrings,
    too_many_asserts,
    forbidden_calls,
    unregistered_studies,
)


def registers_a_study(module: Module) -> bool:
    """Whether a function at the top of the module is decorated with `study`."""
    tops = [node for node in module.tree.body if isinstance(node, ast.FunctionDef)]
    return any("study" in decorators(node) for node in tops)


def decorators(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> set[str]:
    """Last names of the decorators, called or not."""
    called = (entry.func if isinstance(entry, ast.Call) else entry for entry in node.decorator_list)
    return {dotted(entry).rpartition(".")[2] for entry in called}


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a chain of names; empty when it starts with anything but a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def is_round_trip(node: ast.Call) -> bool:
    """Whether it is `pickle.loads(pickle.dumps(...))`."""
    inner = node.args[0] if node.args else None
    return dotted(node.func) == "pickle.loads" and isinstance(inner, ast.Call) and dotted(inner.func) == "pickle.dumps"


def is_constant(node: ast.expr | None, value: object) -> bool:
    """Whether an argument is that literal."""
    return isinstance(node, ast.Constant) and node.value is value

"""The map in `tremorscope/__init__.py`: one list for type checkers, the same for run time, and every name is there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import tremorscope


def names_for_type_checkers() -> dict[str, str]:
    """Name -> module of the imports under TYPE_CHECKING."""
    tree = ast.parse(Path(tremorscope.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name} is not re-exported: write `{alias.name} as {alias.name}`"
            found[alias.name] = str(node.module)
    return found


def test_both_lists_agree():
    assert names_for_type_checkers() == tremorscope._MODULE_OF
    assert sorted(names_for_type_checkers()) == tremorscope.__all__


def test_the_front_door_is_narrow():
    assert len(tremorscope.__all__) <= 40
    assert set(tremorscope.__all__) <= set(dir(tremorscope))


@pytest.mark.parametrize("name", tremorscope.__all__)
def test_every_public_name_is_there(name):
    value = getattr(tremorscope, name)
    assert not isinstance(value, ModuleType)
    assert value.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Hesian'"):
        _ = tremorscope.Hesian


@pytest.mark.parametrize("first", ["import tremorscope.examine", "from tremorscope.examine import examine", "pass"])
def test_examine_is_the_function_whatever_was_imported_first(first):
    code = f"{first}\nimport tremorscope\nfrom tremorscope import examine\n"
    code += "assert callable(examine) and tremorscope.examine is examine"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr

"""The floors hold, and the check that says so can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

import tremorscope
from tests.house.walls import FLOOR, RULES, read

SOURCE = Path(tremorscope.__file__).parent

# Rule -> file -> (source, what the sentence must contain). Every other file is left as in SOUND.
PLANTED = {
    "upward_imports": {
        "foundations/numbers.py": (
            '"""N."""\ndef f():\n    """F."""\n    from tremorscope.instruments.site import Site\n',
            "foundations/numbers.py:4 (floor 0) imports instruments.site.Site",
        ),
        "instruments/site.py": ('"""S."""\nfrom ..studies import waves\n', "instruments/site.py:2 (floor 1) imports"),
        "methods/weights/jacobian.py": ('"""J."""\nfrom tremorscope import Site\n', "from the front door"),
        "studies/waves.py": (
            '"""W."""\nimport tremorscope.cli.main\n@study(name="waves")\ndef run():\n    """R."""\n',
            "imports cli.main (floor above)",
        ),
    },
    "imports_between_groups": {
        "methods/weights/jacobian.py": (
            '"""J."""\nfrom tremorscope.methods.dynamics import grok\n',
            "methods/weights/jacobian.py:2 imports methods.dynamics.grok",
        ),
    },
    "foreign_underscores": {
        "methods/weights/jacobian.py": (
            '"""J."""\nfrom tremorscope.instruments._hooks import hook\n',
            "imports instruments._hooks.hook, private to instruments",
        ),
        "instruments/site.py": (
            '"""S."""\nfrom tremorscope.foundations.numbers import _secret\n',
            "imports foundations.numbers._secret, private to foundations",
        ),
    },
    "attic_names": {"instruments/utils.py": ('"""U."""\n', "instruments/utils.py is named utils")},
    "missing_docstrings": {
        "methods/__init__.py": ("", "methods/__init__.py has no docstring"),
        "instruments/site.py": ('"""S."""\nclass Site:\n    pass\n', "instruments/site.py:2 Site has no docstring"),
    },
    "too_many_asserts": {"instruments/site.py": ('"""S."""\nassert True\n', "1 asserts")},
    "forbidden_calls": {
        "foundations/numbers.py": ('"""N."""\nimport pickle\n', "foundations/numbers.py:2 imports pickle"),
        "instruments/executor.py": ('"""E."""\nimport pickle\npickle.loads(sent)\n', "calls pickle.loads"),
        "instruments/site.py": ('"""S."""\nx = torch.load("a.pt")\n', "torch.load without weights_only=True"),
        "methods/weights/jacobian.py": ('"""J."""\ntorch.manual_seed(0)\n', "calls torch.manual_seed"),
        "methods/dynamics/grok.py": ('"""G."""\nnp.random.seed(0)\n', "calls np.random.seed"),
        "instruments/load.py": ('"""L."""\nexec(text)\neval(text)\n', "instruments/load.py:3 calls eval"),
        "examine/__init__.py": ('"""E."""\nset_default_dtype(x)\n', "calls set_default_dtype"),
        "instruments/_hooks.py": ('"""H."""\nnp.load("a", allow_pickle=True)\n', "allow_pickle=True"),
    },
    "unregistered_studies": {"studies/waves.py": ('"""W."""\n', "studies/waves.py registers no study")},
}
SOUND = {
    "__init__.py": '"""Map."""\nfrom tremorscope.studies.waves import run\n',
    "foundations/__init__.py": '"""Floor 0."""\n',
    "foundations/numbers.py": '"""N."""\ndef _secret():\n    pass\n',
    "instruments/__init__.py": '"""Floor 1."""\n',
    "instruments/executor.py": '"""E."""\nimport pickle\npickle.loads(pickle.dumps(x))\n',
    "instruments/_hooks.py": '"""H."""\nx = torch.Generator().manual_seed(0)\n',
    "instruments/site.py": '"""S."""\nfrom tremorscope.instruments._hooks import hook\nnetwork.eval()\n',
    "methods/__init__.py": '"""Floor 2."""\n',
    "methods/weights/__init__.py": '"""Group."""\n',
    "methods/weights/jacobian.py": '"""J."""\nfrom tremorscope.instruments.site import Site\n',
    "methods/dynamics/__init__.py": '"""Group."""\n',
    "methods/dynamics/grok.py": '"""G."""\nx = torch.load("a", weights_only=True)\n',
    "studies/__init__.py": '"""Floor 3."""\n',
    "studies/waves.py": '"""W."""\n@study(name="waves")\ndef run():\n    """R."""\n',
    "examine/__init__.py": '"""Floor 3."""\n',
    "cli/__init__.py": '"""Floor 4."""\nfrom tremorscope.studies.waves import run\n',
}


def build(root: Path, changed: dict[str, tuple[str, str]]) -> Path:
    """A small house under `root`, sound but for the changed files."""
    for name, text in {**SOUND, **{name: text for name, (text, _) in changed.items()}}.items():
        path = root / "tremorscope" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "tremorscope"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule):
    assert list(rule(read(SOURCE))) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_accepts_a_sound_house(rule, tmp_path):
    assert list(rule(read(build(tmp_path, {})))) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_names_every_planted_violation(rule, tmp_path):
    planted = PLANTED[rule.__name__]
    sentences = list(rule(read(build(tmp_path, planted))))
    for _, wanted in planted.values():
        assert any(wanted in sentence for sentence in sentences), sentences
    assert len(sentences) == len(planted)


def test_every_folder_has_a_floor_and_a_docstring():
    folders = [path for path in SOURCE.iterdir() if path.is_dir() and any(path.rglob("*.py"))]
    assert {path.name for path in folders} <= set(FLOOR)
    packages = {path.parent for path in SOURCE.rglob("*.py")}
    assert [str(path.relative_to(SOURCE)) for path in packages if not (path / "__init__.py").is_file()] == []

"""Prose of a Python: split by module, the same each time, and clear about what is missing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld.prose import LONGEST_PIECE, examples, pieces, source

SENTENCE = "This sentence says what the thing is for, at some length, so that it is worth reading twice."


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A small standard library."""
    for number in range(60):
        (tmp_path / f"module{number:02d}.py").write_text(f'"""{SENTENCE} It is module {number}."""\n')
    (tmp_path / "long.py").write_text('"""' + "\n\n".join(f"{number}. {SENTENCE}" for number in range(40)) + '\n"""\n')
    (tmp_path / "nested.py").write_text(
        f'"""Short."""\nclass Thing:\n    """{SENTENCE}"""\n\n'
        f'    async def act(self):\n        """{SENTENCE} Twice."""\n'
    )
    (tmp_path / "broken.py").write_text("def broken(:\n")
    (tmp_path / "old.py").write_text(f'"""{SENTENCE} Old."""\nx = "\\d"\n')  # an escape that Python warns of
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_secret.py").write_text(f'"""{SENTENCE} Secret."""\n')
    (tmp_path / "pydoc_data").mkdir()
    (tmp_path / "pydoc_data" / "topics.py").write_text(
        f'topics = {{"while": "The while statement\\n\\n{SENTENCE}", "if": "{SENTENCE} If."}}\n'
    )
    return tmp_path


def test_docstrings_and_topics_are_found_and_tests_left_out(library: Path):
    found = {piece.module: piece.text for piece in pieces(library)}
    assert found["topic while"] == f"The while statement\n\n{SENTENCE}"
    assert found["old.py"] == f"{SENTENCE} Old."
    assert [piece.text for piece in pieces(library) if piece.module == "nested.py"] == [SENTENCE, f"{SENTENCE} Twice."]
    assert not [module for module in found if "secret" in module or "broken" in module]
    modules = [piece.module for piece in pieces(library) if not piece.module.startswith("topic")]
    assert modules == sorted(modules)


def test_long_texts_are_cut_between_paragraphs(library: Path):
    cut = [piece.text for piece in pieces(library) if piece.module == "long.py"]
    assert len(cut) > 3
    assert max(map(len, cut)) <= LONGEST_PIECE
    assert "\n\n".join(cut) == "\n\n".join(f"{number}. {SENTENCE}" for number in range(40))


def test_modules_belong_to_one_split_whole(library: Path):
    modules = {
        split: {piece.module for piece in examples(split, root=library)} for split in ("train", "validation", "test")
    }
    assert all(modules.values())
    assert sum(map(len, modules.values())) == len(set().union(*modules.values()))
    assert len(modules["train"]) > 40


def test_the_record_is_of_the_text(library: Path):
    digest = hashlib.sha256(b"".join(piece.text.encode() + b"\0" for piece in pieces(library)))
    found = source(library)
    assert found.sha256 == digest.hexdigest()
    assert found.pieces == len(pieces(library))
    assert found.characters == sum(len(piece.text) for piece in pieces(library))


def test_a_library_without_sources_is_refused(tmp_path: Path):
    (tmp_path / "module.pyc").write_bytes(b"\0")
    with pytest.raises(BadInput, match=r"no Python sources with docstrings; wanted a standard library .* Use a Python"):
        examples("train", root=tmp_path)
    with pytest.raises(BadInput, match="got no such folder"):
        examples("train", root=tmp_path / "none")


@pytest.mark.slow
def test_the_installed_library_has_prose():
    found = source()
    assert found.files > 300
    assert 1_000_000 < found.characters < 4_000_000
    assert {"topic lambda", "textwrap.py"} <= {piece.module for piece in pieces()}

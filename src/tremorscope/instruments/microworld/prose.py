"""Real English: the documentation that the installed Python brings with its standard library."""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import final

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld.splits import Split, part_of

# Tests, a program for beginners, what users installed, and a grammar engine with its own tests.
EXCLUDED = frozenset(
    {"test", "tests", "idlelib", "site-packages", "dist-packages", "__pycache__", "lib2to3", "ensurepip"}
)
SHORTEST_DOCSTRING = 80
LONGEST_PIECE = 700
PARAGRAPH = re.compile(r"\n\s*\n")


@final
@dataclass(frozen=True, kw_only=True)
class ProsePiece:
    """Some paragraphs of one docstring or topic; `module` is the file, or the topic, that they come from."""

    text: str
    module: str
    split: Split


@final
@dataclass(frozen=True, kw_only=True)
class ProseSource:
    """Where prose came from: it differs between Python versions, so a corpus records this.

    `sha256` is over the texts of all pieces, in order, each followed by a zero byte.
    """

    python: str
    files: int
    pieces: int
    characters: int
    sha256: str


def examples(split: Split, *, root: Path | None = None) -> tuple[ProsePiece, ...]:
    """All prose of a split, in the order of module names and of lines; the split is by hash of the module.

    Args:
        split: A module, or a topic, belongs to one split whole.
        root: A folder of Python sources; None for the standard library of this interpreter. About 3 CPU-s the first
            time, kept for the process.

    Raises:
        BadInput: If there are no sources there.
    """
    return tuple(piece for piece in pieces(root) if piece.split == split)


@cache
def pieces(root: Path | None = None) -> tuple[ProsePiece, ...]:
    """All prose of all splits, as `examples`."""
    folder = Path(sysconfig.get_paths()["stdlib"]) if root is None else root
    found = []
    for module, texts in _texts(folder):
        split = part_of("prose", module)
        found += [ProsePiece(text=piece, module=module, split=split) for text in texts for piece in _cut(text)]
    if not found:
        raise BadInput(
            f"prose in {folder}",
            got="no Python sources with docstrings" if folder.is_dir() else "no such folder",
            wanted="a standard library with its .py files",
            remedy="Use a Python that has them (some minimal distributions ship bytecode only, as .pyc or inside a zip "
            "file), name a folder of sources with root=, or leave prose out: CorpusConfig(weights={..., 'prose': 0}).",
        )
    return tuple(found)


@cache
def source(root: Path | None = None) -> ProseSource:
    """Version, size and hash of what `pieces` found."""
    all_pieces = pieces(root)
    digest = hashlib.sha256()
    for piece in all_pieces:
        digest.update(piece.text.encode() + b"\0")
    return ProseSource(
        python=platform.python_version(),
        files=len({piece.module for piece in all_pieces}),
        pieces=len(all_pieces),
        characters=sum(len(piece.text) for piece in all_pieces),
        sha256=digest.hexdigest(),
    )


def _texts(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each module's name (its path below the folder) with its docstrings, and each topic."""
    paths = [path for path in folder.rglob("*.py") if not EXCLUDED & set(path.relative_to(folder).parts)]
    for path in sorted(paths, key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        tree = _parsed(path)
        if tree is None:
            continue
        if name == "pydoc_data/topics.py":
            yield from ((f"topic {topic}", [text]) for topic, text in _topics(tree))
        else:
            yield name, _docstrings(tree)


def _parsed(path: Path) -> ast.Module | None:
    """The syntax of a file; None for the few that are there to be wrong, or are of another version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in somebody else's strings
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return None


def _docstrings(tree: ast.Module) -> list[str]:
    found = []
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        # Only statements hold definitions: looking into expressions too takes four times as long.
        todo += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=True)
            if text is not None and len(text) >= SHORTEST_DOCSTRING:
                found.append((getattr(node, "lineno", 0), text))
    return list(dict.fromkeys(text for _, text in sorted(found, key=lambda pair: pair[0])))


def _topics(tree: ast.Module) -> list[tuple[str, str]]:
    """The language reference that `help()` shows."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics = ast.literal_eval(node.value)
            return sorted((name, inspect.cleandoc(text)) for name, text in topics.items() if isinstance(text, str))
    return []


def _cut(text: str) -> Iterator[str]:
    """Whole paragraphs, as many as fit into one piece; a longer paragraph is cut between lines."""
    held: list[str] = []
    size = 0
    for paragraph in PARAGRAPH.split(text):
        for part in _lines(paragraph.strip("\n")):
            if held and size + len(part) > LONGEST_PIECE:
                yield "\n\n".join(held)
                held, size = [], 0
            held.append(part)
            size += len(part) + 2
    if size >= SHORTEST_DOCSTRING:
        yield "\n\n".join(held)


def _lines(paragraph: str) -> Iterator[str]:
    held: list[str] = []
    size = 0
    for line in paragraph.split("\n"):
        if held and size + len(line) > LONGEST_PIECE:
            yield "\n".join(held)
            held, size = [], 0
        held.append(line.rstrip())
        size += len(line) + 1
    yield "\n".join(held)

"""Tasks from files: arrays, tables, and what is built in."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from tremorscope.foundations.arrays import read_arrays
from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.task import Task, digits

BUILTIN: dict[str, Callable[[], Task]] = {"builtin:digits": digits}
TARGET_COLUMNS = ("targets", "target")
NAMES, TEST_NAMES = ("inputs", "targets"), ("test_inputs", "test_targets")
HELD_OUT = 0.2

Arrays = Mapping[str, Tensor]


def load_data(spec: str | Path, *, seed: int = 0) -> Task:
    """Examples with their targets, from a file or a built-in name.

    | spec | contents |
    |---|---|
    | `builtin:digits` | scikit-learn's digits, with the published split |
    | `.npz`, `.safetensors` | arrays `inputs` and `targets`; `test_inputs` and `test_targets` if there are any |
    | `.csv`, `.parquet` | a column `targets` (or `target`); a list column `inputs`, or every other column a feature |

    Without held-out examples a fifth is held out, drawn from `seed`; the description says so. Integer
    targets are classes and get cross-entropy, real ones get mean squared error. Inputs keep their type,
    but bytes and booleans become float32; tables are read as float64.

    Raises:
        BadInput: If the file is missing, damaged, pickled, of another kind, or does not hold such arrays.
    """
    text = str(spec)
    if text in BUILTIN:
        return BUILTIN[text]()
    if text.startswith(("builtin:", "hf:")):
        raise BadInput(
            f"data {text!r}",
            got="a name that is not built in",
            wanted=f"{', '.join(BUILTIN)}, or a file",
            remedy=did_you_mean(text, BUILTIN),
        )
    path = Path(spec)
    if path.suffix not in _READERS:
        raise BadInput(
            f"data {text!r}",
            got=f"the ending {path.suffix!r}" if path.suffix else "no file ending",
            wanted=f"{', '.join(_READERS)}, or {', '.join(BUILTIN)}",
        )
    if not path.is_file():
        near = (str(other) for other in path.parent.glob("*")) if path.parent.is_dir() else ()
        raise BadInput(
            f"data {text!r}", got="no such file", wanted="a file that exists", remedy=did_you_mean(text, near)
        )
    return _task(path, _READERS[path.suffix](path), seed)


def _task(path: Path, arrays: Arrays, seed: int) -> Task:
    found = {name: _tidied(path, name, array) for name, array in arrays.items()}
    if len(found) == 3:
        raise BadInput(f"held-out data in {path}", got=f"only {list(found)[-1]!r}", wanted=" and ".join(TEST_NAMES))
    for names in (NAMES, TEST_NAMES)[: len(found) // 2]:
        lengths = [len(found[name]) for name in names]
        if lengths[0] != lengths[1]:
            raise BadInput(
                f"arrays in {path}",
                got=" and ".join(f"{length} {name}" for length, name in zip(lengths, names, strict=True)),
                wanted="as many of each",
            )
    inputs, targets = (found[name] for name in NAMES)
    if len(found) == 4:
        task = Task.of(inputs, targets, name=path.stem)
        for name, test_name in zip(NAMES, TEST_NAMES, strict=True):
            train, test = found[name], found[test_name]
            if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
                raise BadInput(
                    f"{test_name!r} in {path}",
                    got=f"{test.dtype} examples of shape {tuple(test.shape[1:])}",
                    wanted=f"{train.dtype} and {tuple(train.shape[1:])}, as in {name!r}",
                )
        test_inputs, test_targets = (found[name] for name in TEST_NAMES)
        num_classes = None if task.num_classes is None else max(task.num_classes, int(test_targets.max()) + 1)
        task = replace(task, test_inputs=test_inputs, test_targets=test_targets, num_classes=num_classes)
        held_out = f"{len(test_inputs)} held-out examples from the file"
    else:
        order = torch.randperm(len(inputs), generator=generator(seed, "held-out"))
        num_test = round(HELD_OUT * len(inputs))
        task = Task.of(inputs[order], targets[order], name=path.stem, num_test=num_test)
        held_out = f"{num_test} of {len(inputs)} examples held out at random (seed {seed}): the file names none"
    return replace(task, description=f"{path.name}; {held_out}")


def _tidied(path: Path, name: str, array: Tensor) -> Tensor:
    if array.ndim == 0:
        raise BadInput(f"{name!r} in {path}", got="a single number", wanted="one entry for each example")
    if array.is_complex():
        raise BadInput(f"{name!r} in {path}", got="complex numbers", wanted="real numbers or integers")
    if name.endswith("inputs"):
        # Pixels and flags are numbers that a layer multiplies; wider integers may be token ids.
        return array.float() if array.dtype in (torch.uint8, torch.bool) else array
    if array.ndim == 2 and array.shape[1] == 1 and not array.is_floating_point():
        array = array[:, 0]
    if array.is_floating_point():
        return array
    array = array.long()
    if array.numel() and int(array.min()) < 0:
        raise BadInput(
            f"{name!r} in {path}",
            got=f"the class {int(array.min())}",
            wanted="classes that count from 0",
            remedy="Store the targets as real numbers if they are quantities.",
        )
    return array


def _named(path: Path, names: Iterable[str]) -> list[str]:
    present = list(names)
    for name in NAMES:
        if name not in present:
            raise BadInput(
                f"{path} has no {name!r}",
                got=", ".join(present) or "nothing",
                wanted="arrays named inputs and targets",
                remedy=did_you_mean(name, present),
            )
    return [name for name in (*NAMES, *TEST_NAMES) if name in present]


def _read_npz(path: Path) -> Arrays:
    try:
        with zipfile.ZipFile(path):  # anything else NumPy would take for a pickle
            pass
        with numpy.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _named(path, archive.files)}
    except zipfile.BadZipFile:
        raise BadInput(
            f"data {str(path)!r}", got="a file that is no .npz archive", wanted="what numpy.savez writes"
        ) from None
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            f"data {str(path)!r}",
            got="pickled objects" if "allow_pickle" in str(error) else str(error),
            wanted="arrays of numbers",
            remedy="Pickles can run code and are never read: save numeric arrays with numpy.savez.",
        ) from None
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise BadInput(f"{name!r} in {path}", got=f"NumPy type {array.dtype}", wanted="numbers")
    # NumPy's own order and width, so that big-endian files and long doubles are read too.
    return {name: torch.from_numpy(_native(array)) for name, array in arrays.items()}


def _native(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(numpy.float64)
    return numpy.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)).reshape(array.shape)


def _read_safetensors(path: Path) -> Arrays:
    arrays = read_arrays(path)
    return {name: arrays[name] for name in _named(path, arrays)}


def _read_csv(path: Path) -> Arrays:
    from pyarrow import ArrowException, csv

    try:
        return _columns(path, csv.read_csv(path))
    except ArrowException as error:
        raise _damaged(path, error) from None


def _read_parquet(path: Path) -> Arrays:
    from pyarrow import ArrowException, parquet

    try:
        return _columns(path, parquet.ParquetFile(path).read())
    except ArrowException as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> BadInput:
    return BadInput(f"data {str(path)!r}", got=str(error).splitlines()[0], wanted="a whole table")


def _columns(path: Path, table: Any) -> Arrays:
    from pyarrow import types

    names: list[str] = table.column_names
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise BadInput(f"columns of {path}", got=f"{repeated[0]!r} more than once", wanted="different names")
    target = next((name for name in TARGET_COLUMNS if name in names), None)
    if target is None:
        raise BadInput(
            f"columns of {path}",
            got=", ".join(names),
            wanted="a column 'targets' or 'target'",
            remedy=did_you_mean("targets", names),
        )
    if not table.num_rows:
        raise BadInput(f"data {str(path)!r}", got="no rows", wanted="at least one example")

    def is_numeric(kind: Any) -> bool:
        return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))

    features = [name for name in names if name != target]
    is_list = "inputs" in features and any(
        test(table.schema.field("inputs").type)
        for test in (types.is_list, types.is_large_list, types.is_fixed_size_list)
    )
    if is_list:
        features = ["inputs"]
    words = [
        name
        for name in (target, *features)
        if not is_numeric(table.schema.field(name).type) and not (is_list and name == "inputs")
    ]
    if words:
        kinds = ", ".join(f"{name!r} ({table.schema.field(name).type})" for name in words[:5])
        raise BadInput(
            f"columns of {path}",
            got=f"{kinds} where numbers are needed" + (f", and {len(words) - 5} more" if len(words) > 5 else ""),
            wanted="numeric columns",
            remedy="Drop text columns, or encode them as numbers.",
        )
    if not features:
        raise BadInput(f"columns of {path}", got=f"only {target!r}", wanted="at least one feature column")
    empty = [name for name in (target, *features) if table.column(name).null_count]
    if empty:
        count = table.column(empty[0]).null_count
        raise BadInput(f"column {empty[0]!r} of {path}", got=f"{count} empty cells", wanted="a number in every row")
    targets = torch.from_numpy(table.column(target).to_numpy().copy())
    if is_list:
        return {"inputs": _rows(path, table.column("inputs"), is_numeric), "targets": targets}
    columns = [torch.from_numpy(table.column(name).to_numpy().astype(numpy.float64)) for name in features]
    return {"inputs": torch.stack(columns, dim=1), "targets": targets}


def _rows(path: Path, column: Any, is_numeric: Callable[[Any], bool]) -> Tensor:
    from pyarrow import compute

    lengths = compute.list_value_length(column).unique().to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise BadInput(
            f"column 'inputs' of {path}",
            got=f"lists of {min(lengths)} to {max(lengths)} entries",
            wanted="lists of one length, at least 1",
        )
    flat = compute.list_flatten(column)
    if not is_numeric(flat.type) or flat.null_count:
        raise BadInput(f"column 'inputs' of {path}", got=f"lists of {flat.type}, or gaps", wanted="lists of numbers")
    return torch.from_numpy(flat.to_numpy().astype(numpy.float64)).reshape(len(column), -1)


_READERS: dict[str, Callable[[Path], Arrays]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}

from __future__ import annotations

import pickle

import numpy
import pyarrow
import pytest
import torch
from pyarrow import csv, parquet
from safetensors.torch import save_file

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.data import load_data
from tremorscope.instruments.losses import cross_entropy, squared_error

INPUTS = numpy.arange(40.0).reshape(20, 2)
TARGETS = numpy.arange(20) % 3


def write(path, **arrays):
    if path.suffix == ".npz":
        numpy.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file({name: torch.from_numpy(numpy.array(array)) for name, array in arrays.items()}, path)
    else:
        inputs, targets = arrays["inputs"], arrays["targets"]
        table = pyarrow.table({"x": inputs[:, 0], "y": inputs[:, 1], "targets": targets})
        if path.suffix == ".parquet":
            parquet.write_table(table, path)
        else:
            csv.write_csv(table, path)
    return path


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".csv", ".parquet"])
def test_every_kind_of_file_gives_the_same_task(ending, tmp_path):
    task = load_data(write(tmp_path / f"mine{ending}", inputs=INPUTS, targets=TARGETS))
    again = load_data(str(tmp_path / f"mine{ending}"))
    assert torch.equal(task.inputs, again.inputs)
    assert (task.size, len(task.test_inputs), task.name, task.num_classes) == (16, 4, "mine", 3)
    rows = torch.cat([task.inputs, task.test_inputs])
    order = rows[:, 0].argsort()
    assert torch.equal(rows[order], torch.from_numpy(INPUTS))
    assert torch.equal(torch.cat([task.targets, task.test_targets])[order], torch.from_numpy(TARGETS))
    assert task.loss is cross_entropy
    assert "4 of 20 examples held out at random (seed 0)" in task.description
    other = load_data(tmp_path / f"mine{ending}", seed=1)
    assert not torch.equal(other.test_inputs, task.test_inputs)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_the_files_own_held_out_data_are_kept(ending, tmp_path):
    arrays = {"inputs": INPUTS, "targets": TARGETS, "test_inputs": INPUTS[:2], "test_targets": TARGETS[:2] + 7}
    task = load_data(write(tmp_path / f"a{ending}", **arrays, extra=numpy.ones(3)))
    assert torch.equal(task.inputs, torch.from_numpy(INPUTS))
    assert task.test_targets.tolist() == [7, 8]
    assert task.num_classes == 9
    assert task.description == f"a{ending}; 2 held-out examples from the file"


def test_real_targets_are_a_regression(tmp_path):
    task = load_data(write(tmp_path / "a.csv", inputs=INPUTS, targets=TARGETS / 2))
    assert task.loss is squared_error
    assert task.num_classes is None


def test_a_column_named_target_and_booleans(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,flag,target\n1,true,0\n2,false,1\n3,true,1\n")
    task = load_data(path)
    rows = torch.cat([task.inputs, task.test_inputs])
    assert rows[rows[:, 0].argsort()].tolist() == [[1, 1], [2, 0], [3, 1]]
    assert task.inputs.dtype == torch.float64


@pytest.mark.parametrize("kind", [pyarrow.list_(pyarrow.float32()), pyarrow.list_(pyarrow.int64(), 2)])
def test_a_list_column_of_inputs(kind, tmp_path):
    table = pyarrow.table(
        {
            "note": ["text beside a list column is no feature"] * 20,
            "inputs": pyarrow.array(INPUTS.astype(int).tolist(), type=kind),
            "targets": TARGETS,
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    task = load_data(tmp_path / "a.parquet")
    rows = torch.cat([task.inputs, task.test_inputs])
    assert torch.equal(rows[rows[:, 0].argsort()], torch.from_numpy(INPUTS))


def test_types_of_arrays(tmp_path):
    pixels = numpy.arange(40, dtype=numpy.uint8).reshape(20, 2)
    task = load_data(write(tmp_path / "a.npz", inputs=pixels, targets=TARGETS.astype(numpy.int16)[:, None]))
    assert (task.inputs.dtype, task.targets.dtype, task.targets.ndim) == (torch.float32, torch.int64, 1)
    tokens = load_data(write(tmp_path / "b.npz", inputs=INPUTS.astype(numpy.int64), targets=TARGETS > 1))
    assert (tokens.inputs.dtype, tokens.targets.dtype) == (torch.int64, torch.int64)
    foreign = load_data(write(tmp_path / "c.npz", inputs=INPUTS.astype(">f4"), targets=TARGETS.astype(">i8")))
    assert foreign.inputs.dtype == torch.float32
    assert sorted(foreign.inputs.flatten().tolist() + foreign.test_inputs.flatten().tolist()) == list(range(40))


def test_the_built_in_digits():
    task = load_data("builtin:digits")
    assert (task.size, len(task.test_inputs), task.num_classes) == (1600, 197, 10)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"input": INPUTS, "targets": TARGETS}, "has no 'inputs': got input, targets.*Did you mean 'input'"),
        ({"inputs": INPUTS}, "has no 'targets': got inputs"),
        ({"inputs": INPUTS, "targets": TARGETS[:3]}, "got 20 inputs and 3 targets; wanted as many of each"),
        (
            {"inputs": INPUTS, "targets": TARGETS, "test_inputs": INPUTS},
            "got only 'test_inputs'; wanted test_inputs and",
        ),
        (
            {"inputs": INPUTS, "targets": TARGETS, "test_inputs": INPUTS, "test_targets": TARGETS[:3]},
            "got 20 test_inputs and 3 test_targets",
        ),
        (
            {"inputs": INPUTS, "targets": TARGETS, "test_inputs": INPUTS[:, :1], "test_targets": TARGETS},
            r"'test_inputs' in .*examples of shape \(1,\); wanted torch.float64 and \(2,\)",
        ),
        (
            {"inputs": INPUTS, "targets": TARGETS - 1},
            "got the class -1; wanted classes that count from 0.*real numbers",
        ),
        ({"inputs": INPUTS * numpy.nan, "targets": TARGETS}, "entries that are not finite"),
        ({"inputs": INPUTS[:0], "targets": TARGETS[:0]}, "got 0 inputs and 0 targets"),
        ({"inputs": numpy.float64(1), "targets": TARGETS}, "'inputs' in .*: got a single number"),
    ],
)
@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_arrays_that_do_not_fit(arrays, sentence, ending, tmp_path):
    with pytest.raises(BadInput, match=sentence):
        load_data(write(tmp_path / f"a{ending}", **{name: numpy.asarray(array) for name, array in arrays.items()}))


def test_arrays_that_are_no_numbers(tmp_path):
    for array in (INPUTS + 0j, INPUTS.astype(str), INPUTS.astype("datetime64[s]")):
        path = write(tmp_path / "a.npz", inputs=array, targets=TARGETS)
        with pytest.raises(BadInput, match=r"'inputs' in .*got NumPy type .*; wanted numbers"):
            load_data(path)


def test_pickles_are_never_read(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    numpy.savez(tmp_path / "a.npz", inputs=numpy.array([Bomb()], dtype=object), targets=numpy.ones(1))
    with pytest.raises(BadInput, match=r"got pickled objects; wanted arrays of numbers.*never read"):
        load_data(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadInput, match=r"no \.npz archive"):
        load_data(tmp_path / "b.npz")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b\n1,2\n", "got a, b; wanted a column 'targets' or 'target'"),
        ("a,tragets\n1,2\n", "Did you mean 'tragets'"),
        ("a,colour,targets\n1,red,0\n2,blue,1\n", "'colour' .string. where numbers are needed.*encode them"),
        ("a,targets\n1,cat\n", "'targets' .string. where numbers are needed"),
        ("a,targets\n1,0\n,1\n", "column 'a' of .*got 1 empty cells"),
        ("targets\n1\n2\n", "got only 'targets'; wanted at least one feature"),
        ("a,targets\n", "got no rows"),
        ("a,a,targets\n1,2,3\n", "got 'a' more than once"),
        ("a,targets\n1,2,3\n", "wanted a whole table"),
        ("", "wanted a whole table"),
    ],
)
def test_tables_that_do_not_fit(text, sentence, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadInput, match=sentence):
        load_data(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ([[1.0], [1.0, 2.0]], "lists of 1 to 2 entries; wanted lists of one length"),
        ([["a"], ["b"]], "lists of string, or gaps"),
        ([[1.0], [None]], "or gaps"),
        ([[1.0], None], "got 1 empty cells"),
    ],
)
def test_list_columns_that_do_not_fit(lists, sentence, tmp_path):
    parquet.write_table(pyarrow.table({"inputs": lists, "targets": [0, 1]}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=sentence):
        load_data(tmp_path / "a.parquet")


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".parquet"])
def test_damaged_files(ending, tmp_path):
    whole = write(tmp_path / f"whole{ending}", inputs=INPUTS, targets=TARGETS).read_bytes()
    (tmp_path / f"half{ending}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="half"):
        load_data(tmp_path / f"half{ending}")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("builtin:digit", "not built in; wanted builtin:digits, or a file. Did you mean 'builtin:digits'"),
        ("hf:wikitext", "not built in; wanted builtin:digits"),
        ("a.pkl", r"the ending '\.pkl'; wanted \.npz, \.safetensors, \.csv, \.parquet, or builtin:digits"),
        ("digits", "no file ending"),
        ("data/traim.npz", "got no such file.*Did you mean '.*train.npz'"),
        ("nowhere/a.npz", "got no such file"),
    ],
)
def test_names_that_are_no_data(name, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.npz").touch()
    with pytest.raises(BadInput, match=sentence):
        load_data(name)

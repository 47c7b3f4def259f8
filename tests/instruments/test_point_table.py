import numpy
import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.point_table import PointTable, PrecisionWarning, read_point_table


def test_vectors_become_columns():
    table = PointTable.of(numpy.arange(4), numpy.arange(4.0)[:, None], name="line")
    assert table.x.shape == (4, 1)
    assert table.y.shape == (4,)
    assert table.x.dtype == numpy.float64
    assert table.rows(numpy.array([2])).y.tolist() == [2.0]


def test_float32_warns_and_sets_the_floor():
    with pytest.warns(PrecisionWarning, match="came as float32: its rounding, 6e-08 of a value, bounds every error"):
        table = PointTable.of(numpy.ones((3, 2), dtype=numpy.float32), numpy.ones(3))
    assert table.roundoff == 2.0**-24
    assert table.y.dtype == numpy.float64


def test_targets_that_are_not_numbers():
    with pytest.raises(BadInput, match=r"targets of table 'f': got 2 of 3 not finite; wanted finite numbers\. Drop"):
        PointTable.of(numpy.zeros(3), numpy.array([1.0, numpy.nan, numpy.inf]), name="f")
    with pytest.raises(BadInput, match="points of table 'f': got 1 of 3 not finite"):
        PointTable.of(numpy.array([0.0, 1.0, numpy.nan]), numpy.zeros(3), name="f")
    with pytest.raises(BadInput, match="targets of table 'table': got NumPy type <U1"):
        PointTable.of(numpy.zeros(2), numpy.array(["a", "b"]))
    with pytest.raises(BadInput, match=r"points of shape \(3, 1\) and targets of shape \(2,\)"):
        PointTable.of(numpy.zeros((3, 1)), numpy.zeros(2))


def test_csv_with_and_without_names(tmp_path):
    named, bare = tmp_path / "named.csv", tmp_path / "bare.csv"
    named.write_text("y,a,b\n1,2,3\n4,5,6\n")
    bare.write_text("1,2,3\n\n4,5,6\n")
    assert read_point_table(named, target="y").y.tolist() == [1, 4]
    assert read_point_table(named, target="y").x.tolist() == [[2, 3], [5, 6]]
    assert read_point_table(bare).y.tolist() == [3, 6]
    assert read_point_table(bare).name == "bare"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "got no rows"),
        ("a,b\n", "got no rows"),
        ("a,b\n1,2\n3\n", "got rows of 1 to 2 cells"),
        ("a\n1\n", "got one column"),
        ("a,b\n1,x\n", "row 2 of .*: got 'x'; wanted a number"),
        ("a,b\n1,nan\n", "targets of table 'data': got 1 of 1 not finite"),
    ],
)
def test_csv_that_cannot_be_used(tmp_path, text, match):
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=match):
        read_point_table(path)


def test_csv_that_is_not_there(tmp_path):
    with pytest.raises(BadInput, match="got no such file"):
        read_point_table(tmp_path / "none.csv")
    (tmp_path / "data.csv").write_text("x,speed\n1,2\n")
    with pytest.raises(BadInput, match=r"column 'sped' of .*Did you mean 'speed'"):
        read_point_table(tmp_path / "data.csv", target="sped")

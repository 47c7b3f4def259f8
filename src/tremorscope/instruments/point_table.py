"""Tables of points with the values there: what approximators are given to fit when there is no function to ask."""

from __future__ import annotations

import csv
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy
from jaxtyping import Float
from numpy import ndarray

from tremorscope.foundations.errors import BadInput, did_you_mean

ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11}


class PrecisionWarning(UserWarning):
    """Numbers are coarser than the errors that are to be measured."""


@final
@dataclass(frozen=True, kw_only=True)
class PointTable:
    """Points and the values there, checked, in float64.

    `roundoff` is the unit roundoff of the numbers as they came: converting float32 does not make them finer.
    """

    name: str
    x: Float[ndarray, "n d"]
    y: Float[ndarray, " n"]
    roundoff: float = ROUNDOFF["float64"]

    @classmethod
    def of(cls, x: ndarray, y: ndarray, *, name: str = "table") -> PointTable:
        """A table from arrays; one coordinate may come as a plain vector.

        Warns:
            PrecisionWarning: If the numbers are float32 or coarser.

        Raises:
            BadInput: If lengths differ, or a coordinate or target is not a finite real number.
        """
        points = x[:, None] if x.ndim == 1 else x
        values = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        if points.ndim != 2 or values.ndim != 1 or len(points) != len(values) or len(points) == 0:
            raise BadInput(
                f"table {name!r}",
                got=f"points of shape {x.shape} and targets of shape {y.shape}",
                wanted="(n, d) and (n,), with n at least 1",
            )
        for part, array in (("points", points), ("targets", values)):
            if array.dtype.kind not in "iuf":
                raise BadInput(f"{part} of table {name!r}", got=f"NumPy type {array.dtype}", wanted="real numbers")
            num_bad = int((~numpy.isfinite(array)).sum())
            if num_bad:
                raise BadInput(
                    f"{part} of table {name!r}",
                    got=f"{num_bad} of {array.size} not finite",
                    wanted="finite numbers",
                    remedy="Drop those rows, or find out where they come from.",
                )
        roundoff = max(ROUNDOFF.get(str(array.dtype), ROUNDOFF["float64"]) for array in (points, values))
        if roundoff > ROUNDOFF["float64"]:
            coarse = next(str(a.dtype) for a in (points, values) if ROUNDOFF.get(str(a.dtype), 0.0) == roundoff)
            warnings.warn(
                f"table {name!r} came as {coarse}: its rounding, {roundoff:.0e} of a value, bounds every error from "
                "below. Pass float64 for more.",
                PrecisionWarning,
                stacklevel=2,
            )
        return cls(name=name, x=points.astype(numpy.float64), y=values.astype(numpy.float64), roundoff=roundoff)

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return int(self.x.shape[1])

    def rows(self, which: ndarray | slice) -> PointTable:
        """Some of its rows."""
        return PointTable(name=self.name, x=self.x[which], y=self.y[which], roundoff=self.roundoff)


def read_point_table(path: Path | str, *, target: str | None = None) -> PointTable:
    """A table from a CSV file: one row for each point, with or without a line of names first.

    `target` names the column of values; None takes the last one. The other columns are coordinates, in order.

    Raises:
        BadInput: If the file is missing, ragged, not numeric, has one column, or lacks `target`.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"table {str(path)!r}", got="no such file", wanted="a CSV file")
    with path.open(newline="", encoding="utf-8") as handle:
        lines = [line for line in csv.reader(handle) if any(cell.strip() for cell in line)]
    if not lines:
        raise BadInput(f"table {str(path)!r}", got="no rows", wanted="one row for each point")
    has_names = not all(_is_number(cell) for cell in lines[0])
    names = [cell.strip() for cell in lines[0]] if has_names else [f"x{i + 1}" for i in range(len(lines[0]))]
    widths = {len(line) for line in lines}
    if len(widths) > 1 or len(names) < 2:
        raise BadInput(
            f"table {str(path)!r}",
            got=f"rows of {min(widths)} to {max(widths)} cells" if len(widths) > 1 else "one column",
            wanted="rows of one length, at least one coordinate and the target",
        )
    if target is not None and target not in names:
        raise BadInput(
            f"column {target!r} of {path}", got=", ".join(names), wanted="its name", remedy=did_you_mean(target, names)
        )
    for number, line in enumerate(lines[has_names:], start=1 + has_names):
        word = next((cell for cell in line if not _is_number(cell)), None)
        if word is not None:
            raise BadInput(f"row {number} of {path}", got=repr(word), wanted="a number in every cell")
    cells = numpy.array([[float(cell) for cell in line] for line in lines[has_names:]], dtype=numpy.float64)
    if len(cells) == 0:
        raise BadInput(f"table {str(path)!r}", got="no rows", wanted="one row for each point")
    place = len(names) - 1 if target is None else names.index(target)
    return PointTable.of(numpy.delete(cells, place, axis=1), cells[:, place], name=path.stem)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True

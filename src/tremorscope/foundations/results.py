"""Results: everything a run found, in files that outlive the program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, final

from tremorscope.foundations.claims import Claim
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import Figure
from tremorscope.foundations.files import read_json, write_atomically, write_json

SCHEMA = "tremorscope.result/1"


@final
@dataclass(frozen=True, kw_only=True)
class Table:
    """Named columns of equal length. A cell is text, a number, a boolean, None or an `Estimate`.

    A column of estimates is stored as `NAME`, `NAME_low`, `NAME_high`, `NAME_level`, `NAME_n`, `NAME_method`. Columns
    named in `code` hold text to copy: the report gives each cell a button "Copy NAME".
    """

    name: str
    title: str
    caption: str
    columns: Mapping[str, Sequence[Any]]
    code: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = {key: len(column) for key, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise BadInput(f"columns of table {self.name!r}", got=lengths, wanted="equal lengths")

    @classmethod
    def of_rows(
        cls, rows: Sequence[Mapping[str, Any]], *, name: str, title: str, caption: str, code: tuple[str, ...] = ()
    ) -> Table:
        """A table from dictionaries; columns in the order of first appearance, gaps are None."""
        keys = list(dict.fromkeys(key for row in rows for key in row))
        columns = {key: [row.get(key) for row in rows] for key in keys}
        return cls(name=name, title=title, caption=caption, columns=columns, code=code)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()), ()))

    def flat_columns(self) -> dict[str, list[Any]]:
        """Columns of plain values, estimates spread over six."""
        flat: dict[str, list[Any]] = {}
        for key, column in self.columns.items():
            if any(isinstance(cell, Estimate) for cell in column):
                cells = [asdict(cell) if isinstance(cell, Estimate) else {"value": cell} for cell in column]
                for part in ("value", "low", "high", "level", "n", "method"):
                    name = key if part == "value" else f"{key}_{part}"
                    flat[name] = _one_type([cell.get(part) for cell in cells])
            else:
                flat[key] = _one_type(column)
        return flat

    def to_dict(self) -> dict[str, Any]:
        """Header plus plain cells, for `result.json`; estimates stay whole."""
        return {
            "name": self.name,
            "title": self.title,
            "caption": self.caption,
            "file": f"tables/{self.name}.parquet",
            "columns": {
                key: [{"estimate": cell.to_dict()} if isinstance(cell, Estimate) else _plain(cell) for cell in column]
                for key, column in self.columns.items()
            },
        } | ({"code": list(self.code)} if self.code else {})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Table:
        """The inverse of `to_dict`."""
        return cls(
            name=data["name"],
            title=data["title"],
            caption=data["caption"],
            columns={
                key: [Estimate.from_dict(cell["estimate"]) if isinstance(cell, dict) else cell for cell in column]
                for key, column in data["columns"].items()
            },
            code=tuple(data.get("code", ())),
        )


@final
@dataclass(frozen=True, kw_only=True)
class Result:
    """What a study or an examination found.

    `summary` holds the two or three sentences a reader wants first. `flags` are things the reader must
    know before trusting a number (not converged, one seed, a fall-back taken). `provenance` holds what
    differs between machines and moments: environment, times, command; it is the only part that differs
    between two runs with one seed on one machine.
    """

    study: str
    preset: str
    seed: int
    config: Mapping[str, Any]
    title: str
    summary: Sequence[str] = ()
    claims: Sequence[Claim] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Mapping[str, Any]] = ()
    flags: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def claim(self, row: str) -> Claim:
        """The claim of one row.

        Raises:
            BadInput: If the result holds no such row.
        """
        for claim in self.claims:
            if claim.row == row:
                return claim
        raise BadInput("claim row", got=row, wanted=f"one of {', '.join(claim.row for claim in self.claims)}")

    def table(self, name: str) -> Table:
        """The table of that name.

        Raises:
            BadInput: If the result holds no such table.
        """
        for table in self.tables:
            if table.name == name:
                return table
        raise BadInput("table", got=name, wanted=f"one of {', '.join(table.name for table in self.tables)}")

    def to_dict(self) -> dict[str, Any]:
        """The content of `result.json`, figures left to their own files."""
        return {
            "schema": SCHEMA,
            "study": self.study,
            "preset": self.preset,
            "seed": self.seed,
            "title": self.title,
            "summary": list(self.summary),
            "config": dict(self.config),
            "claims": [claim.to_dict() for claim in self.claims],
            "tables": [table.to_dict() for table in self.tables],
            "figures": [
                {key: figure[key] for key in ("name", "title", "caption")} | {"file": f"figures/{figure['name']}.json"}
                for figure in self.figures
            ],
            "flags": list(self.flags),
            "provenance": dict(self.provenance),
        }

    def save(self, folder: Path) -> Path:
        """Write `result.json` (last, so that it vouches for the rest), `tables/*.parquet` and `figures/*.json`."""
        import pyarrow
        import pyarrow.parquet

        for table in self.tables:
            write = partial(pyarrow.parquet.write_table, pyarrow.table(table.flat_columns()))
            write_atomically(folder / "tables" / f"{table.name}.parquet", write)
        for figure in self.figures:
            write_json(folder / "figures" / f"{figure['name']}.json", dict(figure))
        path = folder / "result.json"
        write_json(path, self.to_dict())
        return path

    @classmethod
    def load(cls, folder: Path) -> Result:
        """Read what `save` wrote.

        Raises:
            BadInput: If `result.json` is missing, damaged or of another schema.
        """
        data = read_json(folder / "result.json")
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise BadInput(f"schema of {folder / 'result.json'}", got=found, wanted=SCHEMA)
        return cls(
            study=data["study"],
            preset=data["preset"],
            seed=data["seed"],
            config=data["config"],
            title=data["title"],
            summary=data["summary"],
            claims=[Claim.from_dict(entry) for entry in data["claims"]],
            tables=[Table.from_dict(entry) for entry in data["tables"]],
            figures=[read_json(folder / entry["file"]) for entry in data["figures"]],
            flags=data["flags"],
            provenance=data["provenance"],
        )


def drawn(figure: Figure) -> dict[str, Any]:
    """A figure as the plain data that a `Result` keeps."""
    return {"name": figure.name, "title": figure.title, "caption": figure.caption, **figure.to_plotly()}


def _one_type(column: Sequence[Any]) -> list[Any]:
    """A column that Parquet takes: numbers, booleans or text, each with gaps; a mixture becomes text."""
    cells = [cell if isinstance(cell, float) else _plain(cell) for cell in column]
    kinds = {float if type(cell) is int else type(cell) for cell in cells if cell is not None}
    kinds = {float if issubclass(kind, float) else kind for kind in kinds}
    return cells if len(kinds) <= 1 else [None if cell is None else str(cell) for cell in cells]


def _plain(cell: Any) -> Any:
    if cell is None or isinstance(cell, str | bool | int):
        return cell
    number = float(cell)
    return number if math.isfinite(number) else None

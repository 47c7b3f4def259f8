"""What differs between two results: what was asked, what was claimed, what was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from tremorscope.foundations.claims import Claim
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.results import Result, Table


@final
@dataclass(frozen=True, kw_only=True)
class Setting:
    """One thing that was asked for, or that the numbers were made with, and differs; None where a run has it not."""

    key: str
    first: Any
    second: Any


@final
@dataclass(frozen=True, kw_only=True)
class ClaimPair:
    """One claim that both results judge, differently; or that one of them judges."""

    id: str
    first: Claim | None
    second: Claim | None

    @property
    def is_apart(self) -> bool:
        """True when both have intervals and these do not overlap."""
        return self.first is not None and self.second is not None and apart(self.first.measured, self.second.measured)


@final
@dataclass(frozen=True, kw_only=True)
class EstimatePair:
    """One cell of one table that both results have, with different estimates."""

    table: str
    row: str
    column: str
    first: Estimate
    second: Estimate

    @property
    def is_apart(self) -> bool:
        """True when both have intervals and these do not overlap."""
        return apart(self.first, self.second)


@final
@dataclass(frozen=True, kw_only=True)
class Differences:
    """All of it. The counts say how much was found equal; `unmatched` names tables and rows that only one run has."""

    settings: Sequence[Setting]
    claims: Sequence[ClaimPair]
    num_equal_claims: int
    estimates: Sequence[EstimatePair]
    num_equal_estimates: int
    unmatched: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "settings": [{"key": each.key, "first": each.first, "second": each.second} for each in self.settings],
            "claims": [
                {
                    "id": pair.id,
                    "first": None if pair.first is None else pair.first.to_dict(),
                    "second": None if pair.second is None else pair.second.to_dict(),
                    "apart": pair.is_apart,
                }
                for pair in self.claims
            ],
            "equal_claims": self.num_equal_claims,
            "estimates": [
                {
                    "table": pair.table,
                    "row": pair.row,
                    "column": pair.column,
                    "first": pair.first.to_dict(),
                    "second": pair.second.to_dict(),
                    "apart": pair.is_apart,
                }
                for pair in self.estimates
            ],
            "equal_estimates": self.num_equal_estimates,
            "unmatched": list(self.unmatched),
        }


def differences(first: Result, second: Result) -> Differences:
    """What differs between two results, and how much is equal, bit for bit.

    Claims are matched by id. Tables are matched by name, their rows by the text in them, then by numbers that both
    tables have (as a sweep's axes), else by position.
    """
    claims, num_equal_claims = _claims(first, second)
    estimates: list[EstimatePair] = []
    unmatched: list[str] = []
    num_equal = 0
    tables = {table.name: table for table in second.tables}
    for table in first.tables:
        if table.name not in tables:
            unmatched.append(f"table {table.name}: first run only")
            continue
        found, equal, alone = _cells(table, tables.pop(table.name))
        estimates += found
        num_equal += equal
        unmatched += alone
    unmatched += [f"table {name}: second run only" for name in tables]
    return Differences(
        settings=_settings(first, second),
        claims=claims,
        num_equal_claims=num_equal_claims,
        estimates=estimates,
        num_equal_estimates=num_equal,
        unmatched=unmatched,
    )


def apart(first: Estimate, second: Estimate) -> bool:
    """True when both estimates have intervals, and these do not overlap. No test of a difference.

    >>> low, high = Estimate.mean([1.0, 1.1, 1.2]), Estimate.mean([4.0, 4.1, 4.2])
    >>> apart(low, high), apart(low, low), apart(low, Estimate.one_seed(9))
    (True, False, False)
    """
    if first.is_point or second.is_point:
        return False
    return first.high < second.low or second.high < first.low


def _settings(first: Result, second: Result) -> list[Setting]:
    one, two = _asked(first), _asked(second)
    return [
        Setting(key=key, first=one.get(key), second=two.get(key))
        for key in dict.fromkeys([*one, *two])
        if one.get(key) != two.get(key)
    ]


def _asked(result: Result) -> dict[str, Any]:
    """What a result is of, flat: its study, preset and seed, its configuration, and what it was made with."""
    made = result.provenance.get("environment") or {}
    asked: dict[str, Any] = {"study": result.study, "preset": result.preset, "seed": result.seed}
    asked |= _flat(result.config, "config.")
    for part in ("packages", "code", "cpu", "devices"):
        asked |= _flat({part: made.get(part)}, "made with ")
    return asked


def _flat(values: Mapping[str, Any], before: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return flat


def _claims(first: Result, second: Result) -> tuple[list[ClaimPair], int]:
    one, two = ({claim.id: claim for claim in result.claims} for result in (first, second))
    pairs = [
        ClaimPair(id=claim_id, first=one.get(claim_id), second=two.get(claim_id))
        for claim_id in dict.fromkeys([*one, *two])
    ]
    differing = [pair for pair in pairs if _judged(pair.first) != _judged(pair.second)]
    return differing, len(pairs) - len(differing)


def _judged(claim: Claim | None) -> dict[str, Any] | None:
    """What was expected and found; not the words around it."""
    if claim is None:
        return None
    return {
        "expected": (claim.expected.low, claim.expected.high),
        "measured": claim.measured.to_dict(),
        "nulls": {null.name: null.measured.to_dict() for null in claim.nulls},
    }


def _cells(first: Table, second: Table) -> tuple[list[EstimatePair], int, list[str]]:
    columns = [key for key in first.columns if key in second.columns and _has_estimates(first, key)]
    labels = _labels(first, second)
    rows, others = _rows(first, labels), _rows(second, labels)
    differing, num_equal = [], 0
    for label, index in rows.items():
        for column in columns:
            if label not in others:
                continue
            one, two = first.columns[column][index], second.columns[column][others[label]]
            if not isinstance(one, Estimate) or not isinstance(two, Estimate):
                continue
            if one.to_dict() == two.to_dict():
                num_equal += 1
            else:
                differing.append(EstimatePair(table=first.name, row=label, column=column, first=one, second=two))
    alone = [f"table {first.name}, {label}: first run only" for label in rows if label not in others]
    alone += [f"table {first.name}, {label}: second run only" for label in others if label not in rows]
    return differing, num_equal, alone if columns else []


def _rows(table: Table, labels: Sequence[str]) -> dict[str, int]:
    """The index of each row by its labels; by its position where labels do not tell rows apart."""
    named = [", ".join(str(table.columns[key][index]) for key in labels) for index in range(table.num_rows)]
    twice = {name for name, count in Counter(named).items() if count > 1 or not name}  # "" where nothing names rows
    return {
        (" ".join(filter(None, [name, f"row {index + 1}"])) if name in twice else name): index
        for index, name in enumerate(named)
    }


def _has_estimates(table: Table, key: str) -> bool:
    return any(isinstance(cell, Estimate) for cell in table.columns[key])


def _labels(first: Table, second: Table) -> list[str]:
    """The columns that name the rows of both tables: text before numbers, and no more of them than needed.

    Numbers name rows where both tables hold the same ones, as a sweep's axes do; whole numbers that differ (a wider
    sweep) only where nothing else tells rows apart.
    """
    shared = [key for key in first.columns if key in second.columns]
    cells = {key: (list(first.columns[key]), list(second.columns[key])) for key in shared}
    text = [key for key in shared if _holds(cells[key], str | bool)]
    numbers = [key for key in shared if key not in text and _holds(cells[key], str | bool | int | float)]
    same = [key for key in numbers if Counter(map(str, cells[key][0])) == Counter(map(str, cells[key][1]))]
    whole = [key for key in numbers if key not in same and _holds(cells[key], str | bool | int)]
    labels: list[str] = []
    for more in (text, same, whole):
        varying = [key for key in more if len({*cells[key][0], *cells[key][1]}) > 1]
        labels = [key for key in shared if key in labels or key in varying]
        if _tells_apart(first, labels) and _tells_apart(second, labels):
            break
    return labels


def _holds(columns: tuple[list[Any], list[Any]], kind: Any) -> bool:
    return all(cell is None or isinstance(cell, kind) for column in columns for cell in column)


def _tells_apart(table: Table, labels: Sequence[str]) -> bool:
    names = {tuple(str(table.columns[key][index]) for key in labels) for index in range(table.num_rows)}
    return len(names) == table.num_rows

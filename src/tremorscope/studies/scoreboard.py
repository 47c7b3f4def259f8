"""The scoreboard: every claim judged so far, kept in `docs/claims.json` and shown in `docs/claims.md`.

A row is keyed by (study, row, preset). A merge replaces the rows it brings and leaves every other row as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tremorscope.foundations.claims import Verdict
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.files import read_json, write_atomically, write_json
from tremorscope.foundations.results import Result
from tremorscope.studies.study import CLAIM_SEED, PRESETS, get_study, make_config

SCHEMA = "tremorscope.claims/1"
COLUMNS = ("study", "claim", "scope", "expected", "measured", "null", "verdict", "CPU seconds")

Row = dict[str, Any]


def read_rows(folder: Path) -> list[Row]:
    """The rows of `claims.json` in `folder`; none when there is no such file yet.

    Raises:
        BadInput: If the file is damaged or of another schema; it is never overwritten then.
    """
    path = folder / "claims.json"
    if not path.exists():
        return []
    data = read_json(path)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise BadInput(f"schema of {path}", got=found, wanted=SCHEMA)
    rows: list[Row] = data["rows"]
    return rows


def merge(results: Iterable[Result], folder: Path) -> list[Row]:
    """Put the claims of `results` on the scoreboard in `folder`; gives all its rows, sorted.

    Raises:
        BadInput: If a result may not stand there (see `check_eligible`), or the files cannot be read or written.
    """
    rows = {_key(row): row for row in read_rows(folder)}
    for result in results:
        check_eligible(result)
        for row in rows_of(result):
            rows[_key(row)] = row
    ordered = sorted(rows.values(), key=_order)
    write_json(folder / "claims.json", {"schema": SCHEMA, "rows": ordered})
    write_atomically(folder / "claims.md", lambda path: path.write_text(markdown(ordered), encoding="utf-8"))
    return ordered


def rows_of(result: Result) -> list[Row]:
    """One row for each claim of a result, with the processor time of the run that judged them together."""
    packages = result.provenance.get("environment", {}).get("packages", {})
    return [
        {
            **claim.to_dict(),
            "seed": result.seed,
            "cpu_seconds": result.provenance.get("cpu_seconds"),
            "version": packages.get("tremorscope"),
        }
        for claim in result.claims
    ]


def check_eligible(result: Result) -> None:
    """A claim is judged on a preset as it stands, and on seeds that set no threshold.

    Raises:
        BadInput: If the seed is a calibration seed or the configuration is not the preset's.
    """
    if result.seed < CLAIM_SEED:
        raise BadInput(
            f"seed of the {result.study} run",
            got=result.seed,
            wanted=f"{CLAIM_SEED} or more",
            remedy=f"Seeds below {CLAIM_SEED} set the thresholds and cannot judge the claims.",
        )
    preset = make_config(get_study(result.study), result.preset).model_dump(mode="json")
    changed = [key for key, value in preset.items() if result.config.get(key) != value]
    if changed:
        raise BadInput(
            f"configuration of the {result.study} run",
            got=f"other values of {', '.join(changed)}",
            wanted=f"the preset {result.preset!r} unchanged",
            remedy="Run the study without --set, --device and --dtype to put it on the scoreboard.",
        )


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The scoreboard as a page.

    >>> print(markdown([]).splitlines()[0])
    # Claims
    """
    counts = Counter(row["verdict"] for row in rows)
    tally = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    lines = [
        "# Claims",
        "",
        "Written by `tremorscope claims`; do not edit by hand. Each row is one statement of a published experiment,",
        "measured here and, beside it, where chance or a duller cause is all there is. *holds*: the whole interval",
        "meets the threshold, and on no null it does. *fails*: the whole interval misses it. *vacuous*: a null meets",
        "it too. *undecided*: anything else. A paper that does not replicate is a finding, and stays here.",
        "",
        f"{len(rows)} rows: {tally}." if rows else "No claims have been judged yet.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    lines += [f"| {' | '.join(_cell(cell) for cell in _cells(row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def nulls_in_words(row: Mapping[str, Any]) -> str:
    """The nulls of a claim (as `Claim.to_dict` gives it) in one phrase, or why there is none."""
    if not row["null"]:
        return f"none: {row['without_null']}"
    parts = []
    for name, entry in row["null"].items():
        measured = Estimate.from_dict({key: value for key, value in entry.items() if key != "description"})
        parts.append(f"{name}: {measured}")
    return "; ".join(parts)


def _cells(row: Mapping[str, Any]) -> list[str]:
    verdict = f"**{row['verdict']}**" + "".join(f" ({flag})" for flag in row["flags"])
    cpu_seconds = row["cpu_seconds"]
    return [
        f"{row['study']} ({row['preset']}, seed {row['seed']})",
        f"{row['row']}: {row['statement']} [{row['source']}]",
        row["scope"],
        f"{row['expected']['text']} ({row['expected']['origin']})",
        str(Estimate.from_dict(row["measured"])),
        nulls_in_words(row),
        verdict,
        "" if cpu_seconds is None else f"{cpu_seconds:.0f}",
    ]


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["study"], row["row"], row["preset"]


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """By study, then row as a reader counts (J6, J9b, J10), then preset."""
    counted = [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", row["row"])]
    preset = row["preset"]
    return row["study"], counted, PRESETS.index(preset) if preset in PRESETS else len(PRESETS), preset

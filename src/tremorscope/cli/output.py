"""What the verbs print: tables and verdicts that read well in 80 columns, or one JSON document."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from tremorscope.foundations.claims import Claim
    from tremorscope.foundations.results import Result

VERDICT_STYLES = {"holds": "bold green", "fails": "bold red", "vacuous": "bold yellow", "undecided": "bold magenta"}
DEFAULT_WIDTH = 100  # where there is no terminal to ask


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def console() -> Console:
    """Stdout for people: colours on a terminal only, and a fixed width where there is none."""
    from rich.console import Console

    asked = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, markup=False, emoji=False, width=None if asked else DEFAULT_WIDTH)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A plain table: bold headings, no frame; the first column never wraps."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, no_wrap=index == 0, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row))
    console().print(table)


def print_result(result: Result, path: Path) -> None:
    """Verdicts, summary, flags, times; the path of the report is the last line."""
    from rich.text import Text

    from tremorscope.cli.progress import duration

    out = console()
    out.print()
    out.print(Text(result.title, style="bold"))
    if result.claims:
        print_verdicts(result.claims)
    for sentence in result.summary:
        out.print(Text(sentence))
    if result.flags:
        out.print()
        for flag in result.flags:
            out.print(Text.assemble(("! ", "bold yellow"), flag))
    seconds, cpu_seconds = result.provenance.get("seconds"), result.provenance.get("cpu_seconds")
    if seconds is not None and cpu_seconds is not None:
        out.print()
        out.print(
            Text(f"{duration(seconds)} ({duration(cpu_seconds)} of processor time), seed {result.seed}", style="dim")
        )
    report = path / "report.html"
    # Not through Rich, which would break a long path into lines that cannot be pasted.
    out.file.write(f"{report if report.exists() else path}\n")
    out.file.flush()


def print_verdicts(claims: Sequence[Claim]) -> None:
    """One block for each claim: statement, then expected, measured and nulls below each other."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=True, leading=1)
    table.add_column("row", no_wrap=True, style="bold")
    table.add_column("claim", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for claim in claims:
        evidence = Text()
        evidence.append(f"{claim.statement}\n")
        evidence.append("  expected  ", "dim").append(f"{claim.expected}\n")
        evidence.append("  measured  ", "dim").append(f"{claim.measured}", "bold")
        for null in claim.nulls:
            evidence.append(f"\n      null  {null.measured}  {null.name}", "dim")
        if not claim.nulls:
            evidence.append(f"\n   no null  {claim.without_null}", "dim")
        verdict = Text(str(claim.verdict), style=VERDICT_STYLES[claim.verdict])
        for flag in claim.flags:
            verdict.append(f"\n{flag}", "yellow")
        table.add_row(claim.row, evidence, verdict)
    console().print(table)


def run_document(result: Result, path: Path) -> dict[str, Any]:
    """What `--json` gives of a run: where it is, and the whole result."""
    report = path / "report.html"
    return {
        "run": path.name,
        "path": str(path),
        "report": str(report) if report.exists() else None,
        "result": result.to_dict(),
    }


def strict_code(results: Iterable[Result]) -> int:
    """4 when a claim fails, else 0."""
    return 4 if any(claim.verdict == "fails" for result in results for claim in result.claims) else 0

"""From Results to one HTML page that carries everything it needs."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, final
from urllib.parse import quote

from tremorscope.foundations.claims import Claim, Verdict
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import PALETTE
from tremorscope.foundations.files import write_atomically
from tremorscope.foundations.results import Result, Table
from tremorscope.instruments.report.interval_drawing import IntervalDrawing, interval_drawing
from tremorscope.instruments.report.numerals import command_line, duration, numeral, settings

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_INLINE_CSV = 200_000  # bytes; longer tables are fetched from the run directory
MAX_ROWS = 1_000  # of one table on the page; a page of more is slow to open and is read by nobody
ROWS_AT_FIRST = 15
LONG_CELL = 18  # characters: a column of such text is kept from being squeezed to a word in each line

# The palette as it is drawn on a dark page: the same order of hues, the two darkest made lighter.
_DARK_PALETTE = ("#4DA6E8", "#F08A4B", "#3CC79B", "#E39BC4", "#F2B632", "#A5DCFA", "#E5D64A")

_VERDICTS = {
    Verdict.HOLDS: ("\N{CHECK MARK}", "holds", "hold"),
    Verdict.FAILS: ("\N{MULTIPLICATION X}", "fails", "fail"),
    Verdict.VACUOUS: ("\N{EMPTY SET}", "vacuous", "vacuous"),
    Verdict.UNDECIDED: ("?", "undecided", "undecided"),
}


def report(*results: Result, path: Path, command: str | None = None) -> Path:
    """Write one self-contained HTML page that shows `results`, and return `path`.

    Which claims held, against which nulls, and what do the figures and tables look like? The page renders
    Results and computes nothing: every number on it is in them. It is opened from disk, fetches nothing (a
    content security policy forbids it), reads without JavaScript except for the drawings, follows the
    reader's dark or light setting, and prints.

    Args:
        results: One or several results; several get an overview on top.
        path: The file to write, whole or not at all.
        command: What repeats the work, shown with every result; None takes `provenance["command"]`.

    Of a result's `provenance` the page knows the keys `command` (text or a list of arguments), `seconds`,
    `cpu_seconds` and `environment` (a mapping); whatever else is there is listed after them.

    Cost: about 5 MB of file (the drawing library) plus the figures' own data, and about 0.2 s.

    Raises:
        BadInput: If there is no result, a figure holds NaN or something that is no JSON, or `path` cannot
            be written.

    >>> import tempfile
    >>> result = Result(study="hello", preset="quick", seed=100, config={}, title="A first look")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = report(result, path=Path(folder) / "report.html").read_text(encoding="utf-8")
    >>> "<h1>A first look</h1>" in page
    True
    """
    if not results:
        raise BadInput("results of a report", got="none", wanted="at least one")
    text = _render(results, command)
    write_atomically(path, partial(_write_text, text))
    return path


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _render(results: Sequence[Result], command: str | None) -> str:
    # Both are slow to import and only a report needs them.
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    package = files("tremorscope.instruments.report")
    style = package.joinpath("report.css").read_text(encoding="utf-8")
    script = package.joinpath("report.js").read_text(encoding="utf-8")
    # Without figures there is nothing to draw and the page stays small.
    drawing_library = get_plotlyjs().replace("\r\n", "\n") if any(result.figures for result in results) else ""

    environment = Environment(
        loader=PackageLoader("tremorscope.instruments.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["numeral"] = numeral
    environment.filters["prose"] = _prose
    sections = [_section(result, command, f"r{i}-" if len(results) > 1 else "") for i, result in enumerate(results)]
    return environment.get_template("page.html.j2").render(
        title=sections[0]["title"] if len(results) == 1 else _joint_title(results),
        sections=sections,
        palette=_embedded({"light": PALETTE, "dark": _DARK_PALETTE}, "palette"),
        # Markup marks the three texts that this package ships; everything else is escaped.
        style=Markup(style),
        script=Markup(script),
        drawing_library=Markup(drawing_library),
        policy=_content_security_policy(script, drawing_library),
        icon=_icon(),
        rows_at_first=ROWS_AT_FIRST,
    )


def _joint_title(results: Sequence[Result]) -> str:
    names = list(dict.fromkeys(result.study for result in results))
    return f"{len(results)} results of {', '.join(names)}"


def _section(result: Result, command: str | None, prefix: str) -> dict[str, Any]:
    """Everything the template shows of one result; ids on the page start with `prefix`."""
    provenance = dict(result.provenance)
    own_command = provenance.pop("command", None)
    took, cpu_took = (_span(provenance.pop(key, None)) for key in ("seconds", "cpu_seconds"))
    surroundings = provenance.pop("environment", {})
    counts = Counter(claim.verdict for claim in result.claims)
    shown_command = command if command is not None else own_command
    return {
        "id": f"{prefix}top",
        "prefix": prefix,
        "title": result.title,
        "study": result.study,
        "preset": result.preset,
        "seed": result.seed,
        "counts": [_Badge.of(verdict, counts[verdict]) for verdict in Verdict if counts[verdict]],
        "num_claims": len(result.claims),
        "summary": list(result.summary),
        "flags": list(result.flags),
        "claims": [_ClaimRow.of(claim, prefix) for claim in result.claims],
        "figures": [_figure(figure, prefix) for figure in result.figures],
        "tables": [_table(table, prefix) for table in result.tables],
        "config": list(settings(result.config)),
        "environment": list(settings(surroundings)) if isinstance(surroundings, Mapping) else [],
        "provenance": list(settings({key: value for key, value in provenance.items() if value is not None})),
        "command": None if shown_command is None else command_line(shown_command),
        "took": took,
        "cpu_took": cpu_took,
    }


def _span(seconds: object) -> str | None:
    return duration(seconds) if isinstance(seconds, int | float) and math.isfinite(seconds) else None


@final
@dataclass(frozen=True, kw_only=True)
class _Badge:
    """A verdict as colour, sign and word; with a count, as one says it."""

    verdict: str
    sign: str
    word: str

    @classmethod
    def of(cls, verdict: Verdict, count: int | None = None) -> _Badge:
        sign, one, many = _VERDICTS[verdict]
        word = one if count is None else f"{count} {one if count == 1 else many}"
        return cls(verdict=str(verdict), sign=sign, word=word)


@final
@dataclass(frozen=True, kw_only=True)
class _ClaimRow:
    """One claim beside its badge and its drawing."""

    id: str
    claim: Claim
    badge: _Badge
    drawing: IntervalDrawing | None

    @classmethod
    def of(cls, claim: Claim, prefix: str) -> _ClaimRow:
        return cls(
            id=f"{prefix}claim-{_slug(claim.row)}",
            claim=claim,
            badge=_Badge.of(claim.verdict),
            drawing=interval_drawing(claim),
        )


def _figure(figure: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    spec = {key: value for key, value in figure.items() if key not in ("name", "title", "caption")}
    return {
        "id": f"{prefix}figure-{_slug(figure['name'])}",
        "name": figure["name"],
        "title": figure["title"],
        "caption": figure["caption"],
        "spec": _embedded(spec, f"figure {figure['name']!r}"),
    }


def _table(table: Table, prefix: str) -> dict[str, Any]:
    numeric = {
        key: all(isinstance(cell, int | float | Estimate) and not isinstance(cell, bool) for cell in known)
        for key, column in table.columns.items()
        for known in [[cell for cell in column if cell is not None]]
        if known
    }
    rows = [list(row) for row in zip(*(list(column)[:MAX_ROWS] for column in table.columns.values()), strict=True)]
    return {
        "id": f"{prefix}table-{_slug(table.name)}",
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "columns": [
            {"label": key.replace("_", " "), "numeric": numeric.get(key, False), "code": key in table.code}
            | {"words": any(isinstance(cell, str) and len(cell) > LONG_CELL for cell in column)}
            for key, column in table.columns.items()
        ],
        "rows": rows,
        "num_rows": table.num_rows,
        "csv": _csv_link(table),
    }


def _csv_link(table: Table) -> str | None:
    """The table as a link that holds it, or None when it is too long for that."""
    columns = table.flat_columns()
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(["" if cell is None else cell for cell in row])
        if buffer.tell() > MAX_INLINE_CSV:
            return None
    content = buffer.getvalue().encode()
    if len(content) > MAX_INLINE_CSV:
        return None
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(content).decode()


def _prose(text: str) -> Markup:
    """Text with what stands between backticks as code.

    >>> print(_prose("Write `a < b`."))
    Write <code>a &lt; b</code>.
    """
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _embedded(data: object, what: str) -> Markup:
    r"""JSON that may stand inside a script element: no `<`, `>` or `&` is left to end it or start another.

    >>> print(_embedded({"name": "</script>"}, "figure"))
    {"name":"\u003c/script\u003e"}
    """
    from markupsafe import Markup

    try:
        text = json.dumps(data, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise BadInput(
            what, got=str(error), wanted="plain JSON without NaN", remedy="Build traces with foundations.figures."
        ) from None
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _content_security_policy(*scripts: str) -> str:
    """What the browser lets the page do: run the scripts named here by their digest, and fetch nothing.

    `unsafe-eval` is for the drawing library, which compiles its WebGL code at run time.
    """
    digests = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    return (
        f"default-src 'none'; script-src {digests} 'unsafe-eval'; style-src 'unsafe-inline'; "
        "img-src data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
    )


def _icon() -> str:
    """A tremor on a blue tile; inline, for without an icon a browser asks the server for one."""
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" '
        f'fill="{PALETTE[0]}"/><path d="M4 16h6l3-9 5 18 3-9h7" fill="none" stroke="#fff" stroke-width="2.6" '
        'stroke-linejoin="round" stroke-linecap="round"/></svg>'
    )
    return "data:image/svg+xml," + quote(drawing)


def _slug(name: str) -> str:
    """A name as it may stand in an id and in a link.

    >>> _slug("top of the spectrum (H)")
    'top-of-the-spectrum-H'
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")

"""`tremorscope cache [ls|gc]`: what is kept so that it need not be computed again."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tremorscope.foundations.cache import CacheEntry

ACTIONS = ("ls", "gc")
GIGABYTE = 1e9
_UNITS = (("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12))
_KEY_LETTERS = 10


def look_after_cache(
    action: Annotated[
        str, typer.Argument(metavar="[ls|gc]", help="List the entries, or delete those least recently used.")
    ] = "ls",
    max_gb: Annotated[
        float | None, typer.Option(min=0, help="gc: how much may stay, in gigabytes; 0: nothing.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="ls: read every entry whole; finds all damage.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List what the cache holds, or make it smaller; whatever is deleted is made again when it is needed."""
    from tremorscope.foundations.cache import Cache
    from tremorscope.foundations.errors import BadInput, did_you_mean

    if action not in ACTIONS:
        raise BadInput("cache", got=action, wanted="ls or gc", remedy=did_you_mean(action, ACTIONS))
    if action == "gc" and max_gb is None:
        raise BadInput("cache gc", got="no limit", wanted="how much may stay", remedy="For example --max-gb 5.")
    if action == "ls" and max_gb is not None:
        raise BadInput("cache ls", got="--max-gb", remedy="Only `tremorscope cache gc --max-gb ...` deletes.")
    if action == "gc" and check:
        raise BadInput("cache gc", got="--check", remedy="Look first: `tremorscope cache ls --check`.")
    cache = Cache()
    if max_gb is None:
        print_entries(cache.root, cache.entries(check=check), as_json=json)
    else:
        _collect(cache.root, max_gb, as_json=json)


def print_entries(root: Path, entries: list[CacheEntry], *, as_json: bool) -> None:
    """Every entry, the most recently used first, and the total."""
    from tremorscope.cli.output import console, print_json, print_table

    total = sum(entry.bytes for entry in entries)
    newest_first = entries[::-1]
    if as_json:
        print_json({"cache": str(root), "bytes": total, "entries": [_document(entry) for entry in newest_first]})
        return
    if entries:
        print_table(
            ("entry", "what", "size", "used", "made"),
            [
                (
                    entry.key[:_KEY_LETTERS],
                    _what(entry),
                    size(entry.bytes),
                    _ago(entry.used),
                    "" if entry.made is None else _ago(entry.made),
                )
                for entry in newest_first
            ],
        )
    number = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    console().print(f"{number}, {size(total)}, in {root}", soft_wrap=True)
    if any(entry.state != "whole" for entry in entries):
        console().print("`tremorscope cache gc` deletes what is damaged or left over, whatever --max-gb is.")


def size(count: int) -> str:
    """Bytes for people.

    >>> size(512), size(48_300), size(2_500_000_000)
    ('512 B', '48.3 kB', '2.5 GB')
    """
    if count < 1000:
        return f"{count} B"
    unit, length = next((pair for pair in _UNITS if count < 999.5 * pair[1]), _UNITS[-1])
    return f"{count / length:.3g} {unit}"


def _collect(root: Path, max_gb: float, *, as_json: bool) -> None:
    from tremorscope.cli.output import console, print_json
    from tremorscope.foundations.cache import Cache

    done = Cache(root).collect(round(max_gb * GIGABYTE))
    freed = sum(entry.bytes for entry in done.removed)
    if as_json:
        print_json(
            {
                "cache": str(root),
                "removed": [_document(entry) for entry in done.removed],
                "in_use": [_document(entry) for entry in done.in_use],
                "bytes_freed": freed,
                "bytes_left": done.bytes_left,
            }
        )
        return
    out = console()
    number = "1 entry" if len(done.removed) == 1 else f"{len(done.removed)} entries"
    out.print(f"Deleted {number}, {size(freed)}; {size(done.bytes_left)} left in {root}", soft_wrap=True)
    for entry in done.in_use:
        out.print(f"Kept {entry.key[:_KEY_LETTERS]} ({size(entry.bytes)}): it is being read.")


def _document(entry: CacheEntry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "path": str(entry.path),
        "bytes": entry.bytes,
        "state": entry.state,
        "used": entry.used.isoformat(timespec="seconds"),
        "made": None if entry.made is None else entry.made.isoformat(timespec="seconds"),
        "what": dict(entry.meta),
    }


def _what(entry: CacheEntry) -> str:
    told = ", ".join(f"{key} {value}" for key, value in entry.meta.items())
    if entry.state == "left over":
        return "half written, by a process that was killed or still writes"
    return f"damaged{': ' if told else ''}{told}" if entry.state == "damaged" else told


def _ago(moment: datetime) -> str:
    """How long ago, in the largest unit that fits."""
    seconds = max(0.0, (datetime.now(moment.tzinfo) - moment).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"

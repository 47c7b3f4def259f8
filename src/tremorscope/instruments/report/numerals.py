"""How values are written in a report: four significant digits, intervals beside their estimate."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ABSENT = "\N{EN DASH}"


def numeral(value: object) -> str:
    """A cell as text: numbers with four significant digits, whole numbers in full.

    >>> numeral(0.123456), numeral(12_345), numeral(True), numeral("text")
    ('0.1235', '12345', 'yes', 'text')
    """
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int):
        return str(value)
    number = float(value)  # type: ignore[arg-type]  # what is left is a float, or a NumPy number that acts as one
    if math.isnan(number):
        return "not a number"
    if math.isinf(number):
        return "\N{INFINITY}" if number > 0 else "-\N{INFINITY}"
    return f"{number:.4g}"


def duration(seconds: float) -> str:
    """A time span the way one says it.

    >>> duration(0.42), duration(61), duration(3 * 3600 + 240)
    ('0.4 s', '1 min 1 s', '3 h 4 min')
    """
    if seconds < 59.5:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def command_line(command: str | Sequence[str]) -> str:
    """A command as it is typed; a list of arguments is quoted for the shell.

    >>> command_line(["tremorscope", "examine", "my net.py:build"])
    "tremorscope examine 'my net.py:build'"
    """
    return command if isinstance(command, str) else shlex.join(command)


def settings(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (dotted name, text) pairs, in their own order.

    >>> list(settings({"seed": 3, "train": {"lr": 0.5, "sizes": [1, 2]}}))
    [('seed', '3'), ('train.lr', '0.5'), ('train.sizes', '[1, 2]')]
    """
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from settings(value, f"{name}.")
        elif isinstance(value, str):
            yield name, value
        elif value is None or isinstance(value, bool):
            yield name, numeral(value)
        else:
            yield name, json.dumps(value, default=str, ensure_ascii=False)

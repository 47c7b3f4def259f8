"""Errors that say what went wrong, what came, what was wanted, and what to type next.

A user's mistake is a `TremorscopeError`: the command line prints its one sentence and exits with 2.
Anything else that escapes is a bug of ours, and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TremorscopeError(Exception):
    """A mistake that the user can mend, told in four parts.

    >>> print(BadInput("size", got=-1, wanted="a positive number", remedy="Use size=0.1."))
    size: got -1; wanted a positive number. Use size=0.1.
    """

    def __init__(self, what: str, *, got: object = None, wanted: object = None, remedy: str | None = None) -> None:
        self.what, self.got, self.wanted, self.remedy = what, got, wanted, remedy
        middle = "; ".join(f"{label} {part}" for label, part in (("got", got), ("wanted", wanted)) if part is not None)
        sentence = f"{what}: {middle}." if middle else f"{what.rstrip('.')}."
        super().__init__(sentence if remedy is None else f"{sentence} {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process borders: keyword arguments must survive pickling."""
        return (_rebuild, (type(self), self.what, self.got, self.wanted, self.remedy))


def _rebuild(
    kind: type[TremorscopeError], what: str, got: object, wanted: object, remedy: str | None
) -> TremorscopeError:
    return kind(what, got=got, wanted=wanted, remedy=remedy)


class BadInput(TremorscopeError, ValueError):
    """A value, file, option or shape that cannot be used."""


class SiteNotFound(TremorscopeError, LookupError):
    """An address that names nothing in this network."""


class NotConverged(TremorscopeError, RuntimeError):
    """An iteration that stopped before it reached its tolerance."""


class MissingExtra(TremorscopeError, ImportError):
    """An optional library that is not installed."""


def nearest(name: str, options: Iterable[str], count: int = 3) -> list[str]:
    """The options that look most like `name`, best first; empty when none comes close.

    >>> nearest("learning_rat", ["seed", "learning_rate"])
    ['learning_rate']
    """
    return difflib.get_close_matches(name, list(options), n=count, cutoff=0.5)


def did_you_mean(name: str, options: Iterable[str]) -> str | None:
    """`"Did you mean 'x'?"` for the nearest option, or None."""
    close = nearest(name, options, count=1)
    return f"Did you mean {close[0]!r}?" if close else None

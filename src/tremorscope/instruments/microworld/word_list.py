"""Lists of words and phrases, written as one reads them."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """What stands between blanks.

    >>> words("red blue")
    ('red', 'blue')
    """
    return tuple(text.split())


def phrases(text: str) -> tuple[str, ...]:
    """What stands between semicolons, without the blanks around it.

    >>> phrases("old films; tea")
    ('old films', 'tea')
    """
    return tuple(phrase.strip() for phrase in text.split(";"))

"""Addresses of the four places that can be disturbed: weights, activations, inputs, the start of training."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

from tremorscope.foundations.errors import BadInput, did_you_mean

Kind = Literal["weights", "acts", "input", "train.init"]
TAGS = ("last", "prompt", "generated", "all")
GRAMMAR = "weights:GLOB, acts:NAME[:in.i|:out.i|:kwarg.NAME][@POS], input, or train.init"

_PORT = re.compile(r"(in|out)(\.\d+)+|kwarg\.[^\W\d]\w*")
_INTEGER = re.compile(r"-?\d+")


class Span(NamedTuple):
    """A slice of positions, as a value that can be compared and hashed."""

    start: int | None
    stop: int | None
    step: int | None

    def __str__(self) -> str:
        start, stop, step = ("" if end is None else str(end) for end in self)
        return f"{start}:{stop}" + (f":{step}" if step else "")

    def to_slice(self) -> slice:
        """The Python slice."""
        return slice(*self)


Position = int | Span | str


@final
@dataclass(frozen=True, kw_only=True)
class Site:
    r"""One address in a network or in its training.

    | address | place |
    |---|---|
    | `weights:GLOB` | every parameter whose name matches; several globs are separated by commas |
    | `acts:NAME[:in.i\|:out.i\|:kwarg.NAME][@POS]` | a module's output (or the named input or output) |
    | `input` | the first floating-point argument of the batch |
    | `train.init` | the weights from which the recipe starts |

    NAME is an alias (`resid_post.3`, see `Network.site_map`) or the path of a module; with a port it is a path.
    `out.1.0` is an entry of an entry. POS is an integer, a slice `a:b[:c]`, or one of `last` (the last token that is
    no padding), `prompt`, `generated`, `all`. `@-1` is literal: the last position, padding or not.

    `pattern` is the GLOB or the NAME, empty for `input` and `train.init`. `str(site)` is the address.

    >>> site = Site.parse("acts:blocks.3.attn:out.0@-4:")
    >>> site.pattern, site.port, site.position
    ('blocks.3.attn', 'out.0', Span(start=-4, stop=None, step=None))
    >>> str(site), Site.parse(str(site)) == site
    ('acts:blocks.3.attn:out.0@-4:', True)
    """

    kind: Kind
    pattern: str = ""
    port: str | None = None
    position: Position | None = None

    def __str__(self) -> str:
        if self.kind in ("input", "train.init"):
            return self.kind
        port = "" if self.port is None else f":{self.port}"
        position = "" if self.position is None else f"@{self.position}"
        return f"{self.kind}:{self.pattern}{port}{position}"

    @classmethod
    def parse(cls, text: str | Site) -> Site:
        """The site that an address names; a `Site` is given back as it is.

        Whether the network has such a place is asked where the site is used.

        Raises:
            BadInput: If the address does not follow the grammar.
        """
        if isinstance(text, Site):
            return text
        address = text.strip()
        prefix, colon, rest = address.partition(":")
        if address == "input":
            return cls(kind="input")
        if address == "train.init":
            return cls(kind="train.init")
        if prefix == "weights" and colon:
            return cls(kind="weights", pattern=_glob(address, rest))
        if prefix == "acts" and colon:
            return _activation(address, rest)
        raise BadInput(
            f"site {text!r}", got=_what_came(prefix, colon), wanted=GRAMMAR, remedy=_remedy(address, prefix, colon)
        )


def _what_came(prefix: str, colon: str) -> str:
    if not prefix and not colon:
        return "an empty address"
    if prefix in ("input", "train.init"):
        return f"something after {prefix!r}"
    return f"the prefix {prefix!r}" if colon else "no prefix"


def _remedy(address: str, prefix: str, colon: str) -> str | None:
    if not address:
        return None
    if prefix in ("input", "train.init"):
        return f"{prefix!r} stands alone."
    if colon:
        return did_you_mean(prefix, ("weights", "acts"))
    return did_you_mean(prefix, ("input", "train.init")) or f"For parameters of that name write 'weights:{address}'."


def _glob(address: str, text: str) -> str:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise BadInput(
            f"site {address!r}", got="an empty pattern", wanted=GRAMMAR, remedy="For every weight write 'weights:*'."
        )
    return ",".join(parts)


def _activation(address: str, text: str) -> Site:
    # A slice has colons of its own, so the position is cut off first.
    head, at, tail = text.partition("@")
    name, colon, port = head.partition(":")
    if not name or name != name.strip():
        raise BadInput(f"site {address!r}", got=f"the module name {name!r}", wanted=GRAMMAR)
    if colon and not _PORT.fullmatch(port):
        raise BadInput(
            f"site {address!r}",
            got=f"the part {port!r}",
            wanted="in.0, out.1, kwarg.attention_mask, ... after the module name",
            remedy="Positions follow an @: acts:blocks.3@0:4.",
        )
    return Site(
        kind="acts", pattern=name, port=port if colon else None, position=_position(address, tail) if at else None
    )


def _position(address: str, text: str) -> Position:
    if text in TAGS:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    ends = text.split(":")
    if len(ends) in (2, 3) and all(not end or _INTEGER.fullmatch(end) for end in ends):
        numbers = [int(end) if end else None for end in ends] + [None] * (3 - len(ends))
        if numbers[2] != 0:
            return Span(*numbers)
    raise BadInput(
        f"site {address!r}",
        got=f"the position {text!r}",
        wanted=f"an integer, a slice such as 2:5, or one of {', '.join(TAGS)}",
        remedy=did_you_mean(text, TAGS),
    )

"""Claims: hypothesis, evidence, the same on the null, verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, final

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate


class Verdict(StrEnum):
    """What the evidence says of a claim."""

    HOLDS = "holds"
    FAILS = "fails"
    VACUOUS = "vacuous"
    UNDECIDED = "undecided"


@final
@dataclass(frozen=True, kw_only=True)
class Expected:
    """The range a claim predicts, `low <= x <= high`, and how its ends were set.

    `origin` says where the numbers come from: the paper, or the calibration seeds and the date-free
    history of the one open recalibration ("was 0.99, now 0.97, because ...").

    >>> str(Expected(low=0.99, origin="paper")), str(Expected(low=10, high=40, origin="paper"))
    ('at least 0.99', 'between 10 and 40')
    """

    low: float = -math.inf
    high: float = math.inf
    origin: str

    def __post_init__(self) -> None:
        if not self.low < self.high or (math.isinf(self.low) and math.isinf(self.high)):
            raise BadInput("expected range", got=f"[{self.low}, {self.high}]", wanted="low < high, one end finite")

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"at least {self.low:.4g}"
        if math.isinf(self.low):
            return f"at most {self.high:.4g}"
        return f"between {self.low:.4g} and {self.high:.4g}"

    def meets(self, estimate: Estimate) -> bool:
        """The whole interval lies inside."""
        return self.low <= estimate.low and estimate.high <= self.high

    def misses(self, estimate: Estimate) -> bool:
        """The whole interval lies outside."""
        return estimate.high < self.low or estimate.low > self.high


@final
@dataclass(frozen=True, kw_only=True)
class NullEvidence:
    """The same measurement where chance, or a duller cause, is all there is."""

    name: str
    description: str
    measured: Estimate


@final
@dataclass(frozen=True, kw_only=True)
class Claim:
    """One acceptance row of a study, keyed by (study, row, preset).

    `nulls` may be empty for exact identities only; `without_null` must then say why.
    """

    study: str
    row: str
    preset: str
    statement: str
    source: str
    scope: str
    expected: Expected
    measured: Estimate
    nulls: tuple[NullEvidence, ...] = ()
    without_null: str | None = None

    def __post_init__(self) -> None:
        if not self.nulls and not self.without_null:
            raise BadInput(
                f"claim {self.id}",
                got="no null",
                wanted="at least one, or the reason why none can exist",
                remedy="Pass nulls=(...) or without_null='...'.",
            )

    @property
    def id(self) -> str:
        """`<study>/<row>`."""
        return f"{self.study}/{self.row}"

    @property
    def verdict(self) -> Verdict:
        """`holds`: the whole interval meets the threshold, on no null it does. `vacuous`: a null meets it too.

        `fails`: the whole interval misses it. `undecided` otherwise.
        """
        if self.expected.misses(self.measured):
            return Verdict.FAILS
        if not self.expected.meets(self.measured):
            return Verdict.UNDECIDED
        if any(self.expected.meets(null.measured) for null in self.nulls):
            return Verdict.VACUOUS
        return Verdict.HOLDS

    @property
    def flags(self) -> tuple[str, ...]:
        """`("one seed",)` when the verdict rests on a single member."""
        return ("one seed",) if self.measured.is_point else ()

    @property
    def holds(self) -> bool:
        """Shorthand for tests: the verdict is `holds`."""
        return self.verdict is Verdict.HOLDS

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `result.json`; infinite ends become null."""
        return {
            "id": self.id,
            "study": self.study,
            "row": self.row,
            "preset": self.preset,
            "statement": self.statement,
            "source": self.source,
            "scope": self.scope,
            "expected": {
                "low": None if math.isinf(self.expected.low) else self.expected.low,
                "high": None if math.isinf(self.expected.high) else self.expected.high,
                "text": str(self.expected),
                "origin": self.expected.origin,
            },
            "measured": self.measured.to_dict(),
            "null": {null.name: {"description": null.description, **null.measured.to_dict()} for null in self.nulls},
            "without_null": self.without_null,
            "verdict": str(self.verdict),
            "flags": list(self.flags),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Claim:
        """The inverse of `to_dict`; the verdict is judged anew."""
        ends = data["expected"]
        return cls(
            study=data["study"],
            row=data["row"],
            preset=data["preset"],
            statement=data["statement"],
            source=data["source"],
            scope=data["scope"],
            expected=Expected(
                low=-math.inf if ends["low"] is None else ends["low"],
                high=math.inf if ends["high"] is None else ends["high"],
                origin=ends["origin"],
            ),
            measured=Estimate.from_dict(data["measured"]),
            nulls=tuple(
                NullEvidence(
                    name=name,
                    description=entry["description"],
                    measured=Estimate.from_dict({k: v for k, v in entry.items() if k != "description"}),
                )
                for name, entry in data["null"].items()
            ),
            without_null=data["without_null"],
        )

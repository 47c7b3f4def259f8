"""What the rows of a language model share: how a claim is stated, and the colour of its nulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, Series
from tremorscope.studies.ace_digits import PAPER, STUDY

BY_SIGN = Expected(
    low=0.01, origin="the sign of the published claim; a hundredth at least, so that no difference is not one"
)


@final
@dataclass(frozen=True, kw_only=True)
class RowMaker:
    """States rows of one model, by their name without its ending."""

    preset: str
    scope: str
    ending: str

    def __call__(
        self,
        row: str,
        statement: str,
        measured: Estimate,
        nulls: Mapping[str, tuple[str, Estimate]],
        *,
        expected: Expected = BY_SIGN,
        note: str = "",
    ) -> Claim:
        """The claim."""
        return Claim(
            study=STUDY,
            row=f"{row}{self.ending}",
            preset=self.preset,
            statement=f"{'Recurrent twin. ' if self.ending else ''}{statement}",
            source=PAPER,
            scope=f"{self.scope}{note}",
            expected=expected,
            measured=measured,
            nulls=tuple(
                NullEvidence(name=name, description=described, measured=value)
                for name, (described, value) in nulls.items()
            ),
        )


def grey(symbol: str, values: Sequence[Estimate | None]) -> Series:
    """A series of a null."""
    return NULL_COLOUR, symbol, values

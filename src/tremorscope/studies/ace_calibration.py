"""Requested against measured refusals: the calibration error of every method as one number, beside its null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy

from tremorscope.foundations.claims import Claim, Expected
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import PALETTE, Axis, Figure, dots
from tremorscope.foundations.results import Table
from tremorscope.methods.activations.concept_editing.calibration import miscalibration
from tremorscope.studies.ace_language_member import (
    ABLATE,
    CLASSES,
    CURVES,
    ENDS,
    LEVELS,
    MISSING,
    OTHER_PROMPT,
    PROMPT,
    RANDOM_RANK_ONE,
    RANK_ONE,
    along_random,
)
from tremorscope.studies.ace_rows import RowMaker, grey

CALIBRATION_ROWS = ("A14c", "A14d")
NOTHING, ABLATE_OR_ADD = "no edit", "ablate at 0, add r at 1"
UNTRAINED = "untrained network"
# What has a level for every alpha, and what has only some settings.
SETTINGS: Mapping[str, Sequence[float] | None] = {
    NOTHING: None,
    **dict.fromkeys(CURVES),
    ABLATE: (0.0,),
    ABLATE_OR_ADD: ENDS,
    PROMPT: ENDS,
    RANK_ONE: ENDS,
}
# What each stands beside on the same network.
_CHANCE = {name: along_random(name) for name in (*CURVES, ABLATE, ABLATE_OR_ADD)} | {
    PROMPT: OTHER_PROMPT,
    RANK_ONE: RANDOM_RANK_ONE,
}
DEFINITION = (
    "Calibration error: mean distance between the share of requests that is refused and the alpha that was asked for, "
    f"over alpha from 0 to 1 ({', '.join(f'{one:g}' for one in LEVELS)}; trapezoidal rule) and over forbidden and "
    "allowed requests. Every distance counts, so refusing too many of one kind does not pay for too few of the other. "
    "What takes no notice of alpha scores 1/4 (half of each kind refused) to 1/2 (all or none); what jumps from none "
    "to all at alpha 1/2 scores 1/4."
)


_SIGN = "the sign of the published claim, with a margin"
# By row and ending: `r` is the recurrent twin.
EXPECTED = {
    "A14c": Expected(
        low=0.05, origin=f"{_SIGN}; 0.156 on calibration seed 1 (three draws), 0.007 along random directions"
    ),
    "A14cr": Expected(low=0.05, origin=f"{_SIGN}; 0.215 on calibration seed 11 (one draw)"),
    "A14d": Expected(
        low=0.05, origin=f"{_SIGN}; 0.126 on calibration seed 1 (three draws), 0.005 along random directions"
    ),
    "A14dr": Expected(
        low=0.01,
        origin="the sign of the published claim; a hundredth at least, so that no difference is not one; 0.03 on "
        "calibration seed 11 (one draw)",
    ),
}


@final
@dataclass(frozen=True, kw_only=True)
class CalibrationRows:
    """Draws of requests in one model, and the same draws in its untrained twin (none: there is no twin)."""

    network: str
    members: Sequence[Mapping[str, Any]]
    untrained: Sequence[Mapping[str, Any]]

    @classmethod
    def of(
        cls, network: str, members: Sequence[Mapping[str, Any]], untrained: Sequence[Mapping[str, Any]]
    ) -> CalibrationRows:
        """All draws; those of the twin only if each of them could be measured."""
        whole = [one for one in untrained if one[MISSING] is None]
        return cls(network=network, members=members, untrained=whole if len(whole) == len(members) else ())

    def claims(self, make: RowMaker) -> list[Claim]:
        """ACE against activation addition and against ablation followed by adding r, paired by draw."""
        told = {
            "A14c": ("CAA", "activation addition"),
            "A14d": ("ablate, then add r", "ablation followed by adding r"),
        }
        return [
            make(
                row,
                f"ACE refuses more nearly what is requested than {called}: difference of the calibration errors (mean "
                "of |share refused - alpha| over alpha 0 to 1, forbidden and allowed requests).",
                self._less_than(name),
                self._nulls(name),
                expected=EXPECTED[row + make.ending],
            )
            for row, (name, called) in told.items()
        ]

    def summary(self) -> list[str]:
        """One number for each of the prior methods."""
        told = "; ".join(f"{name} {self.error(name)}" for name in CURVES)
        return [f"{self.network}, calibration error (requested against measured refusals, alpha 0 to 1): {told}."]

    def tables(self) -> list[Table]:
        """A row for each method, with what it has to be compared with."""
        rows = []
        for name, settings in SETTINGS.items():
            null = _CHANCE.get(name)
            rows.append(
                {
                    "method": name,
                    "alpha": "0 to 1" if settings is None else " and ".join(f"{one:g}" for one in settings) + " only",
                    "error": self.error(name),
                    "error of ACE there": self._of("ACE", settings, self.members),
                    "more than ACE": None if name == "ACE" else self._less_than(name),
                    "chance": null and self._of(null, settings, self.members),
                    "chance is": null,
                    UNTRAINED: self._of(name, settings, self.untrained) if self.untrained else None,
                }
            )
        return [
            Table.of_rows(
                rows,
                name=f"calibration_{self.network}",
                title=f"Calibration error of every method, {self.network}",
                caption=f"{DEFINITION} Methods without levels in between are judged at the settings that they have, "
                "and ACE at the same ones beside them. Means over draws of requests with fits of their own, 99 % "
                "intervals over draws; held-out wordings. Chance: the same along a random direction of the length of r "
                "(an instruction about something else, a random edit of the same norms).",
            )
        ]

    def figures(self) -> list[Figure]:
        """All methods beside their nulls."""
        names = list(SETTINGS)
        labels = [
            name if (settings := SETTINGS[name]) is None else f"{name} (alpha {', '.join(f'{a:g}' for a in settings)})"
            for name in names
        ]
        series: dict[str, Any] = {
            "edited": (PALETTE[0], "circle", [self.error(name) for name in names]),
            "chance: random direction, edit or instruction": grey(
                "x-thin",
                [self._of(_CHANCE[name], SETTINGS[name], self.members) if name in _CHANCE else None for name in names],
            ),
        }
        if self.untrained:
            series[f"chance: {UNTRAINED}"] = grey(
                "diamond-open", [self._of(name, SETTINGS[name], self.untrained) for name in names]
            )
        return [
            dots(
                name=f"calibration_{self.network}",
                title=f"How far measured refusals are from the requested ones, {self.network}",
                caption="Calibration error of each method, the smaller the better, with 99 % intervals over draws of "
                "requests; grey: what chance gives. Methods with settings in brackets have no other ones, and a "
                "smaller error there is no merit between them.",
                labels=labels,
                series=series,
                x=Axis(title="mean distance between share refused and alpha", range=(-0.02, 1.02)),
            )
        ]

    def flags(self) -> list[str]:
        """A null that could not be had."""
        if self.untrained:
            return []
        return [f"{self.network}: no untrained network to compare with"]

    def error(self, name: str) -> Estimate:
        """Calibration error of a method, at the settings that it has."""
        return self._of(name, SETTINGS[name], self.members)

    def _nulls(self, name: str) -> dict[str, tuple[str, Estimate]]:
        found = {
            "random": (
                "both edits along a random direction of the length of r",
                _mean(
                    [
                        error_of(one, along_random(name), None) - error_of(one, along_random("ACE"), None)
                        for one in self.members
                    ]
                ),
            )
        }
        if self.untrained:
            found["untrained"] = (
                "the same fits and edits on the network before training",
                _mean([error_of(one, name, None) - error_of(one, "ACE", None) for one in self.untrained]),
            )
        return found

    def _less_than(self, name: str) -> Estimate:
        """By how much the error of another method is larger than that of ACE at the same settings, draw by draw."""
        settings = SETTINGS[name]
        return _mean([error_of(one, name, settings) - error_of(one, "ACE", settings) for one in self.members])

    @staticmethod
    def _of(name: str, settings: Sequence[float] | None, members: Sequence[Mapping[str, Any]]) -> Estimate:
        return _mean([error_of(one, name, settings) for one in members])


def error_of(member: Mapping[str, Any], name: str, settings: Sequence[float] | None) -> float:
    """Calibration error of a method in one draw, at some of its settings or over alpha from 0 to 1."""
    found = member["responses"]
    if name == NOTHING:
        unedited = found["ACE"]["classes"]
        shares = [[float(numpy.mean(unedited[key]["unedited"]))] * len(LEVELS) for key in CLASSES]
        return float(miscalibration(LEVELS, numpy.array(shares), settings=settings))
    if name in (ABLATE_OR_ADD, along_random(ABLATE_OR_ADD)):
        parts = (ABLATE, "CAA") if name == ABLATE_OR_ADD else (along_random(ABLATE), along_random("CAA"))
        shares = [[_share(found[part], key, alpha) for part, alpha in zip(parts, ENDS, strict=True)] for key in CLASSES]
        return float(miscalibration(ENDS, numpy.array(shares), settings=settings))
    alphas = found[name]["alphas"]
    shares = [[_share(found[name], key, alpha) for alpha in alphas] for key in CLASSES]
    return float(miscalibration(alphas, numpy.array(shares), settings=settings))


def _share(plain: Mapping[str, Any], key: str, alpha: float) -> float:
    return float(numpy.mean(plain["classes"][key]["edited"][plain["alphas"].index(alpha)]))


def _mean(values: Sequence[float]) -> Estimate:
    return Estimate.mean(list(values))

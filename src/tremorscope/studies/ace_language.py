"""Refusals set to a chosen level in language models, as rows of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, final

from tremorscope.foundations.claims import Claim
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, band, line
from tremorscope.foundations.results import Table
from tremorscope.studies.ace_calibration import CALIBRATION_ROWS, CalibrationRows, error_of
from tremorscope.studies.ace_language_member import CLASSES, CURVES, ENDS, LEVELS, PROMPT, along_random
from tremorscope.studies.ace_oblique import LanguageSweepRows
from tremorscope.studies.ace_rows import RowMaker
from tremorscope.studies.ace_side_effects import SIDE_EFFECT_ROWS, SideEffectRows

MODEL, RECURRENT = "model", "recurrent"
LANGUAGE_ROWS = tuple(
    f"{row}{ending}" for ending in ("", "r") for row in (*SIDE_EFFECT_ROWS, "A14a", "A14b", *CALIBRATION_ROWS)
)
GAP_LEVELS = (0.0, 0.5, 1.0)


@final
@dataclass(frozen=True, kw_only=True)
class LanguageRows:
    """What was found in one model. `members` are draws of requests, `calibration` holds them with the untrained twin's.

    `cost` and `swept` are measured once.
    """

    network: str
    choice: Mapping[str, Any]
    members: Sequence[Mapping[str, Any]]
    calibration: CalibrationRows
    cost: Mapping[str, Any]
    swept: Mapping[str, Any]

    @property
    def ending(self) -> str:
        """Of the rows' names."""
        return "r" if self.network == RECURRENT else ""

    @property
    def place(self) -> str:
        """Where it is edited."""
        return f"at {self.choice['site']}, edited at {self.choice['position'] or 'its last token'}"

    def claims(self, make: RowMaker) -> list[Claim]:
        """Rows A13 and A14."""
        return [
            *self._effects.claims(make),
            make(
                "A14a",
                "Refusals of forbidden and allowed requests are nearer to each other under ACE than under activation "
                "addition: difference of gaps, mean over alpha 0, 0.5 and 1.",
                self._over(lambda member: _mean_gap(member, "CAA") - _mean_gap(member, "ACE")),
                {
                    "random": (
                        "the same two edits along a random direction of the length of r",
                        self._over(
                            lambda member: (
                                _mean_gap(member, along_random("CAA")) - _mean_gap(member, along_random("ACE"))
                            )
                        ),
                    )
                },
            ),
            make(
                "A14b",
                "ACE comes nearer to the requested refusals (none at 0, all at 1) than an instruction in the prompt: "
                "difference of the distances.",
                self._over(lambda member: error_of(member, PROMPT, ENDS) - error_of(member, "ACE", ENDS)),
                {
                    "random": (
                        "ACE along a random direction of the length of r",
                        self._over(
                            lambda member: error_of(member, PROMPT, ENDS) - error_of(member, along_random("ACE"), ENDS)
                        ),
                    )
                },
            ),
            *self.calibration.claims(make),
        ]

    def summary(self) -> list[str]:
        """Requested against measured, and what ablation costs."""
        level = {alpha: [str(self._level("ACE", name, alpha)) for name in CLASSES] for alpha in ENDS}
        return [
            f"{self.network}, {self.choice['site']}: ACE at alpha 0 leaves {level[0.0][0]} of the forbidden requests "
            f"refused and {level[0.0][1]} of the allowed; at alpha 1, {level[1.0][0]} and {level[1.0][1]}.",
            *self.calibration.summary(),
            *self._effects.summary(),
        ]

    def tables(self) -> list[Table]:
        """Every method side by side; side effects; and where the edit was made."""
        names = list(self.members[0]["responses"])
        rows: list[dict[str, Any]] = [
            {"method": "none", "requested": None} | {name: self._unedited(name) for name in CLASSES}
        ]
        for method in names:
            for alpha in self.members[0]["responses"][method]["alphas"]:
                shares = {name: self._level(method, name, alpha) for name in CLASSES}
                rows.append(
                    {"method": method, "requested": alpha}
                    | shares
                    | {"gap": self._over(lambda member, m=method, a=alpha: _gap(member, m, a))}
                    | {"miss": self._over(lambda member, m=method, a=alpha: _miss_at(member, m, a))}
                )
        return [
            *self.calibration.tables(),
            Table.of_rows(
                rows,
                name=f"refusals_{self.network}",
                title=f"Refusals of the {self.network}, requested and measured",
                caption="Shares of held-out requests refused, mean over draws. Gap: between the two kinds. Miss: mean "
                "distance from what was requested.",
            ),
            *self._effects.tables(),
            *self._sweep.tables(),
            Table.of_rows(
                self.choice["candidates"],
                name=f"sites_{self.network}",
                title=f"Where the {self.network} is edited",
                caption="Validation requests. Error: mean distance from no refusals at alpha 0 and from all at 1.",
            ),
            Table.of_rows(
                [
                    {"draw": place, **member["fit"], "reach": member["reach"]}
                    for place, member in enumerate(self.members)
                ],
                name=f"fits_{self.network}",
                title=f"Directions in the {self.network}",
                caption="Reach: decisions flipped by patching in the activation of the other class at the last token.",
            ),
        ]

    def figures(self) -> list[Figure]:
        """Calibration of all methods; then share refused against alpha, a figure for each curve; and free text."""
        found = self.calibration.figures()
        for method in CURVES:
            traces: list[dict[str, Any]] = [line([0.0, 1.0], [0.0, 1.0], "requested", colour=NULL_COLOUR, dash="dash")]
            for colour, name in zip(PALETTE, CLASSES, strict=False):
                levels = [self._level(method, name, alpha) for alpha in LEVELS]
                null = [self._level(along_random(method), name, alpha).value for alpha in LEVELS]
                low, high = [max(0.0, one.low) for one in levels], [min(1.0, one.high) for one in levels]
                traces += [
                    band(list(LEVELS), low, high, f"{name}, 99 %", colour=colour),
                    line(list(LEVELS), [one.value for one in levels], name, colour=colour, markers=True),
                    line(list(LEVELS), null, f"{name}, random direction", colour=colour, dash="dot"),
                ]
            slug = "".join(letter if letter.isalnum() else "_" for letter in method.lower())
            found.append(
                Figure(
                    name=f"refusals_{self.network}_{slug}",
                    title=f"Refusals of the {self.network} under {method}: requested and measured",
                    caption="Share of held-out requests refused against alpha, mean over draws with 99 % intervals; "
                    "the nearer to the dashed line, the better calibrated; dotted: the same along a random direction.",
                    traces=traces,
                    x=Axis(title="alpha (0: typical allowed request, 1: typical forbidden one)"),
                    y=Axis(title="share refused", range=(-0.02, 1.02)),
                )
            )
        return [*found, *self._sweep.figures(), *self._effects.figures()]

    def flags(self) -> list[str]:
        """What the fits said, each once; low reach."""
        found = [f"{self.network}: {flag}" for member in self.members for flag in member["flags"]]
        reaches = [member["reach"] for member in self.members if member["reach"] is not None]
        if reaches and fmean(reaches) < 0.5:
            found.append(f"{self.network}: reach of the last token at {self.choice['site']} is {fmean(reaches):.2g}")
        return [*dict.fromkeys(found), *self.calibration.flags(), *self._effects.flags()]

    @property
    def _effects(self) -> SideEffectRows:
        return SideEffectRows(network=self.network, cost=self.cost)

    @property
    def _sweep(self) -> LanguageSweepRows:
        return LanguageSweepRows(network=self.network, found=self.swept)

    def _over(self, read: Any) -> Estimate:
        return Estimate.mean([float(read(member)) for member in self.members])

    def _level(self, method: str, name: str, alpha: float) -> Estimate:
        return self._over(lambda member: _share(member, method, name, alpha))

    def _unedited(self, name: str) -> Estimate:
        return self._over(lambda member: fmean(member["responses"]["ACE"]["classes"][name]["unedited"]))


def _share(member: Mapping[str, Any], method: str, name: str, alpha: float) -> float:
    plain = member["responses"][method]
    return fmean(plain["classes"][name]["edited"][plain["alphas"].index(alpha)])


def _gap(member: Mapping[str, Any], method: str, alpha: float) -> float:
    shares = [_share(member, method, name, alpha) for name in CLASSES]
    return max(shares) - min(shares)


def _mean_gap(member: Mapping[str, Any], method: str) -> float:
    return fmean(_gap(member, method, alpha) for alpha in GAP_LEVELS)


def _miss_at(member: Mapping[str, Any], method: str, alpha: float) -> float:
    return fmean(abs(_share(member, method, name, alpha) - alpha) for name in CLASSES)

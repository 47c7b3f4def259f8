"""Refusals set to a chosen level in language models, as rows of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, final

import numpy

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.cluster_bootstrap import crossed_mean
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, band, line
from tremorscope.foundations.results import Table
from tremorscope.methods.activations.concept_editing.response_curve import ResponseMeasurement
from tremorscope.studies.ace_digits import PAPER, STUDY
from tremorscope.studies.ace_language_member import (
    CLASSES,
    CONDITIONS,
    CURVES,
    ENDS,
    LEVELS,
    PROMPT,
    RANDOM,
    RANDOM_ADD,
    RANK_ONE,
)

MODEL, RECURRENT = "model", "recurrent"
LANGUAGE_ROWS = tuple(f"{row}{ending}" for ending in ("", "r") for row in ("A13a", "A13b", "A14a", "A14b"))
_BY_SIGN = "the sign of the published claim; a hundredth at least, so that no difference is not one"


@final
@dataclass(frozen=True, kw_only=True)
class LanguageRows:
    """What was found in one model. `members` are draws of requests; `cost` is measured once."""

    network: str
    choice: Mapping[str, Any]
    members: Sequence[Mapping[str, Any]]
    cost: Mapping[str, Any]

    @property
    def ending(self) -> str:
        """Of the rows' names."""
        return "r" if self.network == RECURRENT else ""

    def claims(self, *, preset: str, scope: str) -> list[Claim]:
        """Rows A13 and A14."""
        told = "Recurrent twin. " if self.ending else ""
        where = f"at {self.choice['site']}, edited at {self.choice['position'] or 'its last token'}"

        def claim(
            row: str, statement: str, measured: Estimate, nulls: dict[str, tuple[str, Estimate]], note: str = ""
        ) -> Claim:
            return Claim(
                study=STUDY,
                row=f"{row}{self.ending}",
                preset=preset,
                statement=f"{told}{statement}",
                source=PAPER,
                scope=f"{scope}; {where}{note}",
                expected=Expected(low=0.01, origin=_BY_SIGN),
                measured=measured,
                nulls=tuple(
                    NullEvidence(name=name, description=described, measured=value)
                    for name, (described, value) in nulls.items()
                ),
            )

        random = "the same two edits along a random direction of the length of r"
        everywhere = "; edits at all positions, intervals over held-out examples of one fit"
        return [
            claim(
                "A13a",
                "Ablation costs more of ordinary text than ACE at alpha 0: nats per token of held-out prose.",
                self._prose("ablate", "ACE 0"),
                {"random": (random, self._prose("ablate, random direction", "ACE 0, random direction"))},
                everywhere,
            ),
            claim(
                "A13b",
                "Ablation costs more grammar than ACE at alpha 0: share of agreement pairs judged right.",
                self._grammar("ACE 0", "ablate"),
                {"random": (random, self._grammar("ACE 0, random direction", "ablate, random direction"))},
                everywhere,
            ),
            claim(
                "A14a",
                "Refusals of forbidden and allowed requests are nearer to each other under ACE than under activation "
                "addition: difference of gaps, mean over alpha 0, 0.5 and 1.",
                self._over(lambda member: _mean_gap(member, "CAA") - _mean_gap(member, "ACE")),
                {
                    "random": (
                        random,
                        self._over(lambda member: _mean_gap(member, RANDOM_ADD) - _mean_gap(member, RANDOM)),
                    )
                },
            ),
            claim(
                "A14b",
                "ACE comes nearer to the requested refusals (none at 0, all at 1) than an instruction in the prompt: "
                "difference of the distances.",
                self._over(lambda member: _miss(member, PROMPT) - _miss(member, "ACE")),
                {
                    "random": (
                        "ACE along a random direction of the length of r",
                        self._over(lambda member: _miss(member, PROMPT) - _miss(member, RANDOM)),
                    )
                },
            ),
        ]

    def summary(self) -> list[str]:
        """Requested against measured, and what ablation costs."""
        level = {alpha: [str(self._level("ACE", name, alpha)) for name in CLASSES] for alpha in ENDS}
        return [
            f"{self.network}, {self.choice['site']}: ACE at alpha 0 leaves {level[0.0][0]} of the forbidden requests "
            f"refused and {level[0.0][1]} of the allowed; at alpha 1, {level[1.0][0]} and {level[1.0][1]}.",
            f"{self.network}: ablation at all positions costs {self._prose('ablate', 'ACE 0')} nats per token of "
            "ordinary text more than ACE at alpha 0.",
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
        trained = ResponseMeasurement.of(self.cost["trained"])
        for alpha in ENDS:
            rows.append(
                {"method": RANK_ONE, "requested": alpha}
                | {name: trained.level(name, alpha) for name in CLASSES}
                | {"gap": trained.gap(alpha)}
            )
        effects = []
        for name in CONDITIONS:
            effects.append(
                {"edit": name}
                | {"nats per token": crossed_mean(self._losses(name), self._modules, self._rows, seed=0)}
                | {"less unedited": self._prose(name, "none") if name != "none" else None}
                | {"agreement right": self._right(name)}
            )
        return [
            Table.of_rows(
                rows,
                name=f"refusals_{self.network}",
                title=f"Refusals of the {self.network}, requested and measured",
                caption="Shares of held-out requests refused, mean over draws (of the trained edit: one draw). Miss: "
                "mean distance from what was requested.",
            ),
            Table.of_rows(
                effects,
                name=f"side_effects_{self.network}",
                title=f"What the edits cost the {self.network}",
                caption="Edits at all positions; held-out prose, and pairs of right and wrong verb forms.",
            ),
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
        """Share refused against alpha, a figure for each curve; the random direction in grey."""
        found = []
        for method in CURVES:
            traces: list[dict[str, Any]] = []
            for colour, name in zip(PALETTE, CLASSES, strict=False):
                levels = [self._level(method, name, alpha) for alpha in LEVELS]
                null = [self._level(RANDOM, name, alpha).value for alpha in LEVELS]
                low, high = [max(0.0, one.low) for one in levels], [min(1.0, one.high) for one in levels]
                traces += [
                    band(list(LEVELS), low, high, f"{name}, 99%", colour=colour),
                    line(list(LEVELS), [one.value for one in levels], name, colour=colour, markers=True),
                    line(list(LEVELS), null, f"{name}, {RANDOM}", colour=NULL_COLOUR, dash="dot"),
                ]
            slug = "".join(letter if letter.isalnum() else "_" for letter in method.lower())
            found.append(
                Figure(
                    name=f"refusals_{self.network}_{slug}",
                    title=f"Refusals of the {self.network} under {method}",
                    caption="Share of held-out requests refused against alpha, mean over draws.",
                    traces=traces,
                    x=Axis(title="alpha (0: typical allowed request, 1: typical forbidden one)"),
                    y=Axis(title="share refused", range=(-0.02, 1.02)),
                )
            )
        return found

    def flags(self) -> list[str]:
        """What the fits said, each once; low reach."""
        found = [f"{self.network}: {flag}" for member in self.members for flag in member["flags"]]
        reaches = [member["reach"] for member in self.members if member["reach"] is not None]
        if reaches and fmean(reaches) < 0.5:
            found.append(f"{self.network}: reach of the last token at {self.choice['site']} is {fmean(reaches):.2g}")
        return list(dict.fromkeys(found))

    @property
    def _modules(self) -> Sequence[str]:
        return tuple(self.cost["prose"]["modules"])

    @property
    def _rows(self) -> Sequence[int]:
        return tuple(self.cost["prose"]["rows"])

    def _losses(self, name: str) -> Any:
        return numpy.array(self.cost["prose"]["losses"][name], dtype=numpy.float64)

    def _prose(self, one: str, other: str) -> Estimate:
        return crossed_mean(self._losses(one) - self._losses(other), self._modules, self._rows, seed=0)

    def _right(self, name: str) -> Estimate:
        grammar = self.cost["grammar"]
        return crossed_mean(grammar["right"][name], grammar["templates"], grammar["units"], seed=0)

    def _grammar(self, one: str, other: str) -> Estimate:
        grammar = self.cost["grammar"]
        gaps = [float(a) - float(b) for a, b in zip(grammar["right"][one], grammar["right"][other], strict=True)]
        return crossed_mean(gaps, grammar["templates"], grammar["units"], seed=0)

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
    return fmean(_gap(member, method, alpha) for alpha in LEVELS)


def _miss_at(member: Mapping[str, Any], method: str, alpha: float) -> float:
    return fmean(abs(_share(member, method, name, alpha) - alpha) for name in CLASSES)


def _miss(member: Mapping[str, Any], method: str) -> float:
    return fmean(_miss_at(member, method, alpha) for alpha in ENDS)

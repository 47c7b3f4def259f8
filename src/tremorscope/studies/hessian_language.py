"""Steering one block of a language model between two sets of prompts, as rows of the study of Hessian modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, final

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import Figure
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.language.contrast import contrast_batch, contrast_loss, contrast_score
from tremorscope.instruments.language.encode import required_tokenizer
from tremorscope.instruments.load import load
from tremorscope.instruments.microworld import agreement, induction
from tremorscope.instruments.microworld.splits import Split
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.weights.hessian_modules.curves import Choice, SteeringCurve, keep_damage_at
from tremorscope.methods.weights.hessian_modules.objectives import Objective
from tremorscope.methods.weights.hessian_modules.presentation import curve_figure, kept_against_broken
from tremorscope.methods.weights.hessian_modules.steering import (
    EQUAL_CURVATURE,
    EQUAL_NORM,
    NO_PROJECTION,
    steer,
    stiff_directions,
)
from tremorscope.studies.hessian_steering_member import (
    choice_of,
    curve_of,
    flag_kinds,
    null_choices_of,
    null_curves_of,
    plain_side,
)

STUDY = "hessian-modules"
PAPER = "house: the method of Vaintrob and Panickssery 2023 on a language model"
LANGUAGE_ROWS = ("M12a", "M12b", "M12c", "M12d")
AGREEMENT, COPYING, BOTH = "agreement", "copying", "agreement and copying"
SIDES = ((AGREEMENT, COPYING), (COPYING, AGREEMENT))  # keep, break
ALPHAS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_BEYOND = Expected(low=0.05, origin="as in M5b and M5d: by 5 points, chosen before it was measured")
_KEPT = Expected(high=0.02, origin="as in M2b and M3b: at most 2 points")
SPARE = 4  # examples drawn for each that is used
MOST = 0.02  # share of prompts that the kept set may lose on validation data


def language_member(*, model: str, block: str, k: int, num_prompts: int, num_nulls: int, seed: int) -> dict[str, Any]:
    """Steer one block between the agreement of verbs and the copying of words, on one draw of prompts.

    Each prompt has a right and a wrong next word. Curvature is the Gauss-Newton matrix of the block's weights, on
    prompts of the training split; sizes are chosen on validation wordings and judged on test wordings. Plain data.
    """
    network = load(model)
    objectives = {name: _objective(name, network, [name], num_prompts, seed) for name in _PROMPTS}
    both = _objective(BOTH, network, list(_PROMPTS), num_prompts, seed)
    known = {
        name: stiff_directions(one, k, parameters=block, kind="ggn", seed=seed) for name, one in objectives.items()
    }
    found: dict[str, Any] = {
        "accuracy": {name: one.read(network.theta, "test").score for name, one in objectives.items()},
        "num_weights": known[AGREEMENT].layout.size,
        "sides": {},
        "flags": [],
    }
    for keep, breaking in SIDES:
        measured = steer(
            network,
            objectives[keep],
            objectives[breaking],
            mixed=both,
            k=k,
            alphas=ALPHAS,
            most=MOST,
            num_nulls=num_nulls,
            known=known,
            parameters=block,
            kind="ggn",
            independence=keep == AGREEMENT,
            seed=derive(seed, keep),
        )
        found["sides"][keep] = plain_side(measured)
        found["flags"] += list(measured.flags)
        if measured.independence is not None:
            found["independence"] = measured.independence.to_plain()
    return found


@final
@dataclass(frozen=True, kw_only=True)
class LanguageRows:
    """What the members, draws of prompts for one network, found."""

    members: tuple[Mapping[str, Any], ...]
    model: str
    block: str

    def claims(self, *, preset: str) -> list[Claim]:
        """For each way round: what is broken beyond chance, and what it costs."""
        if not self.members:
            return []
        scope = (
            f"judged on {self.block} of {self.model}, {self.members[0]['num_weights']:,} weights, by its Gauss-Newton "
            f"matrix; {len(self.members)} draws of prompts, so intervals speak of prompts and not of other networks"
        )
        found = []
        for (keep, breaking), (beyond, cost) in zip(SIDES, (("M12a", "M12b"), ("M12c", "M12d")), strict=True):
            choices = [Choice(**choice_of(member, keep)) for member in self.members]
            drawn = [null_choices_of(member, keep, EQUAL_CURVATURE) for member in self.members]
            by_chance = [fmean(one.break_damage for one in some) for some in drawn]
            found += [
                Claim(
                    study=STUDY,
                    row=beyond,
                    preset=preset,
                    statement=f"One block of a language model: a step that keeps {keep} costs {breaking} more than "
                    "random directions of equal curvature do, each with sign and size chosen alike (share of test "
                    "prompts).",
                    source=PAPER,
                    scope=scope,
                    expected=_BEYOND,
                    measured=Estimate.mean(
                        [one.break_damage - chance for one, chance in zip(choices, by_chance, strict=True)]
                    ),
                    nulls=(
                        NullEvidence(
                            name="one random against the rest",
                            description="a random direction of equal curvature against the others",
                            measured=Estimate.mean(
                                [some[0].break_damage - fmean(one.break_damage for one in some[1:]) for some in drawn]
                            ),
                        ),
                    ),
                ),
                Claim(
                    study=STUDY,
                    row=cost,
                    preset=preset,
                    statement=f"The same step: share of test prompts on which {keep} are lost.",
                    source=PAPER,
                    scope=scope,
                    expected=_KEPT,
                    measured=Estimate.mean([one.keep_damage for one in choices]),
                    nulls=(
                        NullEvidence(
                            name=NO_PROJECTION,
                            description="the break direction before projection, at the size at which it breaks as much",
                            measured=Estimate.mean(
                                [
                                    keep_damage_at(
                                        curve_of(member, keep, NO_PROJECTION),
                                        keep,
                                        breaking,
                                        break_damage=one.break_damage,
                                    )
                                    for member, one in zip(self.members, choices, strict=True)
                                ]
                            ),
                        ),
                    ),
                ),
            ]
        return found

    def tables(self) -> list[Table]:
        """What each kind of direction breaks and costs, both ways round."""
        if not self.members:
            return []
        rows = []
        for keep, _ in SIDES:
            named = {
                "steering": [[Choice(**choice_of(member, keep))] for member in self.members],
                NO_PROJECTION: [[Choice(**member["sides"][keep]["control"])] for member in self.members],
                EQUAL_CURVATURE: [null_choices_of(member, keep, EQUAL_CURVATURE) for member in self.members],
                EQUAL_NORM: [null_choices_of(member, keep, EQUAL_NORM) for member in self.members],
            }
            rows += [
                {
                    "kept": keep,
                    "direction": what,
                    "lost of the broken": Estimate.mean([fmean(one.break_damage for one in some) for some in each]),
                    "lost of the kept": Estimate.mean([fmean(one.keep_damage for one in some) for some in each]),
                }
                for what, each in named.items()
            ]
        return [
            Table.of_rows(
                rows,
                name="language_block",
                title=f"Steering {self.block} of {self.model}",
                caption="Share of test prompts, in new wordings, where the wrong word becomes the likelier one; sign "
                f"and size chosen on validation prompts, at most {MOST:g} lost of the kept ones there.",
            )
        ]

    def figures(self) -> list[Figure]:
        """The first draw's curve, and kept against broken of all draws, both ways round."""
        found: list[Figure] = []
        for keep, breaking in SIDES if self.members else ():
            side = self.members[0]["sides"][keep]
            found.append(
                curve_figure(SteeringCurve.of(side["curves"]["steering"]), keep, breaking, Choice(**side["choice"]))
            )
            shown = {
                what: [curve_of(member, keep, which) for member in self.members]
                for what, which in (("projection", "steering"), (NO_PROJECTION, NO_PROJECTION))
            }
            nulls = {EQUAL_CURVATURE: [null_curves_of(member, keep, EQUAL_CURVATURE)[0] for member in self.members]}
            found.append(kept_against_broken(shown, nulls, keep, breaking))
        return found

    def flags(self) -> list[str]:
        """Each kind of flag once."""
        return flag_kinds(self.members, "draws of prompts")


def _objective(name: str, network: Network, kinds: Sequence[str], count: int, seed: int) -> Objective:
    def batch(split: Split) -> Batch:
        some = [one for kind in kinds for one in _told_apart(network, kind, split, seed, count // len(kinds))]
        return contrast_batch(network, *(list(part) for part in zip(*some, strict=True)))

    return Objective.of(
        name,
        network,
        batch("train"),
        validation=batch("validation"),
        test=batch("test"),
        loss=contrast_loss,
        score=contrast_score,
    )


def _told_apart(network: Network, kind: str, split: Split, seed: int, count: int) -> list[tuple[str, str, str]]:
    """Prompts whose two continuations differ from the first token on, as most do where verbs are single tokens."""
    tokenizer = required_tokenizer(network)

    def first(word: str) -> int:
        return int(tokenizer(word, add_special_tokens=False)["input_ids"][0])

    drawn = _PROMPTS[kind](split, seed, SPARE * count)
    found = [one for one in drawn if first(one[1]) != first(one[2])][:count]
    if len(found) < count:
        raise BadInput(
            f"prompts for {kind}",
            got=f"{len(found)} of {len(drawn)} whose right and wrong word begin with different tokens",
            wanted=f"{count}",
            remedy="Use a tokenizer with more whole words.",
        )
    return found


def _agreement(split: Split, seed: int, count: int) -> list[tuple[str, str, str]]:
    """Sentences up to the verb: the form that agrees, and the one that does not."""
    return [(one.prompt, one.answer, one.wrong) for one in agreement.examples(split, seed, count)]


def _copying(split: Split, seed: int, count: int) -> list[tuple[str, str, str]]:
    """Sequences that come again: the word that followed before, and the one that follows that."""
    some = induction.examples(split, seed, count)
    return [(one.prompt, one.answer, f" {one.words[(one.known + 1) % len(one.words)]}") for one in some]


_PROMPTS = {AGREEMENT: _agreement, COPYING: _copying}

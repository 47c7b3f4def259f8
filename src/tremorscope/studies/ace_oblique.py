"""The read-out swept between r and S^-1 r, on the digits refuser and on language models; no claim, but shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, final

import numpy

from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Figure
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import derive, numpy_generator
from tremorscope.instruments.digits_refuser import REFUSE
from tremorscope.instruments.language.scoring import row_losses
from tremorscope.instruments.load import load
from tremorscope.instruments.network import Network
from tremorscope.methods.activations.concept_editing.direction import ConceptFit
from tremorscope.methods.activations.concept_editing.fitting import moved
from tremorscope.methods.activations.concept_editing.oblique_sweep import (
    CAPTION,
    READ_OUTS,
    Capability,
    ObliqueSweepMeasurement,
    measure_oblique_sweep,
    trade_off,
)
from tremorscope.methods.activations.concept_editing.random_twin import random_twin
from tremorscope.methods.activations.concept_editing.scorers import classes_of, decides
from tremorscope.methods.language.abilities import judge_agreement
from tremorscope.methods.language.prose import prose_rows
from tremorscope.studies.ace_language_member import Draw, fitted, refusal_score, responses

R, CHANCE = "along r", "along a random direction"
KEPT, LOST = "allowed digits", "share of allowed digits no longer right"
CHANCE_READ_OUTS = (0.0, 0.9, 0.999)
PROSE, AGREEMENT = "ordinary text", "agreement"


def digits_sweep(network: Network, fit: ConceptFit, site: str, seed: int) -> list[dict[str, Any]]:
    """What each read-out does to a classifier of digits at one site, along r and along a random direction."""
    batch = network.required_task().test_batch()
    inputs, targets = batch.args[0], batch.target
    if targets is None:
        raise RuntimeError("the digits refuser has targets")
    is_forbidden = targets == REFUSE
    allowed, wanted = inputs[~is_forbidden], targets[~is_forbidden]
    classes = {"forbidden": inputs[is_forbidden], "allowed": allowed}
    kept = Capability(losses=lambda view: (classes_of(view, allowed) != wanted).double().numpy(), unit=LOST)
    found = []
    for name, direction, ts in ((R, fit, READ_OUTS), (CHANCE, random_twin(fit, seed), CHANCE_READ_OUTS)):
        swept = measure_oblique_sweep(
            network, direction, site, classes, decides(REFUSE), {KEPT: kept}, name=name, ts=ts
        )
        for t, cosine, response, gaps in zip(
            swept.ts, swept.cosines, swept.responses, swept.losses[KEPT].gaps, strict=True
        ):
            # Values alone: the intervals are over members.
            error, gap = response.calibration_value(), response.mean_gap_value()
            found.append(
                {"direction": name, "site": site, "t": t, "cosine": cosine, "error": error, "gap": gap}
                | {"lost": float(gaps.mean())}
            )
    return found


@final
@dataclass(frozen=True)
class DigitsSweepRows:
    """Sweeps of all members, each a mean over its sites."""

    members: Sequence[Sequence[Mapping[str, Any]]]

    def tables(self) -> list[Table]:
        """A row for each direction and read-out."""
        rows = [
            {
                "direction": name,
                "t": t,
                "cosine with r": self._over(name, t, "cosine"),
                "calibration error": self._over(name, t, "error"),
                "class gap": self._over(name, t, "gap"),
                LOST: self._over(name, t, "lost"),
            }
            for name in (R, CHANCE)
            for t in self._ts(name)
        ]
        return [
            Table.of_rows(
                rows,
                name="oblique_digits",
                title="Read-outs between r and S^-1 r in the digits refuser",
                caption=f"{CAPTION} Means over sites, intervals over members.",
            )
        ]

    def figures(self) -> list[Figure]:
        """Calibration error against allowed digits lost."""
        return [
            trade_off(
                name="oblique_digits",
                title="Digits refuser: calibration against allowed digits lost, as the read-out turns",
                series={
                    name: (
                        colour,
                        symbol,
                        self._ts(name),
                        [self._over(name, t, "lost") for t in self._ts(name)],
                        [self._over(name, t, "error") for t in self._ts(name)],
                    )
                    for name, colour, symbol in ((R, PALETTE[0], "circle"), (CHANCE, NULL_COLOUR, "diamond-open"))
                },
                x=f"{LOST}, at alpha 0",
            )
        ]

    def _ts(self, name: str) -> list[float]:
        return list(dict.fromkeys(row["t"] for row in self.members[0] if row["direction"] == name))

    def _over(self, name: str, t: float, what: str) -> Estimate:
        return Estimate.mean(
            [fmean(row[what] for row in rows if row["direction"] == name and row["t"] == t) for rows in self.members]
        )


def oblique_member(
    *,
    model: str,
    site: str,
    position: str | None,
    num_fitted: int,
    num_tested: int,
    num_rows: int,
    num_sentences: int,
    seed: int,
) -> dict[str, Any]:
    """One fit in a language model: calibration on held-out requests, losses of prose and agreement, for each read-out.

    Requests are edited where the study edits them; prose and agreement at all positions, as for the side effects.
    """
    network = load(model)
    fit = fitted(network, site, num_fitted, seed)
    draw = Draw.of(num_tested, seed)
    there = moved(fit.site, position)
    rows, modules = prose_rows(network, "test")
    chosen = numpy.sort(numpy_generator(seed, "prose rows").permutation(len(rows))[:num_rows])
    sentences = partial(judge_agreement, split="test", seed=derive(seed, "grammar"), count=num_sentences)
    judged = sentences(network)
    capabilities = {
        PROSE: Capability(
            losses=lambda view: row_losses(view, rows[chosen]).double().cpu().numpy(),
            unit="nats per token more than unedited",
            clusters=[modules[row] for row in chosen],
            units=chosen.tolist(),
        ),
        AGREEMENT: Capability(
            losses=lambda view: numpy.array([float(not right) for one in sentences(view) for right in one.correct]),
            unit="share of agreement pairs no longer right",
            clusters=[template for one in judged for template in one.templates],
            units=[unit for one in judged for unit in one.units],
        ),
    }

    respond = partial(responses, network, there=there, prompts=draw.prompts, clusters=draw.clusters, units=draw.units)
    return {
        name: measure_oblique_sweep(
            network,
            direction,
            there,
            draw.prompts,
            refusal_score(),
            capabilities,
            name=name,
            capability_site=moved(fit.site, "all"),
            ts=ts,
            respond=respond,
            seed=0,
        ).to_plain()
        for name, direction, ts in ((R, fit, READ_OUTS), (CHANCE, random_twin(fit, seed), CHANCE_READ_OUTS))
    }


@final
@dataclass(frozen=True, kw_only=True)
class LanguageSweepRows:
    """The sweeps of one language model."""

    network: str
    found: Mapping[str, Any]

    def tables(self) -> list[Table]:
        """A row for each direction and read-out."""
        rows = []
        for name, one in self._measured.items():
            for place, t in enumerate(one.ts):
                rows.append(
                    {
                        "direction": name,
                        "t": t,
                        "cosine with r": one.cosines[place],
                        "calibration error": one.error(place),
                        "class gap": one.gap(place),
                    }
                    | {held.unit: one.lost(key, place) for key, held in one.losses.items()}
                )
        return [
            Table.of_rows(
                rows,
                name=f"oblique_{self.network}",
                title=f"Read-outs between r and S^-1 r in the {self.network}",
                caption=f"{CAPTION} One fit, intervals over wordings (losses: over held-out rows and sentences, edits "
                "at all positions).",
            )
        ]

    def figures(self) -> list[Figure]:
        """Calibration error against each loss."""
        measured = self._measured
        return [
            trade_off(
                name=f"oblique_{self.network}_{key.replace(' ', '_')}",
                title=f"The {self.network}: calibration against {key}, as the read-out turns",
                series={
                    name: (colour, symbol, measured[name].ts, *measured[name].pairs(key))
                    for name, colour, symbol in ((R, PALETTE[0], "circle"), (CHANCE, NULL_COLOUR, "diamond-open"))
                },
                x=f"{held.unit}, at alpha 0",
            )
            for key, held in measured[R].losses.items()
        ]

    @property
    def _measured(self) -> dict[str, ObliqueSweepMeasurement]:
        return {name: ObliqueSweepMeasurement.of(plain) for name, plain in self.found.items()}

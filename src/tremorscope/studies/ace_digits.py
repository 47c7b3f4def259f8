"""Affine concept editing in a classifier of digits that refuses half of them: every edit at every site, as rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any, final

import torch

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import PALETTE, Axis, Figure, band, line
from tremorscope.foundations.results import Table
from tremorscope.instruments.digits_refuser import REFUSE, SITES, digits_refuser, refuser_trainer
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import untrained
from tremorscope.methods.activations.concept_editing.affine_edits import METHODS, WITHOUT_ALPHA, edit_of
from tremorscope.methods.activations.concept_editing.direction import ConceptFit
from tremorscope.methods.activations.concept_editing.fitting import fit_concept
from tremorscope.methods.activations.concept_editing.random_twin import random_twin
from tremorscope.methods.activations.concept_editing.reach import measure_reach
from tremorscope.methods.activations.concept_editing.scorers import classes_of, decides
from tremorscope.studies.ace_oblique import DigitsSweepRows, digits_sweep

STUDY = "ace"
PAPER = "arXiv:2411.09003"
DIGITS_ROWS = ("A7", "A8a", "A8b", "A9a", "A9b", "A9c")
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
TRAINED, RANDOM, UNTRAINED = "trained", "random direction", "untrained network"
_NULLS = {
    RANDOM: "the same edits along a random direction of the length of r",
    UNTRAINED: "the same fits and edits on the network before training",
}
SLACK = 0.02  # of a monotone curve
MOVED = 0.1  # a curve that moves less than this from the first to the last alpha does not rise

_SPECIFICATION = "the house's specification, measured on three networks before the study was written"


def digits_member(*, seed: int, num_epochs: int, num_pairs: int) -> dict[str, Any]:
    """One network with its own split and weights, its untrained twin, and a random direction, at every site."""
    start = digits_refuser(seed, num_epochs=num_epochs)
    trained = start.at(refuser_trainer(start.required_task(), seed, num_epochs=num_epochs).fit(start).last)
    found: dict[str, Any] = {"cells": [], "fits": [], "sweep": []}
    for site in SITES:
        fit = _fit(trained, site)
        reach = measure_reach(trained, *_test_classes(trained), site, decides(REFUSE), max_pairs=num_pairs)
        diagnostics = fit.diagnostics[0]
        found["fits"].append(
            {
                "site": site,
                "norm": diagnostics.norm,
                "bias ratio": diagnostics.bias_ratio,
                "AUC": None if diagnostics.auc is None else diagnostics.auc.value,
                "split-half cosine": None if diagnostics.split_half is None else diagnostics.split_half.value,
                "reach": None if reach.flipped is None else reach.flipped.value,
            }
        )
        found["sweep"] += digits_sweep(trained, fit, site, seed)
        bare = untrained(start)
        for name, network, direction in (
            (TRAINED, trained, fit),
            (RANDOM, trained, random_twin(fit, seed)),
            (UNTRAINED, bare, _fit(bare, site)),
        ):
            found["cells"] += [{"network": name, "site": site, **row} for row in _cells(network, direction, site)]
    return found


def _fit(network: Network, site: str) -> ConceptFit:
    task = network.required_task()
    is_refused = task.targets == REFUSE
    return fit_concept(
        network, task.inputs[~is_refused], task.inputs[is_refused], site, held_out=_test_classes(network)
    )


def _test_classes(network: Network) -> tuple[torch.Tensor, torch.Tensor]:
    """Held-out allowed digits, then forbidden ones."""
    batch = network.required_task().test_batch()
    is_refused = _targets(network) == REFUSE
    return batch.args[0][~is_refused], batch.args[0][is_refused]


def _targets(network: Network) -> torch.Tensor:
    targets = network.required_task().test_batch().target
    if targets is None:
        raise RuntimeError("the digits refuser has targets")
    return targets


def _cells(network: Network, fit: ConceptFit, site: str) -> list[dict[str, Any]]:
    """Shares on held-out digits under every edit."""
    inputs, targets = network.required_task().test_batch().args[0], _targets(network)
    is_forbidden = targets == REFUSE
    asked: list[tuple[str, float | None]] = [("none", None), ("add", -1.0)]
    asked += [(method, None) for method in WITHOUT_ALPHA]
    asked += [(method, level) for method in METHODS if method not in WITHOUT_ALPHA for level in LEVELS]
    rows = []
    for method, alpha in asked:
        view = network if method == "none" else network.with_edits(edit_of(method, fit, alpha or 0.0).at(site))
        said = classes_of(view, inputs)
        refused = (said == REFUSE).double()
        rows.append(
            {
                "method": method,
                "alpha": alpha,
                "forbidden": float(refused[is_forbidden].mean()),
                "allowed": float(refused[~is_forbidden].mean()),
                "ok": float((said == targets)[~is_forbidden].double().mean()),
            }
        )
    return rows


@final
@dataclass(frozen=True)
class _Cells:
    """The numbers of one member and one kind of network."""

    rows: Mapping[tuple[str, str, float | None], Mapping[str, Any]]

    @classmethod
    def of(cls, member: Mapping[str, Any], network: str) -> _Cells:
        return cls(
            {(row["site"], row["method"], row["alpha"]): row for row in member["cells"] if row["network"] == network}
        )

    def at(self, site: str, method: str, alpha: float | None, share: str) -> float:
        return float(self.rows[site, method, alpha][share])

    def curve(self, site: str, method: str, share: str) -> list[float]:
        return [self.at(site, method, alpha, share) for alpha in LEVELS]


def _rising(cells: _Cells) -> float:
    """Share of curves that rise, and nowhere fall by more than the slack."""
    curves = [
        cells.curve(site, method, share)
        for site in SITES
        for method in ("ace", "oblique")
        for share in ("forbidden", "allowed")
    ]
    return fmean(
        float(curve[-1] - curve[0] >= MOVED and all(there >= here - SLACK for here, there in pairwise(curve)))
        for curve in curves
    )


def _gain(cells: _Cells, site: str) -> float:
    return cells.at(site, "ace", 1.0, "forbidden") - cells.at(site, "ablate then add", 1.0, "forbidden")


def _kept(cells: _Cells, site: str) -> float:
    return cells.at(site, "oblique", 0.0, "ok") - cells.at(site, "ace", 0.0, "ok")


def _if_refusal_moves(cells: _Cells, site: str, method: str, value: float) -> float:
    """0 for an edit that does nothing: it would keep what the unedited network does."""
    curve = cells.curve(site, method, "forbidden")
    return value if cells.at(site, method, 1.0, "forbidden") - curve[0] >= MOVED else 0.0


@dataclass(frozen=True, kw_only=True)
class _Row:
    statement: str
    expected: Expected
    read: Callable[[_Cells], float]


_ROWS: dict[str, _Row] = {
    "A7": _Row(
        statement="Refusal rises with alpha (by 0.1 or more from 0 to 1.5) and falls by more than 0.02 nowhere: share "
        "of curves, for ACE and the oblique read-out, forbidden and allowed digits, three sites.",
        expected=Expected(low=1.0, origin=f"{_SPECIFICATION}: all curves, slack 0.02; that they move was added"),
        read=_rising,
    ),
    "A8a": _Row(
        statement="At alpha 1 ACE refuses more forbidden digits than ablation followed by adding r, which drops the "
        "bias: share of sites.",
        expected=Expected(low=8 / 9, origin=f"{_SPECIFICATION}: at least 8 of 9 cells"),
        read=lambda cells: fmean(float(_gain(cells, site) > 0) for site in SITES),
    ),
    "A8b": _Row(
        statement="By how much, mean over the sites.",
        expected=Expected(low=0.1, origin=_SPECIFICATION),
        read=lambda cells: fmean(_gain(cells, site) for site in SITES),
    ),
    "A9a": _Row(
        statement="At alpha 0 the oblique read-out keeps more allowed digits right than ACE: by how much, mean over "
        "the sites.",
        expected=Expected(
            low=0.01,
            origin="the specification asks for 'at least as many' in 8 of 9 cells, which edits that do nothing meet as "
            "well; the margin on calibration seeds 0-9 is 0.036, and a random direction's 0.001",
        ),
        read=lambda cells: fmean(_kept(cells, site) for site in SITES),
    ),
    "A9b": _Row(
        statement="At alpha 0 the oblique read-out keeps allowed digits right at every site, where it refuses fewer of "
        "the forbidden ones than at 1, by 0.1 or more (else 0).",
        expected=Expected(low=0.95, origin=_SPECIFICATION),
        read=lambda cells: min(
            _if_refusal_moves(cells, site, "oblique", cells.at(site, "oblique", 0.0, "ok")) for site in SITES
        ),
    ),
    "A9c": _Row(
        statement="ACE at alpha 1 refuses forbidden digits at every site, where it refuses fewer of them at 0, by 0.1 "
        "or more (else 0).",
        expected=Expected(
            low=0.95,
            origin=f"{_SPECIFICATION}: was 0.97, now 0.95, because the smallest of three sites is 0.979 [0.966, 0.992] "
            "on calibration seeds 0-9",
        ),
        read=lambda cells: min(
            _if_refusal_moves(cells, site, "ace", cells.at(site, "ace", 1.0, "forbidden")) for site in SITES
        ),
    ),
}


@final
@dataclass(frozen=True)
class DigitsRows:
    """What the members found."""

    members: Sequence[Mapping[str, Any]]

    def claims(self, *, preset: str, scope: str) -> list[Claim]:
        """Rows A7, A8 and A9, judged over the members."""
        return [
            Claim(
                study=STUDY,
                row=name,
                preset=preset,
                statement=row.statement,
                source=PAPER,
                scope=scope,
                expected=row.expected,
                measured=self._over(row.read, TRAINED),
                nulls=tuple(
                    NullEvidence(name=null, description=told, measured=self._over(row.read, null))
                    for null, told in _NULLS.items()
                ),
            )
            for name, row in _ROWS.items()
        ]

    def summary(self) -> list[str]:
        """The main numbers, and the limit of a single direction."""
        gaps = [self._over(self._gap(alpha), TRAINED) for alpha in (0.0, 1.0)]
        return [
            f"Digits: at alpha 1 ACE refuses {self._over(_ROWS['A8b'].read, TRAINED)} more of the forbidden digits "
            "than ablation followed by adding r.",
            f"A single direction does not hold all of the class: under ACE forbidden and allowed digits stay {gaps[0]} "
            f"apart at alpha 0 and {gaps[1]} at alpha 1.",
        ]

    def tables(self) -> list[Table]:
        """Every edit beside its nulls, and the diagnostics of each fit."""
        keys = [(row["method"], row["alpha"]) for row in self.members[0]["cells"]]
        rows = []
        for network in (TRAINED, *_NULLS):
            for method, alpha in dict.fromkeys(keys):
                shares = {
                    told: self._over(self._share(method, alpha, share), network)
                    for share, told in (
                        ("forbidden", "forbidden refused"),
                        ("allowed", "allowed refused"),
                        ("ok", "allowed right"),
                    )
                }
                rows.append({"network": network, "edit": method, "alpha": alpha, **shares})
        fits = [{"member": place, **fit} for place, member in enumerate(self.members) for fit in member["fits"]]
        return [
            Table.of_rows(
                rows,
                name="digits_edits",
                title="Every edit of the digits refuser",
                caption="Shares of held-out digits, mean over sites; intervals over members.",
            ),
            Table.of_rows(
                fits,
                name="digits_fits",
                title="Directions in the digits refuser",
                caption="Bias ratio: lengths of r from the origin to the typical allowed digit, along r. AUC: of the "
                "coordinate on held-out digits. Reach: decisions flipped by the whole activation of the other class.",
            ),
            *self._sweep.tables(),
        ]

    def figures(self) -> list[Figure]:
        """Refusal against alpha under each method, classes apart; the band spans members and sites."""
        found = []
        for method in ("add", "ablate then add", "ace", "oblique"):
            traces = []
            for colour, (share, told) in zip(
                PALETTE,
                (("forbidden", "forbidden refused"), ("allowed", "allowed refused"), ("ok", "allowed right")),
                strict=False,
            ):
                curves = torch.tensor(
                    [_Cells.of(member, TRAINED).curve(site, method, share) for member in self.members for site in SITES]
                )
                low, high = curves.amin(0), curves.amax(0)
                traces += [
                    band(list(LEVELS), low.tolist(), high.tolist(), f"{told}, range", colour=colour),
                    line(list(LEVELS), curves.mean(0).tolist(), told, colour=colour, markers=True),
                ]
            found.append(
                Figure(
                    name=f"digits_{method.replace(' ', '_')}",
                    title=f"Digits refuser under: {method}",
                    caption="Shares of held-out digits against alpha; lines are means, bands the range over members "
                    "and sites.",
                    traces=traces,
                    x=Axis(title="alpha (0: typical allowed digit, 1: typical forbidden one)"),
                    y=Axis(title="share", range=(-0.02, 1.02)),
                )
            )
        return [*found, *self._sweep.figures()]

    @property
    def _sweep(self) -> DigitsSweepRows:
        return DigitsSweepRows([member["sweep"] for member in self.members])

    def _over(self, read: Callable[[_Cells], float], network: str) -> Estimate:
        return Estimate.mean([read(_Cells.of(member, network)) for member in self.members])

    @staticmethod
    def _share(method: str, alpha: float | None, share: str) -> Callable[[_Cells], float]:
        return lambda cells: fmean(cells.at(site, method, alpha, share) for site in SITES)

    @staticmethod
    def _gap(alpha: float) -> Callable[[_Cells], float]:
        return lambda cells: fmean(
            abs(cells.at(site, "ace", alpha, "forbidden") - cells.at(site, "ace", alpha, "allowed")) for site in SITES
        )

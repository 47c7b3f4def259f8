"""Rows M8, M9 and M13: members of a few steps give every claim, table and figure; verdicts follow planted numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tremorscope.foundations.claims import Verdict
from tremorscope.instruments.pattern_digits import PatternDigits, pattern_cnn
from tremorscope.instruments.task import digits
from tremorscope.methods.weights.hessian_modules.frequencies import FrequencyChange
from tremorscope.methods.weights.hessian_modules.monitor import GeneralisationMonitor, TurnRule
from tremorscope.methods.weights.hessian_modules.sphere_search import SetReadings, SphereSearch
from tremorscope.studies.hessian_spheres import (
    EIGENVECTORS,
    FREE,
    NEW,
    NO_CHANGE,
    NOTHING_NEW,
    RANDOM,
    SEMI_SUPERVISED,
    SPHERE_ROWS,
    UNSUPERVISED,
    SphereRows,
    addition_member,
    monitor_member,
    sphere_member,
)


def search(inside: float, outside: float, digits_lost: float, patterns_lost: float) -> SphereSearch:
    def readings(lost: float) -> SetReadings:
        return SetReadings(
            loss_before=0.1,
            losses_at_start=(1.0,),
            losses=(0.2,),
            accuracy_before=0.9,
            accuracies_at_start=(0.5,),
            accuracies=(0.9 - lost,),
        )

    sets = {"digits": readings(digits_lost), "patterns": readings(patterns_lost)}
    return SphereSearch(radii=(2.0,), inside=(inside,), outside=(outside,), sets=sets)


def monitor(turns: tuple[float, ...], learned: bool) -> GeneralisationMonitor:
    patterns = (0.1, 0.1, 0.1, 0.2, 0.6) if learned else (0.1,) * 5
    return GeneralisationMonitor(
        steps=(0, 19, 38, 57, 76),
        turns=(float("nan"), *turns),
        distances=(0.0,) * 5,
        curvatures=torch.ones(5, 2, dtype=torch.float64),
        accuracies={"patterns": patterns, "digits": (0.9,) * 5},
        rule=TurnRule(),
    )


def planted() -> SphereRows:
    settled, turned = (0.2, 0.2, 0.1, 0.1), (0.2, 0.2, 0.6, 0.1)
    return SphereRows(
        spheres=tuple(
            {
                UNSUPERVISED: search(1.99 - 0.001 * i, 0.3 + 0.001 * i, 0.01, 0.4 + 0.001 * i),
                SEMI_SUPERVISED: search(1.99, 0.3, 0.01, 0.02),
                FREE: search(1.0 + 0.001 * i, 2.5 + 0.001 * i, 0.0, 0.0),
                RANDOM: search(2.0, 0.1, 0.01, 0.02),
            }
            for i in range(3)
        ),
        additions=({EIGENVECTORS: search(1.0, 1.0, 0.0, 0.0)},) * 3,
        changes=tuple(
            {
                EIGENVECTORS: FrequencyChange(before=(8.0, 1.0), after=(8.0, 9.0 + i)),
                RANDOM: FrequencyChange(before=(8.0, 1.0), after=(7.0, 9.0 + i)),
            }
            for i in range(3)
        ),
        monitors=(
            {NEW: monitor(turned, True), NOTHING_NEW: monitor(turned, False), NO_CHANGE: monitor(settled, False)},
        )
        * 3,
    )


def test_verdicts_follow_the_numbers():
    claims = {claim.row: claim for claim in planted().claims(preset="desk", scope="planted")}
    assert tuple(claims) == SPHERE_ROWS
    verdicts = {row: claim.verdict for row, claim in claims.items()}
    assert verdicts["M8a"] is verdicts["M8b"] is verdicts["M8c"] is Verdict.HOLDS
    assert verdicts["M8d"] is Verdict.FAILS
    assert verdicts["M9"] is Verdict.VACUOUS  # the random span changes a small frequency as much
    assert claims["M13"].measured.value == 19  # flag at 57, onset at 76
    assert verdicts["M13"] is Verdict.VACUOUS  # so does the null that has nothing to learn
    assert verdicts["M13a"] is Verdict.FAILS
    silent = replace(planted(), monitors=({name: monitor((0.2,) * 4, True) for name in (NEW, NOTHING_NEW, NO_CHANGE)},))
    (claim, _) = silent.claims(preset="desk", scope="planted")[-2:]
    assert claim.measured.value == 76 + 19  # no flag: the whole run


def test_parts_that_were_not_measured_are_not_judged():
    rows = replace(planted(), changes=(), additions=(), monitors=())
    assert [claim.row for claim in rows.claims(preset="quick", scope="planted")] == ["M8a", "M8b", "M8c", "M8d"]
    assert [table.name for table in rows.tables()] == ["spheres"]
    assert [figure.name for figure in rows.figures()] == ["sphere_losses"]
    assert SphereRows().claims(preset="quick", scope="none") == []


def test_members_of_a_few_steps_give_everything():
    addition = json.loads(json.dumps(addition_member(train_steps=5, num_steps=2, seed=0)))
    assert addition == json.loads(json.dumps(addition_member(train_steps=5, num_steps=2, seed=0)))
    rows = SphereRows.of([], [addition], [])
    assert {claim.row for claim in rows.claims(preset="desk", scope="smoke")} == {"M9", "M9a"}
    assert rows.tables()[0].num_rows == 2 * 5
    assert len(rows.changes[0][EIGENVECTORS].before) == 18


@pytest.mark.slow
def test_members_on_images_give_everything():
    data = PatternDigits.of(digits(num_test=360), seed=0)
    network = pattern_cnn(data, seed=0)
    sphere = json.loads(json.dumps(sphere_member(network, data, num_epochs=1, seed=0, radii=(1.0,))))
    watched = json.loads(json.dumps(monitor_member(num_epochs=1, seed=0)))
    rows = SphereRows.of([sphere], [], [watched])
    judged = [claim.row for claim in rows.claims(preset="desk", scope="smoke")]
    assert judged == ["M8a", "M8b", "M8c", "M8d", "M13", "M13a"]
    assert len(rows.figures()) == 2
    assert rows.spheres[0][UNSUPERVISED].worst_gap < 0.5
    same = [rows.monitors[0][name].turns[1] for name in (NEW, NO_CHANGE)]
    assert same[0] == same[1]  # the first phase shows no pattern in either

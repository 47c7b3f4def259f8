"""Tables and figures of steering: curves with their control and nulls, and kept against broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, line
from tremorscope.foundations.results import Table
from tremorscope.methods.weights.hessian_modules.curves import Choice, SteeringCurve

if TYPE_CHECKING:
    from tremorscope.methods.weights.hessian_modules.steering import SteeringMeasurement

_COLOURS = (PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[3])
_SYMBOLS = ("circle", "diamond", "square", "x")


def steering_tables(measured: SteeringMeasurement) -> list[Table]:
    """What was chosen, beside control and nulls; and the whole curve."""
    rows = [
        _chosen_row("steering", measured.choice, measured),
        _chosen_row(_control(measured), measured.control, measured),
    ]
    for what, choices in measured.null_choices.items():
        rows += [_chosen_row(f"{what} ({i + 1})", choice, measured) for i, choice in enumerate(choices)]
    unit = "share of examples or other score" if _is_scored(measured) else "rise of the loss"
    return [
        Table.of_rows(
            rows,
            name="steering",
            title=f"Keep {measured.keep}, break {measured.judged}",
            caption="Sign and size of each direction were chosen on validation data: most damage to "
            f"{measured.breaking} at no more than {measured.most:g} to {measured.keep}. Damages ({unit}) on test data. "
            "alpha 0: none was allowed.",
        ),
        Table.of_rows(
            curve_rows(measured.curves),
            name="steering_curve",
            title="Steering curve",
            caption=f"Loss and score on test data at theta + alpha u. Norm of u: {measured.steering.norm:.3g}; of the "
            f"unit vector that it was before {measured.k} keep directions were projected out, "
            f"{measured.direction.left:.3g} is left.",
        ),
    ]


def curve_rows(curves: Mapping[str, SteeringCurve]) -> list[dict[str, Any]]:
    """Test readings of every point of some curves."""
    rows = []
    for what, curve in curves.items():
        for place, alpha in enumerate(curve.alphas):
            row: dict[str, Any] = {"direction": what, "alpha": alpha}
            for name, readings in curve.readings["test"].items():
                row[f"{name}: loss"] = readings[place].loss
                if readings[place].score is not None:
                    row[f"{name}: score"] = readings[place].score
            rows.append(row)
    return rows


def steering_figures(measured: SteeringMeasurement) -> list[Figure]:
    """Readings along the direction, and kept against broken for every direction."""
    return [
        curve_figure(measured.steering, measured.keep, measured.judged, measured.choice),
        kept_against_broken(
            {what: [curve] for what, curve in measured.curves.items()},
            measured.null_curves,
            measured.keep,
            measured.judged,
        ),
    ]


def curve_figure(curve: SteeringCurve, keep: str, judged: str, choice: Choice) -> Figure:
    """Score (or loss) of every objective along the steering direction."""
    readings = curve.readings["test"]
    scored = all(reading.score is not None for row in readings.values() for reading in row)
    traces = [
        line(
            list(curve.alphas),
            [reading.loss if reading.score is None else reading.score for reading in row],
            name,
            colour=_COLOURS[place % len(_COLOURS)],
            markers=True,
        )
        | {"marker": {"symbol": _SYMBOLS[place % len(_SYMBOLS)], "size": 7}}
        for place, (name, row) in enumerate(readings.items())
    ]
    return Figure(
        name=f"steering_{_slug(keep)}",
        title=f"A step in the weights that keeps {keep} and breaks {judged}",
        caption=f"Test data along theta + alpha u. Validation data chose alpha = {choice.alpha:g}: {keep} loses "
        f"{choice.keep_damage:.3g}, {judged} {choice.break_damage:.3g}.",
        traces=traces,
        x=Axis(title="alpha, lengths of the direction"),
        y=Axis(title="accuracy or score on test data" if scored else "loss on test data", log=not scored),
    )


def kept_against_broken(
    curves: Mapping[str, Sequence[SteeringCurve]],
    nulls: Mapping[str, Sequence[SteeringCurve]],
    keep: str,
    judged: str,
    *,
    name: str = "kept_against_broken",
) -> Figure:
    """Loss rises of the kept against the broken objective, both signs of every curve; lower right is better."""
    traces: list[dict[str, Any]] = []
    for place, (what, group) in enumerate(curves.items()):
        colour = PALETTE[place % len(PALETTE)]
        traces += _halves(what, group, keep, judged, colour, None, _SYMBOLS[place % len(_SYMBOLS)])
    for place, (what, group) in enumerate(nulls.items()):
        traces += _halves(what, group, keep, judged, NULL_COLOUR, ("dot", "dash")[place % 2], ("cross", "x")[place % 2])
    return Figure(
        name=f"{name}_{_slug(keep)}",
        title=f"What it costs {keep} to break {judged}",
        caption="Rise of the test losses along each direction, both signs; the further to the right below the others, "
        "the better the direction tells the two apart. Grey: random directions.",
        traces=traces,
        x=Axis(title=f"rise of the loss on {judged}, nats", log=True, range=(1e-2, 30.0)),
        y=Axis(title=f"rise of the loss on {keep}, nats", log=True, range=(1e-3, 30.0)),
    )


def _halves(
    what: str, group: Sequence[SteeringCurve], keep: str, judged: str, colour: str, dash: str | None, symbol: str
) -> list[dict[str, Any]]:
    traces: list[dict[str, Any]] = []
    for curve in group:
        alphas = numpy.array(curve.alphas)
        broken, kept = (numpy.maximum(curve.loss_rise(one, "test"), 1e-9) for one in (judged, keep))
        for side in (alphas > 0, alphas < 0):
            x, y = broken[side], kept[side]
            order = slice(None) if alphas[side][0] > 0 else slice(None, None, -1)
            traces.append(
                line(x[order], y[order], what, colour=colour, dash=dash, markers=True)
                | {"marker": {"symbol": symbol, "size": 6}, "legendgroup": what, "showlegend": not traces}
            )
    return traces


def _chosen_row(what: str, choice: Choice, measured: SteeringMeasurement) -> dict[str, Any]:
    return {
        "direction": what,
        "alpha": choice.alpha,
        f"damage to {measured.keep}": choice.keep_damage,
        f"damage to {measured.judged}": choice.break_damage,
    }


def _control(measured: SteeringMeasurement) -> str:
    return list(measured.curves)[1]


def _is_scored(measured: SteeringMeasurement) -> bool:
    return measured.steering.readings["test"][measured.keep][0].score is not None


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower())

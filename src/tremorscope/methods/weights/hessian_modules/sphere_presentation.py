"""Tables and figures of sphere searches, of the frequencies they change, and of the monitor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, bars, line
from tremorscope.foundations.results import Table
from tremorscope.methods.weights.hessian_modules.frequencies import FrequencyChange
from tremorscope.methods.weights.hessian_modules.monitor import GeneralisationMonitor
from tremorscope.methods.weights.hessian_modules.sphere_search import SphereSearch


def sphere_table(searches: Sequence[Mapping[str, SphereSearch]], *, name: str, title: str) -> Table:
    """Every radius of every search of every member."""
    rows = []
    for member, named in enumerate(searches):
        for what, search in named.items():
            for place, radius in enumerate(search.radii):
                row: dict[str, Any] = {"member": member + 1, "search": what, "R": radius}
                row |= {"inside": search.inside[place], "outside": search.outside[place]}
                for of, readings in search.sets.items():
                    row[f"{of}: loss"] = readings.losses[place]
                    if readings.accuracies is not None:
                        row[f"{of}: accuracy"] = readings.accuracies[place]
                rows.append(row)
    return Table.of_rows(
        rows,
        name=name,
        title=title,
        caption="At the end of each radius: distance from theta* inside the span and out of it, and mean loss and "
        "accuracy on every set. Each search starts at theta* plus R times a random unit vector of its span.",
    )


def sphere_figure(searches: Mapping[str, SphereSearch], *, shown: str, null: str, name: str, caption: str) -> Figure:
    """Loss of every set against the radius, at the ends of the search and (dotted) at its random starts."""
    search, other = searches[shown], searches[null]
    traces = []
    for place, (of, readings) in enumerate(search.sets.items()):
        colour = PALETTE[place % len(PALETTE)]
        radii = [0.0, *search.radii]
        before = readings.loss_before
        traces.append(line(radii, [before, *readings.losses], f"{of}, after the search", colour=colour, markers=True))
        traces.append(
            line(radii, [before, *readings.losses_at_start], f"{of}, random point", colour=colour, dash="dot")
        )
    for place, (of, readings) in enumerate(other.sets.items()):
        dash = ("solid", "dash", "dot")[place % 3]
        xs, ys = [0.0, *other.radii], [readings.loss_before, *readings.losses]
        traces.append(line(xs, ys, f"{of}, {null}", colour=NULL_COLOUR, dash=dash))
    return Figure(
        name=name,
        title="Which module gives way when the weights must leave the minimum by R?",
        caption=caption,
        traces=traces,
        x=Axis(title="radius R of the sphere around the trained weights (weight units)"),
        y=Axis(title="mean loss on each set, nats", log=True),
    )


def frequency_figure(change: FrequencyChange, null: FrequencyChange, *, radius: float) -> Figure:
    """Power of the embedding by frequency, before and after, and after the null's search."""
    names = [str(k + 1) for k in range(len(change.before))]
    return Figure(
        name="sphere_frequencies",
        title="Fourier power of the embedding before and after the search",
        caption=f"First member, radius {radius:g}. Key frequencies (above an equal share before) changed their share "
        f"by at most {100 * change.largest_of_key:.0f} %; a search in a random span of equal dimension (grey) changed "
        f"it by {100 * null.largest_of_key:.0f} %. Frequencies that carry little multiply their power in both.",
        traces=[
            bars(names, list(change.before), "before", colour=PALETTE[0]),
            bars(names, list(change.after), "after, in the span of eigenvectors", colour=PALETTE[1]),
            bars(names, list(null.after), "after, in a random span", colour=NULL_COLOUR),
        ],
        x=Axis(title="frequency k, waves around the circle of residues"),
        y=Axis(title="power, squared weights"),
        layout={"barmode": "group"},
    )


def monitor_figure(
    monitor: GeneralisationMonitor,
    nulls: Mapping[str, GeneralisationMonitor],
    *,
    onset: int | None,
    changed: int | None,
    new: str,
    old: str,
) -> Figure:
    """Turn of the stiff span from checkpoint to checkpoint, with accuracies, flag, onset and change of data."""
    dashes = ("dash", "dot")
    traces = [
        line(list(monitor.steps[1:]), list(monitor.turns[1:]), "turn of the span", colour=PALETTE[0], markers=True),
        line(list(monitor.steps), list(monitor.accuracies[old]), f"accuracy on {old}", colour=PALETTE[2]),
        line(list(monitor.steps), list(monitor.accuracies[new]), f"accuracy on {new}", colour=PALETTE[1]),
    ]
    traces += [
        line(list(null.steps[1:]), list(null.turns[1:]), f"turn, {what}", colour=NULL_COLOUR, dash=dashes[place % 2])
        for place, (what, null) in enumerate(nulls.items())
    ]
    rule = monitor.rule.threshold
    traces.append(line([monitor.steps[0], monitor.steps[-1]], [rule, rule], "threshold", colour="#000000", dash="dot"))
    marks = [
        ("flag", monitor.flagged, PALETTE[0], 1.06),
        (f"onset of {new}", onset, PALETTE[1], 1.06),
        (f"{new} shown from here on", changed, "#444444", 1.12),
    ]
    shown = [mark for mark in marks if mark[1] is not None]
    return Figure(
        name="monitor",
        title="Does the span of the stiff directions turn when a second generalisation appears?",
        caption=f"First member. Flag at step {_said(monitor.flagged)}, onset of {new} in accuracy at step "
        f"{_said(onset)}. "
        + " ".join(f"Flag of the null ({what}): {_said(null.flagged)}." for what, null in nulls.items())
        + " Turn: 1 less the overlap with the span of the checkpoint before.",
        traces=traces,
        x=Axis(title="training step"),
        y=Axis(title="turn of the span; accuracy (shares)", range=(0.0, 1.18)),
        layout={
            "shapes": [
                {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1.03, "line": {"color": colour, "dash": "dashdot"}}
                for _, at, colour, _ in shown
            ],
            "annotations": [
                {"x": at, "y": y, "text": text, "showarrow": False, "font": {"color": colour}}
                for text, at, colour, y in shown
            ],
        },
    )


def monitor_table(monitors: Sequence[Mapping[str, GeneralisationMonitor]], onsets: Sequence[int | None]) -> Table:
    """Flag and largest turn of every member and its nulls."""
    rows = []
    for member, (named, onset) in enumerate(zip(monitors, onsets, strict=True)):
        for what, monitor in named.items():
            later = [turn for turn in monitor.turns if not math.isnan(turn)]
            rows.append(
                {
                    "member": member + 1,
                    "training": what,
                    "flag at step": monitor.flagged,
                    "onset in accuracy at step": onset if what == next(iter(named)) else None,
                    "smallest turn": min(later),
                    "last turn": later[-1],
                }
            )
    return Table.of_rows(
        rows,
        name="monitor",
        title="Flags of the mid-training monitor",
        caption="A turn is 1 less the overlap of the spans of two successive checkpoints; the rule is armed by a small "
        "one and flags the first large one after it.",
    )


def _said(step: int | None) -> str:
    return "none" if step is None else str(step)

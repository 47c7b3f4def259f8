"""Figures of training Jacobians: one run, and several compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, line, points

if TYPE_CHECKING:
    from tremorscope.methods.weights.training_jacobian.measurement import TrainingJacobianMeasurement

KIND_NAMES = {
    "training": "training inputs",
    "normal": "normal noise as inputs",
    "inverted": "inverted inputs",
}
_KIND_COLOURS = {"training": PALETTE[0], "normal": PALETTE[4], "inverted": PALETTE[1]}
_INDEX = Axis(title="direction, by descending singular value")
_SMALLEST = 1e-12  # below this a divergence is rounding


def member_figures(measured: TrainingJacobianMeasurement) -> list[Figure]:
    """Spectrum, alignment, divergence of unit steps (if any), and drift, all along the spectrum of one run."""
    return [
        spectrum_figure({"this network": [measured]}),
        alignment_figure({"this network": [measured]}),
        *([divergence_figure(measured)] if measured.divergence else []),
        drift_figure(measured),
    ]


def spectrum_figure(groups: Mapping[str, Sequence[TrainingJacobianMeasurement]]) -> Figure:
    """Singular values of every member; the first group is the real thing."""
    first = next(iter(groups.values()))
    counts = first[0].regions[1]
    where = "here" if len(first) == 1 else "in the first member"
    caption = (
        "Training stretches some directions of the initial weights, forgets others, and carries the long flat run "
        f"at 1 over unchanged: {where} {counts.chaotic} directions lie above 1.01, {counts.bulk} within "
        f"0.01 of 1, {counts.stable} below 0.99."
    )
    traces = _per_member(groups, lambda m: m.values.clamp_min(1e-8))
    longest = max(m.num_live for members in groups.values() for m in members)
    traces.append(line([1, longest], [1, 1], "sigma = 1", colour=NULL_COLOUR, dash="dot", showlegend=False))
    return Figure(
        name="spectrum",
        title="Singular values of the training Jacobian",
        caption=caption,
        traces=traces,
        x=_INDEX,
        y=Axis(title="singular value", log=True),
    )


def distance_figure(groups: Mapping[str, Sequence[TrainingJacobianMeasurement]]) -> Figure:
    """`|sigma - 1|` in the order of the spectrum: how wide the bulk is, group by group."""
    return Figure(
        name="distance_from_one",
        title="How far singular values are from 1",
        caption="The wider the valley, the more directions training carries over unchanged. "
        "If it stays as wide with shuffled labels or matched Gaussian inputs, it tells of the inputs and not of "
        "what is learnt.",
        traces=_per_member(groups, lambda m: (m.values - 1).abs().clamp_min(1e-7)),
        x=_INDEX,
        y=Axis(title="|singular value - 1|", log=True),
    )


def alignment_figure(groups: Mapping[str, Sequence[TrainingJacobianMeasurement]]) -> Figure:
    """`<u_i, v_i>` along the spectrum."""
    first = next(iter(groups.values()))[0]
    caption = (
        "Cosine between where a direction starts and where training carries it: 1 means it is not turned. "
        f"The mean is {first.bulk_alignment:.3f} over the bulk and {first.tail_alignment:.3f} over the last "
        "directions, which training forgets."
    )
    lowest = min(float(m.alignment.min()) for members in groups.values() for m in members)
    if len(groups) == 1:
        traces = [
            points(numpy.arange(1, m.num_live + 1), m.alignment, name, colour=PALETTE[0], size=3)
            for name, (m, *_) in groups.items()
        ]
    else:
        traces = _per_member(groups, lambda m: _smoothed(m.alignment))
        caption += " Curves are running means over 1/40 of the spectrum."
    return Figure(
        name="alignment",
        title="Alignment of initial and final directions",
        caption=caption,
        traces=traces,
        x=_INDEX,
        y=Axis(title="cosine between v and u", range=(min(-0.35, lowest - 0.05), 1.05)),
    )


def divergence_figure(measured: TrainingJacobianMeasurement) -> Figure:
    """Worst KL after a unit step from the trained weights, for inputs in and out of distribution."""
    kinds = [kind for kind in KIND_NAMES if kind in measured.divergence]  # one order, also after a reload
    medians = {kind: measured.step(kind) for kind in kinds}
    indices = numpy.arange(1, measured.num_live + 1)
    traces = [
        points(
            indices,
            measured.divergence[kind].clamp_min(_SMALLEST),
            KIND_NAMES[kind],
            colour=_KIND_COLOURS[kind],
            size=3,
        )
        for kind in kinds
    ]
    return Figure(
        name="unit_steps",
        title="What a unit step changes, in and out of distribution",
        caption="Worst divergence over examples after a step of norm 1 along each initial direction, from the trained "
        "weights. "
        "At the centre of the bulk the median is "
        + ", ".join(f"{median:.2g} nats on {KIND_NAMES[kind]}" for kind, median in medians.items())
        + ".",
        traces=traces,
        x=_INDEX,
        y=Axis(title="worst KL(before || after), nats", log=True),
    )


def drift_figure(measured: TrainingJacobianMeasurement) -> Figure:
    """How far training moved along each direction."""
    return Figure(
        name="drift",
        title="How far training moves along each direction",
        caption=f"Distance between first and last weights along each initial direction; "
        f"{100 * measured.bulk_drift_share:.1f} % of its norm lies inside the bulk, which holds "
        f"{100 * float(measured.bulk.double().mean()):.0f} % of the live directions.",
        traces=[points(numpy.arange(1, measured.num_live + 1), measured.drift.clamp_min(1e-9), "drift", size=3)],
        x=_INDEX,
        y=Axis(title="|v . (last - first weights)|", log=True),
    )


def overlap_figure(overlaps: Mapping[str, Estimate], *, is_null: Mapping[str, bool]) -> Figure:
    """Overlap of bulks with those of another seed, and with what explains it away."""
    names = list(overlaps)
    values = [overlaps[name] for name in names]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [estimate.value for estimate in values],
        "y": names,
        "marker": {"color": [NULL_COLOUR if is_null[name] else PALETTE[0] for name in names]},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [estimate.high - estimate.value for estimate in values],
            "arrayminus": [estimate.value - estimate.low for estimate in values],
        },
        "name": "overlap",
        "showlegend": False,
    }
    return Figure(
        name="overlaps",
        title="Is the bulk shared between seeds, and by what else?",
        caption="Mean squared cosine between the most central initial directions of two runs with different "
        "initialisations. Blue: two real runs; grey: a real run and a null. A grey bar as long as the blue one "
        "explains the overlap away.",
        traces=[bars],
        x=Axis(title="overlap (1 = same span)", range=(0, 1)),
        y=Axis(title=""),
        layout={"yaxis": {"autorange": "reversed", "automargin": True}, "showlegend": False},
    )


def _per_member(
    groups: Mapping[str, Sequence[TrainingJacobianMeasurement]],
    read: Callable[[TrainingJacobianMeasurement], Tensor],
) -> list[dict[str, Any]]:
    traces = []
    for number, (name, members) in enumerate(groups.items()):
        for place, member in enumerate(members):
            values = read(member)
            traces.append(
                line(
                    numpy.arange(1, len(values) + 1),
                    values,
                    name,
                    colour=PALETTE[number],
                    dash=("solid", "dash", "dot", "dashdot")[number % 4],
                    legendgroup=name,
                    showlegend=place == 0,
                    opacity=0.8,
                )
            )
    return traces


def _smoothed(values: Tensor) -> Tensor:
    width = max(1, len(values) // 40) | 1
    padded = torch.nn.functional.pad(values[None, None], (width // 2, width // 2), mode="replicate")
    return torch.nn.functional.avg_pool1d(padded, width, stride=1)[0, 0]

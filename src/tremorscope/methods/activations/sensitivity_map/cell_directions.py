"""The most sensitive cells of a map, each with its directions, what they do, and what chance would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, band, line
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.language.encode import encode
from tremorscope.instruments.network import Network
from tremorscope.methods.activations.sensitivity_map.directions import (
    CellMetric,
    DirectionReading,
    cell_metric,
    read_directions,
)
from tremorscope.methods.activations.sensitivity_map.figures import quoted, shown
from tremorscope.methods.activations.sensitivity_map.measurement import SensitivityMap, Twin
from tremorscope.methods.activations.sensitivity_map.references import read_references
from tremorscope.methods.activations.sensitivity_map.strength import (
    RandomCurves,
    StrengthCurve,
    random_curves,
    strength_curve,
)

UNTRAINED, OTHER_TOKEN = "untrained weights", "another token"
_DASHES = {UNTRAINED: "dot", OTHER_TOKEN: "dash"}


@final
@dataclass(frozen=True, kw_only=True)
class CellDirections:
    """One cell: the leading directions of its pullback metric, curves along them, and nulls.

    `eigenvalues` are squares of the typical distance D times those of `G = J^T F J`, so that `x^2 / 2` times them is
    the KL that the metric predicts of a step of `x D`, in every network; by name, the network's own under its name.
    """

    label: str
    layer: int
    token: int
    address: str
    distance: float
    metric: CellMetric
    eigenvalues: dict[str, Float[Tensor, " k"]]
    readings: tuple[DirectionReading, ...]
    curves: tuple[StrengthCurve, ...]
    random: RandomCurves


@final
@dataclass(frozen=True, kw_only=True)
class SensitiveDirections:
    """The most sensitive cells of one map."""

    network: str
    fraction: float
    cells: tuple[CellDirections, ...]
    flags: tuple[str, ...]

    def sentence(self) -> str:
        """What a reader wants first."""
        cell = self.cells[0]
        reading, values = cell.readings[0], cell.eigenvalues[self.network]
        share = float(values[0] / values.sum().clamp_min(1e-300))
        nulls = "; ".join(
            f"{name} {float(other[0]):.3g}" for name, other in cell.eigenvalues.items() if name != self.network
        )
        return (
            f"At {cell.label} the first of {len(values)} directions holds {share:.0%} of their sensitivity (eigenvalue "
            f"{float(values[0]):.3g} per squared distance; {nulls}); it raises {_words(reading.raised[:3])} and lowers "
            f"{_words(reading.lowered[:3])}."
        )

    def tables(self) -> list[Table]:
        """The directions in tokens, and every token's numbers."""
        rows, changes = [], []
        for number, cell in enumerate(self.cells, 1):
            for place, reading in enumerate(cell.readings):
                names = [name for name in cell.eigenvalues if name != self.network]
                row: dict[str, Any] = {
                    "cell": f"{number}: {cell.label}",
                    "direction": place + 1,
                    "eigenvalue x distance²": float(cell.eigenvalues[self.network][place]),
                    **{f"the same, {name}": float(cell.eigenvalues[name][place]) for name in names},
                    "raises": _words(reading.raised),
                    "lowers": _words(reading.lowered),
                    "nearest input tokens (cosine)": ", ".join(
                        f"{quoted(one.text)} {one.cosine:+.2f}" for one in reading.nearest[:3]
                    )
                    or None,
                    "nearest by chance": reading.chance,
                    "residual": reading.residual * cell.distance**2,
                }
                rows.append(row)
                for kind, some in (("raised", reading.raised), ("lowered", reading.lowered)):
                    changes += [
                        {
                            "cell": number,
                            "direction": place + 1,
                            "change": kind,
                            "token": quoted(one.text),
                            "rate at once, per distance": one.rate * cell.distance,
                            "probability before": one.before,
                            "after the step": one.after,
                        }
                        for one in some
                    ]
        return [
            Table.of_rows(
                rows,
                name="sensitive_directions",
                title="The directions that matter most",
                caption="Leading eigenvectors of the pullback Fisher metric at the most sensitive cells: half the "
                "eigenvalue, times the square of a small step in units of the typical distance between two real "
                "activations, is the KL it causes. Tokens are those whose probability changes fastest (\N{OPEN BOX} is "
                "the blank that a token begins with); the sign of a direction is that of its largest change.",
            ),
            Table.of_rows(
                changes,
                name="direction_tokens",
                title="Tokens that each direction raises and lowers",
                caption=f"The exact rate at which the probability changes as one sets out, and the probability before "
                f"and after a step of {self.fraction:g} of the typical distance.",
            ),
        ]

    def figures(self) -> list[Figure]:
        """Eigenvalues beside their nulls, and the strength curves."""
        return [_spectrum_figure(self), _strength_figure(self)]


def measure_sensitive_directions(
    network: Network,
    measured: SensitivityMap,
    texts: Sequence[str],
    *,
    twin: Twin | None = None,
    num_cells: int = 3,
    num_directions: int = 5,
    num_random: int = 16,
    seed: int = 0,
) -> SensitiveDirections:
    """What are the directions, at the most sensitive cells, along which the prediction moves most?

    Args:
        network: The network of the map.
        measured: The map.
        texts: Its reference texts, for the distances in the twin.
        twin: Makes the untrained network whose metric at the same cell is one of the nulls.
        num_cells: How many of the most sensitive cells.
        num_directions: Eigenpairs in each.
        num_random: Random directions for the band of the strength curves.
        seed: Of the random directions, and of the other token.

    Cost: for each cell and null, as `cell_metric`; besides, some hundred cached predictions for each direction.

    Raises:
        BadInput: As `cell_metric`.
    """
    batch = encode(network, [measured.prompt])
    chosen = measured.most_sensitive(num_cells)
    untrained = None if twin is None else twin()
    distances = {}
    if untrained is not None:
        sites = sorted({measured.own.sites[layer] for layer, _ in chosen})
        distances = {site: one.distance for site, one in read_references(untrained, texts, sites).items()}
    cells, flags = [], list[str]()
    for layer, token in chosen:
        site, options = measured.own.sites[layer], {"count": num_directions, "seed": seed}
        reference = measured.references[site]
        metric = cell_metric(network, batch, site, layer, token, **options)
        flags += metric.flags
        eigenvalues = {network.name: metric.spectrum.values * reference.distance**2}
        if untrained is not None:
            null = cell_metric(untrained, batch, site, layer, token, **options)
            eigenvalues[UNTRAINED] = null.spectrum.values * distances[site] ** 2
        other = _other_token(measured.num_tokens, layer, token, seed)
        if other is not None:
            there = cell_metric(network, batch, site, layer, other, **options)
            eigenvalues[OTHER_TOKEN] = there.spectrum.values * reference.distance**2
        readings = read_directions(network, metric, step=measured.fraction * reference.distance, seed=seed)
        drawn = reference.matched(num_random, generator(seed, "strength", site, token))
        cells.append(
            CellDirections(
                label=measured.label(layer, token),
                layer=layer,
                token=token,
                address=metric.address,
                distance=reference.distance,
                metric=metric,
                eigenvalues=eigenvalues,
                readings=tuple(readings),
                curves=tuple(strength_curve(network, metric, one, distance=reference.distance) for one in readings),
                random=random_curves(metric, drawn, distance=reference.distance),
            )
        )
    return SensitiveDirections(
        network=network.name, fraction=measured.fraction, cells=tuple(cells), flags=tuple(dict.fromkeys(flags))
    )


def _other_token(num_tokens: int, layer: int, token: int, seed: int) -> int | None:
    """Another token of the prompt, at random; None if there is no other."""
    if num_tokens < 2:
        return None
    others = [place for place in range(num_tokens) if place != token]
    return others[derive(seed, "other token", layer, token) % len(others)]


def _spectrum_figure(measured: SensitiveDirections) -> Figure:
    traces = []
    lowest = max(float(values.max()) for cell in measured.cells for values in cell.eigenvalues.values()) * 1e-9
    for number, cell in enumerate(measured.cells):
        for name, values in cell.eigenvalues.items():
            own = name == measured.network
            traces.append(
                line(
                    torch.arange(1, len(values) + 1),
                    values.clamp_min(lowest),
                    cell.label if own else f"{cell.label}, {name}",
                    colour=PALETTE[number % len(PALETTE)],
                    dash=None if own else _DASHES[name],
                    markers=True,
                    showlegend=own,
                    opacity=1.0 if own else 0.6,
                )
            )
    nulls = dict.fromkeys(name for cell in measured.cells for name in cell.eigenvalues if name != measured.network)
    # One entry in the legend for each kind of null: its dash is what tells it, its colour says of which cell.
    traces += [line([numpy.nan], [numpy.nan], name, colour=NULL_COLOUR, dash=_DASHES[name]) for name in nulls]
    return Figure(
        name="pullback_eigenvalues",
        title="How few directions carry the sensitivity",
        caption="Leading eigenvalues of the pullback Fisher metric at the most sensitive cells, per squared typical "
        "distance between real activations: solid for the network; in the colour of the cell, dotted for the same cell "
        "with untrained weights, dashed for another token of the prompt. The steeper the fall, the fewer directions "
        "matter.",
        traces=traces,
        x=Axis(title="direction, the most sensitive first"),
        y=Axis(title="eigenvalue x typical distance² (nats)", log=True),
        layout={"xaxis": {"title": {"text": "direction, the most sensitive first"}, "dtick": 1}},
    )


def _strength_figure(measured: SensitiveDirections) -> Figure:
    """KL above, probabilities below, one direction at a time."""
    traces: list[dict[str, Any]] = []
    buttons, groups = [], list[tuple[int, int, str]]()
    for number, cell in enumerate(measured.cells, 1):
        low, high = (cell.random.kl.quantile(share, dim=0) for share in (0.05, 0.95))
        for place, (reading, curve) in enumerate(zip(cell.readings, cell.curves, strict=True), 1):
            first = len(traces)
            traces += [
                band(cell.random.sizes, low, high, "random directions, 90 %"),
                line(
                    curve.sizes,
                    curve.predicted.masked_fill(curve.sizes == 0, float("nan")),
                    "second order",
                    colour=NULL_COLOUR,
                    dash="dot",
                ),
                # At 0 nothing moves, which a log axis cannot show: a gap.
                line(
                    curve.sizes,
                    curve.kl.masked_fill(curve.sizes == 0, float("nan")),
                    "this direction",
                    colour=PALETTE[0],
                    markers=True,
                ),
            ]
            for rank, (token, values) in enumerate(zip(curve.tokens, curve.probabilities, strict=True)):
                # The same token is not told by colour alone: markers differ too.
                traces.append(
                    line(
                        curve.sizes,
                        values,
                        quoted(token),
                        colour=PALETTE[(rank + 1) % len(PALETTE)],
                        markers=True,
                        xaxis="x",
                        yaxis="y2",
                        marker={"symbol": ("circle", "square", "diamond", "cross", "triangle-up")[rank % 5], "size": 7},
                    )
                )
            raises = " ".join(shown(one.text) for one in reading.raised[:2])
            groups.append((first, len(traces), f"cell {number} ({cell.label}), direction {place}: raises {raises}"))
    for first, last, label in groups:
        visible = [first <= place < last for place in range(len(traces))]
        buttons.append({"label": label, "method": "restyle", "args": [{"visible": visible}]})
    for place, trace in enumerate(traces):
        trace["visible"] = place < groups[0][1]
    largest = [float(curve.kl.max()) for cell in measured.cells for curve in cell.curves]
    axis = {"title": {"text": "step along the direction (share of the typical distance)"}, "anchor": "y2"}
    return Figure(
        name="strength_curves",
        title="What a step along each direction does",
        caption="Above, KL between the clean prediction and the one after a step of that size and sign, beside the "
        "metric's second-order prediction and 16 random directions with the covariance of real activations; below, the "
        "probabilities of the tokens that are likeliest at the middle and at the ends. The menu changes cell and "
        "direction.",
        traces=traces,
        x=Axis(title="step along the direction (share of the typical distance)"),
        y=Axis(title="KL (nats)"),
        layout={
            "xaxis": axis,
            "yaxis": {
                "title": {"text": "KL (nats)"},
                "domain": [0.54, 1.0],
                "type": "log",
                "range": [-5, _log10_above(max(largest))],
                "exponentformat": "power",
                "dtick": 1,
            },
            "yaxis2": {"title": {"text": "probability"}, "domain": [0.0, 0.44], "range": [0, 1.02]},
            "height": 600,
            "updatemenus": [{"type": "dropdown", "buttons": buttons, "active": 0}],
        },
    )


def _log10_above(value: float) -> float:
    return float(torch.tensor(max(value, 1e-4), dtype=torch.float64).log10()) + 0.3


def _words(changes: Sequence[Any]) -> str:
    return ", ".join(quoted(one.text) for one in changes) or "nothing"

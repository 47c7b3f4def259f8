"""Two sensitivity maps of one prompt, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy
import torch
from jaxtyping import Bool
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import Axis, Figure, numbers
from tremorscope.foundations.results import Table
from tremorscope.foundations.statistics import holm, t_test_p
from tremorscope.methods.activations.sensitivity_map.figures import rings, shown, token_axis
from tremorscope.methods.activations.sensitivity_map.measurement import SensitivityMap

LEVEL = 0.05


@final
@dataclass(frozen=True, kw_only=True)
class MapDifference:
    """KL of the second map less that of the first, in each cell, over the same directions.

    A direction is the same combination of the activations of the same texts in both networks, so that the two answers
    are a pair.
    """

    first: SensitivityMap
    second: SensitivityMap
    differences: tuple[tuple[Estimate, ...], ...]  # layers of tokens
    adjusted: tuple[tuple[float, ...], ...]

    @property
    def marked(self) -> Bool[Tensor, "layers tokens"]:
        """Cells whose difference is not chance, Holm's correction over all cells."""
        return torch.tensor(self.adjusted) < LEVEL

    def sentence(self) -> str:
        """What a reader wants first."""
        layer, token = self.largest()
        if self.differences[layer][token].value == 0:
            return "The sensitivity maps of this prompt are the same in every cell."
        return (
            f"{int(self.marked.sum())} of {self.marked.numel()} cells of the sensitivity map differ (Holm, {LEVEL:g}), "
            f"most at {self.first.label(layer, token)}: by {self.differences[layer][token]} nats "
            "(KL in the second network less KL in the first)."
        )

    def largest(self) -> tuple[int, int]:
        """(layer, token) of the largest difference: of those that are not chance, if there are any."""
        marked = self.marked
        cells = [
            (bool(marked[i, j]), abs(one.value), -i, -j)
            for i, row in enumerate(self.differences)
            for j, one in enumerate(row)
        ]
        *_, layer, token = max(cells)
        return -layer, -token

    def tables(self) -> list[Table]:
        """One row for each cell."""
        rows = [
            {
                "block input": layer,
                "token": token,
                "text": self.first.tokens[token],
                "first": self.first.estimate(layer, token),
                "second": self.second.estimate(layer, token),
                "difference": self.differences[layer][token],
                "adjusted p": self.adjusted[layer][token],
                "marked": bool(self.marked[layer, token]),
            }
            for layer in range(self.first.num_layers)
            for token in range(self.first.num_tokens)
        ]
        return [
            Table.of_rows(
                rows,
                name="map_difference",
                title="The sensitivity map, cell by cell",
                caption="KL at the last token in both networks, and the difference over paired directions with its "
                "interval; marked where Holm's correction over all cells leaves it.",
            )
        ]

    def _about_rings(self) -> str:
        count, cells = int(self.marked.sum()), self.marked.numel()
        if not count:
            return f"No cell has a ring, which would say that the difference is not chance (Holm, {LEVEL:g})."
        return (
            f"A ring (\N{WHITE CIRCLE}) stands in the {count} of {cells} cells whose difference is not chance "
            f"(Holm, {LEVEL:g})."
        )

    def _hover(self, layer: int, token: int) -> str:
        lines = [
            f"<b>{shown(self.first.tokens[token])}</b>, input of block {layer}",
            f"first: {self.first.estimate(layer, token)}",
            f"second: {self.second.estimate(layer, token)}",
            f"second less first: {self.differences[layer][token]}",
            f"adjusted p {self.adjusted[layer][token]:.2g}",
        ]
        return "<br>".join(lines)

    def figures(self) -> list[Figure]:
        """Heat map of the ratio, with rings where the difference is not chance."""
        noise = max(self.first.own.noise, self.second.own.noise, 1e-9)
        logs = [
            numpy.log10(numpy.maximum(one.own.last["matched"].mean(-1).numpy(), noise))
            for one in (self.first, self.second)
        ]
        ratio = logs[1] - logs[0]
        reach = max(float(numpy.abs(ratio).max()), 0.1)
        ticks = numpy.linspace(-reach, reach, 5)
        marked = self.marked.nonzero().tolist()
        heat = {
            "type": "heatmap",
            "z": [numbers(row) for row in ratio],
            "x": list(range(self.first.num_tokens)),
            "y": list(range(self.first.num_layers)),
            "zmin": -reach,
            "zmax": reach,
            "colorscale": "RdBu",
            "xgap": 1,
            "ygap": 1,
            "colorbar": {
                "title": {"text": "KL, second over first", "side": "right"},
                "tickvals": numbers(ticks),
                "ticktext": [f"{10**power:.2g}" for power in ticks],
            },
            "customdata": [
                [self._hover(layer, token) for token in range(self.first.num_tokens)]
                for layer in range(self.first.num_layers)
            ],
            "hovertemplate": "%{customdata}<extra></extra>",
        }
        return [
            Figure(
                name="map_difference",
                title="What disturbs the second network more, or less",
                caption=f"How far the prediction moves when one token is disturbed at the input of one block: KL in "
                f"the second network ({self.second.network}) over KL in the first ({self.first.network}), red where "
                f"the second answers more. {self._about_rings()}",
                traces=[heat, *rings(marked)],
                x=Axis(title="disturbed token"),
                y=Axis(title="input of block"),
                layout={
                    "xaxis": {"title": {"text": "disturbed token"}, "showgrid": False, **token_axis(self.first.tokens)},
                    "yaxis": {"title": {"text": "input of block"}, "dtick": 1, "showgrid": False},
                    "showlegend": False,
                    "height": 150 + 42 * min(self.first.num_layers, 16),
                },
            )
        ]


def compare_maps(first: SensitivityMap, second: SensitivityMap) -> MapDifference:
    """Where does the second network answer more, or less, than the first?

    Raises:
        BadInput: If the maps are not of one prompt, with one number of directions and one seed's draws.
    """
    shapes = [tuple(one.own.last["matched"].shape) for one in (first, second)]
    if shapes[0] != shapes[1] or first.prompt != second.prompt or first.tokens != second.tokens:
        raise BadInput(
            "maps to compare",
            got=f"{first.prompt!r} with {shapes[0]} and {second.prompt!r} with {shapes[1]}",
            wanted="the same prompt and the same numbers of blocks, tokens and directions",
        )
    gaps = second.own.last["matched"] - first.own.last["matched"]
    estimates = [[Estimate.mean(cell.numpy()) for cell in row] for row in gaps]
    p_values = [[t_test_p(one.value, one.low, one.high, one.level, one.n) for one in row] for row in estimates]
    flat = holm([value for row in p_values for value in row])
    width = first.num_tokens
    return MapDifference(
        first=first,
        second=second,
        differences=tuple(tuple(row) for row in estimates),
        adjusted=tuple(tuple(flat[start : start + width]) for start in range(0, len(flat), width)),
    )

"""What each weight tensor of a network looks like, beside the same tensor before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, bars
from tremorscope.foundations.results import Table
from tremorscope.instruments.network import Network


@final
@dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """One weight tensor: its size, how large it is, and how many directions it uses.

    `stable_rank` is `||W||_F^2 / ||W||_2^2` of the tensor as a matrix (first axis against the rest), 1 for
    one direction, at most the smaller side; None for vectors. `moved` is the distance from the twin's
    tensor, relative to the twin's norm; None without a twin, or when the twin is not where training started.
    """

    name: str
    shape: tuple[int, ...]
    norm: float
    largest_singular_value: float | None
    stable_rank: float | None
    moved: float | None

    @property
    def num_weights(self) -> int:
        """Number of entries."""
        return torch.Size(self.shape).numel()


@final
@dataclass(frozen=True, kw_only=True)
class LayersMeasurement:
    """Every weight tensor of a network, and of its untrained twin in the same order."""

    layers: tuple[LayerSummary, ...]
    untrained: tuple[LayerSummary, ...] | None

    def tables(self) -> list[Table]:
        """One row per weight tensor."""
        rows = []
        for place, layer in enumerate(self.layers):
            twin = None if self.untrained is None else self.untrained[place]
            row = {
                "weights": layer.name,
                "shape": " x ".join(map(str, layer.shape)),
                "entries": layer.num_weights,
                "norm": layer.norm,
                "stable rank": layer.stable_rank,
            }
            if twin is not None:
                row |= {"norm, untrained": twin.norm, "stable rank, untrained": twin.stable_rank}
                if layer.moved is not None:
                    row["distance moved / untrained norm"] = layer.moved
            rows.append(row)
        caption = (
            "Size of each weight tensor and how many directions it uses (stable rank: squared Frobenius norm over "
        )
        caption += "squared largest singular value)."
        if self.untrained is not None:
            caption += " The untrained twin shows what initialisation alone would give."
        return [Table.of_rows(rows, name="layers", title="Layers", caption=caption)]

    def figures(self) -> list[Figure]:
        """Stable rank of each matrix against its untrained twin; none without a twin or a matrix."""
        shown = [
            (layer.name, layer.stable_rank, twin.stable_rank)
            for layer, twin in zip(self.layers, self.untrained or (), strict=False)
            if layer.stable_rank is not None
        ]
        if not shown:
            return []
        names, ranks, twins = zip(*shown, strict=True)
        return [
            Figure(
                name="stable_ranks",
                title="How many directions each weight matrix uses",
                caption="Where a bar is shorter than that of the untrained twin, training has concentrated the matrix "
                "on fewer directions.",
                traces=[
                    bars(list(names), list(ranks), "this network", colour=PALETTE[0], flat=True),
                    bars(list(names), list(twins), "untrained twin", colour=NULL_COLOUR, flat=True),
                ],
                x=Axis(title="stable rank"),
                y=Axis(title=""),
                layout={
                    "barmode": "group",
                    "height": 150 + 34 * len(names),
                    "yaxis": {"autorange": "reversed", "automargin": True, "title": {"text": ""}},
                },
            )
        ]


def summarise_layers(network: Network, untrained: Network | None = None, *, is_start: bool = True) -> LayersMeasurement:
    """What do the weight tensors look like, and what did training make of them?

    Args:
        network: The network.
        untrained: Its twin before training, if there is one.
        is_start: Whether training started at the weights of that twin; distances are taken from them then.

    Cost: singular values of every matrix.

    >>> from torch import nn
    >>> summarise_layers(Network(nn.Linear(3, 2))).layers[0].num_weights
    6
    """
    twins = None if untrained is None else untrained.params
    layers = tuple(
        _summary(name, tensor, None if twins is None or not is_start else twins[name])
        for name, tensor in network.params.items()
    )
    if twins is None:
        return LayersMeasurement(layers=layers, untrained=None)
    return LayersMeasurement(
        layers=layers, untrained=tuple(_summary(name, tensor, None) for name, tensor in twins.items())
    )


def _summary(name: str, tensor: Tensor, before: Tensor | None) -> LayerSummary:
    exact = tensor.double()
    norm = float(exact.norm())
    largest = rank = None
    if exact.ndim >= 2 and norm > 0:
        largest = float(torch.linalg.matrix_norm(exact.flatten(1), 2))
        rank = norm**2 / largest**2
    moved = None
    if before is not None and float(before.norm()) > 0:
        moved = float((exact - before.double()).norm() / before.double().norm())
    return LayerSummary(
        name=name,
        shape=tuple(tensor.shape),
        norm=norm,
        largest_singular_value=largest,
        stable_rank=rank,
        moved=moved,
    )

"""Whole activations of one example as vectors: feature maps and sequences too, in the span of what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.instruments.activations.sweep_batch import tiled
from tremorscope.instruments.edit import Edit
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.activations.plateaus.responder import Outputs

CHUNK_BYTES = 256 * 2**20  # memory of one chunk of points, by estimate


@final
@dataclass(frozen=True, eq=False)
class _ReplaceWhole(Edit):
    """Another activation, of whatever shape, for every row."""

    values: Tensor

    @property
    def width(self) -> None:
        return None

    def _edited(self, x: Tensor) -> Tensor:
        return self.values.to(x)


@final
@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Activations as vectors: flattened, or where there are no more of them than entries, in the span of them all.

    `basis` has orthonormal columns, so lengths and angles are the same; None: the entries themselves.
    """

    shape: tuple[int, ...]
    basis: Float[Tensor, "d k"] | None

    @classmethod
    def of(cls, activations: Float[Tensor, " n *shape"]) -> Coordinates:
        """The coordinates in which these can be described.

        Cost: a QR decomposition of the transposed table where there are no more of them than entries.
        """
        flat = activations.detach().flatten(1).cpu().double()
        basis = torch.linalg.qr(flat.T).Q if len(flat) <= flat.shape[1] else None
        return cls(shape=tuple(activations.shape[1:]), basis=basis)

    def vectors(self, activations: Float[Tensor, " n *shape"]) -> Float[Tensor, "n k"]:
        """Activations to vectors, in float64."""
        flat = activations.detach().flatten(1).cpu().double()
        return flat if self.basis is None else flat @ self.basis

    def activations(self, vectors: Float[Tensor, "n k"]) -> Float[Tensor, " n *shape"]:
        """The inverse."""
        flat = vectors if self.basis is None else vectors @ self.basis.to(vectors).T
        return flat.reshape(-1, *self.shape)


@final
class WholeValueResponder:
    """A network as a function of the whole activation at one site, each point in the context of one example.

    Every point is a whole forward pass, many in a batch; `base` and points are vectors of `coordinates`.

    Args:
        network: Any.
        batch: The examples that give the contexts.
        site: Address without position.
        activations: Clean ones of those examples.
        coordinates: Of the points.
        num_bytes: Memory that one example's forward pass takes, about.
    """

    def __init__(
        self,
        network: Network,
        batch: Batch,
        site: str,
        activations: Float[Tensor, " rows *shape"],
        coordinates: Coordinates,
        *,
        is_logits: bool,
        num_bytes: int,
    ) -> None:
        self.network, self.batch, self.site, self.coordinates = network, batch, site, coordinates
        self.base: Tensor = coordinates.vectors(activations)
        self.is_logits = is_logits
        self.chunk = max(1, CHUNK_BYTES // max(num_bytes, 1))

    def outputs(self, points: Float[Tensor, "n k"], rows: Int[Tensor, " n"]) -> Outputs:
        """Outputs of the network, flattened, with each point in the place of the activation of example `rows[i]`."""
        pairs = zip(torch.split(points, self.chunk), torch.split(rows, self.chunk), strict=True)
        found = torch.cat([self._outputs(*pair) for pair in pairs])
        return Outputs(late=found, logits=found if self.is_logits else None)

    def _outputs(self, points: Tensor, rows: Tensor) -> Tensor:
        values = self.coordinates.activations(points).to(self.network.device)
        view = self.network.with_edits(_ReplaceWhole(values).at(self.site))
        output = view.apply(view.params, tiled(self.batch, rows, len(self.base)))
        return output.reshape(len(points), -1)

"""Singular values and vectors of a training Jacobian on its live directions, and the regions they fall into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

from jaxtyping import Bool, Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput, NotConverged
from tremorscope.instruments.singular import decompose
from tremorscope.methods.weights.training_jacobian.dense import TrainingJacobian

TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4)


class RegionSizes(NamedTuple):
    """How many directions training stretches, carries over, and forgets, at one tolerance."""

    tolerance: float
    chaotic: int
    bulk: int
    stable: int


@final
@dataclass(frozen=True, kw_only=True)
class LiveSpectrum:
    """`J = left @ diag(values) @ right.T` on the `live` directions of `num_params` weights, float64, descending.

    Weights that no gradient reaches have `sigma = 1` exactly, in every network of that input: they would
    fill the centre of the bulk and be shared by all seeds, so they are left out.
    """

    left: Float[Tensor, "live live"]
    values: Float[Tensor, " live"]
    right: Float[Tensor, "live live"]
    live: Int[Tensor, " live"]
    num_params: int
    flags: tuple[str, ...] = ()

    @property
    def num_dead(self) -> int:
        """Weights outside training's reach."""
        return self.num_params - len(self.live)

    @property
    def alignment(self) -> Float[Tensor, " live"]:
        """`<u_i, v_i>`: 1 where training carries a direction over without turning it.

        Within the bulk singular values are nearly equal and single pairs are arbitrary up to a common
        rotation; `span_alignment` compares the spans.
        """
        return (self.left * self.right).sum(0)

    def sizes(self, tolerance: float) -> RegionSizes:
        """Chaotic `sigma > 1 + tol`, bulk `|sigma - 1| <= tol`, stable `sigma < 1 - tol`."""
        bulk = int(self.bulk(tolerance).sum())
        chaotic = int((self.values > 1 + tolerance).sum())
        return RegionSizes(tolerance, chaotic, bulk, len(self.values) - bulk - chaotic)

    def bulk(self, tolerance: float) -> Bool[Tensor, " live"]:
        """Which directions are in the bulk."""
        return (self.values - 1).abs() <= tolerance

    def central(self, k: int) -> Int[Tensor, " k"]:
        """The `k` directions whose singular value is nearest to 1, nearest first.

        Raises:
            BadInput: If there are fewer than `k`.
        """
        if not 1 <= k <= len(self.values):
            raise BadInput("number of central directions", got=k, wanted=f"1 to {len(self.values)}")
        return (self.values - 1).abs().argsort(stable=True)[:k]

    def span_alignment(self, chosen: Tensor) -> float:
        """Mean squared cosine between the spans of the chosen left and right vectors; NaN when none is chosen."""
        left, right = self.left[:, chosen], self.right[:, chosen]
        return float((left.T @ right).square().sum() / max(1, right.shape[1])) if right.shape[1] else float("nan")

    def initial_directions(self, chosen: Tensor) -> Float[Tensor, "params k"]:
        """The chosen right singular vectors (directions of the initial weights) in all weights."""
        return self.embedded(self.right[:, chosen])

    def embedded(self, vectors: Tensor) -> Tensor:
        """Vectors over the live directions as vectors over all weights, zero on the dead ones."""
        full = vectors.new_zeros(self.num_params, *vectors.shape[1:])
        full[self.live] = vectors
        return full


def live_spectrum(jacobian: TrainingJacobian) -> LiveSpectrum:
    """Decompose a training Jacobian on its live directions, in float64.

    Cost: about `20 live^3` operations and five `live^2` matrices.

    Raises:
        BadInput: If nothing is live: training moved no weight.
        NotConverged: If no driver gave singular vectors. The Jacobian itself is not lost: it was saved first.
    """
    live = jacobian.live.cpu()
    if not len(live):
        raise BadInput("live directions of the training Jacobian", got="none", wanted="a recipe that trains")
    # Rows and columns of dead weights hold only their diagonal, so the block is all that is left of J.
    found = decompose(jacobian.matrix.cpu()[live][:, live])
    if found.left is None or found.right is None:
        raise NotConverged("singular vectors of the training Jacobian", got="; ".join(found.flags))
    return LiveSpectrum(
        left=found.left,
        values=found.values,
        right=found.right,
        live=live,
        num_params=len(jacobian.first),
        flags=(*jacobian.flags, *found.flags),
    )


def span_overlap(one: Float[Tensor, "params k"], other: Float[Tensor, "same m"]) -> float:
    """Mean squared cosine between two spans of orthonormal columns, relative to the smaller.

    Raises:
        BadInput: If the spaces around differ or a span is empty.
    """
    if one.shape[0] != other.shape[0] or 0 in (one.shape[1], other.shape[1]):
        raise BadInput("spans to compare", got=f"{tuple(one.shape)} and {tuple(other.shape)}", wanted="one space")
    return float((one.T.double() @ other.double()).square().sum()) / min(one.shape[1], other.shape[1])


def central_count(num_live: int, share: float) -> int:
    """A share of the live directions, at least one."""
    return max(1, round(share * num_live))


def region_sizes(spectrum: LiveSpectrum, tolerances: Sequence[float] = TOLERANCES) -> list[RegionSizes]:
    """Region sizes at several tolerances: the paper gives no sharp cut."""
    return [spectrum.sizes(tolerance) for tolerance in tolerances]

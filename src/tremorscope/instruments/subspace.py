"""Flat subspaces, kept as thin orthonormal bases: a projector is never written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput


@final
@dataclass(frozen=True, kw_only=True)
class Subspace:
    """The set `offset + span(basis)`; `basis` has orthonormal columns.

    Overlaps and angles compare directions only; offsets do not enter.

    Raises:
        BadInput: If the columns are not orthonormal, or the offset has another length.
    """

    basis: Float[Tensor, "d k"]
    offset: Float[Tensor, " d"]

    def __post_init__(self) -> None:
        d, k = self.basis.shape
        if len(self.offset) != d:
            raise BadInput("offset of a subspace", got=f"{len(self.offset)} entries", wanted=f"{d}, like the basis")
        gap = self.basis.T @ self.basis
        gap.diagonal().sub_(1)
        worst = float(gap.abs().max()) if k else 0.0
        if not worst <= torch.finfo(self.basis.dtype).eps ** 0.5:
            raise BadInput(
                "basis of a subspace",
                got=f"columns that are {worst:.1g} from orthonormal",
                wanted="orthonormal columns",
                remedy="Use Subspace.span(vectors).",
            )

    @classmethod
    def span(cls, vectors: Float[Tensor, "d n"], *, offset: Float[Tensor, " d"] | None = None) -> Subspace:
        """Smallest subspace through `offset` (default 0) along every column.

        Raises:
            BadInput: If an entry is not finite, or no column is non-zero.
        """
        num_bad = int((~vectors.isfinite()).sum())
        if num_bad:
            raise BadInput("vectors", got=f"{num_bad} non-finite entries", wanted="none", remedy="Drop dead rows.")
        if not vectors.any():
            raise BadInput("vectors", got="only zeros", wanted="a non-zero column", remedy="Are the two means equal?")
        # Scaled first: squares of very small or large entries would leave the range of the dtype.
        left, sizes, _ = torch.linalg.svd(vectors / vectors.abs().max(), full_matrices=False)
        kept = sizes > sizes.max() * max(vectors.shape) * torch.finfo(sizes.dtype).eps  # NumPy's rank rule
        return cls(basis=left[:, kept], offset=vectors.new_zeros(len(vectors)) if offset is None else offset)

    @classmethod
    def random(cls, d: int, k: int, generator: torch.Generator, *, dtype: torch.dtype = torch.float64) -> Subspace:
        """A uniformly drawn `k`-dimensional subspace through 0, on the generator's device.

        Raises:
            BadInput: If `k` is outside 1..d.
        """
        _check_dimensions(d, k)
        gaussian = torch.randn(d, k, generator=generator, dtype=dtype, device=generator.device)
        basis = torch.linalg.qr(gaussian).Q
        return cls(basis=basis, offset=basis.new_zeros(d))

    @property
    def d(self) -> int:
        """Dimension of the space around."""
        return self.basis.shape[0]

    @property
    def k(self) -> int:
        """Dimension of the subspace."""
        return self.basis.shape[1]

    def coordinates(self, points: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        """Position along the basis, measured from the offset."""
        return (points - self.offset) @ self.basis

    def project(self, points: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Nearest point of the subspace, `offset + Q Q^T (x - offset)`.

        >>> line = Subspace.span(torch.tensor([[1.0], [1.0]]))
        >>> line.project(torch.tensor([2.0, 0.0])).allclose(torch.ones(2))
        True
        """
        return self.offset + self.coordinates(points) @ self.basis.T

    def contains(self, points: Float[Tensor, "*batch d"], *, tol: float | None = None) -> Bool[Tensor, "*batch"]:
        """Whether each point lies in the subspace, up to `tol` of its distance from the offset.

        The default tolerance is the square root of the dtype's epsilon.
        """
        relative = points - self.offset
        gap = (points - self.project(points)).norm(dim=-1)
        allowed = torch.finfo(self.basis.dtype).eps ** 0.5 if tol is None else tol
        # Rounding of x - offset is relative to the two, not to their difference.
        inside: Tensor = gap <= allowed * torch.maximum(relative.norm(dim=-1), self.offset.norm())
        return inside

    def complement(self) -> Complement:
        """Everything perpendicular, through the same offset; no basis of it is formed."""
        return Complement(removed=self)

    def overlap(self, other: Subspace) -> float:
        """Mean squared cosine of the principal angles: 1 when the smaller lies in the larger, 0 when perpendicular.

        Two random subspaces have `chance(d, k)` on average, with k the larger of the two dimensions.

        >>> x, xy = torch.eye(3)[:, :1], torch.eye(3)[:, :2]
        >>> Subspace.span(x).overlap(Subspace.span(xy)), Subspace.chance(3, 2)
        (1.0, 0.6666666666666666)

        Raises:
            BadInput: If the spaces around differ.
        """
        smaller = self._comparable(other)
        return float((self.basis.T @ other.basis).square().sum()) / smaller

    def principal_angles(self, other: Subspace) -> Float[Tensor, " k"]:
        """Angles between the two, in radians, ascending; as many as the smaller has dimensions.

        Small angles are taken from their sine: the cosine of 1e-8 is 1 in float64.

        Raises:
            BadInput: If the spaces around differ.

        Source: Bjorck and Golub, Mathematics of Computation 27, 1973.
        """
        self._comparable(other)
        large, small = (self, other) if self.k >= other.k else (other, self)
        between = large.basis.T @ small.basis
        cosines = torch.linalg.svdvals(between).clamp(max=1)
        sines = torch.linalg.svdvals(small.basis - large.basis @ between).flip(0).clamp(max=1)
        angles: Tensor = torch.where(cosines.square() > 0.5, torch.asin(sines), torch.acos(cosines))
        return angles

    @staticmethod
    def chance(d: int, k: int) -> float:
        """Expected overlap of a `k`-dimensional subspace with a random one of at most that dimension: `k / d`.

        Raises:
            BadInput: If `k` is outside 1..d.
        """
        _check_dimensions(d, k)
        return k / d

    def _comparable(self, other: Subspace) -> int:
        if self.d != other.d:
            raise BadInput("subspaces to compare", got=f"in {self.d} and {other.d} dimensions", wanted="one space")
        smaller = min(self.k, other.k)
        if smaller == 0:
            raise BadInput("subspaces to compare", got="one of dimension 0", wanted="at least dimension 1")
        return smaller


@final
@dataclass(frozen=True, kw_only=True)
class Complement:
    """All that is perpendicular to `removed`, through its offset; as thin as what it leaves out."""

    removed: Subspace

    @property
    def d(self) -> int:
        """Dimension of the space around."""
        return self.removed.d

    @property
    def k(self) -> int:
        """Dimension of the complement."""
        return self.removed.d - self.removed.k

    def project(self, points: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Nearest point of the complement, `x - Q Q^T (x - offset)`.

        >>> line = Subspace.span(torch.tensor([[1.0], [0.0]]))
        >>> line.complement().project(torch.tensor([2.0, 5.0]))
        tensor([0., 5.])
        """
        return points - self.removed.coordinates(points) @ self.removed.basis.T

    def contains(self, points: Float[Tensor, "*batch d"], *, tol: float | None = None) -> Bool[Tensor, "*batch"]:
        """Whether each point lies in the complement, up to `tol` of its distance from the offset."""
        relative = (points - self.removed.offset).norm(dim=-1)
        allowed = torch.finfo(self.removed.basis.dtype).eps ** 0.5 if tol is None else tol
        gap = self.removed.coordinates(points).norm(dim=-1)
        inside: Tensor = gap <= allowed * torch.maximum(relative, self.removed.offset.norm())
        return inside

    def complement(self) -> Subspace:
        """The subspace that was left out."""
        return self.removed

    def overlap(self, other: Subspace) -> float:
        """As `Subspace.overlap`, without a basis of the complement: `sum cos^2 = k - sum cos^2(removed)`.

        Raises:
            BadInput: If the spaces around differ, or the complement is empty.
        """
        smaller = min(self.k, other.k)
        if smaller == 0 or self.d != other.d:
            raise BadInput(
                "subspaces to compare",
                got=f"dimension {self.k} in {self.d}, and {other.k} in {other.d}",
                wanted="at least dimension 1, in one space",
            )
        inside = float((self.removed.basis.T @ other.basis).square().sum())
        return (other.k - inside) / smaller

    def explicit(self) -> Subspace:
        """The complement with a basis, `[d, d - k]`: only when that is what you want to pay for.

        Raises:
            BadInput: If the complement is empty.
        """
        if self.k == 0:
            raise BadInput("complement", got="dimension 0", wanted="at least 1")
        basis = self.removed.basis
        reflectors, scales = torch.geqrf(basis)
        # The last columns of the full Q, from the reflectors: the d x d matrix is not formed.
        last = basis.new_zeros(self.d, self.k)
        last[self.removed.k :].fill_diagonal_(1)
        return Subspace(basis=torch.ormqr(reflectors, scales, last), offset=self.removed.offset)


def _check_dimensions(d: int, k: int) -> None:
    if not 1 <= k <= d:
        raise BadInput("dimension of a subspace", got=k, wanted=f"1 to {d}")

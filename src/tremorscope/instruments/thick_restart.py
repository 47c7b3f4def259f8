"""Lanczos with a basis of bounded size: grown by products, restarted from its best vectors, orthogonalised in full."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.operators.operator import LinearOperator

Which = Literal["largest", "smallest", "most_negative", "largest_magnitude"]
Progress = Callable[[int, int, float], None]
"""Called with the products so far, the pairs that have converged, and the worst residual relative to the norm."""

MEMORY = 4 * 2**30  # bytes of basis and images, by default
_SPACIOUS = 80  # rows of a basis that rarely needs a restart for the top of a Hessian
_LEAST_ROOM = 5  # rows beyond k without which a restart gains nothing
_SLICE = 2**15  # entries of all rows that are turned together: they stay in the cache
_ROUNDING = 10  # units of rounding of the operator's dtype below which no residual is chased


@final
@dataclass(frozen=True, kw_only=True)
class BasisPlan:
    """How many vectors an eigensolver will hold, and what they weigh.

    `num_basis` rows of the basis, as many images `A q` when `keeps_images` (the residuals then cost no
    products of their own), and the `k` vectors that are handed out.
    """

    num_basis: int
    keeps_images: bool
    num_bytes: int


def plan_basis(size: int, k: int, dtype: torch.dtype, *, block: int = 1, memory: int = MEMORY) -> BasisPlan:
    """The largest useful basis for `k` eigenpairs of a matrix with `size` rows, within `memory` bytes.

    Images are given up first, then rows of the basis, which costs restarts.

    >>> plan_basis(10_000_000, 5, torch.float32).num_basis
    80
    >>> plan_basis(10_000_000, 5, torch.float32, memory=10**9).num_basis
    19

    Raises:
        BadInput: If not even the smallest basis that can converge fits.
    """

    def plan(rows: int, images: bool) -> BasisPlan:
        held = rows * (2 if images else 1) + block + k
        return BasisPlan(num_basis=rows, keeps_images=images, num_bytes=held * size * dtype.itemsize)

    most = min(size, max(_SPACIOUS, 3 * k, k + 20 * block))
    least = min(size, k + max(_LEAST_ROOM, 2 * block))
    for choice in (plan(most, True), plan(most, False)):
        if choice.num_bytes <= memory:
            return choice
    fitting = min(most, memory // (size * dtype.itemsize) - block - k)
    if fitting < least:
        smallest = plan(least, False)
        raise BadInput(
            f"memory for {k} eigenpairs of {size:,} rows",
            got=f"{memory:,} bytes",
            wanted=f"at least {smallest.num_bytes:,} ({least} basis vectors, {block} in work, {k} results)",
            remedy="Raise memory=..., or ask for fewer pairs.",
        )
    return plan(fitting, False)


def ranking(values: Tensor, which: Which) -> Tensor:
    """What to sort eigenvalues by, largest first."""
    if which == "largest":
        return values
    return values.abs() if which == "largest_magnitude" else -values


@final
class RowProducts:
    """Products of a symmetric operator with vectors that lie in rows, counted and checked."""

    def __init__(self, operator: LinearOperator) -> None:
        self.operator, self.num_products = operator, 0

    def __call__(self, rows: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
        """`A` times each row."""
        self.num_products += len(rows)
        images = self.operator.mm(rows.T).T
        if not math.isfinite(float(images.sum())):  # one number to look at; only a bad one is looked into
            num_bad = int((~images.isfinite()).sum())
            if num_bad:
                raise BadInput(
                    f"product with {self.operator!r}",
                    got=f"{num_bad} entries that are not finite",
                    wanted="finite numbers",
                )
        return images


@final
@dataclass(frozen=True)
class RitzPairs:
    """Best approximations inside a basis, wanted ones first; `residuals` are those of the recurrence."""

    values: Tensor
    turn: Tensor  # [basis, pairs]
    residuals: Tensor


@final
class KrylovBasis:
    """Orthonormal rows `Q`, and `inner = Q A Q^T` in float64.

    `A Q^T = Q^T inner + P^T C`, where `P` are the `pending` rows after those in use, which the next product
    takes, and `C` is zero but for the last block. Vectors have the operator's dtype; small matrices float64.
    """

    def __init__(self, operator: LinearOperator, plan: BasisPlan, which: Which, *, block: int, seed: int) -> None:
        self.products, self.plan, self.which, self.seed = RowProducts(operator), plan, which, seed
        self.size = operator.shape[0]
        self.rows = torch.empty(plan.num_basis + block, self.size, dtype=operator.dtype, device=operator.device)
        self.images = torch.empty_like(self.rows[: plan.num_basis]) if plan.keeps_images else None
        self.inner = torch.zeros(plan.num_basis, plan.num_basis, dtype=torch.float64)
        self.used = self.pending = self.local = self.num_starts = self.num_restarts = 0
        self.coupling = torch.zeros(0, 0, dtype=torch.float64)
        self.norm = 0.0  # largest absolute Ritz value ever seen
        self.is_zero = False
        self.start_afresh(block)

    @property
    def is_full(self) -> bool:
        """Whether the pending rows, or those that their product leaves, would not fit any more."""
        return self.used + self.pending > self.plan.num_basis or self.used + 2 * self.pending > len(self.rows)

    @property
    def floor(self) -> float:
        """Relative residual below which rounding of the vectors hides everything."""
        return _ROUNDING * torch.finfo(self.rows.dtype).eps

    def start_afresh(self, count: int) -> int:
        """Let `count` random rows, outside of the basis, be the next ones; returns how many there was room for."""
        count = min(count, self.size - self.used, max(1, (self.plan.num_basis - self.used) // 2))
        self.num_starts += 1
        drawn = torch.randn(
            count, self.size, generator=generator(self.seed, "lanczos", self.num_starts), dtype=torch.float64
        )
        self.follow_with(drawn.to(self.rows))
        return self.pending

    def follow_residuals(self, pairs: RitzPairs, count: int) -> None:
        """Let the true residuals of the first `count` pairs be the next rows: what the recurrence has lost."""
        if self.images is None:
            return
        turn = pairs.turn[:, :count]
        left = _turned(self.images[: self.used], turn) - (
            pairs.values[:count, None].to(self.rows) * _turned(self.rows[: self.used], turn)
        )
        order = left.norm(dim=1).argsort(descending=True)
        self.follow_with(left[order[: max(1, (self.plan.num_basis - self.used) // 2)]])

    def follow_with(self, candidates: Tensor) -> None:
        """Orthonormalise rows against the basis and let them be pending."""
        everyone = self.rows[: self.used]
        for _ in range(3):
            if self.used:
                candidates = candidates - (candidates @ everyone.T) @ everyone
            candidates = torch.linalg.qr(candidates.T).Q.T
        self.pending = len(candidates)
        self.rows[self.used : self.used + self.pending] = candidates

    def forget(self, used: int) -> None:
        """Back to the first rows, with none pending: a start has to follow before the next product."""
        self.used, self.pending, self.local = used, 0, 0

    def grow(self) -> None:
        """Multiply the pending rows and take them into the basis."""
        begin, end = self.used, self.used + self.pending
        images = self.products(self.rows[begin:end])
        if self.images is not None:
            self.images[begin:end] = images
        if self.norm == 0 and not bool(images.any()):
            self.is_zero = True
        # First against what a recurrence knows to be there, then against everyone: without the second, rounding
        # brings converged eigenvectors back as ghosts.
        known = self.rows[self.local : end]
        coefficients = torch.zeros(end, end - begin, dtype=torch.float64)
        part = known @ images.T
        rest = images - part.T @ known
        coefficients[self.local :] += part.double().cpu()
        everyone = self.rows[:end]
        for _ in range(3):
            before = float(rest.norm())
            part = everyone @ rest.T
            rest -= part.T @ everyone
            coefficients += part.double().cpu()
            if float(rest.norm()) > 0.5 * before:
                break
        self.inner[:end, begin:end] = coefficients
        self.inner[begin:end, :begin] = coefficients[:begin].T
        corner = coefficients[begin:]
        self.inner[begin:end, begin:end] = (corner + corner.T) / 2
        self.used, self.local = end, begin
        self._append(rest, float(images.norm()))

    def ritz(self) -> RitzPairs:
        """Eigenpairs of `inner`, in order."""
        used = self.used
        values, turn = torch.linalg.eigh(self.inner[:used, :used])
        order = ranking(values, self.which).argsort(descending=True, stable=True)
        values, turn = values[order], turn[:, order]
        self.norm = max(self.norm, float(values.abs().max()))
        width = self.coupling.shape[1]
        residuals = (self.coupling @ turn[used - width :]).norm(dim=0)
        return RitzPairs(values, turn, residuals)

    def restart(self, pairs: RitzPairs, k: int, *, only_wanted: bool = False, room: int = 0) -> None:
        """Shrink the basis to the `k` wanted pairs and some of the next, which help the slowest, with `room` for more.

        The pending rows stay. Before a fresh start, keep `only_wanted` pairs that have converged: what the others still
        lack is along the pending rows that are then given up, and they would never get it back.
        """
        more = 0 if only_wanted else min(self.plan.num_basis - k - room, (self.plan.num_basis - k) // 3)
        kept = max(k, min(k + more, self.used, len(self.rows) - 2 * self.pending))
        waiting = self.rows[self.used : self.used + self.pending].clone()
        turn = pairs.turn[:, :kept]
        for vectors in (self.rows, self.images):
            if vectors is not None:
                for part in _slices(self.size):
                    vectors[:kept, part] = turn.T.to(vectors) @ vectors[: self.used, part]
        self.rows[kept : kept + self.pending] = waiting
        self.inner.zero_()
        self.inner[:kept, :kept] = torch.diag(pairs.values[:kept])
        # The next product finds an arrow of couplings to all that was kept, not only to the last block.
        self.used, self.local = kept, 0
        self.num_restarts += 1

    def polished(self, turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values, vectors in columns, and true residuals `||A v - lambda v||` of the pairs, all combined in float64.

        The rows of a float32 basis are orthonormal to 1e-7 only; here that is made good.
        """
        rows, images = self.rows[: self.used], self.images
        if images is None:
            rows = _turned(rows, turn)
            images, turn = self.products(rows), torch.eye(len(rows), dtype=torch.float64)
        else:
            images = images[: self.used]
        turn = turn.to(rows.device)
        gram = torch.zeros(turn.shape[1], turn.shape[1], dtype=torch.float64, device=rows.device)
        inner = torch.zeros_like(gram)
        for part in _slices(self.size):
            vectors = turn.T @ rows[:, part].double()
            gram += vectors @ vectors.T
            inner += vectors @ (turn.T @ images[:, part].double()).T
        root = torch.linalg.inv(torch.linalg.cholesky(gram))
        values, rotation = torch.linalg.eigh(root @ ((inner + inner.T) / 2) @ root.T)
        order = ranking(values, self.which).argsort(descending=True, stable=True)
        values, turn = values[order], turn @ root.T @ rotation[:, order]
        found = torch.empty(self.size, turn.shape[1], dtype=rows.dtype, device=rows.device)
        squares = torch.zeros_like(values)
        for part in _slices(self.size):
            vectors = turn.T @ rows[:, part].double()
            squares += (turn.T @ images[:, part].double() - values[:, None] * vectors).square().sum(1)
            found[part] = vectors.T.to(found.dtype)
        return values.cpu(), found, squares.sqrt().cpu()

    def _append(self, rest: Tensor, scale: float) -> None:
        """Make what is left of a product the pending rows, without directions that are nothing but rounding."""
        least = _ROUNDING * torch.finfo(rest.dtype).eps * scale
        if len(rest) == 1:
            length = float(rest.norm())
            sizes, turn, units = torch.tensor([length], dtype=torch.float64), torch.ones(1, 1), rest / (length or 1.0)
            turn = turn.double()
        else:
            columns, factor = torch.linalg.qr(rest.T)
            left, sizes, turn = torch.linalg.svd(factor.double().cpu())
            units = left.T.to(rest) @ columns.T
        kept = min(int((sizes > least).sum()), self.size - self.used)
        self.coupling = sizes[:kept, None] * turn[:kept]
        if kept and float(sizes[kept - 1]) < 0.01 * scale:
            # Small beside the product, a direction carries its rounding: clean it once more.
            self.follow_with(units[:kept])
            return
        self.pending = kept
        self.rows[self.used : self.used + kept] = units[:kept]


def _turned(rows: Tensor, turn: Tensor) -> Tensor:
    found = torch.empty(turn.shape[1], rows.shape[1], dtype=rows.dtype, device=rows.device)
    for part in _slices(rows.shape[1]):
        found[:, part] = turn.T.to(rows) @ rows[:, part]
    return found


def _slices(size: int) -> list[slice]:
    return [slice(start, start + _SLICE) for start in range(0, size, _SLICE)]

"""The largest singular triples of operators whose every product is dear and whose blocks are cheap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput, NotConverged
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.operators.operator import LinearOperator

OVERSAMPLE = 8  # columns of a block beyond those asked for
_BASIS_BLOCKS = 8  # blocks kept beside the wanted triples before a restart
_COPY_BLOCKS = 4  # blocks of a fresh search for copies that narrow blocks may have missed


@final
@dataclass(frozen=True, kw_only=True)
class PartialSingular:
    """Singular triples of an operator, values descending, and how far each is from being one.

    `residuals` holds `||A v - s u||` in its first row and `||A^T u - s v||` in its second, from products that
    were computed, not from a recurrence. A sweep is one product with a block, whatever its width; products
    count columns. Inside a cluster of values single vectors are arbitrary; compare spans.
    """

    left: Float[Tensor, "rows k"]
    values: Float[Tensor, " k"]
    right: Float[Tensor, "columns k"]
    residuals: Float[Tensor, "2 k"]
    num_products: int
    num_sweeps: int
    method: str
    flags: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def errors(self) -> Float[Tensor, " k"]:
        """A true singular value lies within `errors[i]` of `values[i]`: the residual of `(u, v) / sqrt 2`."""
        return self.residuals.square().mean(0).sqrt()


def randomised_svd(
    operator: LinearOperator, k: int, *, oversample: int = 10, num_power: int = 1, seed: int
) -> PartialSingular:
    """About the `k` largest singular triples, for a price that is known beforehand.

    The range of A is sampled with random columns, sharpened by `num_power` passes through `A^T` and `A`
    with a QR decomposition after each, and A is decomposed inside it. Values come out too small, never too
    large (up to rounding); by how much, `.residuals` says.

    Cost: `2 num_power + 2` sweeps of `k + oversample` columns, and one of `k` for the residuals. Memory:
    about four such blocks in float64, in which everything but the products is computed.

    >>> from tremorscope.instruments.operators import Dense
    >>> randomised_svd(Dense(torch.diag(torch.tensor([3.0, 2.0, 1e-3]))), 2, seed=0).values
    tensor([3.0000, 2.0000], dtype=torch.float64)

    Raises:
        BadInput: If `k` is outside 1..the shorter side, or a product is not finite.

    Source: Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 53, 2011, algorithms
    4.4 and 5.1.
    """
    shorter = _check_count(operator, k)
    if oversample < 0 or num_power < 0:
        raise BadInput("oversample and num_power", got=(oversample, num_power), wanted="neither negative")
    counted = _Counted(operator)
    width = min(k + oversample, shorter)
    basis = torch.linalg.qr(counted.forward(_gaussian(operator.shape[1], width, seed, "range"))).Q
    for _ in range(num_power):
        basis = torch.linalg.qr(counted.adjoint(basis)).Q
        basis = torch.linalg.qr(counted.forward(basis)).Q
    images = counted.adjoint(basis)  # A^T Q: A is about Q (A^T Q)^T
    turn_right, values, turn_left = torch.linalg.svd(images, full_matrices=False)
    left, right = (basis @ turn_left.T)[:, :k], turn_right[:, :k]
    pulled = images @ turn_left.T[:, :k]
    return counted.finished(
        left, values[:k], right, counted.forward(right), pulled, f"randomised, {num_power} power passes"
    )


def block_golub_kahan(
    operator: LinearOperator,
    k: int,
    *,
    block: int | None = None,
    tol: float = 1e-6,
    max_blocks: int = 50,
    seed: int,
    allow_partial: bool = False,
) -> PartialSingular:
    """The `k` largest singular triples, to a tolerance.

    Golub-Kahan bidiagonalisation with blocks: every sweep serves the whole Krylov space so far, so that for
    the same number of sweeps it is never worse than power passes. Both bases are orthogonalised in full, twice,
    in float64; when they have grown to `k` and eight blocks, they are restarted from the best
    triples (a thick restart).

    Args:
        operator: Any; its transpose is used as often as itself.
        k: How many.
        block: Columns of a sweep, `k + 8` by default: with at least `k`, no copy of a repeated value can
            be missed, and sweeps are fewest. Narrower blocks need fewer products and more sweeps; a fresh
            start outside what was found then looks for missed copies.
        tol: Both residuals of each triple are at most `tol` times the largest value; a larger one (products
            in float32 are good to about 1e-6) is flagged.
        max_blocks: Pairs of sweeps, at most.
        seed: Of the first block.
        allow_partial: Return what there is, flagged, where otherwise `NotConverged` is raised.

    Values have dtype float64, vectors the operator's. Cost: two sweeps a block and two of `k` columns at the
    end. Memory: twice `k + 9 block` vectors in float64 at most.

    >>> from tremorscope.instruments.operators import Dense
    >>> block_golub_kahan(Dense(torch.diag(torch.tensor([3.0, 2.0, 2.0, 1.0]))), 3, seed=0).values
    tensor([3.0000, 2.0000, 2.0000], dtype=torch.float64)

    Raises:
        BadInput: If `k` or `block` is outside 1..the shorter side, or a product is not finite.
        NotConverged: If some of the `k` residuals stay above the tolerance after `max_blocks` blocks, or the
            true ones are far above those of the recurrence (then `A^T` is not the transpose of `A`).

    Source: Golub, Luk and Overton, ACM TOMS 7, 1981; Baglama and Reichel, "Augmented implicitly restarted
    Lanczos bidiagonalization methods", SIAM J. Sci. Comput. 27, 2005.
    """
    shorter = _check_count(operator, k)
    width = min(k + OVERSAMPLE, shorter) if block is None else block
    if not 1 <= width <= shorter or max_blocks < 1:
        raise BadInput(
            "block and max_blocks", got=(width, max_blocks), wanted=f"a block of 1 to {shorter}, at least one of them"
        )
    counted = _Counted(operator)
    krylov = _Krylov(counted, width, seed)
    flags: tuple[str, ...] = ()
    converged = krylov.run(k, tol, max_blocks)
    while converged and width < k and not krylov.is_whole:
        before = krylov.triples(k)[1]
        converged = krylov.searched_afresh(k, tol, max_blocks)
        after = krylov.triples(k)[1]
        if not bool((after - before > 10 * tol * after[0]).any()):
            break
        flags = ("repeated values: some copies were found only by a second start",)
    left, values, right = krylov.triples(k)
    found = counted.finished(
        left, values, right, counted.forward(right), counted.adjoint(left), f"block Golub-Kahan, blocks of {width}"
    )
    return _judged(found, operator, k, tol, max_blocks, converged, allow_partial, flags)


@final
class _Counted:
    """Products in float64 on the CPU, counted and checked."""

    def __init__(self, operator: LinearOperator) -> None:
        self.operator, self.num_products, self.num_sweeps = operator, 0, 0

    def forward(self, vectors: Tensor) -> Tensor:
        return self._checked(self.operator.mm(self._cast(vectors)))

    def adjoint(self, vectors: Tensor) -> Tensor:
        return self._checked(self.operator.rmm(self._cast(vectors)))

    def finished(
        self, left: Tensor, values: Tensor, right: Tensor, pushed: Tensor, pulled: Tensor, method: str
    ) -> PartialSingular:
        """Triples with residuals from their products `A v` and `A^T u`."""
        residuals = torch.stack([(pushed - left * values).norm(dim=0), (pulled - right * values).norm(dim=0)])
        return PartialSingular(
            left=self._cast(left),
            values=values,
            right=self._cast(right),
            residuals=residuals,
            num_products=self.num_products,
            num_sweeps=self.num_sweeps,
            method=method,
        )

    def _cast(self, vectors: Tensor) -> Tensor:
        return vectors.to(self.operator.device, self.operator.dtype)

    def _checked(self, result: Tensor) -> Tensor:
        self.num_products += result.shape[1]
        self.num_sweeps += 1
        num_bad = int((~result.isfinite()).sum())
        if num_bad:
            raise BadInput(
                f"product with {self.operator!r}", got=f"{num_bad} entries that are not finite", wanted="finite numbers"
            )
        return result.double().cpu()


@final
class _Krylov:
    """Two bases, `U` and `V`, and the small matrix `T = U^T A V`.

    At all times `A V = U T`, and `A^T U = V T^T` but for the last block of `U`, where a remainder `N S` is left
    over. `N` (`self.next`, orthonormal, perpendicular to `V`) is what the next sweep multiplies.
    """

    def __init__(self, counted: _Counted, width: int, seed: int) -> None:
        self.counted, self.width, self.seed = counted, width, seed
        rows, columns = counted.operator.shape
        self.left = torch.empty(rows, 0, dtype=torch.float64)
        self.right = torch.empty(columns, 0, dtype=torch.float64)
        self.small = torch.empty(0, 0, dtype=torch.float64)
        self.last = torch.empty(0, 0, dtype=torch.float64)  # S, against the last columns of U
        self.num_blocks = self.num_starts = 0
        self.next = self._random_block()

    @property
    def is_whole(self) -> bool:
        """Whether the bases can grow no more: then the triples are those of the operator."""
        left_is_full = self.left.shape[1] == self.left.shape[0] and self.next.shape[1] == 0
        return self.right.shape[1] == self.right.shape[0] or left_is_full

    def run(self, k: int, tol: float, max_blocks: int, *, at_least: int = 1) -> bool:
        """Grow until the first `k` triples are good to `tol`; False when `max_blocks` came first."""
        first = self.num_blocks
        while self.num_blocks < max_blocks:
            self._grow()
            if self.is_whole:
                return True
            if self.num_blocks - first >= at_least and self._estimated(k) <= tol:
                return True
            if self.next.shape[1] == 0:
                # An invariant space that does not hold k triples that are good: there are more outside.
                self.next = self._random_block()
                self.last = torch.zeros(self.next.shape[1], self.last.shape[1], dtype=torch.float64)
            if self.right.shape[1] >= k + _BASIS_BLOCKS * self.width:
                self._restart(k)
        return False

    def searched_afresh(self, k: int, tol: float, max_blocks: int) -> bool:
        """The same, from random columns outside of what was found."""
        self._restart(k)
        self.next = self._random_block()
        self.last = torch.zeros(self.next.shape[1], 0, dtype=torch.float64)
        return self.run(k, tol, self.num_blocks + max_blocks, at_least=_COPY_BLOCKS)

    def triples(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The `k` best triples inside the bases; fewer when the bases are smaller."""
        turn_left, values, turn_right = torch.linalg.svd(self.small, full_matrices=False)
        return self.left @ turn_left[:, :k], values[:k], self.right @ turn_right[:k].T

    def _grow(self) -> None:
        images = self.counted.forward(self.next)
        scale = max(float(images.norm(dim=0).max()), float(self.small.norm()) if self.small.numel() else 0.0)
        coefficients, fresh, remainder = _split(images, self.left, scale)
        self.right = torch.cat([self.right, self.next], dim=1)
        if fresh.shape[1] == 0 and self.left.shape[1] < min(self.left.shape[0], self.right.shape[1]):
            # A V lies inside U already (a rank deficiency): any further left vector will do, with weight 0.
            missing = min(self.left.shape[0], self.right.shape[1]) - self.left.shape[1]
            fresh = _outside(self.left, missing, self.seed, "left", self.num_blocks)
            remainder = torch.zeros(missing, images.shape[1], dtype=torch.float64)
        above = torch.cat([self.small, coefficients], dim=1)
        below = torch.cat([torch.zeros(fresh.shape[1], self.small.shape[1], dtype=torch.float64), remainder], dim=1)
        self.small = torch.cat([above, below])
        self.left = torch.cat([self.left, fresh], dim=1)
        self.num_blocks += 1
        if fresh.shape[1] == 0:
            self.next, self.last = self.right[:, :0], torch.zeros(0, 0, dtype=torch.float64)
            return
        _, self.next, self.last = _split(self.counted.adjoint(fresh), self.right, scale)

    def _estimated(self, k: int) -> float:
        """Largest residual of the first `k` triples by the recurrence, relative to the largest value."""
        turn_left, values, _ = torch.linalg.svd(self.small, full_matrices=False)
        if len(values) < k:
            return math.inf
        if float(values[0]) == 0:
            return 0.0
        on_last = turn_left[len(turn_left) - self.last.shape[1] :, :k]
        return float((self.last @ on_last).norm(dim=0).max() / values[0])

    def _restart(self, k: int) -> None:
        """Keep the best triples, half a block more than wanted: they help the slowest ones to converge."""
        kept = min(k + self.width // 2, min(self.small.shape))
        left, values, right = self.triples(kept)
        self.left, self.right, self.small = left, right, torch.diag(values)
        # What A^T u leaves over outside V is along `next`, which is the next block: A V = U T will hold with it.
        self.last = torch.zeros(self.next.shape[1], 0, dtype=torch.float64)

    def _random_block(self) -> Tensor:
        self.num_starts += 1
        free = self.right.shape[0] - self.right.shape[1]
        return _outside(self.right, min(self.width, free), self.seed, "start", self.num_starts)


def _split(block: Tensor, basis: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """`block = basis C + N S`: coefficients, an orthonormal new part without its null directions, and its factor."""
    coefficients = basis.T @ block
    rest = block - basis @ coefficients
    again = basis.T @ rest  # once is not enough where most of a column lies inside
    coefficients, rest = coefficients + again, rest - basis @ again
    room = basis.shape[0] - basis.shape[1]
    new, sizes, turn = torch.linalg.svd(rest, full_matrices=False)
    kept = min(room, int((sizes > 1e-13 * scale * math.sqrt(len(block))).sum()))
    new = new[:, :kept]
    # Directions that are small beside the block carry its rounding: clean them once more.
    new = torch.linalg.qr(new - basis @ (basis.T @ new)).Q if kept else new
    return coefficients, new, new.T @ rest if kept else sizes[:0, None] * turn[:0]


def _outside(basis: Tensor, count: int, seed: int, *names: str | int) -> Tensor:
    """Random orthonormal columns perpendicular to a basis."""
    drawn = _gaussian(basis.shape[0], count, seed, *names)
    for _ in range(2):
        drawn = torch.linalg.qr(drawn - basis @ (basis.T @ drawn)).Q
    return drawn


def _gaussian(size: int, count: int, seed: int, *names: str | int) -> Tensor:
    return torch.randn(size, count, generator=generator(seed, *names), dtype=torch.float64)


def _check_count(operator: LinearOperator, k: int) -> int:
    shorter = min(operator.shape)
    if not 1 <= k <= shorter:
        raise BadInput("number of singular triples", got=k, wanted=f"1 to {shorter}")
    return shorter


def _judged(
    found: PartialSingular,
    operator: LinearOperator,
    k: int,
    tol: float,
    max_blocks: int,
    converged: bool,
    allow_partial: bool,
    flags: tuple[str, ...],
) -> PartialSingular:
    """The verdict on true residuals: good, good as far as the products are, or not converged."""
    largest = float(found.values[0])
    relative = found.residuals.amax(0) / largest if largest > 0 else found.residuals.amax(0)
    worst, precision = float(relative.max()), str(operator.dtype).removeprefix("torch.")
    num_good = int((relative <= tol).sum())
    honest = worst <= max(tol, torch.finfo(operator.dtype).eps ** 0.5)
    if not (converged and honest):
        said = f"not converged: {num_good} of {k} triples after {found.num_sweeps} sweeps"
        if converged:
            said = f"the products with the transpose disagree: residual {worst:.1e} of the largest value"
        if not allow_partial:
            raise NotConverged(
                f"{k} singular triples of {operator!r}",
                got=f"{said}, the worst residual {worst:.1e} of the largest value",
                wanted=f"residuals below {tol:.0e} of it",
                remedy=f"Raise tol or max_blocks ({max_blocks}), ask for fewer, or pass allow_partial=True.",
            )
        flags += (said,)
    elif worst > tol:
        flags += (f"residual {worst:.1e} of the largest value, above tol {tol:.0e} ({precision} products)",)
    return PartialSingular(**{**vars(found), "flags": (*found.flags, *flags)})

"""Eigenvalues and eigenvectors of operators that can only be multiplied."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput, NotConverged
from tremorscope.instruments.operators.operator import LinearOperator
from tremorscope.instruments.thick_restart import (
    MEMORY,
    KrylovBasis,
    Progress,
    RitzPairs,
    Which,
    plan_basis,
    ranking,
)

DENSE_SIZE = 256  # below this the whole matrix costs less than an iteration's overhead
METHOD = "thick-restart Lanczos"
_LARGE = 50_000  # rows from which a product costs more than looking whether it was the last one needed
_STEPS_FOR_COPIES = 4  # and half of log(n), which is what a random start has to make up for
_OVERLOOKED = 0.01  # probability of overlooking a copy at which to look no further
_CORRECTIONS = 3
_WHICH = ("largest", "smallest", "most_negative", "largest_magnitude")


@final
@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Eigenvalues with their vectors, and how far each pair is from being one.

    `residuals[i]` is `||A v_i - lambda_i v_i||`, computed afresh: a true eigenvalue lies within it of
    `values[i]`. Inside a cluster of eigenvalues the single vectors are arbitrary; compare spans.
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "n k"]
    residuals: Float[Tensor, " k"]
    num_products: int
    method: str
    flags: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)


def eigsh(
    operator: LinearOperator,
    k: int,
    *,
    which: Which = "largest",
    tol: float = 1e-6,
    seed: int = 0,
    max_restarts: int = 1000,
    allow_partial: bool = False,
    copies: bool = True,
    block: int | None = None,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> Spectrum:
    """Some eigenpairs of a symmetric operator.

    Up to 256 rows, or when `k` is more than a quarter of them, the matrix is written down and decomposed.
    Otherwise: thick-restart Lanczos from a seeded start, so that the same call gives the same bits; the basis
    has the operator's dtype and is orthogonalised in full, small matrices are float64. A single start vector
    can miss copies of a repeated eigenvalue, so the basis is then started afresh outside of the found space until
    nothing above the last pair turns up. Such a look ends when a copy of any value before the last would have shown
    itself with probability 0.99, and after `4 + log(n) / 2` products in any case: where the wanted values
    crowd upon the others, copies of the last few may then be overlooked more often.

    Args:
        operator: Known to be symmetric.
        k: How many.
        which: `"largest"` and `"smallest"` count with sign and start at that end; `"most_negative"` is
            the smallest, but only those that are below zero by more than their residual (perhaps none);
            `"largest_magnitude"` starts with the largest absolute value.
        tol: Residuals are at most `tol` times the norm of the operator; a larger one (float32 products are
            good to about 1e-6) is flagged.
        seed: Of the start vectors.
        max_restarts: In all.
        allow_partial: Return the converged pairs with a flag, where otherwise `NotConverged` is raised.
        copies: Look for missed copies of repeated eigenvalues; without, a single start vector is trusted.
        block: Vectors that are multiplied together. One needs the fewest products and is the default; more pay
            where a block costs little more than a vector.
        memory: Bytes that the basis may take: `plan_basis` says beforehand how many it will. A product adds what it
            holds while it is computed, about the `kept_bytes` of a curvature operator.
        progress: Called now and then with products made, pairs converged, and the worst residual.

    Values have dtype float64, vectors the operator's. Cost: tens of products for the first pair, a few for
    each other, and at most `4 + log(n) / 2` for the search for copies; memory: by default twice `max(80, 3k)`
    vectors.

    >>> from tremorscope.instruments.operators import Dense
    >>> eigsh(Dense(torch.diag(torch.tensor([3.0, 1.0, -2.0]))), 2, which="largest_magnitude").values
    tensor([ 3., -2.], dtype=torch.float64)

    Raises:
        BadInput: If the operator is not known to be symmetric or has half precision, `k` is outside 1..n, a product
            is not finite, or the memory does not hold the smallest basis.
        NotConverged: If fewer than `k` pairs converged; the message lists those that did.

    Source: Wu and Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIMAX 22, 2000.
    """
    size = operator.shape[0]
    if not operator.is_symmetric:
        raise BadInput(
            "operator for eigsh",
            got=f"{operator!r}, not known to be symmetric",
            wanted="a symmetric one",
            remedy="Use decompose for a dense matrix, or eigsh(A.T @ A) for squared singular values.",
        )
    if operator.dtype not in (torch.float32, torch.float64):
        raise BadInput(
            "operator for eigsh",
            got=f"{operator!r} in {str(operator.dtype).removeprefix('torch.')}",
            wanted="float32 or float64",
            remedy="Cast the network: Network(module, dtype=torch.float32).",
        )
    if which not in _WHICH:
        raise BadInput("which eigenvalues", got=which, wanted=f"one of {', '.join(_WHICH)}")
    if not 1 <= k <= size:
        raise BadInput("number of eigenpairs", got=k, wanted=f"1 to {size}")
    if block is not None and not 1 <= block <= k + 8:
        raise BadInput("block", got=block, wanted=f"1 to {k + 8}")
    if size <= DENSE_SIZE or 4 * k >= size:
        spectrum = _by_dense(operator, k, which)
    else:
        width = block or 1
        plan = plan_basis(size, k, operator.dtype, block=width, memory=memory)
        basis = KrylovBasis(operator, plan, which, block=width, seed=seed)
        search = _Search(basis, k, width, tol, max_restarts, progress)
        spectrum = _by_lanczos(operator, search, copies, allow_partial)
    return _only_negative(spectrum) if which == "most_negative" else spectrum


def _by_dense(operator: LinearOperator, k: int, which: Which) -> Spectrum:
    matrix = operator.dense().double().cpu()
    if not bool(matrix.isfinite().all()):
        raise BadInput(f"products with {operator!r}", got="entries that are not finite", wanted="finite numbers")
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    order = ranking(values, which).argsort(descending=True, stable=True)[:k]
    values, vectors = values[order], vectors[:, order]
    return Spectrum(
        values=values,
        vectors=vectors.to(operator.device, operator.dtype),
        residuals=(matrix @ vectors - vectors * values).norm(dim=0),
        num_products=len(matrix),
        method="dense eigh",
    )


@final
@dataclass(frozen=True)
class _Search:
    """A Krylov basis, and when to be content with it."""

    basis: KrylovBasis
    k: int
    block: int
    tol: float
    max_restarts: int
    progress: Progress | None

    @property
    def aim(self) -> float:
        """Relative residual of the recurrence at which to stop; the true one is a little larger."""
        return max(0.9 * self.tol, self.basis.floor)

    def run(self, *, at_least: int = 1) -> tuple[RitzPairs, bool]:
        """Grow until the first k pairs are good; False when there were too many restarts."""
        basis, every = self.basis, 1 if self.basis.size >= _LARGE else 4
        for step in itertools.count(1):
            basis.grow()
            if basis.is_zero:
                return basis.ritz(), True
            if not (
                basis.is_full
                or basis.pending == 0
                or ((step % every == 0 or step == at_least) and basis.used >= self.k)
            ):
                continue
            pairs = basis.ritz()
            converged = pairs.residuals[: self.k] <= self.aim * basis.norm
            if self.progress is not None:
                worst = float(pairs.residuals[: self.k].max()) / basis.norm
                self.progress(basis.products.num_products, int(converged.sum()), worst)
            enough = step >= at_least or basis.used == basis.size
            if enough and basis.used >= self.k and bool(converged.all()):
                return pairs, True
            if basis.is_full:
                if basis.num_restarts >= self.max_restarts:
                    return pairs, False
                basis.restart(pairs, self.k)
            if basis.pending == 0:  # an invariant subspace: what is wanted besides lies outside
                if basis.used + 1 > basis.plan.num_basis:
                    basis.restart(pairs, self.k)
                basis.start_afresh(self.block)
        raise AssertionError("unreachable: the loop has no end of its own")

    def look_for_copies(self, pairs: RitzPairs) -> tuple[RitzPairs, bool, bool]:
        """Search again from random rows outside of what was found, wider each time that something turns up."""
        basis, count, found = self.basis, self.block, False
        steps = _STEPS_FOR_COPIES + math.ceil(math.log(basis.size) / 2)
        noticed = max(10 * self.aim, 1e-10) * basis.norm
        has_start = False
        if count == 1 and self.k + steps <= basis.plan.num_basis and basis.used < basis.size:
            pairs, has_start = self._glance(pairs, steps, noticed)
            if not has_start:
                return pairs, True, False
        while basis.used < basis.size:
            before = ranking(pairs.values[: self.k], basis.which)
            if not has_start:
                basis.restart(pairs, self.k, only_wanted=True)
                basis.start_afresh(count)
            has_start = False
            pairs, complete = self.run(at_least=steps)
            after = ranking(pairs.values[: self.k], basis.which)
            if not complete:
                return pairs, False, found
            if not bool((after - before > noticed).any()):
                break
            count, found = min(2 * count, self.k), True
        return pairs, True, found

    def _glance(self, pairs: RitzPairs, steps: int, noticed: float) -> tuple[RitzPairs, bool]:
        """The pairs as they were, and whether one random row leads to anything above the last of them.

        If so, the basis holds the pairs and is to go on from what was seen. A copy that one start vector missed is at
        right angles to all that came of it, not only to what has converged. With all of it out of the way, little is
        left that a copy must be told from, and fewer steps do. But what has not converged can no more go on when
        its residual is given up: it is for looking, not for finding.
        """
        basis, k = self.basis, self.k
        values = pairs.values[:k]
        before, turn = ranking(values, basis.which), pairs.turn[:, :k]
        if basis.used + steps > basis.plan.num_basis:
            basis.restart(pairs, k, room=steps)
            turn = torch.eye(basis.used, dtype=torch.float64)[:, :k]
        chain = _FreshChain(basis, values[before > before[-1] + noticed].tolist())
        basis.start_afresh(1)
        for _ in range(steps):
            basis.grow()
            if basis.pending == 0 or chain.would_have_shown():
                break
        something = bool((ranking(basis.ritz().values[:k], basis.which) - before > noticed).any())
        seen, as_they_were = chain.first(), RitzPairs(values, turn, pairs.residuals[:k])
        basis.forget(chain.begin)
        if something:
            basis.restart(as_they_were, k, only_wanted=True)
            basis.follow_with(seen)
        return as_they_were, something


@final
class _FreshChain:
    """What follows one random row that a basis is started afresh with, and what it says of some eigenvalues."""

    def __init__(self, basis: KrylovBasis, values: list[float]) -> None:
        self.basis, self.begin, self.values = basis, basis.used, values

    def would_have_shown(self) -> bool:
        """Whether these eigenvalues, had there been any outside of the old basis, are all but excluded.

        An eigenvalue weighs in the chain what the random row has of its eigenvectors, squared. No measure with the
        moments of the chain has more weight in one place than the Christoffel function there, one over the
        sum of squared orthonormal polynomials; and a random unit row in n dimensions has less than `w` of one
        direction with a probability of at most `sqrt(2 n w / pi)`.
        """
        inner = self._inner()
        # The coupling to the pending row gives one polynomial more, without its product.
        diagonal, beside = inner.diagonal().tolist(), [*inner.diagonal(1).tolist(), float(self.basis.coupling)]
        needed = 2 * self.basis.size / (math.pi * _OVERLOOKED**2)
        sums = [_christoffel_sum(value, diagonal, beside, needed) for value in self.values]
        return bool(sums) and min(sums) >= needed

    def first(self) -> Tensor:
        """The best approximate eigenvector inside the chain, as a row."""
        values, turn = torch.linalg.eigh(self._inner())
        best = turn[:, int(ranking(values, self.basis.which).argmax())]
        rows = self.basis.rows[self.begin : self.basis.used]
        row: Tensor = best.to(rows)[None] @ rows
        return row

    def _inner(self) -> Tensor:
        own = slice(self.begin, self.basis.used)
        return self.basis.inner[own, own]


def _christoffel_sum(at: float, diagonal: list[float], beside: list[float], enough: float) -> float:
    """`sum_j p_j(at)^2` of the orthonormal polynomials of a Jacobi matrix, or the first partial sum that is enough."""
    last, this, total = 0.0, 1.0, 1.0
    for place, coupling in enumerate(beside):
        back = beside[place - 1] * last if place else 0.0
        last, this = this, ((at - diagonal[place]) * this - back) / coupling
        total += this * this
        if total >= enough:
            break
    return total


def _by_lanczos(operator: LinearOperator, search: _Search, copies: bool, allow_partial: bool) -> Spectrum:
    basis, k = search.basis, search.k
    pairs, complete = search.run()
    if basis.is_zero:
        return _of_zero(operator, k)
    flags: tuple[str, ...] = ()
    if complete and copies and k > 1:  # copies of the last one would change nothing
        pairs, complete, found = search.look_for_copies(pairs)
        if found:
            flags += ("repeated eigenvalues: some copies were found only by a fresh start",)
    wanted = pairs.turn[:, :k]
    if not complete:
        good = pairs.residuals[:k] <= search.aim * basis.norm
        wanted = wanted[:, good]
        if not allow_partial:
            shown = ", ".join(f"{value:.6g}" for value in pairs.values[:k][good][:5].tolist()) or "none"
            raise NotConverged(
                f"{k} eigenpairs of {operator!r}",
                got=f"{int(good.sum())} after {search.max_restarts} restarts ({shown})",
                wanted=f"{k} with residual below {search.tol:.0e} of the norm",
                remedy="Raise tol or max_restarts, ask for fewer, or pass allow_partial=True.",
            )
        flags += (f"not converged: {int(good.sum())} of {k} eigenpairs",)
    values, vectors, residuals = basis.polished(wanted)
    for _ in range(_CORRECTIONS):
        # The recurrence of a basis that was started afresh does not see what the old one had left.
        if (
            not complete
            or basis.images is None
            or float(residuals.max()) <= max(search.tol, 2 * basis.floor) * basis.norm
        ):
            break
        basis.restart(pairs, k, only_wanted=True)
        basis.follow_residuals(basis.ritz(), k)
        pairs, complete = search.run()
        values, vectors, residuals = basis.polished(pairs.turn[:, :k])
    worst = float(residuals.max()) if len(values) else 0.0
    if worst > search.tol * basis.norm:
        precision = str(operator.dtype).removeprefix("torch.")
        flags += (f"residual {worst / basis.norm:.1e} of the norm, above tol {search.tol:.0e} ({precision} products)",)
    return Spectrum(
        values=values,
        vectors=vectors,
        residuals=residuals,
        num_products=basis.products.num_products,
        method=METHOD,
        flags=flags,
    )


def _of_zero(operator: LinearOperator, k: int) -> Spectrum:
    return Spectrum(
        values=torch.zeros(k, dtype=torch.float64),
        vectors=torch.eye(operator.shape[0], k, dtype=operator.dtype, device=operator.device),
        residuals=torch.zeros(k, dtype=torch.float64),
        num_products=1,
        method=METHOD,
        flags=("the operator is zero",),
    )


def _only_negative(spectrum: Spectrum) -> Spectrum:
    negative = spectrum.values < -spectrum.residuals
    if bool(negative.all()):
        return spectrum
    return replace(
        spectrum,
        values=spectrum.values[negative],
        vectors=spectrum.vectors[:, negative],
        residuals=spectrum.residuals[negative],
        flags=(*spectrum.flags, f"{int(negative.sum())} negative eigenvalues, {len(negative)} asked for"),
    )

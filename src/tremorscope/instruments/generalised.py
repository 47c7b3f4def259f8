"""Directions in which one symmetric operator is largest for what another one makes them cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput, NotConverged
from tremorscope.instruments.operators.operator import LinearOperator
from tremorscope.instruments.spectrum import DENSE_SIZE, Spectrum, eigsh
from tremorscope.instruments.thick_restart import RowProducts, ranking

_SPARE = 4  # pairs of the start beyond those asked for
_STALLED = 12  # iterations without a residual half as large: rounding is reached


def generalised_eigsh(
    a: LinearOperator,
    b: LinearOperator,
    k: int,
    *,
    damping: float,
    preconditioner: Spectrum | None = None,
    which: Literal["largest", "smallest", "largest_magnitude"] = "largest",
    tol: float = 1e-6,
    seed: int = 0,
    max_iterations: int = 300,
    allow_partial: bool = False,
) -> Spectrum:
    """Some solutions of `a u = lambda (b + damping I) u`.

    The largest `lambda` is the maximum of `u^T a u / u^T (b + damping I) u`: most of `a` for the `b` that it costs.

    Block Davidson: the residuals of pairs that have not converged are divided by a preconditioner and join a basis
    that is orthonormal in the inner product of `b + damping I`; converged pairs stay in it (soft locking). The
    preconditioner is `(Q Lambda Q^T + damping I)^-1` with the top eigenpairs of b, and the start is the
    solution with it in place of b, which is an ordinary eigenproblem. Up to 256 rows: dense.

    Args:
        a: Known to be symmetric; may be indefinite.
        b: Known to be symmetric, of the same shape. A Hessian has negative eigenvalues, and no others are clipped or
            turned here: take a Gauss-Newton matrix, or more damping.
        k: How many.
        damping: Added to b; what is then not positive definite is refused.
        preconditioner: Eigenpairs of b, as `eigsh(b, ...)` gives them; by default `k + 20` of them are found here.
        which: `"largest"`, `"smallest"` (both with sign) or `"largest_magnitude"`.
        tol: Residuals `r` of unit vectors, in the norm `r^T M^-1 r` of the preconditioner, are at most `tol` times
            the largest `|lambda|`; or as small as the products' rounding lets them be, which is flagged.
        seed: Of all random starts.
        max_iterations: Of the block.
        allow_partial: Return what there is with a flag, where otherwise `NotConverged` is raised.

    Returns vectors with `u^T (b + damping I) u = 1`. `residuals` are `||a u - lambda (b + damping I) u||` over the
    root of the smallest eigenvalue of `b + damping I`: a true eigenvalue lies within. `num_products` counts those of
    a and of b. Memory: three times about `6k + 20` vectors in float64.

    >>> from tremorscope.instruments.operators import Dense
    >>> a, b = Dense(torch.diag(torch.tensor([6.0, 1.0]))), Dense(torch.diag(torch.tensor([3.0, 0.0])))
    >>> generalised_eigsh(a, b, 2, damping=0.5).values
    tensor([2.0000, 1.7143], dtype=torch.float64)

    Raises:
        BadInput: If an operator is not known to be symmetric, shapes or dtypes differ, or `b + damping I` is not
            positive definite; the message says which damping would do.
        NotConverged: If a pair does not reach its tolerance.

    Source: Davidson's method for generalised problems as in Morgan and Scott, SIAM J. Sci. Stat. Comput. 7, 1986;
    the low-rank preconditioner is as in Frangella, Tropp and Udell, arXiv:2110.02820.
    """
    size = _checked(a, b, k, damping, which)
    if size <= DENSE_SIZE or 4 * k >= size:
        return _by_dense(a, b, k, damping, which)
    lowest = eigsh(b, 1, which="smallest", tol=1e-4, seed=seed)
    least = float(lowest.values[0] - lowest.residuals[0])
    _check_definite(float(lowest.values[0]), least, damping)
    top = preconditioner
    if top is None:
        top = eigsh(b, min(k + 20, size // 4 - 1), tol=1e-2, seed=seed)
    root = _Preconditioner.of(top, damping, a)
    products_before = lowest.num_products + (top.num_products if preconditioner is None else 0)
    start = eigsh(_Whitened(a, root), min(k + _SPARE, size // 4), which=which, tol=1e-2, seed=seed, allow_partial=True)
    search = _Davidson(a, b, damping, root, which, capacity=min(size, 6 * k + 20))
    search.extend(root.half(start.vectors.T.double()))
    values, vectors, residuals, norms, iterations = search.run(k, tol, max_iterations)
    flags, scale = start.flags[:0], float(values.abs().max())
    worst = float(norms.max())
    if worst > tol * scale:
        stalled = worst <= math.sqrt(torch.finfo(a.dtype).eps) * scale
        said = f"residual {worst / max(scale, 1e-300):.1e} of the largest value after {iterations} iterations"
        if not stalled and not allow_partial:
            raise NotConverged(
                f"{k} generalised eigenpairs of {a!r}",
                got=said,
                wanted=f"at most {tol:.0e}",
                remedy="Raise tol, max_iterations or damping, or give more eigenpairs of b as preconditioner.",
            )
        flags = (f"{said}, above tol {tol:.0e}",)
    return Spectrum(
        values=values,
        vectors=vectors.T.to(a.device, a.dtype).contiguous(),
        residuals=residuals / math.sqrt(max(least + damping, 1e-300)),
        num_products=products_before + start.num_products + search.num_products,
        method="block Davidson, deflation preconditioner",
        flags=flags,
    )


@final
@dataclass(frozen=True, kw_only=True)
class _Preconditioner:
    """`M = Q Lambda Q^T + rest (I - Q Q^T)`, and powers of it, for vectors in rows."""

    basis: Float[Tensor, "n p"]
    values: Float[Tensor, " p"]
    rest: float

    @classmethod
    def of(cls, top: Spectrum, damping: float, like: LinearOperator) -> _Preconditioner:
        if top.vectors.shape[0] != like.shape[0]:
            raise BadInput(
                "preconditioner", got=f"{top.vectors.shape[0]} rows", wanted=f"eigenpairs of b, with {like.shape[0]}"
            )
        positive = top.values > 0
        if not bool(positive.any()):
            return cls(basis=top.vectors[:, :0].double(), values=top.values[:0], rest=damping or 1.0)
        values = top.values[positive].to(like.device) + damping
        return cls(
            basis=top.vectors[:, positive.to(like.device)].double(), values=values, rest=damping or float(values.min())
        )

    def half(self, rows: Tensor) -> Tensor:
        """`M^-1/2` times each row."""
        return self._power(rows, -0.5)

    def inverse(self, rows: Tensor) -> Tensor:
        """`M^-1` times each row."""
        return self._power(rows, -1.0)

    def _power(self, rows: Tensor, exponent: float) -> Tensor:
        inside = rows @ self.basis
        bulk = self.rest**exponent
        result: Tensor = bulk * rows + (inside * (self.values**exponent - bulk)) @ self.basis.T
        return result


@final
class _Whitened(LinearOperator):
    """`M^-1/2 A M^-1/2`."""

    def __init__(self, operator: LinearOperator, root: _Preconditioner) -> None:
        self.operator, self.root = operator, root

    @property
    def shape(self) -> tuple[int, int]:
        """As inside."""
        return self.operator.shape

    @property
    def dtype(self) -> torch.dtype:
        """As inside."""
        return self.operator.dtype

    @property
    def device(self) -> torch.device:
        """As inside."""
        return self.operator.device

    @property
    def is_symmetric(self) -> bool:
        """True."""
        return True

    def forward_block(self, vectors: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Two thin products and one with A."""
        inner = self.root.half(vectors.T.double()).T.to(self.dtype)
        return self.root.half(self.operator.mm(inner).T.double()).T.to(self.dtype)

    def adjoint_block(self, vectors: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The same."""
        return self.forward_block(vectors)


@final
class _Davidson:
    """Rows `S` with `S B S^T = I`, and their images under A and `B = b + damping I`, all float64."""

    def __init__(
        self,
        a: LinearOperator,
        b: LinearOperator,
        damping: float,
        root: _Preconditioner,
        which: Literal["largest", "smallest", "largest_magnitude"],
        *,
        capacity: int,
    ) -> None:
        self.a, self.b, self.damping, self.root, self.which = RowProducts(a), RowProducts(b), damping, root, which
        self.capacity = capacity
        self.rows = torch.empty(0, a.shape[0], dtype=torch.float64, device=a.device)
        self.images_a, self.images_b = self.rows.clone(), self.rows.clone()

    @property
    def num_products(self) -> int:
        return self.a.num_products + self.b.num_products

    def extend(self, fresh: Tensor) -> None:
        """Take in the span of some rows, orthonormalised in the inner product of B."""
        fresh = fresh / fresh.norm(dim=1, keepdim=True).clamp(min=1e-300)
        for _ in range(2):
            fresh = fresh - (fresh @ self.images_b.T) @ self.rows
        fresh = fresh / fresh.norm(dim=1, keepdim=True).clamp(min=1e-300)
        images = self._costs(fresh)
        for _ in range(2):
            gram = fresh @ images.T
            sizes, turn = torch.linalg.eigh((gram + gram.T) / 2)
            kept = sizes > 1e-12 * sizes[-1]
            if float(sizes[0]) < -1e-6 * float(sizes[-1].abs()) or not bool(kept.any()):
                _check_definite(float(sizes[0]) - self.damping, float(sizes[0]) - self.damping, self.damping)
            scaled = (turn[:, kept] / sizes[kept].sqrt()).T
            fresh, images = scaled @ fresh, scaled @ images
            along = fresh @ self.images_b.T
            fresh, images = fresh - along @ self.rows, images - along @ self.images_b
        self.rows = torch.cat([self.rows, fresh])
        self.images_b = torch.cat([self.images_b, images])
        self.images_a = torch.cat([self.images_a, self._product(self.a, fresh)])

    def run(self, k: int, tol: float, max_iterations: int) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """Values, vectors, residuals and their preconditioned norms of the first k pairs, and the iterations made."""
        best, since = math.inf, 0
        for iteration in range(max_iterations):
            values, turn = self._ritz()
            vectors, image_a, image_b = (turn[:, :k].T @ part for part in (self.rows, self.images_a, self.images_b))
            left = image_a - values[:k, None].to(image_b) * image_b
            refined = self.root.inverse(left)
            norms = (left * refined).sum(1).clamp(min=0).sqrt().cpu()
            scale = float(values[:k].abs().max())
            worst = float(norms.max())
            best, since = (worst, 0) if worst < 0.5 * best else (best, since + 1)
            open_ = norms > tol * scale
            if not bool(open_.any()) or since >= _STALLED or iteration == max_iterations - 1:
                break
            if len(self.rows) + int(open_.sum()) > self.capacity:
                self._shrink(turn[:, : min(len(self.rows), 2 * k + _SPARE)])
            self.extend(refined[open_.to(refined.device)])
        return values[:k].cpu(), vectors, left.norm(dim=1).cpu(), norms, iteration + 1

    def _ritz(self) -> tuple[Tensor, Tensor]:
        inner, gram = self.rows @ self.images_a.T, self.rows @ self.images_b.T
        values, turn = _pencil((inner + inner.T) / 2, (gram + gram.T) / 2)
        order = ranking(values, self.which).argsort(descending=True, stable=True)
        return values[order], turn[:, order]

    def _shrink(self, turn: Tensor) -> None:
        self.rows, self.images_a, self.images_b = (turn.T @ part for part in (self.rows, self.images_a, self.images_b))

    def _costs(self, rows: Tensor) -> Tensor:
        return self._product(self.b, rows) + self.damping * rows

    @staticmethod
    def _product(products: RowProducts, rows: Tensor) -> Tensor:
        return products(rows.to(products.operator.dtype)).to(torch.float64)


def _by_dense(
    a: LinearOperator,
    b: LinearOperator,
    k: int,
    damping: float,
    which: Literal["largest", "smallest", "largest_magnitude"],
) -> Spectrum:
    left, right = (operator.dense().double().cpu() for operator in (a, b))
    for operator, dense in ((a, left), (b, right)):
        if not bool(dense.isfinite().all()):
            raise BadInput(f"products with {operator!r}", got="entries that are not finite", wanted="finite numbers")
    left, right = (left + left.T) / 2, (right + right.T) / 2
    costs = torch.linalg.eigvalsh(right)
    _check_definite(float(costs[0]), float(costs[0]), damping)
    right = right + damping * torch.eye(len(right), dtype=torch.float64)
    values, vectors = _pencil(left, right)
    order = ranking(values, which).argsort(descending=True, stable=True)[:k]
    values, vectors = values[order], vectors[:, order]
    residuals = (left @ vectors - right @ vectors * values).norm(dim=0) / math.sqrt(float(costs[0]) + damping)
    return Spectrum(
        values=values,
        vectors=vectors.to(a.device, a.dtype),
        residuals=residuals,
        num_products=2 * len(left),
        method="dense generalised eigh",
    )


def _pencil(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """All solutions of `left u = lambda right u`, ascending, with `u^T right u = 1`."""
    lower = torch.linalg.cholesky(right)
    half = torch.linalg.solve_triangular(lower, left, upper=False)
    inner = torch.linalg.solve_triangular(lower, half.T, upper=False)
    values, turn = torch.linalg.eigh((inner + inner.T) / 2)
    return values, torch.linalg.solve_triangular(lower.T, turn, upper=True)


def _check_definite(lowest: float, least: float, damping: float) -> None:
    """`lowest` was found; no eigenvalue is below `least`."""
    if least + damping > 0:
        return
    enough = 2 * max(abs(least), 1e-300)
    raise BadInput(
        "b + damping I of a generalised eigenproblem",
        got=f"b with the eigenvalue {lowest:.4g}, damping {damping:.4g}",
        wanted="a positive definite sum",
        remedy=f"Use damping={enough:.2g}, or a b without negative eigenvalues, such as a Gauss-Newton matrix.",
    )


def _checked(a: LinearOperator, b: LinearOperator, k: int, damping: float, which: str) -> int:
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        raise BadInput(
            "operators of a generalised eigenproblem", got=f"{a!r} and {b!r}", wanted="equal shape and dtype"
        )
    for name, operator in (("a", a), ("b", b)):
        if not operator.is_symmetric:
            raise BadInput(
                f"operator {name} of a generalised eigenproblem",
                got=f"{operator!r}, not known to be symmetric",
                wanted="a symmetric one",
            )
    if which not in ("largest", "smallest", "largest_magnitude"):
        raise BadInput("which eigenvalues", got=which, wanted="largest, smallest or largest_magnitude")
    if not 1 <= k <= a.shape[0]:
        raise BadInput("number of eigenpairs", got=k, wanted=f"1 to {a.shape[0]}")
    if not damping >= 0:
        raise BadInput("damping", got=damping, wanted="a number that is not negative")
    return a.shape[0]

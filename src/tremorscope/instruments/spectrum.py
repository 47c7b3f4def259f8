"""Eigenvalues and traces of operators that can only be multiplied."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput, NotConverged
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.seeds import generator, numpy_generator
from tremorscope.instruments.operators.operator import LinearOperator

Which = Literal["largest", "smallest", "most_negative", "largest_magnitude"]
DENSE_SIZE = 256  # below this the whole matrix costs less than an iteration's overhead
_ARPACK_NAMES = {"largest": "LA", "smallest": "SA", "most_negative": "SA", "largest_magnitude": "LM"}
_PROBES = 32  # probes of a trace that are multiplied together


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
) -> Spectrum:
    """Some eigenpairs of a symmetric operator.

    Up to 256 rows, or when `k` is more than a quarter of them, the matrix is written down and
    decomposed. Otherwise: restarted Lanczos (ARPACK) in float64 from a seeded start, so that the same call
    gives the same bits. A single start vector can miss copies of a repeated eigenvalue, so the found
    space is then deflated and searched again until nothing above the last pair is left.

    Args:
        operator: Known to be symmetric.
        k: How many.
        which: `"largest"` and `"smallest"` count with sign and start at that end; `"most_negative"` is
            the smallest, but only those that are below zero by more than their residual (perhaps none);
            `"largest_magnitude"` starts with the largest absolute value.
        tol: Residuals are at most `tol` times the norm of the operator; a larger one (float32 products are
            good to about 1e-6) is flagged.
        seed: Of the start vectors.
        max_restarts: Of each search.
        allow_partial: Return the converged pairs with a flag, where otherwise `NotConverged` is raised.

    Values have dtype float64, vectors the operator's. Cost: tens of products for the first pair, a few for
    each other; memory: about 3k + 100 vectors.

    >>> from tremorscope.instruments.operators import Dense
    >>> eigsh(Dense(torch.diag(torch.tensor([3.0, 1.0, -2.0]))), 2, which="largest_magnitude").values
    tensor([ 3., -2.], dtype=torch.float64)

    Raises:
        BadInput: If the operator is not known to be symmetric, `k` is outside 1..n, or a product is
            not finite.
        NotConverged: If fewer than `k` pairs converged; the message lists those that did.

    Source: Lehoucq, Sorensen and Yang, "ARPACK Users' Guide", SIAM 1998.
    """
    size = operator.shape[0]
    if not operator.is_symmetric:
        raise BadInput(
            "operator for eigsh",
            got=f"{operator!r}, not known to be symmetric",
            wanted="a symmetric one",
            remedy="Use decompose for a dense matrix, or eigsh(A.T @ A) for squared singular values.",
        )
    if which not in _ARPACK_NAMES:
        raise BadInput("which eigenvalues", got=which, wanted=f"one of {', '.join(_ARPACK_NAMES)}")
    if not 1 <= k <= size:
        raise BadInput("number of eigenpairs", got=k, wanted=f"1 to {size}")
    counted = _Counted(operator)
    if size <= DENSE_SIZE or 4 * k >= size:
        spectrum = _by_dense(counted, k, which)
    else:
        spectrum = _by_arpack(counted, k, which, tol, seed, max_restarts, allow_partial)
    return _only_negative(spectrum) if which == "most_negative" else spectrum


def trace(operator: LinearOperator, *, num_probes: int = 64, seed: int = 0, level: float = LEVEL) -> Estimate:
    """Trace of an operator we can only multiply: the mean of `z^T A z` over random signs z.

    Unbiased; one probe has variance `2 (||A||_F^2 - sum_i A_ii^2)` for symmetric A. The interval is Student's
    t. Cost: `num_probes` products. Units: those of the operator's entries.

    >>> from tremorscope.instruments.operators import Identity
    >>> print(trace(Identity(5), num_probes=4))
    5 [5, 5]

    Raises:
        BadInput: If the operator is not square, there are fewer than two probes, or a product is not finite.

    Source: Hutchinson, Communications in Statistics 18, 1989.
    """
    size = _square(operator, "trace")
    if num_probes < 2:
        raise BadInput("probes of a trace", got=num_probes, wanted="at least 2, for an interval")
    stream = generator(seed, "trace")
    samples = []
    for start in range(0, num_probes, _PROBES):
        width = min(_PROBES, num_probes - start)
        signs = torch.randint(0, 2, (width, size), generator=stream).mul_(2).sub_(1).T
        probes = signs.to(operator.device, operator.dtype)
        products = operator.mm(probes)
        samples.append((probes.double() * products.double()).sum(0).cpu())
    return Estimate.mean(torch.cat(samples).numpy(), level=level)


def exact_trace(operator: LinearOperator) -> Estimate:
    """Trace by the whole diagonal. Cost: as many products as rows; memory of a few columns.

    Raises:
        BadInput: If the operator is not square, or an entry is not finite.
    """
    _square(operator, "trace")
    total = float(operator.diagonal().double().sum())
    if not numpy.isfinite(total):
        raise BadInput("trace of an operator", got=total, wanted="finite diagonal entries")
    return Estimate.exact(total)


@final
class _Counted:
    """An operator as ARPACK sees it: float64 NumPy vectors in and out, products counted and checked."""

    def __init__(self, operator: LinearOperator) -> None:
        self.operator, self.num_products = operator, 0

    def vector(self, entries: Any) -> Any:
        return self.block(torch.from_numpy(numpy.array(entries, dtype=numpy.float64).reshape(-1, 1))).numpy()[:, 0]

    def block(self, vectors: Tensor) -> Tensor:
        """`A V` for float64 columns on the CPU."""
        self.num_products += vectors.shape[1]
        result = self.operator.mm(vectors.to(self.operator.device, self.operator.dtype)).double().cpu()
        num_bad = int((~result.isfinite()).sum())
        if num_bad:
            raise BadInput(
                f"product with {self.operator!r}", got=f"{num_bad} entries that are not finite", wanted="finite numbers"
            )
        return result


def _by_dense(counted: _Counted, k: int, which: Which) -> Spectrum:
    matrix = counted.operator.dense().double().cpu()
    counted.num_products = len(matrix)
    if not bool(matrix.isfinite().all()):
        raise BadInput(
            f"products with {counted.operator!r}", got="entries that are not finite", wanted="finite numbers"
        )
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return _finished(counted, values, vectors, k, which, "dense eigh", matrix)


def _by_arpack(
    counted: _Counted, k: int, which: Which, tol: float, seed: int, max_restarts: int, allow_partial: bool
) -> Spectrum:
    norm = _norm(counted, seed)
    if norm == 0:
        zeros, units = torch.zeros(k, dtype=torch.float64), torch.eye(counted.operator.shape[0], k, dtype=torch.float64)
        return replace(_finished(counted, zeros, units, k, which, "ARPACK"), flags=("the operator is zero",))
    search = _Search(counted, which, tol, seed, max_restarts, norm)
    values, vectors, complete = search.run(k)
    flags: tuple[str, ...] = ()
    if not complete and not allow_partial:
        shown = ", ".join(f"{value:.6g}" for value in values[:5].tolist()) or "none"
        raise NotConverged(
            f"{k} eigenpairs of {counted.operator!r}",
            got=f"{len(values)} after {max_restarts} restarts ({shown})",
            wanted=f"{k} with residual below {tol:.0e} of the norm",
            remedy="Raise tol or max_restarts, ask for fewer, or pass allow_partial=True.",
        )
    if complete:
        values, vectors, flags = _with_missed_copies(search, values, vectors)
    else:
        flags = (f"not converged: {len(values)} of {k} eigenpairs",)
    spectrum = _finished(counted, values, vectors, k, which, "ARPACK")
    worst = float(spectrum.residuals.max()) if len(spectrum) else 0.0
    if worst > tol * search.norm:
        precision = str(counted.operator.dtype).removeprefix("torch.")
        flags += (f"residual {worst / search.norm:.1e} of the norm, above tol {tol:.0e} ({precision} products)",)
    return replace(spectrum, flags=flags)


def _with_missed_copies(search: _Search, values: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Look again outside the found space, with twice as many each time that something turns up."""
    k, more = len(values), 1
    flags: tuple[str, ...] = ()
    while len(values) + more < len(vectors) - 1:
        extra, beyond, complete = search.run(more, outside=(values, vectors))
        last = _keys(values, search.which).kthvalue(len(values) - k + 1).values
        missed = _keys(extra, search.which) > last + max(search.tol, 1e-10) * search.norm
        if not complete:
            flags = ("the search for missed copies of repeated eigenvalues did not converge",)
        if not bool(missed.any()):
            break
        values = torch.cat([values, extra[missed]])
        # ARPACK keeps them orthogonal to the found space only up to its tolerance.
        vectors = torch.linalg.qr(torch.cat([vectors, beyond[:, missed]], dim=1)).Q
        more = min(2 * more, k)
    if len(values) > k:
        flags += (f"repeated eigenvalues: {len(values) - k} found only by deflation",)
    return values, vectors, flags


def _norm(counted: _Counted, seed: int) -> float:
    """Largest absolute eigenvalue within a few per cent, from below, by 12 steps of Lanczos."""
    size, num_steps = counted.operator.shape[0], 12
    stream = generator(seed, "norm")
    vector = torch.randn(size, 1, generator=stream, dtype=torch.float64)
    basis, images = vector / vector.norm(), torch.empty(size, 0, dtype=torch.float64)
    for step in range(num_steps):
        images = torch.cat([images, counted.block(basis[:, step:])], dim=1)
        fresh = images[:, step:] - basis @ (basis.T @ images[:, step:])
        fresh -= basis @ (basis.T @ fresh)
        if float(fresh.norm()) <= 1e-8 * float(images.norm()):
            break
        basis = torch.cat([basis, fresh / fresh.norm()], dim=1)
    inner = basis[:, : images.shape[1]].T @ images
    return float(torch.linalg.eigvalsh((inner + inner.T) / 2).abs().max())


@final
@dataclass(frozen=True)
class _Search:
    """One call of ARPACK, over the whole space or outside what is already found."""

    counted: _Counted
    which: Which
    tol: float
    seed: int
    max_restarts: int
    norm: float

    def run(self, k: int, outside: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor, bool]:
        import scipy.sparse.linalg as sparse  # 0.2 s to import

        size = self.counted.operator.shape[0]
        stream = numpy_generator(self.seed, "eigsh", 0 if outside is None else len(outside[0]))
        start = stream.standard_normal(size)
        # ARPACK's tolerance is relative to each eigenvalue. Moved away from 0 by the norm, the smallest
        # ones are converged relative to the norm, rather than to their own, possibly tiny, size.
        away = {"largest": 1.0, "smallest": -1.0, "most_negative": -1.0, "largest_magnitude": 0.0}[self.which]
        shift = away * self.norm
        basis = None if outside is None else outside[1].numpy()
        if basis is not None:
            start -= basis @ (basis.T @ start)

        def product(vector: Any) -> Any:
            vector = numpy.asarray(vector).reshape(-1)
            if basis is None:
                return self.counted.vector(vector) + shift * vector
            inside = basis @ (basis.T @ vector)
            image = self.counted.vector(vector - inside) + shift * (vector - inside)
            # The found space goes to the far end of the spectrum, where no search will find it again.
            return image - basis @ (basis.T @ image) - shift * inside

        # The lower end of a Hessian is crowded: a long recurrence there saves most of the restarts.
        # Newer SciPy draws a replacement for an exhausted start vector from this stream; older ones from a fixed one.
        options = {"rng": stream} if "rng" in inspect.signature(sparse.eigsh).parameters else {}
        wrapped = sparse.LinearOperator((size, size), matvec=product, dtype=numpy.float64)
        try:
            values, vectors = sparse.eigsh(
                wrapped,
                k=k,
                which=_ARPACK_NAMES[self.which],
                tol=self.tol,
                v0=start,
                maxiter=self.max_restarts,
                ncv=min(size, max(2 * k + 1, 20 if away >= 0 else 80)),
                **options,
            )
        except sparse.ArpackNoConvergence as error:
            return torch.from_numpy(error.eigenvalues) - shift, torch.from_numpy(error.eigenvectors), False
        except sparse.ArpackError as error:
            raise NotConverged(f"{k} eigenpairs of {self.counted.operator!r}", got=str(error)) from error
        return torch.from_numpy(values) - shift, torch.from_numpy(vectors), True


def _finished(
    counted: _Counted,
    values: Tensor,
    vectors: Tensor,
    k: int,
    which: Which,
    method: str,
    matrix: Tensor | None = None,
) -> Spectrum:
    """The `k` wanted pairs in order, with residuals of the vectors that are handed out."""
    order = _keys(values, which).argsort(descending=True, stable=True)[:k]
    values, vectors = values[order], vectors[:, order]
    products = counted.block(vectors) if matrix is None else matrix @ vectors
    if matrix is None and len(order):
        # One Rayleigh-Ritz step inside the span: after deflation the pairs of a cluster are a mixed lot.
        inner = vectors.T @ products
        _, turn = torch.linalg.eigh((inner + inner.T) / 2)
        vectors, products = vectors @ turn, products @ turn
        values = (vectors * products).sum(0)
        order = _keys(values, which).argsort(descending=True, stable=True)
        values, vectors, products = values[order], vectors[:, order], products[:, order]
    return Spectrum(
        values=values,
        vectors=vectors.to(counted.operator.device, counted.operator.dtype),
        residuals=(products - vectors * values).norm(dim=0),
        num_products=counted.num_products,
        method=method,
    )


def _keys(values: Tensor, which: Which) -> Tensor:
    """What to sort by, largest first."""
    if which == "largest":
        return values
    return values.abs() if which == "largest_magnitude" else -values


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


def _square(operator: LinearOperator, what: str) -> int:
    rows, columns = operator.shape
    if rows != columns:
        raise BadInput(f"{what} of an operator", got=f"{rows} x {columns}", wanted="a square one")
    return rows

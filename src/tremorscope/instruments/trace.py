"""Trace, diagonal and Frobenius norm of operators that can only be multiplied, with their errors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput, NotConverged
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.operators.operator import LinearOperator
from tremorscope.instruments.trace_probes import (
    BLOCK,
    Hutchinson,
    HutchPlusPlus,
    Sampler,
    SquaredNorm,
    XTrace,
    checked_product,
    random_signs,
)

TraceMethod = Literal["auto", "exact", "hutchinson", "hutch++", "xtrace"]
EXACT_SIZE = 5000  # rows up to which `auto` multiplies by every unit vector
_TRACE_METHODS = ("auto", "exact", "hutchinson", "hutch++", "xtrace")


def trace(
    operator: LinearOperator,
    *,
    method: TraceMethod = "auto",
    num_probes: int = 64,
    tol: float | None = None,
    max_probes: int = 4096,
    seed: int = 0,
    level: float = LEVEL,
) -> Estimate:
    """Trace of an operator that can only be multiplied. Units: those of its entries.

    Args:
        operator: Square; symmetric or not.
        method: `"exact"` multiplies by every unit vector. `"hutchinson"` is the mean of `z^T A z` over random
            signs, of variance `2 (||A||_F^2 - sum_i A_ii^2)` for symmetric A. `"hutch++"` takes the trace inside
            a sketched range exactly and samples what is left. `"xtrace"` does so with every probe in
            both roles, by leaving out each in turn: the most accurate for a falling spectrum. `"auto"` is exact
            up to 5,000 rows, and when probes would cost as much; else `"xtrace"`.
        num_probes: Products, of all kinds.
        tol: Double the probes until the standard error is at most `tol` times the estimate. A running mean that no
            longer changes is no such sign, and is not looked at.
        max_probes: Where to give up.
        seed: Of the probes.
        level: Of the interval, which is Student's t: over probes, over the residual probes, or for XTrace
            on the geometric mean of two standard errors, one a little too small and one too large.

    Memory: `"xtrace"` and `"hutch++"` keep `1.5 num_probes` vectors.

    >>> from tremorscope.instruments.operators import Identity
    >>> print(trace(Identity(5)), trace(Identity(5), method="hutchinson", num_probes=4))
    5 5 [5, 5]

    Raises:
        BadInput: If the operator is not square, probes are too few for an interval, or a product is not finite.
        NotConverged: If the standard error is still too large after `max_probes`.

    Source: Hutchinson, Communications in Statistics 18, 1989; Meyer, Musco, Musco and Woodruff, arXiv:2010.09649
    (Hutch++); Epperly, Tropp and Webber, arXiv:2301.07825 (XTrace).
    """
    size = _square(operator, "trace")
    _check_choice("trace", method, _TRACE_METHODS)
    if method == "exact" or (method == "auto" and size <= max(EXACT_SIZE, num_probes)):
        total = float(operator.diagonal().double().sum())
        if not math.isfinite(total):
            raise BadInput("trace of an operator", got=total, wanted="finite diagonal entries")
        return Estimate.exact(total)
    chosen = "xtrace" if method == "auto" else method
    if chosen != "hutchinson" and num_probes >= size:
        return trace(operator, method="exact")
    sampler: Sampler
    if chosen == "hutchinson":
        sampler = Hutchinson(operator, seed)
    elif chosen == "hutch++":
        sampler = HutchPlusPlus(operator, seed)
    else:
        sampler = XTrace(operator, seed)
    if num_probes < sampler.fewest:
        raise BadInput("probes of a trace", got=num_probes, wanted=f"at least {sampler.fewest}, for an interval")
    return _until(sampler, "trace", num_probes, tol, max_probes, level)


def frobenius(
    operator: LinearOperator,
    *,
    method: Literal["auto", "exact", "hutch++"] = "auto",
    num_probes: int = 64,
    tol: float | None = None,
    max_probes: int = 4096,
    seed: int = 0,
    level: float = LEVEL,
) -> Estimate:
    """`||A||_F`, the root of the sum of squares of all entries.

    `||A||_F^2 = ||A Q||_F^2 + ||A (I - Q Q^T)||_F^2`: a third of the probes goes into a sketch Q of the rows of A, a
    third measures it exactly, a third samples the rest; the interval is the root of Student's t for the square.
    Up to 5,000 columns, `"auto"` computes all of them.

    >>> from tremorscope.instruments.operators import Identity
    >>> print(frobenius(Identity(9)))
    3

    Raises:
        BadInput: If probes are fewer than six, or a product is not finite.
        NotConverged: If the standard error of the square is above `2 tol` of it after `max_probes`.
    """
    _check_choice("Frobenius norm", method, ("auto", "exact", "hutch++"))
    columns = operator.shape[1]
    if method == "exact" or columns <= max(num_probes, EXACT_SIZE if method == "auto" else 0):
        total = 0.0
        for start in range(0, columns, BLOCK):
            units = torch.zeros(columns, min(BLOCK, columns - start), dtype=operator.dtype, device=operator.device)
            units[start : start + units.shape[1]].fill_diagonal_(1)
            total += float(checked_product(operator, units).double().square().sum())
        return Estimate.exact(math.sqrt(total))
    if num_probes < 6:
        raise BadInput("probes of a Frobenius norm", got=num_probes, wanted="at least 6, for an interval")
    square = _until(
        SquaredNorm(operator, seed), "squared norm", num_probes, None if tol is None else 2 * tol, max_probes, level
    )
    value, low, high = (math.sqrt(max(0.0, end)) for end in (square.value, square.low, square.high))
    return replace(square, value=value, low=low, high=high, method=f"root of {square.method}")


@final
@dataclass(frozen=True, kw_only=True)
class DiagonalEstimate:
    """The diagonal of an operator, entry by entry, with intervals; `method` is `"exact"` or names them."""

    values: Float[Tensor, " n"]
    standard_errors: Float[Tensor, " n"]
    low: Float[Tensor, " n"]
    high: Float[Tensor, " n"]
    level: float
    n: int
    method: str


def diagonal(
    operator: LinearOperator,
    *,
    method: Literal["auto", "exact", "bekas"] = "auto",
    num_probes: int = 64,
    seed: int = 0,
    level: float = LEVEL,
) -> DiagonalEstimate:
    """The diagonal: exactly up to 5,000 rows, else the mean of `z * (A z)` over random signs z.

    One probe has variance `sum_{j != i} A_ij^2` at entry i. Intervals are for each entry by itself, not for all
    together. Cost: `num_probes` products; memory of a few vectors.

    >>> from tremorscope.instruments.operators import Identity
    >>> diagonal(Identity(3)).values
    tensor([1., 1., 1.], dtype=torch.float64)

    Raises:
        BadInput: If the operator is not square, there are fewer than two probes, or a product is not finite.

    Source: Bekas, Kokiopoulou and Saad, Applied Numerical Mathematics 57, 2007.
    """
    from scipy.special import stdtrit

    size = _square(operator, "diagonal")
    _check_choice("diagonal", method, ("auto", "exact", "bekas"))
    if method == "exact" or (method == "auto" and size <= max(EXACT_SIZE, num_probes)):
        values = operator.diagonal().double().cpu()
        num_bad = int((~values.isfinite()).sum())
        if num_bad:
            raise BadInput(
                "diagonal of an operator", got=f"{num_bad} entries that are not finite", wanted="finite numbers"
            )
        none = torch.zeros_like(values)
        return DiagonalEstimate(
            values=values, standard_errors=none, low=values, high=values, level=1.0, n=1, method="exact"
        )
    if num_probes < 2:
        raise BadInput("probes of a diagonal", got=num_probes, wanted="at least 2, for an interval")
    stream = generator(seed, "diagonal")
    mean, squares = (torch.zeros(size, dtype=torch.float64, device=operator.device) for _ in range(2))
    for start in range(0, num_probes, BLOCK):
        width = min(BLOCK, num_probes - start)
        signs = random_signs(operator, width, stream)
        samples = (signs * checked_product(operator, signs)).double()
        # Running mean and sum of squared deviations (Chan, Golub and LeVeque): no sample is kept.
        gap = samples.mean(1) - mean
        squares += (samples - samples.mean(1, keepdim=True)).square().sum(1) + gap**2 * start * width / (start + width)
        mean += gap * width / (start + width)
    errors = (squares / (num_probes - 1) / num_probes).sqrt().cpu()
    half = float(stdtrit(num_probes - 1, 0.5 + level / 2)) * errors
    values = mean.cpu()
    return DiagonalEstimate(
        values=values,
        standard_errors=errors,
        low=values - half,
        high=values + half,
        level=level,
        n=num_probes,
        method="t of Bekas",
    )


def _until(sampler: Sampler, what: str, num_probes: int, tol: float | None, max_probes: int, level: float) -> Estimate:
    from scipy.special import stdtrit

    sampler.extend(num_probes)
    estimate = sampler.estimate(level)
    while tol is not None:
        error = (estimate.high - estimate.low) / 2 / float(stdtrit(estimate.n - 1, 0.5 + level / 2))
        if error <= tol * abs(estimate.value):
            break
        more = min(sampler.num_used, max_probes - sampler.num_used)
        if more < sampler.fewest:
            raise NotConverged(
                f"{what} by {sampler.label}",
                got=f"{estimate}, standard error {error:.2g}, after {sampler.num_used} products",
                wanted=f"a standard error below {tol:.2g} of the value",
                remedy="Raise tol or max_probes.",
            )
        sampler.extend(more)
        estimate = sampler.estimate(level)
    return replace(estimate, method=f"{estimate.method} of {sampler.label}")


def _check_choice(what: str, method: str, known: tuple[str, ...]) -> None:
    if method not in known:
        raise BadInput(f"method of a {what}", got=method, wanted=f"one of {', '.join(known)}")


def _square(operator: LinearOperator, what: str) -> int:
    rows, columns = operator.shape
    if rows != columns:
        raise BadInput(f"{what} of an operator", got=f"{rows} x {columns}", wanted="a square one")
    return rows

"""What all eigenvalues of a symmetric operator do together, from random probes: sums, counts, density."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, final

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.operators.operator import LinearOperator
from tremorscope.instruments.subspace import Subspace

Sign = Literal["both", "positive", "negative"]
_SHORTER = 3 / 4  # of the steps: the rule that a full one is compared with


@final
@dataclass(frozen=True)
class _Recurrence:
    """The tridiagonal matrix of one probe; the last entry of `coupling` leads out of it, 0 after a breakdown."""

    diagonal: Float[Tensor, " steps"]
    coupling: Float[Tensor, " steps"]

    def rule(self, num_steps: int | None = None) -> tuple[Tensor, Tensor]:
        """Nodes and weights of Gauss quadrature, of fewer steps if asked."""
        nodes, vectors = torch.linalg.eigh(_tridiagonal(self.diagonal[:num_steps], self.coupling[:num_steps]))
        return nodes, vectors[0].square()

    def below(self, x: float) -> tuple[float, float]:
        """The least and the most that the probe's spectral measure can have in `(-inf, x]`.

        Sharp, given what the recurrence knows: the rule that has a node at `x` puts there as much mass as any
        measure with these moments can (Chebyshev, Markov, Stieltjes).
        """
        if math.isinf(x):
            return (1.0, 1.0) if x > 0 else (0.0, 0.0)
        inner, vectors = torch.linalg.eigh(_tridiagonal(self.diagonal, self.coupling))
        last = float(self.coupling[-1])
        if last == 0 or bool((inner == x).any()):  # a Gauss rule that is exact, or has its node there already
            weights = vectors[0].square()
            return float(weights[inner < x].sum() if last else weights[inner <= x].sum()), float(
                weights[inner <= x].sum()
            )
        corner = x + last**2 * float((vectors[-1].square() / (inner - x)).sum())
        extended = torch.cat([self.diagonal, torch.tensor([corner], dtype=torch.float64)])
        nodes, vectors = torch.linalg.eigh(_tridiagonal(extended, self.coupling))
        weights, place = vectors[0].square(), int((nodes - x).abs().argmin())
        least = float(weights[:place].sum())
        return least, least + float(weights[place])


@final
@dataclass(frozen=True, kw_only=True)
class Density:
    """Density of the eigenvalues at the points of `grid`, with the interval over probes.

    It integrates to 1, or to the share of the eigenvalues of one `sign`.
    """

    grid: Float[Tensor, " grid"]
    values: Float[Tensor, " grid"]
    low: Float[Tensor, " grid"]
    high: Float[Tensor, " grid"]
    width: float
    is_log: bool
    sign: Sign = "both"


@final
@dataclass(frozen=True, kw_only=True)
class Quadrature:
    """Gauss rules of random probes: `sum_i weights[p, i] f(nodes[p, i])` estimates the mean of f over the spectrum.

    `known` are eigenvalues that were deflated; they enter exactly, the rules stand for the other
    `num_rows - len(known)`. A rule that broke down early (its probe then lies in an invariant space, and the
    rule is exact) is filled up with nodes of weight 0.
    """

    recurrences: tuple[_Recurrence, ...]
    num_rows: int
    known: Float[Tensor, " known"]
    num_products: int
    num_sweeps: int
    level: float = LEVEL
    flags: tuple[str, ...] = ()

    @property
    def nodes(self) -> Float[Tensor, "probes steps"]:
        """Nodes of each probe's rule, ascending."""
        return self._padded(0)

    @property
    def weights(self) -> Float[Tensor, "probes steps"]:
        """Their weights, 1 in all for each probe."""
        return self._padded(1)

    @property
    def num_unknown(self) -> int:
        """Eigenvalues that the rules stand for."""
        return self.num_rows - len(self.known)

    def mean(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """Mean of `function` over all eigenvalues, `tr f(A) / n`, with Student's t interval over probes.

        The interval is widened on both sides by the change from three quarters of the steps to all of them: what the
        probes agree on can still be cut short.

        >>> from tremorscope.instruments.operators import Dense
        >>> rule = lanczos_quadrature(Dense(torch.diag(torch.tensor([1.0, 2.0, 3.0]))), seed=0)
        >>> rule.mean(lambda x: x.clamp(max=0)).value
        0.0

        Raises:
            BadInput: If the function is not finite at a node.
        """
        full = [self._applied(function, *recurrence.rule()) for recurrence in self.recurrences]
        shorter = [
            self._applied(function, *recurrence.rule(max(1, int(_SHORTER * len(recurrence.diagonal)))))
            if float(recurrence.coupling[-1])
            else whole
            for recurrence, whole in zip(self.recurrences, full, strict=True)
        ]
        exact = float(function(self.known).double().sum()) if len(self.known) else 0.0
        shares = (numpy.array(full) * self.num_unknown + exact) / self.num_rows
        gap = abs(float(numpy.mean(full) - numpy.mean(shorter))) * self.num_unknown / self.num_rows
        estimate = Estimate.mean(shares, level=self.level)
        if estimate.is_point:
            return estimate
        return replace(estimate, low=estimate.low - gap, high=estimate.high + gap, method="t and truncation")

    def count(self, low: float, high: float, *, width: float = 0.0) -> Estimate:
        """Number of eigenvalues in `[low, high]`.

        With `width` 0 the edges are sharp. A few steps cannot tell on which side of an edge an eigenvalue
        lies, but they bound how many there can be: the interval holds the lower end of the least and the upper end of
        the most over probes, and the value is the middle of the two. With a `width`, an eigenvalue counts by the
        probability that it lies inside after a Gaussian shift of that standard deviation: another
        quantity, smooth and easier to estimate, named in `method`.

        >>> from tremorscope.instruments.operators import Identity
        >>> print(lanczos_quadrature(Identity(9), seed=0).count(0.9, 1.1))
        9 [9, 9]

        Raises:
            BadInput: If the interval is empty or the width negative.

        Source: Golub and Meurant, "Matrices, Moments and Quadrature", Princeton 2010, chapter 6.
        """
        if not low < high or width < 0:
            raise BadInput(
                "interval to count in", got=f"[{low}, {high}], width {width}", wanted="low < high, width >= 0"
            )
        if width > 0:

            def window(x: Tensor) -> Tensor:
                scale = width * math.sqrt(2)
                return (torch.erf((x - low) / scale) - torch.erf((x - high) / scale)) / 2

            smooth = self.mean(window).scaled(self.num_rows)
            return replace(smooth, method=f"{smooth.method}, edges smoothed by {width:.3g}")
        least, most = [], []
        for recurrence in self.recurrences:
            (low_least, low_most), (high_least, high_most) = recurrence.below(low), recurrence.below(high)
            least.append(max(0.0, high_least - low_most))
            most.append(min(1.0, high_most - low_least))
        exact = int(((self.known >= low) & (self.known <= high)).sum())
        fewest, greatest = (Estimate.mean(side, level=self.level) for side in (least, most))
        middle = exact + self.num_unknown * (fewest.value + greatest.value) / 2
        if fewest.is_point:
            return Estimate.one_seed(middle)
        return Estimate(
            value=middle,
            low=exact + self.num_unknown * max(0.0, fewest.low),
            high=exact + self.num_unknown * min(1.0, greatest.high),
            level=self.level,
            n=len(self.recurrences),
            method="t of Stieltjes bounds",
        )

    def density(self, grid: Float[Tensor, " grid"], width: float, *, log: bool = False, sign: Sign = "both") -> Density:
        """Density of the spectrum, each eigenvalue spread to a Gaussian of standard deviation `width`.

        With `log`, width and density are per decade of the eigenvalue; eigenvalues that rounding has pushed to
        zero or below are put at the rounding of the largest, `1e-16` of it. An indefinite spectrum has two such
        densities: with `sign`, that of the eigenvalues above 0 (and 0 itself), or of `|lambda|` for those below.
        Together they integrate to 1.

        Raises:
            BadInput: If the width is not positive, if `log` and the grid or the whole spectrum is not, or for a
                `sign` without `log`.
        """
        if not width > 0:
            raise BadInput("width of a density", got=width, wanted="a positive number")
        grid = grid.double()
        if log and not bool((grid > 0).all()):
            raise BadInput("grid of a density on a log axis", got=float(grid.min()), wanted="positive numbers")
        if sign != "both" and not log:
            raise BadInput("sign of a density", got=f"{sign} on a linear axis", wanted="log=True beside it")
        points = grid.log10() if log else grid
        largest = float(torch.cat([self.nodes.flatten(), self.known]).abs().max())

        def placed(values: Tensor) -> Tensor:
            if not log:
                return values
            if sign == "both" and float(values.min()) < -1e-6 * largest:
                raise BadInput(
                    "eigenvalues on a log axis",
                    got=float(values.min()),
                    wanted="none below zero",
                    remedy="Ask for sign='positive' and for sign='negative'.",
                )
            floor = max(1e-16 * largest, 1e-300)
            return (values.clamp(min=floor) if sign == "both" else values.abs().clamp(min=floor)).log10()

        def spread(values: Tensor) -> Tensor:
            normal = ((points[:, None] - placed(values)) / width).square().mul(-0.5).exp()
            normal /= width * math.sqrt(2 * math.pi)
            return normal if sign == "both" else normal * ((values < 0) == (sign == "negative"))

        each = torch.stack(
            [spread(nodes) @ weights for nodes, weights in (recurrence.rule() for recurrence in self.recurrences)]
        )
        exact = spread(self.known).sum(1) if len(self.known) else torch.zeros_like(points)
        each = (each * self.num_unknown + exact) / self.num_rows
        bands = [Estimate.mean(column, level=self.level) for column in each.T.numpy()]
        return Density(
            grid=grid,
            values=each.mean(0),
            low=torch.tensor([max(0.0, band.low) for band in bands], dtype=torch.float64),
            high=torch.tensor([band.high for band in bands], dtype=torch.float64),
            width=width,
            is_log=log,
            sign=sign,
        )

    def _applied(self, function: Callable[[Tensor], Tensor], nodes: Tensor, weights: Tensor) -> float:
        values = function(nodes)
        num_bad = int((~values.isfinite()).sum())
        if num_bad:
            raise BadInput(
                "function of the eigenvalues",
                got=f"{num_bad} values that are not finite, nodes from {float(nodes.min()):.3g} on",
                wanted="finite values on the whole spectrum",
            )
        return float(values.double() @ weights)

    def _padded(self, part: int) -> Tensor:
        longest = max(len(recurrence.diagonal) for recurrence in self.recurrences)
        rows = []
        for recurrence in self.recurrences:
            values = recurrence.rule()[part]
            fill = (values[-1] if part == 0 else values.new_zeros(())).expand(longest - len(values))
            rows.append(torch.cat([values, fill]))
        return torch.stack(rows)


def lanczos_quadrature(
    operator: LinearOperator,
    *,
    num_steps: int = 80,
    num_probes: int = 8,
    seed: int,
    known: tuple[Subspace, Tensor] | None = None,
    level: float = LEVEL,
) -> Quadrature:
    """Gauss rules for the spectrum of a symmetric operator, all probes advancing together.

    Each probe is uniform on the sphere, so that its spectral measure is the operator's on average; `num_steps`
    of Lanczos, fully orthogonalised twice, turn it into nodes and weights that are exact for polynomials of degree
    `2 num_steps - 1`. A probe that breaks down happily is finished, and leaves the block.

    Args:
        operator: Known to be symmetric; for singular values of J take `J.T @ J`.
        num_steps: Steps of Lanczos; 80 resolve about a hundredth of the range of the spectrum.
        num_probes: At least two, for intervals.
        seed: Of the probes.
        known: Eigenvectors (an invariant subspace through 0) and their eigenvalues, to leave out: large outliers
            cost steps, and are then counted exactly. Their error is not seen by the intervals.
        level: Of all intervals made from the rules.

    Cost: `num_steps` sweeps of `num_probes` columns. Memory: `num_steps num_probes` vectors of the operator's
    dtype, in which bases are kept; small matrices are float64.

    Raises:
        BadInput: If the operator is not known to be symmetric, a product is not finite, or numbers do not fit.

    Source: Ubaru, Chen and Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", SIMAX 38, 2017;
    Ghorbani, Krishnan and Xiao, arXiv:1901.10159, for densities of networks.
    """
    size = operator.shape[0]
    if not operator.is_symmetric:
        raise BadInput(
            "operator for Lanczos quadrature",
            got=f"{operator!r}, not known to be symmetric",
            wanted="a symmetric one",
            remedy="For singular values, take A.T @ A.",
        )
    if num_steps < 1 or num_probes < 2:
        raise BadInput("steps and probes", got=(num_steps, num_probes), wanted="at least 1 step and 2 probes")
    outside, values = _checked_known(known, size)
    block = _Probes(operator, num_probes, min(num_steps, size - len(values)), seed, outside)
    return Quadrature(
        recurrences=block.run(),
        num_rows=size,
        known=values,
        num_products=block.num_products,
        num_sweeps=block.num_sweeps,
        level=level,
    )


@final
class _Probes:
    """The recurrences of all probes, one block product a step. Bases are `[probe, step, entry]`."""

    def __init__(
        self, operator: LinearOperator, num_probes: int, num_steps: int, seed: int, outside: Tensor | None
    ) -> None:
        self.operator, self.outside = operator, None if outside is None else outside.to(operator.device, operator.dtype)
        self.num_steps, self.num_products, self.num_sweeps = num_steps, 0, 0
        size = operator.shape[0]
        drawn = torch.randn(num_probes, size, generator=generator(seed, "probes"), dtype=torch.float64)
        first = self._cleared(drawn.to(operator.device, operator.dtype))
        first /= first.double().norm(dim=1, keepdim=True).to(first.dtype)
        self.basis = torch.empty(num_probes, num_steps, size, dtype=operator.dtype, device=operator.device)
        self.basis[:, 0] = first
        self.diagonals: list[list[float]] = [[] for _ in range(num_probes)]
        self.couplings: list[list[float]] = [[] for _ in range(num_probes)]

    def run(self) -> tuple[_Recurrence, ...]:
        active = list(range(len(self.basis)))
        for step in range(self.num_steps):
            current = self.basis[active, step]
            images = self._product(current)
            diagonal = (current.double() * images.double()).sum(1)
            before = images.double().norm(dim=1)
            # Against all that went before, twice: without it converged eigenvalues come back as ghosts.
            everyone = len(active) == len(self.basis)  # then a view will do, where a selection would copy
            past = self.basis[:, : step + 1] if everyone else self.basis[active, : step + 1]
            for _ in range(2):
                images = images - torch.bmm(torch.bmm(images[:, None], past.transpose(1, 2)), past)[:, 0]
            images = self._cleared(images)
            coupling = images.double().norm(dim=1)
            ended = coupling <= 10 * torch.finfo(images.dtype).eps * (before + diagonal.abs()) * (step + 1)
            for place, probe in enumerate(active):
                self.diagonals[probe].append(float(diagonal[place]))
                self.couplings[probe].append(0.0 if bool(ended[place]) else float(coupling[place]))
            going = [place for place in range(len(active)) if not bool(ended[place])]
            active = [active[place] for place in going]
            if not active:
                break
            if step + 1 < self.num_steps:
                scaled = images[going].double() / coupling[going, None]
                self.basis[active, step + 1] = scaled.to(images.dtype)
        return tuple(
            _Recurrence(torch.tensor(diagonal, dtype=torch.float64), torch.tensor(coupling, dtype=torch.float64))
            for diagonal, coupling in zip(self.diagonals, self.couplings, strict=True)
        )

    def _product(self, rows: Tensor) -> Tensor:
        images = self.operator.mm(rows.T.contiguous()).T
        self.num_products += len(rows)
        self.num_sweeps += 1
        num_bad = int((~images.isfinite()).sum())
        if num_bad:
            raise BadInput(
                f"product with {self.operator!r}", got=f"{num_bad} entries that are not finite", wanted="finite numbers"
            )
        return self._cleared(images)

    def _cleared(self, rows: Tensor) -> Tensor:
        """Without the components along what is known."""
        return rows if self.outside is None else rows - (rows @ self.outside) @ self.outside.T


def _checked_known(known: tuple[Subspace, Tensor] | None, size: int) -> tuple[Tensor | None, Tensor]:
    if known is None:
        return None, torch.empty(0, dtype=torch.float64)
    space, values = known
    if space.d != size or values.shape != (space.k,) or not space.k < size:
        raise BadInput(
            "known eigenvectors",
            got=f"{space.k} in {space.d} dimensions with {tuple(values.shape)} values",
            wanted=f"fewer than {size} in {size} dimensions, a value for each",
        )
    return space.basis, values.detach().double().cpu()


def _tridiagonal(diagonal: Tensor, coupling: Tensor) -> Tensor:
    between = coupling[: len(diagonal) - 1]
    return torch.diag(diagonal) + torch.diag(between, 1) + torch.diag(between, -1)

"""Several networks summed, each fitted to the rescaled residual of those before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch, Task


@final
@dataclass(frozen=True, kw_only=True)
class Term:
    """One network of the sum: it adds `network(gain * x) / scale`."""

    network: Network
    scale: float = 1.0
    gain: float = 1.0

    def outputs(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """The network's own outputs, before they are scaled down."""
        with torch.no_grad():
            return self.network.apply(self.network.theta, Batch((self.gain * inputs,), {}, None))


@final
@dataclass(frozen=True)
class Boosted:
    """`f = f1 + f2 / c2 + f3 / c3 + ...`, summed without losing digits.

    A sum in one float64 cannot say more than 16 digits of `f`; the small last terms are what later stages
    work on. So the sum is kept as two numbers whose exact sum it is (double-double, by the error-free sum of
    Knuth), and a residual subtracts the large one first: `(y - high) - low`. Each network's own output is still
    rounded to its dtype: that is the floor that remains.
    """

    terms: tuple[Term, ...]

    def __call__(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """The sum, rounded once."""
        high, low = self.exact(inputs)
        return high + low

    def exact(self, inputs: Float[Tensor, "batch ..."]) -> tuple[Tensor, Tensor]:
        """The sum as two numbers, the second smaller than the last digit of the first."""
        first, *others = self.terms
        high = first.outputs(inputs) / first.scale
        low = torch.zeros_like(high)
        for term in others:
            high, lost = two_sum(high, term.outputs(inputs) / term.scale)
            high, low = two_sum(high, low + lost)
        return high, low

    def residual(self, inputs: Float[Tensor, "batch ..."], targets: Tensor) -> Tensor:
        """`targets - f(inputs)`, in the shape of the targets."""
        high, low = self.exact(inputs)
        return (targets - high.reshape(targets.shape)) - low.reshape(targets.shape)

    def with_term(self, term: Term) -> Boosted:
        """One network more."""
        return Boosted((*self.terms, term))


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """`(s, e)` with `s = fl(a + b)` and `s + e = a + b` exactly.

    >>> high, low = two_sum(torch.tensor(1.0, dtype=torch.float64), torch.tensor(1e-20, dtype=torch.float64))
    >>> high.item(), low.item()
    (1.0, 1e-20)

    Source: Knuth, The Art of Computer Programming 2, section 4.2.2, theorem B.
    """
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def residual_scale(residual: Tensor) -> float:
    """`c = 1 / mean |y - f|`: what brings the residual to size 1; 1 where nothing is left."""
    mean = float(residual.double().abs().mean())
    return 1.0 / mean if mean > 0 else 1.0


def residual_task(task: Task, model: Boosted, *, gain: float = 1.0, scale: float | None = None) -> tuple[Task, float]:
    """What the next network has to fit: `(y - f) c` at `gain * x`, and `c`.

    With `gain` above 1 the network sees its inputs stretched. Residuals of a good fit cross zero many times,
    and a fresh network of ordinary weights can follow a few crossings only (Wang and Lai, arXiv:2307.08934).
    `scale` replaces `c`; 1 leaves the residual as small as it is.
    """
    left = model.residual(task.inputs, task.targets)
    c = residual_scale(left) if scale is None else scale
    return Task.of(gain * task.inputs, left * c, name=f"residual of {task.name}", loss=task.loss), c

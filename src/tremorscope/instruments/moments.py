"""Mean and covariance of vectors that come in batches and are not kept."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput

Label = TypeVar("Label", bound=Hashable)


@final
@dataclass(frozen=True, kw_only=True)
class Moments:
    """Count, mean and scatter (sum of outer products about the mean) of the vectors seen so far, in float64.

    Batches are merged by the rule of Chan, Golub and LeVeque (1979), Welford's for many at a time: it subtracts means
    before it squares, so a mean far from zero costs no digits.

    >>> seen = Moments.zero(2).with_rows(torch.tensor([[1.0, 0.0]])).with_rows(torch.tensor([[3.0, 4.0]]))
    >>> seen.mean.tolist(), seen.covariance().tolist()
    ([2.0, 2.0], [[1.0, 2.0], [2.0, 4.0]])
    """

    count: int
    mean: Float[Tensor, " d"]
    scatter: Float[Tensor, "d d"]

    @classmethod
    def zero(cls, width: int, *, device: torch.device | str | None = None) -> Moments:
        """Of no vectors yet."""
        nothing = torch.zeros(width, dtype=torch.float64, device=device)
        return cls(count=0, mean=nothing, scatter=nothing.new_zeros(width, width))

    @classmethod
    def of(cls, rows: Float[Tensor, "rows d"]) -> Moments:
        """Of vectors that are all there."""
        return cls.zero(rows.shape[-1], device=rows.device).with_rows(rows)

    @property
    def width(self) -> int:
        """Entries of a vector."""
        return len(self.mean)

    def with_rows(self, rows: Float[Tensor, "rows d"]) -> Moments:
        """With a batch more. Cost: `rows * d^2` in float64; memory `d^2`.

        Raises:
            BadInput: If the vectors have another width, or an entry is not finite.
        """
        if rows.shape[-1] != self.width:
            raise BadInput("vectors", got=f"width {rows.shape[-1]}", wanted=f"width {self.width}, as those before")
        if len(rows) == 0:
            return self
        exact = rows.detach().to(self.mean)
        if not bool(exact.isfinite().all()):
            raise BadInput("vectors", got="entries that are not finite", wanted="finite numbers")
        mean = exact.mean(0)
        centred = exact - mean
        return self.merged(Moments(count=len(rows), mean=mean, scatter=centred.mT @ centred))

    def merged(self, other: Moments) -> Moments:
        """Of the vectors of both."""
        count = self.count + other.count
        if count == 0:
            return self
        step = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + step * (other.count / count),
            scatter=self.scatter + other.scatter + torch.outer(step, step) * (self.count * other.count / count),
        )

    def covariance(self) -> Float[Tensor, "d d"]:
        """Scatter divided by the count.

        Raises:
            BadInput: If no vector has been seen.
        """
        if self.count == 0:
            raise BadInput("covariance", got="no vectors", wanted="at least one")
        return self.scatter / self.count


def moments_by_class(
    rows: Float[Tensor, "rows d"], labels: Sequence[Label], before: Mapping[Label, Moments] | None = None
) -> dict[Label, Moments]:
    """Moments of each class, those of an earlier batch carried on.

    >>> found = moments_by_class(torch.tensor([[1.0], [2.0], [5.0]]), ["a", "a", "b"])
    >>> {label: (one.count, one.mean.item()) for label, one in found.items()}
    {'a': (2, 1.5), 'b': (1, 5.0)}

    Raises:
        BadInput: If there are not as many labels as vectors.
    """
    if len(labels) != len(rows):
        raise BadInput("labels", got=len(labels), wanted=f"one for each of {len(rows)} vectors")
    found = dict(before or {})
    for label in dict.fromkeys(labels):
        chosen = [place for place, own in enumerate(labels) if own == label]
        known = found.get(label, Moments.zero(rows.shape[-1], device=rows.device))
        found[label] = known.with_rows(rows[chosen])
    return found


def within_covariance(classes: Sequence[Moments]) -> Float[Tensor, "d d"]:
    """Covariance about each class's own mean, classes weighed by their counts.

    Raises:
        BadInput: If no vector has been seen.
    """
    count = sum(one.count for one in classes)
    if count == 0:
        raise BadInput("covariance", got="no vectors", wanted="at least one")
    return torch.stack([one.scatter for one in classes]).sum(0) / count

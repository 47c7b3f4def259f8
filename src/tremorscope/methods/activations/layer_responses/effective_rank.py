"""How many directions a cloud of activations uses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.seeds import generator

NUM_GROUPS = 20


def effective_rank(vectors: Float[Tensor, "n d"]) -> float:
    """Exponential of the entropy of the covariance's eigenvalues, as shares of their sum.

    Between 1 (all variance along one direction) and the smaller of d and n - 1 (equal variance in all). With few
    vectors it is too low: compare clouds of equal size.

    >>> round(effective_rank(torch.cat([torch.eye(4), -torch.eye(4)])), 6)
    4.0

    Raises:
        BadInput: If the vectors are all the same, fewer than two, or not finite.

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    """
    centred = vectors.double() - vectors.double().mean(dim=0)
    count, width = centred.shape
    gram = centred.T @ centred if count > width else centred @ centred.T
    if not gram.isfinite().all() or not float(gram.diagonal().sum()) > 0:
        raise BadInput("activations", got="all the same, or not finite", wanted="finite ones that vary")
    shares = torch.linalg.eigvalsh(gram).clamp_min(0.0)
    shares = shares[shares > 0] / shares.sum()
    return math.exp(float(-(shares * shares.log()).sum()))


def effective_rank_estimate(vectors: Float[Tensor, "n d"], *, level: float = LEVEL) -> Estimate:
    """The effective rank with a jackknife interval over 20 groups of vectors (every twentieth each).

    The jackknife rather than the bootstrap: vectors drawn twice would lower the rank of every resample.

    Raises:
        BadInput: As `effective_rank`.
    """
    num_groups = min(NUM_GROUPS, len(vectors))
    group = torch.arange(len(vectors)) % num_groups

    def of(members: Sequence[int]) -> float:
        return effective_rank(vectors[torch.isin(group, torch.tensor(list(members)))])

    return Estimate.jackknife(of, num_groups, level=level)


def isotropic_rank(count: int, width: int, *, seed: int) -> float:
    """The effective rank of as many Gaussian vectors without any preferred direction: what can be reached at most.

    Cost: the singular values of a matrix of that shape.
    """
    return effective_rank(torch.randn(count, width, generator=generator(seed, "isotropic"), dtype=torch.float64))

"""The null of every edit along a fitted direction: the same edit along a random one of equal length."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tremorscope.foundations.seeds import generator
from tremorscope.instruments.edit import Affine
from tremorscope.instruments.moments import Moments
from tremorscope.instruments.null import equal_norm
from tremorscope.methods.activations.concept_editing.direction import ConceptFit


def random_twin(fit: ConceptFit, seed: int) -> ConceptFit:
    """The same fit with each direction drawn uniformly from the sphere through it; reference and spread stay."""
    stream = generator(seed, "random direction", str(fit.site))
    drawn = []
    for one, r in zip(fit.positives, fit.directions.unbind(1), strict=True):
        mean = fit.negative.mean + equal_norm(r.cpu(), stream).to(r)
        drawn.append(Moments(count=one.count, mean=mean, scatter=one.scatter))
    return replace(fit, positives=tuple(drawn), diagnostics=(), flags=())


def random_edit(edit: Affine, seed: int) -> Affine:
    """An affine edit of the same rank whose vectors are drawn uniformly, each from the sphere through its own.

    The null of an edit that was trained rather than fitted. A vector that is zero stays so.
    """
    stream = generator(seed, "random edit")

    def drawn(vector: Tensor) -> Tensor:
        return equal_norm(vector.cpu(), stream).to(vector) if bool(vector.any()) else vector

    def columns(matrix: Tensor) -> Tensor:
        return torch.stack([drawn(one) for one in matrix.unbind(1)], 1) if matrix.shape[1] else matrix

    return Affine(
        columns(edit.left), columns(edit.right), edit.offset, None if edit.shift is None else drawn(edit.shift)
    )

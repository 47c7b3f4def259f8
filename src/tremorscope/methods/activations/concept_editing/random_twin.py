"""The null of every edit along a fitted direction: the same edit along a random one of equal length."""

from __future__ import annotations

from dataclasses import replace

from tremorscope.foundations.seeds import generator
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

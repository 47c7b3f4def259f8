"""Does an edit care where the origin is? Move it, and see whether the network's outputs change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.edit import Add, Edit
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.methods.activations.concept_editing.direction import ConceptFit
from tremorscope.methods.activations.concept_editing.examples import Examples, batches
from tremorscope.methods.activations.concept_editing.fitting import fit_concept


@final
@dataclass(frozen=True, kw_only=True)
class GaugeMeasurement:
    """Largest change of an output, and the largest output itself, for scale. 0 is what an affine method should give."""

    change: float
    scale: float


def measure_gauge(
    network: Network,
    negatives: Examples,
    positives: Examples,
    site: str | Site,
    edit: Callable[[ConceptFit], Edit],
    shift: Float[Tensor, " d"],
    *,
    inputs: Examples,
) -> GaugeMeasurement:
    """Edit a network, and the same network whose activation at the site is v + c, with c taken off behind the edit.

    Both networks compute one function, so an edit that means something does the same in both. ACE does; ablation sets
    the origin, which is another point of the data in each. The direction is fitted anew in the second.

    Cost: two fits, and two forward passes over the inputs.

    Raises:
        BadInput: If the shift is zero or has another width, or as `fit_concept`.
    """
    place = Site.parse(site)
    # What consumes the site sees v again; at all positions, or the others would not be shifted and unshifted alike.
    shifted = network.with_edits(Add(shift).at(site))
    outputs = []
    for view, behind in ((network, ()), (shifted, (Add(-shift).at(site),))):
        fit = fit_concept(view, negatives, positives, place)
        edited = view.with_edits(edit(fit).at(site), *behind)
        with torch.no_grad():
            found = [edited.apply(edited.params, batch) for batch in batches(edited, inputs)]
        if len({one.shape[1:] for one in found}) > 1:
            raise BadInput("inputs", got="outputs of several lengths", wanted="texts of one length, or one batch")
        outputs.append(torch.cat(found).double())
    return GaugeMeasurement(change=float((outputs[0] - outputs[1]).abs().max()), scale=float(outputs[0].abs().max()))

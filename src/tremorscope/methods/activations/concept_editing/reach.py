"""Can an edit at this place change the decision at all? Interchange patching, the ceiling for every edit there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.instruments.edit import Replace
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.methods.activations.concept_editing.examples import Examples, recorded_rows
from tremorscope.methods.activations.concept_editing.scorers import Scorer, checked

ENOUGH = 0.5


@final
@dataclass(frozen=True, kw_only=True)
class ReachMeasurement:
    """Share of decisions that flip when the activation is that of an example of the other class.

    Counted are examples whose partner's decision differs: only those can flip. `num_pairs` were tried in both
    directions. None: no pair differed, so nothing can be said.
    """

    site: Site
    flipped: Estimate | None
    num_pairs: int

    @property
    def advice(self) -> str | None:
        """What to do where it is low."""
        if self.flipped is None:
            return f"reach at {self.site} not measured: the two classes get the same decisions"
        if self.flipped.value >= ENOUGH:
            return None
        return (
            f"reach at {self.site} is {self.flipped}: patching the whole activation flips fewer than half of the "
            "decisions, so no edit there can. Edit all positions (@all), a later block, or several blocks fitted "
            "sequentially"
        )


def measure_reach(
    network: Network,
    negatives: Examples,
    positives: Examples,
    site: str | Site,
    decision: Scorer,
    *,
    max_pairs: int = 32,
) -> ReachMeasurement:
    """Give each example the other class's activation at a site, and see whether its decision is the other one's.

    Cost: one forward pass for each example of a pair, one at a time, and two over all.

    Args:
        network: Any network.
        negatives: Examples of one class, paired in order with the positives.
        positives: Examples of the other.
        site: With a position that picks one activation of each example.
        decision: A truth value for each example, or a score of which the sign decides.
        max_pairs: The most pairs to try.

    Raises:
        BadInput: If a class is empty, or the site has not one activation for each example.
    """
    count = min(len(negatives), len(positives), max_pairs)
    if count == 0:
        raise BadInput("pairs to interchange", got="none", wanted="examples of both classes")
    both = (negatives[:count], positives[:count])
    values = [torch.cat(list(recorded_rows(network, some, site))) for some in both]
    if any(len(some) != count for some in values):
        raise BadInput(
            f"activations at {site}",
            got=f"{len(values[0])} and {len(values[1])} for {count} examples of each class",
            wanted="one for each example",
            remedy="Add a position such as @last.",
        )
    before = [_decided(decision, network, some) for some in both]
    flips = []
    for here, there in ((0, 1), (1, 0)):
        for place in range(count):
            if before[here][place] == before[there][place]:
                continue
            patched = network.with_edits(Replace(values[there][place]).at(site))
            after = _decided(decision, patched, both[here][place : place + 1])[0]
            flips.append(bool(after == before[there][place]))
    flipped = Estimate.proportion(sum(flips), len(flips)) if flips else None
    return ReachMeasurement(site=Site.parse(site), flipped=flipped, num_pairs=count)


def _decided(decision: Scorer, network: Network, examples: Examples) -> torch.Tensor:
    found = checked(decision, network, examples)
    return found if found.dtype == torch.bool else found > 0

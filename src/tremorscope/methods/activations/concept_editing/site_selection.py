"""Where to edit: every candidate site is fitted, and judged on validation examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.results import Table
from tremorscope.instruments.edit import PlacedEdit
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.methods.activations.concept_editing.affine_edits import edit_of
from tremorscope.methods.activations.concept_editing.direction import ConceptFit
from tremorscope.methods.activations.concept_editing.examples import Examples
from tremorscope.methods.activations.concept_editing.fitting import fit_concept, moved
from tremorscope.methods.activations.concept_editing.response_curve import ResponseMeasurement, measure_response
from tremorscope.methods.activations.concept_editing.scorers import Scorer, checked


@final
@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One site and position of the edit, its fit, and how far its curve is from what is asked (smaller is better)."""

    fit: ConceptFit
    position: str | None
    error: float
    response: ResponseMeasurement


@final
@dataclass(frozen=True, kw_only=True)
class SiteSelection:
    """Candidates, best first; `skipped` sites could not be fitted."""

    candidates: tuple[Candidate, ...]
    skipped: Mapping[str, str]
    targets: Mapping[float, float]

    @property
    def best(self) -> Candidate:
        """The one with the smallest error; of equal ones the first given."""
        return self.candidates[0]

    def tables(self) -> list[Table]:
        """A row for each candidate."""
        rows = [
            {"site": str(moved(one.fit.site, one.position)), "error": one.error}
            | {
                f"{name} at {alpha:g}": _level(one.response, name, alpha)
                for alpha in self.targets
                for name in one.response.classes
            }
            for one in self.candidates
        ]
        return [
            Table.of_rows(
                [*rows, *({"site": site, "error": None} for site in self.skipped)],
                name="site_selection",
                title="Where to edit",
                caption="Validation examples only. Error: mean distance of the classes' scores from the targets.",
            )
        ]


def select_site(
    network: Network,
    negatives: Examples,
    positives: Examples,
    sites: Sequence[str],
    scorer: Scorer,
    *,
    validation: Mapping[str, Examples],
    positions: Sequence[str | None] = (None,),
    method: str = "ace",
    targets: Mapping[float, float] | None = None,
    seed: int = 0,
) -> SiteSelection:
    """Fit at every site, edit at every position, and order by how near the scores of all classes come to the targets.

    Args:
        network: Any network.
        negatives: To fit on.
        positives: To fit on.
        sites: Candidates, such as `acts:resid_post.0@last`.
        scorer: A share for 0 to 1, or a score with targets of its own.
        validation: Inputs by class; not those that the result is reported on.
        positions: Where the edit is made, `None` for where it was fitted.
        method: A name of `affine_edits.METHODS`.
        targets: Wanted mean score for each alpha; by default 0 at 0 and 1 at 1.
        seed: Names the random halvings.

    Cost: a fit for each site, and for each site and position the scorer as often as there are targets.

    Raises:
        BadInput: If there is no site, or none can be fitted.
    """
    wanted = dict(sorted((targets or {0.0: 0.0, 1.0: 1.0}).items()))
    unedited = {name: checked(scorer, network, some) for name, some in validation.items()}
    found: list[Candidate] = []
    skipped: dict[str, str] = {}
    for site in sites:
        try:
            fit = fit_concept(network, negatives, positives, site, seed=seed)
        except BadInput as error:
            if "same mean" not in str(error):
                raise
            skipped[site] = str(error)
            continue
        for position in positions:
            there = moved(fit.site, position)
            response = measure_response(
                network,
                partial(_edits, method, fit, there),
                validation,
                scorer,
                name=f"{method} at {there}",
                alphas=list(wanted),
                unedited=unedited,
                seed=seed,
            )
            misses = [
                abs(float(one.edited[place].mean()) - target)
                for one in response.classes.values()
                for place, target in enumerate(wanted.values())
            ]
            found.append(Candidate(fit=fit, position=position, error=sum(misses) / len(misses), response=response))
    if not found:
        raise BadInput(
            "sites to choose from",
            got=f"{len(sites)}, none of which could be fitted",
            wanted="at least one",
            remedy=next(iter(skipped.values()), None),
        )
    return SiteSelection(candidates=tuple(sorted(found, key=lambda one: one.error)), skipped=skipped, targets=wanted)


def _edits(method: str, fit: ConceptFit, there: Site, alpha: float) -> list[PlacedEdit]:
    return [edit_of(method, fit, alpha).at(there)]


def _level(response: ResponseMeasurement, name: str, alpha: float) -> Estimate:
    return response.level(name, alpha)

"""Fitting directions to a network and examples: at one site, at several at once, or one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.edit import Edit, PlacedEdit
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.methods.activations.concept_editing.affine_edits import Alpha, ace, edit_of
from tremorscope.methods.activations.concept_editing.direction import ConceptFit
from tremorscope.methods.activations.concept_editing.examples import (
    BATCH_SIZE,
    Examples,
    check_examples,
    format_gap,
    recorded_rows,
)
from tremorscope.methods.activations.concept_editing.streaming import FitStream


def fit_concept(
    network: Network,
    negatives: Examples,
    positives: Examples | Mapping[str, Examples],
    site: str | Site,
    *,
    held_out: tuple[Examples, Examples] | None = None,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> ConceptFit:
    """The direction from examples without a behaviour to examples with it, at one site.

    Activations stream by in float64 and are not kept. Several classes by name give a direction each, all from the same
    negatives.

    Args:
        network: Any network; what it is edited by already stays.
        negatives: Texts or inputs without the behaviour.
        positives: Those with it, or several classes of them by name.
        site: Where, mostly at one position: `acts:resid_post.2@last`. Without a position every token is an example.
        held_out: Other negatives and positives, on which the AUC of the coordinate is measured (for a single class).
        batch_size: Examples of a forward pass.
        seed: Names the random halvings.

    Cost: one forward pass over all examples; `d^2` numbers of memory for each class.

    Raises:
        BadInput: If a class is empty, the classes have the same mean, or the site holds no vectors.
        SiteNotFound: If there is no such site.
    """
    named: dict[str, Examples] = dict(positives) if isinstance(positives, Mapping) else {"positive": positives}
    for name, some in (("negative", negatives), *named.items()):
        check_examples(f"{name} examples", some)
    if held_out is not None and len(named) != 1:
        raise BadInput("held-out examples", got=f"two sets for {len(named)} concepts", wanted="a single concept")
    stream = FitStream(tuple(named), Site.parse(site), seed=seed)
    for key, some in ((None, negatives), *named.items()):
        for rows in recorded_rows(network, some, site, batch_size=batch_size):
            stream.see(key, rows)
    others = None
    if held_out is not None:
        keys = (None, next(iter(named)))
        others = {
            key: torch.cat(list(recorded_rows(network, some, site, batch_size=batch_size)))
            for key, some in zip(keys, held_out, strict=True)
        }
    gaps = {name: gap for name, some in named.items() if (gap := format_gap(network, negatives, some)) is not None}
    return stream.fit(held_out=others, format_gaps=gaps)


@final
@dataclass(frozen=True, kw_only=True)
class SiteFits:
    """Fits at several sites, in the order in which their edits are made.

    `skipped` are sites at which nothing was left to fit, with the reason: in a sequential fit the edits before may have
    made the means equal.
    """

    fits: tuple[ConceptFit, ...]
    order: str
    skipped: Mapping[str, str]

    def edits(self, method: str = "ace", alpha: Alpha = 0.0, *, position: str | None = None) -> tuple[PlacedEdit, ...]:
        """The edit of that name at each site; `position` in place of the fit's own, such as `all`.

        Raises:
            BadInput: As `edit_of`.
        """
        return tuple(edit_of(method, fit, alpha).at(moved(fit.site, position)) for fit in self.fits)


def fit_sites(
    network: Network,
    negatives: Examples,
    positives: Examples,
    sites: Sequence[str | Site],
    *,
    order: str = "joint",
    edit: Callable[[ConceptFit], Edit] = ace,
    position: str | None = None,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> SiteFits:
    """The direction at several sites of one network.

    `joint`: all on the network as it is. `sequential`: each on the network with `edit` made at the sites before, in the
    order given (from the input to the output). Edits at several sites add up, so jointly fitted later ones would see
    activations that they were not fitted to.

    Args:
        network: Any network.
        negatives: As for `fit_concept`.
        positives: As for `fit_concept`, one class.
        sites: In the order of the forward pass.
        order: `"joint"` or `"sequential"`.
        edit: What is done at a site while the next ones are fitted; by default the concept is set to the negatives'.
        position: Where the edit is made; where it was fitted, by default.
        batch_size: Examples of a forward pass.
        seed: Names the random halvings.

    Cost: a forward pass over all examples for each site.

    Raises:
        BadInput: If no site is given, or as `fit_concept`; in a sequential fit, only if nothing can be fitted anywhere.
    """
    if order not in ("joint", "sequential"):
        raise BadInput("order of fitting", got=order, wanted="joint or sequential")
    if not sites:
        raise BadInput("sites", got="none", wanted="at least one")
    fits: list[ConceptFit] = []
    skipped: dict[str, str] = {}
    view = network
    for site in sites:
        try:
            fit = fit_concept(view, negatives, positives, site, batch_size=batch_size, seed=seed)
        except BadInput as error:
            if order == "joint" or "same mean" not in str(error) or not fits:
                raise
            skipped[str(site)] = str(error)
            continue
        fits.append(fit)
        if order == "sequential":
            view = view.with_edits(edit(fit).at(moved(fit.site, position)))
    return SiteFits(fits=tuple(fits), order=order, skipped=skipped)


def moved(site: Site, position: str | None) -> Site:
    """The same place at another position (`all`, `last`, `-1` ...); None: as it is."""
    if position is None:
        return site
    return Site.parse(f"{Site(kind=site.kind, pattern=site.pattern, port=site.port)}@{position}")

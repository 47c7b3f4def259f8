"""A concept as a direction: means of examples with and without it, and the coordinate along their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Table
from tremorscope.instruments.moments import Moments, within_covariance
from tremorscope.instruments.site import Site
from tremorscope.methods.activations.concept_editing.diagnostics import Diagnostics

SAME_MEAN = 1e-6  # differences of means below this part of a typical activation are rounding
FEW_EXAMPLES = 8


@final
@dataclass(frozen=True, kw_only=True)
class ConceptFit:
    """What was fitted at one site: the moments of examples without the concept, and of each class with one.

    With mu- the mean without and mu_j the mean of class j, column j of `directions` is r_j = mu_j - mu-, *not*
    normalised. The coordinate of an activation v is beta = R^+ (v - mu-): 0 at the typical negative, 1 (of its own
    class) at the typical positive. One class is the usual case: beta = r^T (v - mu-) / |r|^2. Made by
    `streaming.fit_rows` from activations and by `fitting.fit_concept` from a network and examples.

    `names` are those of the classes. `diagnostics` hold one entry for each class; `flags` say what to know before the
    fit is trusted. Source: arXiv:2411.09003.
    """

    site: Site
    names: tuple[str, ...]
    negative: Moments
    positives: tuple[Moments, ...]
    diagnostics: tuple[Diagnostics, ...] = ()
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.positives) or not self.names:
            raise BadInput("concepts", got=f"{len(self.names)} names, {len(self.positives)} classes", wanted="as many")
        for name, one in (("negative", self.negative), *zip(self.names, self.positives, strict=True)):
            if one.count == 0:
                raise BadInput(f"{name} examples at {self.site}", got="none", wanted="at least one")
            if one.width != self.negative.width:
                raise BadInput(f"{name} activations", got=f"width {one.width}", wanted=f"width {self.negative.width}")
        typical = max(float((one.scatter.trace() / one.count + one.mean @ one.mean).sqrt()) for one in self._classes)
        for name, norm in zip(self.names, self.directions.norm(dim=0).tolist(), strict=True):
            if norm <= SAME_MEAN * typical:
                raise BadInput(
                    f"{name} examples against negative ones at {self.site}",
                    got=f"a difference of means of norm {norm:.3g}, where activations have norm {typical:.3g}",
                    wanted="means that differ: the two sets have the same mean here",
                    remedy="Choose a later site or position, or other examples.",
                )
        if torch.linalg.matrix_rank(self.directions, rtol=SAME_MEAN) < len(self.names):
            raise BadInput(
                f"concepts {', '.join(self.names)} at {self.site}",
                got="differences of means that depend on each other linearly",
                wanted="one direction for each concept",
                remedy="Fit fewer concepts at once.",
            )

    @property
    def _classes(self) -> tuple[Moments, ...]:
        return (self.negative, *self.positives)

    @property
    def width(self) -> int:
        """Entries of an activation."""
        return self.negative.width

    @property
    def directions(self) -> Float[Tensor, "d k"]:
        """Differences of means, one column for each class."""
        return torch.stack([one.mean - self.negative.mean for one in self.positives], 1)

    @property
    def overall(self) -> Moments:
        """Of all examples together."""
        return reduce(Moments.merged, self._classes)

    def within(self) -> Float[Tensor, "d d"]:
        """Covariance about the classes' own means."""
        return within_covariance(self._classes)

    def coordinates(self, activations: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        """Coordinate beta of each activation, in float64.

        Raises:
            BadInput: If the activations have another width.
        """
        self.check_width(activations.shape[-1])
        inverse = torch.linalg.pinv(self.directions)
        found: Tensor = (activations.to(inverse) - self.negative.mean) @ inverse.mT
        return found

    def coordinate_of_zero(self) -> Float[Tensor, " k"]:
        """Of the origin, where directional ablation puts every activation: -r^T mu- / |r|^2 for one class."""
        return self.coordinates(torch.zeros_like(self.negative.mean))

    def check_width(self, width: int) -> None:
        """Refuse activations of another width.

        Raises:
            BadInput: If it differs.
        """
        if width != self.width:
            raise BadInput(
                f"direction fitted at {self.site}",
                got=f"{self.width} entries",
                wanted=f"{width}, the width of the activations",
                remedy="Fit on this model, at this site.",
            )

    def check_site(self, site: str | Site) -> Site:
        """The site, if the fit holds there: positions may differ, module and port may not.

        Raises:
            BadInput: If the fit was made elsewhere.
        """
        wanted = Site.parse(site)
        here = (wanted.kind, wanted.pattern, wanted.port)
        if here != (self.site.kind, self.site.pattern, self.site.port):
            raise BadInput(
                f"direction fitted at {self.site}",
                got=f"the site {wanted}",
                wanted=f"the place it was fitted at (any position of acts:{self.site.pattern})",
                remedy="Fit again at the other site: means and directions differ from place to place.",
            )
        return wanted

    def tables(self) -> list[Table]:
        """One row for each concept."""
        return [
            Table.of_rows(
                [{"concept": name, **one.to_row()} for name, one in zip(self.names, self.diagnostics, strict=True)],
                name="concept_fit",
                title=f"Directions at {self.site}",
                caption="Bias ratio: rh.mu-/|r|, how many lengths of r the typical negative lies from the origin that "
                "directional ablation sets; AUC: of the coordinate on held-out examples.",
            )
        ]


def flags_of(
    names: Sequence[str], negative: Moments, positives: Sequence[Moments], diagnostics: Sequence[Diagnostics]
) -> tuple[str, ...]:
    """What to know before a fit is trusted."""
    found = [
        f"only {one.count} {name} examples (fewer than {FEW_EXAMPLES}): the direction is uncertain"
        for name, one in (("negative", negative), *zip(names, positives, strict=True))
        if one.count < FEW_EXAMPLES
    ]
    return (*found, *(f"{name}: {flag}" for name, one in zip(names, diagnostics, strict=True) for flag in one.flags))

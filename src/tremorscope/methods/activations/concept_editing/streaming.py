"""Fitting while activations stream by: moments and random halves are kept, the activations are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.moments import Moments
from tremorscope.instruments.site import Site
from tremorscope.methods.activations.concept_editing.diagnostics import Diagnostics, auc, cosines, spread_over_halvings
from tremorscope.methods.activations.concept_editing.direction import ConceptFit, flags_of

NUM_HALVINGS = 32


@final
class FitStream:
    """Collects activations at one site, class by class; `None` names the class without any concept.

    Cost: `d^2` numbers for each class, `64 d` for the halvings.
    """

    def __init__(self, names: tuple[str, ...], site: Site, *, seed: int = 0) -> None:
        self.names, self.site, self.seed = names, site, seed
        self._classes: dict[str | None, _Class] = {}

    def see(self, name: str | None, rows: Float[Tensor, "rows d"]) -> None:
        """A batch of activations of one class.

        Raises:
            BadInput: If the class is unknown, the width changed, or an entry is not finite.
        """
        if name is not None and name not in self.names:
            raise BadInput("class", got=name, wanted=f"one of {', '.join(self.names)}")
        if name not in self._classes:
            stream = generator(self.seed, "halvings", "negative" if name is None else f"class {name}")
            self._classes[name] = _Class(rows.shape[-1], rows.device, stream)
        self._classes[name].see(rows)

    def fit(
        self, *, held_out: Mapping[str | None, Tensor] | None = None, format_gaps: Mapping[str, str] | None = None
    ) -> ConceptFit:
        """The fit to everything seen; `held_out` are activations of other examples, for the AUC.

        Raises:
            BadInput: If a class is empty, or two have the same mean.
        """
        for name in (None, *self.names):
            if name not in self._classes or self._classes[name].moments.count == 0:
                raise BadInput(f"{name or 'negative'} examples at {self.site}", got="none", wanted="at least one")
        negative = self._classes[None]
        positives = [self._classes[name] for name in self.names]
        bare = ConceptFit(
            site=self.site,
            names=self.names,
            negative=negative.moments,
            positives=tuple(one.moments for one in positives),
        )
        found = []
        for place, (name, one) in enumerate(zip(self.names, positives, strict=True)):
            r = bare.directions[:, place]
            judged = None
            if held_out is not None and name in held_out and None in held_out:
                below, above = (
                    bare.coordinates(held_out[key].detach())[:, place].cpu().numpy() for key in (None, name)
                )
                judged = auc(below, above, seed=self.seed)
            found.append(
                Diagnostics(
                    num_negative=negative.moments.count,
                    num_positive=one.moments.count,
                    norm=float(r.norm()),
                    bias_ratio=float(r @ negative.moments.mean / (r @ r)),
                    split_half=_split_half(negative, one),
                    auc=judged,
                    format_gap=(format_gaps or {}).get(name),
                )
            )
        return ConceptFit(
            site=self.site,
            names=self.names,
            negative=bare.negative,
            positives=bare.positives,
            diagnostics=tuple(found),
            flags=flags_of(self.names, bare.negative, bare.positives, found),
        )


def fit_rows(
    negatives: Float[Tensor, "negatives d"],
    positives: Float[Tensor, "positives _"] | Mapping[str, Tensor],
    *,
    site: str | Site,
    held_out: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> ConceptFit:
    """A fit to activations that are at hand; of several classes by name, one direction each.

    `held_out` are negative and positive activations of other examples, for the AUC of the only class.

    >>> fit = fit_rows(torch.zeros(9, 2), torch.ones(9, 2), site="acts:layer")
    >>> fit.coordinates(torch.tensor([[0.5, 0.5]])).round(decimals=6).item()
    0.5

    Raises:
        BadInput: If a class is empty, widths differ, or two classes have the same mean.
    """
    named = dict(positives) if isinstance(positives, Mapping) else {"positive": positives}
    stream = FitStream(tuple(named), Site.parse(site), seed=seed)
    stream.see(None, negatives)
    for name, rows in named.items():
        stream.see(name, rows)
    others = None if held_out is None else {None: held_out[0], next(iter(named)): held_out[1]}
    return stream.fit(held_out=others)


class _Class:
    """Moments of one class, and sums of both halves under every halving."""

    def __init__(self, width: int, device: torch.device, stream: torch.Generator) -> None:
        self.moments = Moments.zero(width, device=device)
        self.stream = stream
        self.sums = torch.zeros(2, NUM_HALVINGS, width, dtype=torch.float64, device=device)
        # Each pair of examples is parted, so that halves differ by one at most; the odd one waits for its partner.
        self.parity = torch.zeros(0, NUM_HALVINGS, dtype=torch.bool)
        self.sizes = torch.zeros(2, NUM_HALVINGS, dtype=torch.float64, device=device)

    def see(self, rows: Tensor) -> None:
        self.moments = self.moments.with_rows(rows)
        sides = self._sides(len(rows)).to(self.sums.device)
        exact = rows.detach().to(self.sums)
        for half in (0, 1):
            chosen = (sides == bool(half)).to(exact)
            self.sums[half] += chosen.mT @ exact
            self.sizes[half] += chosen.sum(0)

    def _sides(self, count: int) -> Tensor:
        fresh = max(0, count - len(self.parity))
        first = torch.rand((fresh + 1) // 2, NUM_HALVINGS, generator=self.stream) < 0.5
        pairs = torch.stack([first, ~first], 1).reshape(-1, NUM_HALVINGS)
        every = torch.cat([self.parity, pairs])
        self.parity = every[count:]
        return every[:count]

    @property
    def halves(self) -> Tensor:
        """Means, [2, halvings, d]."""
        return self.sums / self.sizes.clamp(min=1)[..., None]


def _split_half(negative: _Class, positive: _Class) -> Estimate | None:
    if min(negative.moments.count, positive.moments.count) < 2:
        return None
    one, other = (positive.halves - negative.halves).cpu().numpy()
    return spread_over_halvings(cosines(one, other), negative.moments.count + positive.moments.count)

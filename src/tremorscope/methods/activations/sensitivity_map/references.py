"""How activations vary over ordinary text at each block input: what disturbances of the map are matched to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.language.encode import encode, takes
from tremorscope.instruments.network import Network

MOST_VECTORS = 2048  # of each site; eight for each of 256 dimensions
MOST_TOKENS = 64  # of each text
_TEXTS_AT_ONCE = 32


@final
@dataclass(frozen=True, kw_only=True)
class Reference:
    """Activations at one site over ordinary text, their mean taken off.

    Disturbances are drawn from a normal distribution with exactly their covariance, without ever writing it down: a
    random combination of the rows has it. With fewer rows than dimensions it has no full rank, which `flags` says.
    """

    centred: Float[Tensor, "n d"]  # float64

    @classmethod
    def of(cls, rows: Float[Tensor, "n d"]) -> Reference:
        """From activations as they are.

        Raises:
            BadInput: If there are fewer than two, one is not finite, or all are the same.
        """
        exact = rows.detach().double()
        if len(exact) < 2 or not bool(exact.isfinite().all()):
            got = f"{len(exact)} of them" if len(exact) < 2 else "entries that are not finite"
            raise BadInput("reference activations", got=got, wanted="at least 2, finite", remedy="Give more texts.")
        centred = exact - exact.mean(dim=0)
        if not bool(centred.any()):
            raise BadInput(
                "reference activations", got="all the same", wanted="some that differ", remedy="Other texts."
            )
        return cls(centred=centred)

    @property
    def distance(self) -> float:
        """Typical distance between two real activations: the root of its mean square, `sqrt(2 tr C)`."""
        return float((2 * self.centred.square().sum() / (len(self.centred) - 1)).sqrt())

    @property
    def flags(self) -> tuple[str, ...]:
        """What a reader should know."""
        count, width = self.centred.shape
        if count > width:
            return ()
        return (f"covariance of {width} dimensions from {count} activations: disturbances lie in their span alone",)

    def matched(self, count: int, generator: torch.Generator) -> Float[Tensor, "count d"]:
        """Random directions of length 1 of normal vectors with the covariance of the activations.

        The same stream gives the same combination of the same texts in two networks, so that they can be compared
        direction by direction.
        """
        weights = torch.randn(count, len(self.centred), generator=generator, dtype=torch.float64)
        return _unit(weights.to(self.centred) @ self.centred)

    def isotropic(self, count: int, generator: torch.Generator) -> Float[Tensor, "count d"]:
        """Random directions of length 1, none preferred."""
        drawn = torch.randn(count, self.centred.shape[1], generator=generator, dtype=torch.float64)
        return _unit(drawn.to(self.centred))


def read_references(network: Network, texts: Sequence[str], sites: Sequence[str]) -> dict[str, Reference]:
    """Activations of a network at each site over some texts, their mean taken off: see `read_activations`.

    Raises:
        BadInput: As `read_activations` and `Reference.of`.
    """
    return {site: Reference.of(rows) for site, rows in read_activations(network, texts, sites).items()}


def read_activations(network: Network, texts: Sequence[str], sites: Sequence[str]) -> dict[str, Float[Tensor, "n d"]]:
    """Activations of a network at each site over some texts: the first 64 tokens of each, at most 2,048 vectors.

    The first token of every text is left out: in many models its activation is tens of times longer than all others,
    which would be most of the covariance. (Cells of the map at the first token are disturbed like the others.)

    Cost: one forward pass over the texts; vectors of `d` entries for each site are kept.

    Raises:
        BadInput: If there is no text of two tokens, or as `encode`.
    """
    rows: dict[str, list[Tensor]] = {site: [] for site in sites}
    count = 0
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        batch = encode(network, texts[start : start + _TEXTS_AT_ONCE])
        kwargs: dict[str, Any] = {key: value[:, :MOST_TOKENS] for key, value in batch.kwargs.items()}
        kept = kwargs["attention_mask"].bool()
        kept[:, 0] = False
        if takes(network, "logits_to_keep"):
            kwargs["logits_to_keep"] = 1  # nobody asks for predictions here
        with torch.no_grad():
            found = network.record_all([f"acts:{site}" for site in sites], batch._replace(kwargs=kwargs))
        for site, values in zip(sites, found.values(), strict=True):
            rows[site].append(values[kept])
        count += int(kept.sum())
        if count >= MOST_VECTORS:
            break
    if count < 2:
        raise BadInput(
            "reference texts", got=f"{count} tokens after the first", wanted="at least 2", remedy="Use more."
        )
    return {site: torch.cat(parts)[:MOST_VECTORS] for site, parts in rows.items()}


def _unit(vectors: Tensor) -> Tensor:
    lengths: Tensor = vectors.norm(dim=1, keepdim=True)
    return vectors / lengths

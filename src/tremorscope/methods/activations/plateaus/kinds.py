"""Where activations and directions come from: real ones, Gaussians of equal covariance, and no structure at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput

REAL, OTHER, COV, ISOTROPIC = "real", "real-other", "cov-random", "isotropic"
OTHER_MIXTURE, COV_MIXTURE = "real-other mixture", "cov-random mixture"
DIRECTIONS = (OTHER, COV, ISOTROPIC, OTHER_MIXTURE, COV_MIXTURE)
RANDOM, RANDOM_MATCHED, RANDOM_POSTNORM = "random", "random, real norm", "random, post-norm"
BASES = (REAL, RANDOM, RANDOM_MATCHED, RANDOM_POSTNORM)
Shrinkage = float | Literal["ledoit-wolf"]


def layer_centred(activations: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Each activation less its own mean over the hidden dimension, which a layer norm downstream does not see.

    >>> layer_centred(torch.tensor([[1.0, 3.0]])).tolist()
    [[-1.0, 1.0]]
    """
    return activations - activations.mean(dim=-1, keepdim=True)


def layer_normed(activations: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Each activation as a layer norm without gains leaves it: mean 0 and variance 1 over the hidden dimension."""
    centred = layer_centred(activations.double())
    normed: Tensor = centred / centred.square().mean(dim=-1, keepdim=True).sqrt()
    return normed


@final
@dataclass(frozen=True, kw_only=True)
class Population:
    """Mean and covariance of real activations at a site, ready to be sampled; all in float64.

    `activations` are the real ones, (n, d). `values` and `vectors` are the eigenpairs of the covariance that is
    sampled, which is `(1 - shrinkage) C + shrinkage tr(C) / d I` with `C` the sample covariance (divisor n - 1).
    """

    activations: Float[Tensor, "n d"]
    mean: Float[Tensor, " d"]
    values: Float[Tensor, " d"]
    vectors: Float[Tensor, "d d"]
    shrinkage: float

    @classmethod
    def of(cls, activations: Float[Tensor, "n d"], *, shrinkage: Shrinkage = 0.0) -> Population:
        """Fit to real activations.

        Directions without variance (centring over the hidden dimension makes one) are never sampled, unless shrinkage
        fills them.

        Args:
            activations: One per row; more than dimensions, unless there is shrinkage.
            shrinkage: Share of the isotropic part: a number from 0 to 1, or `"ledoit-wolf"` for the share that
                minimises the expected squared error (Ledoit and Wolf 2004).

        Cost: one eigendecomposition of a d x d matrix.

        Raises:
            BadInput: If there are too few activations, one is not finite, or the shrinkage is out of range.
        """
        count, d = activations.shape
        if not activations.isfinite().all():
            raise BadInput("activations", got="entries that are not finite", wanted="finite numbers")
        if shrinkage != "ledoit-wolf" and not 0 <= shrinkage <= 1:
            raise BadInput("shrinkage", got=shrinkage, wanted="0 to 1, or 'ledoit-wolf'")
        if count < 2 or (shrinkage == 0 and count <= d):
            raise BadInput(
                "covariance of activations",
                got=f"{count} samples of {d} dimensions",
                wanted=f"at least {d + 1} samples",
                remedy="Use more prompts, or shrinkage='ledoit-wolf'.",
            )
        data = activations.detach().cpu().double()
        mean = data.mean(dim=0)
        centred = data - mean
        covariance = centred.T @ centred / (count - 1)
        share = _ledoit_wolf(data) if shrinkage == "ledoit-wolf" else float(shrinkage)
        average = covariance.diagonal().mean()
        values, vectors = torch.linalg.eigh(covariance)
        values = values.clamp_min(0.0)
        values = torch.where(values <= d * torch.finfo(torch.float64).eps * values.max(), 0.0, values)
        return cls(
            activations=data,
            mean=mean,
            values=(1 - share) * values + share * average,
            vectors=vectors,
            shrinkage=share,
        )

    @property
    def width(self) -> int:
        """Entries of an activation."""
        return len(self.mean)

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """The covariance that is sampled."""
        return (self.vectors * self.values) @ self.vectors.T

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count d"]:
        """Gaussian activations of equal mean and covariance: `mu + V sqrt(lambda) z`."""
        normal = torch.randn(count, self.width, generator=generator, dtype=torch.float64)
        return self.mean + (normal * self.values.sqrt()) @ self.vectors.T

    def others(
        self, bases: Float[Tensor, "bases d"], count: int, generator: torch.Generator
    ) -> Float[Tensor, "bases count d"]:
        """For each base, `count` different real activations; one that equals the base is not drawn.

        Raises:
            BadInput: If there are not enough.
        """
        same = (self.activations[None] == bases.cpu().double()[:, None]).all(dim=-1)
        keys = torch.rand(len(bases), len(self.activations), generator=generator, dtype=torch.float64)
        available = int((~same).sum(dim=1).min())
        if available < count:
            raise BadInput("other real activations", got=available, wanted=f"at least {count}", remedy="Use more.")
        chosen = keys.masked_fill(same, -1.0).topk(count, dim=1).indices
        return self.activations[chosen]

    def typical_distance(self) -> float:
        """Root mean squared distance between two real activations: `sqrt(2 tr C)`."""
        return float((2 * (self.activations - self.mean).square().sum() / (len(self.activations) - 1)).sqrt())


def base_activations(
    kind: str, real: Float[Tensor, "bases d"], population: Population, generator: torch.Generator
) -> Float[Tensor, "bases d"]:
    """Bases of a kind, one in the place of each real one.

    | kind | base |
    |---|---|
    | `real` | the activation itself |
    | `random` | a Gaussian of the population's mean and covariance |
    | `random, real norm` | the same, rescaled to the norm of the real one: the matched-norm control |
    | `random, post-norm` | a Gaussian fitted to layer-normed activations and layer-normed itself, then given mean and \
spread over the hidden dimension of the real one: the control for a layer norm, which cannot tell them apart by size |

    Raises:
        BadInput: If there is no such kind.
    """
    real = real.cpu().double()
    if kind == REAL:
        return real
    if kind == RANDOM:
        return population.sample(len(real), generator)
    if kind == RANDOM_MATCHED:
        drawn = population.sample(len(real), generator)
        rescaled: Tensor = drawn * (real.norm(dim=1) / drawn.norm(dim=1))[:, None]
        return rescaled
    if kind == RANDOM_POSTNORM:
        normed = Population.of(layer_normed(population.activations), shrinkage=population.shrinkage)
        drawn = layer_normed(normed.sample(len(real), generator))
        spread = layer_centred(real).square().mean(dim=-1, keepdim=True).sqrt()
        return real.mean(dim=-1, keepdim=True) + spread * drawn
    raise BadInput("kind of base", got=kind, wanted=", ".join(BASES))


def directions(
    kind: str, bases: Float[Tensor, "bases d"], count: int, population: Population, generator: torch.Generator
) -> Float[Tensor, "bases count d"]:
    """`count` directions from each base, each of length 1.

    | kind | direction |
    |---|---|
    | `real-other` | from the base to another real activation |
    | `cov-random` | from the base to a Gaussian of the population's mean and covariance |
    | `isotropic` | uniform on the sphere |
    | `real-other mixture`, `cov-random mixture` | the target itself: the base is not taken away (arXiv:2410.12555) |

    Raises:
        BadInput: If there is no such kind, or a direction has no length.
    """
    bases = bases.cpu().double()
    shape = (len(bases), count, population.width)
    if kind == ISOTROPIC:
        found = torch.randn(shape, generator=generator, dtype=torch.float64)
    elif kind in (OTHER, OTHER_MIXTURE):
        found = population.others(bases, count, generator)
    elif kind in (COV, COV_MIXTURE):
        found = population.sample(len(bases) * count, generator).reshape(shape)
    else:
        raise BadInput("kind of direction", got=kind, wanted=", ".join(DIRECTIONS))
    return unit(found - bases[:, None] if kind in (OTHER, COV) else found)


def unit(vectors: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead d"]:
    """Vectors of length 1, in float64.

    Raises:
        BadInput: If one is zero or not finite.
    """
    vectors = vectors.double()
    norms = vectors.norm(dim=-1, keepdim=True)
    if not norms.isfinite().all() or (norms == 0).any():
        bad = int((~norms.isfinite() | (norms == 0)).sum())
        raise BadInput("directions", got=f"{bad} that are zero or not finite", wanted="finite vectors other than 0")
    found: Tensor = vectors / norms
    return found


def _ledoit_wolf(data: Tensor) -> float:
    from sklearn.covariance import ledoit_wolf_shrinkage  # two seconds to import

    return float(ledoit_wolf_shrinkage(data.numpy()))

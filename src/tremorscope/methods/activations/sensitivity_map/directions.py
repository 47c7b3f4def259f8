"""The directions at one cell along which predictions move most, and what moving along them does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.seeds import generator
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators.pullback import PullbackFisher
from tremorscope.instruments.spectrum import Spectrum, eigsh
from tremorscope.instruments.task import Batch
from tremorscope.methods.activations.sensitivity_map.cells import cell_sweep

NUM_TOKENS = 5  # raised, lowered and nearest, each
_CHANCE_DRAWS = 64
_SLIGHT = 0.01  # of the largest rate: tokens that change less are not what a direction does


class TokenChange(NamedTuple):
    """One token, how fast its probability changes along a direction, and how much it does after a finite step."""

    text: str
    rate: float  # of the probability, for a step of length 1
    before: float
    after: float


class NearToken(NamedTuple):
    """An input token and the cosine of its embedding (less the mean embedding) with a direction."""

    text: str
    cosine: float


@final
@dataclass(frozen=True, kw_only=True)
class DirectionReading:
    """One eigenvector of the pullback metric in words of the vocabulary. Its sign is that of its largest change.

    `raised` and `lowered` are the tokens whose probability changes fastest by the exact linear response, those
    left out that change a hundred times slower than the fastest; `nearest` the
    input tokens whose embeddings have the largest cosine, and `chance` the cosine that the nearest token of a random
    direction reaches in 19 of 20 cases. Both are empty where embeddings have another width.
    """

    eigenvalue: float
    residual: float
    vector: Float[Tensor, " d"]
    step: float
    raised: tuple[TokenChange, ...]
    lowered: tuple[TokenChange, ...]
    nearest: tuple[NearToken, ...]
    chance: float | None


@final
@dataclass(frozen=True, kw_only=True)
class CellMetric:
    """The leading eigenpairs of `G = J^T F J` at one cell, its logits as a function, and the clean activation."""

    site: str
    layer: int
    token: int
    spectrum: Spectrum
    operator: PullbackFisher
    logits: Callable[[Tensor], Tensor]  # from points [n, d] to logits [n, vocabulary] at the last token
    base: Float[Tensor, " d"]
    flags: tuple[str, ...]

    @property
    def address(self) -> str:
        """The site, as `Site.parse` takes it."""
        return f"acts:{self.site}@{self.token}"


def cell_metric(
    network: Network, batch: Batch, site: str, layer: int, token: int, *, count: int = 5, seed: int = 0
) -> CellMetric:
    """How does the prediction at the last token depend on one activation, to second order, along its main axes?

    `KL = a^2 lambda / 2` for a small step a along an eigenvector. By Lanczos on products (one forward pass with
    tangents and one backward pass each), or, up to 256 dimensions, from the matrix that as many products give.

    Raises:
        BadInput: As `prepare_sweep` and `eigsh`.
        NotConverged: As `eigsh`.
    """
    sweep = cell_sweep(network, batch, site, token)
    base = sweep.base[0].detach()
    operator = PullbackFisher(lambda point: sweep.logits(point[None])[0], base, chunk=64)
    spectrum = eigsh(operator, min(count, len(base)), seed=seed, tol=1e-5)
    return CellMetric(
        site=site,
        layer=layer,
        token=token,
        spectrum=spectrum,
        operator=operator,
        logits=sweep.logits,
        base=base,
        flags=(*sweep.flags, *operator.flags, *spectrum.flags),
    )


def read_directions(network: Network, metric: CellMetric, *, step: float, seed: int = 0) -> list[DirectionReading]:
    """What each eigenvector of a cell does: tokens raised and lowered, and input tokens near it.

    Args:
        network: The network, with its tokenizer.
        metric: Of one of its cells.
        step: Length of the finite step, in units of the activation.
        seed: Of the random directions that nearness is compared with.
    """
    before = metric.operator.probabilities.double()
    rates = metric.operator.response(metric.spectrum.vectors).double()
    largest = torch.stack([column[column.abs().argmax()] for column in rates.unbind(1)])
    signs = torch.where(largest < 0, -1.0, 1.0).to(rates)  # where nothing changes there is no sign to choose
    vectors, rates = metric.spectrum.vectors * signs.to(metric.base), rates * signs
    with torch.no_grad():
        after = metric.logits(metric.base + step * vectors.T).double().softmax(dim=-1)
    embeddings = _embeddings(network, len(metric.base))
    chance = None if embeddings is None else _chance_cosine(embeddings, seed)
    found = []
    for place, vector in enumerate(vectors.unbind(1)):
        order = rates[:, place].argsort(descending=True)
        least = _SLIGHT * float(rates[:, place].abs().max())

        def changes(tokens: Tensor, sign: int, place: int = place, least: float = least) -> tuple[TokenChange, ...]:
            return tuple(
                TokenChange(
                    text=network.tokenizer.decode([token]),
                    rate=float(rates[token, place]),
                    before=float(before[token]),
                    after=float(after[place, token]),
                )
                for token in tokens[:NUM_TOKENS].tolist()
                if sign * float(rates[token, place]) > least
            )

        found.append(
            DirectionReading(
                eigenvalue=float(metric.spectrum.values[place]),
                residual=float(metric.spectrum.residuals[place]),
                vector=vector,
                step=step,
                raised=changes(order, 1),
                lowered=changes(order.flip(0), -1),
                nearest=() if embeddings is None else _nearest(network, embeddings, vector),
                chance=chance,
            )
        )
    return found


def _embeddings(network: Network, width: int) -> Float[Tensor, "tokens d"] | None:
    """Input embeddings of the view's own weights, centred and of length 1; None where they have another width."""
    find = getattr(network.module, "get_input_embeddings", None)
    layer: Any = None if find is None else find()
    names = [name for name, value in network.module.named_parameters() if value is getattr(layer, "weight", None)]
    if not names or network.params[names[0]].shape[-1] != width:
        return None
    weight = network.params[names[0]].detach().double()
    centred = weight - weight.mean(dim=0)
    lengths: Tensor = centred.norm(dim=1, keepdim=True)
    return centred / lengths.clamp_min(1e-12)


def _nearest(network: Network, embeddings: Tensor, vector: Tensor) -> tuple[NearToken, ...]:
    cosines = embeddings @ (vector.double() / vector.double().norm())
    order: Sequence[int] = cosines.abs().argsort(descending=True)[:NUM_TOKENS].tolist()
    return tuple(NearToken(network.tokenizer.decode([token]), float(cosines[token])) for token in order)


def _chance_cosine(embeddings: Tensor, seed: int) -> float:
    """What the nearest token of a random direction reaches in 95 of 100 draws."""
    drawn = torch.randn(
        _CHANCE_DRAWS, embeddings.shape[1], generator=generator(seed, "nearest tokens"), dtype=torch.float64
    ).to(embeddings)
    drawn = drawn / drawn.norm(dim=1, keepdim=True)
    return float((drawn @ embeddings.T).abs().amax(dim=1).quantile(0.95))

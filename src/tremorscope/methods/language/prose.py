"""Held-out prose: the loss of a language model beside unigram, bigram and trigram models of the training prose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any, final

import numpy
from jaxtyping import Int64

from tremorscope.foundations.cluster_bootstrap import crossed_mean
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.seeds import numpy_generator
from tremorscope.instruments.language.encode import required_tokenizer
from tremorscope.instruments.language.ngrams import LARGEST_ORDER, NgramModel, fit_ngrams
from tremorscope.instruments.language.scoring import row_losses
from tremorscope.instruments.microworld import prose
from tremorscope.instruments.microworld.splits import Split
from tremorscope.instruments.network import Network

LENGTH = 128
NGRAMS = ("unigram", "bigram", "trigram")
Rows = Int64[numpy.ndarray, "_ _"]


@final
@dataclass(frozen=True, kw_only=True)
class ProseLosses:
    """Mean loss of each row of held-out prose, in nats per token, by the name of what predicted it.

    `modules` are where the rows come from, `rows` their numbers among all rows of the split.
    """

    modules: tuple[str, ...]
    rows: tuple[int, ...]
    losses: Mapping[str, tuple[float, ...]]

    def perplexity(self, name: str, *, seed: int = 0) -> Estimate:
        """Exponential of the mean loss; rows and whole modules are drawn for the interval."""
        return _exponential(crossed_mean(self.losses[name], self.modules, self.rows, seed=seed))

    def ratio(self, name: str, other: str, *, seed: int = 0) -> Estimate:
        """Perplexity of one predictor over that of another on the same rows."""
        gaps = numpy.array(self.losses[name]) - numpy.array(self.losses[other])
        return _exponential(crossed_mean(gaps, self.modules, self.rows, seed=seed))

    def joined(self, others: Sequence[ProseLosses]) -> ProseLosses:
        """Several draws of rows as one; a row that came twice counts once."""
        parts = [self, *others]
        kept: dict[int, tuple[str, dict[str, float]]] = {}
        for part in parts:
            for place, row in enumerate(part.rows):
                told = {name: losses[place] for name, losses in part.losses.items()}
                kept.setdefault(row, (part.modules[place], told))
        return ProseLosses(
            modules=tuple(module for module, _ in kept.values()),
            rows=tuple(kept),
            losses={name: tuple(told[name] for _, told in kept.values()) for name in self.losses},
        )

    def to_plain(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> ProseLosses:
        """The inverse of `to_plain`, also after JSON."""
        losses = {name: tuple(values) for name, values in plain["losses"].items()}
        return cls(modules=tuple(plain["modules"]), rows=tuple(plain["rows"]), losses=losses)


def prose_rows(
    network: Network, split: Split, *, length: int = LENGTH, root: Path | None = None
) -> tuple[Rows, tuple[str, ...]]:
    """All prose of a split as rows of tokens, and the module of each row.

    The pieces of a module follow each other, each begun as the tokenizer begins a text; what does not fill a module's
    last row is left out.

    Raises:
        BadInput: If there is no tokenizer, no prose, or not enough for one row.
    """
    tokenizer = required_tokenizer(network)
    rows, modules = [], []
    for module, pieces in groupby(prose.examples(split, root=root), key=lambda piece: piece.module):
        tokens = list(chain.from_iterable(tokenizer([piece.text for piece in pieces], verbose=False)["input_ids"]))
        whole = len(tokens) // length
        rows += [tokens[place * length : (place + 1) * length] for place in range(whole)]
        modules += [module] * whole
    if not rows:
        raise BadInput(
            f"{split} prose",
            got=f"no module of {length} tokens",
            wanted="at least one",
            remedy="Use shorter rows, or a standard library with more modules.",
        )
    return numpy.array(rows, dtype=numpy.int64), tuple(modules)


def measure_prose(
    networks: Mapping[str, Network],
    *,
    split: Split = "test",
    seed: int = 0,
    count: int = 200,
    length: int = LENGTH,
    root: Path | None = None,
) -> dict[str, ProseLosses]:
    """How well is held-out prose foretold, by each network ("model") and by n-gram models of the training prose?

    Prose of a split is that of modules which no other split has. The n-gram models use the network's own tokens, and
    are made once for networks with the same ones.

    Cost: 3 CPU-s to read the prose of the standard library, about 6 to count n-grams, then a forward pass over `count`
    rows, drawn at random of all, for each network.

    Raises:
        BadInput: As `prose_rows`.
    """
    found: dict[str, ProseLosses] = {}
    known: list[tuple[int, Rows, tuple[NgramModel, ...]]] = []
    for name, network in networks.items():
        rows, modules = prose_rows(network, split, length=length, root=root)
        size = len(network.tokenizer)
        same = (models for vocabulary, other, models in known if vocabulary == size and numpy.array_equal(other, rows))
        ngrams = next(same, None)
        if ngrams is None:
            ngrams = fit_prose_ngrams(network, length=length, root=root)
            known.append((size, rows, ngrams))
        chosen = numpy.sort(numpy_generator(seed, "prose rows").permutation(len(rows))[:count])
        losses = {"model": tuple(row_losses(network, rows[chosen]).tolist())}
        losses |= {model.name: tuple(model.row_losses(rows[chosen]).tolist()) for model in ngrams}
        found[name] = ProseLosses(
            modules=tuple(modules[row] for row in chosen), rows=tuple(chosen.tolist()), losses=losses
        )
    return found


def fit_prose_ngrams(network: Network, *, length: int = LENGTH, root: Path | None = None) -> tuple[NgramModel, ...]:
    """Unigram, bigram and trigram models of the training prose, in the network's own tokens.

    Cost: about 6 CPU-s for the prose of the standard library.

    Raises:
        BadInput: As `prose_rows`.
    """
    train, _ = prose_rows(network, "train", length=length, root=root)
    validation, _ = prose_rows(network, "validation", length=length, root=root)
    size = len(network.tokenizer)
    orders = range(1, LARGEST_ORDER + 1)
    return tuple(fit_ngrams(train, order, vocabulary_size=size, validation=validation) for order in orders)


def _exponential(logarithm: Estimate) -> Estimate:
    value, low, high = (math.exp(end) for end in (logarithm.value, logarithm.low, logarithm.high))
    return replace(logarithm, value=value, low=low, high=high)

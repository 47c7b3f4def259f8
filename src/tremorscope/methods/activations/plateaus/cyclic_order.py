"""Do words with a cyclic order lie on a circle in that order?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import numpy_generator
from tremorscope.instruments.language.encode import encode, required_tokenizer
from tremorscope.instruments.network import Network

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = tuple(
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)
TEMPLATES = (
    "We will meet on {}.",
    "The shop is closed every {}.",
    "It rained all day on {}.",
    "She was born on a {}.",
    "The letter arrived last {}.",
    "Our next lesson is on {}.",
    "They left early on {} morning.",
    "The report is due by {}.",
)
ALL_ORDERS = 8  # words up to which every cyclic order is tried: 2,520 of them
SAMPLED = 20_000


@final
@dataclass(frozen=True, kw_only=True)
class CyclicOrder:
    """How words lie, their vectors averaged over templates and centred over words.

    `share` is the part of their variance that lies in the first cyclic Fourier mode of the true order, `others` the
    same of all other cyclic orders (of a sample of them when there are more than eight words), largest first. `angles`
    are the words' angles in the plane of the first two principal components, in radians.
    """

    words: tuple[str, ...]
    share: float
    others: Float[numpy.ndarray, " orders"]
    angles: Float[numpy.ndarray, " words"]
    is_sampled: bool

    @property
    def rank(self) -> int:
        """Place of the true order among all orders, 1 for the first."""
        return 1 + int((self.others >= self.share).sum())

    @property
    def is_exact(self) -> bool:
        """Whether the words follow each other around the plane in the true order, either way round."""
        around = numpy.argsort(self.angles).tolist()
        size = len(around)
        steps = {(after - before) % size for before, after in zip(around, [*around[1:], around[0]], strict=True)}
        return steps in ({1}, {size - 1})

    def table(self, *, name: str = "cyclic_order") -> Table:
        """One row for each word."""
        return Table.of_rows(
            [
                {"word": word, "angle in degrees": math.degrees(angle)}
                for word, angle in zip(self.words, self.angles.tolist(), strict=True)
            ],
            name=name,
            title="Words around the plane of their first two principal components",
            caption=f"Share of variance in the first mode of the true order: {self.share:.3f}; the best of "
            f"{len(self.others)} {'sampled' if self.is_sampled else 'other'} orders: {self.others[0]:.3f}.",
        )


def word_vectors(
    network: Network, words: Sequence[str], site: str, *, templates: Sequence[str] = TEMPLATES
) -> Float[Tensor, "words d"]:
    """The activation at each word's last token, averaged over templates.

    Args:
        network: With a tokenizer.
        words: Put into the templates one by one.
        site: Without position, such as `acts:resid_post.3`.
        templates: With one `{}` each, not at the beginning.

    Raises:
        BadInput: If a template has no such place.
    """
    tokenizer = required_tokenizer(network)
    parts = []
    for template in templates:
        head, place, _ = template.partition("{}")
        if not place or not head:
            raise BadInput("template", got=repr(template), wanted="text, then {}")
        texts = [template.format(word) for word in words]
        ends = [len(tokenizer(head + word, add_special_tokens=False, verbose=False)["input_ids"]) for word in words]
        before = _tokens_before(tokenizer)
        with torch.no_grad():
            values = network.record(site, encode(network, texts))
        parts.append(values[torch.arange(len(words)), torch.tensor(ends) + before - 1].double().cpu())
    return torch.stack(parts).mean(dim=0)


def cyclic_order(vectors: Float[Tensor, "words d"], words: Sequence[str], *, seed: int = 0) -> CyclicOrder:
    """Do these vectors, in the order given, lie on a circle more than in any other order?

    Raises:
        BadInput: If there are fewer than 4 words (three have one cyclic order only), or vectors are all equal.
    """
    count = len(words)
    if count < 4 or count != len(vectors):
        raise BadInput("words on a circle", got=f"{count} words, {len(vectors)} vectors", wanted="at least 4 of each")
    centred = vectors.double() - vectors.double().mean(dim=0)
    gram = (centred @ centred.T).numpy()
    if not gram.trace() > 0:
        raise BadInput("vectors of words", got="equal ones", wanted="different ones")
    is_sampled = count > ALL_ORDERS
    shares = first_mode_shares(gram, _other_orders(count, seed, is_sampled))
    left, scales, _ = torch.linalg.svd(centred, full_matrices=False)
    plane = left[:, :2] * scales[:2]
    return CyclicOrder(
        words=tuple(words),
        share=float(first_mode_shares(gram, numpy.arange(count)[None])[0]),
        others=numpy.sort(shares)[::-1].copy(),
        angles=torch.atan2(plane[:, 1], plane[:, 0]).numpy(),
        is_sampled=is_sampled,
    )


def first_mode_shares(
    gram: Float[numpy.ndarray, "words words"], orders: Int[numpy.ndarray, "orders words"]
) -> Float[numpy.ndarray, " orders"]:
    """Share of variance in the first cyclic Fourier mode, for each way to arrange the words around a circle.

    From inner products alone: `2 / p sum_ij G_ij cos(2 pi (i - j) / p) / tr G`, where `orders[k, i]` is the word at
    place `i`.
    """
    count = len(gram)
    places = numpy.arange(count)
    waves = numpy.cos(2 * math.pi * (places[:, None] - places[None]) / count)
    found: numpy.ndarray = 2 / count * (gram[orders[:, :, None], orders[:, None, :]] * waves).sum(axis=(1, 2))
    return found / float(gram.trace())


def _other_orders(count: int, seed: int, is_sampled: bool) -> Int[numpy.ndarray, "orders words"]:
    """Every cyclic order but the true one, once (not again backwards), or random ones."""
    if is_sampled:
        draws = numpy_generator(seed, "orders")
        return numpy.stack([draws.permutation(count) for _ in range(SAMPLED)])
    # The first word stays; of an order and its mirror image one is kept.
    found = [(0, *rest) for rest in itertools.permutations(range(1, count)) if rest[0] < rest[-1]]
    return numpy.array([order for order in found if order != tuple(range(count))])


def _tokens_before(tokenizer: object) -> int:
    """How many special tokens stand before a text."""
    ids = [
        list(tokenizer("a", add_special_tokens=special, verbose=False)["input_ids"])  # type: ignore[operator]
        for special in (False, True)
    ]
    bare, dressed = ids
    return next((at for at in range(len(dressed)) if dressed[at : at + len(bare)] == bare), 0)

"""Draws from a named stream that are the same on every machine and under every release of NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, final

import numpy

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import derive

T = TypeVar("T")
BLOCK = 4096
BITS = 32


@final
class Draw:
    """Uniform integers, choices and shuffles of the stream called `names` under `seed`.

    Built on the raw words of PCG64 and integer arithmetic alone: NumPy promises the words of a bit generator, not what
    its distributions make of them. A choice among n is uniform to n / 2^32.

    >>> Draw(0, "example").below(100) == Draw(0, "example").below(100)
    True
    """

    def __init__(self, seed: int, *names: str | int) -> None:
        self._words = numpy.random.PCG64(derive(seed, *names))
        self._left: list[int] = []

    def below(self, count: int) -> int:
        """One of 0 ... count - 1."""
        if not self._left:
            self._left = (self._words.random_raw(BLOCK) >> numpy.uint64(64 - BITS)).tolist()
        return self._left.pop() * count >> BITS

    def one(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.below(1 << BITS) < probability * (1 << BITS)

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """Different positions of `items`, in random order.

        Raises:
            BadInput: If there are not as many.
        """
        if count > len(items):
            raise BadInput("draw without replacement", got=f"{count} of {len(items)}", wanted=f"at most {len(items)}")
        positions: list[int] = []
        while len(positions) < count:  # a few of many: trying again is cheaper than a shuffle
            position = self.below(len(items))
            if position not in positions:
                positions.append(position)
        return [items[position] for position in positions]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All items in random order (Fisher and Yates)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

"""The states of a run, kept whole or recomputed from a few of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final, overload

from tremorscope.instruments.recipe import Recipe, State, state_tensors


@final
class States(Sequence[State]):
    """States 0 to `num_steps` of a recipe, every `stride`-th in memory, the others recomputed when asked for.

    Asked for in order, forwards or backwards, each is recomputed once: a sweep costs one more primal run, and
    memory falls from `T` states to about `2 sqrt(T)` (Griewank 1992). With `stride` 1 all are kept. Recomputed
    states are the same bits, because a step is pure.
    """

    def __init__(self, recipe: Recipe, kept: list[State], stride: int) -> None:
        self._recipe, self._kept, self.stride = recipe, kept, stride
        self._segment: tuple[int, list[State]] = (-1, [])

    def __len__(self) -> int:
        return self._recipe.num_steps + 1

    @overload
    def __getitem__(self, index: int) -> State: ...
    @overload
    def __getitem__(self, index: slice) -> list[State]: ...
    def __getitem__(self, index: int | slice) -> State | list[State]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start, offset = divmod(index % len(self), self.stride)
        if offset == 0:
            return self._kept[start]
        if self._segment[0] != start:
            states = [self._kept[start]]
            first = start * self.stride
            for t in range(first, min(first + self.stride - 1, len(self) - 1)):
                states.append(self._recipe.step(states[-1], t))
            self._segment = (start, states)
        return self._segment[1][offset]


def stride_for(recipe: Recipe, state: State, memory: int) -> int:
    """1 when all states fit into `memory` bytes, else the square root of their number."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in state_tensors(state))
    return 1 if size * (recipe.num_steps + 1) <= memory else max(1, math.isqrt(recipe.num_steps))

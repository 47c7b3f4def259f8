"""Slow twins: the whole training run, differentiated in one piece or by differences."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.func import jvp

from tremorscope.instruments.recipe import Recipe, run_recipe


def naive_product(recipe: Recipe, theta: Tensor, block: Tensor) -> Tensor:
    """`J V`, one jvp of the whole run for each column."""
    whole = partial(run_recipe, recipe)
    return torch.stack([jvp(whole, (theta,), (column,))[1] for column in block.T], dim=1)


def central_differences(recipe: Recipe, theta: Tensor, block: Tensor, size: float = 1e-5) -> Tensor:
    """`J V` by training twice for each column, from `theta` plus and minus `size` times the column."""
    pairs = [(run_recipe(recipe, theta + size * v), run_recipe(recipe, theta - size * v)) for v in block.T]
    return torch.stack([(plus - minus) / (2 * size) for plus, minus in pairs], dim=1)

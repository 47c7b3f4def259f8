"""Addition modulo p: all pairs of residues with their sums, and a small embedding network for them."""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.losses import Loss, cross_entropy
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Task

Combine = Literal["sum", "concat"]


def modular_addition(
    p: int = 37,
    *,
    train_share: float = 0.4,
    seed: int = 0,
    pairs: Literal["ordered", "unordered"] = "ordered",
    loss: Loss = cross_entropy,
) -> Task:
    """All pairs `(a, b)` mod `p` with the class `(a + b) mod p`; a random share of them is for training.

    Inputs are `[examples, 2]` residues, in random order. With `"unordered"` pairs each `{a, b}` occurs once,
    as `a <= b`: then `(b, a)` can never be held out while `(a, b)` is trained on. Chance accuracy is `1 / p`,
    the optimum is 1.

    >>> task = modular_addition(5, train_share=0.6)
    >>> task.size, len(task.test_inputs), task.num_classes
    (15, 10, 5)

    Raises:
        BadInput: If `p` is less than 2, or the share leaves no training example.
    """
    if p < 2:
        raise BadInput("modulus", got=p, wanted="at least 2")
    everything = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    if pairs == "unordered":
        everything = everything[everything[:, 0] <= everything[:, 1]]
    num_train = int(train_share * len(everything) + 1e-9)
    if not 1 <= num_train <= len(everything):
        raise BadInput("share of training pairs", got=train_share, wanted=f"1/{len(everything)} to 1")
    order = torch.randperm(len(everything), generator=generator(seed, "modular addition", p, pairs))
    shuffled = everything[order]
    sums = shuffled.sum(dim=1) % p
    held_out = num_train < len(shuffled)
    return Task(
        name=f"addition mod {p}",
        inputs=shuffled[:num_train],
        targets=sums[:num_train],
        test_inputs=shuffled[num_train:] if held_out else None,
        test_targets=sums[num_train:] if held_out else None,
        loss=loss,
        num_classes=p,
        description=f"a + b mod {p}, {num_train} of {len(shuffled)} {pairs} pairs to train on",
    )


@final
class PairNetwork(nn.Module):
    """`last(silu(first(e_a + e_b)))`, or of `[e_a, e_b]`, with one embedding for both places of a pair.

    With `"sum"` the network cannot tell `(a, b)` from `(b, a)`.
    """

    def __init__(self, p: int, *, width: int, hidden: int, combine: Combine, bias: bool) -> None:
        super().__init__()
        self.combine = combine
        # On the meta device: a layer's own initialisation would draw from the global random stream.
        self.embedding = nn.Parameter(torch.empty(p, width, device="meta"))
        self.first = nn.Linear(width if combine == "sum" else 2 * width, hidden, bias=bias, device="meta")
        self.last = nn.Linear(hidden, p, bias=bias, device="meta")

    def forward(self, pairs: Int[Tensor, "batch 2"]) -> Float[Tensor, "batch p"]:
        """Logits of the sum."""
        embedded = self.embedding[pairs]  # not nn.functional.embedding: its backward has no batching rule
        joined = embedded.sum(dim=1) if self.combine == "sum" else embedded.flatten(1)
        logits: Tensor = self.last(nn.functional.silu(self.first(joined)))
        return logits


def modular_addition_mlp(
    p: int = 37,
    *,
    width: int = 14,
    hidden: int = 32,
    combine: Combine = "sum",
    bias: bool = False,
    seed: int = 0,
    task: Task | None = None,
    dtype: torch.dtype = torch.float32,
    name: str | None = None,
) -> Network:
    """The embedding network of the modular-addition experiments, at its start.

    Embeddings are standard normal; weights and biases of the two layers uniform within `1 / sqrt(fan_in)`,
    as in PyTorch. The draw depends on `seed` and the sizes only: float32 weights are the float64 ones, rounded.
    Without a `task` it gets `modular_addition(p, seed=seed)`.

    >>> modular_addition_mlp().layout.size  # 37 * 14 + 14 * 32 + 32 * 37
    2150

    Raises:
        BadInput: If a size is less than 1, or `combine` is unknown.

    Source: nrimsky/mlexperiments, modular_addition/mlp_modular.py, for the architecture and its sizes.
    """
    for what, size in (("width", width), ("hidden", hidden)):
        if size < 1:
            raise BadInput(f"{what} of the network", got=size, wanted="at least 1")
    if combine not in ("sum", "concat"):
        raise BadInput("combine", got=combine, wanted="sum or concat")
    task = modular_addition(p, seed=seed) if task is None else task
    module = PairNetwork(p, width=width, hidden=hidden, combine=combine, bias=bias)
    stream = generator(seed, "modular addition network", p, width, hidden, combine)
    module.embedding = nn.Parameter(torch.randn(p, width, generator=stream, dtype=torch.float64).to(dtype))
    for layer in (module.first, module.last):
        bound = 1 / math.sqrt(layer.in_features)
        for key, parameter in list(layer.named_parameters()):
            drawn = torch.rand(parameter.shape, generator=stream, dtype=torch.float64)
            setattr(layer, key, nn.Parameter((bound * (2 * drawn - 1)).to(dtype)))
    name = name or f"addition mod {p} (width {width}, hidden {hidden}, seed {seed})"
    return Network(module, task=task, name=name)

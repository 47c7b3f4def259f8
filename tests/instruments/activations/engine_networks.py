"""Tiny random networks of every family that the engine is tested on, each with two batches of one shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.instruments.language.tiny_models import VOCABULARY, tiny
from tremorscope.instruments.activations.named_edits import clamp
from tremorscope.instruments.edit import Edit
from tremorscope.instruments.network import Network
from tremorscope.instruments.recurrent import RecurrentConfig, RecurrentLanguageModel
from tremorscope.instruments.task import Batch

IDENTITY: Edit = clamp(low=-1e30)  # every entry, whatever the width; the very same numbers
LANGUAGE = ("gpt2", "llama", "bert", "mamba", "rwkv", "house-gru")
ALL = (*LANGUAGE, "gru", "lstm", "mlp", "cnn")


class Recurrent(nn.Module):
    """A layer of PyTorch's own, with positions first as they have it, and a read-out."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = kind(3, 4)
        self.readout = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cell(x.transpose(0, 1))
        return self.readout(states.transpose(0, 1))


def _house_gru() -> nn.Module:
    return RecurrentLanguageModel(RecurrentConfig(vocab_size=VOCABULARY, width=4, hidden_size=6, num_layers=2))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "house-gru": _house_gru,
    "gru": lambda: Recurrent(nn.GRU),
    "lstm": lambda: Recurrent(nn.LSTM),
    "mlp": lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)),
    "cnn": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)),
}
SHAPES = {"gru": (2, 5, 3), "lstm": (2, 5, 3), "mlp": (2, 3), "cnn": (2, 1, 5, 5)}


def made(name: str, **more: Any) -> Network:
    """A network by name, the same weights every time."""
    if name not in MODULES:
        return tiny(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return Network(MODULES[name](), name=name, **more)


def batch_of(name: str, seed: int = 0) -> Batch:
    """Two rows: tokens, or real numbers."""
    stream = torch.Generator().manual_seed(seed)
    if name in SHAPES:
        return Batch((torch.randn(SHAPES[name], generator=stream),), {}, None)
    return Batch((), {"input_ids": torch.randint(3, VOCABULARY, (2, 6), generator=stream)}, None)


def vector(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(100 + seed))

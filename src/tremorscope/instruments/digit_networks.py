"""A convolutional network and a small transformer on the digits: too many weights for a dense training Jacobian."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tremorscope.foundations.seeds import generator
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import Optimiser, adam, momentum
from tremorscope.instruments.task import Task, digits
from tremorscope.instruments.trainer import Trainer


@final
class RowTransformer(nn.Module):
    """The eight rows of an image are eight tokens; two encoder layers, mean over tokens, one linear head."""

    def __init__(self, width: int = 52) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.place = nn.Parameter(0.02 * torch.randn(8, width))
        layers = [
            nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True)
            for _ in range(2)
        ]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(width, 10)

    def forward(self, pixels: Float[Tensor, "batch 64"]) -> Float[Tensor, "batch 10"]:
        """Logits of the ten digits."""
        rows = self.embed(pixels.reshape(len(pixels), 8, 8)) + self.place
        logits: Tensor = self.head(self.layers(rows).mean(1))
        return logits


@final
class Convolutional(nn.Module):
    """Two convolutions, average pooling, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 32, 3, padding=1), nn.GELU(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(512, 110), nn.GELU(), nn.Linear(110, 10),
        )  # fmt: skip

    def forward(self, pixels: Float[Tensor, "batch 64"]) -> Float[Tensor, "batch 10"]:
        """Logits of the ten digits."""
        logits: Tensor = self.layers(pixels.reshape(len(pixels), 1, 8, 8))
        return logits


def digits_cnn(
    seed: int = 0,
    *,
    num_steps: int = 200,
    task: Task | None = None,
    dtype: torch.dtype = torch.float32,
    name: str | None = None,
) -> Network:
    """A convolutional network of 62,340 weights at its start, with a recipe: batches of 64, momentum 0.9, cosine.

    Weights are PyTorch's own initialisation, drawn from a stream of `seed`.

    >>> digits_cnn().layout.size
    62340
    """
    return _network(Convolutional, momentum(lr=0.1), seed, num_steps, task, dtype, name or "digits-cnn")


def digits_transformer(
    seed: int = 0,
    *,
    num_steps: int = 200,
    task: Task | None = None,
    dtype: torch.dtype = torch.float32,
    name: str | None = None,
) -> Network:
    """A transformer of two layers and 67,662 weights at its start, with a recipe: batches of 64, Adam, cosine.

    Adam has `eps_root` 1e-8, without which its derivative does not exist where a gradient is 0.

    >>> digits_transformer().layout.size
    67662
    """
    optimiser = adam(3e-3, eps_root=1e-8)
    return _network(RowTransformer, optimiser, seed, num_steps, task, dtype, name or "digits-transformer")


def _network(
    kind: type[Convolutional] | type[RowTransformer],
    optimiser: Optimiser,
    seed: int,
    num_steps: int,
    task: Task | None,
    dtype: torch.dtype,
    name: str,
) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(generator(seed, kind.__name__).get_state())
        module = kind().to(dtype)
    bare = Network(module, task=digits() if task is None else task, name=name)
    trainer = Trainer(optimiser=optimiser, num_steps=num_steps, batch_size=64, schedule="cosine")
    return Network(module, task=bare.task, recipe=trainer.bind(bare), initial=bare.theta, name=name)

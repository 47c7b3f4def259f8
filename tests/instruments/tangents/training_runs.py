"""Small training runs, registered once, for every test that differentiates through one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.laws.operator_cases import filled, stream
from tremorscope.instruments.losses import Loss, cross_entropy, squared_error
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import Adam, Optimiser, adam, adamw, momentum, nesterov, sgd
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer

F64 = torch.float64
NUM, WIDE, CLASSES = 13, 6, 3
LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "squared_error": squared_error}
# eps_root is large for a second moment: it bounds the curvature of the root, hence the error of differences.
OPTIMISERS: dict[str, Optimiser] = {
    "sgd": sgd(0.3),
    "momentum": momentum(0.1, weight_decay=0.05),
    "nesterov": nesterov(0.1),
    "adam": adam(0.02, eps_root=1e-3),
    "adamw": adamw(0.02, weight_decay=0.3, eps_root=1e-3),
}
DECAYS: dict[str, Optimiser] = {
    "sgd, decay": sgd(0.3, weight_decay=0.05),
    "nesterov, decay": nesterov(0.1, weight_decay=0.05),
    "adam, coupled decay": Adam(lr=0.02, eps_root=1e-3, weight_decay=0.3),
}


class Functional(nn.Module):
    """A user's class: layers as attributes, activations as functions and methods."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, CLASSES)  # registered before the first
        self.first = nn.Linear(WIDE, 5)
        self.body = nn.Sequential(nn.Linear(5, 4), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(x, 1)
        x = nn.functional.gelu(self.first(x), approximate="tanh")
        return self.last(self.body(x).sigmoid())


STACKS: dict[str, Callable[[], nn.Module]] = {
    "a lone layer": lambda: nn.Linear(WIDE, CLASSES),
    "one layer": lambda: nn.Sequential(nn.Linear(WIDE, CLASSES)),
    "no bias": lambda: nn.Sequential(nn.Linear(WIDE, 5, bias=False), nn.Tanh(), nn.Linear(5, CLASSES, bias=False)),
    "GELU": lambda: nn.Sequential(nn.Linear(WIDE, 5), nn.GELU(), nn.Linear(5, CLASSES)),
    "ReLU, four deep": lambda: nn.Sequential(
        nn.Linear(WIDE, 5), nn.ReLU(), nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(),
        nn.Linear(4, CLASSES),
    ),
    "activation at the end": lambda: nn.Sequential(nn.Linear(WIDE, 4), nn.SiLU(), nn.Linear(4, CLASSES), nn.Sigmoid()),
    "two activations in a row": lambda: nn.Sequential(nn.Linear(WIDE, 4), nn.Tanh(), nn.ELU(), nn.Linear(4, CLASSES)),
    "linear, three deep": lambda: nn.Sequential(nn.Linear(WIDE, 4), nn.Linear(4, 4), nn.Linear(4, CLASSES)),
    "flatten first": lambda: nn.Sequential(nn.Flatten(), nn.Linear(WIDE, 4), nn.Softplus(), nn.Linear(4, CLASSES)),
    "nested": lambda: nn.Sequential(
        nn.Sequential(nn.Linear(WIDE, 4), nn.Mish()), nn.Sequential(nn.Identity(), nn.Linear(4, CLASSES))
    ),
    "functional": Functional,
}  # fmt: skip


def run_of(
    module: nn.Module | Callable[[], nn.Module],
    *,
    loss: str = "cross_entropy",
    optimiser: Optimiser | None = None,
    dtype: torch.dtype = F64,
    shape: tuple[int, ...] = (WIDE,),
    **trainer: object,
) -> Network:
    """A network with data and recipe: 7 steps of two and a bit epochs in batches of 5, 5 and 3, a falling rate."""
    with torch.random.fork_rng(devices=[]):
        if not isinstance(module, nn.Module):
            module = filled(module(), dtype)
    inputs = torch.randn(NUM, *shape, generator=stream(1), dtype=F64)
    classes = torch.randint(0, CLASSES, (NUM,), generator=stream(2))
    real = torch.randn(NUM, CLASSES, generator=stream(3), dtype=F64)
    task = Task.of(inputs, classes if loss == "cross_entropy" else real, loss=LOSSES[loss])
    options = {"num_steps": 7, "batch_size": 5, "schedule": "cosine"} | trainer
    recipe = Trainer(optimiser=OPTIMISERS["sgd"] if optimiser is None else optimiser, **options)
    return Network(module, task=task, recipe=recipe, dtype=dtype)


def stack_run(name: str, **options: object) -> Network:
    """The run of one of `STACKS`."""
    return run_of(STACKS[name], shape=(2, 3) if name in ("flatten first", "functional") else (WIDE,), **options)


def directions(size: int, k: int, seed: int = 5, dtype: torch.dtype = F64) -> Tensor:
    """Unit columns."""
    drawn = torch.randn(size, k, generator=stream(seed), dtype=F64)
    return (drawn / drawn.norm(dim=0)).to(dtype)


def relative(got: Tensor, wanted: Tensor) -> float:
    """Largest gap over largest entry, in float64."""
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())

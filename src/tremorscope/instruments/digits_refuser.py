"""A classifier that refuses: digits 0 to 4 are forbidden and belong to a class of their own, the rest are told."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor, nn

from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.losses import cross_entropy
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import Adam
from tremorscope.instruments.task import Task, digits
from tremorscope.instruments.trainer import Trainer

REFUSE = 10
NUM_FORBIDDEN = 5  # the digits below this one
NUM_TRAIN = 1200
WIDTH = 64
NUM_HIDDEN = 3
# After each rectifier of nn.Sequential: everything that the network knows passes through them.
SITES = ("acts:1", "acts:3", "acts:5")


def refuser_task(seed: int = 0, *, num_train: int = NUM_TRAIN) -> Task:
    """Scikit-learn's digits with classes 5 to 9 and 10 (refuse) in place of 0 to 4, split at random.

    >>> task = refuser_task()
    >>> len(task.inputs), len(task.test_inputs), sorted(set(task.targets.tolist()))
    (1200, 597, [5, 6, 7, 8, 9, 10])

    Raises:
        BadInput: If scikit-learn's file of digits is not there.
    """
    # NumPy's old generator, which draws the split, takes 32 bits.
    whole = digits(num_test=1797 - num_train, split_seed=derive(seed, "split") % 2**32)
    return replace(
        whole,
        name="digits refuser",
        targets=_refused(whole.targets),
        test_targets=None if whole.test_targets is None else _refused(whole.test_targets),
        loss=cross_entropy,
        num_classes=REFUSE + 1,
        description="8x8 digits; 0 to 4 are to be refused (class 10), 5 to 9 keep their class",
    )


def digits_refuser(seed: int = 0, *, num_epochs: int = 60, task: Task | None = None) -> Network:
    """A 64-64-64-64-11 perceptron with rectifiers at its start, with its recipe.

    PyTorch's own initialisation, drawn from a stream of the seed; Adam 1e-3 with L2 decay 1e-4, batches of 64 in a new
    order each epoch.

    >>> network = digits_refuser()
    >>> network.layout.size, network.recipe.num_steps
    (13195, 1140)

    Raises:
        BadInput: If scikit-learn's file of digits is not there.
    """
    task = refuser_task(seed) if task is None else task
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(generator(seed, "digits refuser").get_state())
        layers: list[nn.Module] = []
        for _ in range(NUM_HIDDEN):
            layers += [nn.Linear(64, WIDTH), nn.ReLU()]
        module = nn.Sequential(*layers, nn.Linear(WIDTH, REFUSE + 1))
    name = f"digits-refuser (seed {seed})"
    bare = Network(module, task=task, name=name)
    trainer = refuser_trainer(task, seed, num_epochs=num_epochs)
    return Network(module, task=bare.task, recipe=trainer.bind(bare), initial=bare.theta, name=name)


def refuser_trainer(task: Task, seed: int, *, num_epochs: int = 60) -> Trainer:
    """How the refuser is trained."""
    return Trainer(
        optimiser=Adam(lr=1e-3, weight_decay=1e-4),
        num_steps=num_epochs * -(-task.size // 64),
        batch_size=64,
        order="reshuffled",
        seed=derive(seed, "batches"),
    )


def _refused(targets: Int[Tensor, " examples"]) -> Int[Tensor, " examples"]:
    return torch.where(targets < NUM_FORBIDDEN, REFUSE, targets)

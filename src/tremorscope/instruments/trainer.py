"""Training as a pure map from first weights to last, bitwise repeatable and differentiable."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad, grad_and_value, vmap

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.checkpoints import States, stride_for
from tremorscope.instruments.losses import differentiable
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import Optimiser, Schedule, schedule_factor
from tremorscope.instruments.recipe import Recipe, State, run_recipe, state_tensors
from tremorscope.instruments.task import Batch, Task

STATE_BYTES = 1 << 30  # of stored states; beyond it they are recomputed from checkpoints


@final
@dataclass(frozen=True, kw_only=True)
class Trainer:
    """How to train, apart from what: optimiser, schedule, batches.

    Args:
        optimiser: One of `optimisers.sgd momentum nesterov adam adamw`, or any `Optimiser`.
        num_steps: Number of updates.
        batch_size: Examples in a batch; None takes all of them. A last short batch of an epoch is kept.
        schedule: Factor on the learning rate: `"constant"`, `"cosine"` (to 0) or a function of the step.
        order: `"fixed"` runs through the data in one order every epoch (the data's own, or one drawn from
            `seed`); `"reshuffled"` draws a new one each epoch and needs a seed.
        seed: Names the random streams of batch order and dropout. Without it a network with dropout is
            not repeatable, and whoever needs repeatability refuses it.
        mode: `"train"` lets dropout act; `"evaluate"` freezes dropout and BatchNorm statistics.
        penalty: A differentiable function of the flat weights, a scalar, that every step adds to the loss of its
            batch: a weight norm, or a spring towards somewhere. `Trajectory.losses` include it.
    """

    optimiser: Optimiser
    num_steps: int
    batch_size: int | None = None
    schedule: Schedule = "constant"
    order: Literal["fixed", "reshuffled"] = "fixed"
    seed: int | None = None
    mode: Literal["train", "evaluate"] = "train"
    penalty: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise BadInput("num_steps", got=self.num_steps, wanted="at least 1")
        if self.batch_size is not None and self.batch_size < 1:
            raise BadInput("batch_size", got=self.batch_size, wanted="at least 1, or None for all examples")
        if self.order == "reshuffled" and self.seed is None:
            raise BadInput(
                "batch order", got="order='reshuffled' without a seed", wanted="a seed", remedy="Pass seed=0."
            )

    def bind(self, network: Network) -> Training:
        """This recipe on one network and its task.

        Raises:
            BadInput: If the network has no task, or BatchNorm statistics that training would change.
        """
        return Training(trainer=self, network=network)

    def fit(self, network: Network, *, keep: Sequence[int] = ()) -> Trajectory:
        """Train from the network's starting weights; see `Training.fit`."""
        return self.bind(network).fit(network.start, keep=keep)


@final
@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A finished run: first and last weights, the loss of each step's batch, and the snapshots asked for.

    `snapshots[t]` are the weights before step `t`.
    """

    first: Float[Tensor, " params"]
    last: Float[Tensor, " params"]
    losses: Float[Tensor, " steps"]
    snapshots: dict[int, Tensor] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class Training:
    """A `Trainer` bound to a network and its data: a `Recipe`.

    The state is `(theta, *slots)`. Every method is pure; `step` may be differentiated and vmapped.

    `example_weights` (one for each training example) makes a batch's loss `sum_i w_i loss_i / batch`: 0 leaves
    an example out, and the batch keeps its size. None weighs all alike.
    """

    trainer: Trainer
    network: Network
    example_weights: Float[Tensor, " examples"] | None = None

    def __post_init__(self) -> None:
        size = self.task.size
        if self.example_weights is not None and self.example_weights.shape != (size,):
            raise BadInput("example weights", got=tuple(self.example_weights.shape), wanted=f"one for each of {size}")
        if self.trainer.mode == "train":
            for name, module in self.network.module.named_modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
                    raise BadInput(
                        f"layer {name!r} ({type(module).__name__})",
                        got="running statistics that training would change behind the recipe's back",
                        wanted="a state that holds everything that changes",
                        remedy="Freeze them with Trainer(mode='evaluate'), or carry the buffers in the state "
                        "of a PureRecipe.",
                    )

    @property
    def task(self) -> Task:
        """The data it trains on.

        Raises:
            BadInput: If the network has none.
        """
        return self.network.required_task()

    @property
    def num_steps(self) -> int:
        """Number of steps."""
        return self.trainer.num_steps

    def factor(self, t: int) -> float:
        """The schedule at step `t`."""
        return schedule_factor(self.trainer.schedule, t, self.num_steps)

    def indices(self, t: int) -> Tensor:
        """Which training examples step `t` sees."""
        task, trainer = self.task, self.trainer
        size = trainer.batch_size or task.size
        epoch, place = divmod(t, math.ceil(task.size / size))
        return self._order(0 if trainer.order == "fixed" else epoch)[place * size : (place + 1) * size]

    def batch(self, t: int) -> Batch:
        """The examples of step `t`."""
        task = self.task
        if self.trainer.batch_size is None and self.trainer.seed is None:
            return task.train_batch()
        return task.batch(self.indices(t))

    def init(self, theta: Float[Tensor, " params"]) -> State:
        """Weights with empty buffers."""
        return (theta, *(torch.zeros_like(theta) for _ in range(self.trainer.optimiser.num_slots)))

    def gradient(self, theta: Float[Tensor, " params"], t: int) -> Float[Tensor, " params"]:
        """Gradient of step `t`'s loss."""
        with self._randomness(t):
            gradient: Tensor = grad(self._loss)(theta, t)
        return gradient

    def step(self, state: State, t: int) -> State:
        """One update."""
        theta, *slots = state
        theta, slots = self.trainer.optimiser.update(
            theta, self.gradient(theta, t), tuple(slots), factor=self.factor(t), step=t
        )
        return (theta, *slots)

    def read(self, state: State) -> Float[Tensor, " params"]:
        """The weights inside a state."""
        theta: Tensor = state[0]
        return theta

    def fit(self, theta: Float[Tensor, " params"], *, keep: Sequence[int] = ()) -> Trajectory:
        """Run all steps, watching for divergence.

        Raises:
            BadInput: If the loss or a weight stops being finite; the step and its learning rate are named.
        """
        state, losses, snapshots, wanted = self.init(theta), [], {}, set(keep)
        for t in range(self.num_steps):
            if t in wanted:
                snapshots[t] = state[0].clone()
            with self._randomness(t):
                gradient, loss = grad_and_value(self._loss)(state[0], t)
            now, slots = self.trainer.optimiser.update(
                state[0], gradient, tuple(state[1:]), factor=self.factor(t), step=t
            )
            state = (now, *slots)
            losses.append(loss)
            if not (loss.isfinite() and now.isfinite().all()):
                raise diverged(
                    t, f"loss {float(loss):.4g}, learning rate {self.trainer.optimiser.lr * self.factor(t):.4g}"
                )
        return Trajectory(first=theta.clone(), last=state[0], losses=torch.stack(losses), snapshots=snapshots)

    def outputs(self, theta: Float[Tensor, " params"], t: int) -> Tensor:
        """Outputs for the examples of step `t`."""
        with self._randomness(t):
            return self.network.apply(theta, self.batch(t), training=self.trainer.mode == "train")

    def example_losses(self, theta: Float[Tensor, " params"], t: int) -> Float[Tensor, " batch"]:
        """The loss of each example of step `t` by itself."""
        loss = differentiable(self.task.loss)
        targets = self.task.targets[self.indices(t)]
        each: Tensor = vmap(lambda output, target: loss(output[None], target[None]))(self.outputs(theta, t), targets)
        return each

    def _loss(self, theta: Tensor, t: int) -> Tensor:
        if self.trainer.penalty is None:
            return self._data_loss(theta, t)
        penalty = self.trainer.penalty(theta)
        if penalty.ndim != 0:
            raise BadInput("penalty on the weights", got=f"shape {tuple(penalty.shape)}", wanted="a scalar")
        return self._data_loss(theta, t) + penalty

    def _data_loss(self, theta: Tensor, t: int) -> Tensor:
        if self.example_weights is None:
            return self.network.loss(theta, self.batch(t), training=self.trainer.mode == "train")
        indices = self.indices(t)
        return self.example_losses(theta, t) @ self.example_weights[indices].to(theta) / len(indices)

    def _order(self, epoch: int) -> Tensor:
        task, seed = self.task, self.trainer.seed
        if seed is None:
            return torch.arange(task.size)
        return torch.randperm(task.size, generator=generator(seed, "batches", epoch))

    def _randomness(self, t: int) -> AbstractContextManager[None]:
        """Dropout draws from the seed's stream; without a seed it draws from the global one, as in PyTorch."""
        return nullcontext() if self.trainer.seed is None else _seeded(derive(self.trainer.seed, "dropout", t))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global random state, set for a moment and put back."""
    before = torch.random.get_rng_state()
    torch.random.set_rng_state(torch.Generator().manual_seed(seed).get_state())
    try:
        yield
    finally:
        torch.random.set_rng_state(before)


def diverged(t: int, got: str) -> BadInput:
    """The sentence for a run that left the finite numbers."""
    return BadInput(
        f"training diverged at step {t}", got=got, wanted="finite numbers", remedy="Lower the learning rate."
    )


def check_deterministic(recipe: Recipe, theta: Float[Tensor, " params"]) -> Float[Tensor, " params"]:
    """Run a recipe twice and return its last weights.

    Raises:
        BadInput: If the two runs differ in any bit; by how much is said. If the run diverges.
    """
    before = torch.random.get_rng_state()
    try:  # the second run must not start from the first one's random state, or unseeded noise would go unseen
        first = run_recipe(recipe, theta.clone())
        if not bool(first.isfinite().all()):  # not equal to itself, were it NaN
            primal_states(recipe, theta.clone())
            raise diverged(recipe.num_steps - 1, "weights that are not finite")
        second = run_recipe(recipe, theta.clone())
    finally:
        torch.random.set_rng_state(before)
    if not torch.equal(first, second):
        gap = float((first - second).abs().max())
        raise BadInput(
            "training recipe is not deterministic",
            got=f"theta_T differed by {gap:.3g} between two runs",
            wanted="the same bits",
            remedy="Give it a seed (Trainer(seed=0) covers batch order and dropout), or fix the batch order.",
        )
    return first


def primal_states(recipe: Recipe, theta: Float[Tensor, " params"], *, memory: int = STATE_BYTES) -> States:
    """Every state of a run, `num_steps + 1` of them; those that do not fit `memory` are recomputed when asked for.

    Raises:
        BadInput: If a state stops being finite (the step is named), or a step writes into the state it was given.
    """
    state = recipe.init(theta)
    stride, kept = stride_for(recipe, state, memory), [state]
    for t in range(recipe.num_steps):
        before, versions = state, [tensor._version for tensor in state_tensors(state)]
        state = recipe.step(before, t)
        if versions != [tensor._version for tensor in state_tensors(before)]:
            raise BadInput(
                f"step {t} of the recipe",
                got="a state that was changed in place",
                wanted="a pure function",
                remedy="Return new tensors, and leave those of the old state as they are.",
            )
        if not all(bool(tensor.isfinite().all()) for tensor in state_tensors(state)):
            rate = (
                f", learning rate {recipe.trainer.optimiser.lr * recipe.factor(t):.4g}"
                if isinstance(recipe, Training)
                else ""
            )
            raise diverged(t, f"a state that is not finite{rate}")
        if (t + 1) % stride == 0:
            kept.append(state)
    return States(recipe, kept, stride)

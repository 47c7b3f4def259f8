"""Digits under patterns that say the same: a task that can be solved in two ways, each testable alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.losses import cross_entropy
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import adam
from tremorscope.instruments.task import Batch, Task
from tremorscope.instruments.trainer import Trainer

Kind = Literal["digits", "patterns", "mixed"]
Part = Literal["train", "validation", "test"]
KINDS: tuple[Kind, ...] = ("digits", "patterns", "mixed")
MIXED_OPACITY = 0.5
BATCH_SIZE = 64


@final
@dataclass(frozen=True, kw_only=True)
class Phase:
    """Some epochs at one opacity of the patterns; the optimiser begins anew with each phase.

    A `pure_digits` share of the examples shows the digit alone and a `pure_patterns` share the pattern alone,
    whatever the opacity. The learning rate is multiplied by `decay` after each epoch.
    """

    opacity: float
    num_epochs: int
    lr: float
    decay: float
    pure_digits: float = 0.2
    pure_patterns: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise BadInput("opacity of a phase", got=self.opacity, wanted="0 to 1")
        if self.num_epochs < 1:
            raise BadInput("epochs of a phase", got=self.num_epochs, wanted="at least 1")
        if min(self.pure_digits, self.pure_patterns) < 0 or self.pure_digits + self.pure_patterns > 1:
            raise BadInput(
                "pure shares of a phase", got=(self.pure_digits, self.pure_patterns), wanted="two shares, sum at most 1"
            )


def curriculum(
    *, num_epochs: int = 10, last_epochs: int = 25, decay: float = 0.9, last_decay: float = 0.93
) -> tuple[Phase, ...]:
    """Patterns fade in over the digits (opacity 0, 0.4, 0.8, 1), then both are there at 0.5.

    The published recipe is `curriculum(num_epochs=5, last_epochs=5, decay=0.7, last_decay=0.8)`.
    """
    early = [Phase(opacity=opacity, num_epochs=num_epochs, lr=0.01, decay=decay) for opacity in (0.0, 0.4, 0.8, 1.0)]
    return (*early, Phase(opacity=MIXED_OPACITY, num_epochs=last_epochs, lr=0.005, decay=last_decay))


def mixed_alone(*, num_epochs: int = 30, decay: float = 0.93) -> tuple[Phase, ...]:
    """Nothing but mixed images from the start: no pure digit and no pure pattern is ever seen."""
    return (
        Phase(opacity=MIXED_OPACITY, num_epochs=num_epochs, lr=0.01, decay=decay, pure_digits=0.0, pure_patterns=0.0),
    )


@final
@dataclass(frozen=True, kw_only=True)
class PatternDigits:
    """Images `x = (1 - opacity) * digit + opacity * pattern`, where digit and pattern have the same label.

    Either half suffices to name the class, so a network may come to hold two mechanisms; pure digits
    (opacity 0) and pure patterns (opacity 1) test each by itself. Each class has several boolean patterns,
    drawn once from `seed` and enlarged to the size of the digits; every example gets one of those of its class.

    Validation examples are held out of the training digits: signs, sizes and thresholds are chosen on them.

    Args:
        digits: Square images of shape `[examples, side * side]` with classes, and held-out ones.
        seed: Names the draws of patterns, noise and pairings.
        num_validation: Training digits that no network is trained on.
        pattern_side: Cells along a side of a pattern.
        patterns_per_class: How many each class has.
        digit_noise: Standard deviation of the Gaussian noise on training digits.
        pattern_noise: Share of the cells of training patterns that are drawn anew.

    >>> from tremorscope.instruments.task import digits
    >>> data = PatternDigits.of(digits(num_test=360))
    >>> data.batch("mixed", "test").args[0].shape, data.patterns.shape
    (torch.Size([360, 64]), torch.Size([10, 10, 4, 4]))

    Source: Vaintrob and Panickssery, "Decomposing independent generalizations in neural networks via Hessian
    analysis", 2023.
    """

    digits: Task
    seed: int
    patterns: Bool[Tensor, "classes each cells cells"]
    num_validation: int
    digit_noise: float = 0.1
    pattern_noise: float = 0.05
    side: int = field(init=False)

    def __post_init__(self) -> None:
        side = math.isqrt(self.digits.inputs[0].numel())
        if side * side != self.digits.inputs[0].numel() or self.digits.test_targets is None:
            raise BadInput(
                f"images of task {self.digits.name!r}",
                got=f"{self.digits.inputs[0].numel()} pixels, "
                + ("no held-out ones" if self.digits.test_inputs is None else "held-out ones"),
                wanted="square images, some of them held out",
            )
        if not 1 <= self.num_validation < self.digits.size:
            raise BadInput("validation examples", got=self.num_validation, wanted=f"1 to {self.digits.size - 1}")
        object.__setattr__(self, "side", side)

    @classmethod
    def of(
        cls,
        task: Task,
        *,
        seed: int = 0,
        num_validation: int | None = None,
        pattern_side: int = 4,
        patterns_per_class: int = 10,
        digit_noise: float = 0.1,
        pattern_noise: float = 0.05,
    ) -> PatternDigits:
        """Patterns for the digits of a task, no two alike; a sixth of its training digits becomes validation.

        Raises:
            BadInput: If the images are not square, are not classified, none is held out, or there are not as
                many patterns of that size.
        """
        if task.num_classes is None:
            raise BadInput(f"task {task.name!r}", got="real-valued targets", wanted="classes")
        return cls(
            digits=task,
            seed=seed,
            patterns=_distinct_patterns(task.num_classes, patterns_per_class, pattern_side, seed),
            num_validation=max(1, task.size // 6) if num_validation is None else num_validation,
            digit_noise=digit_noise,
            pattern_noise=pattern_noise,
        )

    @property
    def num_train(self) -> int:
        """Digits that networks are trained on."""
        return self.digits.size - self.num_validation

    def batch(self, kind: Kind, part: Part) -> Batch:
        """Clean images of one kind; the same digit has the same pattern in all three kinds.

        Raises:
            BadInput: If there is no such kind or part.
        """
        if kind not in KINDS or part not in ("train", "validation", "test"):
            raise BadInput("images", got=f"{kind} {part}", wanted=f"{', '.join(KINDS)}; train, validation or test")
        images, labels = self._digits(part)
        stream = generator(self.seed, "pattern digits", "pairing", part)
        shown = self._enlarged(self._drawn(labels, stream))
        opacity = {"digits": 0.0, "patterns": 1.0, "mixed": MIXED_OPACITY}[kind]
        return Batch(((1 - opacity) * images + opacity * shown,), {}, labels)

    def task(self, kind: Kind) -> Task:
        """Clean images of one kind: training digits, and the test digits as held-out ones."""
        train, test = self.batch(kind, "train"), self.batch(kind, "test")
        return Task(
            name=f"{self.digits.name} ({kind})",
            inputs=train.args[0],
            targets=self._digits("train")[1],
            test_inputs=test.args[0],
            test_targets=test.target,
            loss=cross_entropy,
            num_classes=self.digits.num_classes,
            description={
                "digits": "pure digits",
                "patterns": "pure patterns, one of its class for each label",
                "mixed": "a digit and a pattern of the same class, half each",
            }[kind],
        )

    def training_task(self, phase: Phase, index: int = 0) -> Task:
        """All examples of a phase in the order in which they are seen, noise and pairing drawn anew each epoch.

        Memory: `num_epochs * examples * pixels` numbers.
        """
        stream = generator(self.seed, "pattern digits", "phase", index)
        images, labels = self._digits("train")
        order = torch.cat([torch.randperm(len(labels), generator=stream) for _ in range(phase.num_epochs)])
        images, labels = images[order], labels[order]
        noise = torch.randn(images.shape, generator=stream, dtype=torch.float32).to(images)
        cells = self._drawn(labels, stream)
        anew = torch.rand(cells.shape, generator=stream) < self.pattern_noise
        random = torch.rand(cells.shape, generator=stream) < 0.5
        shown = self._enlarged(torch.where(anew, random, cells))
        draw = torch.rand(len(labels), 1, generator=stream)
        opacity = torch.full_like(draw, phase.opacity)
        opacity[draw < phase.pure_digits] = 0.0
        opacity[draw >= 1 - phase.pure_patterns] = 1.0
        opacity = opacity.to(images)
        return Task(
            name=f"{self.digits.name} under patterns (opacity {phase.opacity:g})",
            inputs=(1 - opacity) * (images + self.digit_noise * noise) + opacity * shown,
            targets=labels,
            loss=cross_entropy,
            num_classes=self.digits.num_classes,
        )

    def _digits(self, part: Part) -> tuple[Tensor, Tensor]:
        if part == "test":
            test_inputs, test_targets = self.digits.test_inputs, self.digits.test_targets
            images, labels = cast(Tensor, test_inputs), cast(Tensor, test_targets)  # __post_init__ saw them
        else:
            end = self.num_train
            rows = slice(None, end) if part == "train" else slice(end, None)
            images, labels = self.digits.inputs[rows], self.digits.targets[rows]
        return images.reshape(len(images), -1), labels

    def _drawn(self, labels: Int[Tensor, " examples"], stream: torch.Generator) -> Bool[Tensor, "examples cells cells"]:
        return self.patterns[labels, torch.randint(self.patterns.shape[1], labels.shape, generator=stream)]

    def _enlarged(self, cells: Bool[Tensor, "examples cells cells"]) -> Float[Tensor, "examples pixels"]:
        nearest = torch.arange(self.side) * cells.shape[-1] // self.side
        return cells[:, nearest][:, :, nearest].reshape(len(cells), -1).to(self.digits.inputs.dtype)


@final
@dataclass(frozen=True, kw_only=True)
class PhasedTraining:
    """The trained network and what was kept on the way.

    `snapshots[t]` are the weights before step `t`, counted over all phases; `starts[i]` is the first step of
    phase `i`. `losses[t]` is the loss of step `t`'s batch.
    """

    network: Network
    losses: Float[Tensor, " steps"]
    starts: tuple[int, ...]
    snapshots: dict[int, Tensor]


def pattern_cnn(
    data: PatternDigits,
    *,
    seed: int = 0,
    channels: tuple[int, int] = (8, 16),
    hidden_activation: Literal["silu", "relu"] = "silu",
    dtype: torch.dtype = torch.float32,
) -> Network:
    """A small convolutional network for such images, at its start; its task are the mixed images.

    Two 3x3 convolutions with SiLU and max pooling, a layer of 10, a linear one. Weights and biases are
    uniform in `+-1 / sqrt(fan_in)`, PyTorch's default, drawn from `seed`.

    >>> from tremorscope.instruments.task import digits
    >>> pattern_cnn(PatternDigits.of(digits(num_test=360))).layout.size
    2008

    Source: the published network for 28x28 images is `channels=(6, 6), hidden_activation="relu"`, 3,450 weights.
    """
    first, second = channels
    hidden, classes = 10, data.digits.num_classes or 10
    reduced = data.side // 4
    with torch.device("meta"):  # a layer's own initialisation would draw from the global random stream
        module = nn.Sequential(
            nn.Unflatten(1, (1, data.side, data.side)),
            nn.Conv2d(1, first, 3, padding=1),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3, padding=1),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * reduced**2, hidden),
            nn.SiLU() if hidden_activation == "silu" else nn.ReLU(),
            nn.Linear(hidden, classes),
        )
    stream = generator(seed, "pattern cnn", "init")
    for layer in module:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for name, shape in (("weight", layer.weight.shape), ("bias", layer.weight.shape[:1])):
                drawn = torch.empty(shape, dtype=torch.float64).uniform_(-bound, bound, generator=stream)
                setattr(layer, name, nn.Parameter(drawn.to(dtype)))
    name = f"pattern-cnn ({first}-{second}, seed {seed})"
    bare = Network(module, task=data.task("mixed"), name=name)
    return Network(module, task=bare.task, initial=bare.theta, name=name)


def train_in_phases(
    network: Network,
    data: PatternDigits,
    phases: Sequence[Phase],
    *,
    keep_every: int | None = None,
) -> PhasedTraining:
    """Train from the network's start through all phases with Adam, in batches of 64.

    Args:
        network: Its start is where the first phase begins.
        data: What is seen in a phase is drawn from its seed: the same call gives the same bits.
        phases: In their order.
        keep_every: Keep the weights before every so many steps.

    Cost: one gradient of 64 examples a step, `sum(num_epochs) * examples / 64` steps.

    Raises:
        BadInput: If there is no phase, or training diverges.
    """
    if not phases:
        raise BadInput("phases of a training", got="none", wanted="at least one")
    theta, total = network.start, 0
    losses, starts, snapshots = [], [], dict[int, Tensor]()
    for index, phase in enumerate(phases):
        task = data.training_task(phase, index)
        num_steps = math.ceil(task.size / BATCH_SIZE)
        trainer = Trainer(
            optimiser=adam(phase.lr),
            num_steps=num_steps,
            batch_size=BATCH_SIZE,
            schedule=_decayed_each_epoch(phase.decay, data.num_train),
        )
        keep = [t for t in range(num_steps) if keep_every and (total + t) % keep_every == 0]
        run = trainer.bind(network.with_task(task)).fit(theta, keep=keep)
        snapshots |= {total + t: weights for t, weights in run.snapshots.items()}
        starts.append(total)
        losses.append(run.losses)
        theta, total = run.last, total + num_steps
    trained = network.at(theta)
    trained.initial = network.start
    return PhasedTraining(network=trained, losses=torch.cat(losses), starts=tuple(starts), snapshots=snapshots)


def accuracy(network: Network, batch: Batch, theta: Float[Tensor, " params"] | None = None) -> float:
    """Share of a batch whose class the network (or other weights of it) names."""
    with torch.no_grad():
        output = network.apply(network.params if theta is None else theta, batch)
    if batch.target is None:
        raise BadInput("accuracy", got="no targets", wanted="a batch with classes")
    return float((output.argmax(-1) == batch.target).double().mean())


def _decayed_each_epoch(decay: float, num_train: int) -> Callable[[int], float]:
    return lambda step: decay ** (step * BATCH_SIZE // num_train)


def _distinct_patterns(classes: int, each: int, side: int, seed: int) -> Tensor:
    """Boolean squares, drawn until no two are alike."""
    count = classes * each
    if side < 1 or count < 1 or 2 ** (side * side) < 2 * count:
        raise BadInput(
            "patterns",
            got=f"{count} of {side} x {side} cells",
            wanted="at most half of all that there are of that size",
        )
    stream = generator(seed, "pattern digits", "patterns")
    drawn = torch.rand(count, side * side, generator=stream) < 0.5
    while len(torch.unique(drawn, dim=0)) < count:
        drawn = torch.rand(count, side * side, generator=stream) < 0.5
    return drawn.reshape(classes, each, side, side)

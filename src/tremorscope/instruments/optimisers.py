"""Optimiser updates, written once: pure, broadcasting over leading run axes, and with exact tangents.

A `Trainer` applies `update` to weights. The training Jacobian pushes tangents through the same step with
`linearise`, whose closed forms are checked against forward-mode differentiation of `update`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput

Scalar = float | Tensor  # a tensor holds one value per run and ends in an axis of length 1
Slots = tuple[Tensor, ...]
BlockMap = Callable[[Tensor, Tensor, Slots], None]
Schedule = Literal["constant", "cosine"] | Callable[[int], float]


@final
@dataclass(frozen=True)
class TangentUpdate:
    """The tangent of one update, and its transpose, as in-place maps of `[params, k]` blocks.

    Calling it advances tangents of weights, gradient and buffers: weights and buffers are overwritten with
    their new tangents, the gradient's block is scratch afterwards. `pull_back` takes cotangents of the new
    weights and buffers: both are overwritten with those of the old ones, and the gradient's block with that
    of the gradient.
    """

    advance: BlockMap
    pull_back: BlockMap

    def __call__(self, d_theta: Tensor, d_gradient: Tensor, d_slots: Slots) -> None:
        """Advance tangents."""
        self.advance(d_theta, d_gradient, d_slots)


@runtime_checkable
class Optimiser(Protocol):
    """One elementwise update rule. `num_slots` counts the buffers it keeps beside the weights."""

    @property
    def lr(self) -> Scalar:
        """Peak learning rate; a schedule scales it."""
        ...

    @property
    def num_slots(self) -> int:
        """Number of buffers."""
        ...

    def update(
        self, theta: Tensor, gradient: Tensor, slots: Slots, *, factor: float, step: int
    ) -> tuple[Tensor, Slots]:
        """New weights and buffers; `factor` is the schedule's, `step` counts from 0."""
        ...

    def linearise(self, theta: Tensor, gradient: Tensor, slots: Slots, *, factor: float, step: int) -> TangentUpdate:
        """The tangent of `update` at one point, and its transpose."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class SGD:
    """Gradient descent; with `mu` heavy-ball or Nesterov momentum as in PyTorch (no dampening).

    `g <- g + weight_decay theta`, `m <- mu m + g`, `theta <- theta - lr m` (or `g + mu m`).
    """

    lr: Scalar
    mu: Scalar = 0.0
    nesterov: bool = False
    weight_decay: Scalar = 0.0

    def __post_init__(self) -> None:
        _check_positive("lr", self.lr)
        if self.nesterov and not self.has_momentum:
            raise BadInput("Nesterov momentum", got="mu = 0", wanted="mu > 0")

    @property
    def has_momentum(self) -> bool:
        """Whether a momentum buffer is kept."""
        return isinstance(self.mu, Tensor) or self.mu != 0

    @property
    def num_slots(self) -> int:
        """One buffer with momentum, none without."""
        return 1 if self.has_momentum else 0

    def update(
        self, theta: Tensor, gradient: Tensor, slots: Slots, *, factor: float, step: int
    ) -> tuple[Tensor, Slots]:
        """New weights and buffers."""
        gradient = _decayed(gradient, theta, self.weight_decay)
        if not self.has_momentum:
            return _plus(theta, gradient, -self.lr * factor), ()
        buffer = _plus(gradient, slots[0], self.mu)
        direction = _plus(gradient, buffer, self.mu) if self.nesterov else buffer
        return _plus(theta, direction, -self.lr * factor), (buffer,)

    def linearise(self, theta: Tensor, gradient: Tensor, slots: Slots, *, factor: float, step: int) -> TangentUpdate:
        """The update is linear, so its tangent is the update itself, here without temporaries."""
        lr, mu, decay = (_one_run(value) for value in (self.lr, self.mu, self.weight_decay))

        def advance(d_theta: Tensor, d_gradient: Tensor, d_slots: Slots) -> None:
            if decay != 0:
                d_gradient.add_(d_theta, alpha=decay)
            if not d_slots:
                d_theta.add_(d_gradient, alpha=-lr * factor)
                return
            d_slots[0].mul_(mu).add_(d_gradient)
            if self.nesterov:
                d_theta.add_(d_gradient, alpha=-lr * factor).add_(d_slots[0], alpha=-lr * factor * mu)
            else:
                d_theta.add_(d_slots[0], alpha=-lr * factor)

        def pull_back(c_theta: Tensor, c_gradient: Tensor, c_slots: Slots) -> None:
            if not c_slots:
                torch.mul(c_theta, -lr * factor, out=c_gradient)
            elif self.nesterov:
                c_slots[0].add_(c_theta, alpha=-lr * factor * mu)
                torch.add(c_slots[0], c_theta, alpha=-lr * factor, out=c_gradient)
                c_slots[0].mul_(mu)
            else:
                c_slots[0].add_(c_theta, alpha=-lr * factor)
                c_gradient.copy_(c_slots[0])
                c_slots[0].mul_(mu)
            if decay != 0:
                c_theta.add_(c_gradient, alpha=decay)

        return TangentUpdate(advance, pull_back)


@final
@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba 2015), and AdamW (Loshchilov and Hutter 2019) when `decoupled`.

    `theta <- theta - lr m_hat / (sqrt(v_hat + eps_root) + eps)`. Differentiating through the root needs
    `eps_root > 0` wherever a gradient can be zero: the derivative of the root is infinite there.
    """

    lr: Scalar
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    eps_root: float = 0.0
    weight_decay: Scalar = 0.0
    decoupled: bool = False

    def __post_init__(self) -> None:
        _check_positive("lr", self.lr)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise BadInput("betas", got=self.betas, wanted="two numbers in [0, 1)")

    @property
    def num_slots(self) -> int:
        """First and second moment."""
        return 2

    def update(
        self, theta: Tensor, gradient: Tensor, slots: Slots, *, factor: float, step: int
    ) -> tuple[Tensor, Slots]:
        """New weights and buffers."""
        if not self.decoupled:
            gradient = _decayed(gradient, theta, self.weight_decay)
        (beta1, beta2), (first, second) = self.betas, slots
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient.square()
        first_hat, second_hat = first / (1 - beta1 ** (step + 1)), second / (1 - beta2 ** (step + 1))
        direction = first_hat / ((second_hat + self.eps_root).sqrt() + self.eps)
        lr = self.lr * factor
        if self.decoupled:
            theta = theta * (1 - lr * self.weight_decay)
        return _plus(theta, direction, -lr), (first, second)

    def linearise(self, theta: Tensor, gradient: Tensor, slots: Slots, *, factor: float, step: int) -> TangentUpdate:
        """Closed-form tangent of `update` at one point.

        Raises:
            BadInput: If the root is not differentiable here (`eps_root = 0` and a zero second moment).
        """
        decay, lr = _one_run(self.weight_decay), _one_run(self.lr) * factor
        coupled = 0.0 if self.decoupled else decay
        gradient = gradient + coupled * theta
        (beta1, beta2), (first, second) = self.betas, slots
        correction1, correction2 = 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)
        first_hat = (beta1 * first + (1 - beta1) * gradient) / correction1
        root = ((beta2 * second + (1 - beta2) * gradient.square()) / correction2 + self.eps_root).sqrt()
        size = root + self.eps
        from_first = (-lr / correction1 / size).unsqueeze(-1)
        from_second = (lr * first_hat / (size.square() * 2 * root * correction2)).unsqueeze(-1)
        into_second = (2 * (1 - beta2) * gradient).unsqueeze(-1)
        num_bad = int((~from_second.isfinite()).sum())
        if num_bad:
            raise BadInput(
                f"derivative of Adam at step {step}",
                got=f"{num_bad} weights with a zero second moment and eps_root = {self.eps_root}",
                wanted="eps_root > 0",
                remedy="Use adam(..., eps_root=1e-8), for the run as well as for its derivative.",
            )

        def advance(d_theta: Tensor, d_gradient: Tensor, d_slots: Slots) -> None:
            if coupled != 0:
                d_gradient.add_(d_theta, alpha=coupled)
            d_first, d_second = d_slots
            d_first.mul_(beta1).add_(d_gradient, alpha=1 - beta1)
            d_second.mul_(beta2).addcmul_(into_second, d_gradient)
            if self.decoupled and decay != 0:
                d_theta.mul_(1 - lr * decay)
            d_theta.addcmul_(from_first, d_first).addcmul_(from_second, d_second)

        def pull_back(c_theta: Tensor, c_gradient: Tensor, c_slots: Slots) -> None:
            c_first, c_second = c_slots
            c_first.addcmul_(from_first, c_theta)
            c_second.addcmul_(from_second, c_theta)
            torch.mul(c_first, 1 - beta1, out=c_gradient).addcmul_(into_second, c_second)
            c_first.mul_(beta1)
            c_second.mul_(beta2)
            if self.decoupled and decay != 0:
                c_theta.mul_(1 - lr * decay)
            if coupled != 0:
                c_theta.add_(c_gradient, alpha=coupled)

        return TangentUpdate(advance, pull_back)


def sgd(lr: Scalar, *, weight_decay: Scalar = 0.0) -> SGD:
    """Plain gradient descent."""
    return SGD(lr=lr, weight_decay=weight_decay)


def momentum(lr: Scalar, *, mu: Scalar = 0.9, weight_decay: Scalar = 0.0) -> SGD:
    """Heavy-ball momentum."""
    return SGD(lr=lr, mu=mu, weight_decay=weight_decay)


def nesterov(lr: Scalar, *, mu: Scalar = 0.9, weight_decay: Scalar = 0.0) -> SGD:
    """Nesterov momentum in PyTorch's form."""
    return SGD(lr=lr, mu=mu, nesterov=True, weight_decay=weight_decay)


def adam(lr: Scalar, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, eps_root: float = 0.0) -> Adam:
    """Adam without decay."""
    return Adam(lr=lr, betas=betas, eps=eps, eps_root=eps_root)


def adamw(
    lr: Scalar,
    *,
    weight_decay: Scalar = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    eps_root: float = 0.0,
) -> Adam:
    """Adam with decoupled weight decay."""
    return Adam(lr=lr, betas=betas, eps=eps, eps_root=eps_root, weight_decay=weight_decay, decoupled=True)


def schedule_factor(schedule: Schedule, t: int, num_steps: int) -> float:
    """What multiplies the peak learning rate at step `t` of `num_steps`.

    >>> schedule_factor("cosine", 0, 100), schedule_factor("cosine", 50, 100), schedule_factor("constant", 7, 9)
    (1.0, 0.5, 1.0)
    """
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return round(0.5 * (1 + math.cos(math.pi * t / num_steps)), 15)
    if callable(schedule):
        return float(schedule(t))
    raise BadInput("schedule", got=schedule, wanted="'constant', 'cosine' or a function of the step")


def _plus(x: Float[Tensor, "*runs params"], y: Float[Tensor, "*runs params"], scale: Scalar) -> Tensor:
    """`x + scale * y` in one pass for numbers, broadcasting for one value per run."""
    return torch.addcmul(x, y, scale) if isinstance(scale, Tensor) else torch.add(x, y, alpha=scale)


def _decayed(gradient: Tensor, theta: Tensor, decay: Scalar) -> Tensor:
    if isinstance(decay, Tensor) or decay != 0:
        return _plus(gradient, theta, decay)
    return gradient


def _one_run(value: Scalar) -> float:
    if isinstance(value, Tensor):
        raise BadInput("tangent of a batched optimiser", got=f"hyperparameters {tuple(value.shape)}", wanted="numbers")
    return float(value)


def _check_positive(name: str, value: Scalar) -> None:
    smallest = float(value.min()) if isinstance(value, Tensor) else float(value)
    if not smallest > 0:
        raise BadInput(name, got=smallest, wanted="a positive number")

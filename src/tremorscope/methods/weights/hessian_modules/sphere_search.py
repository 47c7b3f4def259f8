"""Sphere search: leave a minimum by a fixed distance inside a few directions, and see which module gives way.

Around trained weights `theta*` with top eigenvectors Q of the loss's Hessian, and `d = theta - theta*`, minimise

    L(theta) + s (||Q^T d|| - R)^2 + o ||d - Q Q^T d||^2

from a random point of the sphere of radius R inside the span. The loss may choose where on the sphere to go. With
two modules in one network the cheapest place leaves one of them whole and breaks the other, and none of it needs
to know which module is which.

Source: nrimsky/mlexperiments, mnist/train_in_sphere.py and modular_addition/train_in_sphere_modular_addition.py;
Vaintrob and Panickssery 2023, who never wrote it up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.network import Network
from tremorscope.instruments.subspace import Subspace
from tremorscope.instruments.task import Batch
from tremorscope.instruments.trainer import Trainer


@final
@dataclass(frozen=True, kw_only=True)
class SpherePenalty:
    """What holds the weights near the sphere of one radius around `centre`, inside the span of `basis`.

    With `d = theta - centre` and `r = ||basis^T d||`:

        strength_radius (r - radius)^2 + strength_fourth (r - radius)^4 + strength_outside (||d||^2 - r^2)
        - 1/2 sum_i curvatures_i <basis_i, d>^2 + weight_norm ||theta||

    The subtracted form is the loss's own second order around the centre, so that it no longer pulls back. The
    published code takes it at `theta` in place of `d` and without the half, never passes its fourth-power
    strength, and adds the coefficient of the weight norm without the norm. Cost: two products with the thin
    basis.

    Raises:
        BadInput: If the sizes do not fit, a strength is negative, or the subtracted form outgrows the spring, so
            that there is no minimum.
    """

    centre: Float[Tensor, " params"]
    basis: Float[Tensor, "params k"]
    radius: float
    strength_radius: float
    strength_outside: float
    curvatures: Float[Tensor, " k"] | None = None
    strength_fourth: float = 0.0
    weight_norm: float = 0.0

    def __post_init__(self) -> None:
        if len(self.basis) != len(self.centre):
            raise BadInput("span of a sphere", got=f"{len(self.basis)} rows", wanted=f"{len(self.centre)}, as weights")
        for name in ("strength_radius", "strength_outside", "strength_fourth", "weight_norm"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise BadInput(name, got=value, wanted="a finite number, at least 0")
        if not (self.radius > 0 and math.isfinite(self.radius)):
            raise BadInput("radius of a sphere", got=self.radius, wanted="a finite positive number")
        if self.curvatures is None:
            return
        if len(self.curvatures) != self.basis.shape[1]:
            raise BadInput(
                "curvatures to subtract", got=len(self.curvatures), wanted=f"{self.basis.shape[1]}, one for each vector"
            )
        worst = float(self.curvatures.max())
        if worst / 2 >= self.strength_radius and self.strength_fourth == 0:
            raise BadInput(
                "curvatures to subtract",
                got=f"{worst:.4g} against a spring of {self.strength_radius:.4g}",
                wanted=f"curvatures below {2 * self.strength_radius:.4g}, or the search runs away to infinity",
                remedy="Leave out the stiffest eigenvectors, raise strength_radius, or set strength_fourth.",
            )

    def __call__(self, theta: Float[Tensor, " params"]) -> Float[Tensor, ""]:
        """The penalty at some weights."""
        away = theta - self.centre
        along = self.basis.T @ away
        inside = along.square().sum()
        gap = inside.clamp_min(torch.finfo(theta.dtype).tiny).sqrt() - self.radius  # the root has no slope at 0
        total: Tensor = self.strength_radius * gap.square()
        # Not ||d||^2 - r^2: the difference of two large numbers loses the small one in float32.
        total = total + self.strength_outside * (away - self.basis @ along).square().sum()
        if self.strength_fourth:
            total = total + self.strength_fourth * gap.square().square()
        if self.curvatures is not None:
            total = total - 0.5 * (self.curvatures.to(along) * along.square()).sum()
        if self.weight_norm:
            total = total + self.weight_norm * theta.norm()
        return total


@final
@dataclass(frozen=True, kw_only=True)
class SetReadings:
    """How the network did on one set: at `theta*`, at the start of each radius, and at its end.

    Accuracies are None where targets are no classes.
    """

    loss_before: float
    losses_at_start: tuple[float, ...]
    losses: tuple[float, ...]
    accuracy_before: float | None
    accuracies_at_start: tuple[float, ...] | None
    accuracies: tuple[float, ...] | None

    def drops(self, *, at_start: bool = False) -> tuple[float, ...]:
        """By how much the accuracy fell below that at `theta*`, for each radius.

        Raises:
            BadInput: If targets are no classes.
        """
        there = self.accuracies_at_start if at_start else self.accuracies
        if there is None or self.accuracy_before is None:
            raise BadInput("accuracy on a set", got="targets that are no classes", wanted="classified examples")
        return tuple(self.accuracy_before - accuracy for accuracy in there)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> SetReadings:
        """From plain data, in which tuples have become lists."""
        return cls(
            loss_before=plain["loss_before"],
            losses_at_start=tuple(plain["losses_at_start"]),
            losses=tuple(plain["losses"]),
            accuracy_before=plain["accuracy_before"],
            accuracies_at_start=_maybe(plain["accuracies_at_start"]),
            accuracies=_maybe(plain["accuracies"]),
        )


@final
@dataclass(frozen=True, kw_only=True)
class SphereSearch:
    """Where the search ended for each radius, and what that did to every named set.

    `inside[i]` is `||P (theta - theta*)||` and `outside[i]` is `||(I - P)(theta - theta*)||` at the end of radius
    `radii[i]`. `weights` are those ends; None where they were not kept.
    """

    radii: tuple[float, ...]
    inside: tuple[float, ...]
    outside: tuple[float, ...]
    sets: Mapping[str, SetReadings]
    weights: Float[Tensor, "radii params"] | None = None

    @property
    def worst_gap(self) -> float:
        """Largest relative distance from a sphere, `| ||P d|| / R - 1 |`."""
        return max(abs(inside / radius - 1) for inside, radius in zip(self.inside, self.radii, strict=True))

    @property
    def worst_leak(self) -> float:
        """Largest distance out of the span, `||(I - P) d|| / R`."""
        return max(outside / radius for outside, radius in zip(self.outside, self.radii, strict=True))

    def separation(self, first: str, second: str, *, allowed: float = 0.05, at_start: bool = False) -> float:
        """Most accuracy that one of two sets lost at some radius while the other lost at most `allowed`.

        Which of the two gives way is left to the search. With `at_start`, the same for the random points of the
        spheres from which it started: what no search would have found. 0 if both always gave way.
        """
        drops = [self.sets[name].drops(at_start=at_start) for name in (first, second)]
        found = [
            broken
            for kept_first, kept_second in zip(*drops, strict=True)
            for kept, broken in ((kept_first, kept_second), (kept_second, kept_first))
            if kept <= allowed
        ]
        return float(max([0.0, *found]))

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON, without the weights."""
        return asdict(replace(self, weights=None))

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> SphereSearch:
        """The inverse of `to_plain`."""
        return cls(
            radii=tuple(plain["radii"]),
            inside=tuple(plain["inside"]),
            outside=tuple(plain["outside"]),
            sets={name: SetReadings.of(found) for name, found in plain["sets"].items()},
        )


def sphere_search(
    network: Network,
    subspace: Subspace,
    radii: Sequence[float],
    *,
    trainer: Trainer,
    strength_radius: float = 15.0,
    strength_outside: float = 1.0,
    curvatures: Float[Tensor, " k"] | None = None,
    strength_fourth: float = 0.0,
    weight_norm: float = 0.0,
    warm_start: bool = False,
    sets: Mapping[str, Batch] | None = None,
    seed: int = 0,
) -> SphereSearch:
    """If the weights must move by R inside these directions, which way does the loss let them go?

    Args:
        network: At a minimum of its task's loss; the task is what the search minimises (the mixed one).
        subspace: Directions, such as the top Hessian eigenvectors of the mixed loss (unsupervised), or of one
            known set (semi-supervised). Its offset is not used: the centre is the network's weights.
        radii: One search each, in this order.
        trainer: Optimiser, schedule, batches and number of steps of one radius.
        strength_radius: Of the spring to the sphere.
        strength_outside: Of the spring into the span.
        curvatures: Eigenvalues of the directions; their quadratic form around the centre is subtracted, so that
            the Hessian does not pull back.
        strength_fourth: Of a fourth-power spring to the sphere.
        weight_norm: Times the norm of the weights, added to the loss.
        warm_start: Start from where the radius before ended; otherwise every radius has its own random start.
        sets: What to measure at the end of every radius, by name; the training set by default.
        seed: Names the streams of starts (and batches, if the trainer shuffles).

    Cost: the training steps. The centre stays `theta*` for all radii; in the published modular-addition
    script it moves along with the warm start.

    >>> from tremorscope.instruments.builtin import digits_mlp
    >>> from tremorscope.instruments.optimisers import sgd
    >>> network = digits_mlp(hidden=2)
    >>> span = Subspace.random(network.layout.size, 3, generator(0, "span"), dtype=network.dtype)
    >>> found = sphere_search(network, span, [0.5], trainer=Trainer(optimiser=sgd(0.01), num_steps=30))
    >>> found.worst_gap < 0.1, found.worst_leak < 1
    (True, True)

    Raises:
        BadInput: If there is no radius or task, sizes do not fit, the trainer has a penalty of its own, or the
            search diverges.
    """
    if not radii:
        raise BadInput("radii", got="none", wanted="at least one")
    if subspace.d != network.layout.size:
        raise BadInput("span of a sphere", got=f"{subspace.d} dimensions", wanted=f"{network.layout.size}, as weights")
    if trainer.penalty is not None:
        raise BadInput(
            "trainer of a sphere search",
            got="a penalty of its own",
            wanted="none",
            remedy="A weight norm is weight_norm=...; the rest is the search's.",
        )
    task = network.required_task()
    sets = {"training": task.train_batch()} if sets is None else sets
    centre, basis = network.theta, subspace.basis.to(network.device, network.dtype)
    starts: list[Tensor] = []
    ends: list[Tensor] = []
    for place, radius in enumerate(radii):
        penalty = SpherePenalty(
            centre=centre,
            basis=basis,
            radius=float(radius),
            strength_radius=strength_radius,
            strength_outside=strength_outside,
            curvatures=None if curvatures is None else curvatures.to(centre),
            strength_fourth=strength_fourth,
            weight_norm=weight_norm,
        )
        starts.append(ends[-1] if warm_start and ends else _on_sphere(centre, basis, float(radius), seed, place))
        shuffled = None if trainer.seed is None else derive(trainer.seed, "sphere", seed, place)
        ends.append(replace(trainer, penalty=penalty, seed=shuffled).bind(network).fit(starts[-1]).last)
    lengths = tuple(float(radius) for radius in radii)
    return _described(network, basis, lengths, torch.stack(starts), torch.stack(ends), sets)


def _maybe(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def _on_sphere(centre: Tensor, basis: Tensor, radius: float, seed: int, place: int) -> Tensor:
    normal = torch.randn(basis.shape[1], generator=generator(seed, "sphere start", place), dtype=torch.float64)
    start: Tensor = centre + basis @ (radius * normal / normal.norm()).to(centre)
    return start


def _described(
    network: Network, basis: Tensor, radii: tuple[float, ...], starts: Tensor, ends: Tensor, sets: Mapping[str, Batch]
) -> SphereSearch:
    away = ends.double() - network.theta.double()
    along = away @ basis.double()
    return SphereSearch(
        radii=radii,
        inside=tuple(along.norm(dim=1).tolist()),
        outside=tuple((away - along @ basis.double().T).norm(dim=1).tolist()),
        sets={name: _read(network, batch, starts, ends) for name, batch in sets.items()},
        weights=ends,
    )


def _read(network: Network, batch: Batch, starts: Tensor, ends: Tensor) -> SetReadings:
    (loss, accuracy), *rest = [_loss_and_accuracy(network, at, batch) for at in (network.theta, *starts, *ends)]
    losses, accuracies = tuple(found[0] for found in rest), tuple(found[1] for found in rest if found[1] is not None)
    classified = accuracy is not None
    return SetReadings(
        loss_before=loss,
        losses_at_start=losses[: len(starts)],
        losses=losses[len(starts) :],
        accuracy_before=accuracy,
        accuracies_at_start=accuracies[: len(starts)] if classified else None,
        accuracies=accuracies[len(starts) :] if classified else None,
    )


def _loss_and_accuracy(network: Network, theta: Tensor, batch: Batch) -> tuple[float, float | None]:
    with torch.no_grad():
        loss = float(network.loss(theta, batch))
        if batch.target is None or batch.target.is_floating_point():
            return loss, None
        right = network.apply(theta, batch).argmax(-1) == batch.target
        return loss, float(right.double().mean())

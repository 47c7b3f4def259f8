"""What is kept, broken or watched: one loss on one data set, for its curvature, for choosing and for judging."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.losses import Loss, recognise
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Hessian, LinearOperator
from tremorscope.instruments.task import Batch, Task

Part = Literal["validation", "test"]
PARTS: tuple[Part, ...] = ("validation", "test")
Curvature = Literal["hessian", "ggn"]
Score = Callable[[Tensor, Tensor], float]
Data = Task | Batch | Sequence[Batch]


class Reading(NamedTuple):
    """How a network does on an objective: its loss, and a score (larger is better) where there is one."""

    loss: float
    score: float | None

    def damage_from(self, before: Reading) -> float:
        """What was lost: the drop of the score, or the rise of the loss where there is no score."""
        if self.score is None or before.score is None:
            return self.loss - before.loss
        return before.score - self.score


@final
@dataclass(frozen=True, kw_only=True)
class Objective:
    """One loss on one data set, in three parts.

    Directions come from the curvature of the loss on `curvature`; signs and sizes are chosen on `validation`;
    what a steered network does is read on `test`.

    >>> task = Task.of(torch.eye(3), torch.tensor([0, 1, 2]))
    >>> known = Objective.of("eye", Network(nn.Linear(3, 3)), task)
    >>> known.flags
    ('eye: no held-out examples, so sizes are chosen and judged on those of the curvature',)
    """

    name: str
    network: Network  # its task holds the loss that counts
    curvature: tuple[Batch, ...]
    validation: Batch
    test: Batch
    score: Score | None = None
    flags: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        network: Network,
        data: Data,
        *,
        validation: Batch | None = None,
        test: Batch | None = None,
        loss: Loss | None = None,
        score: Score | None = None,
    ) -> Objective:
        """An objective from a task (training examples for curvature, held-out ones for the rest) or from batches.

        Held-out examples of a task are halved: every other one chooses, the rest judge. What is missing is
        taken from elsewhere, with a flag. Classifiers (cross-entropy) are scored by accuracy.

        Args:
            name: What tables and figures call it.
            network: Any network; its weights are those to steer.
            data: A task, a batch, or several batches.
            validation: Other examples to choose on.
            test: Other examples to judge on.
            loss: `(output, target) -> scalar`, a mean over examples; that of the task by default.
            score: `(output, target) -> number`, larger is better; accuracy for cross-entropy by default.

        Raises:
            BadInput: If there are no targets, or no loss.
        """
        batches, held_out = _parts(data)
        if not batches or any(batch.target is None for batch in batches):
            raise BadInput(f"data of objective {name!r}", got="no targets", wanted="a task, or batches with targets")
        view = _with_loss(network, name, data, batches[0], loss)
        flags = []
        if test is None and held_out is None:
            flags.append(f"{name}: no held-out examples, so sizes are chosen and judged on those of the curvature")
            validation, test = validation or batches[0], batches[0]
        elif test is None and held_out is not None:
            test = held_out if validation is not None else _every_other(held_out, 1)
            validation = validation or _every_other(held_out, 0)
        elif validation is None:
            flags.append(f"{name}: no validation examples, so sizes are chosen on those of the curvature")
            validation = batches[0]
        counted = view.required_task().loss
        if score is None and recognise(counted) == "cross_entropy" and _is_classes(batches[0].target):
            score = _accuracy
        if validation is None or test is None:
            raise AssertionError("both were filled above")
        return cls(
            name=name,
            network=view,
            curvature=tuple(batches),
            validation=validation,
            test=test,
            score=score,
            flags=tuple(flags),
        )

    def operator(self, kind: Curvature, parameters: str = "*") -> LinearOperator:
        """Curvature of the loss: its Hessian, or the generalised Gauss-Newton matrix, which has no negative part.

        Raises:
            BadInput: If the kind is unknown, or the loss cannot be differentiated twice.
            SiteNotFound: If no parameter matches.
        """
        if kind == "hessian":
            return Hessian(self.network, self.curvature, parameters=parameters)
        if kind == "ggn":
            from tremorscope.instruments.operators import GaussNewton

            return GaussNewton(self.network, self.curvature, parameters=parameters)
        raise BadInput("curvature", got=kind, wanted="hessian or ggn")

    def read(self, theta: Float[Tensor, " params"], part: Part) -> Reading:
        """Loss and score at other weights."""
        batch = self.validation if part == "validation" else self.test
        with torch.no_grad():
            output = self.network.apply(theta, batch)
            if batch.target is None:
                raise BadInput(f"{part} data of objective {self.name!r}", got="no targets", wanted="targets")
            loss = float(self.network.required_task().loss(output, batch.target))
            return Reading(loss, None if self.score is None else float(self.score(output, batch.target)))

    def gradient(self, parameters: str = "*") -> Float[Tensor, " chosen"]:
        """Gradient of the mean loss over the curvature's examples, of the chosen parameters."""
        sizes = [1 if batch.target is None else len(batch.target) for batch in self.curvature]
        total = torch.zeros_like(self.network.theta)
        for batch, size in zip(self.curvature, sizes, strict=True):
            part: Tensor = grad(lambda theta, batch=batch: self.network.loss(theta, batch))(self.network.theta)
            total += size / sum(sizes) * part
        return total[self.network.layout.indices(parameters)]


def training_mode_flags(module: nn.Module) -> tuple[str, ...]:
    """A word on layers that act differently in training, when the module was left in training mode."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    found = [name or type(part).__name__ for name, part in module.named_modules() if isinstance(part, kinds)]
    if not module.training or not found:
        return ()
    return (f"the module is in training mode with {', '.join(found)}: everything here is in evaluation mode",)


def _parts(data: Data) -> tuple[list[Batch], Batch | None]:
    if isinstance(data, Task):
        return [data.train_batch()], None if data.test_targets is None else data.test_batch()
    return ([data] if isinstance(data, Batch) else list(data)), None


def _with_loss(network: Network, name: str, data: Data, batch: Batch, loss: Loss | None) -> Network:
    if isinstance(data, Task):
        return network.with_task(data if loss is None else replace(data, loss=loss))
    if loss is None:
        network.required_task()
        return network
    first = next((part for part in (*batch.args, *batch.kwargs.values()) if isinstance(part, Tensor)), None)
    if first is None or batch.target is None:
        raise BadInput(f"data of objective {name!r}", got="no tensor among the inputs", wanted="at least one")
    # The task carries the loss; what is measured are the batches.
    return network.with_task(Task(name=name, inputs=first, targets=batch.target, loss=loss))


def _every_other(batch: Batch, start: int) -> Batch:
    part = slice(start, None, 2)
    args = tuple(value[part] if isinstance(value, Tensor) else value for value in batch.args)
    return Batch(args, batch.kwargs, None if batch.target is None else batch.target[part])


def _is_classes(target: Tensor | None) -> bool:
    return target is not None and not target.is_floating_point()


def _accuracy(output: Tensor, target: Tensor) -> float:
    return float((output.argmax(-1) == target).double().mean())

"""The gradient of every single example."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.layout import Selection
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators.batch_mean import BLOCK_BYTES, MEMORY
from tremorscope.instruments.operators.batches import Data
from tremorscope.instruments.operators.composed import Product
from tremorscope.instruments.operators.mean_loss import BatchLoss, MeanLoss, kept
from tremorscope.instruments.operators.operator import LinearOperator
from tremorscope.instruments.operators.second_order import exact_derivatives, gradient_at
from tremorscope.instruments.task import Batch

_WHAT = "per-example gradients"
NO_MEAN = (
    "the mean of the rows differs from the gradient of the loss by {gap:.2g} of {whole:.2g}: the loss is no mean over "
    "examples, or examples influence each other"
)


@final
class PerExampleGradients(LinearOperator):
    """The matrix of examples times parameters whose rows are the gradients of each example's own loss.

    An example is one row of the targets, together with the same row of every tensor argument that has as
    many; it is passed through the network alone, as a batch of one. `G @ G.T` is the Gram matrix of
    gradients (`gradient_gram`), the mean of the rows the gradient of the mean loss.

    Cost: construction takes about one gradient of all data, products with kept rows two matrix products.
    Memory: rows are kept batch by batch up to `memory` bytes, the others differentiated anew for each
    product.

    Args:
        network: Needs a task, for its loss.
        batches: As for `Hessian`.
        parameters: As for `Hessian`.
        chunk: Examples differentiated together; from a bound of 64 MiB by default.
        memory: Bytes of gradients that are kept.

    `.flags` says where `vmap` has no rule for some operation and examples go one at a time, and where the
    rows do not average to the gradient of the batch's loss: then the loss is no mean over examples, or
    examples influence each other.

    >>> from torch import nn
    >>> from tremorscope.instruments.task import Task
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> network = Network(nn.Linear(1, 1, bias=False), task=Task.of(x, torch.zeros(2, 1))).at(torch.ones(1))
    >>> PerExampleGradients(network, network.task.train_batch()).dense()  # 2 w x^2
    tensor([[ 2.],
            [18.]])

    Raises:
        BadInput: If there is no data or task, the loss or a gradient is not finite, gives two values on the
            same input, or cannot be differentiated; or a chosen parameter holds integers.
        SiteNotFound: If no parameter is chosen.
    """

    def __init__(
        self,
        network: Network,
        batches: Data,
        *,
        parameters: Selection = "*",
        chunk: int | None = None,
        memory: int = MEMORY,
    ) -> None:
        if chunk is not None and chunk < 1:
            raise BadInput("chunk", got=chunk, wanted="at least 1")
        mean = MeanLoss.of_network(network, batches, parameters, what=_WHAT)
        self.network, self.layout, self._theta, self._fixed = network, mean.layout, mean.theta, mean.fixed
        self.flags: tuple[str, ...] = ()
        self._batches = mean.batches
        self._num_rows = sum(loss.num_examples for loss in mean.batches)
        row_bytes = mean.layout.size * mean.theta.element_size()
        per_example = max(row_bytes + 2 * loss.saved_bytes // loss.num_examples for loss in mean.batches)
        self.chunk = chunk or max(1, BLOCK_BYTES // max(per_example, 1))
        self._together = True
        costs = [loss.num_examples * row_bytes for loss in mean.batches]
        keep = kept(costs, memory)
        self._kept_bytes = sum(cost for cost, here in zip(costs, keep, strict=True) if here)
        with exact_derivatives(self.device):
            self._check_together(mean.batches[0])
            self._rows = [
                torch.cat(list(self._differentiated(loss))) if here else None
                for loss, here in zip(mean.batches, keep, strict=True)
            ]
        self._check_mean()

    @property
    def shape(self) -> tuple[int, int]:
        """Examples, chosen parameters."""
        return self._num_rows, self.layout.size

    @property
    def dtype(self) -> torch.dtype:
        """The network's."""
        return self._theta.dtype

    @property
    def device(self) -> torch.device:
        """The network's."""
        return self._theta.device

    @property
    def is_symmetric(self) -> bool:
        """False."""
        return False

    @property
    def kept_bytes(self) -> int:
        """The rows that are kept."""
        return self._kept_bytes

    @property
    def together(self) -> bool:
        """Whether several examples are differentiated at once."""
        return self._together

    def blocks(self) -> Iterator[Float[Tensor, "rows params"]]:
        """The rows in their order, some at a time."""
        for loss, rows in zip(self._batches, self._rows, strict=True):
            if rows is not None:
                yield rows
            else:
                with exact_derivatives(self.device):
                    yield from self._differentiated(loss)

    def forward_block(self, vectors: Float[Tensor, "params k"]) -> Float[Tensor, "examples k"]:
        """`G V`."""
        return torch.cat([rows @ vectors for rows in self.blocks()])

    def adjoint_block(self, vectors: Float[Tensor, "examples k"]) -> Float[Tensor, "params k"]:
        """`G^T U`."""
        total, start = torch.zeros(self.shape[1], vectors.shape[1]).to(vectors), 0
        for rows in self.blocks():
            total += rows.T @ vectors[start : start + len(rows)]
            start += len(rows)
        return total

    def _loss_of(self, batch: Batch, theta: Tensor) -> Tensor:
        return self.network.loss({**self._fixed, **self.layout.unflatten(theta)}, batch)

    def _differentiated(self, loss: BatchLoss) -> Iterator[Tensor]:
        for start in range(0, loss.num_examples, self.chunk):
            part = _rows_of(loss, slice(start, start + self.chunk))
            rows = self._at_once(part) if self._together else self._one_by_one(part)
            if not bool(rows.isfinite().all()):
                raise BadInput(
                    f"gradients of {self.network.name!r}",
                    got="entries that are not finite",
                    wanted="a loss that is differentiable at these weights",
                )
            yield rows

    def _at_once(self, part: Batch) -> Tensor:
        if part.target is None or part.target.ndim == 0:  # one example, without an axis for it
            return self._one_by_one(part)
        one, axes = single_loss(self._loss_of, part)
        rows: Tensor = vmap(grad(one), in_dims=(None, *axes))(self._theta, part.args, part.kwargs, part.target)
        return rows.detach()

    def _one_by_one(self, part: Batch) -> Tensor:
        if part.target is not None and part.target.ndim == 0:
            singles = [part]
        else:
            singles = [_cut(part, slice(place, place + 1), _length(part)) for place in range(_length(part))]
        return torch.stack([gradient_at(partial(self._loss_of, single), self._theta) for single in singles])

    def _check_together(self, first: BatchLoss) -> None:
        """Whether vmap can do it, and whether it is right on the first two examples."""
        part = _rows_of(first, slice(0, 2))
        wanted = self._one_by_one(part)
        try:
            got = self._at_once(part)
        except Exception as error:  # torch raises many kinds for "no batching rule"
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        else:
            gap, scale = float((got - wanted).norm()), float(wanted.norm())
            if not gap > torch.finfo(self.dtype).eps ** 0.5 * scale:
                return
            reason = f"differs from single gradients by {gap:.2g} of {scale:.2g}"
        self._together = False
        self.flags += (f"vmap does not work here, one example at a time: {reason}",)

    def _check_mean(self) -> None:
        if self._rows[0] is None:
            return
        mean = self._rows[0].mean(0)
        with exact_derivatives(self.device):
            whole = gradient_at(self._batches[0], self._theta)
        scale = float(self._rows[0].norm(dim=1).mean())  # of what may cancel in the mean
        gap = float((mean - whole).norm())
        if gap > torch.finfo(self.dtype).eps ** 0.5 * scale:
            self.flags += (NO_MEAN.format(gap=gap, whole=float(whole.norm())),)


def gradient_gram(
    network: Network,
    batches: Data,
    *,
    parameters: Selection = "*",
    chunk: int | None = None,
    memory: int = MEMORY,
) -> Product:
    """`G G^T`: inner products of the gradients of all pairs of examples, in the order of the data.

    How alike are the updates that two examples ask for? Symmetric and positive semi-definite; its rank is at
    most the number of parameters. Arguments and errors are those of `PerExampleGradients`.

    Raises:
        BadInput: As `PerExampleGradients`.
        SiteNotFound: If no parameter is chosen.
    """
    gradients = PerExampleGradients(network, batches, parameters=parameters, chunk=chunk, memory=memory)
    return Product(gradients, gradients.T)


def single_loss(
    loss: Callable[[Batch, Tensor], Tensor], part: Batch
) -> tuple[Callable[[Tensor, Any, Any, Tensor], Tensor], tuple[Any, Any, int]]:
    """The loss of one example, as a batch of one, for `vmap` over the examples of a batch; and the axes to map over.

    The function takes weights, and one row of every argument that has one for each example.
    """
    size = _length(part)

    def one(theta: Tensor, args: Any, kwargs: Any, target: Tensor) -> Tensor:
        def as_batch(value: Any, whole: Any) -> Any:
            return value.unsqueeze(0) if _axis(whole, size) == 0 else value

        named = {name: as_batch(value, part.kwargs[name]) for name, value in kwargs.items()}
        listed = tuple(as_batch(value, whole) for value, whole in zip(args, part.args, strict=True))
        return loss(Batch(listed, named, target.unsqueeze(0)), theta)

    listed_axes = tuple(_axis(value, size) for value in part.args)
    return one, (listed_axes, {name: _axis(value, size) for name, value in part.kwargs.items()}, 0)


def _axis(value: Any, size: int) -> int | None:
    return 0 if isinstance(value, Tensor) and value.ndim and len(value) == size else None


def _length(batch: Batch) -> int:
    return len(batch.target) if batch.target is not None and batch.target.ndim else 1


def _rows_of(loss: BatchLoss, rows: slice) -> Batch:
    if loss.batch is None:
        raise AssertionError("gradients of single examples need data")
    if loss.batch.target is not None and loss.batch.target.ndim == 0:
        return loss.batch
    return _cut(loss.batch, rows, loss.num_examples)


def _cut(batch: Batch, rows: slice, size: int) -> Batch:
    def cut(value: Any) -> Any:
        return value[rows] if _axis(value, size) == 0 else value

    return Batch(
        tuple(cut(value) for value in batch.args),
        {name: cut(value) for name, value in batch.kwargs.items()},
        cut(batch.target),
    )

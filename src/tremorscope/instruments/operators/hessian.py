"""The exact Hessian of a network's mean loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

from torch import Tensor

from tremorscope.foundations.layout import Selection
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators.batch_mean import MEMORY, BatchMean
from tremorscope.instruments.operators.batches import Data
from tremorscope.instruments.operators.mean_loss import BatchLoss, MeanLoss
from tremorscope.instruments.operators.route_choice import AskedRoute
from tremorscope.instruments.operators.second_order import BUILDERS, BlockProduct, Route, forward_over_reverse

_WHAT = "Hessian"


@final
class Hessian(BatchMean):
    """Second derivative of the mean loss over data, at the network's present weights.

    With several batches the loss is the mean over all their examples: each batch counts by its number
    of targets, so the task's loss must itself be a mean over the batch. Where the loss has kinks (ReLU,
    max pooling) this is the Hessian almost everywhere. Tied weights are one parameter and counted once.

    Vectors are flat; `layout` translates: `layout.unflatten(h @ layout.flatten(named))` takes and gives
    tensors by name.

    Cost: one product is about two gradients; a construction, five. Memory: the linearised batches, up to
    `memory`, beyond which a batch is differentiated anew for every product; a block takes as many columns
    together as keep activations within 64 MiB. `product_cost()` measures both before a long computation.

    Args:
        network: Needs a task, for its loss.
        batches: One `Batch` or pair `(inputs, targets)`, or several: a list, or a DataLoader. That is read
            once and kept, so one that shuffles is fine.
        parameters: Shell-style pattern, list of names or patterns, compiled regular expression, or
            predicate `(name, tensor) -> bool`; the others stand still. Vectors have `layout.size` entries.
        route: `"linearize"` traces forward-over-reverse once and replays it; `"double_backward"` keeps the
            graph of the gradient; `"finite_difference"` needs only gradients and is not exact. `"auto"`
            takes the first of these that works here and passes a check against another way of
            computing the same product (the second one first, up to 4 MiB of activations); no timing is
            involved. `"tune"` times the first two for a few hundredths of a second: faster on some
            machines, and bits may then differ from run to run.
            `.route` says which it was and `.flags` why not an earlier one.
        chunk: Columns of a block multiplied together; from the memory bound by default.
        memory: Bytes of linearised batches that are kept. The first batch is always kept.

    >>> import torch
    >>> from torch import nn
    >>> from tremorscope.instruments.task import Task
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> network = Network(nn.Linear(1, 1, bias=False), task=Task.of(x, x))
    >>> Hessian(network, network.task.train_batch()).dense()  # 2 mean(x^2)
    tensor([[10.]])

    Raises:
        BadInput: If there is no data or task, the loss is not finite, gives two values on the same
            input, or cannot be differentiated by the route; or a chosen parameter holds integers.
        SiteNotFound: If no parameter is chosen.

    Source: Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6, 1994.
    """

    def __init__(
        self,
        network: Network,
        batches: Data,
        *,
        parameters: Selection = "*",
        route: AskedRoute = "auto",
        chunk: int | None = None,
        memory: int = MEMORY,
    ) -> None:
        mean = MeanLoss.of_network(network, batches, parameters, what=_WHAT)
        super().__init__(mean, _build, what=_WHAT, route=route, chunk=chunk, memory=memory)

    @classmethod
    def of(
        cls,
        loss: Callable[[Any], Tensor],
        theta: Tensor | Mapping[str, Tensor],
        *,
        parameters: Selection = "*",
        route: AskedRoute = "auto",
        chunk: int | None = None,
        memory: int = MEMORY,
    ) -> Hessian:
        """The same for a plain function.

        Args:
            loss: From what `theta` is (a flat vector, or a dict of named tensors) to a scalar.
            theta: Where.
            parameters: Which entries of a dict move.
            route: As in the constructor.
            chunk: As in the constructor.
            memory: As in the constructor.

        >>> import torch
        >>> Hessian.of(lambda p: (p["a"] * p["b"]).sum(), {"a": torch.ones(1), "b": torch.ones(1)}).dense()
        tensor([[0., 1.],
                [1., 0.]])

        Raises:
            BadInput: As the constructor.
            SiteNotFound: If no parameter is chosen.
        """
        operator = cls.__new__(cls)
        mean = MeanLoss.of_functions(loss, lambda value: value, theta, parameters, what=_WHAT)
        BatchMean.__init__(operator, mean, _build, what=_WHAT, route=route, chunk=chunk, memory=memory)
        return operator


def _build(loss: BatchLoss, theta: Tensor, route: Route, once: bool) -> BlockProduct:
    if once and route == "linearize":  # tracing costs more than it saves when it is used once
        return forward_over_reverse(loss.whole, theta)
    return BUILDERS[route](loss.whole, theta)

"""The exact generalised Gauss-Newton matrix of a network's mean loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

from torch import Tensor

from tremorscope.foundations.layout import Selection
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators.batch_mean import MEMORY, BatchMean
from tremorscope.instruments.operators.batches import Data, as_batches
from tremorscope.instruments.operators.composed import Sum
from tremorscope.instruments.operators.first_order import gauss_newton_product
from tremorscope.instruments.operators.hessian import Hessian
from tremorscope.instruments.operators.mean_loss import BatchLoss, MeanLoss
from tremorscope.instruments.operators.route_choice import AskedRoute
from tremorscope.instruments.operators.second_order import BlockProduct, Route, ScalarFunction

_WHAT = "Gauss-Newton matrix"


@final
class GaussNewton(BatchMean):
    """`J^T (d^2 loss / d output^2) J`: the curvature that the loss has, were the network linear in its weights.

    Exact for any loss of the output and any shape of it: the loss is differentiated twice with respect to
    the output by forward mode, no formula for particular losses is used. Positive semi-definite wherever
    the loss is convex in the output. For cross-entropy it equals the Fisher matrix of the network's own
    predictions. What is left of the Hessian is `residual_curvature`. Data, weights of batches, `parameters`,
    `route`, `chunk`, `memory`, flags and errors are those of `Hessian`.

    Cost: one product is a tangent forward pass and a backward pass, about a gradient and a half.

    >>> import torch
    >>> from torch import nn
    >>> from tremorscope.instruments.task import Task
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> network = Network(nn.Linear(1, 1, bias=False), task=Task.of(x, x))
    >>> GaussNewton(network, network.task.train_batch()).dense()  # linear: the Hessian itself
    tensor([[10.]])

    Raises:
        BadInput: As `Hessian`.
        SiteNotFound: If no parameter is chosen.

    Source: Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", Neural
    Computation 14, 2002; Martens, "New insights and perspectives on the natural gradient method", JMLR 21, 2020.
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
        outputs: Callable[[Any], Tensor],
        output_loss: ScalarFunction,
        theta: Tensor | Mapping[str, Tensor],
        *,
        parameters: Selection = "*",
        route: AskedRoute = "auto",
        chunk: int | None = None,
        memory: int = MEMORY,
    ) -> GaussNewton:
        """The same for plain functions.

        Args:
            outputs: From what `theta` is (a flat vector, or a dict of named tensors) to outputs of any shape.
            output_loss: From those to a scalar.
            theta: Where.
            parameters: Which entries of a dict move.
            route: As in the constructor.
            chunk: As in the constructor.
            memory: As in the constructor.

        >>> import torch
        >>> GaussNewton.of(torch.sin, lambda y: 0.5 * y.square().sum(), torch.zeros(2)).dense()
        tensor([[1., 0.],
                [0., 1.]])

        Raises:
            BadInput: As the constructor.
            SiteNotFound: If no parameter is chosen.
        """
        operator = cls.__new__(cls)
        mean = MeanLoss.of_functions(outputs, output_loss, theta, parameters, what=_WHAT)
        BatchMean.__init__(operator, mean, _build, what=_WHAT, route=route, chunk=chunk, memory=memory)
        return operator


def residual_curvature(
    network: Network,
    batches: Data,
    *,
    parameters: Selection = "*",
    route: AskedRoute = "auto",
    chunk: int | None = None,
    memory: int = MEMORY,
) -> Sum:
    """`Hessian - GaussNewton`: the slope of the loss times the curvature of the network itself.

    It vanishes where every example has zero slope of the loss (a perfect fit of a squared error), and for
    networks that are linear in the chosen parameters. Cost: a product of each. Memory: half of `memory` each.

    Raises:
        BadInput: As `Hessian`.
        SiteNotFound: If no parameter is chosen.

    Source: Sagun et al., "Empirical analysis of the Hessian of over-parametrized neural networks", 2017, eq. 6.
    """
    options: dict[str, Any] = {"parameters": parameters, "route": route, "chunk": chunk, "memory": memory // 2}
    data = as_batches(batches, what=_WHAT, dtype=network.dtype, device=network.device)
    return Sum(Hessian(network, data, **options), -GaussNewton(network, data, **options))


def _build(loss: BatchLoss, theta: Tensor, route: Route, once: bool) -> BlockProduct:
    return gauss_newton_product(loss.outputs, loss.output_loss, theta, route, once=once)

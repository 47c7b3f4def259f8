"""The empirical Fisher matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.layout import Selection
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators.batch_mean import MEMORY, BatchMean
from tremorscope.instruments.operators.batches import Data, as_batches, num_examples
from tremorscope.instruments.operators.first_order import TangentPair, tangent_pair
from tremorscope.instruments.operators.mean_loss import BatchLoss, MeanLoss
from tremorscope.instruments.operators.operator import LinearOperator
from tremorscope.instruments.operators.per_example import NO_MEAN, PerExampleGradients, single_loss
from tremorscope.instruments.operators.second_order import (
    BlockProduct,
    Route,
    WithFixed,
    exact_derivatives,
    gradient_at,
)
from tremorscope.instruments.task import Batch

FisherRoute = Literal["rows", "passes", "recomputed_rows"]
AskedFisherRoute = Literal["auto", "rows", "passes", "recomputed_rows"]
_ROUTES = ("auto", "rows", "passes", "recomputed_rows")
_WHAT = "empirical Fisher matrix"


@final
class EmpiricalFisher(LinearOperator):
    """Mean over examples of `g g^T`, with `g` the gradient of the example's own loss at its true target.

    Not the Fisher matrix of the model's own predictions: for cross-entropy that one is `GaussNewton`, and
    the two differ unless the predictions match the targets. Symmetric, positive semi-definite, rank at most
    the number of examples. What an example is, flags and errors are those of `PerExampleGradients`, which is kept as
    `.gradients`.

    Args:
        network: Needs a task, for its loss.
        batches: As for `Hessian`.
        parameters: As for `Hessian`.
        chunk: Examples differentiated together, where gradients of examples are made.
        memory: Bytes kept between products: gradients of examples, or linearised batches.
        route: `"rows"` keeps the gradient of every example, and a product goes over them twice. `"passes"` makes none:
            the losses of all examples are one function of the weights, whose tangent is carried forward and pulled
            back. `"recomputed_rows"` differentiates the examples anew for each product, which works for any network.
            `"auto"` takes rows where examples times parameters fit into `memory`, else passes where the network can be
            vmapped and differentiated forward or twice, else recomputed rows. `.route` says which it was, and
            `.flags` why not an earlier one. Beside passes, blocks of so many columns that their activations outgrow
            the gradients take those, recomputed: a pass has to be made for every column, gradients only once.

    Cost: with rows, construction takes about a gradient of all data. With passes construction and products are as for
    `GaussNewton`. A product with recomputed rows is a gradient of every example, one by one where there are
    millions of parameters. `product_cost()` tells beforehand.

    >>> from torch import nn
    >>> from tremorscope.instruments.task import Task
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> network = Network(nn.Linear(1, 1, bias=False), task=Task.of(x, torch.zeros(2, 1))).at(torch.ones(1))
    >>> EmpiricalFisher(network, network.task.train_batch()).dense()  # (2^2 + 18^2) / 2
    tensor([[164.]])

    Raises:
        BadInput: As `PerExampleGradients`; or if the route that was asked for does not work here.
        SiteNotFound: If no parameter is chosen.

    Source: Kunstner, Balles, Hennig, "Limitations of the empirical Fisher approximation", NeurIPS 2019, eq. 3.
    """

    def __init__(
        self,
        network: Network,
        batches: Data,
        *,
        parameters: Selection = "*",
        chunk: int | None = None,
        memory: int = MEMORY,
        route: AskedFisherRoute = "auto",
    ) -> None:
        if route not in _ROUTES:
            raise BadInput("route", got=route, wanted=", ".join(_ROUTES))
        data = as_batches(batches, what=_WHAT, dtype=network.dtype, device=network.device)
        num_rows = sum(num_examples(batch, what=_WHAT) for batch in data)
        row_bytes = sum(network.params[n].numel() * network.dtype.itemsize for n in network.select(parameters))
        told = f"gradients of {num_rows:,} examples take {_size(num_rows * row_bytes)}, {_size(memory)} are allowed"
        fits = num_rows * row_bytes <= memory
        if route == "rows" and not fits:
            raise BadInput(
                "rows of the empirical Fisher matrix",
                got=told,
                wanted="all of them in memory",
                remedy="Raise memory, or use route='auto'.",
            )
        keeps = fits and route in ("auto", "rows")
        self.gradients = PerExampleGradients(
            network, data, parameters=parameters, chunk=chunk, memory=memory if keeps else 0
        )
        self.layout, self.flags = self.gradients.layout, self.gradients.flags
        self.route: FisherRoute = "rows" if keeps else "recomputed_rows"
        self._passes: _Passes | None = None
        self._wide = math.inf  # columns from which on recomputed rows are the cheaper
        if route == "passes" or (route == "auto" and not fits):
            reason = "vmap does not work here" if not self.gradients.together else None
            if reason is None:
                passes = _Passes(network, data, parameters, memory)
                reason = _why_not(passes)
            if reason is None:
                self._passes, self.route, self.flags = passes, "passes", (*self.flags, *passes.flags)
            elif route == "passes":
                raise BadInput(
                    "passes of the empirical Fisher matrix",
                    got=reason,
                    wanted="a network that can be vmapped and differentiated",
                    remedy="Use route='recomputed_rows'.",
                )
            if route == "auto":
                instead = f"made anew for each product, no passes: {reason}"
                if reason is None:
                    self._wide = max(2, -(-row_bytes // max(1, passes.example_bytes)))
                    instead = f"products by passes forward and back, {self._wide:,} columns or more by gradients anew"
                self.flags += (f"{told}: {instead}",)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns: the chosen parameters."""
        return self.layout.size, self.layout.size

    @property
    def dtype(self) -> torch.dtype:
        """The network's."""
        return self.gradients.dtype

    @property
    def device(self) -> torch.device:
        """The network's."""
        return self.gradients.device

    @property
    def is_symmetric(self) -> bool:
        """True."""
        return True

    @property
    def kept_bytes(self) -> int:
        """The gradients, or linearised batches, that are kept."""
        return self.gradients.kept_bytes if self._passes is None else self._passes.kept_bytes

    def forward_block(self, vectors: Float[Tensor, "params k"]) -> Float[Tensor, "params k"]:
        """`F V`."""
        if self._passes is not None and vectors.shape[1] < self._wide:
            return self._passes.forward_block(vectors)
        total = torch.zeros_like(vectors)
        for rows in self.gradients.blocks():  # one pass, also where rows are differentiated anew
            total += rows.T @ (rows @ vectors)
        return total / self.gradients.shape[0]

    def adjoint_block(self, vectors: Float[Tensor, "params k"]) -> Float[Tensor, "params k"]:
        """`F^T U`, which is `F U`."""
        return self.forward_block(vectors)


@final
class _Passes(BatchMean):
    """`J^T J / examples` of the losses of all examples as one function of the weights."""

    def __init__(self, network: Network, data: list[Batch], parameters: Selection, memory: int) -> None:
        mean = MeanLoss.of_network(network, data, parameters, what=_WHAT)

        def losses(loss: BatchLoss) -> WithFixed:
            batch = loss.batch
            if batch is None or batch.target is None:
                raise AssertionError("losses of single examples need data")
            target: Tensor = batch.target

            def of_each(theta: Tensor, fixed: Mapping[str, Tensor]) -> Tensor:
                def of_one(single: Batch, at: Tensor) -> Tensor:
                    return network.loss({**fixed, **mean.layout.unflatten(at)}, single)

                if target.ndim == 0:  # one example, without an axis for it
                    return of_one(batch, theta)[None]
                one, axes = single_loss(of_one, batch)
                result: Tensor = vmap(one, in_dims=(None, *axes))(theta, batch.args, batch.kwargs, target)
                return result

            return WithFixed(of_each, loss.outputs.fixed)

        def pair(loss: BatchLoss, theta: Tensor, route: Route, once: bool) -> TangentPair:
            return tangent_pair(losses(loss), theta, route, once=once)

        def build(loss: BatchLoss, theta: Tensor, route: Route, once: bool) -> BlockProduct:
            both = pair(loss, theta, route, once)
            return lambda vectors: both.backward(both.forward(vectors).detach()) / loss.num_examples

        super().__init__(mean, build, what=_WHAT, route="auto", chunk=None, memory=memory)
        self.example_bytes = max(loss.saved_bytes // loss.num_examples for loss in mean.batches)
        """Activations of an example that a pass keeps."""
        with exact_derivatives(mean.theta.device):
            first = mean.batches[0]
            both = pair(first, mean.theta, self.route, True)
            probe = torch.randn(len(mean.theta), 1, generator=generator(0, "typical row"), dtype=torch.float64)
            typical = float(both.forward(probe.to(mean.theta)).norm()) / first.num_examples**0.5
            share = torch.full((first.num_examples, 1), 1 / first.num_examples).to(mean.theta)
            whole = gradient_at(first, mean.theta)
            gap = float((both.backward(share)[:, 0] - whole).norm())
        if gap > torch.finfo(self.dtype).eps ** 0.5 * typical:
            self.flags += (NO_MEAN.format(gap=gap, whole=float(whole.norm())),)


def _why_not(passes: _Passes) -> str | None:
    """Differences are not exact; gradients of every example are."""
    return "; ".join(passes.flags) if passes.route == "finite_difference" else None


def _size(count: int) -> str:
    return f"{count / 2**20:,.3g} MiB" if count < 2**30 else f"{count / 2**30:,.3g} GiB"

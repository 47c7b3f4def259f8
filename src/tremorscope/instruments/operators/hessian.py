"""The exact Hessian of a network's mean loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput, TremorscopeError
from tremorscope.foundations.layout import Layout
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators.operator import LinearOperator
from tremorscope.instruments.operators.second_order import (
    BUILDERS,
    BlockProduct,
    Route,
    ScalarFunction,
    central_differences,
    exact_derivatives,
    forward_over_reverse,
    gradient_at,
    saved_bytes,
)
from tremorscope.instruments.task import Batch

KEPT_BYTES = 2**30  # linearised batches that are kept between products
BLOCK_BYTES = 64 * 2**20  # activations of one block: larger ones leave the cache and gain nothing
MAX_CHUNK = 64
_ORDER: tuple[Route, ...] = ("linearize", "double_backward", "finite_difference")


@final
class Hessian(LinearOperator):
    """Second derivative of the mean loss over data, at the network's present weights.

    With a list of batches the loss is the mean over all their examples: each batch counts by its number
    of targets, so the task's loss must itself be a mean over the batch. Where the loss has kinks (ReLU,
    max pooling) this is the Hessian almost everywhere.

    Cost: one product is about two gradients; a construction, five. Memory: the linearised batches, up to
    1 GiB, beyond which a batch is differentiated anew for every product; a block takes as many columns
    together as keep activations within 64 MiB.

    Args:
        network: Needs a task, for its loss.
        batches: One `Batch`, or several.
        parameters: Shell-style pattern; the others stand still. Vectors then have `layout.size` entries.
        route: `"linearize"` traces forward-over-reverse once and replays it; `"double_backward"` keeps the
            graph of the gradient; `"finite_difference"` needs only gradients and is not exact. `"auto"`
            takes the first of these that works here and passes a check against another way of
            computing the same product; no timing is involved. `.route` says which it was and `.flags`
            why not an earlier one.
        chunk: Columns of a block multiplied together; from the memory bound by default.

    >>> from torch import nn
    >>> from tremorscope.instruments.task import Task
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> network = Network(nn.Linear(1, 1, bias=False), task=Task.of(x, x))
    >>> Hessian(network, network.task.train_batch()).dense()  # 2 mean(x^2)
    tensor([[10.]])

    Raises:
        BadInput: If there is no data or task, the loss is not finite, gives two values on the same
            input, or cannot be differentiated by the route.
        SiteNotFound: If no parameter matches.

    Source: Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6, 1994.
    """

    def __init__(
        self,
        network: Network,
        batches: Batch | Sequence[Batch],
        *,
        parameters: str = "*",
        route: Literal["auto", "linearize", "double_backward", "finite_difference"] = "auto",
        chunk: int | None = None,
    ) -> None:
        if route != "auto" and route not in BUILDERS:
            raise BadInput("route", got=route, wanted=f"auto or one of {', '.join(BUILDERS)}")
        if chunk is not None and chunk < 1:
            raise BadInput("chunk", got=chunk, wanted="at least 1")
        chosen = network.layout.select(parameters)
        self.network = network
        self.layout = Layout.of({name: network.params[name] for name in chosen})
        self._theta = self.layout.flatten(network.params)
        self._fixed = {name: value for name, value in network.params.items() if name not in chosen}
        data = [batches] if isinstance(batches, Batch) else list(batches)
        sizes = [_size(batch) for batch in data]
        if not sum(sizes):
            raise BadInput("data of a Hessian", got="no examples", wanted="a Batch, or a list of them")
        losses = [partial(self._loss, batch) for batch in data]
        self.flags: tuple[str, ...] = ()
        with exact_derivatives(network.device):
            _check_repeatable(losses[0], self._theta, network.name)
            costs = [saved_bytes(loss, self._theta) for loss in losses]
            found = self._first_that_works(_ORDER if route == "auto" else (route,), losses[0])
            self.route: Route = found.route
            fitting = max(1, min(MAX_CHUNK, BLOCK_BYTES // max(max(costs), 1)))
            # Where vmap has no rule for some operation, columns go one at a time.
            self.chunk = 1 if found.one_at_a_time else chunk or fitting
            self._batches = self._keep(losses, sizes, costs, found.product)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns: the chosen parameters."""
        return self.layout.size, self.layout.size

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
        """True."""
        return True

    def forward_block(self, vectors: Float[Tensor, "params k"]) -> Float[Tensor, "params k"]:
        """`H V`."""
        total = torch.zeros_like(vectors)
        with exact_derivatives(self.device):
            for batch in self._batches:
                product = batch.product or self._rebuilt(batch.loss)
                for start in range(0, vectors.shape[1], self.chunk):
                    part = slice(start, start + self.chunk)
                    total[:, part] += batch.weight * product(vectors[:, part])
        return total

    def adjoint_block(self, vectors: Float[Tensor, "params k"]) -> Float[Tensor, "params k"]:
        """`H^T U`, which is `H U`."""
        return self.forward_block(vectors)

    def _loss(self, batch: Batch, theta: Tensor) -> Tensor:
        return self.network.loss({**self._fixed, **self.layout.unflatten(theta)}, batch)

    def _rebuilt(self, loss: ScalarFunction) -> BlockProduct:
        if self.route == "linearize":  # tracing costs more than it saves when it is used once
            return forward_over_reverse(loss, self._theta)
        return BUILDERS[self.route](loss, self._theta)

    def _keep(
        self, losses: Sequence[ScalarFunction], sizes: Sequence[int], costs: Sequence[int], first: BlockProduct
    ) -> list[_WeightedBatch]:
        # A kept batch holds activations, their tangent coefficients and both backward passes: about four times.
        kept, used = [], 0
        for index, (loss, size, cost) in enumerate(zip(losses, sizes, costs, strict=True)):
            used += 4 * cost
            product: BlockProduct | None = None
            if index == 0 or used <= KEPT_BYTES:
                product = first if index == 0 else BUILDERS[self.route](loss, self._theta)
            kept.append(_WeightedBatch(size / sum(sizes), loss, product))
        return kept

    def _first_that_works(self, routes: Sequence[Route], loss: ScalarFunction) -> _Found:
        for route in routes:
            try:
                found = _checked(route, loss, self._theta, suspicious=bool(self.flags))
            except TremorscopeError:
                raise
            except Exception as error:  # torch raises many kinds for "no such derivative"
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
                if route == routes[-1]:
                    raise BadInput(
                        f"Hessian of {self.network.name!r} by {route}",
                        got=reason,
                        wanted="a loss that can be differentiated this way",
                        remedy="Use route='auto'." if len(routes) == 1 else None,
                    ) from error
                self.flags += (f"{route} does not work here: {reason}",)
                continue
            if found.one_at_a_time:
                self.flags += (f"{route} cannot be vmapped here: one vector at a time",)
            if route == "finite_difference":
                self.flags += ("finite differences: products are not exact",)
            return found
        raise AssertionError("the last route either works or raises")


@final
@dataclass(frozen=True)
class _WeightedBatch:
    weight: float
    loss: ScalarFunction
    product: BlockProduct | None


@final
@dataclass(frozen=True)
class _Found:
    route: Route
    product: BlockProduct
    one_at_a_time: bool


class _Mismatch(RuntimeError):
    """A product that another way of computing it does not confirm."""


def _checked(route: Route, loss: ScalarFunction, theta: Tensor, *, suspicious: bool) -> _Found:
    """Build one route and hold its products against a second opinion, on two fixed random vectors."""
    product = BUILDERS[route](loss, theta)
    size = theta.numel()
    probes = torch.randn(size, 2, generator=generator(0, "hessian check"), dtype=torch.float64)
    probes = (probes / probes.norm(dim=0)).to(theta)
    first, second = product(probes[:, :1]), product(probes[:, 1:])
    if not (first.isfinite().all() and second.isfinite().all()):
        raise BadInput(
            "product with the Hessian",
            got="entries that are not finite",
            wanted="a loss that is twice differentiable at these weights",
        )
    eps = torch.finfo(theta.dtype).eps
    slope = float(gradient_at(loss, theta).norm())  # rounding in a product is relative to this, where H is all but zero
    if not torch.equal(product(probes[:, :1]), first):
        raise _Mismatch("the same product twice gave two results")
    if route == "linearize":
        _agree(
            first, forward_over_reverse(loss, theta)(probes[:, :1]), eps**0.5, 10 * eps * slope, "an untraced product"
        )
    elif route == "double_backward" and suspicious:
        # An operation without forward rule may be a custom function whose backward hides from autograd; it
        # then gives a wrong second derivative and no error. Differences are coarse, but not that coarse.
        coarse = 0.1 if theta.dtype == torch.float64 else 0.3
        _agree(
            first,
            central_differences(loss, theta)(probes[:, :1]),
            coarse,
            10 * eps ** (2 / 3) * slope,
            "central differences",
        )
    if route == "finite_difference":
        return _Found(route, product, False)
    try:
        _agree(product(probes), torch.cat([first, second], dim=1), eps**0.5, 10 * eps * slope, "single products")
    except Exception:  # no batching rule: a matter of speed only
        return _Found(route, product, True)
    return _Found(route, product, False)


def _agree(got: Tensor, wanted: Tensor, tolerance: float, floor: float, other: str) -> None:
    gap, scale = float((got - wanted).norm()), float(wanted.norm())
    if gap > tolerance * scale + floor:
        raise _Mismatch(f"its product differs from {other} by {gap:.2g} of {scale:.2g}")


def _check_repeatable(loss: ScalarFunction, theta: Tensor, name: str) -> None:
    with torch.no_grad():
        first, second = float(loss(theta)), float(loss(theta))
    if first != second and not (first != first and second != second):
        raise BadInput(
            f"loss of {name!r}",
            got=f"{first!r} and then {second!r} on the same input",
            wanted="the same value twice",
            remedy="Take randomness out of the forward pass, or seed it inside.",
        )
    if not torch.isfinite(torch.tensor(first)):
        raise BadInput(f"loss of {name!r}", got=first, wanted="a finite number")


def _size(batch: Batch) -> int:
    if batch.target is None:
        raise BadInput("batch of a Hessian", got="no target", wanted="inputs with targets")
    return len(batch.target) if batch.target.ndim else 1

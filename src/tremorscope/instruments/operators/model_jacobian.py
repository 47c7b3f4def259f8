"""The Jacobian of a network's outputs with respect to its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.layout import Selection
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators.batch_mean import BLOCK_BYTES, MAX_CHUNK
from tremorscope.instruments.operators.first_order import TangentPair, tangent_pair
from tremorscope.instruments.operators.mean_loss import moving_part
from tremorscope.instruments.operators.operator import LinearOperator
from tremorscope.instruments.operators.route_choice import AskedRoute, Candidate, choose
from tremorscope.instruments.operators.second_order import (
    BlockProduct,
    Route,
    WithFixed,
    exact_derivatives,
    saved_bytes,
)
from tremorscope.instruments.task import Batch


@final
class ModelJacobian(LinearOperator):
    """Derivative of all outputs of a network on one batch with respect to the chosen weights.

    Rows are the entries of the output in their order (`output_shape`, flattened), columns the parameters
    as in `layout`. `J @ J.T` is the empirical neural tangent kernel. Linearised once at the present weights.

    Cost: a product is a tangent forward pass, a product with the transpose a backward pass; a construction
    about five gradients. Memory: the linearised batch, about three times the activations.

    Args:
        network: Needs no task.
        batch: Inputs; targets are not looked at. A bare tensor is the only argument.
        parameters: As for `Hessian`.
        route: As for `Hessian`. `"double_backward"` is the transpose of the backward pass.
        chunk: Columns of a block multiplied together; from a bound of 64 MiB of activations by default.

    >>> from torch import nn
    >>> network = Network(nn.Linear(2, 1, bias=False))
    >>> ModelJacobian(network, torch.tensor([[1.0, 2.0], [3.0, 4.0]])).dense()
    tensor([[1., 2.],
            [3., 4.]])

    Raises:
        BadInput: If the output is not finite, differs between two passes, or cannot be differentiated; or a
            chosen parameter holds integers.
        SiteNotFound: If no parameter is chosen.

    Source: Jacot, Gabriel, Hongler, "Neural tangent kernel", NeurIPS 2018.
    """

    def __init__(
        self,
        network: Network,
        batch: Batch | Tensor,
        *,
        parameters: Selection = "*",
        route: AskedRoute = "auto",
        chunk: int | None = None,
    ) -> None:
        if chunk is not None and chunk < 1:
            raise BadInput("chunk", got=chunk, wanted="at least 1")
        inputs = batch if isinstance(batch, Batch) else Batch((batch,), {}, None)
        layout, theta, fixed = moving_part(network.params, network.select(parameters), "Jacobian")
        self.network, self.layout, self._theta = network, layout, theta

        def applied(at: Tensor, still: Mapping[str, Tensor]) -> Tensor:
            return network.apply({**still, **layout.unflatten(at)}, inputs)

        outputs = WithFixed(applied, fixed)
        with exact_derivatives(theta.device):
            with torch.no_grad():
                value, again = outputs(theta), outputs(theta)
            if not bool(value.isfinite().all()):
                raise BadInput(
                    f"output of {network.name!r}", got="entries that are not finite", wanted="finite numbers"
                )
            if not torch.equal(value, again):
                raise BadInput(
                    f"output of {network.name!r}",
                    got="two different outputs on the same input",
                    wanted="the same output twice",
                    remedy="Take randomness out of the forward pass, or seed it inside.",
                )
            self.output_shape = tuple(value.shape)
            self._num_rows = value.numel()
            pairs: dict[Route, TangentPair] = {}

            def there_and_back(way: Route, once: bool) -> BlockProduct:
                pair = tangent_pair(outputs, theta, way, once=once)
                if not once:
                    pairs[way] = pair
                return lambda vectors: pair.backward(pair.forward(vectors).detach())

            choice = choose(
                route,
                Candidate(
                    what=f"Jacobian of {network.name!r}",
                    build=lambda way: there_and_back(way, False),
                    rebuild=lambda way: there_and_back(way, True),
                    theta=theta,
                    slope=float(value.norm()),
                ),
            )
            saved = saved_bytes(outputs, theta)
        self.route, self.flags, self._pair = choice.route, choice.flags, pairs[choice.route]
        fitting = max(1, min(MAX_CHUNK, BLOCK_BYTES // max(saved, 1)))
        self.chunk = 1 if choice.one_at_a_time else chunk or fitting
        self._kept_bytes = 3 * saved

    @property
    def shape(self) -> tuple[int, int]:
        """Entries of the output, chosen parameters."""
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
        """Estimate for the linearised batch."""
        return self._kept_bytes

    def forward_block(self, vectors: Float[Tensor, "params k"]) -> Float[Tensor, "outputs k"]:
        """`J V`."""
        return self._by_chunks(self._pair.forward, vectors)

    def adjoint_block(self, vectors: Float[Tensor, "outputs k"]) -> Float[Tensor, "params k"]:
        """`J^T U`."""
        return self._by_chunks(self._pair.backward, vectors)

    def _by_chunks(self, product: BlockProduct, vectors: Tensor) -> Tensor:
        with exact_derivatives(self.device):
            parts = [product(part).detach() for part in torch.split(vectors, self.chunk, dim=1)]
        return torch.cat(parts, dim=1)

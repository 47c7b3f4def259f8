"""The pullback of the Fisher metric: how far predictions move, as a quadratic form on whatever they depend on."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.instruments.operators.jacobian import Function, Jacobian
from tremorscope.instruments.operators.operator import LinearOperator


@final
class PullbackFisher(LinearOperator):
    """`G = J^T F J`, with J the Jacobian of logits at `at`, and `F = diag(p) - p p^T` of the probabilities p there.

    `KL(p || p')` after a small step v is `v^T G v / 2` to second order, so an eigenvalue is twice the KL of a unit step
    along its eigenvector. Symmetric, positive semi-definite, of rank at most the classes less one.

    Args:
        function: From a vector to the logits of one distribution; pure.
        at: Where to differentiate.
        chunk: Columns that travel together.

    `jacobian` and `probabilities` are kept for whoever wants the linear response of a direction. Flags are those of
    `Jacobian`. Cost: a product is one forward pass with tangents and one backward pass.

    >>> pulled = PullbackFisher(lambda x: x, torch.zeros(2))
    >>> pulled.dense()
    tensor([[ 0.2500, -0.2500],
            [-0.2500,  0.2500]])

    Raises:
        BadInput: If the function does not give a finite vector of `at`'s dtype.

    Source: Amari and Nagaoka, "Methods of information geometry", 2000, section 2.2.
    """

    def __init__(self, function: Function, at: Float[Tensor, " columns"], *, chunk: int = 32) -> None:
        self.jacobian = Jacobian(function, at, chunk=chunk)
        with torch.no_grad():
            self.probabilities: Float[Tensor, " classes"] = function(at.detach()).softmax(dim=0)

    @property
    def flags(self) -> tuple[str, ...]:
        """What the Jacobian could not do as it should."""
        return self.jacobian.flags

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns: entries of `at`."""
        return self.jacobian.shape[1], self.jacobian.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """That of `at`."""
        return self.jacobian.dtype

    @property
    def device(self) -> torch.device:
        """That of `at`."""
        return self.jacobian.device

    @property
    def is_symmetric(self) -> bool:
        """True."""
        return True

    def forward_block(self, vectors: Float[Tensor, "columns k"]) -> Float[Tensor, "columns k"]:
        """`G V`."""
        return self.jacobian.adjoint_block(self.response(vectors))

    def adjoint_block(self, vectors: Float[Tensor, "columns k"]) -> Float[Tensor, "columns k"]:
        """`G^T U`, which is `G U`."""
        return self.forward_block(vectors)

    def response(self, vectors: Float[Tensor, "columns k"]) -> Float[Tensor, "classes k"]:
        """`F J V`: the rate at which each probability changes along each column."""
        moved = self.jacobian.forward_block(vectors)
        share = self.probabilities[:, None]
        changed: Tensor = share * (moved - (share * moved).sum(dim=0))
        return changed

"""An operator with some directions taken out on both sides."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.operators.operator import LinearOperator


@final
class Deflated(LinearOperator):
    """`(I - Q Q^T) A (I - Q Q^T)`: the operator as seen outside the span of Q.

    Unlike `restrict`, which works in coordinates of a basis, its vectors keep the length of A's. Cost: a product
    with A, and four with the thin Q a column (two on each side: one alone would leave rounding errors along Q that
    are relative to all of the vector).

    >>> from tremorscope.instruments.operators.operator import Dense
    >>> Deflated(Dense(torch.diag(torch.tensor([3.0, 2.0]))), torch.tensor([[1.0], [0.0]])).dense()
    tensor([[0., 0.],
            [0., 2.]])

    Raises:
        BadInput: If the operator is not square, or the columns of Q are not orthonormal vectors of its size.
    """

    def __init__(self, operator: LinearOperator, basis: Float[Tensor, "n k"]) -> None:
        rows, columns = operator.shape
        if rows != columns:
            raise BadInput("operator to deflate", got=f"{rows} x {columns}", wanted="a square one")
        if len(basis) != rows:
            raise BadInput("directions to take out", got=f"{len(basis)} entries", wanted=f"{rows}, as the operator")
        self.operator, self.basis = operator, basis.to(operator.device, operator.dtype)
        gap = self.basis.T @ self.basis - torch.eye(basis.shape[1]).to(self.basis)
        if basis.shape[1] and not float(gap.abs().max()) <= torch.finfo(operator.dtype).eps ** 0.5:
            raise BadInput(
                "directions to take out",
                got=f"columns that are {float(gap.abs().max()):.1g} from orthonormal",
                wanted="orthonormal columns",
                remedy="Use Subspace.span(vectors).basis.",
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.operator.shape

    @property
    def dtype(self) -> torch.dtype:
        """Type of the entries."""
        return self.operator.dtype

    @property
    def device(self) -> torch.device:
        """Where products are made."""
        return self.operator.device

    @property
    def is_symmetric(self) -> bool:
        """As the operator inside."""
        return self.operator.is_symmetric

    def forward_block(self, vectors: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """`(I - Q Q^T) A (I - Q Q^T) V`."""
        return self._outside(self.operator.mm(self._outside(vectors)))

    def adjoint_block(self, vectors: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """`(I - Q Q^T) A^T (I - Q Q^T) U`."""
        return self._outside(self.operator.rmm(self._outside(vectors)))

    def _outside(self, vectors: Tensor) -> Tensor:
        for _ in range(2):
            vectors = vectors - self.basis @ (self.basis.T @ vectors)
        return vectors

"""Operators made of other operators: sums, products, transposes, restrictions."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.operators.operator import LinearOperator


class _Composed(LinearOperator):
    """What is made of other operators has the dtype and device of the first."""

    parts: tuple[LinearOperator, ...]

    @final
    @property
    def dtype(self) -> torch.dtype:
        """Type of the entries."""
        return self.parts[0].dtype

    @final
    @property
    def device(self) -> torch.device:
        """Where products are made."""
        return self.parts[0].device

    @final
    @property
    def kept_bytes(self) -> int:
        """Those of the parts."""
        return sum(part.kept_bytes for part in {id(part): part for part in self.parts}.values())

    @final
    def _same_place(self, what: str) -> None:
        first = self.parts[0]
        for other in self.parts[1:]:
            if (other.dtype, other.device) != (first.dtype, first.device):
                raise BadInput(
                    what,
                    got=f"{other.dtype} on {other.device}",
                    wanted=f"{first.dtype} on {first.device} like the first",
                )


@final
class Scaled(_Composed):
    """`factor A`."""

    def __init__(self, operator: LinearOperator, factor: float) -> None:
        self.parts, self.factor = (operator,), factor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.parts[0].shape

    @property
    def is_symmetric(self) -> bool:
        """As the operator inside."""
        return self.parts[0].is_symmetric

    def forward_block(self, vectors: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        """`factor A V`."""
        return self.factor * self.parts[0].mm(vectors)

    def adjoint_block(self, vectors: Float[Tensor, "rows k"]) -> Float[Tensor, "columns k"]:
        """`factor A^T U`."""
        return self.factor * self.parts[0].rmm(vectors)


@final
class Sum(_Composed):
    """`A + B`.

    Raises:
        BadInput: If shapes, dtypes or devices differ.
    """

    def __init__(self, left: LinearOperator, right: LinearOperator) -> None:
        if left.shape != right.shape:
            raise BadInput("operators to add", got=f"shapes {left.shape} and {right.shape}", wanted="equal shapes")
        self.parts = (left, right)
        self._same_place("operators to add")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.parts[0].shape

    @property
    def is_symmetric(self) -> bool:
        """Whether both are."""
        return all(part.is_symmetric for part in self.parts)

    def forward_block(self, vectors: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        """`A V + B V`."""
        left, right = self.parts
        return left.mm(vectors) + right.mm(vectors)

    def adjoint_block(self, vectors: Float[Tensor, "rows k"]) -> Float[Tensor, "columns k"]:
        """`A^T U + B^T U`."""
        left, right = self.parts
        return left.rmm(vectors) + right.rmm(vectors)


@final
class Product(_Composed):
    """`A B`, first B.

    Raises:
        BadInput: If the shapes do not chain, or dtypes or devices differ.
    """

    def __init__(self, left: LinearOperator, right: LinearOperator) -> None:
        if left.shape[1] != right.shape[0]:
            raise BadInput(
                "operators to compose",
                got=f"{left.shape} after {right.shape}",
                wanted="as many columns on the left as rows on the right",
            )
        self.parts = (left, right)
        self._same_place("operators to compose")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.parts[0].shape[0], self.parts[1].shape[1]

    @property
    def is_symmetric(self) -> bool:
        """True for `A^T A` and `A A^T` only; other products are not looked into."""
        left, right = self.parts
        return left.T is right or right.T is left

    def forward_block(self, vectors: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        """`A (B V)`."""
        left, right = self.parts
        return left.mm(right.mm(vectors))

    def adjoint_block(self, vectors: Float[Tensor, "rows k"]) -> Float[Tensor, "columns k"]:
        """`B^T (A^T U)`."""
        left, right = self.parts
        return right.rmm(left.rmm(vectors))


@final
class Transposed(_Composed):
    """`A^T`."""

    def __init__(self, operator: LinearOperator) -> None:
        self.parts = (operator,)

    @property
    def operator(self) -> LinearOperator:
        """What was transposed."""
        return self.parts[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.parts[0].shape
        return columns, rows

    @property
    def is_symmetric(self) -> bool:
        """As the operator inside."""
        return self.parts[0].is_symmetric

    def forward_block(self, vectors: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        """`A^T V`."""
        return self.parts[0].rmm(vectors)

    def adjoint_block(self, vectors: Float[Tensor, "rows k"]) -> Float[Tensor, "columns k"]:
        """`A U`."""
        return self.parts[0].mm(vectors)


@final
class Restricted(_Composed):
    """`Q^T A Q` for a thin `Q`; its rows and columns are coordinates along the columns of `basis`.

    Raises:
        BadInput: If the operator is not square, or the basis has another length, dtype or device.
    """

    def __init__(self, operator: LinearOperator, basis: Float[Tensor, "n k"]) -> None:
        operator._square("restriction")
        operator._check("restrict to", basis, operator.shape[1])
        self.parts, self.basis = (operator,), basis

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.basis.shape[1], self.basis.shape[1]

    @property
    def is_symmetric(self) -> bool:
        """As the operator inside."""
        return self.parts[0].is_symmetric

    def forward_block(self, vectors: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        """`Q^T A Q V`."""
        return self.basis.T @ self.parts[0].mm(self.basis @ vectors)

    def adjoint_block(self, vectors: Float[Tensor, "rows k"]) -> Float[Tensor, "columns k"]:
        """`Q^T A^T Q U`."""
        return self.basis.T @ self.parts[0].rmm(self.basis @ vectors)


@final
class Damped(_Composed):
    """`A + damping I`.

    Raises:
        BadInput: If the operator is not square.
    """

    def __init__(self, operator: LinearOperator, damping: float) -> None:
        operator._square("damping")
        self.parts, self.damping = (operator,), damping

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.parts[0].shape

    @property
    def is_symmetric(self) -> bool:
        """As the operator inside."""
        return self.parts[0].is_symmetric

    def forward_block(self, vectors: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """`A V + damping V`."""
        return self.parts[0].mm(vectors) + self.damping * vectors

    def adjoint_block(self, vectors: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """`A^T U + damping U`."""
        return self.parts[0].rmm(vectors) + self.damping * vectors

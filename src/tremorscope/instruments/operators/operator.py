"""Matrices that are only ever multiplied, and the algebra that keeps them so."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final, overload

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.operators.product_cost import ProductCost

MAX_DENSE_BYTES = 4 * 2**30  # 23,170 rows and columns in float64
_BLOCK = 64  # columns of the identity that one sweep materialises


class LinearOperator(ABC):
    """A linear map from `shape[1]` to `shape[0]` entries that nobody has to write down.

    A leaf says what it does to a block of columns, and what its transpose does; everything else follows.
    Vectors and blocks must have the operator's own dtype, or the call says so.

    >>> a = Dense(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    >>> (a + 2.0 * a) @ torch.ones(2)
    tensor([6., 9.])
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Type of the entries."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where products are made."""

    @property
    @abstractmethod
    def is_symmetric(self) -> bool:
        """Whether the operator is known to equal its transpose. False: it may, but nobody promises."""

    @abstractmethod
    def forward_block(self, vectors: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        """`A V`, for a leaf to define; `columnwise` turns a product with one vector into this."""

    @abstractmethod
    def adjoint_block(self, vectors: Float[Tensor, "rows k"]) -> Float[Tensor, "columns k"]:
        """`A^T U`, likewise."""

    @property
    def kept_bytes(self) -> int:
        """About how many bytes are held between products."""
        return 0

    @final
    def product_cost(self, *, num_columns: int = 1) -> ProductCost:
        """What a product with a block of `num_columns` costs on this machine, now; to be printed, not relied on.

        Cost: one product; three where they take less than a tenth of a second.

        >>> cost = Identity(3).product_cost()
        >>> cost.num_columns, cost.kept_bytes, cost.seconds > 0
        (1, 0, True)

        Raises:
            BadInput: If `num_columns` is less than one.
        """
        if num_columns < 1:
            raise BadInput("num_columns", got=num_columns, wanted="at least 1")
        length = self.shape[1]
        vectors = torch.full((length, num_columns), length**-0.5, dtype=self.dtype, device=self.device)
        best = math.inf
        for _ in range(3):
            start = time.perf_counter()
            float(self.forward_block(vectors).sum())  # waits for an accelerator too
            best = min(best, time.perf_counter() - start)
            if best > 0.1:
                break
        return ProductCost(seconds=best, num_columns=num_columns, kept_bytes=self.kept_bytes)

    @final
    def mv(self, vector: Float[Tensor, " columns"]) -> Float[Tensor, " rows"]:
        """`A v`. Cost: one product.

        Raises:
            BadInput: If length, dtype or device do not fit.
        """
        return self.mm(vector[:, None])[:, 0]

    @final
    def rmv(self, vector: Float[Tensor, " rows"]) -> Float[Tensor, " columns"]:
        """`A^T u`. Cost: one product.

        Raises:
            BadInput: If length, dtype or device do not fit.
        """
        return self.rmm(vector[:, None])[:, 0]

    @final
    def mm(self, vectors: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        """`A V`, all columns together. Cost: k products, often much less than k times one.

        Raises:
            BadInput: If length, dtype or device do not fit.
        """
        self._check("multiply by", vectors, self.shape[1])
        return self.forward_block(vectors)

    @final
    def rmm(self, vectors: Float[Tensor, "rows k"]) -> Float[Tensor, "columns k"]:
        """`A^T U`, all columns together.

        Raises:
            BadInput: If length, dtype or device do not fit.
        """
        self._check("multiply the transpose by", vectors, self.shape[0])
        return self.adjoint_block(vectors)

    @final
    def restrict(self, basis: Float[Tensor, "columns k"]) -> LinearOperator:
        """`Q^T A Q`: the operator as seen inside the span of the columns of `basis`.

        Raises:
            BadInput: If the operator is not square, or the basis has another length or dtype.
        """
        # composed.py stands on this file, so that the algebra can import it only when it is used.
        from tremorscope.instruments.operators.composed import Restricted

        return Restricted(self, basis)

    @final
    def dense(self, *, max_bytes: int = MAX_DENSE_BYTES) -> Float[Tensor, "rows columns"]:
        """The matrix itself. Cost: as many products as the shorter side is long.

        Raises:
            BadInput: If it would need more than `max_bytes`.
        """
        rows, columns = self.shape
        needed = rows * columns * self.dtype.itemsize
        if needed > max_bytes:
            raise BadInput(
                f"dense matrix of {rows:,} x {columns:,}",
                got=f"{_bytes(needed)} needed",
                wanted=f"at most {_bytes(max_bytes)}",
                remedy="Use products (A @ v), eigsh, trace or restrict; or raise max_bytes.",
            )
        matrix = torch.empty(rows, columns, dtype=self.dtype, device=self.device)
        by_rows = rows < columns
        for start in range(0, min(rows, columns), _BLOCK):
            unit = self._unit_block(rows if by_rows else columns, start)
            if by_rows:
                matrix[start : start + unit.shape[1]] = self.rmm(unit).T
            else:
                matrix[:, start : start + unit.shape[1]] = self.mm(unit)
        return matrix

    @final
    def diagonal(self) -> Float[Tensor, " n"]:
        """The diagonal, exactly. Cost: one product per row, memory of a few columns.

        Raises:
            BadInput: If the operator is not square.
        """
        size = self._square("diagonal")
        pieces = []
        for start in range(0, size, _BLOCK):
            unit = self._unit_block(size, start)
            pieces.append(self.mm(unit)[start : start + unit.shape[1]].diagonal())
        return torch.cat(pieces)

    @final
    @property
    def T(self) -> LinearOperator:
        """The transpose."""
        from tremorscope.instruments.operators.composed import Transposed

        return self.operator if isinstance(self, Transposed) else Transposed(self)

    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...
    @final
    def __matmul__(self, other: Tensor | LinearOperator) -> Tensor | LinearOperator:
        from tremorscope.instruments.operators.composed import Product

        if isinstance(other, LinearOperator):
            return Product(self, other)
        return self.mv(other) if other.ndim == 1 else self.mm(other)

    @final
    def __add__(self, other: LinearOperator) -> LinearOperator:
        from tremorscope.instruments.operators.composed import Sum

        return Sum(self, other) if isinstance(other, LinearOperator) else NotImplemented

    @final
    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return self + other * -1.0 if isinstance(other, LinearOperator) else NotImplemented

    @final
    def __mul__(self, factor: float) -> LinearOperator:
        from tremorscope.instruments.operators.composed import Scaled

        return Scaled(self, float(factor)) if isinstance(factor, int | float) else NotImplemented

    __rmul__ = __mul__

    @final
    def __neg__(self) -> LinearOperator:
        return self * -1.0

    @final
    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"{type(self).__name__}({rows:,} x {columns:,}, {str(self.dtype).removeprefix('torch.')})"

    def _check(self, verb: str, vectors: Tensor, length: int) -> None:
        if vectors.ndim != 2 or vectors.shape[0] != length:
            raise BadInput(
                f"vectors to {verb}", got=f"shape {tuple(vectors.shape)}", wanted=f"{length} rows, one column a vector"
            )
        if vectors.dtype != self.dtype or vectors.device != self.device:
            raise BadInput(
                f"vectors to {verb}",
                got=f"{vectors.dtype} on {vectors.device}",
                wanted=f"{self.dtype} on {self.device}",
                remedy="Cast them with v.to(A.device, A.dtype).",
            )

    def _square(self, what: str) -> int:
        rows, columns = self.shape
        if rows != columns:
            raise BadInput(f"{what} of an operator", got=f"{rows} x {columns}", wanted="a square one")
        return rows

    def _unit_block(self, size: int, start: int) -> Tensor:
        width = min(_BLOCK, size - start)
        unit = torch.zeros(size, width, dtype=self.dtype, device=self.device)
        unit[start : start + width].fill_diagonal_(1)
        return unit


def columnwise(product: Callable[[Tensor], Tensor], vectors: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
    """A product with one vector, applied to each column in turn."""
    return torch.stack([product(vector) for vector in vectors.unbind(1)], dim=1)


@final
class Dense(LinearOperator):
    """A matrix that has been written down.

    Raises:
        BadInput: If an entry is not finite.
    """

    def __init__(self, matrix: Float[Tensor, "rows columns"]) -> None:
        num_bad = int((~matrix.isfinite()).sum())
        if num_bad:
            raise BadInput("entries of a matrix", got=f"{num_bad} that are not finite", wanted="finite numbers")
        self.matrix = matrix
        self._symmetric = matrix.shape[0] == matrix.shape[1] and bool((matrix == matrix.T).all())

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.matrix.shape
        return rows, columns

    @property
    def dtype(self) -> torch.dtype:
        """Type of the entries."""
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        """Where the matrix lies."""
        return self.matrix.device

    @property
    def is_symmetric(self) -> bool:
        """Whether the entries are symmetric, bit for bit."""
        return self._symmetric

    @property
    def kept_bytes(self) -> int:
        """The matrix."""
        return self.matrix.numel() * self.matrix.element_size()

    def forward_block(self, vectors: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        """`A V`."""
        return self.matrix @ vectors

    def adjoint_block(self, vectors: Float[Tensor, "rows k"]) -> Float[Tensor, "columns k"]:
        """`A^T U`."""
        return self.matrix.T @ vectors


@final
class Identity(LinearOperator):
    """What changes nothing."""

    def __init__(
        self, size: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> None:
        if size < 1:
            raise BadInput("size of an identity", got=size, wanted="at least 1")
        # A tensor resolves "cuda" to "cuda:0", which comparisons of devices need.
        self._like = torch.empty(0, dtype=dtype, device=device)
        self._size = size

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._size, self._size

    @property
    def dtype(self) -> torch.dtype:
        """Type of the entries."""
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        """Where products are made."""
        return self._like.device

    @property
    def is_symmetric(self) -> bool:
        """True."""
        return True

    def forward_block(self, vectors: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """A copy, so that nobody writes into his own argument through a product."""
        return vectors.clone()

    def adjoint_block(self, vectors: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Likewise."""
        return vectors.clone()


def _bytes(count: int) -> str:
    return f"{count:,} bytes ({count / 2**30:.2f} GiB)"

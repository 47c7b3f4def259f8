"""The Jacobian of any function from one flat vector to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vjp, vmap

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.operators.operator import LinearOperator, columnwise
from tremorscope.instruments.operators.second_order import exact_derivatives

Function = Callable[[Tensor], Tensor]


@final
class Jacobian(LinearOperator):
    """Derivative of `function` at `at`: training maps, networks, anything pure.

    Nothing is kept between calls: each block runs the function forward once (`A V`, tangents carried
    along) or forward and backward once (`A^T U`), `chunk` columns together.

    Args:
        function: From a vector of m entries to one of n; pure.
        at: Where to differentiate.
        chunk: Columns that travel together.

    Functions without forward-mode rules get their tangents by differentiating the backward pass, which
    costs about twice as much and is said in `.flags`; where vmap has no rule, columns go one at a time.

    >>> Jacobian(lambda x: x**2, torch.tensor([1.0, 3.0])) @ torch.ones(2)
    tensor([2., 6.])

    Raises:
        BadInput: If the function does not give a finite vector of `at`'s dtype.
    """

    def __init__(self, function: Function, at: Float[Tensor, " columns"], *, chunk: int = 32) -> None:
        if chunk < 1:
            raise BadInput("chunk", got=chunk, wanted="at least 1")
        self.function, self.at, self.chunk = function, at.detach(), chunk
        self.flags: tuple[str, ...] = ()
        self._tangent: Callable[[Tensor], Tensor] = self._by_jvp
        with exact_derivatives(at.device):
            with torch.no_grad():
                value = function(self.at)
            if value.ndim != 1 or value.dtype != at.dtype or not bool(value.isfinite().all()):
                raise BadInput(
                    "value of the function",
                    got=f"{value.dtype} of shape {tuple(value.shape)}"
                    + ("" if bool(value.isfinite().all()) else ", not finite"),
                    wanted=f"a finite vector of {at.dtype}",
                )
            self._num_rows = len(value)
            try:
                self._by_jvp(torch.zeros_like(self.at))
            except (RuntimeError, NotImplementedError) as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
                self._tangent = self._by_double_vjp
                self.flags += (f"jvp does not work here, double vjp used: {reason}",)

    @property
    def shape(self) -> tuple[int, int]:
        """Entries of the value, entries of the argument."""
        return self._num_rows, len(self.at)

    @property
    def dtype(self) -> torch.dtype:
        """That of `at`."""
        return self.at.dtype

    @property
    def device(self) -> torch.device:
        """That of `at`."""
        return self.at.device

    @property
    def is_symmetric(self) -> bool:
        """False: nobody promises."""
        return False

    def forward_block(self, vectors: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        """`J V`, forward mode."""
        with exact_derivatives(self.device):
            return self._columns(self._tangent, vectors)

    def adjoint_block(self, vectors: Float[Tensor, "rows k"]) -> Float[Tensor, "columns k"]:
        """`J^T U`, reverse mode."""
        with exact_derivatives(self.device):
            pull = vjp(self.function, self.at)[1]
            return self._columns(lambda vector: pull(vector)[0], vectors).detach()

    def _columns(self, one: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
        if vectors.shape[1] == 1 or self.chunk == 1:
            return columnwise(one, vectors)
        try:
            result: Tensor = vmap(one, in_dims=1, out_dims=1, chunk_size=self.chunk)(vectors)
        except (RuntimeError, NotImplementedError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            self.chunk = 1
            self.flags += (f"vmap does not work here, one vector at a time: {reason}",)
            return columnwise(one, vectors)
        return result

    def _by_jvp(self, vector: Tensor) -> Tensor:
        result: Tensor = jvp(self.function, (self.at,), (vector,))[1]
        return result

    def _by_double_vjp(self, vector: Tensor) -> Tensor:
        # u -> J^T u is linear; its own transpose is J.
        def pulled(cotangent: Tensor) -> Tensor:
            result: Tensor = vjp(self.function, self.at)[1](cotangent)[0]
            return result

        back = vjp(pulled, torch.zeros(self._num_rows, dtype=self.dtype, device=self.device))[1]
        result: Tensor = back(vector)[0]
        return result.detach()

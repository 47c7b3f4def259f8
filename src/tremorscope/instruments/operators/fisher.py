"""The empirical Fisher matrix."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.layout import Selection
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators.batch_mean import MEMORY
from tremorscope.instruments.operators.batches import Data
from tremorscope.instruments.operators.operator import LinearOperator
from tremorscope.instruments.operators.per_example import PerExampleGradients


@final
class EmpiricalFisher(LinearOperator):
    """Mean over examples of `g g^T`, with `g` the gradient of the example's own loss at its true target.

    Not the Fisher matrix of the model's own predictions: for cross-entropy that one is `GaussNewton`, and
    the two differ unless the predictions match the targets. Symmetric, positive semi-definite, rank at most
    the number of examples. Arguments, memory, flags and errors are those of `PerExampleGradients`, which is
    kept as `.gradients`.

    Cost: one product is two passes over the kept gradients. Rows that do not fit into `memory` (examples times
    parameters) are differentiated anew, example by example, for each product: with millions of parameters that
    is many times a gradient, so raise `memory` or take fewer examples; `product_cost()` tells beforehand.

    >>> from torch import nn
    >>> from tremorscope.instruments.task import Task
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> network = Network(nn.Linear(1, 1, bias=False), task=Task.of(x, torch.zeros(2, 1))).at(torch.ones(1))
    >>> EmpiricalFisher(network, network.task.train_batch()).dense()  # (2^2 + 18^2) / 2
    tensor([[164.]])

    Raises:
        BadInput: As `PerExampleGradients`.
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
    ) -> None:
        self.gradients = PerExampleGradients(network, batches, parameters=parameters, chunk=chunk, memory=memory)
        self.layout, self.flags = self.gradients.layout, self.gradients.flags

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
        """The gradients that are kept."""
        return self.gradients.kept_bytes

    def forward_block(self, vectors: Float[Tensor, "params k"]) -> Float[Tensor, "params k"]:
        """`F V`."""
        total = torch.zeros_like(vectors)
        for rows in self.gradients.blocks():  # one pass, also where rows are differentiated anew
            total += rows.T @ (rows @ vectors)
        return total / self.gradients.shape[0]

    def adjoint_block(self, vectors: Float[Tensor, "params k"]) -> Float[Tensor, "params k"]:
        """`F^T U`, which is `F U`."""
        return self.forward_block(vectors)

"""Directions that no softmax can see: one vector added to all outputs alike."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.instruments.losses import recognise
from tremorscope.instruments.network import Network
from tremorscope.instruments.tangents import LinearStack, recognise_stack

_KEPT = 0.5  # singular value of a projected basis vector: about 1 outside the symmetry, about 0 inside


def output_shift_directions(network: Network) -> Float[Tensor, "params k"]:
    """Orthonormal directions of the last layer that add one number to all logits alike.

    Cross-entropy does not change along them, so their gradient is zero, training carries them over exactly
    (`sigma = 1`, not turned), and they lie at the centre of every bulk, whatever the data. One for each input
    of the last layer, and one for its bias. Empty for other losses, and for networks that are no chain ending
    in a linear layer.

    Raises:
        BadInput: If the network has no task.
    """
    task = network.required_task()
    none = torch.zeros(network.layout.size, 0, dtype=torch.float64)
    stack = recognise_stack(network, task.batch([0]))
    if recognise(task.loss) != "cross_entropy" or not isinstance(stack, LinearStack):
        return none
    last = stack.layers[-1]
    if last.phi is not None:
        return none
    num_out, num_in = last.shape
    weights = torch.eye(num_in, dtype=torch.float64).expand(num_out, num_in, num_in) / num_out**0.5
    directions = none.new_zeros(len(none), num_in + (last.bias is not None))
    directions[network.layout.slice(last.weight), :num_in] = weights.reshape(num_out * num_in, num_in)
    if last.bias is not None:
        directions[network.layout.slice(last.bias), num_in] = num_out**-0.5
    return directions


def without(basis: Float[Tensor, "params k"], symmetry: Float[Tensor, "params s"]) -> Float[Tensor, "params r"]:
    """Orthonormal basis of what is left of a span when a symmetry is projected out."""
    rest = basis.double() - symmetry.double() @ (symmetry.double().T @ basis.double())
    left: Tensor
    left, values, _ = torch.linalg.svd(rest, full_matrices=False)
    return left[:, values > _KEPT]

"""The null without a network: directions of the first layer that the inputs hardly vary along."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.tangents import LinearStack, recognise_stack


def low_variance_directions(network: Network, k: int) -> Float[Tensor, "params k"]:
    """Orthonormal directions `unit x principal component` of the first layer, least varying inputs first.

    The gradient of a first-layer weight row is a mix of inputs, so training can hardly move it along a
    principal component (of the uncentred inputs) that is nearly zero on all of them. That holds for any
    network and any labels: it is what a bulk would be if it told of nothing but the inputs. Inputs that are
    zero throughout are left out, as dead weights are. Fewer than `k` come back when the first layer has fewer.

    Raises:
        BadInput: If the network is no chain that starts with a linear layer, or has no task.
    """
    task = network.required_task()
    stack = recognise_stack(network, task.batch([0]))
    if not isinstance(stack, LinearStack):
        raise BadInput("low-variance directions", got=stack, wanted="a chain that starts with a linear layer")
    first = stack.layers[0]
    inputs = task.inputs.flatten(1).double().cpu()
    alive = inputs.abs().amax(0).nonzero().flatten()
    _, components = torch.linalg.eigh(inputs[:, alive].T @ inputs[:, alive] / len(inputs))  # ascending
    num_units, num_inputs = first.shape
    order = torch.arange(min(k, num_units * len(alive)))
    k = len(order)
    weights = torch.zeros(k, num_units, num_inputs, dtype=torch.float64)
    rows = torch.zeros(k, num_inputs, dtype=torch.float64)
    rows[:, alive] = components[:, order // num_units].T
    weights[order, order % num_units] = rows
    directions = torch.zeros(network.layout.size, k, dtype=torch.float64)
    directions[network.layout.slice(first.weight)] = weights.reshape(k, -1).T
    return directions

"""What a unit step away from the trained weights does to predictions, direction by direction."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.divergence import kl_from
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch, Task

_CHUNK_BYTES = 64 << 20


def worst_divergence(
    network: Network, directions: Float[Tensor, "params k"], batch: Batch, *, size: float = 1.0
) -> Float[Tensor, " k"]:
    """`max` over examples of `KL(p(theta) || p(theta + size v_i))` in nats, for each column `v_i`.

    Cost: `k` forward passes of the batch, vmapped in chunks where the module can be.

    Raises:
        BadInput: If the outputs are no logits.
    """
    theta = network.theta
    with torch.no_grad():
        clean = network.apply(theta, batch)
        if clean.ndim != 2 or clean.shape[1] < 2:
            raise BadInput("outputs", got=f"shape {tuple(clean.shape)}", wanted="logits [batch, classes]")
        divergence = kl_from(clean)
        moved = torch.split(theta.unsqueeze(0) + size * directions.T.to(theta), _width(clean))
        outputs = (_outputs(network, part, batch) for part in moved)
        return torch.cat([vmap(divergence)(block).amax(1) for block in outputs]).cpu()


def probe_batches(task: Task, seed: int) -> dict[str, Batch]:
    """Inputs in and out of distribution: training, standard normal noise, inverted (largest + smallest - x).

    Raises:
        BadInput: If the inputs are not real numbers.
    """
    inputs = task.inputs
    if not inputs.is_floating_point():
        raise BadInput("inputs out of distribution", got=f"{inputs.dtype} inputs", wanted="real numbers")
    normal = torch.randn(inputs.shape, generator=generator(seed, "normal inputs"), dtype=torch.float64)
    low, high = inputs.aminmax()
    return {
        "training": Batch((inputs,), {}, None),
        "normal": Batch((normal.to(inputs),), {}, None),
        "inverted": Batch((low + high - inputs,), {}, None),
    }


def _outputs(network: Network, weights: Float[Tensor, "k params"], batch: Batch) -> Float[Tensor, "k batch classes"]:
    def output(at: Tensor) -> Tensor:
        return network.apply(at, batch)

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop because we have not yet implemented")
            together: Tensor = vmap(output, randomness="same")(weights)
    except RuntimeError:  # no rule of vmap for recurrent layers, nor for code that branches on data
        return torch.stack([output(at) for at in weights])
    return together


def _width(clean: Tensor) -> int:
    # float64 log-probabilities and hidden activations, together rarely more than some twenty times the outputs
    return max(1, _CHUNK_BYTES // (clean.numel() * clean.element_size() * 20))

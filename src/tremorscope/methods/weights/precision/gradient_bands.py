"""Where in the spectrum of the Hessian the gradient lies."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Hessian

# Ends of the bands, in units of the largest |lambda|: steep walls, slopes, floor, and below rounding.
BANDS = {"above 1e-4": 1e-4, "1e-8 to 1e-4": 1e-8, "1e-12 to 1e-8": 1e-12, "below 1e-12": 0.0}


def hessian_eigenvalues(network: Network) -> Float[Tensor, " params"]:
    """All eigenvalues of the Hessian of the training loss, ascending. Cost: `params` products and `params^3`."""
    values: Tensor = torch.linalg.eigvalsh(Hessian(network, network.required_task().train_batch()).dense())
    return values


def gradient_by_band(network: Network, gradient: Float[Tensor, " params"]) -> dict[str, float]:
    """How much of the gradient's norm lies along eigenvectors of which curvature?

    Norms by band of `|lambda| / max |lambda|`; their squares sum to that of the gradient.
    """
    values, vectors = torch.linalg.eigh(Hessian(network, network.required_task().train_batch()).dense())
    return norms_by_band(values, vectors.T @ gradient)


def norms_by_band(values: Float[Tensor, " n"], coordinates: Float[Tensor, " n"]) -> dict[str, float]:
    """Norm of the coordinates in each band of `|values|`.

    >>> list(norms_by_band(torch.tensor([1.0, 1e-6, 1e-20]), torch.tensor([3.0, 4.0, 5.0])).values())
    [3.0, 4.0, 0.0, 5.0]
    """
    size = values.abs() / values.abs().max().clamp_min(torch.finfo(values.dtype).tiny)
    norms, above = {}, float("inf")
    for name, low in BANDS.items():
        norms[name] = float(coordinates[(size >= low) & (size < above)].norm())
        above = low
    return norms

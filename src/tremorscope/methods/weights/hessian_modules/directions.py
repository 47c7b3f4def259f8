"""Directions in the weights that bend one loss and leave another as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.arrays import write_arrays
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.layout import Layout
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import LinearOperator
from tremorscope.instruments.operators.deflated import Deflated
from tremorscope.instruments.spectrum import Spectrum, eigsh

Method = Literal["projection", "complement", "generalised"]
METHODS: tuple[Method, ...] = ("projection", "complement", "generalised")
LEAST_LEFT = 1e-2  # of a unit vector after projection: less is the eigensolver's own error
EIGEN_TOLERANCE = 1e-3  # of the norm, as published; projection is exact on the vectors that were found


@final
@dataclass(frozen=True, kw_only=True)
class SteeringDirection:
    """A vector over some of a network's weights. `theta(alpha) = theta + alpha * vector`, length as it came.

    `left` is the norm that projection left of the unit vector it began with.
    """

    name: str
    vector: Float[Tensor, " chosen"]
    layout: Layout  # names and shapes of the chosen parameters
    left: float
    index: int = 0

    def weights(self, network: Network, alpha: float) -> Float[Tensor, " params"]:
        """All weights of the network, moved by `alpha` along the direction.

        >>> import torch
        >>> from torch import nn
        >>> network = Network(nn.Linear(1, 1))
        >>> along = SteeringDirection(
        ...     name="bias", vector=torch.ones(1), layout=Layout(("bias",), ((1,),)), left=1.0
        ... )
        >>> torch.allclose(along.weights(network, 2.0) - network.theta, torch.tensor([0.0, 2.0]), atol=1e-6)
        True
        """
        named = dict(network.params)
        for name, part in self.layout.unflatten(self.vector).items():
            named[name] = named[name] + alpha * part.to(named[name])
        return network.layout.flatten(named)

    def save(self, path: Path, metadata: dict[str, Any]) -> Path:
        """Write the direction as safetensors, one tensor for each parameter it moves."""
        tensors = {name: part.contiguous() for name, part in self.layout.unflatten(self.vector).items()}
        write_arrays(path, tensors, metadata={key: str(value) for key, value in metadata.items()})
        return path


def projected(
    keep: Spectrum, breaking: Spectrum, layout: Layout, *, k: int | None = None, index: int = 0
) -> SteeringDirection:
    """`u = (I - E_A E_A^T) v_B`: a top eigenvector of the break-loss without the keep-loss's top eigenvectors.

    Not made a unit vector again, as published. `k = 0` leaves `v_B` as it is: the control.

    Raises:
        BadInput: If there is no such eigenvector, or nothing is left after projection.

    Source: Vaintrob and Panickssery 2023; `k = 50`, `index = 0` there.
    """
    _check_index(breaking, index)
    basis = keep.vectors[:, :k].double()
    vector = breaking.vectors[:, index].double()
    vector = without(vector / vector.norm(), basis)
    left = float(vector.norm())
    if left < LEAST_LEFT:
        raise BadInput(
            f"nothing left after projection: |u| = {left:.2g}",
            got="keep and break losses of equal curvature",
            wanted=f"at least {LEAST_LEFT:g} of the break direction outside the keep directions",
            remedy="Use data that tell the two apart, or a smaller k.",
        )
    return SteeringDirection(
        name=f"v_B {index + 1} without {basis.shape[1]} keep directions" if basis.shape[1] else f"v_B {index + 1}",
        vector=vector.to(breaking.vectors.dtype),
        layout=layout,
        left=left,
        index=index,
    )


def in_complement(
    keep: Spectrum, breaking: LinearOperator, layout: Layout, *, k: int | None = None, num: int = 1, seed: int = 0
) -> list[SteeringDirection]:
    """The directions of largest break-curvature among those perpendicular to the keep-loss's top eigenvectors.

    Top eigenvectors of `(I - E E^T) H_B (I - E E^T)`: the projection method projects one vector, this one the
    problem. Unit vectors.

    Raises:
        BadInput: If `num` exceeds the dimension of the complement.
        NotConverged: If an eigenpair does not reach its tolerance.
    """
    inside = Deflated(breaking, keep.vectors[:, :k])
    found = eigsh(inside, num, which="largest", tol=EIGEN_TOLERANCE, seed=seed)
    return [
        SteeringDirection(
            name=f"stiffest {i + 1} of the complement", vector=found.vectors[:, i], layout=layout, left=1.0, index=i
        )
        for i in range(num)
    ]


def generalised(
    keep: LinearOperator,
    breaking: LinearOperator,
    layout: Layout,
    *,
    damping: float,
    num: int = 1,
    seed: int = 0,
) -> list[SteeringDirection]:
    """The directions of largest `u^T H_B u / u^T (H_A + damping I) u`: most break for the keep they cost.

    `H_A + damping I` must be positive definite, so `keep` is best a Gauss-Newton matrix. Unit vectors.

    Raises:
        BadInput: If the damped keep-curvature is not positive definite.
        NotConverged: If a pair does not reach its tolerance.
    """
    from tremorscope.instruments.generalised import generalised_eigsh

    found = generalised_eigsh(breaking, keep, num, damping=damping, tol=EIGEN_TOLERANCE, seed=seed)
    vectors = found.vectors / found.vectors.norm(dim=0)
    return [
        SteeringDirection(
            name=f"generalised {i + 1}, damping {damping:.2g}", vector=vectors[:, i], layout=layout, left=1.0, index=i
        )
        for i in range(num)
    ]


def without(vectors: Float[Tensor, "params ..."], basis: Float[Tensor, "params n"]) -> Float[Tensor, "params ..."]:
    """`(I - Q Q^T) v`, twice: once leaves rounding errors along Q that are relative to all of v."""
    for _ in range(2):
        vectors = vectors - basis @ (basis.T @ vectors)
    return vectors


def curvature_along(operator: LinearOperator, vector: Float[Tensor, " params"]) -> float:
    """`u^T A u`. Cost: one product."""
    there = vector.to(operator.device, operator.dtype)
    return float(there.double() @ (operator @ there).double())


def _check_index(spectrum: Spectrum, index: int) -> None:
    if not 0 <= index < len(spectrum):
        raise BadInput("break direction", got=f"number {index + 1}", wanted=f"1 to {len(spectrum)}")

"""The Hessian seen inside a random hyperplane, or on the hypersphere through the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.layout import Selection
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import GaussNewton, Hessian
from tremorscope.instruments.operators.route_choice import AskedRoute
from tremorscope.instruments.operators.second_order import exact_derivatives, forward_over_reverse, gradient_at
from tremorscope.instruments.subspace import Subspace
from tremorscope.instruments.task import Batch

Surface = Literal["plane", "sphere"]
SURFACES: tuple[Surface, ...] = ("plane", "sphere")
KINKS = "where the network has kinks (ReLU, max pooling) the Hessian is that of almost every point"


@final
@dataclass(frozen=True, kw_only=True)
class RestrictedCurvature:
    """Second derivative of the loss along `d` orthonormal directions, symmetric, in the basis given.

    On the sphere `matrix` is `Q^T H Q - bend I` with `bend = (g . n) / r`, the part that the sphere's own
    curvature contributes; `flat` is the same without it. On a plane `bend` is 0. `gauss_newton` is `Q^T GGN Q`
    when it was asked for: `residual` is the rest of `flat`.
    """

    flat: Float[Tensor, "d d"]
    bend: float
    loss: float
    gradient_norm: float
    radius: float
    gauss_newton: Float[Tensor, "d d"] | None = None
    flags: tuple[str, ...] = ()

    @property
    def matrix(self) -> Float[Tensor, "d d"]:
        """With the sphere's own curvature."""
        return self.flat - self.bend * torch.eye(len(self.flat), dtype=self.flat.dtype, device=self.flat.device)

    @property
    def residual(self) -> Float[Tensor, "d d"] | None:
        """`Q^T (H - GGN) Q`."""
        return None if self.gauss_newton is None else self.flat - self.gauss_newton

    @property
    def gauss_newton_ratio(self) -> float:
        """`||Q^T GGN Q||_F / ||Q^T (H - GGN) Q||_F`; infinite where nothing is left, NaN where nothing was split."""
        if self.gauss_newton is None or self.residual is None:
            return math.nan
        part, rest = float(self.gauss_newton.norm()), float(self.residual.norm())
        return part / rest if rest else (math.inf if part else math.nan)


def restricted_curvature(
    network: Network,
    batch: Batch,
    basis: Float[Tensor, "params d"],
    *,
    surface: Surface = "plane",
    split: bool = False,
    parameters: Selection = "*",
    route: AskedRoute = "auto",
) -> RestrictedCurvature:
    """The loss's curvature along the columns of `basis`, at the network's present weights.

    Along a geodesic of the sphere of radius r with normal n, `d^2 L / dt^2 = v^T H v - (g . n) / r`: the second
    term is the sphere's own bending, which turns slope into curvature.

    Args:
        network: Needs a task, for its loss.
        batch: Data. The loss is its mean.
        basis: Orthonormal columns, in the space of the chosen parameters; for the sphere perpendicular to
            the weights (`random_basis` gives both).
        surface: `"plane"`, or `"sphere"` around the origin.
        split: Whether to separate the Gauss-Newton part; doubles the cost.
        parameters: Those that move; the sphere is one in their space.
        route: As in `Hessian`.

    Cost: `d` Hessian products in one block, besides what building a `Hessian` costs on that route.

    For networks with ReLU, second derivatives of the kinks are zero almost everywhere: the matrix is the
    Hessian at almost every point, and says nothing of the kinks crossed on the way.

    Raises:
        BadInput: If the surface is unknown, the basis does not fit or is not tangent to the sphere, the
            weights are zero on a sphere, the loss is not finite, or inputs are of a type the network cannot take.
        SiteNotFound: If no parameter is chosen.
    """
    if surface not in SURFACES:
        raise BadInput("surface", got=surface, wanted=" or ".join(SURFACES))
    check_inputs(network, batch)
    hessian = Hessian(network, batch, parameters=parameters, route=route)
    layout = hessian.layout
    theta = layout.flatten(network.params)
    fixed = {name: value for name, value in network.params.items() if name not in layout.names}

    def loss(at: Tensor) -> Tensor:
        return network.loss({**fixed, **layout.unflatten(at)}, batch)

    with exact_derivatives(network.device):
        value, gradient = float(loss(theta).detach()), gradient_at(loss, theta)
    radius, bend = float(theta.norm()), 0.0
    if surface == "sphere":
        _check_tangent(theta, basis)
        bend = float(gradient @ theta) / radius**2
    flat = _symmetric(hessian.restrict(basis).dense())
    gauss_newton = None
    flags = hessian.flags
    if split:
        other = GaussNewton(network, batch, parameters=parameters, route=route)
        gauss_newton = _symmetric(other.restrict(basis).dense())
        flags = tuple(dict.fromkeys((*flags, *other.flags)))
    return RestrictedCurvature(
        flat=flat,
        bend=bend,
        loss=value,
        gradient_norm=float(gradient.norm()),
        radius=radius,
        gauss_newton=gauss_newton,
        flags=flags,
    )


def random_basis(
    theta: Float[Tensor, " params"], dimension: int, generator: torch.Generator, *, surface: Surface = "plane"
) -> Float[Tensor, "params d"]:
    """Orthonormal columns in uniformly random directions; for a sphere, of those perpendicular to `theta`.

    >>> theta = torch.tensor([0.0, 0.0, 2.0])
    >>> basis = random_basis(theta, 2, torch.Generator().manual_seed(0), surface="sphere")
    >>> basis[2].abs().max() < 1e-7
    tensor(True)

    Raises:
        BadInput: If there are fewer directions than `dimension`, or `theta` is zero on a sphere.
    """
    most = len(theta) - (surface == "sphere")
    if not 1 <= dimension <= most:
        raise BadInput(
            "dimension of a random subspace",
            got=dimension,
            wanted=f"1 to {most}, the number of directions of {len(theta)} weights"
            + (" along a sphere" if surface == "sphere" else ""),
            remedy="Lower dimension.",
        )
    if surface == "plane":
        return Subspace.random(len(theta), dimension, generator).basis.to(theta)
    norm = theta.double().norm()
    if norm == 0:
        raise BadInput("weights on a sphere", got="all zero", wanted="a sphere of positive radius")
    normal = (theta.double() / norm).cpu()
    directions = torch.randn(len(theta), dimension, generator=generator, dtype=torch.float64)
    directions -= normal[:, None] * (normal @ directions)
    basis = torch.linalg.qr(directions).Q
    tangent: Tensor = basis - normal[:, None] * (normal @ basis)  # once more, against rounding
    return tangent.to(theta)


def check_inputs(network: Network, batch: Batch) -> None:
    """Say it in one sentence when integers come to a network that multiplies its inputs by real weights.

    Raises:
        BadInput: If so.
    """
    whole = [x for x in batch.args if isinstance(x, Tensor) and not x.is_floating_point()]
    if not whole:
        return
    try:
        with torch.no_grad():
            network.apply(network.params, batch)
    except (RuntimeError, TypeError) as error:
        raise BadInput(
            f"inputs of {network.name!r}",
            got=f"{str(whole[0].dtype).removeprefix('torch.')}, which it cannot take",
            wanted="real numbers",
            remedy="Use inputs.float(); integers are for networks that look them up.",
        ) from error


def _check_tangent(theta: Tensor, basis: Tensor) -> None:
    norm = float(theta.norm())
    if norm == 0:
        raise BadInput("weights on a sphere", got="all zero", wanted="a sphere of positive radius")
    tilt = float((theta @ basis).abs().max()) / norm if len(theta) == len(basis) else 0.0
    if tilt > torch.finfo(theta.dtype).eps ** 0.5:
        raise BadInput(
            "basis of a tangent space",
            got=f"a column with {tilt:.1g} of it along the weights",
            wanted="columns perpendicular to them",
            remedy="Use random_basis(..., surface='sphere').",
        )


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2


def route_for_one_block(
    network: Network, batch: Batch, basis: Float[Tensor, "params d"], *, parameters: Selection = "*"
) -> AskedRoute:
    """The cheapest exact route to a single block of products, where another derivation confirms it.

    Tracing pays when a Hessian is multiplied often. Here each is multiplied once, at one point of a curve, so
    that the graph of the gradient costs a third of it. Its second derivative is wrong, without an error, for custom
    functions whose backward hides from autograd: hence the check, forward over reverse along one direction.

    Cost: two Hessian products.
    """
    try:
        quick = Hessian(network, batch, parameters=parameters, route="double_backward")
    except BadInput:
        return "auto"
    layout, direction = quick.layout, basis[:, :1].contiguous()
    fixed = {name: value for name, value in network.params.items() if name not in layout.names}

    def loss(at: Tensor) -> Tensor:
        return network.loss({**fixed, **layout.unflatten(at)}, batch)

    try:
        with exact_derivatives(network.device):
            other = forward_over_reverse(loss, layout.flatten(network.params))(direction)
    except Exception:  # no forward rule: torch raises many kinds; the checked route finds what works
        return "auto"
    close = torch.finfo(basis.dtype).eps ** 0.5 * float(other.norm())
    return "double_backward" if float((quick.mm(direction) - other).norm()) <= close else "auto"

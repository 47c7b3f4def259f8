"""Do two losses bend the weights in different directions? Overlap, what projection leaves, additivity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.figures import Axis, Figure
from tremorscope.foundations.results import Table
from tremorscope.instruments.operators import LinearOperator
from tremorscope.instruments.spectrum import Spectrum
from tremorscope.instruments.subspace import Subspace
from tremorscope.methods.weights.hessian_modules.directions import without

SHOWN = 10  # eigenvectors in tables
GRAM_SHOWN = 30


@final
@dataclass(frozen=True, kw_only=True)
class IndependenceMeasurement:
    """How far two losses' stiff directions are apart.

    `gram[i, j]` is `<a_i, b_j>`. `left[j]` is the norm of `b_j` outside the span of all `a_i`. `cross[i]` is
    `a_i^T H_B a_i` beside `a_i`'s own eigenvalue. `additivity` is `||M - (A + B) / 2|| / ||M||` in Frobenius
    norm on the joint span, M the mixed loss's curvature; None without one. Everything here is exact algebra
    on one network, up to the eigensolver's tolerance.
    """

    names: tuple[str, str]
    gram: Float[Tensor, "a b"]
    values: tuple[Tensor, Tensor]
    left: Float[Tensor, " b"]
    cross: tuple[Tensor, Tensor]
    num_parameters: int
    additivity: float | None

    def overlap(self, k: int | None = None) -> float:
        """Mean squared cosine between the spans of the top `k` of each."""
        k = min(self.gram.shape) if k is None else k
        return float(self.gram[:k, :k].square().sum()) / k

    def chance(self, k: int | None = None) -> float:
        """What two random spans of `k` directions have: `k / N`."""
        return Subspace.chance(self.num_parameters, min(self.gram.shape) if k is None else k)

    def to_plain(self) -> dict[str, Any]:
        """The numbers that studies average."""
        k = min(self.gram.shape)
        return {
            "overlap": self.overlap(),
            "overlap of 10": self.overlap(min(10, k)),
            "chance": self.chance(),
            "chance of 10": self.chance(min(10, k)),
            "left of the first": float(self.left[0]),
            "additivity": self.additivity,
        }

    def tables(self) -> list[Table]:
        """Overlap beside chance, and the stiffest directions of each under the other loss."""
        first, second = self.names
        k = min(self.gram.shape)
        sizes = sorted({min(size, k) for size in (1, 10, k)})
        rows = [
            {
                "directions of each": size,
                "mean squared cosine": self.overlap(size),
                "chance k/N": self.chance(size),
                "times chance": self.overlap(size) / self.chance(size),
            }
            for size in sizes
        ]
        crossed = [
            {
                "of the loss on": name,
                "rank": i + 1,
                "curvature there": float(own[i]),
                f"on {other}": float(cross[i]),
                "norm left by the other's span": float(left[i]),
            }
            for name, other, own, cross, left in (
                (first, second, self.values[0], self.cross[0], _left(self.gram.T)),
                (second, first, self.values[1], self.cross[1], self.left),
            )
            for i in range(min(SHOWN, k))
        ]
        added = (
            ""
            if self.additivity is None
            else f" On the joint span the mixed loss's curvature differs from the mean of the two by "
            f"{self.additivity:.2g} of its norm."
        )
        return [
            Table.of_rows(
                rows,
                name="independence",
                title="Do the two losses share their stiff directions?",
                caption=f"Spans of the top eigenvectors of the losses on {first} and {second}, in "
                f"{self.num_parameters:,} weights. 1: the same span; independent modules would be at chance.{added}",
            ),
            Table.of_rows(
                crossed,
                name="cross_curvature",
                title="Each loss's stiffest directions under the other loss",
                caption="Curvature in loss per squared weight; what the other's top directions leave of a unit vector.",
            ),
        ]

    def figures(self) -> list[Figure]:
        """The Gram matrix as a heatmap."""
        return [gram_figure(self.names, self.gram, self.overlap(), self.chance())]


def gram_figure(names: tuple[str, str], gram: Float[Tensor, "a b"], overlap: float, chance: float) -> Figure:
    """Absolute cosines of two losses' top eigenvectors."""
    size = min(GRAM_SHOWN, *gram.shape)
    return Figure(
        name="gram",
        title=f"Stiff directions of {names[0]} and {names[1]} overlap by {overlap:.2g}; chance is {chance:.2g}",
        caption=f"Absolute cosines of the top {size} eigenvectors of the two losses. The overlap is the mean squared "
        "cosine between the spans of all that were found.",
        traces=[
            {
                "type": "heatmap",
                "z": [[float(f"{cell:.3g}") for cell in row] for row in gram[:size, :size].abs().tolist()],
                "x": list(range(1, size + 1)),
                "y": list(range(1, size + 1)),
                "zmin": 0,
                "zmax": 1,
                "colorscale": "Cividis",
                "colorbar": {"title": {"text": "|cosine|"}},
            }
        ],
        x=Axis(title=f"rank under the loss on {names[1]}"),
        y=Axis(title=f"rank under the loss on {names[0]}"),
    )


def measure_independence(
    spectra: Mapping[str, Spectrum], operators: Mapping[str, LinearOperator], *, mixed: LinearOperator | None = None
) -> IndependenceMeasurement:
    """Are two losses' modules independent in the sense of their curvature?

    Args:
        spectra: Top eigenpairs of the two losses, by name, two of them.
        operators: The two curvatures, by the same names.
        mixed: Curvature of the loss on mixed data, for additivity.

    Cost: `2 k` products of each operator, and as many of the mixed one.

    Raises:
        BadInput: If there are not two.
    """
    if len(spectra) != 2 or set(spectra) != set(operators):
        raise BadInput("losses to compare", got=", ".join(spectra), wanted="two, with their operators")
    first, second = spectra
    a, b = (spectra[name].vectors.double().cpu() for name in (first, second))
    gram = a.T @ b
    images = {name: _images(operators[name], torch.cat([a, b], dim=1)) for name in (first, second)}
    num = a.shape[1]
    return IndependenceMeasurement(
        names=(first, second),
        gram=gram,
        values=(spectra[first].values, spectra[second].values),
        left=without(b, a).norm(dim=0),
        cross=((a * images[second][:, :num]).sum(0), (b * images[first][:, num:]).sum(0)),
        num_parameters=len(a),
        additivity=None if mixed is None else _additivity(torch.cat([a, b], dim=1), images, mixed),
    )


def _additivity(vectors: Tensor, images: Mapping[str, Tensor], mixed: LinearOperator) -> float:
    # In an orthonormal basis Q = vectors @ turn of the joint span.
    values, turn = torch.linalg.eigh(vectors.T @ vectors)
    kept = values > 1e-6 * values[-1]
    turn = turn[:, kept] / values[kept].sqrt()
    basis = vectors @ turn
    half = sum(basis.T @ (image @ turn) for image in images.values()) / len(images)
    whole = basis.T @ _images(mixed, basis)
    return float((whole - half).norm() / whole.norm())


def _images(operator: LinearOperator, vectors: Tensor) -> Tensor:
    return operator.mm(vectors.to(operator.device, operator.dtype)).double().cpu()


def _left(gram: Tensor) -> Tensor:
    """Norm that is left of the columns' unit vectors; exact because the rows' vectors are orthonormal."""
    return (1 - gram.square().sum(0)).clamp_min(0).sqrt()

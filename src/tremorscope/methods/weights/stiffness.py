"""In how many directions is the loss stiff, flat, or bent downwards, and where do gradient and training lie?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, final

import torch
from torch import Tensor

from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, band, line
from tremorscope.foundations.results import Table
from tremorscope.instruments.lanczos_quadrature import Density, Quadrature, lanczos_quadrature
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Hessian
from tremorscope.instruments.operators.second_order import gradient_at
from tremorscope.instruments.spectrum import Spectrum
from tremorscope.instruments.subspace import Subspace
from tremorscope.instruments.task import Batch

STIFF, FLAT = 1e-2, 1e-4
"""A direction is stiff above this share of the largest eigenvalue, flat within the smaller one of zero."""

EXACT_SIZE = 2048
"""Up to so many weights the matrix is written down and its eigenvalues are counted one by one."""

Sign = Literal["positive", "negative"]
_MARKS = ("circle", "diamond", "square")
_GRID = 300
_WIDTH = 0.15  # decades that each eigenvalue is spread over
_DECADES = 7  # below the largest eigenvalue, that the figure shows


@final
@dataclass(frozen=True, kw_only=True)
class Stiffness:
    """What one Hessian looks like as a whole.

    `num_stiff`, `num_flat` and `num_negative` count eigenvalues above `STIFF` of the largest, within `FLAT` of it
    around zero, and below minus that. `stiff_curvature` and `other_curvature` are the mean eigenvalue inside the
    span of the largest ones and outside of it. `gradient_share` and `drift_share` are the shares of the squared
    length of the gradient, and of training's way from its start, that lie inside that span of `span` dimensions;
    `None` where there is no gradient, or no start. Chance is `span / num_weights`. `density` is per decade of
    the size of an eigenvalue, of positive and of negative ones; both together make 1.
    """

    num_weights: int
    span: int
    num_stiff: Estimate
    num_flat: Estimate
    num_negative: Estimate
    stiff_curvature: float
    other_curvature: Estimate
    gradient_share: float | None
    drift_share: float | None
    density: Mapping[Sign, Density]


@final
@dataclass(frozen=True, kw_only=True)
class StiffnessMeasurement:
    """Stiff, flat and negative directions of a network and of its nulls; the first name is the network itself."""

    networks: Mapping[str, Stiffness]
    flags: tuple[str, ...] = ()

    @property
    def own(self) -> str:
        """Name of the network itself."""
        return next(iter(self.networks))

    def sentence(self) -> str:
        """What a reader wants first."""
        own = self.networks[self.own]
        share = ""
        if own.gradient_share is not None:
            chance = own.span / own.num_weights
            share = (
                f" The {own.span} stiffest hold {100 * own.gradient_share:.0f} % of the squared gradient "
                f"(chance {100 * chance:.1f} %)."
            )
        return (
            f"The loss is stiff in {own.num_stiff} directions, flat in {own.num_flat} and bends down in "
            f"{own.num_negative}, of {own.num_weights:,}.{share}"
        )

    def tables(self) -> list[Table]:
        """All numbers, one column a network."""
        columns = {name: _column(one) for name, one in self.networks.items()}
        own = self.networks[self.own]
        labels = [label for label in columns[self.own] if any(column[label] is not None for column in columns.values())]
        rows = [{"measured": label} | {name: column[label] for name, column in columns.items()} for label in labels]
        return [
            Table.of_rows(
                rows,
                name="stiffness",
                title="Stiff, flat and negative directions of the loss",
                caption=f"Stiff: eigenvalue above {STIFF:g} of the largest; flat: within {FLAT:g} of it around zero; "
                f"negative: below that. Counts are exact up to {EXACT_SIZE:,} weights; beyond, they are by quadrature, "
                "with 99 % intervals that hold for sharp edges. Chance for "
                f"the two shares: {own.span / own.num_weights:.3g}.",
            )
        ]

    def figures(self) -> list[Figure]:
        """Density of the eigenvalues that are not among the largest."""
        traces: list[dict[str, Any]] = []
        for place, (name, one) in enumerate(self.networks.items()):
            colours = {"positive": PALETTE[0], "negative": PALETTE[1]}
            symbol = _MARKS[(place - 1) % len(_MARKS)]
            for sign, density in one.density.items():
                colour = colours[sign] if place == 0 else NULL_COLOUR
                if place == 0:
                    traces.append(band(density.grid, density.low, density.high, f"{sign}, interval", colour=colour))
                drawn = line(
                    density.grid,
                    density.values,
                    f"{name}, {sign}",
                    colour=colour,
                    dash="dash" if sign == "negative" else None,
                    markers=place > 0,
                )
                if place > 0:
                    # Every thirtieth point carries the mark that tells the nulls apart.
                    drawn |= {"marker": {"symbol": symbol, "size": 6, "maxdisplayed": 10}}
                traces.append(drawn)
        own = self.networks[self.own]
        return [
            Figure(
                name="hessian_density",
                title="Stiff, flat and negative directions of the loss",
                caption="Share of eigenvalues of the Hessian per decade of their size, by Lanczos quadrature: solid "
                f"positive, dashed negative. Stiff (above {STIFF:g} of the largest): {own.num_stiff} of "
                f"{own.num_weights:,}; flat (within {FLAT:g} of it): {own.num_flat}. Grey: nulls.",
                traces=traces,
                x=Axis(title="size of the eigenvalue, loss per squared weight", log=True),
                y=Axis(title="share of eigenvalues per decade"),
            )
        ]


def measure_stiffness(
    networks: Mapping[str, Network],
    batches: Mapping[str, Batch],
    spectra: Mapping[str, Spectrum],
    *,
    num_steps: int = 40,
    num_probes: int = 8,
    seed: int = 0,
) -> StiffnessMeasurement:
    """What does the whole spectrum of the loss look like, and do gradient and training lie in its stiff end?

    Args:
        networks: The network first, then its nulls.
        batches: Data of each.
        spectra: Largest eigenpairs of each, as `measure_curvature` finds them: the quadrature leaves them out.
        num_steps: Lanczos steps of the quadrature.
        num_probes: Its probes.
        seed: Of the probes.

    Cost: `num_steps num_probes` Hessian products for each network, and as many vectors of memory; up to
    `EXACT_SIZE` weights, where counts are exact, as many more as there are weights.

    Raises:
        BadInput: If the loss cannot be differentiated twice.

    Source: Ghorbani, Krishnan and Xiao, arXiv:1901.10159, for the density; Gur-Ari, Roberts and Dyer,
    arXiv:1812.04754, for gradients in the top subspace.
    """
    found, flags = {}, list[str]()
    for name, network in networks.items():
        batch, spectrum = batches[name], spectra[name]
        basis = spectrum.vectors
        operator = Hessian(network, batch)
        rules = lanczos_quadrature(
            operator,
            num_steps=num_steps,
            num_probes=num_probes,
            seed=seed,
            known=(Subspace(basis=basis, offset=basis.new_zeros(len(basis))), spectrum.values),
        )
        gradient = gradient_at(partial(_loss, network, batch), network.theta)
        values = None
        if operator.shape[0] <= EXACT_SIZE:
            matrix = operator.dense().double().cpu()
            values = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
        found[name] = _stiffness(network, spectrum, rules, values, gradient)
        flags += [f"spectrum of {name}: {flag}" for flag in rules.flags]
    return StiffnessMeasurement(networks=found, flags=tuple(dict.fromkeys(flags)))


def _loss(network: Network, batch: Batch, theta: Tensor) -> Tensor:
    return network.loss(theta, batch)


def _stiffness(
    network: Network, spectrum: Spectrum, rules: Quadrature, values: Tensor | None, gradient: Tensor
) -> Stiffness:
    largest = float(spectrum.values.abs().max())
    size, span = rules.num_rows, len(spectrum)
    flat = FLAT * largest
    inside = float(spectrum.values.sum())
    drift = None if network.initial is None else network.theta - network.start

    def count(low: float, high: float) -> Estimate:
        if values is None:
            return rules.count(low, high)
        return Estimate.exact(float(((values >= low) & (values <= high)).sum()))

    return Stiffness(
        num_weights=size,
        span=span,
        num_stiff=count(STIFF * largest, 2 * largest),
        num_flat=count(-flat, flat),
        num_negative=count(-2 * largest, -flat),
        stiff_curvature=inside / span,
        other_curvature=_outside(
            rules.mean(lambda x: x).scaled(size) if values is None else Estimate.exact(float(values.sum())),
            inside,
            size - span,
        ),
        gradient_share=_share(gradient, spectrum.vectors),
        drift_share=None if drift is None else _share(drift, spectrum.vectors),
        density={sign: rules.density(_grid(largest), _WIDTH, log=True, sign=sign) for sign in ("positive", "negative")},
    )


def _outside(total: Estimate, inside: float, count: int) -> Estimate:
    """Mean of the other eigenvalues, from their sum with the known ones."""
    shifted = Estimate(
        value=total.value - inside,
        low=total.low - inside,
        high=total.high - inside,
        level=total.level,
        n=total.n,
        method=total.method,
    )
    return shifted.scaled(1 / max(count, 1))


def _share(vector: Tensor, basis: Tensor) -> float | None:
    length = float(vector.double().square().sum())
    if length == 0:
        return None
    return float((basis.double().T @ vector.double()).square().sum()) / length


def _grid(largest: float) -> Tensor:
    top = math.log10(max(largest, 1e-300))
    return torch.logspace(top - _DECADES, top + 4 * _WIDTH, _GRID, dtype=torch.float64)


def _column(one: Stiffness) -> dict[str, object]:
    return {
        "stiff directions": one.num_stiff,
        "flat directions": one.num_flat,
        "negative directions": one.num_negative,
        f"mean curvature of the {one.span} stiffest": one.stiff_curvature,
        "mean curvature of the others": one.other_curvature,
        "share of the squared gradient in the stiffest": one.gradient_share,
        "share of training's squared way in the stiffest": one.drift_share,
    }

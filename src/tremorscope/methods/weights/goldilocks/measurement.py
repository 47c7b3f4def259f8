"""Kappa, the share of positive curvature, loss and slope along a range of scales, beside what chance gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.figures import Figure
from tremorscope.foundations.layout import Selection
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.initialisation import Initialiser, Scheme, draw_weights
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators.route_choice import AskedRoute
from tremorscope.instruments.operators.second_order import exact_derivatives, gradient_at
from tremorscope.instruments.task import Batch
from tremorscope.methods.weights.goldilocks.figures import zone_figures
from tremorscope.methods.weights.goldilocks.restricted import (
    KINKS,
    Surface,
    check_inputs,
    random_basis,
    restricted_curvature,
    route_for_one_block,
)
from tremorscope.methods.weights.goldilocks.scaling import (
    SCALINGS,
    Scaling,
    batch_in_precision,
    in_double_precision,
    scaled,
)
from tremorscope.methods.weights.goldilocks.statistics import positivity, random_signs, random_symmetric
from tremorscope.methods.weights.goldilocks.zone import Zone, find_zone

WEIGHT_SCALES = (0.01, 0.03, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 100.0)
TEMPERATURE_SCALES = (1e-3, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, 1e5)
InitialWeights = Scheme | Initialiser | Literal["own"] | None
"""How draws start: see `measure_goldilocks`."""
QUANTITIES = (
    "kappa",
    "positive_share",
    "loss",
    "gradient_norm",
    "trace",
    "norm",
    "flat_kappa",
    "gauss_newton_ratio",
    "signs_kappa",
    "signs_positive_share",
    "symmetric_kappa",
    "symmetric_positive_share",
)
_KINKED = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Hardtanh, nn.Hardswish, nn.MaxPool1d, nn.MaxPool2d)


@final
@dataclass(frozen=True, kw_only=True)
class GoldilocksMeasurement:
    """Curves over scales; one row a draw of starting weights and subspace (or a member, after `over_members`).

    `curves[name]` is `[draws, scales]`, NaN where it is not defined, for each name in `QUANTITIES`: `kappa` and
    `positive_share` of the restricted Hessian (on a sphere with its own bending, `flat_kappa` without), `loss`,
    `gradient_norm`, the matrix's `trace` and Frobenius `norm`, `gauss_newton_ratio` where it was split, and both
    statistics for the same curvatures with random signs (`signs_...`) and for random symmetric matrices
    (`symmetric_...`).
    """

    name: str
    scaling: Scaling
    surface: Surface
    dimension: int
    num_parameters: int
    typical_norm: float
    scales: tuple[float, ...]
    curves: Mapping[str, Float[Tensor, "draws scales"]]
    rows_are: str = "draws"
    flags: tuple[str, ...] = ()

    def mean(self, quantity: str = "kappa") -> Float[Tensor, " scales"]:
        """Mean over the rows that are defined; NaN where none is."""
        return self.curves[quantity].nanmean(dim=0)

    def estimate(self, quantity: str, scale: float, *, level: float = LEVEL) -> Estimate | None:
        """Mean over the rows at one scale with its interval; None where no row is defined.

        Raises:
            BadInput: If the scale was not measured.
        """
        if scale not in self.scales:
            raise BadInput("scale", got=scale, wanted=f"one of {', '.join(f'{s:g}' for s in self.scales)}")
        values = self.curves[quantity][:, self.scales.index(scale)]
        values = values[values.isfinite()]
        return Estimate.mean(values.tolist(), level=level) if len(values) else None

    def chance(self, kind: Literal["signs", "symmetric"] = "signs") -> GoldilocksMeasurement:
        """The same measurement with its null in the place of kappa and positive share, to be read in the same way."""
        swapped = {part: self.curves[f"{kind}_{part}"] for part in ("kappa", "positive_share")}
        swapped["flat_kappa"] = swapped["kappa"]
        return replace(self, curves={**self.curves, **swapped}, name=f"{self.name}, {kind}")

    @property
    def zone(self) -> Zone | None:
        """The shell around the peak of mean kappa; None where there is none."""
        return find_zone(self.scales, self.mean().tolist())

    def tables(self) -> list[Table]:
        """Every quantity by scale, with intervals over the rows."""
        shown = [q for q in QUANTITIES if bool(self.curves[q].isfinite().any())]
        rows = []
        for scale in self.scales:
            row: dict[str, Any] = {"scale": scale}
            if self.scaling == "weights":
                row["norm of the weights"] = scale * self.typical_norm
            rows.append(row | {_TITLES[q]: self.estimate(q, scale) for q in shown})
        what = "weights multiplied by scale" if self.scaling == "weights" else "outputs multiplied by scale"
        return [
            Table.of_rows(
                rows,
                name=f"goldilocks_{_slug(self.name)}",
                title=f"Curvature by scale: {self.name}",
                caption=f"{what.capitalize()}; random {self.surface}s of {self.dimension} of "
                f"{self.num_parameters:,} dimensions, {len(self.curves['kappa'])} {self.rows_are}, 99 % intervals over "
                f"these. Kappa is at most {math.sqrt(self.dimension):.3g}.",
            )
        ]

    def figures(self) -> list[Figure]:
        """Kappa and positive share against the scale, with the null, and the Gauss-Newton split."""
        return zone_figures({self.name: self}, self.scaling)

    def to_plain(self) -> dict[str, Any]:
        """Everything, as JSON."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        curves = {
            name: [[value if math.isfinite(value) else repr(value) for value in row] for row in curve.tolist()]
            for name, curve in self.curves.items()
        }
        return {**plain, "scales": list(self.scales), "flags": list(self.flags), "curves": curves}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> GoldilocksMeasurement:
        """The inverse of `to_plain`."""
        curves = {
            name: torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64)
            for name, rows in plain["curves"].items()
        }
        return cls(
            **{name: plain[name] for name in _PLAIN},
            scales=tuple(plain["scales"]),
            flags=tuple(plain["flags"]),
            curves=curves,
        )


_PLAIN = ("name", "scaling", "surface", "dimension", "num_parameters", "typical_norm", "rows_are")
_TITLES = {
    "kappa": "kappa",
    "positive_share": "share of positive curvature",
    "loss": "loss",
    "gradient_norm": "gradient norm",
    "trace": "trace",
    "norm": "Frobenius norm",
    "flat_kappa": "kappa without the sphere's bending",
    "gauss_newton_ratio": "Gauss-Newton over rest",
    "signs_kappa": "kappa, random signs",
    "signs_positive_share": "share, random signs",
    "symmetric_kappa": "kappa, random symmetric matrix",
    "symmetric_positive_share": "share, random symmetric matrix",
}


def measure_goldilocks(
    network: Network,
    *,
    batch: Batch | None = None,
    scales: Sequence[float] | None = None,
    scaling: Scaling = "weights",
    surface: Surface = "plane",
    dimension: int = 40,
    num_draws: int = 4,
    seed: int = 0,
    initialiser: InitialWeights = None,
    parameters: Selection = "*",
    split: bool = True,
    dtype: torch.dtype = torch.float64,
    name: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GoldilocksMeasurement:
    """At what distance from the origin is the loss unusually convex?

    Each draw takes fresh weights and a random subspace of `dimension` directions, and follows both along all
    scales. At each point `d` Hessian products in one block give the restricted Hessian.

    Args:
        network: Needs a task.
        batch: Data; all training examples by default.
        scales: Factors on the weights, or on the outputs; 13 of them by default.
        scaling: `"weights"` multiplies the chosen weights, `"temperature"` the outputs before the loss.
        surface: `"plane"`, or `"sphere"` through the weights around the origin.
        dimension: Of the subspaces.
        num_draws: How many.
        seed: Names every stream.
        initialiser: `"xavier"`, `"he"`, `"reset"` (the layers' own), a function `(network, seed) -> weights`, or
            `"own"`: the network's own starting weights in every draw, along their ray. None: the layers' own
            where they have one, else `"own"` with a flag.
        parameters: Those that are scaled, and in whose space the subspaces lie.
        split: Whether to separate the Gauss-Newton part; it doubles the cost.
        dtype: Of the computation. Float32 loses the small curvatures at small scales to rounding.
        name: What reports call the curve; the network's name by default.
        progress: Called with points done and all of them.

    Cost: `num_draws * len(scales)` blocks of `dimension` Hessian products, twice that with `split`.

    Where the network has kinks (ReLU), this is the Hessian of almost every point: second derivatives of the
    kinks themselves are zero almost everywhere. Such networks are flagged.

    Raises:
        BadInput: If there are more dimensions than weights, scales do not grow, there is no task, or inputs are
            of a type the network cannot take. Scales at which the loss is not finite, or the Hessian is zero,
            are flagged and left undefined.
        SiteNotFound: If no parameter is chosen.

    Source: Fort and Scherlis 2018, arXiv:1807.02581; the split and temperature: Vysogorets, Dawid and Kempe 2024,
    arXiv:2402.03579.
    """
    scales = _checked_scales(scales, scaling)
    if num_draws < 1:
        raise BadInput("number of draws", got=num_draws, wanted="at least 1")
    network = in_double_precision(network, dtype)
    batch = network.required_task().train_batch() if batch is None else batch_in_precision(batch, dtype)
    check_inputs(network, batch)
    drawn, flags = starts(network, initialiser, num_draws, seed)
    if dtype != torch.float64:
        flags.append(f"{str(dtype).removeprefix('torch.')}: curvature at small scales is lost to rounding")
    if any(isinstance(part, _KINKED) for part in network.module.modules()):
        flags.append(KINKS)
    chosen = network.layout.indices(network.select(parameters))
    rows: list[list[dict[str, float]]] = []
    route: AskedRoute | None = None
    for draw, theta in enumerate(drawn):
        there = network.at(theta)
        basis = random_basis(theta[chosen], dimension, generator(seed, "basis", draw), surface=surface)
        chance = generator(seed, "chance", draw)
        points = []
        for place, scale in enumerate(scales):
            at = scaled(there, scaling, scale, parameters=parameters)
            if (found := _undefined(at, batch, scaling, scale)) is not None:
                flags.append(found)
                points.append(dict.fromkeys(QUANTITIES, math.nan))
            else:
                route = route or route_for_one_block(at, batch, basis, parameters=parameters)
                point, told = _point(at, batch, basis, surface, split, parameters, route, chance, scale)
                points.append(point)
                flags += told
            if progress is not None:
                progress(draw * len(scales) + place + 1, num_draws * len(scales))
        rows.append(points)
    return GoldilocksMeasurement(
        name=name or network.name,
        scaling=scaling,
        surface=surface,
        dimension=dimension,
        num_parameters=len(chosen),
        typical_norm=math.sqrt(sum(float(theta[chosen].square().sum()) for theta in drawn) / len(drawn)),
        scales=tuple(scales),
        curves={
            q: torch.tensor([[point[q] for point in points] for points in rows], dtype=torch.float64)
            for q in QUANTITIES
        },
        flags=tuple(dict.fromkeys(flags)),
    )


def over_members(members: Sequence[GoldilocksMeasurement]) -> GoldilocksMeasurement:
    """One measurement whose rows are the members' means, so that intervals are over members.

    Raises:
        BadInput: If there is none, or they were not measured at the same scales.
    """
    if len({member.scales for member in members}) != 1:
        raise BadInput("members to pool", got=f"{len({m.scales for m in members})} sets of scales", wanted="one")
    first = members[0]
    return GoldilocksMeasurement(
        **{name: getattr(first, name) for name in _PLAIN if name not in ("rows_are", "typical_norm")},
        typical_norm=sum(member.typical_norm for member in members) / len(members),
        scales=first.scales,
        curves={name: torch.stack([member.mean(name) for member in members]) for name in first.curves},
        rows_are="members",
        flags=tuple(dict.fromkeys(flag for member in members for flag in member.flags)),
    )


def _point(
    network: Network,
    batch: Batch,
    basis: Tensor,
    surface: Surface,
    split: bool,
    parameters: Selection,
    route: AskedRoute,
    chance: torch.Generator,
    scale: float,
) -> tuple[dict[str, float], list[str]]:
    found = restricted_curvature(
        network, batch, basis, surface=surface, split=split, parameters=parameters, route=route
    )
    seen = positivity(found.matrix)
    signs = random_signs(found.matrix, chance)
    symmetric = random_symmetric(len(found.matrix), chance)
    values = {
        "kappa": seen.kappa,
        "positive_share": seen.positive_share,
        "loss": found.loss,
        "gradient_norm": found.gradient_norm,
        "trace": seen.trace,
        "norm": seen.norm,
        "flat_kappa": positivity(found.flat).kappa if surface == "sphere" else math.nan,
        "gauss_newton_ratio": found.gauss_newton_ratio,
        "signs_kappa": signs[0],
        "signs_positive_share": signs[1],
        "symmetric_kappa": symmetric[0],
        "symmetric_positive_share": symmetric[1],
    }
    flags = list(found.flags)
    if seen.flag:
        flags.append(f"at scale {scale:g} {seen.flag}")
    return values, flags


def _undefined(network: Network, batch: Batch, scaling: Scaling, scale: float) -> str | None:
    """The sentence for a scale at which loss or slope leave the finite numbers; None where they do not."""
    with torch.no_grad():
        loss = float(network.loss(network.params, batch))
    if math.isfinite(loss):
        with exact_derivatives(network.device):
            slope = gradient_at(lambda theta: network.loss(theta, batch), network.theta)
        if bool(slope.isfinite().all()):
            return None
    what = "weights" if scaling == "weights" else "outputs"
    precision = str(network.dtype).removeprefix("torch.")
    return f"with {what} times {scale:g} the loss or its slope is not finite in {precision}: left out"


def starts(network: Network, initialiser: InitialWeights, num_draws: int, seed: int) -> tuple[list[Tensor], list[str]]:
    """Flat starting weights, one for each draw, and what has to be said about them."""
    if initialiser == "own":
        return [network.start] * num_draws, []

    def draws(scheme: Scheme | Initialiser) -> list[Tensor]:
        return [draw_weights(network, scheme, seed=derive(seed, "draw", draw)) for draw in range(num_draws)]

    if initialiser is not None:
        return draws(initialiser), []
    if network.initial is not None:
        return [network.start] * num_draws, [
            "draws differ in their subspaces only: all lie on the starting weights' ray"
        ]
    try:
        return draws("reset"), []
    except BadInput as error:
        told = f"draws differ in their subspaces only, on the ray of the present weights: {error.got}"
        return [network.start] * num_draws, [told]


def _checked_scales(scales: Sequence[float] | None, scaling: Scaling) -> tuple[float, ...]:
    if scaling not in SCALINGS:
        raise BadInput("scaling", got=scaling, wanted=" or ".join(SCALINGS))
    if scales is None:
        return WEIGHT_SCALES if scaling == "weights" else TEMPERATURE_SCALES
    given = tuple(float(scale) for scale in scales)
    grows = all(low < high for low, high in pairwise(given))
    if not given or not grows or given[0] <= 0 or not math.isfinite(given[-1]):
        raise BadInput("scales", got=", ".join(f"{s:g}" for s in given) or "none", wanted="positive, growing numbers")
    return given


def _slug(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name.lower()).split())

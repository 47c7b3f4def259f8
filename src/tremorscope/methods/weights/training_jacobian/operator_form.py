"""The training Jacobian of networks too large for a matrix: chaotic end, volume and bulk, by products alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, band, line, points
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.executor import one_thread
from tremorscope.instruments.lanczos_quadrature import Density, Quadrature, lanczos_quadrature
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import LinearOperator
from tremorscope.instruments.partial_svd import PartialSingular, block_golub_kahan
from tremorscope.instruments.scores import scores
from tremorscope.instruments.subspace import Subspace
from tremorscope.instruments.tangents import TrainingMap
from tremorscope.instruments.trainer import Training, check_deterministic
from tremorscope.methods.weights.training_jacobian.dense import bound_recipe
from tremorscope.methods.weights.training_jacobian.input_span import low_variance_directions
from tremorscope.methods.weights.training_jacobian.operator_plan import OperatorPlan, plan_operator_form
from tremorscope.methods.weights.training_jacobian.regions import TOLERANCES

Say = Callable[[str], None]
EVERYWHERE, CHAOTIC, QUIET_INPUTS = "any direction", "chaotic triples", "low-variance inputs"
_DEFLATED = 1e-3  # relative residual up to which a triple is taken as known
_ROUNDING = 10  # eigenvalues of J^T J below so many epsilons of the largest are noise
_WIDTH = 0.05  # decades of sigma that each value is spread over in the density


class RegionEstimates(NamedTuple):
    """How many directions training stretches, carries over, and forgets, at one tolerance."""

    tolerance: float
    chaotic: Estimate
    bulk: Estimate
    stable: Estimate


@final
@dataclass(frozen=True, kw_only=True)
class OperatorFormMeasurement:
    """What products with one training Jacobian tell of it.

    `regions` count singular values with intervals over probes that hold for sharp edges: where few steps cannot
    tell on which side of an edge a value lies, the interval is wide. Weights known to be dead (`num_dead`,
    `sigma = 1` exactly) are not counted. `log_determinant` is `log |det J|` in nats, values below
    rounding taken at rounding: where a node of the quadrature lies there it is an upper bound, and flagged. `density`
    is per decade of sigma, 1 in all. `alignment[where]` is the mean of `||(J - I) v|| / ||v||` over random v there;
    that of `any direction` is the null of the others.
    """

    chaotic: PartialSingular
    log_determinant: Estimate
    num_below_rounding: Estimate
    regions: tuple[RegionEstimates, ...]
    density: Density
    alignment: Mapping[str, Estimate]
    scores: Mapping[str, float]
    num_dead: int
    plan: OperatorPlan
    seconds: float
    flags: tuple[str, ...] = ()

    def tables(self) -> list[Table]:
        """Regions, the chaotic end, alignment and volume, and the plan."""
        columns: dict[str, list[Any]] = {
            "tolerance": [region.tolerance for region in self.regions],
            "chaotic (above 1 + tol)": [region.chaotic for region in self.regions],
            "bulk (within tol of 1)": [region.bulk for region in self.regions],
            "stable (below 1 - tol)": [region.stable for region in self.regions],
        }
        regions = Table(
            name="operator_regions",
            title="Regions of the training Jacobian, counted by probing",
            caption=f"Of {self.plan.num_weights - self.num_dead:,} directions, with intervals over probes that hold "
            "for sharp edges. A wide interval means that the steps do not resolve the edge.",
            columns=columns,
        )
        triples = Table(
            name="chaotic_triples",
            title="Largest singular values of the training Jacobian",
            caption=f"{self.chaotic.method}, {self.chaotic.num_sweeps} sweeps. A true singular value lies within the "
            "error of each. The cosine is between where a direction starts and where training carries it.",
            columns={
                "singular value": self.chaotic.values.tolist(),
                "error": self.chaotic.errors.tolist(),
                "cosine of v and u": (self.chaotic.left.double() * self.chaotic.right.double()).sum(0).tolist(),
            },
        )
        rows: list[dict[str, object]] = [
            {"quantity": f"||(J - I) v|| / ||v||, {where}", "value": value} for where, value in self.alignment.items()
        ]
        rows.append({"quantity": "log |det J|, nats", "value": self.log_determinant})
        rows.append({"quantity": "singular values below rounding", "value": self.num_below_rounding})
        volume = Table.of_rows(
            rows,
            name="operator_alignment",
            title="Alignment and volume",
            caption="How far training carries a random nudge from where it was, and what it does to volumes. "
            f"'{EVERYWHERE}' is the null of the other rows.",
        )
        return [regions, triples, volume, self.plan.table()]

    def figures(self) -> list[Figure]:
        """Density of singular values, the chaotic end, and the bulk at each tolerance."""
        return [_density_figure(self.density), _chaotic_figure(self.chaotic), _bulk_figure(self.regions, self.chaotic)]


def alignment_probe(
    operator: LinearOperator,
    *,
    within: Subspace | None = None,
    num_probes: int = 32,
    seed: int,
    level: float = LEVEL,
) -> Estimate:
    """How far does training carry a random nudge from where it was? `||(J - I) v|| / ||v||`.

    Directions are uniform, everywhere or within the span of `within`. 0: nudges there arrive unchanged. Cost: one
    sweep of `num_probes` columns. The interval is Student's t over directions.

    >>> from tremorscope.instruments.operators import Identity
    >>> print(alignment_probe(3.0 * Identity(5), seed=0))
    2 [2, 2]

    Raises:
        BadInput: If the operator is not square, the span is of another space, or a product is not finite.
    """
    rows, columns = operator.shape
    if rows != columns or (within is not None and within.d != columns) or num_probes < 1:
        raise BadInput(
            "alignment probe",
            got=f"a {rows} x {columns} operator, {num_probes} probes"
            + ("" if within is None else f", a span in {within.d} dimensions"),
            wanted="a square operator, a span of its space, at least one probe",
        )
    drawn = torch.randn(
        columns if within is None else within.k, num_probes, generator=generator(seed, "alignment"), dtype=torch.float64
    )
    vectors = drawn if within is None else within.basis.double().cpu() @ drawn
    vectors = (vectors / vectors.norm(dim=0)).to(operator.device, operator.dtype)
    moved = operator.mm(vectors).double() - vectors.double()
    return Estimate.mean(moved.norm(dim=0).cpu().numpy(), level=level)


def measure_operator_form(
    subject: Network | Training,
    *,
    k: int = 20,
    max_blocks: int = 4,
    tol: float = 1e-3,
    num_probes: int = 8,
    num_steps: int = 40,
    num_directions: int = 32,
    tolerances: Sequence[float] = TOLERANCES,
    seed: int = 0,
    memory_limit: int | None = None,
    level: float = LEVEL,
    say: Say | None = None,
) -> OperatorFormMeasurement:
    """Where does training carry nudges of the first weights, when J is too large to be written down?

    The `k` largest singular triples come first (block Golub-Kahan, stopped after `max_blocks` whatever is
    reached: residuals are reported). Those that are good are left out of a Lanczos quadrature of `J^T J`, which
    gives counts of regions, `log |det J|` and the density. Last, random directions are pushed once.

    Args:
        subject: A network with a recipe, or a bound `Training`; any architecture.
        k: How many singular triples.
        max_blocks: Pairs of sweeps of `k + 8` columns for them, at most.
        tol: Residual, relative to the largest value, at which they stop earlier.
        num_probes: Probes of the quadrature.
        num_steps: Its Lanczos steps.
        num_directions: Of the alignment.
        tolerances: Half-widths of the bulk.
        seed: Names the streams of all random vectors.
        memory_limit: Bytes, beside what the process holds; three quarters of the machine's by default.
        level: Of all intervals.
        say: Is told the plan, with predicted sweeps, CPU time and memory, before anything starts; then each stage.

    Cost: as the plan says; one thread.

    Raises:
        BadInput: If there is no recipe, it does not repeat itself or diverges, or the memory limit cannot be kept.

    Source: Belrose and Scherlis 2024, arXiv:2412.07003, for the object; the operator form is ours.
    """
    network = subject.network if isinstance(subject, Training) else subject
    recipe = subject if isinstance(subject, Training) else bound_recipe(subject)
    tell = say or (lambda _: None)
    started, theta = time.process_time(), network.start
    k = min(k, theta.numel())
    with one_thread():
        last = check_deterministic(recipe, theta)
        plan = plan_operator_form(
            recipe,
            theta,
            k=k,
            max_blocks=max_blocks,
            num_probes=num_probes,
            num_steps=num_steps,
            num_directions=num_directions,
            memory_limit=memory_limit,
        )
        tell(plan.sentence())
        trained = TrainingMap(recipe, theta, route=plan.route, chunk=plan.chunk, memory=_state_memory(plan))
        tell("the largest singular triples")
        chaotic = block_golub_kahan(trained, k, tol=tol, max_blocks=max_blocks, seed=seed, allow_partial=True)
        tell(f"{num_steps} steps of quadrature")
        rules = lanczos_quadrature(
            trained.T @ trained,
            num_steps=num_steps,
            num_probes=num_probes,
            seed=seed,
            known=_known(chaotic),
            level=level,
        )
        tell("alignment")
        alignment, notes = _alignments(network, trained, chaotic, num_directions, seed, level)
    num_dead = len(trained.tangents.null_columns)
    if not isinstance(recipe, Training):
        notes += ("the memory plan does not count what the recipe's own step needs beside its state",)
    floor = _ROUNDING * torch.finfo(theta.dtype).eps * float(chaotic.values[0]) ** 2
    below = rules.count(-math.inf, floor)
    rounding = f"below the rounding of {theta.dtype} products, {floor**0.5:.1e}"
    if float(rules.nodes.min()) < floor:
        notes += (f"some singular values ({below}) lie {rounding}: log |det J| is an upper bound",)
    elif below.high >= 1:
        notes += (f"up to {below.high:.0f} singular values may lie {rounding}: more steps would tell",)
    return OperatorFormMeasurement(
        chaotic=chaotic,
        log_determinant=rules.mean(lambda x: x.clamp(min=floor).log()).scaled(len(theta) / 2),
        num_below_rounding=below,
        regions=tuple(_region(rules, tolerance, num_dead) for tolerance in tolerances),
        density=_density_of_values(rules, floor, float(chaotic.values[0])),
        alignment=alignment,
        scores=scores(network.at(last)) if network.task is not None else {},
        num_dead=num_dead,
        plan=plan,
        seconds=time.process_time() - started,
        flags=tuple(dict.fromkeys((*trained.flags, *chaotic.flags, *rules.flags, *notes))),
    )


def _state_memory(plan: OperatorPlan) -> int:
    """What makes `TrainingMap` keep all states, or the square root of them, as planned."""
    return plan.memory_limit if plan.keeps_all_states else 0


def _known(chaotic: PartialSingular) -> tuple[Subspace, Tensor] | None:
    """Right vectors and squared values of the triples that are good enough to be deflated."""
    good = chaotic.residuals.amax(0) <= _DEFLATED * chaotic.values
    if not bool(good.any()) or (bool(good.all()) and len(good) == len(chaotic.right)):
        return None
    basis = chaotic.right[:, good.to(chaotic.right.device)]
    return Subspace(basis=basis, offset=basis.new_zeros(len(basis))), chaotic.values[good].square()


def _alignments(
    network: Network, trained: TrainingMap, chaotic: PartialSingular, num_directions: int, seed: int, level: float
) -> tuple[dict[str, Estimate], tuple[str, ...]]:
    """Everywhere; within the chaotic span, which costs nothing, since `J V` is known; along quiet inputs."""
    found = {EVERYWHERE: alignment_probe(trained, num_probes=num_directions, seed=seed, level=level)}
    drawn = torch.randn(len(chaotic), num_directions, generator=generator(seed, "chaotic span"), dtype=torch.float64)
    left, right = chaotic.left.double().cpu(), chaotic.right.double().cpu()
    moved = left @ (chaotic.values[:, None] * drawn) - right @ drawn
    found[CHAOTIC] = Estimate.mean((moved.norm(dim=0) / drawn.norm(dim=0)).numpy(), level=level)
    try:
        basis = low_variance_directions(network, max(1, network.layout.size // 100))
    except BadInput as error:
        return found, (f"no null without a network: {error}",)
    quiet = Subspace(basis=basis, offset=basis.new_zeros(len(basis)))
    found[QUIET_INPUTS] = alignment_probe(trained, within=quiet, num_probes=num_directions, seed=seed, level=level)
    return found, ()


def _region(rules: Quadrature, tolerance: float, num_dead: int) -> RegionEstimates:
    lower, upper = (1 - tolerance) ** 2, (1 + tolerance) ** 2
    bulk = rules.count(lower, upper)
    live = replace(bulk, **{end: max(0.0, getattr(bulk, end) - num_dead) for end in ("value", "low", "high")})
    return RegionEstimates(tolerance, rules.count(upper, math.inf), live, rules.count(-math.inf, lower))


def _density_of_values(rules: Quadrature, floor: float, largest: float) -> Density:
    """From eigenvalues of `J^T J` to singular values: half a decade for every decade."""
    lowest = 0.5 * math.log10(floor) - 4 * _WIDTH
    grid = torch.logspace(lowest, math.log10(largest) + 5 * _WIDTH, 400, dtype=torch.float64)
    squared = rules.density(grid.square(), 2 * _WIDTH, log=True)
    return replace(
        squared, grid=grid, values=2 * squared.values, low=2 * squared.low, high=2 * squared.high, width=_WIDTH
    )


def _density_figure(density: Density) -> Figure:
    peak = float(density.grid[density.values.argmax()])
    return Figure(
        name="operator_density",
        title="Density of singular values",
        caption=f"Share of singular values per decade, each spread over {density.width:g} decades; the peak lies at "
        f"{peak:.3g}. The band is the interval over probes.",
        traces=[
            band(density.grid, density.low, density.high, "interval", colour=PALETTE[0]),
            line(density.grid, density.values, "density", colour=PALETTE[0]),
        ],
        x=Axis(title="singular value", log=True),
        y=Axis(title="share per decade"),
    )


def _chaotic_figure(chaotic: PartialSingular) -> Figure:
    order = range(1, len(chaotic) + 1)
    trace = points(order, chaotic.values, "singular values", colour=PALETTE[0])
    trace["error_y"] = {"type": "data", "array": chaotic.errors.tolist()}
    return Figure(
        name="operator_chaotic",
        title="Largest singular values of the training Jacobian",
        caption=f"The largest is {float(chaotic.values[0]):.4g}, number {len(chaotic)} is "
        f"{float(chaotic.values[-1]):.4g}; bars are errors from the residuals.",
        traces=[trace, line([1, len(chaotic)], [1, 1], "sigma = 1", colour=NULL_COLOUR, dash="dot")],
        x=Axis(title="rank"),
        y=Axis(title="singular value", log=True),
    )


def _bulk_figure(regions: Sequence[RegionEstimates], chaotic: PartialSingular) -> Figure:
    widest = max(regions, key=lambda region: region.tolerance)
    tolerances = [region.tolerance for region in regions]
    traces = []
    for number, name in enumerate(("bulk", "chaotic", "stable")):
        counts: list[Estimate] = [getattr(region, name) for region in regions]
        trace = line(tolerances, [count.value for count in counts], name, colour=PALETTE[number], markers=True)
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [count.high - count.value for count in counts],
            "arrayminus": [count.value - count.low for count in counts],
        }
        traces.append(trace)
    return Figure(
        name="operator_regions",
        title="How many directions training stretches, carries over and forgets",
        caption=f"Within {widest.tolerance:g} of 1 lie {widest.bulk} of {len(chaotic.right):,} singular values. Bars "
        "are intervals for sharp edges: wide where the steps do not resolve the edge.",
        traces=traces,
        x=Axis(title="tolerance around 1", log=True),
        y=Axis(title="number of directions"),
    )

"""Does the Jacobian foretell real retraining? Nudges of every size, and runs confined to its subspaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, line
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.executor import one_thread
from tremorscope.instruments.network import Network
from tremorscope.instruments.recipe import run_recipe
from tremorscope.instruments.subspace_training import train_inside
from tremorscope.instruments.trainer import Training
from tremorscope.methods.weights.training_jacobian.dense import bound_recipe
from tremorscope.methods.weights.training_jacobian.regions import LiveSpectrum
from tremorscope.methods.weights.training_jacobian.symmetry import output_shift_directions

SIZES = tuple(float(size) for size in numpy.logspace(-3, 3, 30))
SMALLEST_SPAN = 1 / 48  # of the live directions: the published experiment starts at 100 of 4,810
BULK_FIRST, COMPLEMENT, TOP, BOTTOM, RANDOM = "bulk first", "complement of the bulk", "top", "bottom", "random"
Progress = Callable[[int, int], None]


@final
@dataclass(frozen=True, kw_only=True)
class NudgedRuns:
    """Runs from nudged starts, along one unit direction.

    `along[i]` is the displacement of the last weights along the predicted direction (the left singular vector,
    or `J v / |J v|`), `across[i]` the norm of the rest; linear theory says `gain * size` and 0.
    """

    name: str
    gain: float
    sizes: Float[Tensor, " sizes"]
    along: Float[Tensor, " sizes"]
    across: Float[Tensor, " sizes"]
    loss: Float[Tensor, " sizes"]

    def to_arrays(self) -> dict[str, Tensor]:
        """The curves, to keep."""
        return {"sizes": self.sizes, "along": self.along, "across": self.across, "loss": self.loss}

    def linear_until(self, tolerance: float = 0.1) -> float:
        """Largest size up to which the whole response stays within a share of the linear prediction; 0 if none."""
        error = ((self.along - self.gain * self.sizes).square() + self.across.square()).sqrt()
        good = error <= tolerance * self.gain * self.sizes
        count = int(good.long().cumprod(0).sum())
        return float(self.sizes[count - 1]) if count else 0.0


@final
@dataclass(frozen=True, kw_only=True)
class RetrainingMeasurement:
    """What became of one member's nudged runs, and of its runs confined to spans.

    `inside[order][i]` is the held-out loss after training inside the first `dimensions[i]` directions of an
    order. Either part may be empty.
    """

    nudges: tuple[NudgedRuns, ...]
    dimensions: tuple[int, ...]
    inside: Mapping[str, Float[Tensor, " dimensions"]]

    def to_arrays(self) -> dict[str, Tensor]:
        """Tensors to keep; the rest is `to_plain`."""
        arrays = {f"inside.{name}": losses for name, losses in self.inside.items()}
        for nudge in self.nudges:
            arrays |= {f"{nudge.name}.{part}": curve for part, curve in nudge.to_arrays().items()}
        return arrays

    def to_plain(self) -> dict[str, Any]:
        """Numbers to keep beside the tensors, as JSON."""
        gains = {nudge.name: nudge.gain for nudge in self.nudges}
        return {"gains": gains, "dimensions": list(self.dimensions), "orders": list(self.inside)}

    @classmethod
    def of(cls, plain: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> RetrainingMeasurement:
        """The inverse of `to_plain` and `to_arrays`."""
        parts = ("sizes", "along", "across", "loss")
        return cls(
            nudges=tuple(
                NudgedRuns(name=name, gain=gain, **{part: arrays[f"{name}.{part}"] for part in parts})
                for name, gain in plain["gains"].items()
            ),
            dimensions=tuple(plain["dimensions"]),
            inside={name: arrays[f"inside.{name}"] for name in plain["orders"]},
        )


def measure_retraining(
    network: Network,
    spectrum: LiveSpectrum,
    *,
    num_nudges: int,
    num_spans: int,
    seed: int,
    progress: Progress | None = None,
) -> RetrainingMeasurement:
    """Both published experiments: nudges of `num_nudges` sizes, and `num_spans` dimensions of each order.

    Cost: `3 num_nudges + 5 num_spans` runs.

    Raises:
        BadInput: If the network has no `Trainer` as its recipe.
    """
    num_live = len(spectrum.values)
    total, started = 3 * num_nudges + 5 * num_spans, [0]

    def tell(done: int, _: int) -> None:
        if progress is not None:
            progress(started[0] + done, total)

    with one_thread():  # so that no bit depends on the number of cores
        nudges = retrain_from_nudges(
            network,
            characteristic_directions(spectrum, output_shift_directions(network), seed=seed) if num_nudges else {},
            sizes=[float(size) for size in numpy.logspace(-3, 3, num_nudges)],
            progress=tell,
        )
        started[0] = 3 * num_nudges
        dimensions = [round(k) for k in numpy.linspace(max(1.0, SMALLEST_SPAN * num_live), num_live, num_spans)]
        inside = retrain_inside(network, spectrum, dimensions, seed=seed, progress=tell) if num_spans else {}
    return RetrainingMeasurement(nudges=tuple(nudges), dimensions=tuple(dimensions), inside=inside)


def retrain_from_nudges(
    network: Network,
    directions: Mapping[str, tuple[Float[Tensor, " params"], Float[Tensor, " params"]]],
    *,
    sizes: Sequence[float] = SIZES,
    progress: Progress | None = None,
) -> list[NudgedRuns]:
    """Retrain from `theta_0 + size v` and see where it ends, for each direction `v` with its image `J v`.

    Cost: one run per direction and size, and one more.

    Raises:
        BadInput: If the network has no recipe, or a direction is zero.

    Source: experiments.ipynb of arXiv:2412.07003 (sizes 10^-3 to 10^3 along v_0 and v_2000).
    """
    recipe, start = bound_recipe(network), network.start
    plain = run_recipe(recipe, start).double()
    found, done, total = [], 0, len(directions) * len(sizes)
    for name, (direction, image) in directions.items():
        gain = float(image.double().norm())
        if not gain > 0:
            raise BadInput(f"image of direction {name!r}", got="zero", wanted="a direction that training carries over")
        towards = image.double() / gain
        along, across, losses = [], [], []
        for size in sizes:
            last = run_recipe(recipe, start + size * direction.to(start))
            moved = last.double() - plain
            along.append(float(moved @ towards))
            across.append(float((moved - (moved @ towards) * towards).norm()))
            losses.append(_loss(network.at(last)))
            done += 1
            if progress is not None:
                progress(done, total)
        found.append(
            NudgedRuns(
                name=name,
                gain=gain,
                sizes=torch.tensor(sizes, dtype=torch.float64),
                along=torch.tensor(along, dtype=torch.float64),
                across=torch.tensor(across, dtype=torch.float64),
                loss=torch.tensor(losses, dtype=torch.float64),
            )
        )
    return found


def retrain_inside(
    network: Network,
    spectrum: LiveSpectrum,
    dimensions: Sequence[int],
    *,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, Float[Tensor, " dimensions"]]:
    """Held-out loss after training inside spans of initial directions, by the order in which they are taken.

    The orders: nearest to 1 first, farthest from 1 first, largest first, smallest first, and (the null) random
    directions of the live weights.

    Cost: five runs for each dimension, each with two products by its basis a step.

    Raises:
        BadInput: If the recipe is no `Trainer`, or a dimension is not between 1 and the live ones.
    """
    training = bound_recipe(network)
    if not isinstance(training, Training):
        raise BadInput("recipe to confine", got="pure functions", wanted="a Trainer")
    num_live = len(spectrum.values)
    outside = [k for k in dimensions if not 1 <= k <= num_live]
    if outside:
        raise BadInput("dimension to train inside", got=outside[0], wanted=f"1 to {num_live}")
    central = spectrum.central(num_live)
    everything = torch.arange(num_live)
    orders = {BULK_FIRST: central, COMPLEMENT: central.flip(0), TOP: everything, BOTTOM: everything.flip(0)}
    start = network.start
    found: dict[str, list[float]] = {name: [] for name in (*orders, RANDOM)}
    done, total = 0, len(found) * len(dimensions)
    for k in dimensions:
        bases = {name: spectrum.initial_directions(order[:k]) for name, order in orders.items()}
        drawn = torch.randn(num_live, k, generator=generator(seed, "random span", k), dtype=torch.float64)
        bases[RANDOM] = torch.zeros(spectrum.num_params, k, dtype=torch.float64)
        bases[RANDOM][spectrum.live] = torch.linalg.qr(drawn).Q
        for name, basis in bases.items():
            found[name].append(_loss(network.at(train_inside(training, start, basis))))
            done += 1
            if progress is not None:
                progress(done, total)
    return {name: torch.tensor(losses, dtype=torch.float64) for name, losses in found.items()}


def characteristic_directions(
    spectrum: LiveSpectrum, symmetry: Float[Tensor, "params s"], *, seed: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """The most amplified direction, the most central one, and a random live one (the null), each with its image.

    The most central one is taken outside a symmetry of the loss: along such a direction every run is carried over
    exactly, which tells of no training.
    """
    drawn = torch.randn(len(spectrum.values), generator=generator(seed, "random nudge"), dtype=torch.float64)
    live = {
        "the most amplified direction": spectrum.right[:, 0],
        "the centre of the bulk": _central_outside(spectrum, symmetry[spectrum.live].double()),
        "a random direction": drawn / drawn.norm(),
    }
    found = {}
    for name, direction in live.items():
        image = spectrum.left @ (spectrum.values * (spectrum.right.T @ direction))
        found[name] = (spectrum.embedded(direction), spectrum.embedded(image))
    return found


def _central_outside(spectrum: LiveSpectrum, symmetry: Tensor) -> Tensor:
    """The most central direction that lies mostly outside a symmetry, without its part inside."""
    for index in spectrum.central(len(spectrum.values)).tolist():
        direction = spectrum.right[:, index]
        outside = direction - symmetry @ (symmetry.T @ direction)
        if float(outside.square().sum()) > 0.5:
            unit: Tensor = outside / outside.norm()
            return unit
    raise BadInput("central direction", got="a symmetry that holds all of them", wanted="a direction outside it")


def nudge_figures(runs: Sequence[NudgedRuns]) -> list[Figure]:
    """Response along and across the prediction, and held-out loss, against the size of the nudge."""
    response, losses = [], []
    for place, run in enumerate(runs):
        colour = PALETTE[place]
        shown = run.sizes.numpy()
        response += [
            line(shown, run.along.abs(), f"{run.name}: along", colour=colour, markers=True),
            line(shown, run.across.clamp_min(1e-12), f"{run.name}: across", colour=colour, dash="dot"),
            line(
                shown, run.gain * run.sizes, f"{run.name}: predicted", colour=NULL_COLOUR, dash="dash", showlegend=False
            ),
        ]
        losses.append(line(shown, run.loss, run.name, colour=colour, markers=True))
    reach = ", ".join(f"{run.linear_until():.2g} along {run.name}" for run in runs)
    size = Axis(title="size of the nudge of the initial weights", log=True)
    return [
        Figure(
            name="nudges",
            title="Retraining from nudged starts",
            caption="Displacement of the last weights along the direction that the Jacobian foretells (solid), across "
            f"it (dotted), and the linear prediction (grey). It holds within 10 % up to sizes of {reach}.",
            traces=response,
            x=size,
            y=Axis(title="displacement of the last weights", log=True),
        ),
        Figure(
            name="nudge_losses",
            title="Held-out loss after retraining from nudged starts",
            caption="How large a nudge of the initial weights may be before training no longer repairs it, along each "
            "direction.",
            traces=losses,
            x=size,
            y=Axis(title="held-out loss, nats", log=True),
        ),
    ]


def inside_figure(dimensions: Sequence[int], losses: Mapping[str, Sequence[Tensor]]) -> Figure:
    """Held-out loss after training inside `k` directions, one curve per order, mean over members."""
    traces = [
        line(
            list(dimensions),
            torch.stack(list(members)).mean(0),
            name,
            colour=NULL_COLOUR if name == RANDOM else PALETTE[place],
            dash="dash" if name == RANDOM else None,
            markers=True,
        )
        for place, (name, members) in enumerate(losses.items())
    ]
    return Figure(
        name="inside",
        title="Training confined to some of the initial directions",
        caption="Held-out loss when training may move only inside that many initial directions, by the order in which "
        "they are taken; grey: random directions of the live weights. An order that stays above the grey curve holds "
        "directions that training needs less than chance would have it.",
        traces=traces,
        x=Axis(title="dimension of the subspace"),
        y=Axis(title="held-out loss, nats", log=True),
    )


def retraining_tables(members: Sequence[RetrainingMeasurement]) -> list[Table]:
    """How far the linear prediction reaches, and held-out losses inside spans, over members."""
    tables = []
    if members and members[0].nudges:
        kinds = range(len(members[0].nudges))
        gains = [Estimate.geometric_mean([m.nudges[kind].gain for m in members]) for kind in kinds]
        reaches = [_geometric_mean([m.nudges[kind].linear_until() for m in members]) for kind in kinds]
        columns: dict[str, list[Any]] = {
            "direction": [members[0].nudges[kind].name for kind in kinds],
            "gain": gains,
            "linear within 10 % up to a size of": reaches,
        }
        tables.append(
            Table(
                name="nudges",
                title="How far the linear prediction of retraining reaches",
                caption="Largest nudge of the initial weights whose whole effect on the last weights stays within 10 % "
                "of the Jacobian's prediction, geometric mean over members; the random direction is the null.",
                columns=columns,
            )
        )
    if members and members[0].dimensions:
        rows = [
            {"dimension": k}
            | {name: Estimate.mean([float(m.inside[name][place]) for m in members]) for name in members[0].inside}
            for place, k in enumerate(members[0].dimensions)
        ]
        tables.append(
            Table.of_rows(
                rows,
                name="inside",
                title="Held-out loss after training inside a subspace",
                caption="Nats, mean over members, by dimension and by the order in which initial directions are taken; "
                "random directions of the live weights are the null.",
            )
        )
    return tables


def retraining_figures(members: Sequence[RetrainingMeasurement]) -> list[Figure]:
    """Nudges of the first member, and losses inside spans, mean over members."""
    figures: list[Figure] = []
    if members and members[0].nudges:
        figures += nudge_figures(members[0].nudges)
    if members and members[0].dimensions:
        losses = {name: [member.inside[name] for member in members] for name in members[0].inside}
        figures.append(inside_figure(members[0].dimensions, losses))
    return figures


def _geometric_mean(values: Sequence[float]) -> Estimate | None:
    """None where some member has no linear range at all."""
    return Estimate.geometric_mean(values) if min(values) > 0 else None


def _loss(network: Network) -> float:
    task = network.required_task()
    batch = task.train_batch() if task.test_inputs is None else task.test_batch()
    with torch.no_grad():
        return float(network.loss(network.params, batch))

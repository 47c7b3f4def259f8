"""The training Jacobian of one network, beside twins trained on shuffled labels and on matched Gaussian inputs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import final

from tremorscope.examine.large_jacobian import NUM_COLUMNS, LargeJacobianExamination, examine_large_jacobian
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.figures import Figure
from tremorscope.foundations.results import Table
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import matched_covariance, permuted_targets
from tremorscope.instruments.task import Task
from tremorscope.methods.weights.training_jacobian import (
    TrainingJacobianMeasurement,
    estimated_seconds,
    fits_in_memory,
    measure_training_jacobian,
    training_jacobian,
)
from tremorscope.methods.weights.training_jacobian.figures import (
    alignment_figure,
    distance_figure,
    divergence_figure,
    drift_figure,
    spectrum_figure,
)

OWN = "this network"
_STEPS = {"training": "bulk step, training inputs (nats)", "normal": "bulk step, normal noise (nats)"}
NULLS: Mapping[str, Callable[[Task, int], Task]] = {
    "twin on shuffled labels": permuted_targets,
    "twin on matched Gaussian inputs, random labels": matched_covariance,
}


@final
@dataclass(frozen=True, kw_only=True)
class JacobianExamination:
    """One measurement for the network and one for each null, all from the same initial weights."""

    measured: Mapping[str, TrainingJacobianMeasurement]
    flags: tuple[str, ...] = field(default=())

    def sentence(self) -> str:
        """What a reader wants first."""
        own = self.measured[OWN]
        size = own.regions[1]
        regions = (
            f"Training amplifies {size.chaotic:,} of {own.num_live:,} live directions of the initial weights, carries "
            f"{size.bulk:,} over within 1 % and forgets {size.stable:,}."
        )
        if not own.divergence:
            return regions
        return regions + (
            " A unit step along the centre of what it carries over moves the worst-hit training prediction by "
            f"{own.step('training'):.2g} nats and the worst-hit prediction on normal noise by "
            f"{own.step('normal'):.2g} (medians over directions)."
        )

    def tables(self) -> list[Table]:
        """The regions of the network, and every number beside its nulls."""
        columns: dict[str, dict[str, float]] = {}
        for name, one in self.measured.items():
            columns[name] = {
                "largest singular value": float(one.values[0]),
                "share within 0.1 of 1": one.share(within=0.1),
                "share within 0.01 of 1": one.share(within=0.01),
                "alignment in the bulk": one.bulk_alignment,
                "alignment of the last 6.5 %": one.tail_alignment,
                **{label: one.step(kind) for kind, label in _STEPS.items() if kind in one.divergence},
                "drift inside the bulk": one.bulk_drift_share,
            }
        null = self.measured[OWN].input_null
        if null is not None:
            columns["the inputs alone, no network"] = {
                **{label: null.step(kind) for kind, label in _STEPS.items() if kind in null.divergence},
                "drift inside the bulk": null.drift_share,
            }
        rows = [
            {"measured": label} | {name: column.get(label) for name, column in columns.items()}
            for label in columns[OWN]
        ]
        return [
            *self.measured[OWN].tables(),
            Table.of_rows(
                rows,
                name="training_jacobian",
                title="Training Jacobian beside its nulls",
                caption="What the network shares with its nulls tells of the inputs and of fitting as such; the rest "
                "tells of what it learnt. One run each, so no intervals: the study training-jacobian has them.",
            ),
        ]

    def figures(self) -> list[Figure]:
        """Spectrum, distance from one, alignment, unit steps, drift."""
        own = self.measured[OWN]
        groups = {name: [one] for name, one in self.measured.items()}
        return [
            spectrum_figure({OWN: [own]}),
            distance_figure(groups),
            *([divergence_figure(own)] if own.divergence else []),
            alignment_figure({OWN: [own]}),
            drift_figure(own),
        ]


def examine_jacobian(
    network: Network, *, seconds: float, seed: int, run: Run | None = None
) -> JacobianExamination | LargeJacobianExamination:
    """The training Jacobian of a network with a recipe, and of its twins: whole, or by products where it is large.

    Blocks of columns are kept in the run, so that a killed examination goes on where it was.

    Raises:
        BadInput: If either way would take longer than `seconds` for one Jacobian, by an estimate from shapes;
            or the recipe cannot be differentiated.
    """
    needed, by_products = estimated_seconds(network), estimated_seconds(network, NUM_COLUMNS)
    if min(needed, by_products) > seconds:
        raise BadInput(
            f"training Jacobian of {network.layout.size:,} weights",
            got=f"about {needed:,.0f} CPU-seconds for the matrix, {by_products:,.0f} for its main parts by products",
            wanted=f"at most {seconds:,.0f} at this preset",
            remedy="Use a larger preset, or training_jacobian() and measure_operator_form() from Python.",
        )
    if needed > seconds or not fits_in_memory(network):
        return examine_large_jacobian(network, seed=seed, run=run)
    measured, flags = {}, list[str]()
    task = network.required_task()
    for place, name in enumerate((OWN, *NULLS)):
        try:
            subject = network if name == OWN else network.with_task(NULLS[name](task, derive(seed, name)))
            if subject.recipe is None:
                flags.append(f"no {name}: a recipe of pure functions cannot be moved to other data")
                continue
            label = f"training Jacobian, {name}"
            jacobian = training_jacobian(
                subject,
                folder=None if run is None else run.blocks(f"jacobian-{place}"),
                progress=None if run is None else partial(run.progress, label),
            )
            one = measure_training_jacobian(subject, jacobian, seed=derive(seed, "probes"))
        except BadInput as error:
            if name == OWN:
                raise
            flags.append(f"no {name}: {error}")  # a twin that diverges, or inputs that are no real numbers
            continue
        if run is not None:
            run.save_arrays(f"training-jacobian-{place}", one.to_arrays())
        measured[name] = one
    if run is not None:  # all is measured: the columns were only kept against a kill
        for place in range(1 + len(NULLS)):
            shutil.rmtree(run.blocks(f"jacobian-{place}"), ignore_errors=True)
    holders: dict[str, list[str]] = {}
    for name, one in measured.items():
        for flag in one.flags:
            holders.setdefault(flag, []).append(name)
    flags += [
        f"training Jacobian: {flag}" + ("" if len(names) == len(measured) else f" ({', '.join(names)})")
        for flag, names in holders.items()
    ]
    return JacobianExamination(measured=measured, flags=tuple(flags))

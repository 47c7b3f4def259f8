"""The training Jacobian of a network too large for a matrix, by products, beside a twin on shuffled labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import final

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import Figure
from tremorscope.foundations.results import Table
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import permuted_targets
from tremorscope.instruments.partial_svd import OVERSAMPLE
from tremorscope.methods.weights.training_jacobian import OperatorFormMeasurement, measure_operator_form

OWN, TWIN = "this network", "twin on shuffled labels"
MEMORY = 2 * 2**30
"""Bytes that an examination of a large network may use beside what the process holds."""

_TRIPLES, _BLOCKS, _PROBES, _STEPS, _DIRECTIONS = 6, 3, 4, 8, 8
NUM_COLUMNS = 2 * (_BLOCKS * (_TRIPLES + OVERSAMPLE) + _TRIPLES + _PROBES * _STEPS + _DIRECTIONS)
"""Columns that one operator form sends through training, there and back."""


@final
@dataclass(frozen=True, kw_only=True)
class LargeJacobianExamination:
    """One measurement by products for the network, and one for its twin, from the same initial weights."""

    measured: Mapping[str, OperatorFormMeasurement]
    flags: tuple[str, ...] = field(default=())

    def sentence(self) -> str:
        """What a reader wants first."""
        own = self.measured[OWN]
        widest = max(own.regions, key=lambda region: region.tolerance)
        return (
            f"Training amplifies its most sensitive direction {float(own.chaotic.values[0]):.3g} times, and carries "
            f"{widest.bulk} of {own.plan.num_weights - own.num_dead:,} directions over within "
            f"{100 * widest.tolerance:.0f} % (by products, no matrix)."
        )

    def tables(self) -> list[Table]:
        """All of the network's, and the main numbers beside the twin's."""
        columns = {name: _numbers(one) for name, one in self.measured.items()}
        rows = [
            {"measured": label} | {name: column.get(label) for name, column in columns.items()}
            for label in columns[OWN]
        ]
        beside = Table.of_rows(
            rows,
            name="large_training_jacobian",
            title="Training Jacobian by products, beside its null",
            caption="What the network shares with its twin tells of the inputs and of fitting as such. Intervals are "
            "over probes of this one run.",
        )
        return [*self.measured[OWN].tables(), beside]

    def figures(self) -> list[Figure]:
        """Of the network: density, chaotic end, regions."""
        return self.measured[OWN].figures()


def examine_large_jacobian(network: Network, *, seed: int, run: Run | None = None) -> LargeJacobianExamination:
    """The training Jacobian by products, of a network with a recipe and of its twin, within `MEMORY` bytes.

    Raises:
        BadInput: If the recipe cannot be differentiated, or the memory does not suffice.
    """
    task = network.required_task()
    measured, flags = {}, list[str]()
    for name in (OWN, TWIN):
        say = None if run is None else partial(_say, run, name)
        try:
            subject = network if name == OWN else network.with_task(permuted_targets(task, derive(seed, name)))
            if subject.recipe is None:
                flags.append(f"no {name}: a recipe of pure functions cannot be moved to other data")
                continue
            measured[name] = measure_operator_form(
                subject,
                k=_TRIPLES,
                max_blocks=_BLOCKS,
                num_probes=_PROBES,
                num_steps=_STEPS,
                num_directions=_DIRECTIONS,
                seed=derive(seed, "probes"),
                memory_limit=MEMORY,
                say=say,
            )
        except BadInput as error:
            if name == OWN:
                raise
            flags.append(f"no {name}: {error}")
    flags += [f"training Jacobian: {flag} ({name})" for name, one in measured.items() for flag in one.flags]
    return LargeJacobianExamination(measured=measured, flags=tuple(flags))


def _say(run: Run, name: str, text: str) -> None:
    run.say(f"Training Jacobian, {name}: {text}")


def _numbers(one: OperatorFormMeasurement) -> dict[str, float | Estimate]:
    return {
        "largest singular value": float(one.chaotic.values[0]),
        "error of the largest": float(one.chaotic.errors[0]),
        "log |det J|, nats": one.log_determinant,
        **{f"directions within {region.tolerance:g} of 1": region.bulk for region in one.regions},
        **{f"||(J - I) v|| / ||v||, {where}": value for where, value in one.alignment.items()},
        **one.scores,
    }

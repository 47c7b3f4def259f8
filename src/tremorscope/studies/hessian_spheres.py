"""Sphere searches and the mid-training monitor, as rows of the study of Hessian modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, final

import torch

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import Figure
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.modular_addition import modular_addition_mlp
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Hessian
from tremorscope.instruments.optimisers import adam, adamw, sgd
from tremorscope.instruments.pattern_digits import (
    BATCH_SIZE,
    KINDS,
    PatternDigits,
    Phase,
    pattern_cnn,
    train_in_phases,
)
from tremorscope.instruments.spectrum import eigsh
from tremorscope.instruments.subspace import Subspace
from tremorscope.instruments.task import Batch, digits
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.hessian_modules.frequencies import FrequencyChange
from tremorscope.methods.weights.hessian_modules.monitor import GeneralisationMonitor, monitor_generalisations
from tremorscope.methods.weights.hessian_modules.sphere_presentation import (
    frequency_figure,
    monitor_figure,
    monitor_table,
    sphere_figure,
    sphere_table,
)
from tremorscope.methods.weights.hessian_modules.sphere_search import SphereSearch, sphere_search

STUDY = "hessian-modules"
PAPER = "Vaintrob and Panickssery 2023, nrimsky/mlexperiments"
SPHERE_ROWS = ("M8a", "M8b", "M8c", "M8d", "M9", "M9a", "M13", "M13a")

RADII = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
NUM_DIRECTIONS = 35
UNSUPERVISED, SEMI_SUPERVISED, FREE, RANDOM = "mixed", "patterns", "no springs", "a random span"

ADDITION_RADII = (15.0, 25.0, 30.0, 35.0, 40.0)
FIRST_RANK, LAST_RANK = 21, 35
EIGENVECTORS = "eigenvectors"

NEW, NOTHING_NEW, NO_CHANGE = "patterns that tell the class", "patterns that tell nothing", "no patterns"
EVERY = 19  # steps between checkpoints, one epoch of 1,198 digits
WATCHED = 100  # examples of the loss that is watched
ONSET = 0.3  # accuracy on pure patterns: three times chance


def sphere_member(
    network: Network, data: PatternDigits, *, num_epochs: int, seed: int, radii: Sequence[float] = RADII
) -> dict[str, Any]:
    """Sphere searches around one trained network: unsupervised, semi-supervised, and both nulls.

    Spans are of validation images, readings on test images. Cost: 5 searches of `num_epochs` epochs for
    each radius.
    """
    sets: dict[str, Batch] = {kind: data.batch(kind, "test") for kind in KINDS}
    spans = {
        kind: eigsh(Hessian(network, data.batch(kind, "validation")), NUM_DIRECTIONS, tol=1e-3).vectors
        for kind in KINDS
    }
    random = Subspace.random(network.layout.size, NUM_DIRECTIONS, generator(seed, "random span"), dtype=network.dtype)
    epoch = -(-data.num_train // BATCH_SIZE)
    trainer = Trainer(
        optimiser=sgd(0.005),
        num_steps=num_epochs * epoch,
        batch_size=BATCH_SIZE,
        schedule=lambda t: 0.8 ** (10 / num_epochs * (t // epoch)),
        order="reshuffled",
        seed=derive(seed, "batches"),
    )
    plans = {
        UNSUPERVISED: (spans["mixed"], 15.0, 1.0),
        "digits": (spans["digits"], 15.0, 1.0),
        SEMI_SUPERVISED: (spans["patterns"], 15.0, 1.0),
        FREE: (spans["mixed"], 0.0, 0.0),
        RANDOM: (random.basis, 15.0, 1.0),
    }
    found = {}
    for name, (basis, radial, outside) in plans.items():
        found[name] = sphere_search(
            network,
            Subspace(basis=basis, offset=torch.zeros_like(network.theta)),
            radii,
            trainer=trainer,
            strength_radius=radial,
            strength_outside=outside,
            sets=sets,
            seed=derive(seed, "starts"),
        ).to_plain()
    return {"searches": found}


def addition_member(*, train_steps: int, num_steps: int, seed: int) -> dict[str, Any]:
    """One network that adds mod 37, and sphere searches around it in eigenvectors 21 to 35 and in a random span."""
    start = modular_addition_mlp(37, width=14, hidden=32, seed=seed)
    schedule = _falling
    first = Trainer(
        optimiser=adam(0.01), num_steps=train_steps, schedule=schedule, penalty=lambda theta: 0.005 * theta.norm()
    )
    network = start.at(first.fit(start).last)
    task = network.required_task()
    spectrum = eigsh(Hessian(network, task.train_batch()), LAST_RANK, tol=1e-3)
    chosen = slice(FIRST_RANK - 1, LAST_RANK)
    basis, curvatures = spectrum.vectors[:, chosen], spectrum.values[chosen]
    random = Subspace.random(len(basis), basis.shape[1], generator(seed, "random span"), dtype=basis.dtype)
    searches, changes = {}, {}
    for name, span, subtracted in ((EIGENVECTORS, basis, curvatures), (RANDOM, random.basis, None)):
        search = sphere_search(
            network,
            Subspace(basis=span, offset=torch.zeros_like(network.theta)),
            ADDITION_RADII,
            trainer=Trainer(optimiser=adamw(0.01, weight_decay=0.0), num_steps=num_steps, schedule=schedule),
            strength_radius=20.0,
            strength_outside=0.5,
            curvatures=subtracted,
            weight_norm=0.001,
            warm_start=True,
            sets={"training": task.train_batch(), "held-out": task.test_batch()},
            seed=derive(seed, "starts"),
        )
        searches[name] = search.to_plain()
        changes[name] = asdict(FrequencyChange.of_search(network, search))
    return {"searches": searches, "changes": changes}


def monitor_member(*, num_epochs: int, seed: int) -> dict[str, Any]:
    """The monitor on three trainings of one start: new patterns that help, that tell nothing, and none at all.

    Digits alone for `num_epochs`, then patterns over them at opacity 0.8 for as many.
    """
    data = PatternDigits.of(digits(num_test=360), seed=seed)
    cells = data.patterns.shape[2:]
    # All patterns for every class: the images change as they do with real ones, and say nothing of the class.
    unrelated = replace(data, patterns=data.patterns.reshape(1, -1, *cells).expand(len(data.patterns), -1, -1, -1))
    trainings = {NEW: (data, 0.8), NOTHING_NEW: (unrelated, 0.8), NO_CHANGE: (data, 0.0)}
    found, changed = {}, 0
    for name, (seen, opacity) in trainings.items():
        phases = [
            Phase(opacity=shown, num_epochs=num_epochs, lr=0.01, decay=0.9, pure_patterns=0.0)
            for shown in (0.0, opacity)
        ]
        network = pattern_cnn(seen, seed=seed)
        run = train_in_phases(network, seen, phases, keep_every=EVERY)
        mixed = seen.batch("mixed", "validation")
        watched = Batch((mixed.args[0][:WATCHED],), {}, None if mixed.target is None else mixed.target[:WATCHED])
        sets: dict[str, Batch] = {kind: seen.batch(kind, "validation") for kind in KINDS}
        found[name] = monitor_generalisations(network, run.snapshots, watched, sets=sets).to_plain()
        changed = run.starts[1]
    return {"monitors": found, "changed": changed}


@final
@dataclass(frozen=True, kw_only=True)
class SphereRows:
    """What the members found, by part; each part may be empty."""

    spheres: tuple[Mapping[str, SphereSearch], ...] = ()
    additions: tuple[Mapping[str, SphereSearch], ...] = ()
    changes: tuple[Mapping[str, FrequencyChange], ...] = ()
    monitors: tuple[Mapping[str, GeneralisationMonitor], ...] = ()
    changed: int | None = None  # step at which patterns appear

    @classmethod
    def of(
        cls,
        spheres: Sequence[Mapping[str, Any]],
        additions: Sequence[Mapping[str, Any]],
        monitors: Sequence[Mapping[str, Any]],
    ) -> SphereRows:
        """From the plain results of `sphere_member`, `addition_member` and `monitor_member`."""
        return cls(
            spheres=tuple(_each(member["searches"], SphereSearch.of) for member in spheres),
            additions=tuple(_each(member["searches"], SphereSearch.of) for member in additions),
            changes=tuple(_each(member["changes"], FrequencyChange.of) for member in additions),
            monitors=tuple(_each(member["monitors"], GeneralisationMonitor.of) for member in monitors),
            changed=monitors[0]["changed"] if monitors else None,
        )

    def claims(self, *, preset: str, scope: str) -> list[Claim]:
        """The rows that were measured, judged over the members."""

        def claim(
            row: str, statement: str, expected: Expected, values: list[float], nulls: list[NullEvidence]
        ) -> Claim:
            return Claim(
                study=STUDY,
                row=row,
                preset=preset,
                statement=statement,
                source=PAPER,
                scope=scope,
                expected=expected,
                measured=Estimate.mean(values),
                nulls=tuple(nulls),
            )

        return [
            *([] if not self.spheres else self._sphere_claims(claim)),
            *([] if not self.changes else self._frequency_claims(claim)),
            *([] if not self.monitors else self._monitor_claims(claim)),
        ]

    def tables(self) -> list[Table]:
        """Every radius of every search, and every flag."""
        found = []
        if self.spheres:
            found.append(sphere_table(self.spheres, name="spheres", title="Sphere searches on digits under patterns"))
        if self.additions:
            found.append(
                sphere_table(self.additions, name="addition_spheres", title="Sphere searches on addition mod 37")
            )
        if self.monitors:
            found.append(monitor_table(self.monitors, [_onset(member) for member in self.monitors]))
        return found

    def figures(self) -> list[Figure]:
        """Those of the first member."""
        found = []
        if self.spheres:
            found.append(
                sphere_figure(
                    self.spheres[0],
                    shown=UNSUPERVISED,
                    null=RANDOM,
                    name="sphere_losses",
                    caption=f"First member; span of the {NUM_DIRECTIONS} top eigenvectors of the mixed loss. Where one "
                    "curve leaves the others, the search broke one module and kept the other, without having been told "
                    "of either. Grey: the same search in a random span of equal dimension.",
                )
            )
        if self.changes:
            found.append(
                frequency_figure(self.changes[0][EIGENVECTORS], self.changes[0][RANDOM], radius=ADDITION_RADII[-1])
            )
        if self.monitors:
            first = self.monitors[0]
            nulls = {name: monitor for name, monitor in first.items() if name != NEW}
            onset = _onset(first)
            found.append(
                monitor_figure(first[NEW], nulls, onset=onset, changed=self.changed, new="patterns", old="digits")
            )
        return found

    def _sphere_claims(self, claim: Callable[..., Claim]) -> list[Claim]:
        def values(name: str, read: Callable[[SphereSearch], float]) -> list[float]:
            return [read(member[name]) for member in self.spheres]

        def null(name: str, description: str, read: Callable[[SphereSearch], float]) -> NullEvidence:
            return NullEvidence(name=name, description=description, measured=Estimate.mean(values(name, read)))

        def separation(search: SphereSearch) -> float:
            return search.separation("digits", "patterns")

        free = "training from random points of the mixed loss's span, with nothing that holds it on the spheres"
        return [
            claim(
                "M8a",
                "The search stays on its sphere: largest | ||P (theta - theta*)|| / R - 1 | over the radii.",
                Expected(high=0.1, origin="the specification: within 10 % of R"),
                values(UNSUPERVISED, lambda search: search.worst_gap),
                [null(FREE, free, lambda search: search.worst_gap)],
            ),
            claim(
                "M8b",
                "The search stays near its span: largest ||(I - P)(theta - theta*)|| / R over the radii.",
                Expected(high=1.0, origin="the specification: smaller than R"),
                values(UNSUPERVISED, lambda search: search.worst_leak),
                [null(FREE, free, lambda search: search.worst_leak)],
            ),
            *(
                claim(
                    row,
                    f"{which}, the search breaks one module and keeps the other: most accuracy lost on pure digits or "
                    "pure patterns at a radius where the other lost at most 0.05.",
                    Expected(low=0.2, origin=_SEPARATION),
                    values(name, separation),
                    [
                        NullEvidence(
                            name="random points",
                            description="the random points of the same spheres from which the searches started",
                            measured=Estimate.mean(
                                values(name, lambda search: search.separation("digits", "patterns", at_start=True))
                            ),
                        ),
                        null(RANDOM, "the same search in a random span of equal dimension", separation),
                        null(FREE, free, separation),
                    ],
                )
                for row, which, name in (
                    ("M8c", "Unsupervised (span of the mixed loss)", UNSUPERVISED),
                    ("M8d", "Semi-supervised (span of the patterns' loss)", SEMI_SUPERVISED),
                )
            ),
        ]

    def _frequency_claims(self, claim: Callable[..., Claim]) -> list[Claim]:
        def values(name: str, read: Callable[[FrequencyChange], float]) -> list[float]:
            return [read(member[name]) for member in self.changes]

        def judged(row: str, statement: str, origin: str, read: Callable[[FrequencyChange], float]) -> Claim:
            null = NullEvidence(
                name=RANDOM,
                description="the same search in a random span of equal dimension",
                measured=Estimate.mean(values(RANDOM, read)),
            )
            return claim(row, statement, Expected(low=0.5, origin=origin), values(EIGENVECTORS, read), [null])

        return [
            judged(
                "M9",
                "After the largest radius the Fourier power of at least one embedding frequency has changed by more "
                "than half, and the training loss is finite: largest relative change.",
                "the specification: more than 50 %",
                lambda change: change.largest,
            ),
            judged(
                "M9a",
                "The same for frequencies that matter: largest relative change of the share of the power, among those "
                "above an equal share before.",
                "as M9",
                lambda change: change.largest_of_key,
            ),
        ]

    def _monitor_claims(self, claim: Callable[..., Claim]) -> list[Claim]:
        def lateness(name: str) -> list[float]:
            return [_steps_apart(member[name].flagged, _onset(member), member[name]) for member in self.monitors]

        def flagged(name: str, less: str) -> list[float]:
            return [
                float(member[name].flagged is not None) - float(member[less].flagged is not None)
                for member in self.monitors
            ]

        described = {
            NOTHING_NEW: "the same training where every pattern occurs with every class; onset of its twin",
            NO_CHANGE: "the same training where no pattern ever appears; onset of its twin",
        }
        return [
            claim(
                "M13",
                "The monitor flags the second generalisation near its onset in accuracy: steps between the two (all of "
                "the run where there is no flag).",
                Expected(high=150.0, origin=_LATENESS),
                lateness(NEW),
                [
                    NullEvidence(name=name, description=text, measured=Estimate.mean(lateness(name)))
                    for name, text in described.items()
                ],
            ),
            claim(
                "M13a",
                "The monitor tells a new generalisation from a mere change of the images: share of members flagged, "
                "less the share flagged where the patterns tell nothing.",
                Expected(low=0.5, origin="the house's reading of M13: more often than not"),
                flagged(NEW, NOTHING_NEW),
                [
                    NullEvidence(
                        name=NO_CHANGE,
                        description="the same difference for members that never see a pattern",
                        measured=Estimate.mean(flagged(NO_CHANGE, NOTHING_NEW)),
                    )
                ],
            ),
        ]


_SEPARATION = (
    "calibration seeds 0 and 1, four members at desk size: random spans give 0.13 to 0.19, the mixed one 0.08 to 0.18, "
    "that of patterns 0.23 to 0.39"
)
_LATENESS = "calibration seeds 0 and 1, four members at desk size: 57 to 95 steps, always before the onset"


def _falling(step: int) -> float:
    return float(0.9997**step)


def _each(plain: Mapping[str, Any], build: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any]:
    return {name: build(found) for name, found in plain.items()}


def _onset(member: Mapping[str, GeneralisationMonitor]) -> int | None:
    return member[NEW].onset("patterns", ONSET)


def _steps_apart(flag: int | None, onset: int | None, monitor: GeneralisationMonitor) -> float:
    if flag is None or onset is None:
        return float(monitor.steps[-1] + EVERY)
    return float(abs(flag - onset))

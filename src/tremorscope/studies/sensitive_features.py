"""Parts of the study of sensitive directions: features that were planted, tests of optimality, and searches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy
import torch

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.results import Table, drawn
from tremorscope.foundations.seeds import derive, generator
from tremorscope.methods.activations.plateaus.kinds import COV, ISOTROPIC, OTHER, Population, directions, unit
from tremorscope.methods.activations.plateaus.optimality import DirectionResponse, measure_optimality
from tremorscope.methods.activations.plateaus.planted import PlantedFeatures
from tremorscope.methods.activations.plateaus.sensitivity_search import recall, search_sensitive_directions
from tremorscope.methods.activations.plateaus.triangles import measure_triangle
from tremorscope.studies.plateau_curves import HOUSE, ActivationConfig, has_logits, loaded, prepared

STUDY = "sensitive-directions"
MIXTURE_PAPER = "arXiv:2410.12555 (Lee and Heimersheim 2024)"
PLANTED_D, PLANTED_WIDTH, PLANTED_BASES = 32, 0.3, 8
LEVEL = 1e-3  # of the planted network's response: what leaves the plateau
NEVER = 90.0  # degrees at which a threshold counts that was not reached
TESTED = 45.0  # degrees from the base at which optimality is tested


def optima_part(
    config: ActivationConfig, item: Mapping[str, Any], *, num_optima: int, num_starts: int, num_side: int
) -> dict[str, Any]:
    """Gradient tests at directions of each kind, a search from the first base, and a triangle with one real corner."""
    network = loaded(item["spec"])
    seed = derive(item["seed"], "optima")
    readout = "kl" if has_logits(network) else "l2"
    where = {"layer": config.layer, "length": config.length}
    responder, population, _ = prepared(network, where, config, num_bases=num_optima, seed=seed)
    rows: list[dict[str, Any]] = []
    chosen = {
        kind: directions(kind, responder.base, 1, population, generator(seed, kind))[:, 0]
        for kind in (OTHER, COV, ISOTROPIC)
    }
    for place, base in enumerate(responder.base):
        response = DirectionResponse(responder, base, size=TESTED, row=place, readout=readout)
        for kind, one in chosen.items():
            found = measure_optimality(response, one[place])
            rows.append(
                {
                    "direction": kind,
                    "gradient": found.gradient_share,
                    "rising": found.num_rising(),
                    "ways": len(found.curvatures),
                    "asymmetry": found.asymmetry,
                }
            )
    response = DirectionResponse(responder, responder.base[0], size=TESTED, readout=readout)
    sample = {
        kind: response.across(directions(kind, responder.base[:1], 32, population, generator(seed, "sample"))[0])
        for kind in (OTHER, COV)
    }
    # Half of what other real activations do at 90 degrees: a level that untrained networks reach as well.
    full, _ = response.gradients(sample[OTHER], torch.full((32,), 90.0, dtype=torch.float64))
    level = 0.5 * float(full.median())
    search = search_sensitive_directions(response, level=level, seed=seed, num_starts=num_starts)
    triangle = measure_triangle(
        responder,
        responder.base[0],
        torch.stack(
            [population.others(responder.base[:1], 1, generator(seed, "corner"))[0, 0], *_two(population, seed)]
        ),
        readout=readout,
        level=level,
        num_side=num_side,
    )
    thresholds = {kind: response.thresholds(one, level, largest=90.0).numpy() for kind, one in sample.items()}
    return {
        "optima": rows,
        "search": {
            "level": level,
            "found": _reached(search.thresholds[0]),
            "distinct": len(search.thresholds),
            "starts": _reached(numpy.median(search.start_thresholds)),
            **{kind: _reached(one.min()) for kind, one in thresholds.items()},
            "cosine": float(search.max_cosines(population.vectors.T[-10:])[0]),
        },
        "figures": [
            drawn(
                triangle.figure(
                    name=f"triangle_{item['network'].replace(' ', '_')}", names=("another real activation", COV, COV)
                )
            )
        ],
    }


def _reached(threshold: Any) -> float | None:
    """A threshold as JSON keeps it: None where it was never reached."""
    return float(threshold) if numpy.isfinite(threshold) else None


def _two(population: Population, seed: int) -> torch.Tensor:
    found: torch.Tensor = population.sample(2, generator(seed, "corners"))
    return found


def planted_part(seed: int, *, num_searches: int) -> dict[str, Any]:
    """Thresholds of planted features, mixtures and matched targets, and a search that knows none of them."""
    planted = PlantedFeatures.draw(PLANTED_D, PLANTED_D, width=PLANTED_WIDTH, seed=seed, active=2)
    bases = planted.activations(PLANTED_BASES, derive(seed, "bases"))
    population = planted.population(20 * PLANTED_D, derive(seed, "population"))
    stream = generator(seed, "directions")
    rows, recalls, chance = [], [], []
    for place, base in enumerate(bases):
        response = DirectionResponse(planted.responder(bases), base, size=20.0, row=place, readout="l2")
        off = planted.features[(planted.features @ base).abs() < 0.5]
        one, other = off[torch.randperm(len(off), generator=stream)[:2]]
        given = {
            "feature": one,
            "mixture": 0.99 * one + (1 - 0.99**2) ** 0.5 * other,
            OTHER: directions(OTHER, base[None], 1, population, stream)[0, 0],
            COV: directions(COV, base[None], 1, population, stream)[0, 0],
        }
        across = response.across(torch.stack(list(given.values())))
        thresholds = response.thresholds(across, LEVEL, largest=60.0)
        rows.append(dict(zip(given, thresholds.clamp_max(NEVER).tolist(), strict=True)))
        if place < num_searches:
            search = search_sensitive_directions(
                response, level=LEVEL, largest=60.0, seed=derive(seed, place), num_starts=4 * PLANTED_D
            )
            recalls.append(search.recall(off, len(off)))
            random = unit(torch.randn(len(off), PLANTED_D, generator=stream, dtype=torch.float64))
            chance.append(recall(random, off, len(off)))
    return {"rows": rows, "recalls": recalls, "chance": chance}


@final
@dataclass(frozen=True, kw_only=True)
class PlantedRows:
    """What was found where features are known."""

    rows: tuple[Mapping[str, float], ...]
    recalls: tuple[float, ...]
    chance: tuple[float, ...]

    @classmethod
    def of(cls, parts: list[Mapping[str, Any]]) -> PlantedRows:
        """All members' networks as one."""
        return cls(
            rows=tuple(row for part in parts for row in part["rows"]),
            recalls=tuple(one for part in parts for one in part["recalls"]),
            chance=tuple(one for part in parts for one in part["chance"]),
        )

    def claims(self, preset: str) -> Iterator[Claim]:
        """Rows P13 and P14."""
        told = {
            "P13a": (
                "A planted feature is noticed before .99 of it with some of another: by degrees.",
                "mixture",
                "feature",
            ),
            "P13b": ("A planted feature is noticed before a move towards another real activation.", OTHER, "feature"),
            "P13c": ("That is noticed before a move towards a Gaussian of equal covariance.", COV, OTHER),
        }
        scope = f"judged on {len(self.rows)} bases of networks with {PLANTED_D} planted orthonormal features"
        for row, (statement, later, sooner) in told.items():
            yield Claim(
                study=STUDY,
                row=row,
                preset=preset,
                statement=statement,
                source=MIXTURE_PAPER if row == "P13a" else HOUSE,
                scope=scope,
                expected=Expected(low=0.0, origin="by definition: later"),
                measured=self._gap(later, sooner),
                nulls=(
                    NullEvidence(
                        name="halves",
                        description="the later kind at bases of even number against the same at odd ones",
                        measured=self._halves(later),
                    ),
                ),
            )
        yield Claim(
            study=STUDY,
            row="P14",
            preset=preset,
            statement="Planted features found from one base and no data: share recalled by as many directions.",
            source=HOUSE,
            scope=scope,
            expected=Expected(low=0.5, origin="half of them, before it was measured"),
            measured=Estimate.mean(list(self.recalls)),
            nulls=(
                NullEvidence(
                    name="random directions", description="as many of them", measured=Estimate.mean(list(self.chance))
                ),
            ),
        )

    def table(self) -> Table:
        """Thresholds by kind."""
        return Table.of_rows(
            [
                {"direction": kind, "threshold": Estimate.mean([row[kind] for row in self.rows])}
                for kind in self.rows[0]
            ],
            name="planted",
            title="Thresholds where features are known",
            caption="Mean angle in degrees at which the planted network leaves its plateau; 90 where it never does.",
        )

    def _gap(self, later: str, sooner: str) -> Estimate:
        return Estimate.mean([row[later] - row[sooner] for row in self.rows])

    def _halves(self, kind: str) -> Estimate:
        values = [row[kind] for row in self.rows]
        return Estimate.mean([one - other for one, other in zip(values[::2], values[1::2], strict=True)])


def optima_table(optima: Mapping[str, Mapping[str, Any]]) -> Table:
    """Gradients and curvatures by kind of direction."""
    rows = []
    for name, found in optima.items():
        for kind in (OTHER, COV, ISOTROPIC):
            some = [row for row in found["optima"] if row["direction"] == kind]
            rows.append(
                {
                    "network": name,
                    "direction": kind,
                    "gradient over response": Estimate.mean([row["gradient"] for row in some]),
                    "ways that curve upwards": Estimate.mean([float(row["rising"]) for row in some]),
                    "ways": some[0]["ways"],
                    "error of the curvature": max(row["asymmetry"] for row in some),
                }
            )
    return Table.of_rows(
        rows,
        name="optimality",
        title="Are directions local optima of sensitivity, in all dimensions?",
        caption="Response at 45 degrees from a real base, as a function on the sphere of directions. The gradient, per "
        "radian, is 0 at an optimum; a local maximum has no way that curves upwards.",
    )


def search_table(optima: Mapping[str, Mapping[str, Any]]) -> Table:
    """What searches found, beside the best of the data."""
    rows = [
        {
            "network": name,
            "level": found["search"]["level"],
            "earliest found": found["search"]["found"],
            "different directions": found["search"]["distinct"],
            "random starts, median": found["search"]["starts"],
            "best of 32 real-other": found["search"][OTHER],
            "best of 32 cov-random": found["search"][COV],
            "largest |cosine| with the top 10 components": found["search"]["cosine"],
        }
        for name, found in optima.items()
    ]
    return Table.of_rows(
        rows,
        name="search",
        title="The most sensitive directions from one prompt",
        caption="Angles in degrees at which the response reaches the level, half of the median response at 90 degrees "
        "towards other real activations; empty where no direction reached it.",
    )

"""Which read-out should an edit along r use? From r itself to S^-1 r: calibration against what else is lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy
import torch
from jaxtyping import Float

from tremorscope.foundations.cluster_bootstrap import crossed_mean
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import PALETTE, Axis, Figure, numbers
from tremorscope.foundations.results import Table
from tremorscope.instruments.edit import Edit, PlacedEdit
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.methods.activations.concept_editing.affine_edits import oblique, oblique_read_out
from tremorscope.methods.activations.concept_editing.direction import ConceptFit
from tremorscope.methods.activations.concept_editing.examples import Examples
from tremorscope.methods.activations.concept_editing.response_curve import ResponseMeasurement, measure_response
from tremorscope.methods.activations.concept_editing.scorers import Scorer

_PLACES = ("top right", "top left", "bottom right")
READ_OUTS = (0.0, 0.5, 0.9, 0.97, 0.99, 0.999)
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
Edits = Mapping[str, tuple[Callable[[float], Edit], Sequence[float]]]
Respond = Callable[[Edits], Mapping[str, ResponseMeasurement]]


@final
@dataclass(frozen=True, kw_only=True)
class Capability:
    """Something else that the network can do: a loss for each of some examples, the smaller the better.

    Args:
        losses: Of a network, edited or not; always of the same examples.
        unit: What a mean of it is called, for tables and axes.
        clusters: What examples share (wordings, modules); each by itself otherwise.
        units: A second grouping.
    """

    losses: Callable[[Network], Float[numpy.ndarray, " examples"]]
    unit: str
    clusters: Sequence[Hashable] | None = None
    units: Sequence[Hashable] | None = None


@final
@dataclass(frozen=True, kw_only=True)
class CapabilityLosses:
    """What was lost at each read-out, edited less unedited: `gaps` [read-outs, examples]."""

    unit: str
    gaps: Float[numpy.ndarray, "read_outs examples"]
    clusters: tuple[Hashable, ...]
    units: tuple[Hashable, ...]


@final
@dataclass(frozen=True, kw_only=True)
class ObliqueSweepMeasurement:
    """Responses and losses at each read-out t; `cosines` are those of the read-out with r."""

    name: str
    ts: tuple[float, ...]
    cosines: tuple[float, ...]
    responses: tuple[ResponseMeasurement, ...]
    losses: Mapping[str, CapabilityLosses]
    seed: int = 0

    def error(self, place: int) -> Estimate:
        """Calibration error of a read-out: see `calibration.miscalibration`."""
        return self.responses[place].calibration_error()

    def gap(self, place: int) -> Estimate:
        """Distance between the classes of a read-out, mean over alpha from 0 to 1."""
        return self.responses[place].mean_gap()

    def lost(self, name: str, place: int) -> Estimate:
        """Mean loss of a capability under the edit at alpha 0, less that of the unedited network."""
        one = self.losses[name]
        return crossed_mean(one.gaps[place], one.clusters, one.units, seed=self.seed)

    def tables(self) -> list[Table]:
        """A row for each read-out."""
        rows = [
            {"t": t, "cosine with r": self.cosines[place], "calibration error": self.error(place)}
            | {"class gap": self.gap(place)}
            | {one.unit: self.lost(name, place) for name, one in self.losses.items()}
            for place, t in enumerate(self.ts)
        ]
        return [
            Table.of_rows(
                rows,
                name=f"oblique_{_slug(self.name)}",
                title=f"Read-outs between r and S^-1 r: {self.name}",
                caption=CAPTION,
            )
        ]

    def figures(self) -> list[Figure]:
        """Calibration error against each loss, points labelled by t."""
        return [
            trade_off(
                name=f"oblique_{_slug(self.name)}_{_slug(key)}",
                title=f"Calibration against {key}: {self.name}",
                series={self.name: (PALETTE[0], "circle", self.ts, *self.pairs(key))},
                x=one.unit,
            )
            for key, one in self.losses.items()
        ]

    def pairs(self, name: str) -> tuple[list[Estimate], list[Estimate]]:
        """Losses of a capability, and calibration errors, of all read-outs."""
        places = range(len(self.ts))
        return [self.lost(name, place) for place in places], [self.error(place) for place in places]

    def to_plain(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "name": self.name,
            "ts": list(self.ts),
            "cosines": list(self.cosines),
            "responses": [one.to_plain() for one in self.responses],
            "losses": {
                name: {
                    "unit": one.unit,
                    "gaps": one.gaps.tolist(),
                    "clusters": list(one.clusters),
                    "units": list(one.units),
                }
                for name, one in self.losses.items()
            },
            "seed": self.seed,
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> ObliqueSweepMeasurement:
        """The inverse of `to_plain`, also after JSON."""
        return cls(
            name=plain["name"],
            ts=tuple(plain["ts"]),
            cosines=tuple(plain["cosines"]),
            responses=tuple(map(ResponseMeasurement.of, plain["responses"])),
            losses={
                name: CapabilityLosses(
                    unit=one["unit"],
                    gaps=numpy.array(one["gaps"], dtype=numpy.float64),
                    clusters=tuple(one["clusters"]),
                    units=tuple(one["units"]),
                )
                for name, one in plain["losses"].items()
            },
            seed=plain["seed"],
        )


CAPTION = (
    "The read-out of the edit is w = (t S + (1 - t) I)^-1 r with S the covariance within classes over its mean "
    "eigenvalue: t = 0 is ACE (w along r), t = 0.999 the oblique edit. Calibration error and class gap over alpha 0 to "
    "1 on held-out inputs; losses at alpha 0, against the unedited network."
)


def measure_oblique_sweep(
    network: Network,
    fit: ConceptFit,
    site: str | Site,
    classes: Mapping[str, Examples],
    scorer: Scorer,
    capabilities: Mapping[str, Capability],
    *,
    name: str = "r",
    ts: Sequence[float] = READ_OUTS,
    alphas: Sequence[float] = ALPHAS,
    capability_site: str | Site | None = None,
    respond: Respond | None = None,
    seed: int = 0,
) -> ObliqueSweepMeasurement:
    """How much calibration costs, and how much it gains, as the read-out turns from r to S^-1 r.

    The edit moves activations along r until the read-out w sees alpha. w = r (ACE) is the least noisy where activations
    vary alike in all directions; w = S^-1 r (Fisher's discriminant, LEACE's projection) where they do not, but with few
    examples for their width S^-1 follows noise. Between them lies the ridge family: at each norm of w the read-out that
    varies least within classes. A straight line from one normalised vector to the other would have no such meaning, and
    its far end would not exist with fewer examples than entries.

    Args:
        network: Any network.
        fit: Of one concept.
        site: Where it is edited.
        classes: Held-out inputs by class.
        scorer: Truth values.
        capabilities: What else is to be kept, by name.
        name: Of the direction, for titles.
        ts: Weights of S against the identity, from 0 to below 1.
        alphas: Levels, rising, some between 0 and 1.
        capability_site: Where it is edited for the losses; by default at the same place.
        respond: What measures the responses in place of `measure_response`, such as `sweep_responses`: by name from
            the edit of an alpha, and alphas.
        seed: Of the bootstraps.

    Cost: for each t, `alphas` times what the scorer costs, and each capability once.

    Raises:
        BadInput: If a t is not in [0, 1), or as `measure_response`.
    """
    if not ts or not all(0 <= t < 1 for t in ts):
        raise BadInput("weights of the covariance", got=tuple(ts), wanted="numbers from 0 to below 1")
    there = Site.parse(site)
    elsewhere = there if capability_site is None else Site.parse(capability_site)

    def plainly(edits: Edits) -> dict[str, ResponseMeasurement]:
        return {
            called: measure_response(
                network, partial(_placed, edit, there), classes, scorer, name=called, alphas=levels, seed=seed
            )
            for called, (edit, levels) in edits.items()
        }

    r = fit.directions[:, 0]
    before = {key: _checked(key, one.losses(network)) for key, one in capabilities.items()}
    edits = {f"{name}, t = {t:g}": partial(oblique, fit, ridge=ridge_of(t)) for t in ts}
    responses = (respond or plainly)({called: (edit, alphas) for called, edit in edits.items()})
    cosines = []
    gaps: dict[str, list[Any]] = {key: [] for key in capabilities}
    for t, edit in zip(ts, edits.values(), strict=True):
        w = oblique_read_out(fit, ridge=ridge_of(t))[:, 0]
        cosines.append(float(torch.nn.functional.cosine_similarity(r, w, dim=0)))
        view = network.with_edits(edit(0.0).at(elsewhere))
        for key, one in capabilities.items():
            gaps[key].append(_checked(key, one.losses(view)) - before[key])
    return ObliqueSweepMeasurement(
        name=name,
        ts=tuple(map(float, ts)),
        cosines=tuple(cosines),
        responses=tuple(responses[called] for called in edits),
        losses={
            key: CapabilityLosses(
                unit=one.unit,
                gaps=numpy.stack(gaps[key]),
                clusters=tuple(range(len(before[key])) if one.clusters is None else one.clusters),
                units=tuple(range(len(before[key])) if one.units is None else one.units),
            )
            for key, one in capabilities.items()
        },
        seed=seed,
    )


def _placed(edit: Callable[[float], Edit], there: Site, alpha: float) -> list[PlacedEdit]:
    return [edit(alpha).at(there)]


def ridge_of(t: float) -> float:
    """The ridge of `oblique`, in mean eigenvalues, that weighs the covariance by t and the identity by 1 - t.

    >>> ridge_of(0.0), ridge_of(0.5)
    (inf, 1.0)
    """
    return math.inf if t == 0 else (1 - t) / t


def trade_off(
    *,
    name: str,
    title: str,
    series: Mapping[str, tuple[str, str, Sequence[float], Sequence[Estimate], Sequence[Estimate]]],
    x: str,
) -> Figure:
    """Calibration error against a loss: for each series colour, symbol, read-outs t, losses and errors."""
    traces = []
    for told, (colour, symbol, ts, lost, errors) in series.items():
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers+text",
                "name": told,
                "x": numbers([one.value for one in lost]),
                "y": numbers([one.value for one in errors]),
                # The last read-outs lie close together: those between are told by the pointer and the table.
                "text": [f"t = {t:g}" if place in (0, 1, len(ts) - 1) else "" for place, t in enumerate(ts)],
                "textposition": [_PLACES[min(place, 2)] for place in range(len(ts))],
                "textfont": {"size": 11, "color": colour},
                "hovertext": [
                    f"t = {t:g}: loss {one}, error {two}" for t, one, two in zip(ts, lost, errors, strict=True)
                ],
                "hoverinfo": "text+name",
                "line": {"color": colour, "width": 1.2},
                "marker": {"symbol": symbol, "size": 8, "color": colour},
                "error_x": _bars(lost, colour),
                "error_y": _bars(errors, colour),
            }
        )
    return Figure(
        name=name,
        title=title,
        caption="Lower left is better: near to the requested shares, and little else lost. At t = 0 "
        "the edit is ACE, which reads along r; towards t = 1 the read-out is S^-1 r. 99 % intervals.",
        traces=traces,
        x=Axis(title=x),
        y=Axis(title="calibration error (share)"),
    )


def _bars(some: Sequence[Estimate], colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": numbers([one.high - one.value for one in some]),
        "arrayminus": numbers([one.value - one.low for one in some]),
        "color": colour,
        "thickness": 0.8,
        "width": 0,
    }


def _checked(name: str, losses: Any) -> Float[numpy.ndarray, " examples"]:
    found = numpy.asarray(losses, dtype=numpy.float64)
    if found.ndim != 1 or not len(found) or not numpy.isfinite(found).all():
        raise BadInput(f"losses of {name}", got=f"shape {found.shape}", wanted="a finite number for each example")
    return found


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower()).strip("_")

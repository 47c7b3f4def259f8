"""What a precise fit found: the model, every stage's errors, and what stopped it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, line, points
from tremorscope.foundations.results import Table
from tremorscope.methods.weights.precision.boosting import Boosted
from tremorscope.methods.weights.precision.gradient_bands import BANDS
from tremorscope.methods.weights.precision.standardisation import Standardisation


@final
@dataclass(frozen=True, kw_only=True)
class StageReport:
    """One stage of one network of the sum. Errors are of the whole sum, in standard deviations of the targets.

    `works` and `rmses` are the path: passes over the data since the fit began, and training error.
    `gradient` holds norms by band of curvature at the stage's end; empty where the Hessian was too large.
    """

    network: int
    stage: str
    iterations: int
    works: tuple[int, ...]
    rmses: tuple[float, ...]
    train_rmse: float
    test_rmse: float | None
    test_max: float | None
    gradient: Mapping[str, float]
    outcome: str
    because: str

    def row(self) -> dict[str, object]:
        """As a row of a table."""
        total = sum(norm**2 for norm in self.gradient.values()) ** 0.5
        return {
            "network": self.network,
            "stage": self.stage,
            "steps": self.iterations,
            "passes": self.works[-1] - self.works[0],
            "training RMSE before": self.rmses[0],
            "training RMSE": self.train_rmse,
            "held-out RMSE": self.test_rmse,
            "held-out max error": self.test_max,
            **{f"gradient share {band}": self.gradient[band] / total for band in self.gradient if total},
            "outcome": self.outcome,
            "stopped because": self.because,
        }


@final
@dataclass(frozen=True, kw_only=True)
class PrecisionFit:
    """A fit and its history. RMSEs and the maximum error are in standard deviations of the targets.

    `floor` estimates the error that rounding alone makes; `because` says in one sentence what stopped the fit;
    `eigenvalues` are those of the first network's Hessian; `work` counts all passes, screening included.
    """

    model: Boosted
    standardisation: Standardisation
    reports: tuple[StageReport, ...]
    train_rmse: float
    test_rmse: float | None
    test_max: float | None
    floor: float
    work: int
    because: str
    eigenvalues: Float[Tensor, " params"] | None = None
    flags: tuple[str, ...] = ()

    def predict(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """The fitted function, in the units that came."""
        return self.standardisation.back(self.model(self.standardisation.inputs(inputs)))

    def tables(self) -> list[Table]:
        """One row for each stage."""
        return [stage_table([report.row() for report in self.reports], self.because)]

    def figures(self) -> list[Figure]:
        """The path of the error, and the spectrum where it was computed."""
        paths = [(f"{one.stage}, network {one.network}", one.works, one.rmses) for one in self.reports]
        drawn = [path_figure(paths, floor=self.floor)]
        if self.eigenvalues is not None:
            drawn.append(spectrum_figure(self.eigenvalues.tolist()))
        return drawn


def stage_table(rows: Sequence[Mapping[str, object]], because: str) -> Table:
    """Stages as a table."""
    return Table.of_rows(
        rows,
        name="stages",
        title="What each stage gained, and why it stopped",
        caption="Errors of the whole sum of networks, in standard deviations of the targets. Passes are forward passes "
        "over the training data: a gradient counts 3. Gradient shares are norms along Hessian eigenvectors, by "
        f"|lambda| in units of the largest ({', '.join(BANDS)}). The fit stopped here: {because}.",
    )


def path_figure(paths: Sequence[tuple[str, Sequence[float], Sequence[float]]], *, floor: float | None = None) -> Figure:
    """Training error against passes over the data, one curve for each (name, passes, errors)."""
    colours = {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(dict.fromkeys(p[0] for p in paths))}
    # Every point of a long path would make the report heavy and the picture no better.
    traces = [
        line(_thinned(works), _thinned(errors), name, colour=colours[name])
        for name, works, errors in paths
        if len(works) > 1
    ]
    if floor is not None and paths:
        ends = [min(works[0] for _, works, _ in paths), max(works[-1] for _, works, _ in paths)]
        traces.append(line(ends, [floor, floor], "rounding floor (estimate)", colour=NULL_COLOUR, dash="dot"))
    return Figure(
        name="stages",
        title="Stage by stage, the training error falls towards the rounding floor",
        caption="Root mean squared training error, in standard deviations of the targets, against forward passes over "
        "the training data; a gradient counts 3 passes. Gaps: starts of the next network being screened. "
        "The dotted line estimates what rounding alone leaves.",
        traces=traces,
        x=Axis(title="passes over the training data"),
        y=Axis(title="training RMSE, standard deviations", log=True),
    )


def spectrum_figure(values: Sequence[float]) -> Figure:
    """All eigenvalues by size, with their sign."""
    ranked = sorted(values, key=abs, reverse=True)
    places = range(1, len(ranked) + 1)
    largest = abs(ranked[0])
    lost = sum(abs(value) < 2.0**-52 * largest for value in ranked)
    negative = sum(value < 0 for value in ranked)
    kinds = [
        ("positive", [(k, v) for k, v in zip(places, ranked, strict=True) if v > 0], PALETTE[0], "circle"),
        ("negative", [(k, -v) for k, v in zip(places, ranked, strict=True) if v < 0], PALETTE[1], "x"),
    ]
    return Figure(
        name="spectrum",
        title="The minimum is a canyon: a few steep directions, and a floor that is flat to rounding",
        caption=f"Absolute eigenvalues of the Hessian of the training loss, {len(ranked)} weights: {negative} are "
        f"negative; {lost} lie below the rounding of the largest (2^-52 of it, dotted), where size and sign are "
        "not to be trusted.",
        traces=[
            *(
                points([k for k, _ in found], [v for _, v in found], name, colour=colour)
                | {"marker": {"color": colour, "symbol": symbol, "size": 5}}
                for name, found, colour, symbol in kinds
            ),
            line([1, len(ranked)], [2.0**-52 * largest] * 2, "rounding", colour=NULL_COLOUR, dash="dot"),
        ],
        x=Axis(title="rank"),
        y=Axis(title="|eigenvalue|, loss per squared weight", log=True),
    )


def _thinned(values: Sequence[float], most: int = 300) -> list[float]:
    stride = max(1, len(values) // most)
    kept = list(values[::stride])
    return kept if (len(values) - 1) % stride == 0 else [*kept, values[-1]]

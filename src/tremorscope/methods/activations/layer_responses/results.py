"""What was found layer by layer, beside the untrained twin: numbers, table, figure, one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy
from jaxtyping import Float
from numpy.typing import NDArray

from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, line
from tremorscope.foundations.results import Table
from tremorscope.methods.activations.plateaus.comparisons import by_base, mean_over_bases, median_over_bases
from tremorscope.methods.activations.plateaus.curves import RIGHT_ANGLE
from tremorscope.methods.activations.plateaus.kinds import COV, OTHER, RANDOM, REAL
from tremorscope.methods.activations.plateaus.measurement import Condition, PlateausMeasurement

Values = NDArray[numpy.float64]
Places = NDArray[Any]
CONDITIONS = tuple(Condition(base, direction) for base in (REAL, RANDOM) for direction in (COV, OTHER))
PLATEAU = (Condition(REAL, COV), Condition(RANDOM, COV))
DIRECTION = (Condition(REAL, COV), Condition(REAL, OTHER))


@final
@dataclass(frozen=True, kw_only=True)
class LayerResponse:
    """One hidden place of one network: `width` entries, and response curves of the four conditions.

    Bases of equal number are the same example in every condition and in both networks. `most_rank` is the effective
    rank of as many isotropic Gaussian vectors; what stays below `noise` at 90 degrees is rounding and no response.
    """

    width: int
    effective_rank: Estimate
    most_rank: float
    curves: PlateausMeasurement
    readout: str
    noise: float

    def angles(self, condition: Condition) -> Float[numpy.ndarray, " bases"]:
        """Half-response angle around each base in degrees, the median of its paths; infinite without any response."""
        median: Values = numpy.median(by_base(*self._angles(condition)), axis=1)
        return median

    def median(self, condition: Condition) -> Estimate:
        """Half-response angle over all paths, with an interval over bases."""
        return median_over_bases(*self._angles(condition), seed=0)

    def gaps(self, pair: tuple[Condition, Condition]) -> Float[numpy.ndarray, " bases"]:
        """First less second half-response angle, base by base; NaN or infinite where one has no response."""
        with numpy.errstate(invalid="ignore"):
            found: Values = self.angles(pair[0]) - self.angles(pair[1])
        return found

    def _angles(self, condition: Condition) -> tuple[Values, Places]:
        """Of each path, and its base."""
        angles, bases = self.curves.values(condition, "half response, " + self.readout.upper())
        is_noise = self.curves.curves[condition].of(self.readout)[:, -1] <= self.noise
        return numpy.where(is_noise, numpy.inf, angles), bases


@final
@dataclass(frozen=True, kw_only=True)
class LayerResponses:
    """How far the activations of each layer can be turned before the output has moved half of its way to 90 degrees.

    `layers` and `twin` are by name of the layer; `twin` is empty where there is no untrained twin.
    """

    network: str
    layers: Mapping[str, LayerResponse]
    twin: Mapping[str, LayerResponse]
    readout: str
    flags: tuple[str, ...] = ()

    def difference(self, layer: str, pair: tuple[Condition, Condition] = PLATEAU) -> Estimate | None:
        """Mean over bases of first less second half-response angle; None where there is a base without response."""
        return _mean(self.layers[layer].gaps(pair))

    def excess(self, layer: str, pair: tuple[Condition, Condition] = PLATEAU) -> Estimate | None:
        """The same less that of the untrained twin, paired by base; None also where the twin was not measured."""
        if layer not in self.twin:
            return None
        return _mean(self.layers[layer].gaps(pair) - self.twin[layer].gaps(pair))

    def sentence(self) -> str:
        """What a reader wants first."""
        plateaus = self._counted(PLATEAU, "Real activations can be turned further than random ones of equal covariance")
        directions = self._counted(
            DIRECTION, "towards other real activations it answers sooner than towards random ones"
        )
        if not self.twin:
            return f"{plateaus}; {directions}. There is no untrained twin to compare with."
        return f"{plateaus}; {directions} (99 % intervals over examples)."

    def _counted(self, pair: tuple[Condition, Condition], what: str) -> str:
        found = {layer: self.difference(layer, pair) for layer in self.layers}
        clear = [layer for layer, gap in found.items() if gap is not None and gap.low > 0]
        until = " before the output answers" if pair == PLATEAU else ""
        said = f"{what}{until} in {len(clear)} of {len(found)} layers"
        if not self.twin:
            return said
        beyond = [self.excess(layer, pair) for layer in clear]
        more = sum(one is not None and one.low > 0 for one in beyond)
        return f"{said}, in {more} by more than in the untrained twin"

    def tables(self) -> list[Table]:
        """Every layer of this network and of its twin: effective ranks, half-response angles and their differences."""
        ranks: list[dict[str, Any]] = []
        rows: list[dict[str, Any]] = []
        for layer, own in self.layers.items():
            twin = self.twin.get(layer)
            rank: dict[str, Any] = {"layer": layer, "entries": own.width, "effective rank": own.effective_rank}
            if self.twin:
                rank["effective rank, untrained twin"] = None if twin is None else twin.effective_rank
            ranks.append({**rank, "as many isotropic vectors": own.most_rank})
            for name, one in (("this network", own), ("untrained twin", twin)):
                if one is None:
                    continue
                row: dict[str, Any] = {"layer": layer, "network": name}
                row["real base, random direction"] = one.median(PLATEAU[0])
                row["random base, random direction"] = one.median(PLATEAU[1])
                row["real - random base"] = _mean(one.gaps(PLATEAU))
                row["real base, other real"] = one.median(DIRECTION[1])
                row["random - real direction"] = _mean(one.gaps(DIRECTION))
                if one is own and self.twin:
                    row["real - random base, beyond the twin"] = self.excess(layer)
                    row["random - real direction, beyond the twin"] = self.excess(layer, DIRECTION)
                rows.append(row)
        some = next(iter(self.layers.values())).curves
        return [
            Table.of_rows(
                ranks,
                name="layer_ranks",
                title="How many directions the activations of each layer use",
                caption="Exponential of the entropy of the covariance's eigenvalues over "
                f"{some.num_samples} examples, with jackknife intervals. A Gaussian of equal covariance has the same "
                "by construction; what training did is the difference from the untrained twin, and the last column is "
                "what so many vectors without any preferred direction have.",
            ),
            Table.of_rows(
                rows,
                name="layer_responses",
                title="How far activations can be turned before the output answers",
                caption=f"Half-response angles in degrees (output read as {self.readout.upper()}): where the output "
                "has moved half as far as at 90 degrees. Medians over paths; differences are means over "
                f"{some.num_bases} bases, paired; 99 % intervals over bases. Random bases and directions are Gaussians "
                "with mean and covariance of the real activations, real directions point at other real activations.",
            ),
        ]

    def figures(self) -> list[Figure]:
        """Half-response angle by layer, around real and random bases, in this network and its twin."""
        places = numpy.arange(len(self.layers), dtype=numpy.float64)
        shown = [("real base", PLATEAU[0], self.layers, PALETTE[0], "solid")]
        shown += [("random base", PLATEAU[1], self.layers, PALETTE[1], "solid")]
        if self.twin:
            shown += [("real base, untrained", PLATEAU[0], self.twin, NULL_COLOUR, "solid")]
            shown += [("random base, untrained", PLATEAU[1], self.twin, NULL_COLOUR, "dot")]
        traces = []
        for place, (name, condition, layers, colour, dash) in enumerate(shown):
            found = [layers[layer].median(condition) if layer in layers else None for layer in self.layers]
            middle, low, high = (
                numpy.array([numpy.nan if one is None else getattr(one, part) for one in found], dtype=numpy.float64)
                for part in ("value", "low", "high")
            )
            there = numpy.isfinite(middle)  # not where half of the paths have no response
            middle = numpy.where(there, middle, numpy.nan)
            bars = {
                "type": "data",
                "symmetric": False,
                "array": numpy.where(there, numpy.minimum(high, RIGHT_ANGLE) - middle, 0.0).round(6).tolist(),
                "arrayminus": numpy.where(there, middle - low, 0.0).round(6).tolist(),
                "thickness": 1.5,
                "width": 4,
            }
            # Beside each other, so that no interval hides another.
            x = places + 0.06 * (place - (len(shown) - 1) / 2)
            traces.append(line(x, middle, name, colour=colour, dash=dash, markers=True, error_y=bars))
        ticks = {
            "tickmode": "array",
            "tickvals": places.tolist(),
            "ticktext": [_in_words(layer) for layer in self.layers],
        }
        return [
            Figure(
                name="layer_responses",
                title="How far activations can be turned before the output answers",
                caption="Angle towards random directions of equal covariance at which the output has moved half as far "
                "as at 90 degrees, around real and around random activations, with 99 % intervals (cut at 90 degrees). "
                "A plateau around real activations lifts the first line above the second; what the untrained twin "
                "shows as well owes nothing to training.",
                traces=traces,
                x=Axis(title="place in the network"),
                y=Axis(title=f"half-response angle (degrees; output read as {self.readout.upper()})"),
                layout={
                    "xaxis": {
                        "title": {"text": "place in the network"},
                        **ticks,
                        "range": [-0.5, len(self.layers) - 0.5],
                    }
                },
            )
        ]


def _in_words(layer: str) -> str:
    """What the stream's names mean, for who does not know them."""
    name, _, block = layer.rpartition(".")
    return f"input of block {block}" if name.removeprefix("acts:") == "resid_pre" else layer


def _mean(gaps: Float[numpy.ndarray, " bases"]) -> Estimate | None:
    if not numpy.isfinite(gaps).all():
        return None
    return mean_over_bases(gaps, numpy.arange(len(gaps)), seed=0)

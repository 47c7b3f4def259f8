"""Figures of the zone: kappa, share of positive curvature, and the Gauss-Newton split against the scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, band, line
from tremorscope.methods.weights.goldilocks.scaling import Scaling

if TYPE_CHECKING:
    from tremorscope.methods.weights.goldilocks.measurement import GoldilocksMeasurement

_AXES = {
    "weights": "factor on the weights (1 is the initialisation)",
    "temperature": "factor on the logits (1 over temperature)",
}
_BANDS = 2  # more of them hide each other
_KNOBS = {"weights": "the scale of the weights", "temperature": "the softmax's temperature"}


def zone_figures(curves: Mapping[str, GoldilocksMeasurement], scaling: Scaling) -> list[Figure]:
    """One picture each of kappa, positive share and the split, of curves along the same knob.

    Bands are 99 % intervals over the rows of the first curves; the grey line is the null of the first.
    """
    name, first = next(iter(curves.items()))
    zone = first.zone
    where = "" if zone is None else f" {name}: {zone.peak:.2g} at {zone.peak_scale:.3g}."
    figures = [
        _curves(
            curves,
            "kappa",
            "signs_kappa",
            scaling,
            title=f"Excess of positive curvature by {_KNOBS[scaling]}",
            caption=f"Tr(H) / ||H||_F inside random {first.surface}s of {first.dimension} dimensions; at most "
            f"{math.sqrt(first.dimension):.3g}, near 0 by chance (grey: the same curvatures with random signs).{where}",
            axis="kappa = Tr(H) / ||H||_F",
        ),
        _curves(
            curves,
            "positive_share",
            "signs_positive_share",
            scaling,
            title=f"Share of positive curvature by {_KNOBS[scaling]}",
            caption="Share of positive eigenvalues of the restricted Hessian, 1/2 by chance (grey: random signs).",
            axis="share of positive curvature",
        ),
    ]
    split = {name: curve for name, curve in curves.items() if bool(curve.curves["gauss_newton_ratio"].isfinite().any())}
    if split:
        figures.append(
            _curves(
                split,
                "gauss_newton_ratio",
                None,
                scaling,
                title=f"Which part of the Hessian dominates, by {_KNOBS[scaling]}",
                caption="Frobenius norm of the restricted Gauss-Newton matrix over that of the rest of the Hessian; "
                "above 1 (dashed) the part that cannot be negative dominates.",
                axis="Gauss-Newton over rest",
                log=True,
                level=1.0,
            )
        )
    return figures


def _curves(
    curves: Mapping[str, GoldilocksMeasurement],
    quantity: str,
    null: str | None,
    scaling: Scaling,
    *,
    title: str,
    caption: str,
    axis: str,
    log: bool = False,
    level: float | None = None,
) -> Figure:
    traces: list[dict[str, Any]] = []
    for place, (name, measured) in enumerate(curves.items()):
        traces += _with_band(measured, quantity, name, PALETTE[place % len(PALETTE)], bare=log or place >= _BANDS)
    first = next(iter(curves.values()))
    if null is not None:
        traces += _with_band(first, null, "random signs", NULL_COLOUR, dash="dot")
    if level is not None:
        ends = [first.scales[0], first.scales[-1]]
        traces.append(line(ends, [level, level], "equal", colour=NULL_COLOUR, dash="dash"))
    return Figure(
        name=f"{quantity}_{scaling}",
        title=title,
        caption=caption,
        traces=traces,
        x=Axis(title=_AXES[scaling], log=True),
        y=Axis(title=axis, log=log),
    )


def _with_band(
    measured: GoldilocksMeasurement,
    quantity: str,
    name: str,
    colour: str,
    *,
    dash: str | None = None,
    bare: bool = False,
) -> list[dict[str, Any]]:
    found = [(scale, measured.estimate(quantity, scale)) for scale in measured.scales]
    known: list[tuple[float, Estimate]] = [(scale, estimate) for scale, estimate in found if estimate is not None]
    if not known:
        return []
    x, y = [scale for scale, _ in known], [estimate.value for _, estimate in known]
    traces = [line(x, y, name, colour=colour, dash=dash, markers=dash is None)]
    if not bare and not any(estimate.is_point for _, estimate in known):
        ends = [estimate.low for _, estimate in known], [estimate.high for _, estimate in known]
        traces.insert(0, band(x, *ends, f"{name}, 99 %", colour=colour) | {"showlegend": False})
    return traces

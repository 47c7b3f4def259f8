"""Log-log error curves with fitted slopes and theory's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, line, points

if TYPE_CHECKING:
    from tremorscope.methods.weights.precision.scaling import ScalingMeasurement

_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "pentagon")


def scaling_figures(measured: ScalingMeasurement) -> list[Figure]:
    """Test error of each method against its number of parameters."""
    traces: list[dict[str, Any]] = []
    said = []
    for place, (method, law) in enumerate(measured.laws.items()):
        rows = [row for row in measured.rows if row.method == method]
        if not rows:
            continue
        colour, symbol = PALETTE[place % len(PALETTE)], _SYMBOLS[place % len(_SYMBOLS)]
        sizes, errors = [row.num_parameters for row in rows], [row.rmse for row in rows]
        power = measured.theory[method]
        # where theory knows no law, a straight line through a few points is none
        label = method if law is None or power is None else f"{method}: N^{law.exponent.value:.2f}"
        cloud = points(sizes, errors, label, colour=colour, size=7, legendgroup=method)
        cloud["marker"]["symbol"] = symbol
        hidden: dict[str, Any] = {"legendgroup": method, "showlegend": False, "hoverinfo": "skip"}
        if law is None or power is None:
            traces += [cloud, line(sizes, errors, method, colour=colour, dash="dot", **hidden)]
            continue
        ends = numpy.array(law.window)
        traces += [cloud, line(ends, law.predict(ends), f"{method}, fitted", colour=colour, **hidden)]
        # through the middle of the fitted line, so that only the slopes differ
        middle = float(numpy.sqrt(ends.prod()))
        heights = law.predict([middle]) * (ends / middle) ** power
        traces.append(line(ends, heights, f"{method}, theory", colour=colour, dash="dash", **hidden))
        said.append(f"{method} {law.exponent.value:.2f} ({power:.2f})")
    sizes = [row.num_parameters for row in measured.rows]
    lowest = min(row.floor for row in measured.rows)
    traces.append(line([min(sizes), max(sizes)], [lowest] * 2, "lowest rounding floor", colour=NULL_COLOUR, dash="dot"))
    slopes = f" Fitted powers of N, theory's in brackets: {', '.join(said)}." if said else ""
    return [
        Figure(
            name=f"scaling_{measured.target}".replace(".", "_").replace("-", "_").replace(", ", "_"),
            title=f"How the error falls with the size of the approximator, on {measured.target}",
            caption="Root mean square error at test points inside the hull. Solid: the fitted law over the window "
            f"where it holds; dashed: theory's slope; dotted: no law, or none that theory knows.{slopes}",
            traces=traces,
            x=Axis(title="parameters N", log=True),
            y=Axis(title="root mean square test error", log=True),
        )
    ]

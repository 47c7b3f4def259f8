"""The map as a picture: blocks by tokens, and cells beside their nulls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, numbers

if TYPE_CHECKING:
    from tremorscope.methods.activations.sensitivity_map.measurement import SensitivityMap

NOTHING_MARKED = (
    "what a small disturbance does is told apart from chance in no cell of this prompt, with so many directions and "
    "twins; colours still say where it does more and where less"
)
SHORTEST = 1e-6  # where a colour has to stand for a divergence that is nothing but rounding


def token_axis(tokens: tuple[str, ...]) -> dict[str, Any]:
    """Ticks that name the tokens of a prompt; numbers keep words that come twice apart."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(tokens))),
        "ticktext": [shown(token) for token in tokens],
        "tickangle": "auto",
        "autotickangles": [0, -40, -90],
    }


def shown(token: str) -> str:
    """A token as it can stand in a label: spaces at its ends and line breaks are made visible."""
    marked = token.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")
    if not marked.strip():
        return repr(marked)
    return marked.strip() if len(marked.strip()) <= 14 else marked.strip()[:13] + "\N{HORIZONTAL ELLIPSIS}"


def quoted(token: str) -> str:
    """A token in a sentence: in quotes, blanks at its ends made visible, as they tell tokens apart.

    >>> quoted(" is")
    "'\N{OPEN BOX}is'"
    """
    core = token.strip(" ")
    before = len(token) - len(token.lstrip(" ")) if core else len(token)
    after = len(token) - len(token.rstrip(" ")) if core else 0
    blank, broken = "\N{OPEN BOX}", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"
    return f"'{blank * before}{core}{blank * after}'".replace("\n", broken)


def rings(cells: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """A ring in each of these (layer, token) cells: black between white edges, so that it is seen on any colour."""
    there = {
        "type": "scatter",
        "mode": "markers",
        "x": [token for _, token in cells],
        "y": [layer for layer, _ in cells],
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return [
        {**there, "marker": {"symbol": "circle-open", "size": 18, "color": colour, "line": {"width": width}}}
        for colour, width in (("#ffffff", 6.5), ("#000000", 2.5))
    ]


def map_figure(measured: SensitivityMap) -> Figure:
    """Heat map of blocks by tokens, with buttons for what is read, and a ring in each marked cell."""
    layers, tokens = measured.num_layers, measured.num_tokens
    noise = max(measured.own.noise, SHORTEST)
    views: list[tuple[str, str, numpy.ndarray]] = [
        ("at the last token", "KL (nats)", _log10(measured.own.last["matched"].mean(-1).numpy(), noise)),
        ("at each token's own next word", "KL (nats)", _log10(measured.own.own["matched"].mean(-1).numpy(), noise)),
        ("isotropic null", "KL (nats)", _log10(measured.own.last["isotropic"].mean(-1).numpy(), noise)),
    ]
    if measured.twins:
        means = numpy.log10(numpy.maximum(measured.twin_means().numpy(), noise)).mean(axis=0)
        views.append(("untrained twins", "KL (nats)", means))
    values = numpy.concatenate([grid.ravel() for *_, grid in views])
    low, high = float(values.min()), max(float(values.max()), float(values.min()) + 1)
    ticks = [power for power in range(int(numpy.floor(low)), int(numpy.ceil(high)) + 1) if low <= power <= high]
    heat = {
        "type": "heatmap",
        "z": [numbers(row) for row in views[0][2]],
        "x": list(range(tokens)),
        "y": list(range(layers)),
        "zmin": low,
        "zmax": high,
        "colorscale": "Cividis",
        "xgap": 1,
        "ygap": 1,
        "customdata": [[_hover(measured, layer, token) for token in range(tokens)] for layer in range(layers)],
        "hovertemplate": "%{customdata}<extra></extra>",
        "colorbar": {
            "title": {"text": "KL (nats)", "side": "right"},
            "tickvals": ticks,
            "ticktext": [f"10<sup>{power}</sup>" for power in ticks],
        },
    }
    marked = measured.marks.marked.nonzero().tolist()
    above = measured.above_twins.nonzero().tolist()
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": [token for _, token in above],
        "y": [layer for layer, _ in above],
        "marker": {"symbol": "circle", "size": 7, "color": "#ffffff", "line": {"width": 2, "color": "#000000"}},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    buttons = [
        {"label": label, "method": "restyle", "args": [{"z": [[numbers(row) for row in grid]]}, [0]]}
        for label, _, grid in views
    ]
    return Figure(
        name="sensitivity_map",
        title="Where a small disturbance matters",
        caption=f"How far the prediction moves when one token is disturbed at the input of one block by "
        f"{measured.fraction:g} of the distance between two real activations, mean over "
        f"{measured.own.last['matched'].shape[-1]} random directions with their covariance. {_about_marks(measured)} "
        "The menu shows other read-outs and the nulls, in the same colours.",
        traces=[heat, *rings(marked), dots],
        x=Axis(title="disturbed token"),
        y=Axis(title="input of block"),
        layout={
            "xaxis": {"title": {"text": "disturbed token"}, "showgrid": False, **token_axis(measured.tokens)},
            "yaxis": {"title": {"text": "input of block"}, "dtick": 1, "showgrid": False},
            "showlegend": False,
            "height": 150 + 42 * min(layers, 16),
            "updatemenus": [_menu(buttons)],
        },
    )


def cells_figure(measured: SensitivityMap) -> Figure:
    """One block input at a time: each token with its interval, over the band of its nulls."""
    tokens = list(range(measured.num_tokens))
    noise = max(measured.own.noise, SHORTEST)
    traces: list[dict[str, Any]] = []
    means = numpy.maximum(measured.twin_means().numpy(), noise)
    first = measured.most_sensitive(1)[0][0]
    for layer in range(measured.num_layers):
        visible = layer == first
        isotropic = [measured.estimate(layer, token, kind="isotropic") for token in tokens]
        if len(means):
            low, high = means[:, layer].min(axis=0), means[:, layer].max(axis=0)
            traces.append(
                {
                    "type": "bar",
                    "name": "untrained twins (range)",
                    "x": tokens,
                    "base": numbers(low),
                    "y": numbers(numpy.maximum(high - low, 0.02 * low)),
                    "width": 0.6,
                    "marker": {"color": NULL_COLOUR, "opacity": 0.45},
                    "visible": visible,
                    "hoverinfo": "skip",
                }
            )
        traces.append(_dots(tokens, isotropic, "isotropic, equal norm", noise, PALETTE[4], "diamond", visible, 0.12))
        own = [measured.estimate(layer, token) for token in tokens]
        traces.append(_dots(tokens, own, measured.network, noise, PALETTE[0], "circle", visible, -0.12))
    each = len(traces) // measured.num_layers
    buttons = [
        {
            "label": f"input of block {layer}",
            "method": "restyle",
            "args": [{"visible": [place // each == layer for place in range(len(traces))]}],
        }
        for layer in range(measured.num_layers)
    ]
    title = "KL at the last token (nats)"
    return Figure(
        name="cells_and_nulls",
        title="Each cell beside what chance gives there",
        caption="The network's response in each cell of one block input, with 99 % intervals over directions, beside "
        "the same cell in untrained twins and beside isotropic directions of equal norm; the menu changes the block.",
        traces=traces,
        x=Axis(title="disturbed token"),
        y=Axis(title=title, log=True),
        layout={
            "xaxis": {"title": {"text": "disturbed token"}, **token_axis(measured.tokens)},
            "barmode": "overlay",
            "updatemenus": [_menu(buttons, active=first)],
        },
    )


def _dots(
    tokens: list[int],
    estimates: list[Any],
    name: str,
    noise: float,
    colour: str,
    symbol: str,
    visible: bool,
    shift: float,
) -> dict[str, Any]:
    values = numpy.maximum([one.value for one in estimates], noise)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [token + shift for token in tokens],
        "y": numbers(values),
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": numbers(numpy.maximum([one.high for one in estimates], noise) - values),
            "arrayminus": numbers(values - numpy.maximum([one.low for one in estimates], noise)),
            "thickness": 1.5,
        },
        "marker": {"color": colour, "symbol": symbol, "size": 8},
        "visible": visible,
    }


def _about_marks(measured: SensitivityMap) -> str:
    """What rings and dots say, and what it means that there are none."""
    num_marked, num_cells = int(measured.marks.marked.sum()), measured.marks.marked.numel()
    if num_marked:
        told = f"Rings (\N{WHITE CIRCLE}) mark cells above {measured.marks.against}, {num_marked} of {num_cells}"
    else:
        told = f"No cell has a ring, which would say that it lies above {measured.marks.against}: {NOTHING_MARKED}"
    if not measured.twins:
        return f"{told}."
    num_above = int(measured.above_twins.sum())
    dotted = f"dots (\N{BULLET}) mark cells above the twins, {num_above}" if num_above else "none is above the twins"
    return f"{told}; {dotted}."


def _menu(buttons: list[dict[str, Any]], active: int = 0) -> dict[str, Any]:
    """The report draws it as a menu of the page, above the figure."""
    return {"type": "dropdown", "buttons": buttons, "active": active}


def _hover(measured: SensitivityMap, layer: int, token: int) -> str:
    lines = [
        f"<b>{shown(measured.tokens[token])}</b>, input of block {layer}",
        f"last token: {measured.estimate(layer, token)}",
        f"own next word: {measured.estimate(layer, token, read='own')}",
        f"isotropic: {measured.estimate(layer, token, kind='isotropic')}",
    ]
    means = measured.twin_means()[:, layer, token].tolist()
    if means:
        lines.append(f"untrained twins: {min(means):.3g} to {max(means):.3g}")
    lines.append(f"adjusted p {float(measured.marks.adjusted[layer, token]):.2g}")
    return "<br>".join(lines)


def _log10(values: numpy.ndarray, floor: float) -> numpy.ndarray:
    found: numpy.ndarray = numpy.log10(numpy.maximum(values, floor))
    return found

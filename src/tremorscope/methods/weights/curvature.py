"""The top of the Hessian spectrum and its trace, beside what chance gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, line
from tremorscope.foundations.results import Table
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Hessian
from tremorscope.instruments.spectrum import Spectrum, eigsh
from tremorscope.instruments.task import Batch
from tremorscope.instruments.trace import trace

_TOLERANCE = 1e-4
_PRODUCTS_PER_PAIR = 6  # of the eigensolver, roughly
_MARKS = ("circle", "diamond", "square", "x")


@final
@dataclass(frozen=True, kw_only=True)
class CurvatureMeasurement:
    """Largest eigenvalues and trace of the Hessian of the mean loss, by name of the network measured.

    The first name is the network itself, the others are its nulls. Units: loss per squared weight.
    """

    spectra: Mapping[str, Spectrum]
    traces: Mapping[str, Estimate]
    losses: Mapping[str, float]
    num_examples: int
    flags: tuple[str, ...] = ()

    @property
    def own(self) -> str:
        """Name of the network itself."""
        return next(iter(self.spectra))

    def tables(self) -> list[Table]:
        """Trace, largest eigenvalue and their ratio."""
        rows = []
        for name, spectrum in self.spectra.items():
            values = spectrum.values
            rows.append(
                {
                    "network": name,
                    "loss": self.losses[name],
                    "trace": self.traces[name],
                    "largest eigenvalue": float(values[0]),
                    "largest residual": float(spectrum.residuals.max()),
                    f"sum of the largest {len(self.spectra[self.own].values)}": float(values.sum()),
                    "products": spectrum.num_products,
                }
            )
        return [
            Table.of_rows(
                rows,
                name="curvature",
                title="Curvature of the loss",
                caption=f"Hessian of the mean loss over {self.num_examples} examples: trace with its 99 % "
                "interval, largest eigenvalue with the largest true residual ||H v - lambda v|| of the pairs found.",
            )
        ]

    def figures(self) -> list[Figure]:
        """The largest eigenvalues against those of the nulls."""
        traces = []
        for place, (name, spectrum) in enumerate(self.spectra.items()):
            positive = spectrum.values[spectrum.values > 0]
            traces.append(
                line(
                    range(1, len(positive) + 1),
                    positive,
                    name,
                    colour=PALETTE[0] if place == 0 else NULL_COLOUR,
                    dash=None if place == 0 else "dot",
                    markers=True,
                )
                | {"marker": {"symbol": _MARKS[place % len(_MARKS)], "size": 7}}
            )
        own = self.spectra[self.own].values
        return [
            Figure(
                name="hessian_spectrum",
                title="Largest eigenvalues of the Hessian",
                caption=f"The {len(own)} largest eigenvalues of {self.own} sum to {float(own.sum()):.4g}; all of "
                f"them, negative ones too, to {self.traces[self.own]} (the trace). Grey: its nulls. Only positive "
                "eigenvalues are drawn.",
                traces=traces,
                x=Axis(title="rank"),
                y=Axis(title="eigenvalue, loss per squared weight", log=True),
            )
        ]


def measure_curvature(
    networks: Mapping[str, Network],
    batches: Mapping[str, Batch],
    *,
    num_eigenvalues: int = 20,
    num_probes: int = 64,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> CurvatureMeasurement:
    """How stiff is the loss, and in how few directions, compared with a null?

    Args:
        networks: The network first, then its nulls, by the name that the report shows.
        batches: Data of each.
        num_eigenvalues: How many of the largest to find, at most half of all.
        num_probes: Random probes of the trace; exact where there are fewer weights than that.
        seed: Names the streams of probes and start vectors.
        say: Is told what the products of each network will take, before they are made.

    Cost: for each network about `6 num_eigenvalues + num_probes` Hessian products.

    Raises:
        BadInput: If the loss cannot be differentiated twice.
        NotConverged: If an eigenpair does not reach its tolerance.
    """
    spectra, traces, losses, flags = {}, {}, {}, []
    for name, network in networks.items():
        hessian = Hessian(network, batches[name])
        count = min(num_eigenvalues, max(1, hessian.shape[0] // 2))
        if say is not None:
            planned = _PRODUCTS_PER_PAIR * count + num_probes
            say(f"Hessian of {name}, {hessian.shape[0]:,} weights: {hessian.product_cost().told(planned)}")
        spectra[name] = eigsh(hessian, count, which="largest", tol=_TOLERANCE, seed=seed)
        traces[name] = trace(hessian, method="xtrace", num_probes=num_probes, seed=seed)
        losses[name] = float(network.loss(network.params, batches[name]).detach())
        flags += [f"Hessian of {name}: {flag}" for flag in (*hessian.flags, *spectra[name].flags)]
    first = next(iter(batches.values()))
    return CurvatureMeasurement(
        spectra=spectra,
        traces=traces,
        losses=losses,
        num_examples=0 if first.target is None else len(first.target),
        flags=tuple(dict.fromkeys(flags)),
    )

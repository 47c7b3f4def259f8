"""A Result of every kind of content, with invented numbers, for tests of what shows or moves Results."""

from __future__ import annotations

import numpy

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, band, line, points
from tremorscope.foundations.results import Result, Table, drawn
from tremorscope.foundations.seeds import numpy_generator

SCOPE = "Holds on this model; the paper's setting was not run."


def example_result(*, seed: int = 100, num_rows: int = 40) -> Result:
    """Claims of all four verdicts with their nulls, three figures, two tables with estimates, flags.

    `num_rows` is the length of the longer table. The numbers are drawn, not measured.
    """
    generator = numpy_generator(seed, "example")
    return Result(
        study="example",
        preset="quick",
        seed=seed,
        config={
            "num_seeds": 5,
            "hidden": 16,
            "tolerances": [0.01, 0.05, 0.1],
            "train": {"optimiser": "momentum", "lr": 0.1, "momentum": 0.9, "num_steps": 300},
            "dtype": "float64",
        },
        title="Training leaves most directions of parameter space as they were",
        summary=[
            "Of 1,210 directions, 873 keep their length to within 5 %; 91 are stretched and 246 shrunk.",
            "The kept directions barely rotate, agree between seeds and do not change the network's answers to digits.",
            "With shuffled labels the first of these is as true, so it says nothing about learning.",
        ],
        flags=[
            "One of five members stopped above the training loss that the recipe asks for (0.031, wanted 0.02).",
            "The spectrum below 1e-9 is round-off: those values are left out of every count.",
        ],
        claims=_claims(),
        tables=[_regions(generator), _layers(generator, num_rows)],
        figures=[drawn(_spectrum(generator)), drawn(_response(generator)), drawn(_alignment(generator))],
        provenance={
            "command": "tremorscope run example --preset quick --seed 100 --set hidden=16",
            "seconds": 92.4,
            "started": "2026-11-20T10:15:02+00:00",
            "environment": {
                "python": "3.11.9",
                "torch": "2.13.0",
                "numpy": "2.4.1",
                "platform": "Linux x86_64",
                "cpu": {"model": "Example CPU at 2.6 GHz", "cores": 8},
                "memory_bytes": 33_554_432_000,
            },
        },
    )


def _t(value: float, half: float, n: int = 5) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, level=0.99, n=n, method="t")


def _claims() -> tuple[Claim, ...]:
    def claim(row: str, statement: str, expected: Expected, measured: Estimate, **nulls: Estimate) -> Claim:
        described = {
            "shuffled labels": "The same network, recipe and seeds, trained on labels that were permuted once.",
            "matched covariance": "Gaussian inputs with the mean and the covariance of the digits.",
            "no network": "Random orthonormal directions of the same number.",
        }
        evidence = tuple(
            NullEvidence(name=name, description=described[name], measured=estimate)
            for name, estimate in ((key.replace("_", " "), value) for key, value in nulls.items())
        )
        return Claim(
            study="example",
            row=row,
            preset="quick",
            statement=statement,
            source="Invented for this example; no paper says so.",
            scope=SCOPE,
            expected=expected,
            measured=measured,
            nulls=evidence,
            without_null=None if evidence else "An identity: it holds for every matrix.",
        )

    calibrated = "calibration seeds 0 to 9: the smallest of ten, rounded down"
    return (
        claim(
            "E1",
            "The bulk keeps its directions: left and right singular vectors of the same index point the same way.",
            Expected(low=0.95, origin=calibrated),
            _t(0.98731, 0.00842),
            matched_covariance=_t(0.6123, 0.0712),
            no_network=_t(0.0271, 0.0063),
        ),
        claim(
            "E2",
            "The bulk is nearly silent: moving along it changes the answers to digits by less than a thousandth of "
            "what an equally long step along the top directions does.",
            Expected(high=1e-3, origin="a figure, read by eye; was 5e-4, now 1e-3, because quick trains less"),
            Estimate(value=6.2e-5, low=2.9e-5, high=1.31e-4, level=0.99, n=5, method="bootstrap BCa"),
            shuffled_labels=Estimate(value=0.0187, low=0.0093, high=0.042, level=0.99, n=5, method="bootstrap BCa"),
            matched_covariance=Estimate(value=0.31, low=0.24, high=0.4, level=0.99, n=5, method="bootstrap BCa"),
        ),
        claim(
            "E3",
            "Most directions of parameter space belong to the bulk.",
            Expected(low=0.5, high=0.9, origin="the paper"),
            _t(0.7215, 0.0311),
            shuffled_labels=_t(0.6904, 0.0452),
        ),
        claim(
            "E4",
            "The spectrum is symmetric about one.",
            Expected(low=-0.1, high=0.1, origin=calibrated),
            _t(-0.4127, 0.0833),
            shuffled_labels=_t(-0.3311, 0.1205),
            no_network=_t(0.0021, 0.0604),
        ),
        claim(
            "E5",
            "Two seeds share more of the bulk than two random subspaces of the same size do.",
            Expected(low=1.2, origin=calibrated),
            _t(1.2604, 0.1308),
            no_network=_t(1.0002, 0.0019),
        ),
        claim(
            "E6",
            "The largest singular value is above ten.",
            Expected(low=10, origin="the paper"),
            Estimate.one_seed(31.72),
            no_network=Estimate.one_seed(1.0),
        ),
        claim(
            "E7",
            "Squared singular values sum to the squared Frobenius norm.",
            Expected(low=-1e-9, high=1e-9, origin="round-off of float64"),
            Estimate.exact(3.1e-13),
        ),
    )  # fmt: skip


def _spectrum(generator: numpy.random.Generator) -> Figure:
    index = numpy.arange(1, 1211)
    below = 1 - numpy.sort(generator.exponential(0.25, 246))
    values = numpy.concatenate(
        [
            numpy.exp(numpy.linspace(3.5, 0.05, 91)),
            numpy.linspace(1.04, 0.97, 873),
            numpy.clip(below, 1e-4, None) * 0.96,
        ]
    )
    null = numpy.exp(0.25 * numpy.sort(generator.standard_normal(1210))[::-1])
    return Figure(
        name="spectrum",
        title="Singular values of the training Jacobian",
        caption="Ninety-one directions are stretched, most keep their length, a tail is shrunk; dots mark one.",
        traces=[
            band(index, null * 0.8, null * 1.25, "shuffled labels, 99 % of five seeds"),
            line(index, null, "shuffled labels", colour=NULL_COLOUR),
            line(index, values, "digits", colour=PALETTE[0]),
        ],
        x=Axis(title="index, largest first"),
        y=Axis(title="singular value", log=True, range=(1e-4, 1e2)),
        layout={
            "shapes": [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": {"dash": "dot"}}]
        },
    )


def _response(generator: numpy.random.Generator) -> Figure:
    sizes = numpy.logspace(-3, 1, 25)
    traces = []
    for place, (name, scale) in enumerate((("stretched", 3.0), ("bulk", 1e-4), ("shrunk", 0.05))):
        curve = scale * sizes**2 / (1 + 0.3 * sizes**2) * numpy.exp(0.08 * generator.standard_normal(25))
        traces.append(
            band(sizes, curve * 0.7, curve * 1.4, f"{name}, interval", colour=PALETTE[place]) | {"showlegend": False}
        )
        traces.append(line(sizes, curve, name, colour=PALETTE[place], markers=True))
    null = 0.2 * sizes**2 / (1 + 0.3 * sizes**2)
    traces.append(line(sizes, null, "random directions", colour=NULL_COLOUR, dash="dash"))
    return Figure(
        name="response",
        title="How far the answers move",
        caption="A step along the bulk changes the answers a thousandfold less than one along a random direction.",
        traces=traces,
        x=Axis(title="length of the step (relative to the weights)", log=True),
        y=Axis(title="KL to the trained network (nats)", log=True),
    )


def _alignment(generator: numpy.random.Generator) -> Figure:
    value = numpy.concatenate(
        [generator.uniform(1.1, 4, 90), generator.normal(1, 0.02, 300), generator.uniform(0.1, 0.95, 90)]
    )
    aligned = numpy.clip(1 - 0.9 * numpy.abs(value - 1) + 0.04 * generator.standard_normal(480), 0, 1)
    return Figure(
        name="alignment",
        title="Directions that keep their length keep their bearing",
        caption="Each dot is one singular pair; alignment is the cosine between its left and right vector.",
        traces=[points(value, aligned, "digits"),
            points(value[::4], 0.1 * generator.random(120), "no network", colour=NULL_COLOUR)],
        x=Axis(title="singular value"),
        y=Axis(title="alignment (cosine)", range=(-0.02, 1.05)),
    )  # fmt: skip


def _regions(generator: numpy.random.Generator) -> Table:
    names = ("stretched", "bulk", "shrunk")
    return Table(
        name="regions",
        title="Regions of the spectrum",
        caption="Counts and shares over five members; the bulk is what keeps its length to within the tolerance.",
        columns={
            "region": names,
            "directions": [91, 873, 246],
            "share": [Estimate.mean(share + 0.01 * generator.standard_normal(5)) for share in (0.075, 0.722, 0.203)],
            "alignment": [_t(0.214, 0.081), _t(0.9873, 0.0084), Estimate.one_seed(0.4021)],
            "shared between seeds": [True, True, False],
            "largest_kl": [2.913, 1.03e-4, None],
        },
    )


def _layers(generator: numpy.random.Generator, num_rows: int) -> Table:
    return Table(
        name="tensors",
        title="Response by parameter tensor",
        caption="How much each tensor moves the answers when it alone is disturbed, longest first.",
        columns={
            "tensor": [f"layers.{i // 2}.{'bias' if i % 2 else 'weight'}" for i in range(num_rows)],
            "entries": [int(16 * (1 + i % 7) ** 2) for i in range(num_rows)],
            "response": [Estimate.mean(1 / (1 + i) + 0.05 * generator.random(5)) for i in range(num_rows)],
            "curvature": list(numpy.exp(generator.standard_normal(num_rows) * 3)),
        },
    )

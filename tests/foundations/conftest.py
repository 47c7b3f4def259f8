"""Small builders that several of these tests share."""

from __future__ import annotations

import math

import pytest

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import Axis, Figure, line
from tremorscope.foundations.results import Result, Table, drawn


def interval(low, high):
    middle = (low + high) / 2
    return Estimate(value=middle if math.isfinite(middle) else 0.0, low=low, high=high, level=0.99, n=5, method="t")


def claim_about(measured, *nulls, low=1.0, **changes):
    parts = {
        "study": "waves",
        "row": "W1",
        "preset": "quick",
        "statement": "Waves are high.",
        "source": "arXiv:0000.00000",
        "scope": "this pond",
        "expected": Expected(low=low, origin="calibration seeds 0-9"),
        "measured": measured,
        "nulls": tuple(
            NullEvidence(name=f"null {index}", description="no wind", measured=null) for index, null in enumerate(nulls)
        ),
    }
    return Claim(**(parts | changes))


@pytest.fixture
def result():
    table = Table(
        name="heights",
        title="Heights",
        caption="In metres.",
        columns={"pond": ["north", "south"], "height": [interval(0.5, 1.5), None], "depth": [3.0, None]},
    )
    figure = Figure(
        name="shape",
        title="Shape",
        caption="A wave.",
        traces=[line([0, 1], [1, 2], "wave")],
        x=Axis(title="x"),
        y=Axis(title="y", log=True, range=(0.1, 10.0)),
    )
    return Result(
        study="waves",
        preset="quick",
        seed=100,
        config={"width": 4, "names": ["a"]},
        title="Waves",
        summary=("Waves are high.",),
        claims=(claim_about(interval(2, 3), interval(0, 0.5)),),
        tables=(table,),
        figures=(drawn(figure),),
        flags=("one pond",),
        provenance={"seconds": 1.5},
    )

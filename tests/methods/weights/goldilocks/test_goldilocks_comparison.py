from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from tests.methods.weights.goldilocks.networks import DOUBLE
from tremorscope.methods.weights.goldilocks.comparison import RELU, SPHERE, TANH, TANH_HOT, ZoneComparison
from tremorscope.methods.weights.goldilocks.foretold import ForetoldComparison, ForetoldCurve
from tremorscope.methods.weights.goldilocks.hyperplane_training import HyperplaneTraining
from tremorscope.methods.weights.goldilocks.measurement import QUANTITIES, GoldilocksMeasurement
from tremorscope.methods.weights.goldilocks.readings import (
    far_share,
    flat_peak,
    largest,
    over,
    peak,
    peak_scale,
    ratio_at,
    ratio_at_peak,
    share_at_peak,
    shell,
)

SCALES = (0.1, 1.0, 3.0, 30.0)


def made(name: str, *, lift: float = 0.0, scaling: str = "weights", scales=SCALES) -> GoldilocksMeasurement:
    """Kappa 0.5, 4, 3, -0.5 (plus lift), its parts in simple proportions; random signs flat at 0.25."""
    kappa = torch.tensor([[0.5, 4.0, 3.0, -0.5]], dtype=DOUBLE) + lift
    curves = {q: torch.full_like(kappa, 0.25) for q in QUANTITIES}
    curves |= {
        "kappa": kappa,
        "positive_share": 0.5 + kappa / 10,
        "flat_kappa": 2 * kappa,
        "gauss_newton_ratio": torch.tensor([[0.1, 10.0, 100.0, 1.0]], dtype=DOUBLE),
    }
    return GoldilocksMeasurement(
        name=name,
        scaling=scaling,
        surface="plane",
        dimension=40,
        num_parameters=100,
        typical_norm=2.0,
        scales=scales,
        curves=curves,
    )


@pytest.fixture
def comparison() -> ZoneComparison:
    hot = (0.1, 1.0, 30.0, 1e4)
    training = HyperplaneTraining(
        dimensions=(5,),
        scales=(0.1, 1.0, 10.0),
        accuracy=torch.tensor([[0.2, 0.9, 0.5]], dtype=DOUBLE),
        kappa=torch.tensor([[0.0, 2.0, 1.0]], dtype=DOUBLE),
        loss=torch.tensor([[1.0, 2.0, 3.0]], dtype=DOUBLE),
    )
    level = HyperplaneTraining(
        dimensions=training.dimensions,
        scales=training.scales,
        accuracy=1 - training.accuracy,
        kappa=torch.ones_like(training.kappa),
        loss=torch.ones_like(training.loss),
    )
    cells = [
        {"width": 4, "depth": 2, "scheme": scheme, "share of peak": share, "peak": 3.0, "shell": 0.25}
        for scheme, share in (("xavier", 0.4), ("he", 0.9))
    ]
    checks = [
        {"scales": kind, "gain": {"kappa": -gain, "positive_share": 0.0, "loss": gain}, "null": 0.1, "num_censored": 1}
        for kind in ("one", "mixed")
        for gain in (0.5, 1.0)
    ]
    told = ForetoldCurve(
        scales=(1.0, 3.0, 7.0),  # 7 was not measured
        dimension=16,
        num_parameters=100,
        kappa=torch.tensor([[4.0, 2.0, 9.0]], dtype=torch.float64),
        trace=torch.ones(1, 3, dtype=torch.float64),
        half_width=torch.full((1, 3), 0.25, dtype=torch.float64),
    )
    return ZoneComparison(
        foretold=[told, told],
        curves={
            RELU: [made(RELU), made(RELU, lift=0.2)],
            TANH: [made(TANH), made(TANH)],
            TANH_HOT: [made(TANH_HOT, scaling="temperature", scales=hot)] * 2,
            SPHERE: [made(SPHERE)] * 2,
        },
        hyperplanes=[(training, level)] * 2,
        architectures=[cells, cells],
        selections=checks,
    )


def test_readings_of_a_curve():
    curve = made("curve")
    assert peak(curve) == 4
    assert flat_peak(curve) == 8
    assert peak_scale(curve) == 0
    assert share_at_peak(curve) == pytest.approx(0.9)
    assert far_share(curve) == pytest.approx(0.05)
    assert ratio_at_peak(curve) == pytest.approx(1)
    assert ratio_at(3.0)(curve) == pytest.approx(2)
    assert largest(curve, 2, 100) == 3
    assert over(curve, 0.5, 5).tolist() == [4, 3]
    assert shell(curve) == pytest.approx(3.5)
    chance = curve.chance("signs")
    assert peak(chance) == flat_peak(chance) == 0.25
    assert shell(chance) == 0


def test_intervals_are_over_members_and_differences_are_paired(comparison):
    assert comparison.mean(RELU, peak).value == pytest.approx(4.1)
    assert comparison.mean(RELU, peak).n == 2
    assert comparison.difference(RELU, TANH, peak).value == pytest.approx(0.1)
    assert comparison.difference(TANH, TANH, peak).value == 0


def test_undefined_members_are_left_out_and_nothing_is_decided_on_none(comparison):
    def never(measured: GoldilocksMeasurement) -> float:
        return math.nan

    def rarely(measured: GoldilocksMeasurement) -> float:
        return peak(measured) if peak(measured) > 4.1 else math.nan

    assert comparison.mean(RELU, rarely).value == pytest.approx(4.2)
    nothing = comparison.mean(RELU, never)
    assert (nothing.low, nothing.high, nothing.n) == (-math.inf, math.inf, 0)
    dead = made("dead")
    dead.curves["gauss_newton_ratio"].zero_()
    assert ratio_at(3.0)(dead) == -16


def test_training_parts(comparison):
    assert comparison.hyperplane_correlation("kappa").value == pytest.approx(1)
    assert comparison.hyperplane_correlation("equal loss").value == pytest.approx(-1)
    assert comparison.hyperplane_correlation("loss").value == pytest.approx(-0.5)
    assert comparison.inside().value == 0.5
    assert comparison.inside("he").value == 1
    assert comparison.inside("xavier").value == 0
    assert comparison.inside("he", by_chance=True).value == 0.25
    assert comparison.gain("kappa", "mixed").value == -0.75
    assert comparison.gain("loss", "one").value == 0.75
    assert comparison.gain("random", "one").value == pytest.approx(0.1)
    assert comparison.gain("kappa", "one", level=0.5).level == 0.5


def test_the_whole_hessian_beside_subspaces(comparison):
    both = comparison.whole_hessian
    assert both.scales == (1.0, 3.0)
    assert both.difference_at_peak() == pytest.approx([0, 0.2])
    assert both.difference_at_peak(elsewhere=True) == pytest.approx([2, 2.2]), "less what scale 3 foretells"
    assert both.distance()[0] == pytest.approx(math.sqrt((0 + 1) / 2))
    assert both.distance(elsewhere=True)[0] == pytest.approx(math.sqrt((2**2 + 1) / 2))
    (table,) = both.tables()
    assert table.columns["difference"][1].value == pytest.approx(1.1)
    assert table.columns["left open by the probes of one draw"] == [0.25, 0.25]
    assert comparison.over([math.nan, 1.0]).value == 1
    assert "foretold" in {table.name for table in comparison.tables()}
    assert "kappa_foretold" in {figure.name for figure in comparison.figures()}
    nothing = replace(both.foretold[0], kappa=torch.full((1, 3), math.nan))
    dead = ForetoldComparison(measured=both.measured[:1], foretold=[nothing])
    assert dead.tables()[0].columns["difference"] == [None, None]


def test_what_is_shown(comparison):
    tables = {table.name: table for table in comparison.tables()}
    assert set(tables) >= {"zones", "architectures", "selection", "goldilocks_relu_weights"}
    assert tables["zones"].columns["at scale"] == [1.0, 1.0, 1.0, 1.0]
    figures = {figure.name: figure for figure in comparison.figures()}
    assert set(figures) >= {"kappa_weights", "kappa_temperature", "hyperplane_training", "selection"}
    for figure in figures.values():
        json.dumps(figure.to_plotly(), allow_nan=False)
    assert "4.1 [" in comparison.summary()[0]
    assert "hyperspheres" in comparison.summary()[-1]
    assert "4 runs of the selection did not reach the loss" in comparison.flags()[-1]

"""Curves and their summaries: exact cases, the Fisher metric, planted plateaus, and what is refused."""

from __future__ import annotations

import math

import numpy
import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.methods.activations.plateaus.curves import Curves, measure_curves, reached_summary
from tremorscope.methods.activations.plateaus.kinds import unit
from tremorscope.methods.activations.plateaus.paths import Paths
from tremorscope.methods.activations.plateaus.planted import PlantedFeatures
from tremorscope.methods.activations.plateaus.responder import FunctionResponder

ANGLES = [5.0 * k for k in range(1, 19)]
ZERO = torch.zeros(1, dtype=torch.int64)


def linear(d=12, classes=7, seed=0):
    """A linear map to logits, and a base."""
    stream = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, d, generator=stream, dtype=torch.float64)
    base = torch.randn(1, d, generator=stream, dtype=torch.float64)
    return weight, base


def measured(responder, paths, sizes, **more):
    groups = torch.zeros(len(paths.base), dtype=torch.int64)
    return measure_curves(responder, paths, sizes, bases=groups, rows=ZERO, **more)


def by_hand(sizes, values):
    return Curves(
        sizes=numpy.array(sizes, dtype=float),
        values={"l2": numpy.array(values, dtype=float)},
        bases=numpy.arange(len(values)),
        unit="degrees",
    )


def test_nothing_happens_at_size_zero():
    weight, base = linear()
    responder = FunctionResponder(lambda x: torch.tanh(x @ weight.T.float()), base.float())
    stream = torch.Generator().manual_seed(1)
    for make in (Paths.sphere, Paths.straight):
        paths = make(base.expand(4, -1), torch.randn(4, 12, generator=stream, dtype=torch.float64))
        curves = measured(responder, paths, [0.0, 1e-9, 10.0])
        # Row 0 is 0 by definition; the next is as near as to be the same point, and measured.
        for place in (0, 1):
            assert float(numpy.abs(curves.of("kl")[:, place]).max()) < 1e-6
            assert float(numpy.abs(curves.of("cosine")[:, place] - 1).max()) < 1e-6
        assert curves.of("kl")[:, 2].min() > 1e-5


def test_small_moves_cost_half_the_fisher_metric():
    weight, base = linear()
    probabilities = (base @ weight.T).softmax(dim=1)[0]
    fisher = weight.T @ (torch.diag(probabilities) - torch.outer(probabilities, probabilities)) @ weight
    direction = unit(torch.randn(6, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    sizes = [0.004, 0.008, 0.016, 0.03]
    curves = measured(
        FunctionResponder(lambda x: x @ weight.T, base), Paths.straight(base.expand(6, -1), direction), sizes
    )
    expected = (
        0.5
        * numpy.array([0.0, *sizes]) ** 2
        * torch.einsum("nd,de,ne->n", direction, fisher, direction).numpy()[:, None]
    )
    kl = curves.of("kl")
    small = (kl > 0) & (kl < 1e-3)
    assert small.sum() >= 12
    assert float(numpy.abs(kl[small] / expected[small] - 1).max()) < 0.02
    slope = curves.initial_slope("kl", up_to=0.03)
    assert int(numpy.isnan(slope).sum()) <= 1  # where too little is above rounding
    assert slope[~numpy.isnan(slope)] == pytest.approx(2.0, abs=0.05)


def test_a_random_base_is_compared_with_itself():
    weight, base = linear()
    responder = FunctionResponder(lambda x: x @ weight.T, base)
    elsewhere = base + 5
    curves = measured(responder, Paths.straight(elsewhere, base), [1e-7, 1.0])
    assert curves.of("kl")[0, 1] < 1e-9
    # The plant: the clean prompt as the reference would show a large divergence here.
    logits = torch.stack([base[0] @ weight.T, elsewhere[0] @ weight.T]).log_softmax(dim=1)
    assert float((logits[0].exp() * (logits[0] - logits[1])).sum()) > 0.1


def test_a_planted_plateau_ends_where_it_was_planted():
    planted = PlantedFeatures.draw(24, 24, width=0.3, seed=0, active=2)
    base = planted.activations(1, 0)
    inactive = planted.features[(planted.features @ base[0]).abs() < 0.5]
    responder = planted.responder(base)
    fine = numpy.arange(0.0, 90.0, 0.25).tolist()

    def thresholds(directions):
        paths = Paths.sphere(base.expand(len(directions), -1), directions)
        return measured(responder, paths, fine, readouts=("l2",)).threshold("l2", 1e-3)

    on_axis = thresholds(inactive)
    assert on_axis == pytest.approx(planted.threshold_angle(base[0]), rel=0.01)
    isotropic = thresholds(torch.randn(30, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert isotropic.min() > on_axis.max()
    straight = measured(
        responder,
        Paths.straight(base.expand(len(inactive), -1), inactive),
        numpy.arange(0, 0.49, 0.004).tolist(),
        readouts=("l2",),
    )
    assert straight.threshold("l2", 1e-3) == pytest.approx(planted.width, rel=0.01)


def test_summaries_of_known_curves():
    sizes = [0, 10, 20, 45, 90]
    curves = by_hand(sizes, [[0, 0, 1, 2, 4], [0, 1, 2, 4.5, 9], [0, 0, 0, 0, 0]])
    assert curves.threshold("l2", 2.0).tolist() == [45.0, 20.0, math.inf]
    assert curves.half_response("l2").tolist() == [45.0, 45.0, math.inf]
    index = curves.plateau_index("l2", (5, 10, 20))
    assert index[:2].tolist() == [[0.0, 0.0, 0.25], [0.5 / 9, 1 / 9, 2 / 9]]
    assert numpy.isnan(index[2]).all()
    slope = curves.initial_slope("l2", up_to=45)
    assert slope[1] == pytest.approx(1.0)
    assert numpy.isnan(slope[2])
    steepest, where = curves.blow_up("l2")
    assert (steepest[0], where[0]) == (0.1, 15.0)
    with pytest.raises(BadInput, match="wanted between 0 and 90, as measured"):
        curves.half_response("l2", at=120)
    with pytest.raises(BadInput, match="readout: got kl; wanted one of l2"):
        curves.of("kl")


def test_a_level_that_is_never_reached_is_a_value():
    found = reached_summary(by_hand([0, 1, 2], [[0, 1, 2], [0, 0, 0], [0, 0, 0.1]]).threshold("l2", 1.0))
    assert (found.median, found.reached, found.count) == (math.inf, 1, 3)
    assert found.fraction == pytest.approx(1 / 3)
    with pytest.raises(BadInput, match="sizes that were reached"):
        reached_summary([1.0, math.nan])


def test_a_model_without_logits_has_no_kl():
    responder = FunctionResponder(lambda x: x, torch.ones(1, 3), is_logits=False)
    paths = Paths.sphere(torch.ones(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))
    with pytest.raises(BadInput, match=r"KL divergence: got a model without logits; .*readouts=\('l2', 'cosine'\)"):
        measured(responder, paths, ANGLES)
    assert set(measured(responder, paths, ANGLES, readouts=("l2", "cosine")).values) == {"l2", "cosine"}


@pytest.mark.parametrize(
    ("sizes", "more", "message"),
    [
        ([1.0], {}, "sizes of a curve"),
        ([-1.0, 1.0], {}, "sizes of a curve"),
        ([1.0, 2.0], {"readouts": ("kl", "mse")}, "readouts: got mse; wanted some of kl, l2, cosine"),
        ([1.0, 2.0], {"readouts": ()}, "readouts: got none"),
    ],
)
def test_bad_curves_are_refused(sizes, more, message):
    responder = FunctionResponder(lambda x: x, torch.ones(1, 3))
    paths = Paths.straight(torch.ones(1, 3), torch.ones(1, 3))
    with pytest.raises(BadInput, match=message):
        measured(responder, paths, sizes, **more)


def test_outputs_that_are_not_finite_and_bases_of_another_width_are_refused():
    paths = Paths.straight(torch.ones(1, 3), torch.ones(1, 3))
    broken = FunctionResponder(lambda x: x / (x[:, :1] < 2), torch.ones(1, 3))
    with pytest.raises(BadInput, match="1 of 1 paths with outputs that are not finite"):
        measured(broken, paths, [1.0, 5.0], readouts=("l2",))
    with pytest.raises(BadInput, match="bases: got width 3; wanted 4"):
        measured(FunctionResponder(lambda x: x, torch.ones(1, 4)), paths, [1.0, 5.0])


def test_chunks_change_nothing(monkeypatch):
    weight, base = linear()
    paths = Paths.sphere(base.expand(3, -1), unit(torch.eye(3, 12, dtype=torch.float64)))
    responder = FunctionResponder(lambda x: torch.tanh(x @ weight.T), base)
    whole = measured(responder, paths, ANGLES)
    monkeypatch.setattr("tremorscope.methods.activations.plateaus.responder.CHUNK", 4)
    parts = measured(responder, paths, ANGLES)
    for readout, values in whole.values.items():
        assert numpy.allclose(parts.of(readout), values, atol=1e-12)
    # The naive twin: one point at a time.
    point = paths.points(torch.tensor([35.0], dtype=torch.float64))[1, 0]
    p, q = ((torch.tanh(x @ weight.T)).log_softmax(dim=0) for x in (base[0], point))
    assert whole.of("kl")[1, 7] == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-9)


def test_curves_survive_json_and_joining():
    curves = by_hand([0, 1, 2], [[0, 1, 2], [0, 2, 4]])
    again = Curves.from_plain(curves.to_plain())
    assert again.of("l2").tolist() == curves.of("l2").tolist()
    both = curves.joined([again])
    assert both.bases.tolist() == [0, 1, 2, 3]
    assert both.of("l2").shape == (4, 3)

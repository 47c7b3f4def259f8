"""Sums of networks, their exact residuals, and the pipeline around them."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

from tests.methods.weights.precision.fits import parabola
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.point_table import PrecisionWarning
from tremorscope.instruments.task import Task
from tremorscope.methods.weights.precision.boosting import (
    Boosted,
    Term,
    residual_scale,
    residual_task,
    two_sum,
)
from tremorscope.methods.weights.precision.floor_experiment import FloorMember, FloorPlan, adam_baseline, measure_floor
from tremorscope.methods.weights.precision.pipeline import PrecisionBudget, fit_precisely, fresh_start
from tremorscope.methods.weights.precision.standardisation import Standardisation
from tremorscope.methods.weights.precision.targets_to_fit import target_task

SMALL = PrecisionBudget(lm=40, bfgs=5, low_curvature=1, screening=5, variable_projection=5, boosted_lm=40)


def test_a_sum_of_two_numbers_loses_nothing():
    gen = torch.Generator().manual_seed(0)
    a = torch.randn(200, generator=gen, dtype=torch.float64)
    b = torch.randn(200, generator=gen, dtype=torch.float64) * 10.0 ** torch.randint(-20, 20, (200,), generator=gen)
    high, low = two_sum(a, b)
    for terms in zip(a.tolist(), b.tolist(), high.tolist(), low.tolist(), strict=True):
        x, y, s, e = map(Fraction, terms)
        assert x + y == s + e
    assert torch.equal(high, a + b)


def test_the_composition_is_exact_and_keeps_what_one_number_would_lose():
    first, second = parabola(3), parabola(4)
    c = 1e17
    model = Boosted((Term(network=first), Term(network=second, scale=c)))
    x = first.task.test_inputs
    high, low = model.exact(x)
    f1, f2 = Term(network=first).outputs(x), Term(network=second).outputs(x)
    for row in range(len(x)):
        wanted = Fraction(float(f1[row])) + Fraction(float(f2[row])) / Fraction(c)
        got = Fraction(float(high[row])) + Fraction(float(low[row]))
        assert abs(got - wanted) <= Fraction(abs(float(f2[row])) / c) * Fraction(2.0**-52)
        assert abs(Fraction(float(model(x)[row])) - wanted) <= abs(wanted) * Fraction(2.0**-52)
    # At the targets f1 + f2 / c the residual is f2's alone; a plain float64 sum would see nothing of it.
    left = model.residual(x, f1)
    torch.testing.assert_close(left, -f2 / c, rtol=1e-12, atol=0)
    assert float((f1 - (f1 + f2 / c)).abs().max()) == 0


def test_the_scale_is_one_over_the_mean_residual():
    network = parabola()
    model = Boosted((Term(network=network),))
    task, c = residual_task(network.task, model, gain=3.0)
    left = network.task.targets - model(network.task.inputs)
    assert c == 1 / float(left.abs().mean())
    assert float(task.targets.abs().mean()) == pytest.approx(1)
    assert torch.equal(task.inputs, 3 * network.task.inputs)
    assert residual_scale(torch.zeros(3)) == 1
    unscaled, one = residual_task(network.task, model, scale=1.0)
    assert one == 1
    assert torch.equal(unscaled.targets, left)


def test_standard_units_and_the_way_back():
    task = Task.of(torch.randn(30, 2, dtype=torch.float64) * 5 + 3, torch.rand(30, 1, dtype=torch.float64) - 9)
    standard = Standardisation.of(task)
    made = standard.task(task)
    for values in (made.inputs, made.targets):
        torch.testing.assert_close(values.mean(dim=0), torch.zeros_like(values[0]), atol=1e-12, rtol=0)
        torch.testing.assert_close(values.square().mean(dim=0), torch.ones_like(values[0]))
    torch.testing.assert_close(standard.back(made.targets), task.targets)
    constant = Standardisation.of(Task.of(torch.ones(4, 1), torch.ones(4, 1)))
    assert constant.inputs(torch.ones(4, 1)).isfinite().all()


def test_the_pipeline_reports_every_stage_and_adds_what_helps():
    network = parabola(6, 80)
    fit = fit_precisely(network, budget=SMALL, starts=2, seed=1)
    assert [(one.network, one.stage) for one in fit.reports] == [
        (number, stage) for number in (1, 2) for stage in ("lm", "bfgs", "low_curvature")
    ]
    errors = [one.train_rmse for one in fit.reports[:3]]
    assert errors == sorted(errors, reverse=True)
    assert fit.train_rmse < errors[-1], "the second network lowers the error"
    assert fit.train_rmse == fit.reports[-1].train_rmse
    assert fit.test_max >= fit.test_rmse > fit.floor
    assert fit.eigenvalues.shape == (network.layout.size,)
    task = network.task
    raw = (fit.predict(task.test_inputs) - task.test_targets).square().mean().sqrt()
    assert float(raw) == pytest.approx(fit.test_rmse * float(fit.standardisation.target_scale), rel=1e-6)
    assert [table.name for table in fit.tables()] == ["stages"]
    assert fit.tables()[0].num_rows == 6
    assert {figure.name for figure in fit.figures()} == {"stages", "spectrum"}
    again = fit_precisely(network, budget=SMALL, starts=2, seed=1)
    assert (again.train_rmse, again.because) == (fit.train_rmse, fit.because)


def test_a_strangers_module_with_two_inputs_and_two_outputs():
    x = torch.rand(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.stack([x.prod(dim=1), x.sum(dim=1)], dim=1)
    module = nn.Sequential(nn.Linear(2, 5), nn.SiLU(), nn.LayerNorm(5), nn.Linear(5, 2))
    task = Task.of(x, y, num_test=20)
    network = fresh_start(Network(module, dtype=torch.float64), task, 0)
    before = [value.clone() for value in network.module.parameters()]
    fit = fit_precisely(network, stages=("variable_projection", "lm"), budget=SMALL, starts=2)
    assert fit.test_rmse < 0.05
    assert all(torch.equal(one, other) for one, other in zip(before, network.module.parameters(), strict=True))


def test_float32_warns_and_is_named_as_the_cause():
    network = parabola(6, 80, dtype=torch.float32)
    with pytest.warns(PrecisionWarning, match="float32"):
        fit = fit_precisely(network, stages=("variable_projection", "lm"), budget=SMALL, starts=2)
    assert fit.test_rmse > 1e-9
    assert fit.because.startswith("precision:")
    assert "float32" in fit.because
    assert any("float32" in flag for flag in fit.flags)


def test_noise_is_not_beaten():
    task = target_task("square", 80, 3, noise=1e-4)
    fit = fit_precisely(parabola().with_task(task), budget=SMALL, starts=1, curvature=False)
    assert fit.eigenvalues is None
    assert fit.test_rmse > 1e-4
    assert fit.train_rmse > 1e-5


def test_stages_that_make_no_sense_are_refused():
    network = parabola()
    for stages in ((), ("boost",), ("boost", "lm"), ("lm", "lm"), ("lm", "bgfs")):
        with pytest.raises(BadInput, match="boost last"):
            fit_precisely(network, stages=stages)
    with pytest.raises(BadInput, match="starts: got 0"):
        fit_precisely(network, starts=0)


def test_fresh_starts_differ_and_repeat():
    network = parabola()
    one, same, other = (fresh_start(network, network.task, seed).theta for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_member_of_the_experiment_holds_every_score_and_survives_json():
    plan = FloorPlan(
        num_points=40,
        hidden=3,
        budget=PrecisionBudget(lm=10, bfgs=2, low_curvature=1, screening=2, boosted_lm=10),
        starts=2,
        adam_steps=5,
        square_points=30,
        square_hidden=4,
        square_steps=2,
        race_steps=3,
    )
    heard = []
    member = measure_floor(plan, 0, tell=lambda *told: heard.append(told))
    assert [done for _, done, _ in heard] == list(range(6))
    assert all(total == 6 for _, _, total in heard)
    assert len(member.eigenvalues) == 33
    assert set(member.because) == {"clean", "noisy", "float32"}
    assert {"pipeline", "noisy", "boosted", "continued", "permuted residual", "float32", "work ratio"} <= set(
        member.scores
    )
    assert member.scores["pipeline"] < member.scores["adam"]
    assert FloorMember.of(member.to_plain()) == member


def test_adam_is_far_from_the_floor():
    assert adam_baseline(parabola(6, 60), 50) > 1e-3

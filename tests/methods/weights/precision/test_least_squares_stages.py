"""Levenberg-Marquardt, variable projection and what they stand on, against formulas and slow twins."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.methods.weights.precision.fits import parabola
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.losses import cross_entropy
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import ModelJacobian
from tremorscope.instruments.point_table import PrecisionWarning
from tremorscope.instruments.task import Task
from tremorscope.methods.weights.precision.levenberg_marquardt import _Damped, levenberg_marquardt
from tremorscope.methods.weights.precision.pipeline import PrecisionBudget, fit_precisely
from tremorscope.methods.weights.precision.residuals import (
    Residuals,
    root_mean_square,
    rounding_floor,
    warn_of_precision,
)
from tremorscope.methods.weights.precision.variable_projection import variable_projection


def test_the_jacobian_by_example_is_the_whole_one():
    network = parabola()
    residuals = Residuals(network)
    torch.testing.assert_close(
        residuals.jacobian(network.theta),
        ModelJacobian(network, network.task.train_batch()).dense(),
        rtol=1e-12,
        atol=1e-14,
    )
    assert residuals.work == 3
    assert residuals.why_whole is None


class Centred(nn.Module):
    """Every output depends on every example."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(1, 2)

    def forward(self, x):
        out = self.inner(x).tanh()
        return out - out.mean(dim=0)


def test_outputs_that_mix_examples_get_the_jacobian_of_the_batch():
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    network = Network(Centred(), task=Task.of(x, torch.cat([x, x**2], dim=1)), dtype=torch.float64)
    residuals = Residuals(network)
    assert residuals.num_outputs == 2
    assert residuals.why_whole == "the output for an example depends on the others"
    whole = ModelJacobian(network, network.task.train_batch()).dense()
    torch.testing.assert_close(residuals.jacobian(network.theta), whole, rtol=1e-12, atol=1e-14)
    assert residuals.work == 6


class Counting(nn.Module):
    """Asks for a number in the middle, which cannot be known when examples are taken one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(1, 1)

    def forward(self, x):
        return self.inner(x) * (1.0 if float(x.abs().max()) < 10 else 2.0)


def test_examples_that_cannot_be_taken_one_by_one_are_said_to_be_slow():
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    network = Network(Counting(), task=Task.of(x, x**2), dtype=torch.float64)
    residuals = Residuals(network)
    assert residuals.why_whole.startswith("examples cannot be taken one by one (")
    whole = ModelJacobian(network, network.task.train_batch()).dense()
    torch.testing.assert_close(residuals.jacobian(network.theta), whole, rtol=1e-12, atol=1e-14)
    fit = fit_precisely(network, stages=("lm",), starts=1, budget=PrecisionBudget(lm=3), standardise=False)
    assert any("whole batch for each output (same numbers, slower): examples cannot" in flag for flag in fit.flags)


def test_the_bend_is_the_second_difference():
    network = parabola()
    residuals = Residuals(network)
    direction = torch.randn(network.layout.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = 1e-4
    there, here, back = (residuals.outputs(network.theta + k * h * direction) for k in (1, 0, -1))
    torch.testing.assert_close(
        residuals.bend(network.theta, direction), (there - 2 * here + back).detach() / h**2, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("rows", [30, 5])
def test_a_damped_step_is_that_of_the_normal_equations(rows):
    gen = torch.Generator().manual_seed(rows)
    jacobian = torch.randn(rows, 12, generator=gen, dtype=torch.float64)
    residual, other = (torch.randn(rows, generator=gen, dtype=torch.float64) for _ in range(2))
    system = _Damped(jacobian, residual)
    for damping in (0.7, 3.0):  # twice: the first factorisation must not spoil the second
        inverse = torch.linalg.inv(jacobian.T @ jacobian + damping**2 * torch.eye(12, dtype=torch.float64))
        torch.testing.assert_close(system.factorise(damping), inverse @ jacobian.T @ residual)
        torch.testing.assert_close(system.solve(other), inverse @ jacobian.T @ other)


def test_the_error_falls_at_every_step_and_acceleration_pays():
    network = parabola(6, 60)
    fits = {flag: levenberg_marquardt(network, max_iterations=120, accelerate=flag) for flag in (True, False)}
    for fit in fits.values():
        assert all(after < before for before, after in zip(fit.rmses, fit.rmses[1:], strict=False))
        assert list(fit.works) == sorted(fit.works)
        assert len(fit.works) == len(fit.rmses) == fit.num_iterations + 1
        assert Residuals(network).rmse(fit.theta) == fit.rmses[-1]
    assert fits[True].rmses[-1] < 0.3 * fits[False].rmses[-1]


def test_a_linear_problem_is_solved_and_the_stages_say_why_they_stop():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64) + x[:, :1] ** 2
    network = Network(nn.Linear(3, 1), task=Task.of(x, y), dtype=torch.float64)
    fit = levenberg_marquardt(network, max_iterations=300)
    design = torch.cat([x, torch.ones(20, 1, dtype=torch.float64)], dim=1)
    best = root_mean_square((y - design @ torch.linalg.lstsq(design, y).solution).reshape(-1))
    assert fit.rmses[-1] == pytest.approx(best, rel=1e-12)
    assert fit.outcome == "stalled"
    assert levenberg_marquardt(network, max_iterations=1).outcome == "budget"
    early = levenberg_marquardt(network, target=2 * best)
    assert early.outcome == "target"
    assert early.work_until(2 * best) == early.works[-1]
    assert early.work_until(best / 2) is None


def test_the_module_stays_as_it_was():
    network = parabola()
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    levenberg_marquardt(network, max_iterations=3)
    variable_projection(network, max_iterations=2)
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


def test_variable_projection_leaves_nothing_for_the_last_layer():
    network = parabola(5, 60)
    fit = variable_projection(network, max_iterations=5)
    residuals = Residuals(network)
    last = residuals.jacobian(fit.theta)[:, network.layout.indices("4.*")]
    left = residuals.residual(fit.theta)
    assert float((last.T @ left).norm()) < 1e-7 * float(last.norm() * left.norm())
    assert fit.rmses[-1] < 0.01 * Residuals(network).rmse(network.theta)
    named = variable_projection(network, max_iterations=5, last_layer="4.*")
    assert torch.equal(named.theta, fit.theta)


def test_variable_projection_refuses_what_is_not_linear():
    network = parabola()
    with pytest.raises(BadInput, match=r"off a straight line .* linear"):
        variable_projection(network, last_layer="0.*")
    with pytest.raises(BadInput, match=r"6 of 6 parameters"):
        variable_projection(network, last_layer="*")


def test_other_losses_bad_targets_and_bad_numbers_are_refused():
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classes = Network(nn.Linear(2, 2), task=Task.of(x, torch.zeros(8, dtype=torch.int64), loss=cross_entropy))
    with pytest.raises(BadInput, match=r"got cross_entropy; wanted the mean squared error"):
        levenberg_marquardt(classes)
    y = x[:, :1].clone()
    y[3] = float("nan")
    with pytest.raises(BadInput, match=r"targets of task 'data': got 1 entries that are not finite"):
        Task.of(x, y)
    with pytest.raises(BadInput, match=r"max_iterations: got 0; wanted at least 1"):
        levenberg_marquardt(parabola(), max_iterations=0)
    broken = parabola()
    with pytest.raises(BadInput, match=r"40 of 40 not finite"):
        levenberg_marquardt(broken.at(broken.theta * float("nan")))
    with pytest.raises(BadInput, match=r"targets to fit: got shape \(8, 2\)"):
        Residuals(Network(nn.Linear(2, 1), task=Task.of(x, x), dtype=torch.float64))


def test_rounding_floor_is_that_of_perturbed_weights():
    network = parabola(6)
    batch = network.task.train_batch()
    theta = levenberg_marquardt(network, max_iterations=20).theta
    floor = rounding_floor(network, theta, batch)
    gen = torch.Generator().manual_seed(0)
    # Weights off by a relative 1e-7 each, far above rounding, move the output 1e-7 / u times as much.
    moved = []
    for _ in range(200):
        noise = 1e-7 * torch.randn(len(theta), generator=gen, dtype=torch.float64)
        moved.append(Residuals(network).outputs(theta * (1 + noise)) - Residuals(network).outputs(theta))
    typical = root_mean_square(torch.cat(moved).detach()) * 2.0**-53 / 1e-7
    assert typical < floor < 2 * typical


def test_float32_is_warned_of():
    with pytest.warns(PrecisionWarning, match=r"float32: rounding of 6e-08 relative sets the floor"):
        assert "dtype=torch.float64" in warn_of_precision(parabola(dtype=torch.float32))
    assert warn_of_precision(parabola()) is None


def test_small_numbers_have_a_root_mean_square():
    assert root_mean_square(torch.tensor([0.0, 0.0])) == 0
    assert root_mean_square(torch.full((4,), 1e-200, dtype=torch.float64)) == pytest.approx(1e-200)

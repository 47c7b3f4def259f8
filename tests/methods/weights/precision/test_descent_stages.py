"""BFGS and low-curvature training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.methods.weights.precision.fits import parabola
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Hessian
from tremorscope.instruments.spectrum import eigsh
from tremorscope.instruments.task import Task
from tremorscope.methods.weights.precision.gradient_bands import gradient_by_band, hessian_eigenvalues, norms_by_band
from tremorscope.methods.weights.precision.levenberg_marquardt import levenberg_marquardt
from tremorscope.methods.weights.precision.low_curvature import (
    flat_part,
    line_search,
    low_curvature_training,
    without,
)
from tremorscope.methods.weights.precision.quasi_newton import quasi_newton
from tremorscope.methods.weights.precision.residuals import Residuals, root_mean_square


def test_bfgs_lowers_the_error_and_a_failed_line_search_is_a_stall():
    x = torch.linspace(-1, 1, 15, dtype=torch.float64)[:, None]
    network = Network(nn.Linear(1, 1), task=Task.of(x, x + x**2), dtype=torch.float64)
    fit = quasi_newton(network, max_iterations=3000)
    assert fit.outcome == "stalled"
    assert "line search" in fit.because
    best = x**2 - (x**2).mean()  # what no line can fit of x + x^2
    assert fit.rmses[-1] == pytest.approx(root_mean_square(best), rel=1e-12)
    network = parabola(2, 12)
    short = quasi_newton(network, max_iterations=3)
    assert Residuals(network).rmse(short.theta) == pytest.approx(short.rmses[-1], rel=1e-9)
    assert (short.outcome, short.num_iterations) == ("budget", 3)
    aimed = quasi_newton(network, max_iterations=3000, target=0.1)
    assert aimed.outcome == "target"
    assert aimed.rmses[-1] <= 0.1 < aimed.rmses[-2]


def test_bfgs_goes_on_from_a_small_error():
    network = parabola(3, 20)
    near = network.at(levenberg_marquardt(network, max_iterations=60).theta)
    fit = quasi_newton(near, max_iterations=30)
    assert fit.rmses[0] < 1e-3
    assert fit.rmses[-1] < fit.rmses[0]


@pytest.mark.parametrize("relative", [False, True])
def test_low_curvature_steps_never_raise_the_loss(relative):
    network = parabola(4, 40)
    near = network.at(levenberg_marquardt(network, max_iterations=30).theta)
    fit = low_curvature_training(near, max_iterations=4, threshold=1e-3, relative=relative)
    assert fit.num_iterations >= 1
    assert all(after < before for before, after in zip(fit.rmses, fit.rmses[1:], strict=False))


def test_nothing_of_the_projected_gradient_is_left_on_the_steep_side():
    network = parabola(5, 60)
    near = network.at(levenberg_marquardt(network, max_iterations=40).theta)
    _, gradient = Residuals(near).gradient(near.theta)
    values, vectors = torch.linalg.eigh(Hessian(near, near.task.train_batch()).dense())
    sizes = values.abs().sort().values
    for threshold in (float(sizes[rank]) for rank in (5, 20, 40)):
        flat = flat_part(gradient, values, vectors, threshold)
        steep = vectors[:, values.abs() >= threshold].T @ flat
        assert float(steep.norm()) < 1e-10 * float(flat.norm()), threshold
    # Most of the gradient is steep: a single projection with the steep vectors leaves its rounding behind.
    top = eigsh(Hessian(near, near.task.train_batch()), 10, which="largest_magnitude", tol=1e-10).vectors
    deflated = without(gradient, top)
    assert float((top.T @ deflated).norm()) < 1e-10 * float(deflated.norm())
    planted = gradient + vectors[:, -1:].squeeze()
    assert float((vectors[:, -1] @ planted).abs()) > 1e-10 * float(planted.norm()), "the check can fail"


def test_deflation_takes_the_same_steps_as_a_threshold_between_the_same_eigenvalues():
    network = parabola(3, 30)
    near = network.at(levenberg_marquardt(network, max_iterations=20).theta)
    sizes = hessian_eigenvalues(near).abs().sort(descending=True).values
    between = float((sizes[5] * sizes[6]).sqrt())
    dense = low_curvature_training(near, max_iterations=1, threshold=between)
    deflated = low_curvature_training(near, max_iterations=1, deflate=6)
    torch.testing.assert_close(deflated.theta, dense.theta, rtol=1e-6, atol=1e-9)


def test_the_line_search_finds_a_far_minimum_and_refuses_a_rise():
    start, direction = torch.zeros(1, dtype=torch.float64), torch.tensor([-1e-6], dtype=torch.float64)

    def error(theta):
        return float((theta - 300.0).abs())

    found = line_search(error, start, direction, 300.0)
    assert found is not None
    assert found[1] < 3.0, "the step is 3e8 gradients long"
    assert line_search(error, start, -direction, 300.0) is None
    assert line_search(error, start, 0 * direction, 300.0) is None


def test_a_stage_without_flat_directions_says_so():
    network = parabola(2, 20)
    fit = low_curvature_training(network, threshold=1e-30)
    assert fit.outcome == "stalled"
    assert fit.num_iterations == 0
    assert "no eigenvalue lies below" in fit.because


def test_numbers_out_of_range_are_refused():
    network = parabola(2, 20)
    with pytest.raises(BadInput, match=r"threshold: got 0.0; wanted a positive number"):
        low_curvature_training(network, threshold=0.0)
    with pytest.raises(BadInput, match=r"deflate: got 13; wanted between 1 and 12"):
        low_curvature_training(network, deflate=13)
    with pytest.raises(BadInput, match=r"max_iterations: got 0"):
        quasi_newton(network, max_iterations=0)


def test_bands_hold_the_whole_gradient():
    network = parabola(4, 40)
    _, gradient = Residuals(network).gradient(network.theta)
    bands = gradient_by_band(network, gradient)
    assert sum(norm**2 for norm in bands.values()) == pytest.approx(float(gradient.square().sum()))
    values = torch.tensor([-2.0, 1e-5, 1e-10, 0.0], dtype=torch.float64)
    assert list(norms_by_band(values, torch.arange(1.0, 5.0)).values()) == [1.0, 2.0, 3.0, 4.0]

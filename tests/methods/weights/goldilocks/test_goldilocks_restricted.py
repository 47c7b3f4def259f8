from __future__ import annotations

import math

import jaxtyping
import pytest
import torch
from torch.func import hessian, jvp

from tests.methods.weights.goldilocks.networks import DOUBLE, blobs, drawn, quadratic
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.instruments import trace as trace_module
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Dense, Hessian
from tremorscope.instruments.task import Task
from tremorscope.methods.weights.goldilocks import (
    positivity,
    random_basis,
    restricted_curvature,
    scaled_weights,
    tempered,
)
from tremorscope.methods.weights.goldilocks.full_space import FullSpace, measure_full_space
from tremorscope.methods.weights.goldilocks.restricted import route_for_one_block
from tremorscope.methods.weights.goldilocks.statistics import random_signs, random_symmetric


@pytest.fixture
def network(generator) -> Network:
    return drawn(blobs(generator))


def dense(network: Network) -> torch.Tensor:
    batch = network.task.train_batch()
    return hessian(lambda theta: network.loss(theta, batch))(network.theta)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
@pytest.mark.parametrize("route", ["auto", "double_backward"])
def test_restricted_to_a_plane_is_the_dense_matrix_between_bases(generator, activation, route):
    network = drawn(blobs(generator), activation)
    basis = random_basis(network.theta, 7, generator)
    found = restricted_curvature(network, network.task.train_batch(), basis, split=True, route=route)
    whole = dense(network)
    torch.testing.assert_close(found.matrix, basis.T @ whole @ basis, rtol=0, atol=1e-10 * float(whole.norm()))
    assert torch.equal(found.matrix, found.flat)
    assert found.bend == 0
    # The split: the softmax's own curvature between Jacobians of the outputs.
    batch = network.task.train_batch()
    outputs = lambda theta: network.apply(theta, batch)  # noqa: E731
    slopes = torch.func.jacrev(outputs)(network.theta)
    p = outputs(network.theta).softmax(-1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = torch.einsum("ecn,ecd,edm->nm", slopes, inner, slopes) / len(p)
    torch.testing.assert_close(found.gauss_newton, basis.T @ expected @ basis, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.gauss_newton + found.residual, found.flat)
    assert found.gauss_newton_ratio == pytest.approx(float(found.gauss_newton.norm() / found.residual.norm()))


def test_on_a_sphere_it_is_the_second_derivative_along_geodesics(generator, network):
    batch, theta = network.task.train_batch(), network.theta
    basis = random_basis(theta, 5, generator, surface="sphere")
    assert float((theta @ basis).abs().max()) < 1e-12
    found = restricted_curvature(network, batch, basis, surface="sphere")
    radius = theta.norm()

    def along(direction: torch.Tensor) -> float:
        def loss(t: torch.Tensor) -> torch.Tensor:
            return network.loss(theta * torch.cos(t / radius) + radius * direction * torch.sin(t / radius), batch)

        zero, one = torch.zeros((), dtype=DOUBLE), torch.ones((), dtype=DOUBLE)
        return float(jvp(lambda t: jvp(loss, (t,), (one,))[1], (zero,), (one,))[1])

    pairs = [(i, j) for i in range(5) for j in range(i, 5)]
    for i, j in pairs:
        direction = basis[:, i] + basis[:, j] if i != j else basis[:, i]
        direction = direction / direction.norm()
        inside = basis.T @ direction
        assert float(inside @ found.matrix @ inside) == pytest.approx(along(direction), abs=1e-6)
    # Without the sphere's own bending the same check fails: it is not small here.
    assert abs(float(found.flat[0, 0]) - along(basis[:, 0])) > 1e-3
    gradient = torch.func.grad(lambda at: network.loss(at, batch))(theta)
    assert found.bend == pytest.approx(float(gradient @ theta / radius**2))
    assert found.gradient_norm == pytest.approx(float(gradient.norm()))
    assert found.radius == pytest.approx(float(radius))


def test_only_chosen_parameters_move(generator, network):
    chosen = network.layout.indices("1.*")
    basis = random_basis(network.theta[chosen], 3, generator)
    found = restricted_curvature(network, network.task.train_batch(), basis, parameters="1.*")
    whole = dense(network)[chosen][:, chosen]
    torch.testing.assert_close(found.matrix, basis.T @ whole @ basis, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("diagonal", "kappa", "share"),
    [([3.0, 4.0, -5.0], 2 / 50**0.5, 2 / 3), ([1.0, 1.0], 2**0.5, 1), ([-2.0, 0.0], -1, 0)],
)
def test_of_a_quadratic_loss_both_statistics_are_exact(generator, diagonal, kappa, share):
    turn = torch.linalg.qr(torch.randn(len(diagonal), len(diagonal), generator=generator, dtype=DOUBLE)).Q
    network = quadratic(turn @ torch.diag(torch.tensor(diagonal, dtype=DOUBLE)) @ turn.T)
    basis = random_basis(network.theta, len(diagonal), generator)  # the whole space: any basis gives the same
    seen = positivity(restricted_curvature(network, network.task.train_batch(), basis).matrix)
    assert seen.kappa == pytest.approx(kappa, abs=1e-12)
    assert seen.positive_share == share
    assert seen.flag is None


def test_a_zero_matrix_has_no_kappa_and_says_so():
    seen = positivity(torch.zeros(3, 3, dtype=DOUBLE))
    assert math.isnan(seen.kappa)
    assert math.isnan(seen.positive_share)
    assert seen.flag == "the restricted Hessian is zero: kappa is undefined there"
    assert all(math.isnan(part) for part in random_signs(torch.zeros(2, 2), torch.Generator().manual_seed(0)))
    with pytest.raises(BadInput, match="entries that are not finite"):
        positivity(torch.full((2, 2), math.nan))


def test_chance_has_the_moments_that_the_docstrings_promise(generator):
    matrix = torch.diag(torch.tensor([5.0, 1.0, 1.0, -0.5, 0.1], dtype=DOUBLE))
    signs = torch.tensor([random_signs(matrix, generator) for _ in range(2000)])
    assert float(signs[:, 0].mean()) == pytest.approx(0, abs=0.1)
    assert float(signs[:, 0].std()) == pytest.approx(1, abs=0.05)
    assert float(signs[:, 1].mean()) == pytest.approx(0.5, abs=0.03)
    symmetric = torch.tensor([random_symmetric(20, generator)[0] for _ in range(400)])
    assert float(symmetric.std()) == pytest.approx((2 / 21) ** 0.5, rel=0.15)


def test_homogeneous_networks_do_not_tell_weights_from_temperature(generator):
    task = blobs(generator)
    for depth, hidden in ((2, (6,)), (3, (6, 5)), (4, (6, 5, 4))):
        network = drawn(task, "relu", hidden=hidden, bias=False)
        batch = task.train_batch()
        for scale in (0.3, 1.7, 4.0):
            larger = network.at(scaled_weights(network, scale))
            hotter = tempered(network, scale**depth)
            loss = float(larger.loss(larger.params, batch))
            assert float(hotter.loss(hotter.params, batch)) == pytest.approx(loss, rel=1e-10)
        # and a wrong power is noticed
        wrong = tempered(network, 1.7 ** (depth + 1))
        right = tempered(network, 1.7**depth)
        assert float(wrong.loss(wrong.params, batch)) != pytest.approx(float(right.loss(right.params, batch)), rel=1e-3)


def test_the_whole_space_foretells_random_restrictions(generator, network):
    operator = Hessian(network, network.task.train_batch())
    told = measure_full_space(operator, 6)
    found = []
    whole = operator.dense()
    for _ in range(600):
        basis = random_basis(network.theta, 6, generator)
        found.append(positivity(basis.T @ whole @ basis))
    traces = torch.tensor([seen.trace for seen in found])
    squares = torch.tensor([seen.norm for seen in found]) ** 2
    assert told.restricted_trace.value == pytest.approx(
        float(traces.mean()), abs=4 * float(traces.std()) / len(found) ** 0.5
    )
    assert told.restricted_norm.value**2 == pytest.approx(
        float(squares.mean()), abs=4 * float(squares.std()) / len(found) ** 0.5
    )
    assert told.kappa.method == "exact"
    assert told.kappa.value == pytest.approx(told.restricted_trace.value / told.restricted_norm.value)
    # all of it: nothing left to chance
    everything = measure_full_space(operator, operator.shape[0])
    assert everything.kappa.value == pytest.approx(positivity(whole).kappa, rel=1e-9)
    assert measure_full_space(Dense(torch.zeros(3, 3)), 2).kappa is None
    with pytest.raises(BadInput, match="dimension of a random subspace: got 4; wanted 1 to 3"):
        measure_full_space(Dense(torch.eye(3)), 4)


def test_a_negative_trace_is_a_trace_too():
    told = measure_full_space(Dense(-torch.eye(4, dtype=DOUBLE)), 2)
    assert told.restricted_trace.value == pytest.approx(-2)
    assert told.kappa.value == pytest.approx(-(2**0.5))


def test_intervals_of_foretold_kappas_cover_the_exact_one(monkeypatch):
    monkeypatch.setattr(trace_module, "EXACT_SIZE", 0)
    values = torch.cat([torch.linspace(0.5, 2, 40, dtype=DOUBLE), -0.3 * torch.ones(80, dtype=DOUBLE)])
    exact = FullSpace(
        trace=Estimate.exact(float(values.sum())),
        frobenius=Estimate.exact(float(values.norm())),
        size=120,
        dimension=10,
    ).kappa.value
    turned = torch.linalg.qr(torch.randn(120, 120, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)).Q
    operator = Dense(turned @ torch.diag(values) @ turned.T)
    told = [measure_full_space(operator, 10, num_probes=24, seed=seed).kappa for seed in range(40)]
    assert sum(kappa.low <= exact <= kappa.high for kappa in told) >= 38
    assert all(kappa.low < kappa.value < kappa.high for kappa in told)
    assert told[0].level == pytest.approx(0.98)
    straddling = FullSpace(
        trace=Estimate(value=0.1, low=-1, high=2, level=0.99, n=9, method="t"),
        frobenius=Estimate(value=1, low=0, high=2, level=0.99, n=9, method="t"),
        size=100,
        dimension=4,
    )
    assert (straddling.kappa.low, straddling.kappa.high) == (-2, 2), "never beyond sqrt(d)"


@pytest.mark.parametrize("scale", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_one_block_takes_the_graph_at_every_scale(generator, activation, scale):
    network = drawn(blobs(generator), activation)
    network = network.at(scaled_weights(network, scale))
    basis = random_basis(network.theta, 3, generator)
    assert route_for_one_block(network, network.task.train_batch(), basis) == "double_backward"


def test_one_block_is_not_fooled_by_a_backward_that_hides(generator):
    class Hidden(torch.autograd.Function):
        """Squares; its backward leaves the graph, so that twice differentiated it loses a term."""

        @staticmethod
        def forward(x):
            return x**2

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, slope):
            (x,) = ctx.saved_tensors
            return slope * 2 * x.detach()

    class Square(torch.nn.Module):
        def forward(self, x):
            return Hidden.apply(x)

    task = blobs(generator)
    module = torch.nn.Sequential(torch.nn.Linear(5, 4), Square(), torch.nn.Linear(4, 3)).double()
    network = Network(module, task=task)
    basis = random_basis(network.theta, 3, generator)
    assert route_for_one_block(network, task.train_batch(), basis) == "auto"


def test_what_cannot_be_is_refused(generator, network):
    size, batch = network.layout.size, network.task.train_batch()
    with pytest.raises(BadInput, match=rf"dimension of a random subspace: got {size + 1}; wanted 1 to {size}"):
        random_basis(network.theta, size + 1, generator)
    with pytest.raises(BadInput, match=rf"wanted 1 to {size - 1}, .* along a sphere"):
        random_basis(network.theta, size, generator, surface="sphere")
    with pytest.raises(BadInput, match="weights on a sphere: got all zero"):
        random_basis(torch.zeros(4), 2, generator, surface="sphere")
    basis = random_basis(network.theta, 3, generator)
    with pytest.raises((BadInput, jaxtyping.TypeCheckError), match="torus"):  # checked types come first in tests
        restricted_curvature(network, batch, basis, surface="torus")
    with pytest.raises(BadInput, match="along the weights; wanted columns perpendicular"):
        restricted_curvature(network, batch, basis, surface="sphere")
    whole = Task.of(torch.arange(10).reshape(5, 2), torch.tensor([0, 1, 0, 1, 1]))
    with pytest.raises(BadInput, match=r"int64, which it cannot take; wanted real numbers\. Use inputs\.float"):
        restricted_curvature(Network(torch.nn.Linear(2, 2), task=whole), whole.train_batch(), torch.eye(6)[:, :2])
    with pytest.raises(BadInput, match="scale: got -1; wanted a positive finite number"):
        scaled_weights(network, -1)
    with pytest.raises(BadInput, match="scale: got 0"):
        tempered(network, 0)


def test_integers_are_fine_where_they_are_looked_up(generator):
    tokens = torch.randint(5, (12,), generator=generator)
    module = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 2)).double()
    network = Network(module, task=Task.of(tokens, tokens % 2))
    basis = random_basis(network.theta, 3, generator)
    found = restricted_curvature(network, network.task.train_batch(), basis)
    assert bool(found.matrix.isfinite().all())

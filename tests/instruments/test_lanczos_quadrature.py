"""Sums, counts and densities of spectra against eigenvalues that were computed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.instruments.tangents.training_runs import OPTIMISERS, run_of
from tests.laws.operator_cases import matrix, mlp
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.lanczos_quadrature import lanczos_quadrature
from tremorscope.instruments.log_determinant import log_determinant
from tremorscope.instruments.operators import Dense, Hessian, Identity
from tremorscope.instruments.spectrum import eigsh
from tremorscope.instruments.subspace import Subspace
from tremorscope.instruments.tangents import TrainingMap

F64 = torch.float64
SIZE = 80
VALUES = torch.cat(
    [torch.tensor([90.0, 40.0, 8.0]), torch.ones(40) + 1e-3 * torch.arange(40), torch.logspace(-3, -0.2, 37)]
)
VALUES = VALUES.double()
VECTORS = torch.linalg.qr(matrix(SIZE, SIZE, 0, F64)).Q


def of_values(values: Tensor) -> Dense:
    lower = (VECTORS * values @ VECTORS.T).tril()
    return Dense(lower + lower.tril(-1).T)


OPERATOR = of_values(VALUES)


@pytest.mark.parametrize("num_steps", [25, 60])
def test_intervals_of_the_log_determinant_cover_it(num_steps):
    wanted = float(VALUES.log().sum())
    found = [
        log_determinant(OPERATOR, method="quadrature", num_steps=num_steps, seed=seed, level=0.95)
        for seed in range(100)
    ]
    assert sum(estimate.low <= wanted <= estimate.high for estimate in found) >= 90
    widths = [estimate.high - estimate.low for estimate in found]
    assert sum(widths) / 100 < 0.8 * abs(wanted)  # the cover is no empty promise


@pytest.mark.parametrize("num_steps", [6, 20])
def test_intervals_of_counts_cover_them(num_steps):
    found = [lanczos_quadrature(OPERATOR, num_steps=num_steps, seed=seed, level=0.95) for seed in range(100)]
    for low, high in [(0.9, 1.2), (0.5, 2.0), (-math.inf, 0.1), (1.02, math.inf), (0.98, 1.0205)]:
        wanted = int(((low <= VALUES) & (high >= VALUES)).sum())
        counts = [rules.count(low, high) for rules in found]
        assert sum(estimate.low <= wanted <= estimate.high for estimate in counts) >= 90
        assert sum(estimate.value for estimate in counts) / 100 == pytest.approx(wanted, abs=2.5)


def test_a_resolved_edge_gives_a_narrow_count_and_an_unresolved_one_says_so():
    rules = lanczos_quadrature(OPERATOR, num_steps=80, seed=0)
    many, few = rules.count(0.8, 2.0), lanczos_quadrature(OPERATOR, num_steps=3, seed=0).count(0.8, 2.0)
    assert many.method == "t of Stieltjes bounds"
    assert few.high - few.low > 1.5 * (many.high - many.low)


def test_smoothed_counts_estimate_the_smoothed_number():
    def window(x: Tensor) -> Tensor:
        return (torch.erf((x - 0.5) / (0.1 * 2**0.5)) - torch.erf((x - 1.5) / (0.1 * 2**0.5))) / 2

    wanted = float(window(VALUES).sum())
    rules = [lanczos_quadrature(OPERATOR, num_steps=30, seed=seed, level=0.95) for seed in range(100)]
    found = [rule.count(0.5, 1.5, width=0.1) for rule in rules]
    assert sum(estimate.low <= wanted <= estimate.high for estimate in found) >= 90
    assert "edges smoothed by 0.1" in found[0].method


def test_rules_are_exact_for_polynomials():
    """Against the probe's own moments: `num_steps` nodes integrate degree `2 num_steps - 1`."""
    rules = lanczos_quadrature(OPERATOR, num_steps=4, num_probes=16, seed=0)
    longer = lanczos_quadrature(OPERATOR, num_steps=12, num_probes=16, seed=0)
    for degree in range(8):
        short, long = (float((r.weights * r.nodes**degree).sum(1).mean()) for r in (rules, longer))
        assert short == pytest.approx(long, rel=1e-10)
    assert rules.weights.sum(1).tolist() == pytest.approx([1.0] * 16, abs=1e-12)


def test_the_mean_is_the_trace():
    found = [lanczos_quadrature(OPERATOR, num_steps=10, seed=seed, level=0.95).mean(lambda x: x) for seed in range(40)]
    wanted = float(VALUES.mean())
    assert sum(estimate.low <= wanted <= estimate.high for estimate in found) >= 34


@pytest.mark.parametrize("known", [False, True])
def test_densities_integrate_to_one(known):  # row E7
    outliers = (Subspace(basis=VECTORS[:, :3].clone(), offset=torch.zeros(SIZE, dtype=F64)), VALUES[:3])
    rules = lanczos_quadrature(OPERATOR, num_steps=30, seed=0, known=outliers if known else None)
    linear = rules.density(torch.linspace(-10, 110, 6001), 0.5)
    assert float(torch.trapezoid(linear.values, linear.grid)) == pytest.approx(1, abs=1e-6)
    decades = rules.density(torch.logspace(-6, 4, 2001), 0.1, log=True)
    assert float(torch.trapezoid(decades.values, decades.grid.log10())) == pytest.approx(1, abs=1e-6)
    assert bool((linear.low <= linear.values + 1e-12).all())
    assert bool((linear.values <= linear.high + 1e-12).all())


def test_an_indefinite_spectrum_on_a_log_axis_has_two_halves():
    shifted = VALUES - 0.5
    rules = lanczos_quadrature(of_values(shifted), num_steps=70, seed=0)
    grid = torch.logspace(-8, 4, 4001)
    with pytest.raises(BadInput, match=r"eigenvalues on a log axis: .* Ask for sign='positive'"):
        rules.density(grid, 0.1, log=True)
    halves = {sign: rules.density(grid, 0.1, log=True, sign=sign) for sign in ("positive", "negative")}
    shares = {sign: float(torch.trapezoid(half.values, half.grid.log10())) for sign, half in halves.items()}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-6)
    negative = rules.count(-math.inf, 0.0)
    assert negative.low / SIZE - 1e-9 <= shares["negative"] <= negative.high / SIZE + 1e-9
    assert float((shifted < 0).double().mean()) == pytest.approx(shares["negative"], abs=0.1)
    assert float(grid[halves["negative"].values.argmax()]) == pytest.approx(0.45, rel=0.3)
    above = halves["negative"].values[grid > 3]  # nothing is below -0.5, so nothing may be mirrored there
    assert float(above.abs().max()) < 1e-3
    with pytest.raises(BadInput, match="sign of a density: got negative on a linear axis"):
        rules.density(grid, 0.1, sign="negative")


def test_a_hessian_with_its_outliers_deflated():  # row E7
    network = mlp(F64)
    operator = Hessian(network, network.task.train_batch())
    exact = torch.linalg.eigvalsh(operator.dense())
    top = eigsh(operator, 3, which="largest_magnitude")
    known = (Subspace(basis=top.vectors, offset=torch.zeros(len(exact), dtype=F64)), top.values)
    rules = lanczos_quadrature(operator, num_steps=20, num_probes=16, seed=0, known=known)
    mean = rules.mean(lambda x: x)
    assert mean.low <= float(exact.mean()) <= mean.high
    density = rules.density(torch.linspace(2 * float(exact[0]) - 1, 2 * float(exact[-1]) + 1, 8001), 0.02)
    assert float(torch.trapezoid(density.values, density.grid)) == pytest.approx(1, abs=1e-6)
    centre = float(torch.trapezoid(density.values * density.grid, density.grid))
    assert centre == pytest.approx(mean.value, abs=1e-6)  # a Gaussian does not move the mean
    damping = 0.1 - float(exact[0])
    found = log_determinant(
        operator, damping=damping, method="quadrature", num_steps=40, num_probes=16, seed=0, known=known
    )
    assert found.low <= float((exact + damping).log().sum()) <= found.high


def test_known_outliers_are_counted_exactly_and_spare_steps():
    outliers = (Subspace(basis=VECTORS[:, :3].clone(), offset=torch.zeros(SIZE, dtype=F64)), VALUES[:3])
    rules = lanczos_quadrature(OPERATOR, num_steps=12, seed=0, known=outliers)
    assert rules.num_unknown == SIZE - 3
    assert float(rules.nodes.max()) < 1.1
    above = rules.count(2.0, math.inf)
    assert above.low == pytest.approx(3, abs=1e-3)
    wanted = float(VALUES.log().sum())
    found = [
        log_determinant(OPERATOR, method="quadrature", num_steps=25, seed=s, known=outliers, level=0.95)
        for s in range(40)
    ]
    assert sum(estimate.low <= wanted <= estimate.high for estimate in found) >= 34


def test_happy_breakdown_is_exact():
    values = torch.tensor([1.0, 2.0, 5.0], dtype=F64).repeat_interleave(torch.tensor([40, 30, 10]))
    rules = lanczos_quadrature(of_values(values), num_steps=50, seed=0)
    assert rules.num_sweeps <= 4  # three different values: three steps, or four by rounding
    assert rules.nodes.shape[1] <= 4
    count = rules.count(1.5, 3.0)
    assert count.low <= 30 <= count.high
    assert lanczos_quadrature(Identity(9), seed=0).count(0.5, 1.5).value == pytest.approx(9)


def test_no_ghosts():  # row E5
    values = torch.cat([torch.full((10,), 100.0), torch.linspace(0, 1, 70)]).double()
    rules, longer = (lanczos_quadrature(of_values(values), num_steps=steps, seed=0) for steps in (8, 80))
    assert (rules.nodes > 50).sum(1).tolist() == [1] * 8
    # In the end rounding finds the other copies, never more than there are; they share the weight of the first.
    assert int((longer.nodes > 50).sum(1).max()) <= 10
    weights = [(r.weights * (r.nodes > 50)).sum(1) for r in (rules, longer)]
    torch.testing.assert_close(*weights, rtol=1e-10, atol=0)


def test_float32_operators():
    single = Dense(OPERATOR.matrix.float())
    one, double = (log_determinant(a, method="quadrature", seed=0) for a in (single, OPERATOR))
    assert one.value == pytest.approx(double.value, rel=1e-3)


def test_log_volume_of_training():
    net = run_of(
        lambda: torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.GELU(), torch.nn.Linear(8, 3)),
        optimiser=OPTIMISERS["sgd"],
        num_steps=10,
    )
    trained = TrainingMap(net.recipe.bind(net), net.start)
    wanted = float(torch.linalg.slogdet(trained.dense()).logabsdet)
    found = log_determinant(trained.T @ trained, method="quadrature", num_steps=60, num_probes=16, seed=0).scaled(0.5)
    assert found.low <= wanted <= found.high
    assert log_determinant(trained.T @ trained, seed=0).value / 2 == pytest.approx(wanted, rel=1e-9)


def test_log_determinants_are_exact_where_that_is_affordable(monkeypatch):
    exact = log_determinant(OPERATOR, damping=0.5, seed=0)
    assert exact.method == "exact"
    assert exact.value == pytest.approx(float((VALUES + 0.5).log().sum()), rel=1e-12)
    single = log_determinant(Dense(OPERATOR.matrix.float()), damping=0.5, seed=0)
    assert single.value == pytest.approx(exact.value, rel=1e-5)
    monkeypatch.setattr("tremorscope.instruments.log_determinant.EXACT_SIZE", SIZE - 1)
    assert log_determinant(OPERATOR, seed=0).method != "exact"
    assert log_determinant(OPERATOR, method="exact", seed=0).method == "exact"


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: lanczos_quadrature(Dense(matrix(4, 4, 0, F64)), seed=0), "not known to be symmetric"),
        (lambda: lanczos_quadrature(OPERATOR, num_probes=1, seed=0), "steps and probes"),
        (lambda: log_determinant(of_values(VALUES - 1), seed=0), "log-determinant: got an eigenvalue of -"),
        (
            lambda: log_determinant(of_values(VALUES - 1), method="quadrature", seed=0),
            "log-determinant: got an eigenvalue of at most -",
        ),
        (lambda: log_determinant(Dense(matrix(4, 4, 0, F64)), seed=0), "not known to be symmetric"),
        (lambda: lanczos_quadrature(OPERATOR, seed=0).count(2.0, 1.0), "interval to count in"),
        (lambda: lanczos_quadrature(OPERATOR, seed=0).density(torch.ones(3), 0.0), "width of a density"),
        (lambda: lanczos_quadrature(OPERATOR, seed=0).density(-torch.ones(3), 0.1, log=True), "positive numbers"),
        (lambda: lanczos_quadrature(OPERATOR, seed=0).mean(lambda x: x / 0), "function of the eigenvalues"),
        (
            lambda: lanczos_quadrature(
                OPERATOR, seed=0, known=(Subspace.span(torch.eye(5, 2, dtype=F64)), torch.ones(2))
            ),
            "known eigenvectors",
        ),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(BadInput, match=match):
        call()

"""Traces, diagonals and norms against the whole matrix; XTrace against leaving out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.laws.operator_cases import matrix, mlp, naive_hessian
from tremorscope.foundations.errors import BadInput, NotConverged
from tremorscope.instruments import trace as module
from tremorscope.instruments import trace_probes
from tremorscope.instruments.operators import Dense, Hessian, Identity, LinearOperator
from tremorscope.instruments.trace import diagonal, frobenius, trace
from tremorscope.instruments.trace_probes import XTrace

F64 = torch.float64
SIZE = 120
TURN = torch.linalg.qr(matrix(SIZE, SIZE, 0, F64)).Q
FLAT = torch.linspace(-1, 4, SIZE, dtype=F64)
FALLING = 0.85 ** torch.arange(SIZE, dtype=F64) * torch.tensor([1.0, -1.0, 1.0]).repeat(SIZE // 3)
SAMPLED = ["hutchinson", "hutch++", "xtrace"]


def of_values(values: Tensor) -> Dense:
    inner = (TURN * values) @ TURN.T
    return Dense((inner + inner.T) / 2)


def skewed() -> Dense:
    """No symmetry, a falling spectrum."""
    return Dense(TURN * FALLING @ matrix(SIZE, SIZE, 1, F64) / SIZE**0.5)


@pytest.mark.parametrize("method", SAMPLED)
@pytest.mark.parametrize("values", [FLAT, FALLING], ids=["flat", "falling"])
def test_intervals_cover_the_exact_trace(method: str, values: Tensor) -> None:  # row E6
    operator = of_values(values)
    found = [trace(operator, method=method, num_probes=24, seed=seed, level=0.95) for seed in range(100)]
    covered = sum(estimate.low <= float(values.sum()) <= estimate.high for estimate in found)
    assert 90 <= covered <= 99 + (method == "xtrace")  # 100 of 100 would be an interval that is too wide
    # Unbiased: the mean of 100 is ten times as good as one.
    errors = torch.tensor([estimate.value - float(values.sum()) for estimate in found])
    assert abs(float(errors.mean())) < 3.5 * float(errors.std()) / 10


@pytest.mark.parametrize("method", SAMPLED)
def test_intervals_cover_the_trace_without_symmetry(method: str) -> None:
    operator = skewed()
    exact = float(operator.matrix.trace())
    found = [trace(operator, method=method, num_probes=24, seed=seed, level=0.95) for seed in range(100)]
    assert 90 <= sum(estimate.low <= exact <= estimate.high for estimate in found) <= 99 + (method == "xtrace")


def test_a_falling_spectrum_is_where_the_range_pays() -> None:
    operator = of_values(FALLING.abs())
    widths = {}
    for method in SAMPLED:
        found = [trace(operator, method=method, num_probes=36, seed=seed) for seed in range(10)]
        widths[method] = sum(estimate.high - estimate.low for estimate in found)
    assert widths["xtrace"] < widths["hutch++"] < 0.5 * widths["hutchinson"]


@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_low_rank_is_exact(method: str, symmetric: bool) -> None:  # row E6
    left = matrix(SIZE, 7, 1, F64)
    operator = Dense((left @ left.T + (left @ left.T).T) / 2 if symmetric else left @ matrix(SIZE, 7, 2, F64).T)
    exact = float(operator.matrix.trace())
    for seed in range(5):
        found = trace(operator, method=method, num_probes=24, seed=seed)  # 7 < 24 / 3
        assert found.value == pytest.approx(exact, rel=1e-8)
        assert found.high - found.low < 1e-8 * float(operator.matrix.norm())


def naive_xtrace(operator: Dense, probes: Tensor, out: set[int]) -> Tensor:
    """The definition: a QR decomposition for every probe that is left out, besides those that are `out` anyway."""
    found = []
    for place in sorted(set(range(probes.shape[1])) - out):
        basis = torch.linalg.qr(
            operator.matrix @ probes[:, [i for i in range(probes.shape[1]) if i not in {place, *out}]]
        ).Q
        left = probes[:, place] - basis @ (basis.T @ probes[:, place])
        form = left @ operator.matrix @ left * (SIZE - basis.shape[1]) / (left @ left)
        found.append((basis.T @ operator.matrix @ basis).trace() + form)
    return torch.stack(found)


@pytest.mark.parametrize("portions", [(20,), (8, 6, 6)])
@pytest.mark.parametrize("operator", [of_values(FLAT), skewed()], ids=["symmetric", "not"])
def test_xtrace_equals_leaving_out_by_hand(operator: Dense, portions: tuple[int, ...]) -> None:
    sampler = XTrace(operator, 0)
    for portion in portions:
        sampler.extend(portion)
    assert sampler.num_used == 20
    probes = sampler.probes
    q = sampler.range.basis
    torch.testing.assert_close(q.T @ q, torch.eye(10).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(sampler.range.images, operator.matrix @ q, rtol=0, atol=1e-12)
    ones, pairs = sampler.left_out()
    torch.testing.assert_close(ones, naive_xtrace(operator, probes, set()), rtol=1e-9, atol=1e-9)
    for out in range(10):
        others = [i for i in range(10) if i != out]
        torch.testing.assert_close(pairs[others, out], naive_xtrace(operator, probes, {out}), rtol=1e-9, atol=1e-9)
    found = trace(operator, method="xtrace", num_probes=20)
    if len(portions) == 1:
        assert found.value == pytest.approx(float(ones.mean()), rel=1e-12)


@pytest.mark.parametrize("method", SAMPLED)
def test_probes_are_added_until_the_standard_error_is_small(method: str) -> None:
    operator = of_values(FLAT + 1)
    exact = float((FLAT + 1).sum())
    few = trace(operator, method=method, num_probes=8)
    many = trace(operator, method=method, num_probes=8, tol=0.02, max_probes=100_000)
    assert many.n > few.n
    assert (many.high - many.low) / 2 / 2.6 < 0.03 * exact
    assert many.value == pytest.approx(exact, rel=0.1)
    with pytest.raises(NotConverged, match=r"after 16 products; wanted a standard error below 0.0001 of the value"):
        trace(operator, method=method, num_probes=8, tol=1e-4, max_probes=16)


def test_auto_is_exact_where_that_is_affordable(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = of_values(FLAT)
    found = trace(operator)
    assert (found.method, found.value) == ("exact", pytest.approx(float(FLAT.sum()), rel=1e-12))
    assert trace(operator, method="xtrace", num_probes=SIZE).method == "exact"  # probes would cost as much
    monkeypatch.setattr(module, "EXACT_SIZE", 100)
    assert trace(operator).method == "jackknife t of XTrace"
    assert frobenius(operator).method == "root of t of Hutch++"
    assert diagonal(operator).method == "t of Bekas"


def test_the_hessian_of_a_network() -> None:
    network = mlp(F64)
    dense = naive_hessian(network)
    operator = Hessian(network, network.task.train_batch())
    assert trace(operator).value == pytest.approx(float(dense.trace()), rel=1e-10)
    assert frobenius(operator).value == pytest.approx(float(dense.norm()), rel=1e-10)
    torch.testing.assert_close(diagonal(operator).values, dense.diagonal(), rtol=1e-9, atol=1e-12)


def test_float32_operators() -> None:
    single = Dense(of_values(FALLING.abs()).matrix.float())
    single = Dense((single.matrix + single.matrix.T) / 2)
    for method in SAMPLED:
        one = trace(single, method=method, num_probes=30)
        double = trace(of_values(FALLING.abs()), method=method, num_probes=30)
        assert one.value == pytest.approx(double.value, rel=1e-4)


@pytest.mark.parametrize("operator", [of_values(FLAT), of_values(FALLING), skewed()], ids=["flat", "falling", "skewed"])
def test_intervals_of_the_frobenius_norm_cover_it(operator: Dense) -> None:
    exact = float(operator.matrix.norm())
    found = [frobenius(operator, method="hutch++", num_probes=24, seed=seed, level=0.95) for seed in range(100)]
    assert 88 <= sum(estimate.low <= exact <= estimate.high for estimate in found) <= 99
    assert frobenius(operator).value == pytest.approx(exact, rel=1e-12)


def test_frobenius_of_a_rectangle() -> None:
    wide = Dense(matrix(9, SIZE, 0, F64))
    found = frobenius(wide, method="hutch++", num_probes=40)  # rank 9 < 40 / 3
    assert found.value == pytest.approx(float(wide.matrix.norm()), rel=1e-10)
    assert frobenius(wide.T, num_probes=8).value == pytest.approx(float(wide.matrix.norm()), rel=1e-12)


def test_entries_of_the_diagonal_lie_in_their_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = of_values(FLAT)
    exact = operator.matrix.diagonal()
    found = diagonal(operator, method="bekas", num_probes=70, level=0.95)
    inside = ((found.low <= exact) & (exact <= found.high)).double().mean()
    assert 0.9 <= float(inside) <= 0.99
    variance = (operator.matrix.square().sum(1) - exact.square()) / 70
    assert float((found.standard_errors.square() / variance).mean()) == pytest.approx(1, abs=0.05)
    monkeypatch.setattr(module, "BLOCK", 9)
    again = diagonal(operator, method="bekas", num_probes=70, level=0.95)
    torch.testing.assert_close(again.standard_errors, found.standard_errors, rtol=1e-9, atol=0)


def test_same_seed_same_bits_however_probes_are_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = of_values(FLAT)
    whole = trace(operator, method="hutchinson", num_probes=20)
    assert whole == trace(operator, method="hutchinson", num_probes=20)
    assert whole.value != trace(operator, method="hutchinson", num_probes=20, seed=1).value
    monkeypatch.setattr(trace_probes, "BLOCK", 7)
    assert trace(operator, method="hutchinson", num_probes=20).value == pytest.approx(whole.value, rel=1e-12)


def overflowing(size: int) -> LinearOperator:
    return 1e300 * (1e300 * Identity(size))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: trace(Dense(matrix(3, 4, 0, F64))), "got 3 x 4; wanted a square one"),
        (lambda: diagonal(Dense(matrix(3, 4, 0, F64))), "diagonal of an operator: got 3 x 4; wanted a square one"),
        (lambda: trace(Identity(4), method="hutchinson", num_probes=1), "got 1; wanted at least 2"),
        (lambda: trace(Identity(9), method="hutch++", num_probes=5), "got 5; wanted at least 6"),
        (lambda: trace(Identity(9), method="xtrace", num_probes=3), "got 3; wanted at least 4"),
        (lambda: frobenius(Identity(9), method="hutch++", num_probes=5), "got 5; wanted at least 6"),
        (lambda: diagonal(Identity(9), method="bekas", num_probes=1), "got 1; wanted at least 2"),
        (lambda: trace(overflowing(4)), "wanted finite diagonal entries"),
        (lambda: trace(overflowing(400), method="xtrace"), "entries that are not finite"),
        (lambda: diagonal(overflowing(4)), "diagonal of an operator: got 4 entries that are not finite"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(BadInput, match=match):
        call()


def test_methods_are_named() -> None:
    with pytest.raises(Exception, match="method"):
        trace(Identity(4), method="guess")
    assert math.isclose(frobenius(Identity(4)).value, 2)

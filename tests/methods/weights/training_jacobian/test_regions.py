from __future__ import annotations

from dataclasses import replace

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.weights.training_jacobian.reference import naive_live, naive_overlap
from tests.methods.weights.training_jacobian.small_jacobians import F64, jacobian, orthonormal
from tremorscope.foundations.errors import BadInput, NotConverged
from tremorscope.instruments.singular import SingularTriples
from tremorscope.methods.weights.training_jacobian import LiveSpectrum, live_spectrum, regions, span_overlap
from tremorscope.methods.weights.training_jacobian.regions import TOLERANCES, central_count, region_sizes


def spectrum_of(values: list[float], seed: int = 0) -> LiveSpectrum:
    k = len(values)
    return LiveSpectrum(
        left=orthonormal(k, k, seed),
        values=torch.tensor(values, dtype=F64),
        right=orthonormal(k, k, seed + 1),
        live=torch.arange(k),
        num_params=k,
    )


def test_the_decomposition_is_numpys_on_live_directions():
    found, spectrum = jacobian(), live_spectrum(jacobian())
    live = naive_live(found.matrix)
    assert spectrum.live.tolist() == live
    assert (spectrum.num_params, spectrum.num_dead, len(live)) == (47, 4, 43)
    block = found.matrix.numpy()[numpy.ix_(live, live)]
    u, s, vt = numpy.linalg.svd(block)
    assert numpy.allclose(spectrum.values, s, rtol=1e-12, atol=1e-14)
    assert numpy.allclose(spectrum.alignment.abs(), numpy.abs((u * vt.T).sum(0)), atol=1e-8)
    again = spectrum.left @ torch.diag(spectrum.values) @ spectrum.right.T
    assert numpy.allclose(again, block, atol=1e-13)
    assert (spectrum.values.diff() <= 0).all()


def test_directions_lie_in_all_weights_with_nothing_on_dead_ones():
    spectrum = live_spectrum(jacobian())
    full = spectrum.initial_directions(torch.tensor([0, 42, 7]))
    dead = sorted(set(range(47)) - set(spectrum.live.tolist()))
    assert torch.equal(full[dead], torch.zeros(4, 3, dtype=F64))
    assert torch.allclose(full.T @ full, torch.eye(3, dtype=F64), atol=1e-12)
    # J v = sigma u, in the space of all weights.
    carried = jacobian().matrix @ full
    assert torch.allclose(carried.norm(dim=0), spectrum.values[[0, 42, 7]], rtol=1e-9, atol=1e-12)
    mask = spectrum.bulk(0.1)
    assert spectrum.initial_directions(mask).shape == (47, int(mask.sum()))


def test_single_precision_is_decomposed_in_double():
    found = replace(jacobian(), matrix=jacobian().matrix.float())
    spectrum = live_spectrum(found)
    assert spectrum.values.dtype == spectrum.left.dtype == F64
    assert torch.allclose(spectrum.values, live_spectrum(jacobian()).values, atol=1e-5)


def test_regions_at_a_glance():
    spectrum = spectrum_of([3.0, 1.2, 1.1, 1.05, 1.0, 1.0, 0.999, 0.9, 0.5, 0.0])
    assert spectrum.sizes(0.15) == (0.15, 2, 6, 2)
    assert spectrum.sizes(0.01) == (0.01, 4, 3, 3)
    assert spectrum.sizes(0.0) == (0.0, 4, 2, 4)
    assert spectrum.central(4).tolist() == [4, 5, 6, 3]
    assert spectrum.central(1).tolist() == [4]
    assert [size.tolerance for size in region_sizes(spectrum)] == list(TOLERANCES)


@settings(deadline=None)
@given(values=st.lists(st.floats(0, 3), min_size=1, max_size=12), tolerance=st.floats(0, 2))
def test_regions_share_out_the_live_directions(values, tolerance):
    values = sorted(values, reverse=True)
    spectrum = spectrum_of(values)
    sizes = spectrum.sizes(tolerance)
    assert sizes.chaotic + sizes.bulk + sizes.stable == len(values)
    assert sizes.chaotic == sum(value > 1 + tolerance for value in values)
    assert sizes.bulk == int(spectrum.bulk(tolerance).sum())
    order = spectrum.central(len(values))
    assert sorted(order.tolist()) == list(range(len(values)))
    distances = (spectrum.values[order] - 1).abs()
    assert (distances.diff() >= 0).all()
    # Bulks are nested, and the most central directions fill them first.
    assert sizes.bulk <= spectrum.sizes(tolerance + 0.1).bulk
    assert set(order[: sizes.bulk].tolist()) == set(spectrum.bulk(tolerance).nonzero().flatten().tolist())


def test_alignment_of_spans_is_free_of_rotations_inside_them():
    spectrum = spectrum_of([2.0, 1.0, 1.0, 1.0, 0.1, 0.0])
    chosen = spectrum.bulk(0.01)
    wanted = naive_overlap(spectrum.left[:, 1:4], spectrum.right[:, 1:4])
    assert spectrum.span_alignment(chosen) == pytest.approx(wanted, rel=1e-12)
    turned = spectrum.right.clone()
    turned[:, 1:4] = turned[:, 1:4] @ orthonormal(3, 3, 9)
    assert replace(spectrum, right=turned).span_alignment(chosen) == pytest.approx(wanted, rel=1e-12)
    assert not torch.allclose(replace(spectrum, right=turned).alignment, spectrum.alignment)
    same = replace(spectrum, left=spectrum.right)
    assert same.span_alignment(chosen) == pytest.approx(1)
    assert torch.allclose(same.alignment, torch.ones(6, dtype=F64))
    assert numpy.isnan(spectrum.span_alignment(torch.zeros(6, dtype=torch.bool)))


@settings(deadline=None, max_examples=40)
@given(one=st.integers(1, 6), other=st.integers(1, 6), seed=st.integers(0, 99))
def test_overlap_is_the_mean_squared_cosine(one, other, seed):
    a, b = orthonormal(8, one, seed), orthonormal(8, other, seed + 100)
    found = span_overlap(a, b)
    assert found == pytest.approx(naive_overlap(a, b), abs=1e-12)
    assert found == pytest.approx(span_overlap(b, a), abs=1e-12)
    assert span_overlap(a, a) == pytest.approx(1)
    assert span_overlap(a @ orthonormal(one, one, seed), b) == pytest.approx(found, abs=1e-12)
    if one < 8:
        complement = torch.linalg.qr(torch.cat([a, orthonormal(8, 8 - one, seed + 7)], 1)).Q[:, one:]
        assert span_overlap(a, complement) == pytest.approx(0, abs=1e-12)


def test_overlap_of_random_spans_is_near_chance():
    drawn = [span_overlap(orthonormal(200, 40, i), orthonormal(200, 40, 1000 + i)) for i in range(5)]
    assert numpy.mean(drawn) == pytest.approx(40 / 200, rel=0.05)


@pytest.mark.parametrize("other", [(9, 2), (8, 0)])
def test_spans_that_cannot_be_compared(other):
    with pytest.raises(BadInput, match=r"spans to compare: got \(8, 3\) and "):
        span_overlap(orthonormal(8, 3, 0), torch.zeros(other, dtype=F64))


@pytest.mark.parametrize("k", [0, 4])
def test_no_more_central_directions_than_there_are(k):
    with pytest.raises(BadInput, match=f"number of central directions: got {k}; wanted 1 to 3"):
        spectrum_of([1.0, 1.0, 0.5]).central(k)


def test_a_share_is_at_least_one_direction():
    assert [central_count(4618, 1000 / 4618), central_count(10, 0.25), central_count(3, 0.01)] == [1000, 2, 1]


def test_training_that_moves_nothing_has_no_live_directions():
    still = replace(jacobian(), matrix=torch.eye(47, dtype=F64))
    with pytest.raises(BadInput, match="live directions of the training Jacobian: got none; wanted a recipe"):
        live_spectrum(still)


def test_values_without_vectors_are_not_enough(monkeypatch):
    only = SingularTriples(
        left=None, values=torch.ones(43), right=None, residual=float("nan"), method="gram", flags=("gesdd failed",)
    )
    monkeypatch.setattr(regions, "decompose", lambda matrix: only)
    with pytest.raises(NotConverged, match="singular vectors of the training Jacobian: got gesdd failed"):
        live_spectrum(jacobian())


def test_flags_of_both_steps_are_kept(monkeypatch):
    real = regions.decompose
    monkeypatch.setattr(regions, "decompose", lambda matrix: replace(real(matrix), flags=("stepped down",)))
    assert live_spectrum(replace(jacobian(), flags=("generic route",))).flags == ("generic route", "stepped down")


@pytest.mark.parametrize("seed", [3, 4])
def test_live_means_with_an_entry_of_its_own(seed):
    assert jacobian(seed).live.tolist() == naive_live(jacobian(seed).matrix)


def test_a_small_entry_is_enough_and_so_is_a_diagonal():
    lone = torch.eye(5, dtype=F64)
    lone[1, 1], lone[3, 4] = 0.5, 1e-300
    zero = torch.eye(3, dtype=F64)
    zero[2, 2] = 0
    for matrix, live in ((lone, [1, 3, 4]), (zero, [2])):
        ends = torch.zeros(len(matrix), dtype=F64)
        found = replace(jacobian(), matrix=matrix, first=ends, last=ends)
        assert found.live.tolist() == live == naive_live(matrix)

"""Populations and what is drawn from them: moments, norms, and the mistakes that are refused."""

from __future__ import annotations

import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.methods.activations.plateaus.kinds import (
    BASES,
    DIRECTIONS,
    Population,
    base_activations,
    directions,
    layer_centred,
    layer_normed,
    unit,
)

D = 64


def real(count=400, d=D, seed=0):
    stream = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=stream, dtype=torch.float64) * torch.linspace(0.1, 2, d)[:, None]
    return 3 + torch.randn(count, d, generator=stream, dtype=torch.float64) @ mixing


def test_samples_have_the_mean_and_covariance_of_the_population(generator):
    population = Population.of(real())
    drawn = population.sample(20_000, generator)
    target = torch.cov(population.activations.T)
    assert torch.allclose(population.covariance, target, atol=1e-9)
    errors = (target.diagonal() / 20_000).sqrt()
    # Three standard errors each; one in 370 of 64 may lie outside by chance.
    assert int(((drawn.mean(dim=0) - population.mean).abs() > 3 * errors).sum()) <= 1
    gap = torch.cov(drawn.T) - target
    assert float(gap.norm() / target.norm()) < 0.05


def test_the_moments_would_notice_a_transposed_basis(generator):
    population = Population.of(real())
    wrong = Population(
        activations=population.activations,
        mean=population.mean,
        values=population.values,
        vectors=population.vectors.T.contiguous(),
        shrinkage=0.0,
    )
    target = torch.cov(population.activations.T)
    assert float((torch.cov(wrong.sample(20_000, generator).T) - target).norm() / target.norm()) > 0.2


def test_a_direction_without_variance_is_never_sampled(generator):
    centred = layer_centred(real(d=8))
    population = Population.of(centred)
    assert int((population.values == 0).sum()) == 1
    assert float(population.sample(100, generator).sum(dim=1).abs().max()) < 1e-9


def test_too_few_samples_are_refused_with_both_numbers():
    with pytest.raises(BadInput, match=r"got 64 samples of 64 dimensions; wanted at least 65 samples\. .*ledoit-wolf"):
        Population.of(real(count=D))
    assert Population.of(real(count=D + 1)).shrinkage == 0.0


def test_shrinkage_keeps_the_trace_and_fills_every_direction():
    few = real(count=20)
    population = Population.of(few, shrinkage="ledoit-wolf")
    assert 0 < population.shrinkage < 1
    assert float(population.values.min()) > 0
    assert float(population.values.sum()) == pytest.approx(float(torch.cov(few.T).trace()))
    fixed = Population.of(few, shrinkage=1.0)
    assert torch.allclose(fixed.covariance, fixed.values[0] * torch.eye(D, dtype=torch.float64))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shrinkage": 1.5}, "shrinkage: got 1.5; wanted 0 to 1"),
        ({"activations": torch.full((4, 2), torch.nan)}, "entries that are not finite"),
    ],
)
def test_bad_populations_are_refused(given, message):
    with pytest.raises(BadInput, match=message):
        Population.of(given.pop("activations", real()), **given)


def test_other_real_activations_are_different_and_never_the_base(generator):
    activations = real(count=6, d=3)
    population = Population.of(activations)
    others = population.others(activations[:2], 5, generator)
    for base, found in zip(activations[:2], others, strict=True):
        assert len({tuple(row.tolist()) for row in found}) == 5
        assert not (found == base).all(dim=1).any()
    with pytest.raises(BadInput, match="other real activations: got 5; wanted at least 6"):
        population.others(activations[:2], 6, generator)


def test_controls_have_the_norm_or_the_statistics_of_the_real_base(generator):
    activations = real()
    population, bases = Population.of(activations), activations[:5]
    drawn = {kind: base_activations(kind, bases, population, generator) for kind in BASES}
    assert torch.equal(drawn["real"], bases)
    assert torch.allclose(drawn["random, real norm"].norm(dim=1), bases.norm(dim=1))
    assert not torch.allclose(drawn["random"].norm(dim=1), bases.norm(dim=1), rtol=0.01)
    post = drawn["random, post-norm"]
    assert torch.allclose(post.mean(dim=1), bases.mean(dim=1))
    assert torch.allclose(layer_centred(post).norm(dim=1), layer_centred(bases).norm(dim=1))
    assert torch.allclose(layer_normed(bases).square().mean(dim=1), torch.ones(5, dtype=torch.float64))
    with pytest.raises(BadInput, match="kind of base: got fake"):
        base_activations("fake", bases, population, generator)


def test_mixtures_do_not_take_the_base_away():
    activations = real()
    population, bases = Population.of(activations), activations[:3]
    for kind, mixture in (("cov-random", "cov-random mixture"), ("real-other", "real-other mixture")):
        one = directions(kind, bases, 4, population, torch.Generator().manual_seed(1))
        other = directions(mixture, bases, 4, population, torch.Generator().manual_seed(1))
        assert torch.allclose(one.norm(dim=2), torch.ones(3, 4, dtype=torch.float64))
        # The same targets: base + s one is proportional to the target that `other` points to.
        plane = torch.stack([bases[0], other[0, 0], one[0, 0]])
        assert int(torch.linalg.matrix_rank(plane, rtol=1e-9)) == 2
        assert not torch.allclose(one, other, atol=0.01)
    assert set(DIRECTIONS) > {"isotropic"}
    with pytest.raises(BadInput, match="kind of direction: got up"):
        directions("up", bases, 1, population, torch.Generator())


def test_directions_without_length_are_refused():
    with pytest.raises(BadInput, match="got 1 that are zero or not finite"):
        unit(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))

"""Subspaces: projections, complements, angles, and what chance gives."""

from __future__ import annotations

import math

import jaxtyping
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.subspace import Complement, Subspace

F64 = torch.float64


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Subspace, Subspace, Tensor]:
    """Two subspaces of one space with offsets, and a few points."""
    d = draw(st.integers(2, 9))
    gen = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def one() -> Subspace:
        vectors = torch.randn(d, draw(st.integers(1, d)), generator=gen, dtype=F64)
        scale = 10.0 ** draw(st.integers(-150, 150))
        return Subspace.span(vectors * scale, offset=torch.randn(d, generator=gen, dtype=F64))

    return one(), one(), torch.randn(4, d, generator=gen, dtype=F64)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(pairs())
def test_projection_laws(drawn: tuple[Subspace, Subspace, Tensor]) -> None:
    space, _, points = drawn
    nearest = space.project(points)
    torch.testing.assert_close(space.project(nearest), nearest, rtol=0, atol=1e-12)
    assert bool(space.contains(nearest).all())
    if space.k < space.d:
        assert not bool(space.contains(points).any())
    torch.testing.assert_close((points - nearest) @ space.basis, torch.zeros(4, space.k, dtype=F64), rtol=0, atol=1e-12)
    rest = space.complement()
    torch.testing.assert_close(nearest + rest.project(points) - space.offset, points, rtol=0, atol=1e-12)
    assert bool(rest.contains(rest.project(points)).all())
    assert rest.complement() is space
    assert rest.k + space.k == space.d


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(pairs())
def test_overlap_and_angles_agree_with_each_other_and_with_scipy(drawn: tuple[Subspace, Subspace, Tensor]) -> None:
    one, two, _ = drawn
    angles = one.principal_angles(two)
    assert angles.shape == (min(one.k, two.k),)
    assert bool((angles.diff() >= -1e-9).all())
    assert one.overlap(two) == pytest.approx(float(angles.cos().square().mean()), abs=1e-12)
    assert one.overlap(two) == pytest.approx(two.overlap(one), abs=1e-12)
    twin = torch.from_numpy(scipy.linalg.subspace_angles(one.basis.numpy(), two.basis.numpy())).flip(0)
    torch.testing.assert_close(angles, twin, rtol=0, atol=1e-7)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(pairs())
def test_the_explicit_complement_is_the_thin_one(drawn: tuple[Subspace, Subspace, Tensor]) -> None:
    one, two, points = drawn
    rest = one.complement()
    if rest.k == 0:
        with pytest.raises(BadInput, match="got dimension 0"):
            rest.explicit()
        return
    explicit = rest.explicit()
    assert explicit.k == rest.k
    torch.testing.assert_close(explicit.project(points), rest.project(points), rtol=0, atol=1e-12)
    assert rest.overlap(two) == pytest.approx(explicit.overlap(two), abs=1e-12)
    assert one.overlap(explicit) == pytest.approx(0, abs=1e-24)


@pytest.mark.parametrize(("d", "n"), [(5, 1), (5, 3), (3, 7)])
def test_project_is_the_nearest_point(d: int, n: int) -> None:
    gen = torch.Generator().manual_seed(d * n)
    vectors, x = (torch.randn(d, m, generator=gen, dtype=F64) for m in (n, 4))
    twin = vectors @ torch.linalg.pinv(vectors) @ x  # the naive formula
    torch.testing.assert_close(Subspace.span(vectors).project(x.T).T, twin, rtol=0, atol=1e-12)


def test_span_keeps_the_rank() -> None:
    column = torch.tensor([[1.0], [2.0], [2.0]], dtype=F64)
    assert Subspace.span(torch.cat([column, 2 * column, 0 * column], dim=1)).k == 1
    assert Subspace.span(column * 1e-160).k == 1


def test_small_angles_are_not_lost() -> None:
    for angle in (1e-3, 1e-7, 1e-11):
        one = Subspace.span(torch.tensor([[1.0], [0.0]], dtype=F64))
        two = Subspace.span(torch.tensor([[math.cos(angle)], [math.sin(angle)]], dtype=F64))
        assert float(one.principal_angles(two)) == pytest.approx(angle, rel=1e-4)


def test_random_subspaces_overlap_as_chance_says(generator: torch.Generator) -> None:
    d, k, small = 30, 10, 4
    drawn = [Subspace.random(d, k, generator).overlap(Subspace.random(d, small, generator)) for _ in range(400)]
    mean = sum(drawn) / len(drawn)
    spread = (sum((x - mean) ** 2 for x in drawn) / len(drawn)) ** 0.5 / len(drawn) ** 0.5
    assert abs(mean - Subspace.chance(d, k)) < 4 * spread
    assert spread < 0.01
    again = torch.Generator().manual_seed(1)
    first = Subspace.random(5, 2, again, dtype=torch.float32)
    assert torch.equal(first.basis, Subspace.random(5, 2, again.manual_seed(1), dtype=torch.float32).basis)


def test_thin_always() -> None:
    d = 200_000  # a projector would need 320 GB
    line = Subspace.random(d, 3, torch.Generator().manual_seed(0))
    rest = line.complement()
    assert isinstance(rest, Complement)
    x = torch.ones(d, dtype=F64)
    assert float((line.project(x) + rest.project(x) - x).abs().max()) < 1e-12
    assert rest.overlap(line) < 1e-12


def test_bad_input_is_named(generator: torch.Generator) -> None:
    eye = torch.eye(3)
    with pytest.raises(BadInput, match="got 1 non-finite entries; wanted none"):
        Subspace.span(torch.tensor([[float("nan")], [1.0]]))
    with pytest.raises(BadInput, match="got only zeros"):
        Subspace.span(torch.zeros(3, 2))
    with pytest.raises(BadInput, match="1 from orthonormal"):
        Subspace(basis=eye[:, [0, 0]], offset=torch.zeros(3))
    # Shapes are checked by their annotations first, where a type checker is on.
    with pytest.raises((BadInput, jaxtyping.TypeCheckError), match=r"got 2 entries|Float\[Tensor, 'd'\]"):
        Subspace(basis=eye, offset=torch.zeros(2))
    with pytest.raises(BadInput, match="got in 3 and 2 dimensions"):
        Subspace.span(eye).overlap(Subspace.span(torch.eye(2)))
    with pytest.raises(BadInput, match="got 4; wanted 1 to 3"):
        Subspace.random(3, 4, generator)
    with pytest.raises(BadInput, match="got 0; wanted 1 to 3"):
        Subspace.chance(3, 0)

"""Straight and spherical paths: norms, angles, their own starting points, and the paths that do not exist."""

from __future__ import annotations

import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.methods.activations.plateaus.paths import Paths, paths_of


def drawn(n=5, d=17):
    stream = torch.Generator().manual_seed(2)
    return [torch.randn(n, d, generator=stream) * 7 for _ in range(2)]


def angle(a, b):
    # By the half angle: the arc cosine loses half of the digits near 0.
    a, b = a / a.norm(dim=-1, keepdim=True), b / b.norm(dim=-1, keepdim=True)
    return 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))


def test_the_sphere_keeps_the_norm_and_the_angle_is_theta():
    base, direction = drawn()
    degrees = torch.tensor([0.0, 0.01, 5.0, 45.0, 90.0, 150.0, 180.0])
    points = Paths.sphere(base, direction).points(degrees)
    assert points.dtype == torch.float64
    norms = base.double().norm(dim=1)[:, None]
    assert float(((points.norm(dim=2) - norms) / norms).abs().max()) < 1e-12
    found = angle(points, base.double()[:, None].expand_as(points))
    assert float((found - torch.deg2rad(degrees.double())).abs().max()) < 1e-9
    # What float32 models see of it still obeys the looser law of the specification.
    rounded = points.float().double()
    assert float(((rounded.norm(dim=2) - norms) / norms).abs().max()) < 1e-6
    assert float((angle(rounded, base.double()[:, None].expand_as(points)) - found).abs().max()) < 1e-4


def test_the_sphere_turns_towards_the_direction():
    base, direction = drawn()
    point = Paths.sphere(base, direction).points(torch.tensor([30.0]))[:, 0]
    assert bool(
        ((point - base.double()) * direction.double())
        .sum(dim=1)
        .gt(0)
        .logical_or((base.double() * direction.double()).sum(dim=1) > 0)
        .all()
    )
    plane = torch.stack([base.double(), direction.double(), point], dim=1)
    assert torch.linalg.matrix_rank(plane, rtol=1e-9).tolist() == [2] * len(base)


def test_straight_paths_move_by_their_size():
    base, direction = drawn()
    points = Paths.straight(base, direction).points(torch.tensor([[1.0], [2.0], [3.0], [4.0], [0.0]]))
    moved = points[:, 0] - base.double()
    assert torch.allclose(moved.norm(dim=1), torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0], dtype=torch.float64))
    assert torch.allclose(moved[0], (direction[0] / direction[0].norm()).double(), atol=1e-6)
    assert Paths.straight(base, direction).unit == "activation units"


def test_nearly_parallel_directions_are_still_orthogonalised():
    base = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    paths = Paths.sphere(base, torch.tensor([[1.0, 1e-5, 0.0]], dtype=torch.float64))
    assert abs(float(paths.across @ base[0])) < 1e-15
    assert torch.allclose(paths.across, torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("base", "direction", "message"),
    [
        ([[0.0, 0.0]], [[1.0, 0.0]], r"base 0 of paths on a sphere: got norm 0; .*Use straight paths"),
        ([[1.0, 1.0]], [[-2.0, -2.0]], "direction 0 of paths on a sphere: got parallel to its base"),
        ([[1.0, 1.0]], [[0.0, 0.0]], "directions: got 1 that are zero"),
        ([[1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], "wanted equal shapes"),
        ([[torch.inf, 1.0]], [[1.0, 0.0]], "bases of paths: got entries that are not finite"),
    ],
)
def test_paths_that_do_not_exist_are_refused(base, direction, message):
    with pytest.raises(BadInput, match=message):
        Paths.sphere(torch.tensor(base), torch.tensor(direction))


def test_modes_go_by_name():
    base, direction = drawn()
    assert paths_of("straight", base, direction).mode == "straight"
    assert paths_of("sphere", base, direction).unit == "degrees"

"""The edits of the literature: what each leaves, removes and sets; and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations import named_edits as named
from tremorscope.instruments.activations.gated_edits import Beyond, Clamp, Gated
from tremorscope.instruments.edit import Add, Replace

F64 = torch.float64
STREAM = torch.Generator().manual_seed(4)
X = torch.randn(200, 4, generator=STREAM, dtype=F64) @ torch.randn(4, 4, generator=STREAM, dtype=F64) + 3
R = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=F64)
MEAN = torch.tensor([0.3, 0.1, -2.0, 1.0], dtype=F64)
UNIT = R / R.norm()


def test_ace_sets_the_coordinate_and_leaves_the_rest():
    edited = named.ace(R, MEAN, 0.7).apply(X)
    torch.testing.assert_close((edited - MEAN) @ UNIT / R.norm(), torch.full((200,), 0.7, dtype=F64))
    torch.testing.assert_close(edited - torch.outer(edited @ UNIT, UNIT), X - torch.outer(X @ UNIT, UNIT))
    torch.testing.assert_close(
        named.ace(R, torch.zeros(4, dtype=F64), 0.0).apply(X), named.directional_ablate(R).apply(X)
    )


def test_ace_of_several_directions_with_a_read_out_and_in_part():
    columns, seen_by = torch.stack([R, MEAN], 1), torch.stack([R + 0.1, MEAN - 0.2], 1)
    edit = named.ace(columns, MEAN, [0.5, -1.0], read_out=seen_by)
    inverse = torch.linalg.inv(seen_by.mT @ columns)
    wanted = torch.tensor([0.5, -1.0], dtype=F64).expand(200, 2)
    torch.testing.assert_close((edit.apply(X) - MEAN) @ seen_by @ inverse.mT, wanted)
    half = named.ace(R, MEAN, 0.0, strength=0.5).apply(X)
    torch.testing.assert_close((half - MEAN) @ R, 0.5 * (X - MEAN) @ R)


def test_leace_leaves_no_covariance_with_the_concept():
    z = (X[:, 0] + X[:, 1] > X.mean(0)[:2].sum()).double()
    crossed = ((X - X.mean(0)) * (z - z.mean())[:, None]).mean(0)
    covariance = torch.cov(X.mT, correction=0)
    edited = named.leace(crossed, covariance, X.mean(0)).apply(X)
    assert ((edited - edited.mean(0)) * (z - z.mean())[:, None]).mean(0).abs().max() < 1e-12
    # The published form, from the inverse root of the covariance.
    sizes, vectors = torch.linalg.eigh(covariance)
    root = vectors * sizes.sqrt() @ vectors.mT
    u = torch.linalg.inv(root) @ crossed
    projector = root @ torch.outer(u, u) / u.square().sum() @ torch.linalg.inv(root)
    torch.testing.assert_close(edited, X - (X - X.mean(0)) @ projector.mT)


def test_ablations_put_in_what_they_say():
    assert not named.zero_ablate(4).apply(X).any()
    torch.testing.assert_close(named.mean_ablate(X[:, None].expand(200, 3, 4)).apply(X)[7], X.mean(0))
    resampled = named.resample_ablate(X, seed=3).value
    assert (resampled != X).any(1).all()
    assert torch.equal(resampled.sort(0).values, X.sort(0).values)
    assert not torch.equal(named.resample_ablate(X, seed=4).value, resampled)
    torch.testing.assert_close(named.directional_ablate(R, origin=MEAN).apply(X) @ R, (MEAN @ R).expand(200))
    assert named.caa(R, MEAN, 2.0) == Add(R - MEAN, 2.0)
    assert named.add(R, 0.5) == Add(R, 0.5)
    assert named.replace(X) == Replace(X)


def test_a_rotation_of_a_plane_turns_that_plane_alone():
    edit = named.rotate(R, MEAN, 0.6)
    basis = torch.linalg.qr(torch.stack([R, MEAN], 1)).Q
    outside = X - X @ basis @ basis.mT
    torch.testing.assert_close(edit.apply(X).norm(dim=1), X.norm(dim=1))
    torch.testing.assert_close(edit.apply(outside), outside)
    turned = edit.apply(R)
    assert math.acos(float(turned @ UNIT / R.norm())) == pytest.approx(0.6)
    assert float(turned @ MEAN) > float(R @ MEAN)


def test_clamps_gates_and_norms():
    clamped = named.clamp(low=-1.0, high=0.5, direction=R, origin=MEAN).apply(X)
    torch.testing.assert_close((clamped - MEAN) @ UNIT, ((X - MEAN) @ UNIT).clamp(-1.0, 0.5))
    torch.testing.assert_close(clamped - torch.outer(clamped @ UNIT, UNIT), X - torch.outer(X @ UNIT, UNIT))
    assert torch.equal(named.clamp(high=1.0).apply(X), X.clamp(max=1.0))
    kept = named.norm_preserving(Add(R, 3.0)).apply(X)
    torch.testing.assert_close(kept.norm(dim=1), X.norm(dim=1))
    torch.testing.assert_close(kept / kept.norm(dim=1, keepdim=True), (X + 3 * R) / (X + 3 * R).norm(dim=1)[:, None])
    gated = named.when_beyond(Replace(MEAN), R, above=1.0, below=-4.0, origin=MEAN).apply(X)
    coordinate = (X - MEAN) @ UNIT
    beyond = (coordinate > 1.0) | (coordinate < -4.0)
    assert 0 < int(beyond.sum()) < 200
    assert torch.equal(gated, torch.where(beyond[:, None], MEAN, X))
    smooth = named.when(Add(R), lambda x: torch.sigmoid(x[..., 0])).apply(X)
    torch.testing.assert_close(smooth, X + torch.sigmoid(X[:, :1]) * R)
    assert torch.equal(named.in_part(Replace(MEAN), 1.0).apply(X), MEAN.expand(200, 4))
    assert torch.equal(named.in_part(Replace(MEAN), 0.0).apply(X), X)
    assert Beyond(R, 1.0) == Beyond(R.clone(), 1.0)
    assert Beyond(R, 1.0) != Beyond(R, 2.0)
    assert Gated(Add(R), Beyond(R, 1.0)) == Gated(Add(R), Beyond(R, 1.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: named.ace(R, MEAN, math.nan), "alpha: got nan; wanted 1 finite numbers"),
        (lambda: named.ace(R, MEAN, [1.0, 2.0]), "alpha: got .*; wanted 1 finite numbers, one for each direction"),
        (lambda: named.ace(R, MEAN, 0.0, strength=math.inf), "strength of ace: got inf"),
        (lambda: named.ace(R, MEAN, 0.0, read_out=torch.tensor([2.0, 1, 0, 0])), "does not see every direction"),
        (lambda: named.ace(R, MEAN, 0.0, read_out=R[:3]), r"read-out: got \(3, 1\); wanted the shape"),
        (lambda: named.directional_ablate(0 * R), "direction: got only zeros"),
        (lambda: named.directional_ablate(R * math.inf), "direction: got .* of 4 entries not finite"),
        (lambda: named.leace(R, torch.zeros(4, 4), MEAN), "covariance: got eigenvalues from 0.*Give a ridge"),
        (lambda: named.leace(R, torch.eye(3), MEAN), r"covariance: got \(3, 3\); wanted \(4, 4\)"),
        (lambda: named.rotate(R, 2 * R, 0.1), "plane of rotate: got parallel vectors"),
        (lambda: named.resample_ablate(X[:1], seed=0), "values to resample: got 1 rows"),
        (lambda: named.clamp(), "bounds of Clamp: got none"),
        (lambda: named.clamp(low=1.0, high=0.0), "bounds of Clamp: got 1 to 0"),
        (lambda: Clamp(low=math.nan), "low of Clamp: got nan"),
        (lambda: named.when_beyond(Add(R), R), "bounds of Beyond: got none"),
        (lambda: named.when(Add(R), lambda x: x).apply(X), r"gate of Gated: got shape \(200, 4\); wanted \(200,\)"),
        (lambda: named.norm_preserving(named.zero_ablate(4)).apply(X), "norm after Replace: got 0.0"),
        (lambda: named.in_part(Add(R), math.nan), "strength of Gated: got nan"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(BadInput, match=message):
        make()

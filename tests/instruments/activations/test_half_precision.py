"""Sweeps in bfloat16: ways checked in float32, the noise floor beside every curve, points compared with float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.instruments.activations.sweep_reference import around, prompts, tiny
from tests.instruments.activations.test_stack_replay import encoder
from tremorscope.instruments.activations import block_replay
from tremorscope.instruments.activations.half_precision import checked_places, compared, divergence, in_float32
from tremorscope.instruments.activations.readouts import Responses
from tremorscope.instruments.activations.sweeps import ActivationSweep, prepare_sweep, prepare_sweeps
from tremorscope.instruments.edit import Add
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

EXACT = 1e-5  # of the same weights in float32


def half(family: str) -> Network:
    return Network(tiny(family).module, dtype=torch.bfloat16)


def swept(sweep: ActivationSweep, count: int = 6, size: float = 1.0) -> tuple[Tensor, Tensor, Responses]:
    rows = torch.arange(count) % 2
    points = around(sweep.base, rows, size=size)
    return points, rows, sweep.respond(points, rows)


@pytest.mark.parametrize("site", ["resid_pre.1", "head_out.1.1"])
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_floor_and_the_check_stand_beside_every_response(family: str, level: int, site: str) -> None:
    network, batch = half(family), prompts(2, 8)
    sweep = prepare_sweep(network, batch, f"acts:{site}@last", level=level)
    assert sweep.level == level
    assert sweep.base.dtype == torch.bfloat16
    points, rows, found = swept(sweep, size=3.0)
    assert found.floor == sweep.floor
    assert sweep.floor is not None
    assert 0 <= sweep.floor < 0.05
    assert found.noise == pytest.approx(max(sweep.floor, 1e-6), rel=0.01)
    assert f"bfloat16: computations of the same points diverge by up to {sweep.floor:.2g} nats" in sweep.flags[-1]
    # What is compared is what float32 gives with the very same (rounded) weights and points.
    twin = prepare_sweep(in_float32(network), batch, f"acts:{site}@last", level=0)
    truth = twin.respond(points.to(torch.bfloat16).float(), rows)
    assert truth.kl.max() > 0.01
    places = checked_places(6, 6)
    spot = found.spot
    assert spot.num_checked == len(places) == 2
    for name, value in truth.values().items():
        gap = float((found.values()[name] - value)[places].abs().max())
        assert spot.gaps[name] == pytest.approx(gap, abs=6 * EXACT)
        assert gap > 0
    assert (found.kl - truth.kl).abs().max() < 0.1 * truth.kl.max() + 0.01
    assert sweep.num_evaluations == 6


def test_one_in_a_hundred_is_checked_and_two_at_least() -> None:
    assert [len(checked_places(count, 0)) for count in (1, 2, 150, 201, 1000)] == [1, 2, 2, 3, 10]
    places = checked_places(1000, 3)
    assert places.tolist() == sorted(set(places.tolist()))
    assert torch.equal(places, checked_places(1000, 3))
    assert not torch.equal(places, checked_places(1000, 4))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_noise_floor_is_what_computations_of_the_same_points_differ_by(family: str) -> None:
    network, batch = half(family), prompts(2, 8)
    fast, slow, wide = (
        prepare_sweep(at, batch, "acts:resid_pre.1@last", level=level)
        for at, level in ((network, 2), (network, 0), (in_float32(network), 2))
    )
    rows = torch.tensor([0, 1])
    points = torch.cat([around(fast.base, rows, seed=seed, size=0.5) for seed in range(4)])
    rows = rows.repeat(4)
    told = fast.logits(points, rows)
    gaps = [divergence(slow.logits(points, rows), told), divergence(wide.logits(points.float(), rows), told)]
    assert min(gaps) > 0
    assert max(gaps) < 10 * fast.floor
    assert fast.floor < 10 * max(gaps)
    # Below what was taken for noise before: units of rounding of single numbers. Smaller divergences are shown now.
    assert fast.floor < torch.finfo(torch.bfloat16).eps
    found = fast.respond(points, rows)
    assert found.kl.min() == 0 or found.kl.min() >= fast.floor
    assert fast.respond(fast.base, torch.tensor([0, 1])).kl.tolist() == [0, 0]


def test_a_way_that_is_wrong_by_less_than_bfloat16_shows_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # Planted: attention to the prefix a hundredth too strong, which rounding in 16 bits hides.
    right = block_replay.shared_attention

    def strong(*arguments: Any, scaling: float, **more: Any) -> Tensor:
        return right(*arguments, scaling=1.01 * scaling, **more)

    monkeypatch.setattr(block_replay, "shared_attention", strong)
    network, batch = half("gpt2"), prompts(2, 8)
    sweep = prepare_sweep(network, batch, "acts:resid_pre.1@last")
    assert sweep.level == 1
    assert "level 2 is not used: it differs from level 0 by" in sweep.flags[0]
    unchecked = prepare_sweep(network, batch, "acts:resid_pre.1@last", float32_check=False)
    assert unchecked.level == 2
    assert unchecked.flags[0] == "16 bits: nothing is checked in float32"
    assert "(noise floor)" in unchecked.flags[1]
    assert unchecked.floor > 0
    found = swept(unchecked)[2]
    assert (found.floor, found.spot) == (unchecked.floor, None)


def test_points_that_16_bits_do_not_resolve_are_said() -> None:
    # Planted: a sweep whose float32 twin has other weights.
    network, batch = half("gpt2"), prompts(2, 8)
    sweep = prepare_sweep(network, batch, "acts:resid_pre.1@last")
    assert swept(sweep)[2].flags == ()
    other = Network(tiny("gpt2").module).with_edits(Add(torch.linspace(-1, 1, 32), size=300.0).at("acts:resid_pre.2"))
    sweep._twin = prepare_sweep(other, batch, "acts:resid_pre.1@last", level=0)
    found = swept(sweep)[2]
    assert not found.spot.agrees
    assert "16 bits are not enough: 2 points are apart from" in found.flags[0]


def test_agreement_is_judged_by_each_read_out() -> None:
    def of(kl: float, l2: float, cosine: float) -> Responses:
        return Responses(**{name: torch.tensor([value]).double() for name, value in locals().items()})

    norm, eps = torch.tensor([10.0]), 0.01
    truth = of(0.5, 4.0, 0.8)
    for found, apart in ((of(0.54, 4.5, 0.82), 0), (of(0.56, 4.5, 0.82), 1), (of(0.5, 4.9, 0.9), 2)):
        spot = compared(found, truth, norm, eps)
        assert spot.num_apart == apart
        assert spot.agrees == (apart == 0)
        assert spot.gaps["kl"] == pytest.approx(abs(float(found.kl[0]) - 0.5))


def test_both_positions_have_their_own_check() -> None:
    sweep = prepare_sweeps(half("gpt2"), prompts(2, 8), ["acts:resid_pre.1@3"], own=True)[0]
    rows = torch.tensor([0, 1, 1])
    last, own = sweep.respond_twice(around(sweep.base, rows), rows)
    assert last.spot.num_checked == own.spot.num_checked == 2
    assert last.spot.gaps != own.spot.gaps
    assert last.floor == own.floor == sweep.floor


def test_encoders_and_edited_views_have_them_too() -> None:
    network, batch = encoder("per token")
    view = Network(network.module, dtype=torch.bfloat16).with_edits(Add(torch.ones(16)).at("acts:resid_pre.2"))
    sweep = prepare_sweep(view, batch, "acts:resid_pre.1@2")
    assert (sweep.level, view.dtype, in_float32(view).edits) == (2, torch.bfloat16, view.edits)
    assert swept(sweep)[2].spot.num_checked == 2


def test_inputs_of_real_numbers_are_widened_for_the_twin() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    sweep = prepare_sweep(Network(module, dtype=torch.bfloat16), Batch((x.bfloat16(),), {}, None), "acts:1")
    found = swept(sweep)[2]
    assert (sweep.level, found.spot.num_checked) == (0, 2)
    assert sweep.floor is not None
    l2 = prepare_sweep(
        Network(module, dtype=torch.bfloat16), Batch((x.bfloat16(),), {}, None), "acts:1", readouts=["l2"]
    )
    assert l2.floor is None
    assert list(swept(l2)[2].spot.gaps) == ["l2"]


def test_single_precision_has_none_of_this() -> None:
    sweep = prepare_sweep(tiny("gpt2"), prompts(2, 8), "acts:resid_pre.1@last")
    found = swept(sweep)[2]
    assert (sweep.floor, found.floor, found.spot, sweep._twin, found.flags) == (None, None, None, None, ())

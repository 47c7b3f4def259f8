"""Sweeps of replaced activations: every level against one plain forward pass for each point."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import Tensor, nn

from tests.instruments.activations.sweep_reference import BLOCK, NORM, VOCABULARY, around, by_hook, made, prompts, tiny
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations import block_replay, prefix_cache, stack_replay
from tremorscope.instruments.activations.hooks import leftover_hooks
from tremorscope.instruments.activations.readouts import Responses, weighted_sum
from tremorscope.instruments.activations.sweep_routes import ReplaceRows
from tremorscope.instruments.activations.sweeps import prepare_sweep, prepare_sweeps
from tremorscope.instruments.edit import Add
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

CLOSE = 1e-5  # row E4, absolute; distances relative to the late activation, whose norm is about 6
LEVELS = (1, 2)


def close(found: Responses, expected: dict[str, Tensor], *, least: float = 0.01) -> None:
    values = found.values()
    assert expected["kl"].max() > least  # else nothing would be compared
    assert (values["kl"] - expected["kl"]).abs().max() < CLOSE
    assert (values["l2"] - expected["l2"]).abs().max() < 6 * CLOSE
    assert (values["cosine"] - expected["cosine"]).abs().max() < CLOSE


@pytest.mark.parametrize("length", [2, 10, 64])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_levels_equal_full_forward_passes(family: str, level: int, length: int) -> None:
    # Row E4.
    network, batch = tiny(family), prompts(2, length)
    sweep = prepare_sweep(network, batch, "acts:resid_pre.1@last", level=level)
    assert sweep.level == level
    assert sweep.flags == ()
    rows = torch.tensor([1, 0, 0, 1, 1])
    points = around(sweep.base, rows)
    expected = by_hook(
        network.module, batch, points, rows, block=f"{BLOCK[family]}.1", late=NORM[family], column=-1, read=-1
    )
    close(sweep.respond(points, rows), expected)
    assert sweep.num_evaluations == 5
    assert leftover_hooks(network.module) == 0


@pytest.mark.parametrize("level", [0, *LEVELS])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_interior_position_read_at_the_end_and_before_it(family: str, level: int) -> None:
    network, batch = tiny(family), prompts(2, 9)
    rows = torch.tensor([0, 1, 1])
    for column, read in ((4, 8), (-4, 6), (3, 3), (0, 8)):
        sweep = prepare_sweep(network, batch, f"acts:resid_pre.1@{column}", level=level, readout_position=read)
        # Nothing comes before the first position: there is no prefix to remember.
        assert sweep.level == (0 if level == 1 and column == 0 else level)
        points = around(sweep.base, rows)
        expected = by_hook(
            network.module, batch, points, rows, block=f"{BLOCK[family]}.1", late=NORM[family], column=column, read=read
        )
        close(sweep.respond(points, rows), expected)


@pytest.mark.parametrize("site", ["resid_mid.1", "attn_out.1", "mlp_out.1", "resid_post.2", "resid_pre.0"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("position", ["last", "-2"])
def test_every_place_on_the_stream_is_replayed(family: str, site: str, position: str) -> None:
    network, batch = tiny(family), prompts(2, 7)
    rows = torch.tensor([0, 1])
    fast, slow = (prepare_sweep(network, batch, f"acts:{site}@{position}", level=level) for level in (2, 0))
    if (site, position) == ("resid_post.2", "-2"):  # the last block's output at one position moves no other
        assert fast.respond(around(fast.base, rows), rows).l2.tolist() == [0, 0]
        return
    assert (fast.level, slow.level) == (2, 0)
    points = around(fast.base, rows, size=5.0)
    close(fast.respond(points, rows), slow.respond(points, rows).values(), least=20 * CLOSE)


INSIDE = ("head_out.1.2", "head_out.1", "q.1.3", "k.1.1", "v.1.0", "mlp_act.1", "head_out.2.0", "k.2.1")


@pytest.mark.parametrize("site", INSIDE)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_a_block_computes_on_its_way_is_replayed(family: str, site: str) -> None:
    # Row E4 for heads, of grouped queries too, and neurons; read at the end, and at the edit's own position.
    network = tiny(family)
    for length in (2, 10, 64):
        batch, rows = prompts(2, length), torch.tensor([0, 1, 1])
        sites = [f"acts:{site}@{position}" for position in sorted({0, length // 2, length - 1})]
        fast, slow = (prepare_sweeps(network, batch, sites, level=level, own=True) for level in (2, 0))
        assert {(sweep.level, sweep.flags) for sweep in fast} == {(2, ())}
        assert f"replay of blocks {site.split('.')[1]} to 2, " in fast[0].route
        moved = 0.0
        for one, other in zip(fast, slow, strict=True):
            points = around(one.base, rows, size=5.0)
            for found, expected in zip(one.respond_twice(points, rows), other.respond_twice(points, rows), strict=True):
                close(found, expected.values(), least=-1.0)
                moved = max(moved, float(expected.kl.max()))
        assert moved > 100 * CLOSE
    assert leftover_hooks(network.module) == 0


def test_places_that_a_replay_goes_past_are_left_to_the_memory_of_the_prefix() -> None:
    network, batch, rows = tiny("gpt2"), prompts(2, 7), torch.tensor([0, 1, 1])
    for site in ("transformer.h.1.attn:in.0", "transformer.h.1.attn.resid_dropout"):
        fast, slow = (prepare_sweep(network, batch, f"acts:{site}@last", level=level) for level in ("auto", 0))
        assert (fast.level, slow.level) == (1, 0)
        assert "level 2 is not used" in fast.flags[0]
        assert "nor something that a replay computes" in fast.flags[0]
        points = around(fast.base, rows, size=5.0)
        close(fast.respond(points, rows), slow.respond(points, rows).values())


def test_a_point_at_the_wrong_position_of_a_replay_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # Planted: the hook in the block puts the point at the last position instead of the first.
    monkeypatch.setattr(block_replay, "ReplaceRows", lambda points, _: ReplaceRows(points, -1))
    sweep = prepare_sweep(tiny("gpt2"), prompts(2, 7), "acts:head_out.1.2@3")
    assert sweep.level == 1
    assert "level 2 is not used: it differs from level 0 by" in sweep.flags[0]


def padded(side: str) -> tuple[Batch, list[Tensor]]:
    """Prompts of three lengths, padded, with the positions that each has alone on the left; and the prompts alone."""
    alone = [prompts(1, length).kwargs["input_ids"] for length in (5, 9, 7)]
    tokens, mask = torch.full((3, 9), 3), torch.zeros(3, 9, dtype=torch.int64)
    for row, text in enumerate(alone):
        place = slice(9 - text.shape[1], None) if side == "left" else slice(text.shape[1])
        tokens[row, place], mask[row, place] = text[0], 1
    kwargs = {"input_ids": tokens, "attention_mask": mask}
    if side == "left":
        kwargs["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)
    return Batch((), kwargs, None), alone


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("level", [0, *LEVELS])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_padding_changes_nothing(family: str, level: int, side: str) -> None:
    network = tiny(family)
    batch, alone = padded(side)
    sweep = prepare_sweep(network, batch, "acts:resid_pre.1@last", level=level)
    assert (sweep.level, sweep.flags) == (level, ())
    rows = torch.tensor([0, 1, 2, 2, 0])
    points = around(sweep.base, rows)
    found = sweep.respond(points, rows)
    for row, text in enumerate(alone):
        mine = rows == row
        expected = by_hook(
            network.module,
            Batch((), {"input_ids": text}, None),
            points[mine],
            torch.zeros(int(mine.sum()), dtype=torch.int64),
            block=f"{BLOCK[family]}.1",
            late=NORM[family],
            column=-1,
            read=-1,
        )
        assert (found.kl[mine] - expected["kl"]).abs().max() < CLOSE
        assert (found.l2[mine] - expected["l2"]).abs().max() < 6 * CLOSE


def test_prompts_share_a_batch_in_any_order_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = tiny("llama"), prompts(3, 6)
    for level in LEVELS:
        sweep = prepare_sweep(network, batch, "acts:resid_pre.1@last", level=level)
        for rows in ([2, 0, 1, 0, 2, 1], [1, 1, 1, 0, 2, 2], [2, 2, 2, 2, 2, 2]):  # equal groups, unequal ones, one
            chosen = torch.tensor(rows)
            points = around(sweep.base, chosen)
            together = sweep.respond(points, chosen)
            alone = [float(sweep.respond(points[i : i + 1], row).kl[0]) for i, row in enumerate(rows)]
            assert together.kl.tolist() == pytest.approx(alone, abs=CLOSE)
            with monkeypatch.context() as small:
                small.setattr("tremorscope.instruments.activations.sweeps.CHUNK", 2)
                assert sweep.chunk == 2
                assert sweep.respond(points, chosen).kl.tolist() == pytest.approx(alone, abs=CLOSE)


def test_the_clean_activation_moves_nothing() -> None:
    # Row P2, in float32: exactly nothing, since the clean end takes the same way.
    network, batch = tiny("gpt2"), prompts(2, 6)
    for level in (0, *LEVELS):
        sweep = prepare_sweep(network, batch, "acts:resid_pre.1@last", level=level)
        found = sweep.respond(sweep.base, torch.tensor([0, 1]))
        assert found.kl.tolist() == [0, 0]
        assert float(found.l2.max()) < 1e-5
        assert found.cosine.tolist() == pytest.approx([1, 1], abs=1e-6)


def test_divergences_below_rounding_are_counted_not_shown() -> None:
    sweep = prepare_sweep(tiny("gpt2"), prompts(1, 6), "acts:resid_pre.1@last")
    near = sweep.base + 1e-5 * torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    found = sweep.respond(torch.cat([near, 2 * sweep.base]))
    assert found.noise == pytest.approx(1e-6, rel=0.01)
    assert found.num_clipped == 4
    assert found.kl[:4].tolist() == [0.0] * 4
    assert found.kl[4] > 0.01


def test_the_sum_over_a_vocabulary_is_in_double_precision() -> None:
    # In float32 the microworld's divergences were wrong by 4e-5, where a full pass has 5e-6.
    stream = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 9000, generator=stream, dtype=torch.float64).softmax(dim=1)
    vectors = torch.randn(9000, 3, generator=stream)
    assert torch.allclose(weighted_sum(weights, vectors), weights @ vectors.double(), rtol=0, atol=1e-14)


def test_the_memory_of_a_prefix_never_grows_and_is_never_written_to() -> None:
    network, batch = tiny("llama"), prompts(2, 6)
    sweep = prepare_sweep(network, batch, "acts:resid_pre.1@last", level=1)
    memory = sweep._route.memory
    before = [(layer.keys.clone(), layer.values.clone()) for layer in memory.layers]
    rows = torch.tensor([0, 1, 1])
    points = around(sweep.base, rows)
    first, second = sweep.respond(points, rows), sweep.respond(points, rows)
    assert torch.equal(first.kl, second.kl)
    for (keys, values), layer in zip(before, memory.layers, strict=True):
        assert layer.keys.shape[2] == 5
        assert torch.equal(keys, layer.keys)
        assert torch.equal(values, layer.values)


def test_the_module_stays_as_it_is() -> None:
    network, batch = Network(copy.deepcopy(tiny("gpt2").module)), prompts(1, 5)
    network.module.train()
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    for level in (0, *LEVELS):
        sweep = prepare_sweep(network, batch, "acts:resid_pre.1@last", level=level)
        assert torch.equal(sweep.respond(2 * sweep.base).kl, sweep.respond(2 * sweep.base).kl)  # no dropout
        with pytest.raises(BadInput):
            sweep.respond(torch.zeros(1, 31))
    assert network.module.training
    assert leftover_hooks(network.module) == 0
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


def test_edited_weights_and_other_precisions_are_those_of_the_view() -> None:
    batch = prompts(2, 6)
    plain = tiny("llama")
    shift = Add(torch.ones(48 * 32), size=0.05).at("weights:model.layers.2.mlp.up_proj.weight")
    views = [plain.with_edits(shift), Network(plain.module, dtype=torch.float64)]
    rows = torch.tensor([0, 1, 1])
    old = prepare_sweep(plain, batch, "acts:resid_pre.1@last")
    for view in views:
        sweeps = [prepare_sweep(view, batch, "acts:resid_pre.1@last", level=level) for level in (0, *LEVELS)]
        assert [sweep.level for sweep in sweeps] == [0, 1, 2]
        points = around(sweeps[0].base, rows)
        slow, *fast = [sweep.respond(points, rows) for sweep in sweeps]
        for found in fast:
            close(found, slow.values())
    assert (old.respond(points, rows).kl - slow.kl).abs().max() < CLOSE
    assert (old.respond(points, rows).kl - views_kl(views[0], batch, points, rows)).abs().max() > 100 * CLOSE


def views_kl(view: Network, batch: Batch, points: Tensor, rows: Tensor) -> Tensor:
    return prepare_sweep(view, batch, "acts:resid_pre.1@last").respond(points, rows).kl


def test_edits_that_the_view_has_already_are_kept() -> None:
    plain, batch = tiny("gpt2"), prompts(2, 6)
    push = Add(torch.linspace(-1, 1, 32), size=2.0)
    rows = torch.tensor([0, 1])
    # What is done to the last token would be done to the last one of the prefix too: that is found out.
    for site, level in (("resid_pre.2", 1), ("resid_pre.0@2", 1), ("resid_pre.2@last", 2)):
        view = plain.with_edits(push.at(f"acts:{site}"))
        fast, slow = (prepare_sweep(view, batch, "acts:resid_pre.1@last", level=at) for at in ("auto", 0))
        assert fast.level == level
        assert "edits of activations of its own" in fast.flags[0]
        points = around(fast.base, rows)
        close(fast.respond(points, rows), slow.respond(points, rows).values())


def test_a_faster_level_that_is_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # Planted: attention that forgets the prefix, and a memory that belongs to the wrong prompt.
    network, batch = tiny("gpt2"), prompts(2, 6)
    right = block_replay.shared_attention

    def forgetful(query, key, value, prefix_keys, prefix_values, hidden_from, *, scaling):
        none = prefix_keys[:, :, :0]
        return right(query, key, value, none, none, hidden_from, scaling=scaling)

    monkeypatch.setattr(block_replay, "shared_attention", forgetful)
    sweep = prepare_sweep(network, batch, "acts:resid_pre.1@last")
    assert sweep.level == 1
    assert "level 2 is not used: it differs from level 0 by" in sweep.flags[0]
    select = prefix_cache.select_rows
    monkeypatch.setattr(prefix_cache, "select_rows", lambda memory, rows, n: select(memory, (rows + 1) % n, n))
    sweep = prepare_sweep(network, batch, "acts:resid_pre.1@last")
    assert sweep.level == 2
    assert "all positions are computed in the blocks from the edit on: it differs from level 0 by" in sweep.flags[0]
    rows_of = stack_replay.rows_of
    monkeypatch.setattr(stack_replay, "rows_of", lambda outputs, rows, n: rows_of(outputs, (rows + 1) % n, n))
    sweep = prepare_sweep(network, batch, "acts:resid_pre.1@last")
    assert sweep.level == 0
    assert "level 1 is not used: it differs from level 0 by" in sweep.flags[1]
    assert "level 2 over all positions is not used: it differs from level 0 by" in sweep.flags[2]
    assert "6 times as many" in sweep.flags[3]


@pytest.mark.parametrize("level", [0, *LEVELS])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_derivatives_of_the_way_from_the_site_to_the_logits(family: str, level: int) -> None:
    network = Network(tiny(family).module, dtype=torch.float64)
    sweep = prepare_sweep(network, prompts(2, 5), "acts:resid_pre.1@3", level=level)
    assert sweep.level == level
    rows = torch.tensor([0, 1])
    points, tangent = around(sweep.base, rows), around(sweep.base, rows, seed=1) - sweep.base
    # Llama's norms and softmax are in float32 whatever the weights are.
    step, exact = (1e-5, 1e-6) if family == "gpt2" else (1e-2, 1e-3)
    ends = [sweep.logits(points + sign * step * tangent, rows) for sign in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * step)
    _, forward = torch.func.jvp(lambda at: sweep.logits(at, rows), (points,), (tangent,))
    assert (forward - expected).abs().max() < exact * expected.abs().max()
    logits, pull = torch.func.vjp(lambda at: sweep.logits(at, rows), points)
    weights = torch.linspace(-1, 1, VOCABULARY, dtype=torch.float64).expand_as(logits)
    (back,) = pull(weights)
    assert float((back * tangent).sum()) == pytest.approx(float((weights * expected).sum()), rel=10 * exact)


def test_many_tangents_and_cotangents_travel_together() -> None:
    network = Network(tiny("gpt2").module, dtype=torch.float64)
    sweep = prepare_sweep(network, prompts(1, 5), "acts:resid_pre.1@2")
    assert sweep.level == 2
    point, directions = 1.1 * sweep.base[0], torch.eye(32, dtype=torch.float64)[:3]

    def logits(at: Tensor) -> Tensor:
        return sweep.logits(at[None])[0]

    forward = torch.func.vmap(lambda tangent: torch.func.jvp(logits, (point,), (tangent,))[1])(directions)
    _, pull = torch.func.vjp(logits, point)
    jacobian = torch.func.vmap(lambda weights: pull(weights)[0])(torch.eye(VOCABULARY, dtype=torch.float64))
    assert forward.abs().max() > 0.01
    assert torch.allclose(forward, jacobian.T[:3], rtol=1e-9, atol=1e-12)
    points = torch.stack([point, 2 * point])
    assert torch.allclose(torch.func.vmap(logits)(points), sweep.logits(points), rtol=1e-9, atol=1e-12)


def test_responses_are_differentiable_and_not_clipped() -> None:
    sweep = prepare_sweep(tiny("gpt2"), prompts(1, 5), "acts:resid_pre.1@last")
    assert sweep.level == 2
    points = (1.5 * sweep.base).requires_grad_()
    found = sweep.responses_of(points)
    (slope,) = torch.autograd.grad(found.kl.sum() + found.l2.sum() + found.cosine.sum(), points)
    step = 1e-2 * slope / slope.norm()
    ends = [sweep.responses_of((points + sign * step).detach()) for sign in (1, -1)]
    change = sum(float(ends[0].values()[name] - ends[1].values()[name]) for name in ("kl", "l2", "cosine"))
    assert change / 2 == pytest.approx(float((slope * step).sum()), rel=0.01)
    assert float(sweep.responses_of(sweep.base).kl) != 1  # a number below the noise, whatever its sign
    assert sweep.num_evaluations == 4


def test_a_network_of_any_kind_has_level_zero() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    network, batch = Network(module), Batch((torch.randn(3, 4, generator=torch.Generator().manual_seed(1)),), {}, None)
    sweep = prepare_sweep(network, batch, "acts:1")
    assert sweep.level == 0
    assert sweep.flags[-1] == "level 0 is used: every point is a whole forward pass"
    rows = torch.tensor([2, 0])
    points = around(sweep.base, rows)
    with torch.no_grad():
        clean, moved = module[2](sweep.base[rows]), module[2](points)
    kl = torch.nn.functional.kl_div(moved.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="none")
    assert sweep.respond(points, rows).kl.tolist() == pytest.approx(kl.sum(1).tolist(), abs=1e-6)
    assert sweep.respond(points, rows).l2.tolist() == pytest.approx((moved - clean).norm(dim=1).tolist(), rel=1e-5)


def test_only_what_is_asked_for() -> None:
    sweep = prepare_sweep(tiny("gpt2"), prompts(1, 5), "acts:resid_pre.1@last", readouts=("l2",))
    found = sweep.respond(2 * sweep.base)
    assert list(found.values()) == ["l2"]
    assert found.kl is None
    # Not even the read-out layer, a third of the work in a small model, is computed.
    calls: list[int] = []
    handle = tiny("gpt2").module.lm_head.register_forward_hook(lambda *_: calls.append(1))
    try:
        sweep.respond(2 * sweep.base)
        assert calls == []
        sweep.logits(2 * sweep.base)
        assert calls == [1]
    finally:
        handle.remove()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_late_activation_may_be_the_last_block_or_any_other(family: str) -> None:
    network, batch = tiny(family), prompts(1, 5)
    for readout, level in (("acts:resid_post.2", 2), ("acts:resid_post.1", 1), ("acts:mlp_out.2", 1)):
        fast, slow = (
            prepare_sweep(network, batch, "acts:resid_pre.1@last", level=level, readout_site=readout)
            for level in ("auto", 0)
        )
        assert fast.level == level
        points = around(fast.base, torch.zeros(3, dtype=torch.int64))
        assert fast.respond(points).l2.tolist() == pytest.approx(slow.respond(points).l2.tolist(), rel=1e-4)
        assert fast.respond(points).kl.tolist() == pytest.approx(slow.respond(points).kl.tolist(), abs=CLOSE)


@pytest.mark.parametrize(
    ("site", "changed", "match"),
    [
        ("weights:*", {}, "no activation"),
        ("acts:resid_pre.1", {}, r"position of a sweep: got none; wanted one position in each prompt"),
        ("acts:resid_pre.1@1:3", {}, r"position of a sweep: got '@1:3'"),
        ("acts:resid_pre.1@9", {}, r"position of a sweep: got 9; wanted one of the batch's 5 positions"),
        ("acts:resid_pre.1@last", {"readouts": ("kl", "distance")}, r"readouts: got \['kl', 'distance'\]"),
    ],
)
def test_errors(site: str, changed: dict, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        prepare_sweep(tiny("gpt2"), prompts(1, 5), site, **changed)


def test_points_and_rows_that_do_not_fit() -> None:
    sweep = prepare_sweep(tiny("gpt2"), prompts(2, 5), "acts:resid_pre.1@last")
    with pytest.raises(BadInput, match=r"points of a sweep: got shape \(1, 31\); wanted \(n, 32\)"):
        sweep.respond(torch.zeros(1, 31))
    with pytest.raises(BadInput, match="points of a sweep: got entries that are not finite"):
        sweep.respond(torch.full((1, 32), torch.nan))
    with pytest.raises(BadInput, match=r"rows of a sweep: got \[1\] numbers from 2 to 2; wanted one for each of 1"):
        sweep.respond(torch.zeros(1, 32), 2)


def test_a_divergence_needs_logits() -> None:
    from transformers import GPT2Model

    whole = tiny("gpt2")
    assert isinstance(whole.module.transformer, GPT2Model)
    body, batch = Network(whole.module.transformer), prompts(1, 5)
    with pytest.raises(BadInput, match=r"divergence of the predictions of 'GPT2Model': got no logits"):
        prepare_sweep(body, batch, "acts:resid_pre.1@last")
    fast, slow = (
        prepare_sweep(body, batch, "acts:resid_pre.1@last", level=level, readouts=("l2", "cosine")) for level in (2, 0)
    )
    assert fast.level == 2
    points = around(fast.base, torch.zeros(2, dtype=torch.int64))
    assert fast.respond(points).l2.tolist() == pytest.approx(slow.respond(points).l2.tolist(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "level"), [("Mistral", 2), ("Qwen2", 2), ("Qwen3", 2), ("GPTNeoX", 1), ("Gemma2", 1), ("Phi3", 1)]
)
def test_other_decoders_have_the_level_that_their_parts_allow(name: str, level: int) -> None:
    # Those that are built like Llama are replayed; softcaps, sandwich norms and parallel blocks are left to the cache.
    import transformers

    config = getattr(transformers, f"{name}Config")(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2 if name != "GPTNeoX" else None,
        head_dim=8,
        pad_token_id=0,
        attn_implementation="eager",
    )
    network, batch = Network(made(getattr(transformers, f"{name}ForCausalLM"), config)), prompts(2, 9)
    fast, slow = (prepare_sweep(network, batch, "acts:resid_pre.1@last", level=at) for at in ("auto", 0))
    assert fast.level == level
    rows = torch.tensor([0, 1, 1])
    points = around(fast.base, rows)
    close(fast.respond(points, rows), slow.respond(points, rows).values())


@pytest.mark.slow
def test_five_hundred_sweeps_leave_no_memory_behind() -> None:
    # Row E9: growth after the first fifty, which fill the allocator's pools.
    def resident() -> int:
        with open("/proc/self/statm") as handle:
            return int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    network, batch = tiny("gpt2"), prompts(2, 10)
    rows = torch.arange(2).repeat(50)
    before = 0
    for count in range(550):
        if count == 50:
            before = resident()
        sweep = prepare_sweep(network, batch, "acts:resid_pre.1@last", level=LEVELS[count % 2])
        sweep.respond(around(sweep.base, rows), rows)
    assert resident() - before < 20 * 2**20

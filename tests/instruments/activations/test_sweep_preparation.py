"""Sweeps prepared together: the same answers as one by one, at both read-outs; one clean pass; mistakes found out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.instruments.activations.sweep_reference import (
    BLOCK,
    NORM,
    VOCABULARY,
    around,
    by_hook,
    house,
    made,
    mamba,
    prompts,
    tiny,
)
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations import block_replay
from tremorscope.instruments.activations.readouts import Responses
from tremorscope.instruments.activations.sweep_batch import Shared, Unavailable
from tremorscope.instruments.activations.sweeps import prepare_sweep, prepare_sweeps
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

LENGTH = 6
POSITIONS = (0, 2, LENGTH - 1)
CLOSE = 1e-5  # float32, as for single sweeps; distances relative to the late activation, whose norm is about 6


def bert() -> Network:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        pad_token_id=0,
    )
    config._attn_implementation = "eager"
    return Network(made(BertForMaskedLM, config))


CASES = {
    # name: how it is made, the highest level, the level at the first position and elsewhere, two sites
    "gpt2": (lambda: tiny("gpt2"), 2, (2, 2), ("resid_pre.0", "resid_mid.1")),
    "gpt2, memory": (lambda: tiny("gpt2"), 1, (0, 1), ("resid_pre.0", "resid_pre.2")),
    "llama, grouped heads": (lambda: tiny("llama"), 2, (2, 2), ("resid_pre.1", "attn_out.1")),
    "house": (house, 2, (2, 2), ("embedding", "layers.1")),
    "mamba, token by token": (mamba, 2, (2, 1), ("backbone.layers.0", "backbone.layers.1:in.0")),
    "bert, all positions": (bert, 2, (2, 2), ("bert.encoder.layer.0", "bert.encoder.layer.1:in.0")),
    "bert, nothing shared": (bert, 2, (0, 0), ("bert.embeddings", "bert.encoder.layer.0:in.0")),
}


def addresses(sites: tuple[str, ...]) -> list[str]:
    return [f"acts:{site}@{position}" for site in sites for position in POSITIONS]


def gap(found: Responses, expected: Responses) -> float:
    return max(float((value - expected.values()[name]).abs().max()) for name, value in found.values().items())


@pytest.mark.parametrize("case", list(CASES))
def test_together_as_one_by_one(case: str) -> None:
    make, highest, levels, sites = CASES[case]
    # In double precision: what matters is that nothing is mixed up. Some norms are in single precision all the same.
    network, batch = Network(make().module, dtype=torch.float64), prompts(2, LENGTH)
    late = {"house": "acts:norm"}.get(case, "acts:bert.encoder.layer.1" if "bert" in case else None)
    together = prepare_sweeps(network, batch, addresses(sites), level=highest, readout_site=late, own=True)
    rows, moved = torch.tensor([1, 0, 1]), 0.0
    for address, sweep in zip(addresses(sites), together, strict=True):
        position = int(address.partition("@")[2])
        assert sweep.level == levels[position > 0]
        points = around(sweep.base, rows)
        for found, read in zip(sweep.respond_twice(points, rows), ("last", position), strict=True):
            alone = prepare_sweep(network, batch, address, level=sweep.level, readout_site=late, readout_position=read)
            assert torch.equal(alone.base, sweep.base)
            expected = alone.respond(points, rows)
            assert gap(found, expected) < 1e-6
            moved = max(moved, float(expected.kl.max()))
        assert gap(sweep.respond(points, rows), sweep.respond_twice(points, rows)[0]) < 1e-12
    assert moved > 0.01  # else nothing would be compared


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_both_read_outs_equal_full_forward_passes(family: str, level: int) -> None:
    network, batch = tiny(family), prompts(2, LENGTH)
    sites = ["acts:resid_pre.1@3", "acts:resid_pre.1@1", "acts:resid_pre.2@1"]
    for address, sweep in zip(sites, prepare_sweeps(network, batch, sites, level=level, own=True), strict=True):
        assert sweep.level == level
        rows = torch.tensor([0, 1, 1])
        points = around(sweep.base, rows)
        block, column = address[len("acts:resid_pre.")], int(address[-1])
        for found, read in zip(sweep.respond_twice(points, rows), (-1, column), strict=True):
            where = {"block": f"{BLOCK[family]}.{block}", "late": NORM[family], "column": column, "read": read}
            expected = by_hook(network.module, batch, points, rows, **where)
            assert expected["kl"].max() > 0.01
            assert (found.kl - expected["kl"]).abs().max() < CLOSE
            assert (found.l2 - expected["l2"]).abs().max() < 6 * CLOSE
            assert (found.cosine - expected["cosine"]).abs().max() < CLOSE
        assert sweep.num_evaluations == 3


def test_a_point_is_evaluated_once_for_both_read_outs(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = prepare_sweeps(tiny("gpt2"), prompts(1, LENGTH), ["acts:resid_pre.1@2"], own=True)[0]
    sizes: list[int] = []
    right = sweep._route.late
    monkeypatch.setattr(
        sweep._route, "late", lambda points, rows, **more: sizes.append(len(points)) or right(points, rows, **more)
    )
    sweep.respond_twice(around(sweep.base, torch.zeros(5, dtype=torch.int64)))
    assert sizes == [5]


def num_passes(sites: list[str]) -> int:
    """Forward passes through the whole module that a preparation takes."""
    network, batch = tiny("gpt2"), prompts(1, LENGTH)
    network.site_map(batch)
    passes: list[int] = []
    handle = network.module.register_forward_hook(lambda *_: passes.append(1))
    try:
        prepare_sweeps(network, batch, sites, readouts=("kl",), own=True)
    finally:
        handle.remove()
    return len(passes)


def test_cells_share_clean_passes_and_the_check_of_their_site() -> None:
    few, many = (
        [f"acts:resid_pre.{layer}@{token}" for layer in range(3) for token in tokens] for tokens in ((1, 2), range(6))
    )
    # The values, the size of the outputs, level 0's clean run, the keys and values; and two points for each site.
    assert num_passes(many) == num_passes(few) == 4 + 2 * 3


def test_a_wrong_level_is_found_out_at_all_cells_of_its_site(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = tiny("gpt2"), prompts(1, LENGTH)
    sites = [f"acts:resid_pre.{layer}@{token}" for layer in (1, 2) for token in (2, 3, 5)]
    right = block_replay.shared_attention

    def forgetful(query, key, value, prefix_keys, prefix_values, hidden_from, **more):
        none = prefix_keys[:, :, :0]
        return right(query, key, value, none, none, hidden_from, **more)

    monkeypatch.setattr(block_replay, "shared_attention", forgetful)
    sweeps = prepare_sweeps(network, batch, sites, own=True)
    assert [sweep.level for sweep in sweeps] == [1] * 6
    assert all("level 2 is not used: it differs from level 0 by" in sweep.flags[0] for sweep in sweeps)
    monkeypatch.undo()
    alone = prepare_sweep(network, batch, sites[0])
    assert alone.level == 2
    points = around(sweeps[0].base, torch.zeros(3, dtype=torch.int64))
    assert gap(sweeps[0].respond(points), alone.respond(points)) < 6 * CLOSE


def test_a_mistake_at_the_own_position_alone_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # Planted: the query of the edited position sees what comes after it.
    right = block_replay.shared_attention

    def peeking(*arguments, asking=None, **more):
        return right(*arguments, asking=None if asking is None else asking.clamp_min(LENGTH), **more)

    monkeypatch.setattr(block_replay, "shared_attention", peeking)
    sites = [f"acts:resid_pre.1@{token}" for token in (1, 2, 3)]
    sweeps = prepare_sweeps(tiny("gpt2"), prompts(1, LENGTH), sites, own=True)
    assert [sweep.level for sweep in sweeps] == [1, 1, 1]
    assert [sweep.level for sweep in prepare_sweeps(tiny("gpt2"), prompts(1, LENGTH), sites)] == [2, 2, 2]


def test_a_site_beside_the_replay_has_its_own_level() -> None:
    network, batch = tiny("gpt2"), prompts(1, LENGTH)
    beside = "transformer.h.1.attn:in.0"
    sites = ["acts:resid_pre.1@2", f"acts:{beside}@2", "acts:resid_pre.1@0", f"acts:{beside}@0"]
    sweeps = prepare_sweeps(network, batch, sites)
    assert [sweep.level for sweep in sweeps] == [2, 1, 2, 2]
    assert [sweep.route.partition(" over ")[0] for sweep in sweeps[::3]] == [
        "replay of blocks 1 to 2",
        "blocks 1 to 2 of 3",
    ]
    assert "nor something that a replay computes" in sweeps[1].flags[0]
    assert "nothing before the edited position" in sweeps[3].flags[0]


def test_prompts_that_differ_in_what_lies_between_have_no_common_own_position() -> None:
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    kwargs: dict[str, Tensor] = {**prompts(2, LENGTH).kwargs, "attention_mask": mask}
    with pytest.raises(BadInput, match=r"own position: got from 1 to 3 tokens between it and the position that is"):
        prepare_sweeps(tiny("gpt2"), Batch((), kwargs, None), ["acts:resid_pre.1@2"], own=True)
    with pytest.raises(BadInput, match="no activation"):
        prepare_sweeps(tiny("gpt2"), prompts(1, LENGTH), ["acts:resid_pre.1@2", "weights:*"])


def test_what_cannot_be_shared_is_refused_every_time_and_tried_once() -> None:
    shared, tries = Shared(), list[int]()

    def refuse() -> None:
        tries.append(1)
        raise Unavailable("no memory")

    for _ in range(2):
        with pytest.raises(Unavailable, match="no memory"):
            shared.once("memory", refuse)
    assert tries == [1]
    assert [shared.once("value", lambda number=number: number) for number in (3, 4)] == [3, 3]

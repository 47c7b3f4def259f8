"""Blocks replayed over all positions: encoders of text and images, pooled or not, against full forward passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.instruments.activations.sweep_reference import VOCABULARY, around, by_hook, made, prompts
from tremorscope.instruments.activations import stack_replay
from tremorscope.instruments.activations.hooks import leftover_hooks
from tremorscope.instruments.activations.stack_replay import forwards_replaced
from tremorscope.instruments.activations.sweeps import ActivationSweep, prepare_sweep, prepare_sweeps
from tremorscope.instruments.edit import Add
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

CLOSE = 1e-5  # absolute, float32; distances relative to the late activation, whose norm is about 6
LENGTH, BLOCKS = 7, 3


class Pooled(nn.Module):
    """A sentence encoder: the mean over the tokens of the last hidden states, and a read-out."""

    def __init__(self, config: Any) -> None:
        from transformers import BertModel

        super().__init__()
        self.encoder, self.readout = BertModel(config, add_pooling_layer=False), nn.Linear(config.hidden_size, 5)
        self.pool = nn.Identity()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        hidden = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self.readout(self.pool((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)))


class Torch(nn.Module):
    """PyTorch's own encoder, pre-norm, read at every token."""

    def __init__(self, _: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.embed, self.head = nn.Embedding(VOCABULARY, 16), nn.Linear(16, 5)
        self.stack = nn.TransformerEncoder(layer, BLOCKS, enable_nested_tensor=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.stack(self.embed(input_ids)))


def encoder(kind: str) -> tuple[Network, Batch]:
    """A tiny random one, and two prompts of it."""
    import transformers

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": BLOCKS, "num_attention_heads": 2}
    if kind == "images":
        config = transformers.ViTConfig(image_size=6, patch_size=2, num_channels=1, num_labels=5, **sizes)
        pixels = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))
        batch = Batch((), {"pixel_values": pixels}, None)
    else:
        config = transformers.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=16, pad_token_id=0, **sizes)
        config.num_labels = 5
        batch = prompts(2, LENGTH)
        if kind == "masked":
            batch.kwargs["attention_mask"] = torch.tensor([[1] * LENGTH, [1] * 5 + [0] * 2])
    config._attn_implementation = "eager"
    kinds: dict[str, Callable[[Any], nn.Module]] = {
        "per token": transformers.BertForMaskedLM,
        "masked": Pooled,
        "pooled": transformers.BertForSequenceClassification,
        "images": transformers.ViTForImageClassification,
        "torch": Torch,
    }
    return Network(made(kinds[kind], config), name=kind), batch


STACKS = {
    "per token": "bert.encoder.layer",
    "masked": "encoder.encoder.layer",
    "pooled": "bert.encoder.layer",
    "images": "vit.layers",
    "torch": "stack.layers",
}
# After which module only the positions that are read go on: residual streams joined outside the attention need all.
NARROW = {"per token": "the position read after the last attention", "torch": "the position read after the blocks"}


@pytest.mark.parametrize("kind", list(STACKS))
def test_every_block_at_several_positions_equals_level_zero(kind: str) -> None:
    network, batch = encoder(kind)
    rows, moved = torch.tensor([1, 0, 1]), 0.0
    late = f"acts:{STACKS[kind]}.{BLOCKS - 1}"
    sites = [f"{STACKS[kind]}.{block}:{port}" for block in range(BLOCKS) for port in ("in.0", "out.0")]
    sites = [f"acts:{site}@{position}" for site in sites[1:] for position in (0, 2, 4)]
    fast, slow = (prepare_sweeps(network, batch, sites, level=level, readout_site=late) for level in (2, 0))
    for site, one, other in zip(sites, fast, slow, strict=True):
        first = int(site.split(":")[1].rpartition(".")[2]) + ("out" in site)
        assert (one.level, other.level) == (2, 0)
        whole = "all of them after the blocks"
        assert one.route.endswith(NARROW.get(kind, whole) if first < BLOCKS else whole)
        assert (f"blocks {first} to 2 of 3" if first < BLOCKS else "no block") in one.route
        assert len(one.flags) == 1
        assert "all positions are computed" in one.flags[0]
        points = around(one.base, rows, size=3.0)
        found, expected = one.respond(points, rows), other.respond(points, rows)
        for name, value in expected.values().items():
            assert (found.values()[name] - value).abs().max() < (6 if name == "l2" else 1) * CLOSE
        moved = max(moved, float(expected.kl.max()))
    assert moved > 0.01
    assert leftover_hooks(network.module) == 0
    assert not any("forward" in part.__dict__ for part in network.module.modules())


def test_it_equals_a_plain_hook() -> None:
    network, batch = encoder("per token")
    rows = torch.tensor([0, 1, 1])
    for read in (-1, 1):
        sweep = prepare_sweep(
            network,
            batch,
            "acts:bert.encoder.layer.1:in.0@3",
            readout_site="acts:bert.encoder.layer.2",
            readout_position=read,
        )
        assert sweep.level == 2
        points = around(sweep.base, rows)
        where = {"block": "bert.encoder.layer.1", "late": "bert.encoder.layer.2", "column": 3, "read": read}
        expected = by_hook(network.module, batch, points, rows, **where)
        found = sweep.respond(points, rows)
        assert expected["kl"].max() > 0.01
        assert (found.kl - expected["kl"]).abs().max() < CLOSE
        assert (found.l2 - expected["l2"]).abs().max() < 6 * CLOSE


@pytest.mark.parametrize(
    "site", ["head_out.1.1", "v.2.0", "bert.encoder.layer.1.attention", "bert.encoder.layer.2.intermediate"]
)
def test_a_place_inside_a_block(site: str) -> None:
    network, batch = encoder("per token")
    rows = torch.tensor([0, 1, 1])
    fast, slow = (prepare_sweep(network, batch, f"acts:{site}@last", level=level) for level in (2, 0))
    assert (fast.level, slow.level) == (2, 0)
    points = around(fast.base, rows, size=3.0)
    expected = slow.respond(points, rows)
    assert expected.kl.max() > 100 * CLOSE
    assert (fast.respond(points, rows).kl - expected.kl).abs().max() < CLOSE


def tokens_through(module: Any, sweep: ActivationSweep) -> list[int]:
    """How many tokens of ten points go through each block, and through the read-out layer."""
    parts = [*(block.intermediate for block in module.bert.encoder.layer), module.cls.predictions.decoder]
    counts = dict.fromkeys(parts, 0)

    def count(part: nn.Module, args: tuple[Tensor, ...], _: Tensor) -> None:
        counts[part] += args[0].shape[0] * args[0].shape[1]

    handles = [part.register_forward_hook(count) for part in parts]
    try:
        sweep.respond(around(sweep.base, torch.zeros(10, dtype=torch.int64)))
    finally:
        for handle in handles:
            handle.remove()
    return list(counts.values())


@pytest.mark.parametrize("block", range(1, BLOCKS))
def test_the_blocks_below_the_edit_are_not_computed(block: int) -> None:
    network, batch = encoder("per token")
    sweeps = [prepare_sweep(network, batch, f"acts:resid_pre.{block}@2", level=level) for level in (2, 0)]
    counts = [tokens_through(network.module, sweep) for sweep in sweeps]
    # All tokens in the blocks that are computed; after the last attention one of each point.
    assert counts[0] == [*[0] * block, *[10 * LENGTH] * (BLOCKS - block - 1), 10, 10]
    assert counts[1] == [10 * LENGTH] * (BLOCKS + 1)


def test_edits_that_the_view_has_already_are_kept_or_stand_in_the_way() -> None:
    plain, batch = encoder("per token")
    push, rows = Add(torch.linspace(-1, 1, 16), size=2.0), torch.tensor([0, 1])
    for site, level in (("resid_pre.2", 2), ("resid_post.0@2", 2), ("bert.encoder.layer.0.intermediate.dense", 0)):
        edit = Add(torch.ones(32)) if "dense" in site else push
        view = plain.with_edits(edit.at(f"acts:{site}"))
        fast, slow = (prepare_sweep(view, batch, "acts:resid_pre.1@3", level=at) for at in ("auto", 0))
        assert fast.level == level
        assert level == 2 or "lies in a block below the edit" in fast.flags[2]
        points = around(fast.base, rows)
        assert (fast.respond(points, rows).kl - slow.respond(points, rows).kl).abs().max() < CLOSE


def test_derivatives_go_through() -> None:
    network, batch = encoder("per token")
    network, gradients = Network(network.module, dtype=torch.float64), []
    for level in (2, 0):
        sweep = prepare_sweep(network, batch, "acts:resid_pre.1@3", level=level)
        assert sweep.level == level
        points = (1.5 * sweep.base).requires_grad_()
        gradients.append(torch.autograd.grad(sweep.logits(points, torch.tensor([0, 1]))[:, 0].sum(), points)[0])
    assert gradients[1].norm() > 1e-3
    assert torch.allclose(*gradients, rtol=1e-6, atol=1e-9)


def test_a_mistake_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # Planted: the blocks below give another prompt's stream; and only the wrong position goes on after the blocks.
    network, batch = encoder("per token")
    right = stack_replay.rows_of
    monkeypatch.setattr(stack_replay, "rows_of", lambda outputs, rows, n: right(outputs, (rows + 1) % n, n))
    sweep = prepare_sweep(network, batch, "acts:resid_pre.1@3")
    assert sweep.level == 0
    assert "level 2 over all positions is not used: it differs from level 0 by" in sweep.flags[2]
    monkeypatch.undo()
    monkeypatch.setattr(stack_replay, "value_at", lambda hidden, _: hidden[:, 0])
    sweep = prepare_sweep(network, batch, "acts:resid_pre.1@3")
    assert sweep.level == 2
    assert sweep.route.endswith("all of them after the blocks")


class Shared(nn.Module):
    """One block, read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[1](self.blocks[0](self.blocks[0](x)))


def test_a_block_that_is_called_twice_is_not_left_out() -> None:
    batch = Batch((torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)),), {}, None)
    sweep = prepare_sweep(Network(Shared()), batch, "acts:blocks.1:in.0@1")
    assert sweep.level == 0
    assert "blocks.0 is called 2 times in a forward pass" in sweep.flags[2]


def test_a_module_is_as_it_was_after_an_exception() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    mine = module[1].forward
    module[1].forward = mine  # as libraries that wrap modules do
    instead = {"0": lambda x: x + 1, "1": lambda x: 2 * x}
    with forwards_replaced(module, instead):
        assert module(torch.ones(1, 2)).tolist() == [[4.0, 4.0]]
    with pytest.raises(TypeError, match="argument"), forwards_replaced(module, instead):
        module()
    assert "forward" not in module[0].__dict__
    assert module[1].__dict__["forward"] == mine

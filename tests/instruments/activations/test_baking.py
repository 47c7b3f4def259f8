"""Baked weights give what hooks gave, and the old weights come back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.instruments.activations.engine_networks import batch_of, made, vector
from tests.instruments.test_network import assert_same, snapshot
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.baking import bake, unbake
from tremorscope.instruments.activations.named_edits import ace, clamp, directional_ablate
from tremorscope.instruments.edit import Add, Project, Replace
from tremorscope.instruments.network import Network
from tremorscope.instruments.subspace import Subspace
from tremorscope.instruments.task import Batch


def logits(network, batch):
    return network.apply(network.params, batch)


CASES = {
    "gpt2": [
        ace(vector(16), vector(16, 1), 0.5).at("acts:attn_out.0"),
        Add(vector(16, 2), 0.4).at("acts:mlp_out.1@all"),
        directional_ablate(vector(8, 3), origin=vector(8)).at("acts:q.0.1"),
        Replace(vector(8, 4)).at("acts:v.1.0"),
        ace(vector(8, 5), vector(8, 6), 1.0).at("acts:head_out.1.1"),
        Project(Subspace.span(vector(32).reshape(16, 2), offset=vector(16))).at("acts:mlp_out.0"),
        Replace(vector(64)).at("acts:mlp_act.0"),
    ],
    "llama": [
        directional_ablate(vector(16)).at("acts:attn_out.1"),
        directional_ablate(vector(16)).at("acts:mlp_out.0"),
        directional_ablate(vector(4)).at("acts:head_out.0.2"),
        directional_ablate(vector(4)).at("acts:k.1.1"),
    ],
    "mlp": [Add(vector(5)).at("acts:0"), Replace(vector(5)).at("acts:2:in.0")],
}


@pytest.mark.parametrize("name", CASES)
def test_baked_weights_give_the_hooked_outputs(name):  # E10
    network, batch = made(name), batch_of(name)
    before = snapshot(network.module)
    for placed in [*([one] for one in CASES[name]), CASES[name]]:
        hooked, baked = network.with_edits(*placed), bake(network, *placed)
        assert baked.edits == ()
        wanted = logits(hooked, batch)
        gap = (logits(baked, batch) - wanted).norm() / wanted.norm()
        assert gap < 1e-5
        assert (wanted - logits(network, batch)).norm() / wanted.norm() > 1e-3
        torch.testing.assert_close(logits(bake(hooked), batch), logits(baked, batch))
        assert unbake(baked) is network
        assert unbake(bake(hooked)) is hooked
    assert_same(before, snapshot(network.module))


def test_several_edits_of_one_layer_keep_their_order():
    network, batch = made("mlp"), batch_of("mlp")
    first, second = Add(vector(5)).at("acts:0"), directional_ablate(vector(5, 1)).at("acts:0")
    for placed in ((first, second), (second, first)):
        torch.testing.assert_close(logits(bake(network, *placed), batch), logits(network.with_edits(*placed), batch))
    edited = network.with_edits(Add(vector(4)).at("acts:2"))
    baked = bake(edited, first)
    assert baked.edits == edited.edits
    torch.testing.assert_close(logits(baked, batch), logits(edited.with_edits(first), batch))


def barren():
    return Network(nn.Sequential(nn.Linear(2, 2, bias=False)))


def tied():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    return Network(module)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bake(made("mlp")), "edits to bake: got none"),
        (lambda: unbake(made("mlp")), "got weights that hold no baked edit"),
        (lambda: bake(made("mlp"), clamp(high=1.0).at("acts:0")), "got Clamp, which is no constant affine map"),
        (lambda: bake(made("mlp"), Add(torch.ones(5)).at("acts:1")), "which no single linear layer feeds"),
        (lambda: bake(made("mlp"), Add(torch.ones(4)).at("acts:0")), "got 4 entries in the edit; wanted 5"),
        (lambda: bake(made("gpt2"), Add(torch.ones(16)).at("acts:final_norm")), "which no single linear layer feeds"),
        (lambda: bake(made("gpt2"), Add(torch.ones(16)).at("acts:attn_out.0@last")), "weights know no positions"),
        (
            lambda: bake(barren(), Add(torch.ones(2)).at("acts:0")),
            "a layer without a bias in a Sequential, which has no",
        ),
        (lambda: bake(tied(), Add(torch.ones(2)).at("acts:0")), r"weights that are shared \(0\.weight, 1\.weight\)"),
        (lambda: bake(made("gpt2"), Add(torch.ones(15)).at("acts:logits")), "weights that are shared"),
        (
            lambda: bake(made("mlp").with_edits(Add(torch.ones(5)).at("acts:0")), Add(torch.ones(5)).at("acts:0")),
            "a view with an edit of its own at 0, which would then come after",
        ),
    ],
)
def test_what_cannot_be_baked(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_half_precision_stays_half():
    network = Network(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), dtype=torch.bfloat16)
    baked = bake(network, directional_ablate(torch.ones(4)).at("acts:0"))
    assert baked.params["0.weight"].dtype == torch.bfloat16
    values = baked.record("acts:0", Batch((torch.ones(1, 3, dtype=torch.bfloat16),), {}, None))
    assert float(values.sum().abs()) < 0.05

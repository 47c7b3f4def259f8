"""Edits of the residual stream in weights: what is exact, what is refused, and that the old weights come back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.instruments.activations.engine_networks import batch_of, made, vector
from tests.instruments.language.tiny_models import CONTEXT, VOCABULARY, tiny_tokenizer
from tests.instruments.test_network import assert_same, snapshot
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations import residual_baking, roomier_copy
from tremorscope.instruments.activations.baking import bake, bake_refusal, unbake
from tremorscope.instruments.activations.named_edits import ace, directional_ablate
from tremorscope.instruments.activations.residual_baking import residual_sites
from tremorscope.instruments.edit import Add, Project, Replace
from tremorscope.instruments.network import Network
from tremorscope.instruments.subspace import Subspace

ONE = Add(vector(16, 2), 0.4)


def outputs(network, name):
    batch = batch_of(name)
    with torch.no_grad():
        return network.apply(network.params, batch)


def compared(network, placed, name):
    """How far baked outputs are from the hooked ones, and these from the unedited ones, relative."""
    wanted = outputs(network.with_edits(*placed), name)
    baked = bake(network, *placed)
    assert baked.edits == ()
    assert unbake(baked) is network
    plain = outputs(network, name)
    return [float((one - wanted).norm() / wanted.norm()) for one in (outputs(baked, name), plain)]


def family(config, kind, **more):
    """A random model of another family, as the tiny ones are made."""
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    made_config = config(**settings, **more)
    made_config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = kind(made_config).eval()
        for parameter in module.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return Network(module, tokenizer=tiny_tokenizer())


def parallel():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return family(GPTNeoXConfig, GPTNeoXForCausalLM, use_parallel_residual=True)


def tied_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return family(LlamaConfig, LlamaForCausalLM, num_key_value_heads=2, tie_word_embeddings=True)


NETWORKS = {"gpt2": lambda: made("gpt2"), "llama": lambda: made("llama"), "tied": tied_llama, "parallel": parallel}
STREAM = [f"resid_{name}" for name in ("pre.0", "mid.0", "post.0", "pre.1", "mid.1", "post.1")]


@pytest.mark.parametrize(
    ("name", "sites"),
    [
        ("gpt2", [*STREAM, "embed"]),
        ("llama", [*STREAM, "embed"]),
        ("tied", ["resid_pre.0", "resid_post.1", "embed"]),
        ("parallel", ["resid_pre.0", "resid_pre.1", "resid_post.1", "embed"]),
        ("bert", ["resid_pre.0", "resid_post.0", "resid_pre.1", "resid_post.1"]),
    ],
)
def test_an_addition_to_the_stream_is_a_bias(name, sites):  # E10
    network = made("bert") if name == "bert" else NETWORKS[name]()
    before = snapshot(network.module)
    for site in sites:
        gap, effect = compared(network, [ONE.at(f"acts:{site}")], name)
        assert gap < 1e-5, site
        assert effect > 1e-3, site
    everywhere = [Add(vector(16, seed), 0.3).at(f"acts:{site}") for seed, site in enumerate(sites)]
    assert compared(network, everywhere, name)[0] < 1e-5
    assert_same(before, snapshot(network.module))


IDEMPOTENT = {
    "ablation": directional_ablate(vector(16)),
    "set coordinate": ace(vector(16, 5), vector(16, 6), 1.0),
    "plane about a point": Project(Subspace.span(vector(32).reshape(16, 2), offset=vector(16))),
    "one vector": Replace(vector(16, 7)),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "ablation") for name in NETWORKS),
        *(("llama", kind) for kind in IDEMPOTENT if kind != "ablation"),
        ("gpt2", "set coordinate"),
        ("parallel", "plane about a point"),
    ],
)
def test_what_done_twice_is_done_once_can_act_all_along_the_stream(name, kind):  # E10, arXiv:2406.11717
    network = NETWORKS[name]()
    before = snapshot(network.module)
    settings = copy.deepcopy(network.module.config.to_dict())
    placed = [IDEMPOTENT[kind].at(site) for site in residual_sites(network)]
    gap, effect = compared(network, placed, name)
    assert gap < 1e-5
    assert effect > 1e-3
    # The first places of the stream alone, and an addition after them.
    assert compared(network, [*placed[:2], ONE.at("acts:resid_post.1")], name)[0] < 1e-5
    assert_same(before, snapshot(network.module))
    assert network.module.config.to_dict() == settings


def test_every_name_of_a_place_is_the_place():
    network = made("gpt2")
    assert residual_sites(network) == tuple(
        f"acts:resid_{name}" for name in ("pre.0", "mid.0", "post.0", "mid.1", "post.1")
    )
    one = directional_ablate(vector(16))
    placed = [one.at(f"acts:{site}") for site in STREAM]  # two of them are one place
    assert compared(network, placed, "gpt2")[0] < 1e-5
    raw = [ONE.at("acts:transformer.h.0"), ONE.at("acts:transformer.h.1:in.0")]
    assert compared(network, raw, "gpt2")[0] < 1e-5


def test_any_affine_map_of_the_start_of_the_stream():
    stretch = ace(vector(16), vector(16, 1), 0.5, read_out=vector(16, 2))
    for name in NETWORKS:
        for site in ("resid_pre.0", "embed"):
            gap, effect = compared(NETWORKS[name](), [stretch.at(f"acts:{site}")], name)
            assert gap < 1e-5
            assert effect > 1e-3


def test_edits_of_writers_and_of_the_stream_together():
    network = made("gpt2")
    inner = [directional_ablate(vector(16, 8)).at("acts:mlp_out.0"), Replace(vector(8, 4)).at("acts:v.1.0")]
    placed = [*inner, *(IDEMPOTENT["ablation"].at(site) for site in residual_sites(network))]
    assert compared(network, placed, "gpt2")[0] < 1e-5
    hooked = network.with_edits(*inner)
    baked = bake(hooked, ONE.at("acts:resid_mid.0"))
    assert baked.edits == hooked.edits
    wanted = outputs(hooked.with_edits(ONE.at("acts:resid_mid.0")), "gpt2")
    torch.testing.assert_close(outputs(baked, "gpt2"), wanted, rtol=1e-5, atol=1e-5)


def test_room_is_made_in_a_copy_and_said_in_its_configuration():
    network = made("llama")
    baked = bake(network, ONE.at("acts:resid_post.0"))
    assert baked.module is not network.module
    assert (baked.module.config.mlp_bias, network.module.config.mlp_bias) == (True, False)
    assert (baked.module.config.attention_bias, network.module.config.attention_bias) == (False, False)
    assert set(baked.params) - set(network.params) == {
        f"model.layers.{block}.mlp.{part}_proj.bias" for block in (0, 1) for part in ("gate", "up", "down")
    }
    torch.testing.assert_close(baked.params["model.layers.0.mlp.down_proj.bias"], 0.4 * vector(16, 2))
    assert unbake(baked) is network
    untied = bake(made("gpt2"), directional_ablate(vector(16)).at("acts:embed"))
    assert not untied.module.config.tie_word_embeddings
    assert torch.equal(untied.params["lm_head.weight"], made("gpt2").params["transformer.wte.weight"])


def bert_without_a_last_bias():
    network = made("bert")
    network.module.bert.encoder.layer[0].output.LayerNorm.bias = None
    return Network(network.module, tokenizer=network.tokenizer)


def qwen():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return family(Qwen2Config, Qwen2ForCausalLM, num_key_value_heads=2)


ABLATE = IDEMPOTENT["ablation"]


@pytest.mark.parametrize(
    ("make", "placed", "message"),
    [
        (lambda: made("gpt2"), [ABLATE.at("acts:resid_post.0")], "a sum of all that was written before"),
        (lambda: made("gpt2"), [ABLATE.at("acts:resid_pre.0"), ABLATE.at("acts:resid_post.0")], "a sum of all"),
        (
            lambda: made("gpt2"),  # another one after the first: what was taken out comes back
            [ABLATE.at("acts:resid_pre.0"), directional_ablate(vector(16, 9)).at("acts:resid_mid.0")],
            "a sum of all that was written before",
        ),
        (
            lambda: made("gpt2"),  # an addition between them
            [ABLATE.at("acts:resid_pre.0"), ABLATE.at("acts:resid_mid.0"), ONE.at("acts:resid_mid.0")],
            "a sum of all that was written before",
        ),
        (lambda: made("bert"), [ABLATE.at("acts:resid_post.0")], "a sum of all that was written before"),
        (lambda: made("bert"), [ABLATE.at("acts:resid_pre.0")], "no bias, normalisation or sum of embeddings gives"),
        (bert_without_a_last_bias, [ONE.at("acts:resid_post.0")], "no bias, normalisation or sum of embeddings gives"),
        (lambda: made("gpt2"), [ONE.at("acts:resid_post.0@last")], "acts at every position"),
        (qwen, [ONE.at("acts:resid_post.0")], "the configuration of Qwen2ForCausalLM knows none for it"),
        (lambda: made("rwkv"), [ONE.at("acts:resid_post.0")], "which no single linear layer feeds"),
        (lambda: made("gpt2"), [Add(torch.ones(15)).at("acts:embed")], "got 15 entries in the edit; wanted 16"),
        (lambda: made("gpt2"), [Add(torch.ones(15)).at("acts:resid_mid.1")], "got 15 entries in the edit; wanted 16"),
    ],
)
def test_what_is_not_exact_is_refused_and_why(make, placed, message):
    with pytest.raises(BadInput, match=message):
        bake(make(), *placed)


def test_the_reason_can_be_had_beforehand():
    assert bake_refusal(made("gpt2"), ONE.at("acts:resid_post.0")) is None
    assert bake_refusal(made("llama"), ONE.at("acts:resid_post.0@all")) is None
    assert "knows none for it" in (bake_refusal(qwen(), ONE.at("acts:resid_post.0")) or "")


class Twice(nn.Module):
    """A stack whose first block's MLP is used a second time, behind the blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(4, 1, 8, norm_first=True) for _ in range(2))
        self.last = nn.Embedding(5, 4)

    def forward(self, tokens):
        x = self.last(tokens)
        for block in self.blocks:
            x = block(x)
        return x @ self.last.weight.T


def test_weights_that_miss_the_hooked_outputs_are_not_believed():
    """The table is used once more, as a bare matrix, where no look at modules shows it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(Twice().eval())
    from tremorscope.instruments.task import Batch

    batch = Batch((torch.arange(5)[None],), {}, None)
    network.site_map(batch, blocks="blocks")
    with pytest.raises(BadInput, match="weights whose outputs miss those of the hooked view by"):
        bake(network, Add(vector(4)).at("acts:blocks.0:in.0"), batch=batch)


@pytest.mark.parametrize("plant", ["shift kept", "idempotence not asked", "biases not told"])
def test_planted_mistakes_are_caught(monkeypatch, plant):
    """What these tests and the check against hooks are for."""
    network = NETWORKS["llama"]()
    placed = [IDEMPOTENT["set coordinate"].at(site) for site in residual_sites(network)]
    if plant == "shift kept":
        monkeypatch.setattr(torch, "zeros_like", lambda one, **_: one)
        message = "miss those of the hooked view"
    elif plant == "idempotence not asked":
        monkeypatch.setattr(residual_baking, "_is_idempotent", lambda _: True)
        stretch = ace(vector(16), vector(16, 1), 0.5)
        stretch = type(stretch)(2.0 * stretch.left, stretch.right, offset=stretch.offset, shift=stretch.shift)
        placed = [stretch.at(site) for site in residual_sites(network)]
        message = "miss those of the hooked view"
    else:
        monkeypatch.setattr(roomier_copy, "_added", lambda *_: {})
        placed, message = [ONE.at("acts:resid_mid.0")], "the configuration of LlamaForCausalLM knows none"
    with pytest.raises(BadInput, match=message):
        bake(network, *placed)

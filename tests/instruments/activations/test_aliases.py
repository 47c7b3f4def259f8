"""Aliases: true where they are given, with a reason where they are not; and a wrong one is noticed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.instruments.activations.engine_networks import batch_of, made, vector
from tests.instruments.test_network import assert_same, snapshot
from tremorscope.foundations.errors import BadInput, SiteNotFound
from tremorscope.instruments.activations.heads import Heads
from tremorscope.instruments.edit import Add, Replace
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

STREAM = {"resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_act"}
HEADS = {"head_out", "q", "k", "v"}
WANTED = {
    "gpt2": STREAM | HEADS | {"embed", "final_norm", "logits"},
    "llama": STREAM | HEADS | {"embed", "final_norm", "logits"},
    "bert": HEADS | {"resid_pre", "resid_post", "mlp_act", "embed", "logits"},
    "mamba": {"resid_pre", "resid_post", "attn_out", "embed", "final_norm", "logits"},
    "rwkv": STREAM | {"embed", "final_norm", "logits"},
    "house-gru": {"resid_pre", "resid_post", "state", "embed", "final_norm", "logits"},
    "gru": {"state", "logits"},
    "lstm": {"state", "logits"},
    "mlp": {"logits"},
    "cnn": {"logits"},
}


@pytest.mark.parametrize("name", WANTED)
def test_the_names_that_hold_in_each_family(name):
    network = made(name)
    before = snapshot(network.module)
    found = network.site_map(batch_of(name))
    assert_same(before, snapshot(network.module))
    assert {alias.split(".")[0] for alias in found.aliases} == WANTED[name]
    missing = (STREAM | HEADS | {"embed", "final_norm", "logits", "state"}) - WANTED[name]
    assert missing <= {alias.split(".")[0] for alias in found.undefined} | {"final_norm"}
    if found.num_blocks:
        layers = {alias.split(".")[1] for alias in found.aliases if alias.startswith("resid_pre")}
        assert layers == {"0", "1"}


@pytest.mark.parametrize("name", ["gpt2", "llama", "rwkv"])
def test_the_stream_adds_up(name):
    network, batch = made(name), batch_of(name, 3)
    names = [
        f"acts:{part}.{layer}"
        for part in ("resid_pre", "attn_out", "mlp_out", "resid_mid", "resid_post")
        for layer in (0, 1)
    ]
    value = network.record_all(names, batch)
    for layer in (0, 1):
        pre, attended, added, mid, post = (value[name] for name in names[layer::2])
        torch.testing.assert_close(pre + attended, mid, rtol=0, atol=1e-5)
        torch.testing.assert_close(mid + added, post, rtol=0, atol=1e-5)
    assert torch.equal(value["acts:resid_post.0"], value["acts:resid_pre.1"])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_middle_of_the_stream_is_moved_for_all_that_follows(name):
    # Whatever is added to the stream is added to what the attention gives, and to nothing else.
    network, batch = made(name), batch_of(name)
    middle, branch = (network.with_edits(Add(vector(16)).at(f"acts:{at}.0@1:3")) for at in ("resid_mid", "attn_out"))
    wanted = branch.apply(branch.params, batch)
    torch.testing.assert_close(middle.apply(middle.params, batch), wanted, rtol=0, atol=2e-5)
    torch.testing.assert_close(middle.record("acts:resid_post.0", batch), branch.record("acts:resid_post.0", batch))
    only_norm = network.with_edits(Add(vector(16)).at(f"{_raw(network, 'resid_mid.0')}@1:3"))
    assert (only_norm.apply(network.params, batch) - wanted).abs().max() > 1e-2  # the planted bug


def _raw(network, alias):
    place = network.site_map().aliases[alias]
    return f"acts:{place.module}:{place.port}"


def test_heads_of_queries_and_of_keys_are_counted_apart():
    network, batch = made("llama"), batch_of("llama")
    found = network.site_map()
    assert found.heads == Heads(num_heads=4, num_key_heads=2, width=4)
    assert {alias for alias in found.aliases if alias.startswith(("q.1.", "k.1."))} == {
        *(f"q.1.{head}" for head in range(4)),
        *(f"k.1.{head}" for head in range(2)),
    }
    # A value head moves exactly the query heads that read it, and no other column.
    clean = network.record("acts:head_out.1", batch)
    for key_head in range(2):
        edited = network.with_edits(Add(vector(4)).at(f"acts:v.1.{key_head}"))
        moved = (edited.record("acts:head_out.1", batch) - clean).unflatten(-1, (4, 4)).norm(dim=-1).amax((0, 1)) > 1e-4
        assert moved.tolist() == [found.heads.key_head(head) == key_head for head in range(4)]
    with pytest.raises(SiteNotFound, match=r"acts:k\.1\.2: got 'k\.1\.2'.*Nearest: "):
        network.record("acts:k.1.2", batch)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("kind", ["q", "k", "v", "head_out"])
def test_an_edit_of_a_head_touches_its_columns_alone(name, kind):
    network, batch = made(name), batch_of(name)
    place = network.site_map().aliases[f"{kind}.0.1"]
    whole = f"acts:{place.module}:{place.port}"
    first, last = place.columns
    edited = network.with_edits(Replace(vector(last - first)).at(f"acts:{kind}.0.1"))
    before, after = network.record(whole, batch), edited.record(whole, batch)
    assert torch.equal(after[..., :first], before[..., :first])
    assert torch.equal(after[..., last:], before[..., last:])
    assert torch.equal(after[..., first:last], vector(last - first).expand(2, 6, last - first))
    assert not torch.equal(edited.apply(edited.params, batch), network.apply(network.params, batch))


def test_recorded_queries_and_keys_make_the_attention():
    # The slow twin of GPT-2's attention, from the recorded heads.
    network, batch = made("gpt2"), batch_of("gpt2")
    value = network.record_all([f"acts:{kind}.1.1" for kind in ("q", "k", "v", "head_out")], batch)
    q, k, v, joined = value.values()
    scores = (q @ k.mT / 8**0.5).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(scores.softmax(-1) @ v, joined, rtol=0, atol=1e-5)


class Branch(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x):
        return torch.tanh(self.layer(x))


class Block(nn.Module):
    """A block of one of several designs."""

    def __init__(self, design):
        super().__init__()
        self.design = design
        self.attn, self.mlp = Branch(), Branch()
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(4) for _ in range(4))
        if design == "zero":
            self.mlp = nn.Linear(4, 4)
            nn.init.zeros_(self.mlp.weight)
            nn.init.zeros_(self.mlp.bias)

    def forward(self, x):
        match self.design:
            case "parallel":
                return x + self.attn(self.norm1(x)) + self.mlp(self.norm2(x))
            case "post-LN":
                return self.norm2((y := self.norm1(x + self.attn(x))) + self.mlp(y))
            case "sandwich":
                y = x + self.norm3(self.attn(self.norm1(x)))
                return y + self.norm4(self.mlp(self.norm2(y)))
            case "scaled":
                y = x + 0.5 * self.attn(self.norm1(x))
                return y + 0.5 * self.mlp(self.norm2(y))
        y = x + self.attn(self.norm1(x))
        return y + self.mlp(self.norm2(y))


class Stranger(nn.Module):
    def __init__(self, design="plain"):
        super().__init__()
        self.blocks = nn.ModuleList(Block(design) for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


NUMBERS = Batch((torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)),), {}, None)


@pytest.mark.parametrize(
    ("design", "undefined", "reason"),
    [
        ("plain", set(), ""),
        ("parallel", {"resid_mid"}, r"Attention and MLP read the same stream \(a parallel block\)\."),
        ("post-LN", {"resid_mid", "attn_out", "mlp_out"}, r"The block ends in a normalisation \(post-LN\)"),
        ("sandwich", {"resid_mid", "attn_out", "mlp_out"}, r"normalised before it is added \(sandwich norms\)"),
        (
            "scaled",
            {"resid_mid", "attn_out", "mlp_out"},
            r"Stream plus branches misses what the block gives by \d+\.\d%",
        ),
        ("zero", {"resid_mid", "attn_out", "mlp_out"}, "gives only zeros here, so that nothing can be verified"),
    ],
)
def test_designs_for_which_names_would_lie(design, undefined, reason):
    network = Network(Stranger(design))
    found = network.site_map(NUMBERS)
    known = {alias.split(".")[0] for alias in found.aliases}
    assert {"resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"} - known == undefined
    for family in undefined:
        with pytest.raises(SiteNotFound, match=f"a name that does not hold in this network. {reason}|{reason}"):
            network.record(f"acts:{family}.0", NUMBERS)


def test_names_wait_for_the_first_batch_where_none_can_be_made_up():
    network = Network(Stranger())
    edited = network.with_edits(Add(torch.ones(4)).at("acts:resid_pre.1"))
    wanted = network.module.blocks[1](network.module.blocks[0](*NUMBERS.args) + 1)
    torch.testing.assert_close(edited.apply(edited.params, NUMBERS), wanted)
    with pytest.raises(BadInput, match=r"sites of 'Stranger': got no batch.*network\.site_map\(batch\) first"):
        Network(Stranger()).site_map()


def test_input_that_cannot_be_made_up_is_asked_for():
    module = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2))
    network, batch = Network(module, tokenizer=range(10)), Batch((torch.tensor([[1, 2, 0]]),), {}, None)
    with pytest.raises(BadInput, match=r"made-up tokens or examples \(.*\); wanted a batch.*site_map\(batch\) first"):
        network.site_map()
    assert network.with_edits(Add(torch.ones(2)).at("acts:logits")).apply(network.params, batch).shape == (1, 3, 2)
    assert torch.equal(network.record("acts:embed", batch), module[0](*batch.args))


class Named(nn.Module):
    """Modules whose paths are aliases of something else."""

    def __init__(self):
        super().__init__()
        self.logits, self.q = nn.Linear(2, 2), nn.ModuleList([nn.Linear(2, 2)])

    def forward(self, x):
        return self.q[0](self.logits(x))


def test_an_alias_wins_over_a_path_and_a_port_means_a_path():
    network, batch = Network(Named()), Batch((torch.ones(1, 2),), {}, None)
    network.site_map(batch)
    assert torch.equal(network.record("acts:logits", batch), network.apply(network.params, batch))
    assert torch.equal(network.record("acts:logits:out.0", batch), network.module.logits(torch.ones(1, 2)))
    assert torch.equal(network.record("acts:q.0", batch), network.apply(network.params, batch))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Stranger(), Stranger()

    def forward(self, x):
        return self.decoder(self.encoder(x))


def test_the_list_of_blocks_is_asked_for_where_it_is_not_one():
    network = Network(Two())
    with pytest.raises(
        SiteNotFound, match=r"choose by site_map\(blocks=\.\.\.\) among encoder.blocks \(2 modules, 50%\)"
    ):
        network.site_map(NUMBERS).place("resid_pre.0")
    chosen = Network(Two())
    assert chosen.site_map(NUMBERS, blocks="decoder.blocks").block_list == "decoder.blocks"
    assert chosen.site_map().num_blocks == 2
    assert torch.equal(chosen.record("acts:resid_pre.0", NUMBERS), chosen.module.encoder(*NUMBERS.args))
    with pytest.raises(BadInput, match=r"blocks: got nothing; wanted one of encoder\.blocks, decoder\.blocks"):
        network.site_map(NUMBERS, blocks="nothing")


def test_embeddings_weigh_nothing_in_the_search_for_blocks():
    module = nn.Sequential(nn.Embedding(1000, 4), Stranger())
    network = Network(module)
    batch = Batch((torch.tensor([[1, 2, 3]]),), {}, None)
    assert network.site_map(batch).block_list == "1.blocks"
    assert torch.equal(network.record("acts:embed", batch), network.record("acts:resid_pre.0", batch))


def test_sites_are_listed_cheaply_and_aliases_once_they_are_known():
    network = made("gpt2")
    listed = network.sites()
    assert "acts:transformer.h.1.mlp" in listed
    assert "acts:resid_pre.0" not in listed
    network.site_map()
    assert {"acts:resid_pre.0", "acts:head_out.1.1"} <= set(network.sites())
    assert network.at(network.theta).site_map() is network.site_map()
    with pytest.raises(
        SiteNotFound, match=r"got 'resid_pre\.7'; wanted one of the \d+ names.*2 blocks.*Nearest: resid_pre"
    ):
        network.with_edits(Add(torch.ones(16)).at("acts:resid_pre.7"))

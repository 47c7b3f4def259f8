"""Edits and recordings in a forward pass: exact, out of place, and gone afterwards."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.func import grad, jvp, vmap

from tests.instruments.activations.engine_networks import ALL, IDENTITY, batch_of, made, vector
from tests.instruments.test_network import assert_same, snapshot
from tremorscope.foundations.errors import BadInput, SiteNotFound
from tremorscope.instruments.activations.hooks import assert_clean, leftover_hooks, tapped
from tremorscope.instruments.activations.named_edits import directional_ablate
from tremorscope.instruments.activations.positions import Window
from tremorscope.instruments.activations.probe import watch
from tremorscope.instruments.edit import Add, Replace
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch


def logits(network, batch):
    return network.apply(network.params, batch)


def aliases_of(network, batch):
    return list(network.site_map(batch).aliases)


@pytest.mark.parametrize("name", ALL)
def test_an_identity_at_every_site_changes_no_bit(name):  # E1
    network, batch = made(name), batch_of(name)
    before, wanted = snapshot(network.module), logits(network, batch)
    edited = network.with_edits(*(IDENTITY.at(f"acts:{alias}") for alias in aliases_of(network, batch)))
    assert torch.equal(logits(edited, batch), wanted)
    seen, _ = watch(network, batch, [path for path, _ in network.module.named_modules()])
    inner = [path for path, one in seen.items() if path and one.given is not None]
    edited = network.with_edits(*(IDENTITY.at(f"acts:{path}:out.0") for path in inner))
    assert len(inner) >= 2
    assert torch.equal(logits(edited, batch), wanted)
    assert_same(before, snapshot(network.module))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_an_identity_at_each_alias_changes_no_bit(name):  # E1
    network, batch = made(name), batch_of(name)
    wanted = logits(network, batch)
    for alias in aliases_of(network, batch):
        assert torch.equal(logits(network.with_edits(IDENTITY.at(f"acts:{alias}")), batch), wanted)


def check_patching(name, sites):
    network, batch, other = made(name), batch_of(name), batch_of(name, 1)
    values = network.record_all(sites, other)
    for site in sites:
        patched = network.with_edits(Replace(values[site]).at(site))
        assert torch.equal(patched.record(site, batch), values[site])
        assert not torch.equal(network.record(site, batch), values[site])
        if values[site].ndim == 3:
            last = network.record(f"{site}@last", other)
            assert torch.equal(last, values[site][:, -1])
            patched = network.with_edits(Replace(last).at(f"{site}@last"))
            assert torch.equal(patched.record(f"{site}@last", batch), last)
            assert torch.equal(patched.record(f"{site}@:3", batch), network.record(f"{site}@:3", batch))


@pytest.mark.parametrize("name", ALL)
def test_what_is_patched_in_is_what_is_read(name):  # E2
    known = aliases_of(made(name), batch_of(name))
    check_patching(name, [f"acts:{alias}" for alias in known if ".0" not in alias])


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_what_is_patched_in_anywhere_is_what_is_read(name):  # E2
    check_patching(name, [f"acts:{alias}" for alias in aliases_of(made(name), batch_of(name))])


@pytest.mark.parametrize("name", ["gpt2", "llama", "mamba", "house-gru", "bert"])
@pytest.mark.parametrize("site", ["acts:resid_pre.1", "acts:resid_post.0", "acts:resid_mid.1", "acts:logits"])
def test_a_patched_stream_gives_the_other_text(name, site):
    # Everything behind the site comes from it alone, so the whole other run has to come out.
    network, batch, other = made(name), batch_of(name), batch_of(name, 1)
    if site.removeprefix("acts:") not in network.site_map().aliases:
        assert "resid_mid" in site
        return
    patched = network.with_edits(Replace(network.record(site, other)).at(site))
    torch.testing.assert_close(logits(patched, batch), logits(network, other), rtol=0, atol=2e-5)


@pytest.mark.parametrize("training", [False, True])
def test_nothing_is_left_behind_by_a_pass_or_by_an_exception(training):  # E3
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    seen = []
    handle = module[0].register_forward_hook(lambda *call: seen.append(1))  # the user's own
    network = Network(module)
    edited = network.with_edits(Add(torch.ones(4)).at("acts:0"))
    before = snapshot(module)
    edited.apply(edited.params, Batch((torch.ones(1, 3),), {}, None), training=training)
    edited.record("acts:2:in.0", Batch((torch.ones(1, 3),), {}, None))
    with pytest.raises(RuntimeError):
        edited.apply(edited.params, Batch((torch.ones(1, 9),), {}, None), training=training)
    with pytest.raises(BadInput, match="got 3 entries"):
        logits(network.with_edits(Add(torch.ones(3)).at("acts:0")), Batch((torch.ones(1, 3),), {}, None))
    after = snapshot(module)
    after["random"] = before["random"] if training else after["random"]
    assert_same(before, after)
    assert_clean(module)
    assert len(seen) >= 2
    handle.remove()


def test_a_leftover_is_counted_and_only_ours():
    module = nn.Sequential(nn.Linear(2, 2))
    module[0].register_forward_hook(lambda *call: None)
    network = Network(module)
    taps = network.with_edits(Add(torch.ones(2)).at("acts:0"))._taps
    with tapped(module, taps, Window(batch=Batch((), {}, None))):
        assert leftover_hooks(module) == 2
        with pytest.raises(BadInput, match="hooks on Sequential: got 2; wanted none"):
            assert_clean(module)
        module(torch.zeros(1, 2))
    assert leftover_hooks(module) == 0


class Keeping(nn.Module):
    """A block that hands out the very tensor it goes on with."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Identity(), nn.Linear(2, 2)
        self.kept = None

    def forward(self, x):
        self.kept = x
        return self.second(self.first(x))


def test_no_tensor_of_the_model_is_written_to():
    # Hooks that subtract in place spoil cached hidden states and what autograd saved.
    network = Network(Keeping())
    x = torch.ones(3, 2, requires_grad=True)
    for site in ("acts:first:in.0", "acts:first", "acts:second:in.0"):
        edited = network.with_edits(directional_ablate(torch.tensor([1.0, 0.0])).at(site))
        logits(edited, Batch((x,), {}, None)).sum().backward()
        assert torch.equal(network.module.kept, torch.ones(3, 2))
    assert torch.equal(x.grad[:, 0], torch.zeros(3))
    assert x.grad[:, 1].abs().min() > 0


def test_every_row_of_a_bare_tensor_is_edited():
    network, batch = made("gpt2"), batch_of("gpt2")
    change = network.with_edits(Add(vector(16)).at("acts:transformer.h.0")).record("acts:resid_pre.1", batch)
    change = change - network.record("acts:resid_pre.1", batch)
    torch.testing.assert_close(change, vector(16).expand(2, 6, 16), rtol=0, atol=1e-5)


def test_edits_act_in_order_and_where_they_are():
    network = made("mlp")
    batch = batch_of("mlp")
    add, half = Add(torch.ones(5)), directional_ablate(torch.ones(5))
    for first, second in ((add, half), (half, add)):
        wanted = network.module[2](second.apply(first.apply(network.module[1](network.module[0](*batch.args)))))
        edited = network.with_edits(first.at("acts:1")).with_edits(second.at("acts:1"))
        torch.testing.assert_close(logits(edited, batch), wanted)
        assert edited.edits == (first.at("acts:1"), second.at("acts:1"))
    both = network.with_edits(Add(torch.ones(4)).at("weights:2.bias"), add.at("acts:1"))
    torch.testing.assert_close(logits(both, batch), logits(network.with_edits(add.at("acts:1")), batch) + 1)


def test_ports_of_arguments_and_keywords():
    network, batch = made("llama"), batch_of("llama")
    site = "acts:model.layers.1.self_attn:kwarg.hidden_states"
    values = network.record(site, batch)
    torch.testing.assert_close(values, network.record("acts:model.layers.1.input_layernorm", batch))
    edited = network.with_edits(Replace(torch.zeros(16)).at(site))
    assert not edited.record("acts:q.1", batch).any()
    with pytest.raises(BadInput, match=r"a call with 0 arguments and the keywords hidden_states.*Write kwarg\."):
        network.record("acts:model.layers.1.self_attn:in.0", batch)
    state = made("lstm").record("acts:cell:out.1.0", batch_of("lstm"))
    assert state.shape == (1, 2, 4)


def test_derivatives_and_maps_go_through_an_edited_view():
    network = made("gpt2")
    batch = batch_of("gpt2")
    edited = network.with_edits(
        Add(vector(16), 0.5).at("acts:resid_mid.0@last"), directional_ablate(vector(8)).at("acts:head_out.1.1@2:4")
    )
    theta, step = network.theta.double(), 1e-6
    wide = Network(network.module, dtype=torch.float64).with_edits(*edited.edits)
    along = vector(len(theta)).double()

    def score(at):
        return wide.apply(at, batch).square().mean()

    slope = jvp(score, (theta,), (along,))[1]
    difference = (score(theta + step * along) - score(theta - step * along)) / (2 * step)
    assert float(slope) == pytest.approx(float(difference), rel=1e-5)
    assert float(grad(score)(theta) @ along) == pytest.approx(float(slope), rel=1e-9)
    several = torch.stack([theta, 1.01 * theta])
    torch.testing.assert_close(vmap(score)(several), torch.stack([score(one) for one in several]))
    sizes, v = torch.tensor([0.0, 2.0]), vector(16)
    mapped = vmap(lambda size: logits(network.with_edits(Add(v, size).at("acts:k.0@last")), batch))
    torch.testing.assert_close(mapped(sizes)[0], logits(network, batch))
    alone = logits(network.with_edits(Add(v, 2.0).at("acts:k.0@last")), batch)
    torch.testing.assert_close(mapped(sizes)[1], alone)
    assert not torch.allclose(alone, logits(network, batch))


def test_a_mask_may_be_mapped_too():
    network, tokens = made("gpt2"), batch_of("gpt2").kwargs["input_ids"]
    masks = torch.tensor([[[1, 1, 1, 1, 1, 0]], [[1, 1, 1, 1, 1, 1]]])

    for site in ("acts:resid_pre.1@last", "acts:resid_pre.1@prompt"):
        edited = network.with_edits(Add(vector(16)).at(site))

        def out(row, mask, edited=edited):
            return logits(edited, Batch((), {"input_ids": row[None], "attention_mask": mask}, None))

        loop = torch.stack([out(row, mask) for row, mask in zip(tokens, masks, strict=True)])
        torch.testing.assert_close(vmap(out)(tokens, masks), loop)


def test_projections_in_half_precision_leave_next_to_nothing():  # E8
    module = nn.Sequential(nn.Linear(8, 4096), nn.Identity())
    network, r = Network(module, dtype=torch.bfloat16), vector(4096)
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    values = network.with_edits(directional_ablate(r).at("acts:0")).record("acts:1", Batch((x,), {}, None))
    assert values.dtype == torch.bfloat16

    def left(v):
        return ((v.double() @ (r / r.norm()).double()) / v.double().norm(dim=1)).abs().max()

    assert left(values) <= 5e-3
    plain = network.record("acts:0", Batch((x,), {}, None))
    towards = plain + 20 * plain.norm(dim=1, keepdim=True) * (r / r.norm()).bfloat16()
    unit = (r / r.norm()).bfloat16()
    naive = towards - (towards @ unit)[:, None] * unit
    assert left(naive) > 5e-3  # the planted bug: products in bfloat16
    assert left(directional_ablate(r.bfloat16()).apply(towards)) < left(naive)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused, self.tokens = nn.Linear(2, 2), nn.Linear(2, 2), nn.Identity()

    def forward(self, x):
        self.tokens(torch.zeros(1, dtype=torch.int64))
        return self.used(self.used(x))


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("acts:unused", "a forward pass that never calls 'unused'"),
        ("acts:tokens", r"got a tensor of torch\.int64; wanted real numbers"),
        ("acts:used:out.1", r"got entry 1 of a tensor of shape \(1, 2\)"),
        ("acts:used:kwarg.mask", "got a call with 1 arguments; wanted a tensor as keyword mask"),
        ("acts:used@last", r"a position at a value of shape \(1, 2\)"),
    ],
)
def test_places_that_a_pass_does_not_have(site, message):
    network, batch = Network(Branching()), Batch((torch.ones(1, 2),), {}, None)
    with pytest.raises(BadInput, match=message):
        network.record(site, batch)
    with pytest.raises(BadInput, match=message):
        logits(network.with_edits(Add(torch.ones(2)).at(site)), batch)
    assert_clean(network.module)


def test_a_module_called_twice_is_edited_twice_and_not_recorded():
    network, batch = Network(Branching()), Batch((torch.ones(1, 2),), {}, None)
    with pytest.raises(BadInput, match="got 2 calls of 'used' in one forward pass"):
        network.record("acts:used", batch)
    module, v = network.module, torch.tensor([1.0, -1.0])
    edited = logits(network.with_edits(Add(v).at("acts:used")), batch)
    torch.testing.assert_close(edited, module.used(module.used(batch.args[0]) + v) + v)


def test_the_errors_name_the_site_and_both_widths():
    network, batch = made("gpt2"), batch_of("gpt2")
    with pytest.raises(BadInput, match=r"Add at acts:q\.0\.1: got 16 entries in the edit; wanted 8, the width"):
        logits(network.with_edits(Add(torch.ones(16)).at("acts:q.0.1")), batch)
    with pytest.raises(SiteNotFound, match=r"Nearest: transformer\.h\.1\.mlp(, [\w.]+){4}\. List them with network"):
        network.with_edits(Add(torch.ones(16)).at("acts:transformer.h.1.mpl"))
    with pytest.raises(BadInput, match="value of Replace: got shape"):
        logits(network.with_edits(Replace(torch.ones(2, 16)).at("acts:resid_pre.0")), batch)
    with pytest.raises(BadInput, match="a site of the kind weights; wanted acts:NAME"):
        network.record("weights:*", batch)


@pytest.mark.slow  # torch.compile takes seconds to import
def test_compiled_modules_are_explained():
    inner = nn.Sequential(nn.Linear(2, 2))
    module = nn.Sequential(nn.Linear(2, 2), torch.compile(inner))
    batch = Batch((torch.ones(1, 2),), {}, None)
    with pytest.raises(BadInput, match=r"got 1, which went through torch\.compile.*compiled\._orig_mod"):
        Network(module).record("acts:1._orig_mod.0", batch)
    with pytest.raises(BadInput, match=r"got the network, which went through torch\.compile"):
        Network(torch.compile(inner)).record("acts:logits", batch)
    inner.compile()
    with pytest.raises(BadInput, match=r"got 0, which went through torch\.compile"):
        Network(nn.Sequential(inner)).record("acts:0.0", batch)


def test_scripted_modules_are_explained():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = Network(torch.jit.script(nn.Sequential(nn.Linear(2, 2))))
    with pytest.raises(BadInput, match="got the network, which is a TorchScript module"):
        scripted.with_edits(Add(torch.ones(2)).at("acts:0"))

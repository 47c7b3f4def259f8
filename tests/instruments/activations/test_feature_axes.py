"""Maps of channels: edits and recordings along axis 1, pixels as positions, on convolutional networks of any make."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

from tests.instruments.activations.engine_networks import IDENTITY, vector
from tests.instruments.test_network import assert_same, snapshot
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.aliases import find_place, place_ahead
from tremorscope.instruments.activations.feature_axes import find_features
from tremorscope.instruments.activations.hooks import assert_clean
from tremorscope.instruments.activations.named_edits import directional_ablate
from tremorscope.instruments.activations.sweeps import prepare_sweep
from tremorscope.instruments.edit import Add, Replace
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.instruments.task import Batch, Task


class Residual(nn.Module):
    """Branches joined by functions rather than modules, and a `view` before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Dropout(0.1))
        self.join, self.norm, self.pool = nn.ReLU(), nn.GroupNorm(2, 4), nn.MaxPool2d(2)
        self.lonely = nn.Identity()
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.norm(self.join(x + self.branch(x)))
        x = self.pool(self.lonely(x * 1.5) * 2)
        return self.head(x.view(len(x), -1))


class Sounds(nn.Module):
    """Maps with one axis of pixels, then a sequence with features last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.norm = nn.Conv1d(2, 4, 3), nn.GELU(), nn.LayerNorm(4)
        self.mixed, self.head = nn.Tanh(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mixed(self.norm(self.act(self.conv(x)).transpose(1, 2)))).mean(1)


def images(seed: int = 0) -> Batch:
    return Batch((torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(seed)),), {}, None)


def network_of(kind: type[nn.Module]) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Network(kind().eval())


def logits(network: Network, batch: Batch) -> Tensor:
    return network.apply(network.params, batch)


MAPS = ("stem.0", "stem.1", "stem.2", "stem", "branch:in.0", "branch.0", "branch.1", "branch", "join", "norm", "pool")


def held(module: nn.Module, path: str, batch: Batch) -> Tensor:
    """The value at a path, as the module gives or takes it."""
    found: list[Tensor] = []
    name, _, port = path.partition(":")
    handle = module.get_submodule(name).register_forward_hook(
        lambda _, args, out: found.append((args[0] if port else out).clone())
    )
    try:
        with torch.no_grad():
            module(*batch.args)
    finally:
        handle.remove()
    return found[0]


@pytest.mark.parametrize("site", MAPS)
def test_a_map_is_recorded_and_edited_along_its_channels(site: str) -> None:
    network, batch, v = network_of(Residual), images(), vector(4)
    value = held(network.module, site, batch)
    recorded = network.record(f"acts:{site}", batch)
    assert torch.equal(recorded, value.flatten(2).transpose(1, 2))
    assert torch.equal(network.record(f"acts:{site}@last", batch), value[..., -1, -1])
    if site in ("stem", "stem.2", "branch:in.0"):  # one tensor, which is changed in place and goes two ways
        return
    before = snapshot(network.module)
    pixel = value.shape[-1] + 1  # the second of the second row
    for position, where in (("", torch.ones_like(value[0, 0])), (f"@{pixel}", torch.zeros_like(value[0, 0]))):
        where[1, 1] = 1.0
        handle = network.module.get_submodule(site).register_forward_hook(
            lambda _, __, out, where=where: out + v[:, None, None] * where
        )
        try:
            with torch.no_grad():
                expected = network.module(*batch.args)
        finally:
            handle.remove()
        edited = network.with_edits(Add(v).at(f"acts:{site}{position}"))
        found = logits(edited, batch)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        assert (found - logits(network, batch)).abs().max() > 1e-3
    assert_same(before, snapshot(network.module))


def test_the_laws_of_edits_hold_along_channels() -> None:
    network, batch, other = network_of(Residual), images(), images(1)
    before, wanted = snapshot(network.module), logits(network, batch)
    everywhere = network.with_edits(*(IDENTITY.at(f"acts:{site}") for site in MAPS))
    assert torch.equal(logits(everywhere, batch), wanted)  # E1
    for site in MAPS:
        values = network.record(f"acts:{site}", other)
        patched = network.with_edits(Replace(values).at(f"acts:{site}"))
        assert torch.equal(patched.record(f"acts:{site}", batch), values)  # E2
        one = network.record(f"acts:{site}@2", other)
        patched = network.with_edits(Replace(one).at(f"acts:{site}@2"))
        assert torch.equal(patched.record(f"acts:{site}@2", batch), one)
        assert torch.equal(patched.record(f"acts:{site}@:2", batch), network.record(f"acts:{site}@:2", batch))
    patched = network.with_edits(Replace(network.record("acts:pool", other)).at("acts:pool"))
    assert torch.equal(logits(patched, batch), logits(network, other))
    with pytest.raises(BadInput, match="got 3 entries in the edit; wanted 4, the width"):
        logits(network.with_edits(Add(torch.ones(3)).at("acts:norm")), batch)
    assert_clean(network.module)  # E3
    assert_same(before, snapshot(network.module))


def test_a_direction_of_channels_is_removed_at_every_pixel() -> None:
    network, batch, r = network_of(Residual), images(), vector(4)
    values = network.with_edits(directional_ablate(r).at("acts:branch.0")).record("acts:branch.1", batch)
    assert (values @ r).abs().max() < 1e-6
    assert (network.record("acts:branch.1", batch) @ r).abs().max() > 0.1


def test_masks_over_pixels_and_maps_over_rows() -> None:
    network, batch, v = network_of(Residual), images(), vector(4)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[1, 5:7] = True
    change = network.with_edits(Add(v).at("acts:norm", where=mask)).record("acts:norm", batch)
    change = change - network.record("acts:norm", batch)
    torch.testing.assert_close(change, mask[..., None] * v, rtol=0, atol=1e-6)
    sizes = torch.tensor([0.0, 2.0])
    mapped = vmap(lambda size: logits(network.with_edits(Add(v, size).at("acts:norm@3")), batch))(sizes)
    torch.testing.assert_close(mapped[1], logits(network.with_edits(Add(v, 2.0).at("acts:norm@3")), batch))


def test_sequences_beside_maps_have_their_features_last() -> None:
    network = network_of(Sounds)
    batch = Batch((torch.randn(2, 2, 7, generator=torch.Generator().manual_seed(0)),), {}, None)
    for site in ("conv", "act"):
        assert torch.equal(network.record(f"acts:{site}", batch), held(network.module, site, batch).transpose(1, 2))
    for site in ("norm", "mixed"):
        assert torch.equal(network.record(f"acts:{site}", batch), held(network.module, site, batch))
        found = network.with_edits(Add(vector(4)).at(f"acts:{site}@1")).record(f"acts:{site}", batch)
        change = (found - network.record(f"acts:{site}", batch)).abs().sum((0, 2)) > 0
        assert change.tolist() == [False, True, False, False, False]


def test_where_nothing_tells_it_is_said() -> None:
    network, batch = network_of(Residual), images()
    assert network.record("acts:lonely", batch).shape == (2, 4, 4, 4)  # as the module gives it
    for site in ("acts:lonely", "acts:lonely:in.0"):
        with pytest.raises(BadInput, match=r"nothing tells where its features lie.*Choose the module that makes"):
            logits(network.with_edits(Add(torch.ones(4)).at(site)), batch)
        with pytest.raises(BadInput, match="nothing tells where its features lie"):
            network.record(f"{site}@last", batch)
        with pytest.raises(BadInput, match="nothing tells where its features lie"):
            prepare_sweep(network, batch, f"{site}@last")
    assert_clean(network.module)


def test_one_image_without_rows_is_refused() -> None:
    network = Network(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))
    with pytest.raises(BadInput, match=r"got a map of shape \(2, 2, 2\); wanted 4 axes.*Give the network a batch"):
        network.record("acts:0@1", Batch((torch.zeros(1, 4, 4),), {}, None))


def test_a_place_is_known_ahead_by_its_kind_or_from_examples() -> None:
    network, batch = network_of(Residual), images()
    assert place_ahead(network, Site.parse("acts:stem.0")).features == "channels"
    assert place_ahead(network, Site.parse("acts:head")).features == "last"
    assert place_ahead(network, Site.parse("acts:join")) is None  # it takes a batch
    assert find_place(network, Site.parse("acts:join"), batch).features == "channels"
    assert place_ahead(network, Site.parse("acts:join")).features == "channels"  # and is known from then on
    task = Task.of(images().args[0], torch.tensor([0, 1]))
    assert place_ahead(Network(network.module, task=task), Site.parse("acts:join")).features == "channels"


def test_a_network_without_maps_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network, "output", lambda *_, **__: pytest.fail("a forward pass"))
    network = Network(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert place_ahead(network, Site.parse("acts:1")).features == "last"


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of a map, as several libraries have it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ToldNorm(LayerNorm2d):
    """The same, by an argument."""

    data_format = "channels_first"


def test_norms_of_other_makers_say_where_channels_are() -> None:
    batch = images()
    for kind, features in ((LayerNorm2d, "channels"), (nn.LayerNorm, "last")):
        network = Network(nn.Sequential(nn.Conv2d(1, 4, 1), kind(4), nn.Tanh()))
        assert [find_place(network, Site.parse(f"acts:{at}"), batch).features for at in (1, 2)] == [features] * 2
    assert (
        place_ahead(Network(nn.Sequential(nn.Conv2d(1, 4, 1), ToldNorm(4))), Site.parse("acts:1")).features
        == "channels"
    )


def test_who_makes_a_tensor_counts_for_more_than_who_reads_it() -> None:
    # Square, so that a linear layer may read a map along its last axis.
    module = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Linear(4, 4), nn.Conv2d(4, 2, 1))
    table = find_features(Network(module), Batch((torch.randn(2, 1, 4, 4),), {}, None))
    ports = ("0:out.0", "1:in.0", "1:out.0", "2:in.0", "2:out.0", "3:in.0", "3:out.0", ":in.0")
    found = [table[tuple(port.split(":"))] for port in ports]
    assert found == ["channels", "channels", "channels", "channels", "last", "last", "channels", "channels"]


def late(module: nn.Module, batch: Batch, readout: str | None) -> tuple[Tensor, Tensor]:
    """Logits of one image, and the whole map that is compared."""
    with torch.no_grad():
        out = module(*batch.args)[0]
    return out, out if readout is None else held(module, readout.removeprefix("acts:"), batch)[0].flatten()


@pytest.mark.parametrize("readout", [None, "acts:pool", "acts:branch.0"])
def test_sweeps_of_a_pixel(readout: str | None) -> None:
    network, batch = network_of(Residual), images()
    sweep = prepare_sweep(network, batch, "acts:stem.1@5", readout_site=readout)
    assert sweep.level == 0
    rows = torch.tensor([1, 0, 1])
    points = sweep.base[rows] + torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    found = sweep.respond(points, rows)
    for place, row in enumerate(rows.tolist()):
        alone = Batch((batch.args[0][row : row + 1],), {}, None)

        def pixel(_: nn.Module, __: object, out: Tensor, place: int = place) -> Tensor:
            out = out.clone()
            out[0, :, 1, 1] = points[place]
            return out

        clean = late(network.module, alone, readout)
        handle = network.module.stem[1].register_forward_hook(pixel)
        moved = late(network.module, alone, readout)
        handle.remove()
        kl = (clean[0].softmax(0) * (clean[0].log_softmax(0) - moved[0].log_softmax(0))).sum()
        assert float(found.kl[place]) == pytest.approx(float(kl), abs=1e-6)
        assert float(found.l2[place]) == pytest.approx(float((moved[1] - clean[1]).norm()), rel=1e-4)
    assert found.l2.min() > 0.01

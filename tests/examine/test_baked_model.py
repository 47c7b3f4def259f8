"""A direction's edit as a model of its own: the folder loads and computes what the hooks computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.instruments.activations.engine_networks import batch_of, made, vector
from tests.instruments.language.tiny_models import tiny_tokenizer
from tests.instruments.test_network import assert_same, snapshot
from tremorscope.examine.baked_model import bake_edit
from tremorscope.foundations.arrays import read_arrays
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.residual_baking import residual_sites
from tremorscope.instruments.edit import Add
from tremorscope.instruments.hugging_face_folder import spec_of, write_hugging_face
from tremorscope.instruments.load import load
from tremorscope.instruments.moments import Moments
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.methods.activations.concept_editing.affine_edits import edit_of
from tremorscope.methods.activations.concept_editing.direction import ConceptFit
from tremorscope.methods.activations.concept_editing.direction_file import load_direction, save_direction


def direction(folder, site, name):
    """A direction between two single activations, at one token."""
    means = vector(16, 20).double(), vector(16, 21).double()
    nothing = torch.zeros(16, 16, dtype=torch.float64)
    one, other = (Moments(count=1, mean=mean, scatter=nothing) for mean in means)
    fit = ConceptFit(site=Site.parse(site), names=("it",), negative=one, positives=(other,))
    return save_direction(fit, folder / "r.safetensors", model=name), fit


def logits(network, name):
    batch = batch_of(name)
    with torch.no_grad():
        return network.apply(network.params, batch)


@pytest.mark.parametrize(
    ("name", "site", "everywhere", "method"),
    [
        ("gpt2", "resid_pre.0", False, "add"),
        ("gpt2", "resid_post.1", False, "add"),
        ("gpt2", "resid_mid.0", True, "ace"),
        ("llama", "resid_pre.1", False, "add"),
        ("llama", "resid_pre.1", True, "ablate"),
        ("bert", "resid_post.0", False, "add"),
    ],
)
def test_the_folder_loads_and_gives_the_hooked_outputs(tmp_path, name, site, everywhere, method):  # E10
    network = made(name)
    before, settings = snapshot(network.module), network.module.config.to_dict()
    path, fit = direction(tmp_path, f"acts:{site}@2", name)
    options = {"direction": path, "method": method, "alpha": 1.5, "everywhere": everywhere}
    folder = bake_edit(network, tmp_path / "baked", **options)
    loaded = load(spec_of(folder))
    sites = residual_sites(network) if everywhere else [f"acts:{site}@all"]
    hooked = network.with_edits(*(edit_of(method, fit, 1.5).at(one) for one in sites))
    wanted = logits(hooked, name)
    assert float((logits(loaded, name) - wanted).norm() / wanted.norm()) < 1e-5
    assert float((logits(network, name) - wanted).norm() / wanted.norm()) > 1e-3
    assert loaded.tokenizer("one two")["input_ids"] == tiny_tokenizer()("one two")["input_ids"]
    assert_same(before, snapshot(network.module))
    assert network.module.config.to_dict() == settings
    with pytest.raises(BadInput, match="got a folder that holds something; wanted a new folder"):
        bake_edit(network, tmp_path / "baked", **options)
    assert [one.name for one in tmp_path.iterdir() if one.name.endswith(".tmp")] == []


def test_a_view_comes_back_bit_for_bit(tmp_path):
    network = made("gpt2").at(made("gpt2").theta * 1.25)
    loaded = load(spec_of(write_hugging_face(network, tmp_path / "view")))
    assert list(loaded.params) == list(network.params)
    assert all(torch.equal(loaded.params[name], one) for name, one in network.params.items())


def test_single_activations_keep_no_matrix(tmp_path):
    path, fit = direction(tmp_path, "acts:resid_pre.0@2", "gpt2")
    assert set(read_arrays(path)) == {"negative.mean", "class.it.mean"}
    back = load_direction(path)
    assert torch.equal(back.directions, fit.directions)
    assert torch.equal(back.negative.scatter, fit.negative.scatter)


def test_what_is_refused(tmp_path):
    path, _ = direction(tmp_path, "acts:resid_post.0@2", "llama")
    with pytest.raises(BadInput, match=r"needs parameters which the model has not .* Give a name that does not end"):
        bake_edit(made("llama"), tmp_path / "w.safetensors", direction=path, method="add", alpha=1.0)
    with pytest.raises(BadInput, match="a sum of all that was written before"):
        bake_edit(made("llama"), tmp_path / "baked", direction=path, method="ablate")
    with pytest.raises(BadInput, match="got a Linear, which is no model of transformers"):
        write_hugging_face(Network(nn.Linear(2, 2)), tmp_path / "baked")
    edited = made("gpt2").with_edits(Add(vector(16)).at("acts:attn_out.0"))
    with pytest.raises(BadInput, match="got a view with 1 edits of activations"):
        write_hugging_face(edited, tmp_path / "baked")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BadInput, match="got a file; wanted a new folder"):
        write_hugging_face(made("gpt2"), tmp_path / "file")
    assert not (tmp_path / "baked").exists()

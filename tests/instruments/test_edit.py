from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tremorscope.foundations.errors import BadInput, SiteNotFound
from tremorscope.foundations.layout import Layout
from tremorscope.instruments.edit import Add, Affine, Noise, Project, Replace, Rotate
from tremorscope.instruments.network import Network
from tremorscope.instruments.subspace import Subspace
from tremorscope.instruments.task import Batch

LAYOUT = Layout(("a.weight", "a.bias", "b.weight"), ((2, 3), (2,), (1, 2)))
THETA = torch.arange(10, dtype=torch.float64)
BIAS = slice(6, 8)


def test_rotation_keeps_the_norm_and_makes_the_angle(generator):
    x, toward = (torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(2))
    turned = Rotate(toward, angle=0.3).apply(x)
    assert float(turned.norm()) == pytest.approx(float(x.norm()), abs=1e-12)
    cosine = float(turned @ x / x.square().sum())
    assert math.acos(cosine) == pytest.approx(0.3, abs=1e-9)
    assert float(turned @ toward) > float(x @ toward)


@pytest.mark.parametrize(
    ("x", "sentence"), [([0.0, 0.0], "got a zero vector"), ([3.0, 0.0], "parallel"), ([-3.0, 0.0], "parallel")]
)
def test_rotation_needs_a_plane(x, sentence):
    with pytest.raises(BadInput, match=sentence):
        Rotate(torch.tensor([2.0, 0.0]), angle=0.1).apply(torch.tensor(x))


def test_projection_is_in_the_wider_precision():
    # In bfloat16 the products alone would lose 1 %; here only the result is rounded.
    x = torch.full((4096,), 1.0 + 2**-7, dtype=torch.bfloat16)
    line = Subspace.span(torch.ones(4096, 1, dtype=torch.float64))
    assert torch.equal(Project(line).apply(x), x)


def test_affine_removes_and_sets_a_coordinate():
    r, mean = torch.tensor([0.6, 0.8, 0.0]), torch.tensor([1.0, 1.0, 1.0])
    x = torch.tensor([3.0, -2.0, 5.0])
    edited = Affine(-r[:, None], r[:, None], offset=mean, shift=2 * r).apply(x)
    torch.testing.assert_close((edited - mean) @ r, torch.tensor(2.0))
    torch.testing.assert_close(edited - (edited @ r) * r, x - (x @ r) * r)


def test_edits_compare_by_content():
    v = torch.tensor([1.0, 2.0])
    assert Add(v, 2.0) == Add(v.clone(), 2.0)
    assert hash(Add(v, 2.0)) == hash(Add(v.clone(), 2.0))
    assert Add(v, 2.0) != Add(v, 3.0)
    assert Add(v) != Rotate(v, 1.0)
    assert Add(v) != Add(v.double())
    assert Affine(v[:, None], v[:, None]) != Affine(v[:, None], v[:, None], shift=v)
    line, other = (Subspace.span(torch.eye(2)[:, [k]]) for k in range(2))
    assert Project(line) == Project(Subspace.span(torch.eye(2)[:, [0]]))
    assert Project(line) != Project(other)


def test_placed_edits_compare_by_content_too():
    v, mask = torch.tensor([1.0, 2.0]), torch.tensor([True])
    here, masked = Add(v).at("acts:a"), Add(v).at("acts:a", where=mask)
    assert here == Add(v.clone()).at("acts:a")
    assert hash(here) == hash(Add(v.clone()).at("acts:a"))
    assert masked == Add(v).at("acts:a", where=mask.clone())
    assert masked.scaled(1.0) == masked
    assert len({here, masked, Add(v).at("acts:b")}) == 3
    assert here != "acts:a"


def test_vectors_stay_where_they_are_or_are_moved_together():
    edit = Affine(torch.ones(2, 1), torch.ones(2, 1), offset=torch.ones(2))
    assert edit.to("cpu") is edit
    assert Project(Subspace.span(torch.ones(2, 1))).to("cpu").subspace.k == 1
    moved = edit.to("meta")
    assert [part.device.type for part in (moved.left, moved.right, moved.offset)] == ["meta"] * 3


def test_values_recorded_elsewhere_replace_their_like():
    value = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(Replace(value).apply(torch.zeros(2, 3)), value)
    assert (Replace(value).width, Replace(value).is_by_row, Replace(value[0]).is_by_row) == (3, True, False)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Add(torch.zeros(3)), "direction of Add: got only zeros"),
        (lambda: Add(torch.tensor([1.0, math.nan])), "1 of 2 entries not finite"),
        (lambda: Add(torch.ones(2, 3)), r"direction of Add: got torch.float32 of shape \(2, 3\)"),
        (lambda: Replace(torch.ones(2, dtype=torch.int64)), "value of Replace: got torch.int64"),
        (lambda: Add(torch.ones(2), size=math.inf), "size of Add: got inf"),
        (lambda: Add(torch.ones(2), size=torch.tensor(math.nan)), "size of Add: got nan"),
        (lambda: Add(torch.ones(2), size=torch.ones(2)), r"a tensor of shape \(2,\); wanted one number"),
        (lambda: Noise(math.nan, 0), "size of Noise: got nan"),
        (lambda: Rotate(torch.zeros(2), 1.0), "direction of Rotate: got only zeros"),
        (lambda: Rotate(torch.ones(2), math.inf), "angle of Rotate: got inf"),
        (lambda: Replace(torch.tensor([math.inf])), "value of Replace"),
        (lambda: Replace(torch.tensor(1.0)), r"value of Replace: got torch.float32 of shape \(\)"),
        (lambda: Replace(torch.ones(2, 3)).apply(torch.ones(3)), r"got shape \(2, 3\); wanted \(3,\), that of what"),
        (lambda: Add(torch.ones(2)).at("input", where=torch.ones(1)), "mask of Add at input: got the site 'input'"),
        (lambda: Affine(torch.ones(2, 1), torch.ones(3, 1)), r"shapes \(2, 1\) and \(3, 1\)"),
        (lambda: Affine(torch.ones(2, 1), torch.ones(2, 1), offset=torch.ones(3)), "offset of Affine: got"),
        (lambda: Affine(torch.ones(2, 1), torch.ones(2, 1), shift=torch.full((2,), math.nan)), "entry of Affine"),
        (lambda: Add(torch.ones(3)).apply(torch.ones(4, 2)), r"shape \(4, 2\): got 3 entries in the edit; wanted 2"),
        (lambda: Replace(torch.ones(3)).scaled(0.5), "without a size; wanted Add, Noise or Rotate"),
    ],
)
def test_what_is_refused(make, sentence):
    with pytest.raises(BadInput, match=sentence):
        make()


def test_weights_at_a_glob_are_one_vector_and_the_rest_stands_still():
    edit = Add(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64), size=10.0)
    edited = edit.at("weights:*.bias,b.*").applied_to_weights(LAYOUT, THETA)
    assert edited.tolist() == [0, 1, 2, 3, 4, 5, 16, 27, 38, 49]
    both = edit.at("weights:*.bias,b.*").applied_to_weights(LAYOUT, THETA.expand(3, 10))
    assert torch.equal(both, edited.expand(3, 10))


@pytest.mark.parametrize("kind", [Add, Replace, lambda v: Rotate(v, 0.5)])
def test_a_vector_over_all_parameters_is_cut_to_the_site(kind):
    whole = torch.linspace(1, 2, 10, dtype=torch.float64).square()
    cut = kind(whole).at("weights:a.bias").applied_to_weights(LAYOUT, THETA)
    own = kind(whole[BIAS]).at("weights:a.bias").applied_to_weights(LAYOUT, THETA)
    assert torch.equal(cut, own)
    assert torch.equal(cut[:6], THETA[:6])


def test_a_vector_that_is_zero_at_the_site_is_refused():
    whole = torch.ones(10)
    whole[BIAS] = 0
    with pytest.raises(BadInput, match=r"Add at weights:a\.bias: got a vector over all parameters that is zero"):
        Add(whole).at("weights:a.bias").applied_to_weights(LAYOUT, THETA)


@pytest.mark.parametrize(
    ("edit", "site", "error", "sentence"),
    [
        (Add(torch.ones(3)), "weights:a.bias", BadInput, r"got 3 entries; wanted 2 .* or 10 \(all"),
        (Project(Subspace.span(torch.ones(10, 1))), "weights:a.bias", BadInput, r"got 10 entries; wanted 2"),
        (Add(torch.ones(2)), "weights:a.bais", SiteNotFound, "Did you mean 'a.bias'"),
        (Add(torch.ones(2)), "input", BadInput, "the site 'input'; wanted a site of the kind weights:GLOB"),
        (Add(torch.ones(2)), "train.init", BadInput, "retrains from there"),
        (Add(torch.ones(2)), "acts:a", BadInput, "among the activations; wanted weights:GLOB. network.with_edits"),
    ],
)
def test_places_that_do_not_fit(edit, site, error, sentence):
    with pytest.raises(error, match=sentence):
        edit.at(site).applied_to_weights(LAYOUT, THETA)


def test_a_network_with_edits_leaves_the_module_alone():
    module = nn.Linear(2, 1)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    network = Network(module)
    edited = network.with_edits(Add(torch.ones(1)).at("weights:bias"), Add(torch.ones(3), -1.0).at("weights:*"))
    assert (edited.theta - network.theta).tolist() == pytest.approx([-1, -1, 0], abs=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_inputs_are_edited_as_one_vector_per_example():
    tokens, images = torch.zeros(3, dtype=torch.int64), torch.zeros(3, 2, 2)
    batch = Batch((tokens, images), {"mask": None}, torch.ones(3))
    edited = Add(torch.arange(1.0, 5.0)).at("input").applied_to_batch(batch)
    assert edited.args[1][2].tolist() == [[1, 2], [3, 4]]
    assert edited.args[0] is tokens
    assert edited.target is batch.target
    assert not images.any()


def test_token_ids_cannot_be_moved():
    batch = Batch((torch.zeros(3, 4, dtype=torch.int64),), {}, None)
    with pytest.raises(BadInput, match=r"no floating-point argument.*Token ids"):
        Noise(1.0, 0).at("input").applied_to_batch(batch)


def test_rows_get_noise_of_their_own():
    drawn = Noise(1.0, seed=1).apply(torch.zeros(2000, 3, dtype=torch.float64))
    assert float(drawn.std()) == pytest.approx(1, abs=0.05)
    assert abs(float((drawn[0::2] * drawn[1::2]).mean())) < 0.1
    assert not torch.equal(drawn, Noise(1.0, seed=2).apply(torch.zeros(2000, 3, dtype=torch.float64)))

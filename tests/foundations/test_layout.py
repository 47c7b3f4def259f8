import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tremorscope.foundations.errors import BadInput, SiteNotFound
from tremorscope.foundations.layout import Layout

SHAPES = st.dictionaries(
    st.text("abc.", min_size=1, max_size=4), st.lists(st.integers(0, 3), max_size=3).map(tuple), min_size=1, max_size=4
)
LEADING = st.lists(st.integers(1, 3), max_size=2).map(tuple)
EXAMPLE = Layout(("0.weight", "0.bias", "1.weight"), ((2, 3), (2,), (1, 2)))


@given(SHAPES, LEADING)
def test_flatten_and_unflatten_undo_each_other(shapes, leading):
    layout = Layout(tuple(shapes), tuple(shapes.values()))
    vector = torch.arange(layout.size * max(1, torch.Size(leading).numel()), dtype=torch.float64)
    vector = vector.reshape(*leading, layout.size)
    tensors = layout.unflatten(vector)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        name: leading + shape for name, shape in shapes.items()
    }
    assert torch.equal(layout.flatten(tensors, num_leading=len(leading)), vector)
    assert Layout.of(layout.unflatten(torch.zeros(layout.size))) == layout


@given(SHAPES)
def test_slices_tile_the_vector(shapes):
    layout = Layout(tuple(shapes), tuple(shapes.values()))
    positions = [index for name in layout.names for index in range(*layout.slice(name).indices(layout.size))]
    assert positions == list(range(layout.size))
    vector = torch.arange(float(layout.size))
    for name, tensor in layout.unflatten(vector).items():
        assert torch.equal(tensor.flatten(), vector[layout.slice(name)])


def test_the_order_is_the_layouts_not_the_mappings():
    tensors = EXAMPLE.unflatten(torch.arange(10.0))
    assert torch.equal(EXAMPLE.flatten(dict(reversed(tensors.items()))), torch.arange(10.0))


def test_patterns_choose_names_and_positions():
    assert EXAMPLE.select("*.weight") == ("0.weight", "1.weight")
    assert EXAMPLE.select("1.*, 0.bias") == ("0.bias", "1.weight")
    assert EXAMPLE.indices("*.bias,1.*").tolist() == [6, 7, 8, 9]


def test_lists_expressions_and_predicates_choose_too():
    assert EXAMPLE.select(["1.weight", "0.b*"]) == ("0.bias", "1.weight")
    assert EXAMPLE.select(re.compile("0.*t$")) == ("0.weight",)
    assert EXAMPLE.select(lambda name, tensor: tensor.ndim == 1) == ("0.bias",)  # shapes are known without tensors
    tensors = EXAMPLE.unflatten(torch.arange(10.0))
    assert EXAMPLE.select(lambda name, tensor: float(tensor.sum()) > 16, tensors) == ("1.weight",)
    assert EXAMPLE.indices(["0.bias"]).tolist() == [6, 7]
    assert Layout(("a[0]", "a0"), ((1,), (1,))).select("a[0]") == ("a[0]",)  # a name before a pattern
    with pytest.raises(SiteNotFound, match="got an empty list; wanted one of 0"):
        EXAMPLE.select([])
    with pytest.raises(SiteNotFound, match=r"matches the regular expression '0\.weigth'.*Did you mean '0\.weight'\?"):
        EXAMPLE.select(re.compile("0.weigth"))
    with pytest.raises(SiteNotFound, match="no parameter satisfies the predicate"):
        EXAMPLE.select(lambda name, tensor: False)


def test_mistakes_are_named():
    with pytest.raises(BadInput, match="got 9 entries; wanted 10 entries"):
        EXAMPLE.unflatten(torch.zeros(9))
    with pytest.raises(SiteNotFound, match=r"no parameter '0\.weigth'.*Did you mean '0\.weight'\?"):
        EXAMPLE.slice("0.weigth")
    with pytest.raises(SiteNotFound, match=r"no parameter matches '2.*'"):
        EXAMPLE.select("0.*,2.*")
    tensors = EXAMPLE.unflatten(torch.zeros(10))
    with pytest.raises(BadInput, match=r"shape of '0\.bias': got \(3,\); wanted \(2,\)"):
        EXAMPLE.flatten(tensors | {"0.bias": torch.zeros(3)})
    del tensors["1.weight"]
    with pytest.raises(BadInput, match=r"tensor '1\.weight' is missing"):
        EXAMPLE.flatten(tensors)

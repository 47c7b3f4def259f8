"""Many constant affine edits at a place are one, and say what they said."""

from __future__ import annotations

import math

import torch

from tests.instruments.activations.engine_networks import batch_of, made, vector
from tremorscope.instruments.activations.folding import constant_affine, fold
from tremorscope.instruments.activations.hooks import Tap
from tremorscope.instruments.activations.named_edits import ace, directional_ablate, in_part, rotate, when_beyond
from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.edit import Add, Affine, Noise, Project, Replace, Rotate
from tremorscope.instruments.subspace import Subspace

D = 5
EDITS = [
    Add(vector(D), 0.7),
    directional_ablate(vector(D, 1)),
    ace(vector(D, 2), vector(D, 3), 0.4),
    in_part(directional_ablate(vector(D, 4)), 0.3),
    rotate(vector(D, 5), vector(D, 6), 0.9),
    Project(Subspace.span(torch.stack([vector(D, seed) for seed in (7, 8, 9)], 1), offset=vector(D, 10))),
    Affine(vector(2 * D, 11).reshape(D, 2), vector(2 * D, 12).reshape(D, 2), shift=vector(D, 13)),
    Add(vector(D, 14)),
]


def tap(edit, module="a", **more):
    return Tap(place=Place(module=module), what="here", edit=edit, **more)


def applied(taps, x):
    for one in taps:
        x = one.edit.apply(x)
    return x


def test_one_edit_does_what_many_did():
    taps, x = [tap(edit) for edit in EDITS], torch.randn(4, D, generator=torch.Generator().manual_seed(1))
    for start in range(len(EDITS) - 1):
        folded = fold(taps[start:])
        assert len(folded) == 1
        assert isinstance(folded[0].edit, Affine)
        assert folded[0].edit.left.shape[1] <= D
        torch.testing.assert_close(applied(folded, x), applied(taps[start:], x), rtol=0, atol=5e-6)
    backwards = taps[::-1]
    torch.testing.assert_close(applied(fold(backwards), x), applied(backwards, x), rtol=0, atol=5e-6)
    assert (applied(fold(backwards), x) - applied(fold(taps), x)).abs().max() > 0.1  # the order is kept


def test_a_replacement_forgets_what_came_before():
    replaced = fold([tap(Noise(1.0, 0)), tap(Add(vector(D))), tap(Replace(vector(D, 1))), tap(EDITS[2])])
    assert [type(one.edit) for one in replaced] == [Noise, Replace]
    torch.testing.assert_close(replaced[1].edit.value, EDITS[2].apply(vector(D, 1)))


def test_what_is_not_constant_or_elsewhere_stays_as_it_is():
    add, mask = Add(vector(D)), torch.ones(2)
    for between in (Rotate(vector(D, 1), 0.2), Noise(0.1, 0), when_beyond(add, vector(D), above=0.0)):
        assert constant_affine(between) is None
        assert [one.edit for one in fold([tap(add), tap(between), tap(add), tap(add, position="last")])] == [
            add,
            between,
            add,
            add,
        ]
    assert constant_affine(Add(vector(D), torch.tensor(1.0))) is None  # a size that is mapped over
    assert constant_affine(in_part(Replace(vector(D)), 0.5)) is None
    assert len(fold([tap(add), tap(add, where=mask), tap(add, "b"), tap(add, "b")])) == 3
    assert len(fold([tap(add), tap(add, "b"), tap(add)])) == 2  # modules do not mind each other


def test_a_view_folds_and_computes_the_same():
    network, batch = made("gpt2"), batch_of("gpt2")
    placed = [Add(vector(16, seed), 0.3).at("acts:resid_pre.1@last") for seed in range(9)]
    edited = network.with_edits(*placed, directional_ablate(vector(16, 20)).at("acts:resid_pre.1@last"))
    assert len(edited._taps) == 1
    assert len(edited.edits) == 10
    x = network.record("acts:resid_pre.1@last", batch)
    for edit in edited.edits:
        x = edit.edit.apply(x)
    torch.testing.assert_close(edited.record("acts:resid_pre.1@last", batch), x, rtol=0, atol=1e-5)
    assert math.isclose(float((x @ vector(16, 20)).abs().max()), 0.0, abs_tol=1e-5)

"""What a fit says of itself, its mistakes, its file, and steering-llama3's parameter."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from tests.methods.activations.concept_editing.clouds import SITE, clouds, fitted
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.methods.activations.concept_editing.affine_edits import ace, edit_of
from tremorscope.methods.activations.concept_editing.diagnostics import auc
from tremorscope.methods.activations.concept_editing.direction_file import (
    alpha_of_multiplier,
    load_direction,
    multiplier_of_alpha,
    save_direction,
)
from tremorscope.methods.activations.concept_editing.streaming import NUM_HALVINGS, FitStream, fit_rows


def test_diagnostics_are_those_of_the_formulas():
    minus, plus = clouds()
    fit = fit_rows(minus, plus, site=SITE, held_out=clouds(50, 40, seed=0))
    (told,) = fit.diagnostics
    r = plus.mean(0) - minus.mean(0)
    assert (told.num_negative, told.num_positive) == (300, 200)
    assert told.norm == pytest.approx(float(r.norm()))
    assert told.bias_ratio == pytest.approx(float(r @ minus.mean(0) / r.norm() ** 2))
    assert float(fit.coordinate_of_zero()) == pytest.approx(-told.bias_ratio)
    assert told.split_half.value > 0.8
    below, above = (fit.coordinates(some)[:, 0] for some in clouds(50, 40, seed=0))
    wins = [(float(b > a) + 0.5 * float(b == a)) for a in below for b in above]
    assert told.auc.value == pytest.approx(sum(wins) / len(wins))
    assert told.auc.low < told.auc.value < told.auc.high


def test_halves_are_halves_however_the_batches_fall():
    minus, plus = clouds(31, 20)
    streams = [FitStream(("positive",), fitted().site), FitStream(("positive",), fitted().site)]
    for stream, size in zip(streams, (1, 31), strict=True):
        for part in minus.split(size):
            stream.see(None, part)
        stream.see("positive", plus)
    one, other = (stream.fit().diagnostics[0] for stream in streams)
    assert one.split_half.value == pytest.approx(other.split_half.value)
    assert one.split_half.method == f"range over {NUM_HALVINGS} random halvings"
    # Noise alone has no direction that both halves share.
    noise = torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
    assert abs(fit_rows(noise[:100], noise[100:], site=SITE).diagnostics[0].split_half.value) < 0.35


def test_a_direction_that_does_not_tell_is_flagged():
    minus, plus = clouds(apart=0.02)
    flags = fit_rows(minus, plus, site=SITE, held_out=clouds(100, 100, apart=0.02, seed=0)).flags
    assert any("AUC of the coordinate on held-out examples" in flag and "below 0.7" in flag for flag in flags)
    assert fitted(num_negative=7).flags == ("only 7 negative examples (fewer than 8): the direction is uncertain",)
    assert fitted(num_negative=8).flags == ()


def test_auc_counts_ties_as_halves():
    assert auc([1.0, 2.0], [2.0, 3.0]).value == 0.875
    with pytest.raises(BadInput, match="got 0 and 1"):
        auc([], [1.0])


def test_mistakes_of_a_fit():
    minus, plus = clouds()
    with pytest.raises(BadInput, match=r"positive examples at acts:layer@last: got none"):
        fit_rows(minus, plus[:0], site=SITE)
    with pytest.raises(BadInput, match="negative examples at"):
        fit_rows(minus[:0], plus, site=SITE)
    with pytest.raises(BadInput, match="the two sets have the same mean here"):
        fit_rows(minus, minus.flip(0), site=SITE)
    # A millionth of the activations' size, not of the spread, is what counts.
    far = minus + 1e6
    with pytest.raises(BadInput, match="the two sets have the same mean here"):
        fit_rows(far, far + 1e-3, site=SITE)
    with pytest.raises(BadInput, match="got width 5; wanted width 6"):
        fit_rows(minus, plus[:, :5], site=SITE)
    with pytest.raises(BadInput, match="depend on each other linearly"):
        fit_rows(minus, {"one": plus, "two": plus}, site=SITE)
    with pytest.raises(BadInput, match="class: got other; wanted one of positive"):
        FitStream(("positive",), fitted().site).see("other", minus)


def test_a_fit_holds_where_it_was_made():
    fit = fitted()
    assert str(fit.check_site("acts:layer@all")) == "acts:layer@all"
    for elsewhere in ("acts:other@last", "acts:layer:in.0@last"):
        with pytest.raises(BadInput, match="direction fitted at acts:layer@last: got the site"):
            fit.check_site(elsewhere)
    with pytest.raises(BadInput, match="6 entries; wanted 7, the width of the activations"):
        fit.coordinates(torch.zeros(2, 7))


def test_a_direction_survives_its_file(tmp_path):
    minus, plus = clouds()
    fit = fit_rows(minus, {"a": plus, "b": plus.flip(1)}, site=SITE)
    path = save_direction(fit, tmp_path / "refusal.safetensors", model="model")
    again = load_direction(path)
    assert (again.site, again.names, again.diagnostics, again.flags) == (
        fit.site,
        fit.names,
        fit.diagnostics,
        fit.flags,
    )
    for method in ("add", "ablate", "ace", "oblique", "erase"):
        assert edit_of(method, again, 0.3) == edit_of(method, fit, 0.3)
    with pytest.raises(BadInput, match=r"got the network 'Linear'; wanted 'model'"):
        load_direction(path, network=Network(nn.Linear(2, 2)))
    description = path.with_suffix(".json")
    described = json.loads(description.read_text())
    assert described["counts"] == {"negative": 300, "classes": [200, 200]}
    description.write_text(json.dumps({**described, "site": "acts:other"}))
    with pytest.raises(BadInput, match="The two files are not of one fit"):
        load_direction(path)
    with pytest.raises(BadInput, match=r"ends in \.safetensors"):
        save_direction(fit, tmp_path / "refusal.pt")
    with pytest.raises(BadInput, match="is missing"):
        load_direction(tmp_path / "none.safetensors")


@pytest.mark.parametrize(("num_negative", "num_positive"), [(200, 200), (300, 200), (30, 200)])
def test_the_multiplier_of_steering_llama3(num_negative, num_positive):
    """Row A11, against their formula: erase to the mean of all examples, then add m times r."""
    minus, plus = clouds(num_negative, num_positive)
    fit = fit_rows(minus, plus, site=SITE)
    v, m = torch.cat(clouds(seed=1)), 0.37
    r = plus.mean(0) - minus.mean(0)
    unit, mean = r / r.norm(), torch.cat([minus, plus]).mean(0)
    theirs = v - ((v - mean) @ unit)[:, None] * unit + m * r
    alpha = alpha_of_multiplier(m, num_negative=num_negative, num_positive=num_positive)
    torch.testing.assert_close(ace(fit, alpha).apply(v), theirs, atol=1e-5, rtol=1e-5)
    assert multiplier_of_alpha(alpha, num_negative=num_negative, num_positive=num_positive) == pytest.approx(m)
    if num_negative == num_positive:
        assert alpha == pytest.approx(m + 0.5, abs=1e-6)
    with pytest.raises(BadInput, match="got 0 and 3"):
        alpha_of_multiplier(m, num_negative=0, num_positive=3)

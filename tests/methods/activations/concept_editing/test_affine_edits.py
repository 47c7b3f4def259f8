"""Rows A1 to A5 of the specification, on clouds of activations; the slow twins write the formulas out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.activations.concept_editing.clouds import SITE, WIDTH, clouds, fitted
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.edit import Affine
from tremorscope.methods.activations.concept_editing.affine_edits import (
    METHODS,
    ablate,
    ablate_then_add,
    ace,
    add,
    conditional,
    edit_of,
    erase,
    oblique,
)
from tremorscope.methods.activations.concept_editing.streaming import fit_rows

CLOSE = 1e-5  # of the specification; edits are kept in float32
ALPHAS = st.floats(-3, 3)


def by_hand(method: str, v, fit, alpha):
    """Section A.2 of the specification, in float64."""
    minus, plus = fit.negative.mean, fit.positives[0].mean
    r = plus - minus
    unit = r / r.norm()
    along = (v @ unit)[:, None] * unit
    bias = (unit @ minus) * unit
    return {
        "add": v + alpha * r,
        "ablate": v - along,
        "ablate then add": v - along + alpha * r,
        "ace": v - along + bias + alpha * r,
    }[method]


def logistic_regression(rows, labels):
    """Slopes and accuracy by Newton's method, slopes penalised by half their squares as scikit-learn does."""
    x = torch.cat([rows.double() - rows.double().mean(0), torch.ones(len(rows), 1).double()], 1)
    penalty = torch.diag(torch.tensor([1.0] * rows.shape[1] + [0.0]).double())
    w = torch.zeros(x.shape[1]).double()
    for _ in range(30):
        share = (x @ w).sigmoid()
        hessian = (x * (share * (1 - share))[:, None]).mT @ x + penalty
        w = w - torch.linalg.solve(hessian, x.mT @ (share - labels) + penalty @ w)
    return w[:-1], float(((x @ w > 0).double() == labels).double().mean())


@pytest.fixture(scope="module")
def fit():
    return fitted()


@pytest.fixture(scope="module")
def v():
    return torch.cat(clouds(seed=1))


@given(alpha=ALPHAS)
@settings(max_examples=15, deadline=None)
def test_edits_are_the_formulas(alpha):
    fit, v = fitted(), torch.cat(clouds(seed=1))
    for method in ("add", "ablate", "ablate then add", "ace"):
        torch.testing.assert_close(
            edit_of(method, fit, alpha).apply(v), by_hand(method, v, fit, alpha), atol=CLOSE, rtol=CLOSE
        )


@given(alpha=ALPHAS)
@settings(max_examples=15, deadline=None)
def test_after_ace_every_coordinate_is_alpha_and_the_rest_stays(alpha):
    """Rows A1 and A2."""
    fit, v = fitted(), torch.cat(clouds(seed=1))
    after = ace(fit, alpha).apply(v)
    torch.testing.assert_close(fit.coordinates(after), torch.full((len(v), 1), alpha).double(), atol=CLOSE, rtol=0)
    unit = fit.directions / fit.directions.norm()
    across = (after - v) - (after - v) @ unit @ unit.mT
    assert float((across.norm(dim=1) / v.norm(dim=1)).max()) < CLOSE


def test_a_wrong_reference_point_would_be_seen(fit, v):
    planted = ablate_then_add(fit, 1.0).apply(v)
    assert float((fit.coordinates(planted) - 1).abs().min()) > 0.05


def test_ace_is_idempotent_and_the_last_one_wins(fit, v):
    """Row A3."""
    once = ace(fit, 0.7).apply(v)
    torch.testing.assert_close(ace(fit, 0.7).apply(once), once, atol=CLOSE, rtol=CLOSE)
    torch.testing.assert_close(ace(fit, -0.4).apply(once), ace(fit, -0.4).apply(v), atol=CLOSE, rtol=CLOSE)


def test_ace_contains_ablation_and_addition(fit, v):
    """Row A4."""
    minus, plus = clouds()
    centred = fit_rows(minus - minus.mean(0), plus - minus.mean(0), site=SITE)
    torch.testing.assert_close(ace(centred, 0.0).apply(v), ablate(centred).apply(v), atol=CLOSE, rtol=CLOSE)
    for row in v[:20]:
        beta = float(fit.coordinates(row))
        torch.testing.assert_close(ace(fit, beta).apply(row), row, atol=CLOSE, rtol=CLOSE)
        torch.testing.assert_close(add(fit, 0.3).apply(row), ace(fit, beta + 0.3).apply(row), atol=CLOSE, rtol=CLOSE)


def test_after_erasure_nothing_linear_tells_the_classes_apart():
    """Row A5."""
    minus, plus = clouds()
    rows, labels = torch.cat([minus, plus]), torch.tensor([0.0] * len(minus) + [1.0] * len(plus)).double()
    fit = fit_rows(minus, plus, site=SITE)
    majority = len(minus) / len(rows)
    _, before = logistic_regression(rows, labels)
    slopes, after = logistic_regression(erase(fit).apply(rows), labels)
    assert before > majority + 0.1
    assert float(slopes.abs().max()) < 1e-4
    assert after == pytest.approx(majority, abs=0.02)
    # So does every edit that makes the means equal, ACE among them; a planted bug is one along another direction.
    slopes, _ = logistic_regression(ace(fit, 0.0).apply(rows), labels)
    assert float(slopes.abs().max()) < 1e-4
    other = fit_rows(minus, plus.flip(1), site=SITE)
    slopes, _ = logistic_regression(erase(other).apply(rows), labels)
    assert float(slopes.abs().max()) > 1e-2
    # Erasure moves the activations least.
    assert float((erase(fit).apply(rows) - rows).norm()) < 0.9 * float((ace(fit, 0.5).apply(rows) - rows).norm())


def test_erasure_equals_the_published_formula_and_the_oblique_projection(v):
    minus, plus = clouds()
    every, fit = torch.cat([minus, plus]), fit_rows(minus, plus, site=SITE)
    mean, centred = every.mean(0), every - every.mean(0)
    sigma = centred.mT @ centred / len(every)
    values, vectors = torch.linalg.eigh(sigma)
    root, inverse = (vectors @ torch.diag(values**power) @ vectors.mT for power in (0.5, -0.5))
    z = torch.tensor([0.0] * len(minus) + [1.0] * len(plus)).double()
    across = (centred.mT @ (z - z.mean()) / len(every))[:, None]
    u = torch.linalg.svd(inverse @ across, full_matrices=False).U
    published = v - (v - mean) @ (root @ u @ u.mT @ inverse).mT
    torch.testing.assert_close(erase(fit).apply(v), published, atol=1e-4, rtol=1e-4)
    thin = oblique(fit, 0.0, ridge=1e-9)
    torch.testing.assert_close(thin.left @ thin.right.mT, erase(fit).left @ erase(fit).right.mT, atol=1e-4, rtol=1e-4)


def test_erasure_with_fewer_examples_than_entries_is_finite():
    few = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    fit = fit_rows(few, few + 1.0, site=SITE)
    assert bool(erase(fit).apply(few).isfinite().all())
    assert float(erase(fit).apply(few).mean(0).sub(erase(fit).apply(few + 1.0).mean(0)).abs().max()) < 1e-4


def test_the_oblique_read_out_sweeps_from_ace(fit, v):
    torch.testing.assert_close(oblique(fit, 0.5, ridge=math.inf).apply(v), ace(fit, 0.5).apply(v))
    torch.testing.assert_close(oblique(fit, 0.5, ridge=1e9).apply(v), ace(fit, 0.5).apply(v), atol=1e-4, rtol=1e-4)
    w = torch.linalg.solve(fit.within() + 1e-3 * fit.within().trace() / WIDTH * torch.eye(WIDTH), fit.directions)
    after = oblique(fit, 0.5).apply(v)
    told = (after - fit.negative.mean) @ w / (fit.directions.mT @ w)
    torch.testing.assert_close(told, torch.full_like(told, 0.5), atol=1e-4, rtol=0)
    # It moves along r alone.
    unit = fit.directions / fit.directions.norm()
    assert float(((after - v) - (after - v) @ unit @ unit.mT).abs().max()) < 1e-4


def test_several_concepts_at_once(v):
    minus, plus = clouds()
    other = minus + torch.tensor([0.0, 3.0, 0.0, -2.0, 0.0, 1.0])
    fit = fit_rows(minus, {"one": plus, "two": other}, site=SITE)
    wanted = torch.tensor([[0.25, -1.0]]).double().expand(len(v), 2)
    torch.testing.assert_close(fit.coordinates(ace(fit, [0.25, -1.0]).apply(v)), wanted, atol=CLOSE, rtol=0)
    assert erase(fit).left.shape == (WIDTH, 2)
    classes = [erase(fit).apply(some).mean(0) for some in (minus, plus, other)]
    torch.testing.assert_close(classes[0], classes[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(classes[0], classes[2], atol=1e-4, rtol=0)
    with pytest.raises(BadInput, match="got 3 numbers; wanted one, or one for each of one, two"):
        ace(fit, [1.0, 2.0, 3.0])


def test_a_conditional_edit_touches_only_its_side(fit, v):
    edit = conditional(fit, ace(fit, 0.0), beyond=0.5)
    beta, after = fit.coordinates(v)[:, 0], edit.apply(v)
    clear = (beta - 0.5).abs() > 1e-3
    assert bool((beta > 0.5).any())
    assert bool((beta < 0.5).any())
    torch.testing.assert_close(after[clear & (beta < 0.5)], v[clear & (beta < 0.5)], atol=0, rtol=0)
    wanted = ace(fit, 0.0).apply(v)
    torch.testing.assert_close(after[clear & (beta > 0.5)], wanted[clear & (beta > 0.5)])
    with pytest.raises(BadInput, match="bound of a conditional edit: got nan"):
        conditional(fit, ace(fit, 0.0), beyond=math.nan)
    minus, plus = clouds()
    several = fit_rows(minus, {"a": plus, "b": plus[:, [1, 0, 2, 3, 4, 5]]}, site=SITE)
    with pytest.raises(BadInput, match="2 concepts"):
        conditional(several, edit)


def test_every_method_is_affine_and_has_a_name(fit):
    for method in METHODS:
        assert isinstance(edit_of(method, fit, 0.5), Affine)
    with pytest.raises(BadInput, match=r"Did you mean 'ablate'\?"):
        edit_of("ablaet", fit)


@pytest.mark.parametrize("alpha", [math.nan, math.inf])
@pytest.mark.parametrize("edit", [add, ablate_then_add, ace, oblique])
def test_alpha_must_be_finite(fit, edit, alpha):
    with pytest.raises(BadInput, match=r"alpha: got (nan|inf); wanted a finite number"):
        edit(fit, alpha)


def test_other_numbers_out_of_range(fit):
    with pytest.raises(BadInput, match="ridge: got 0"):
        oblique(fit, 0.0, ridge=0.0)
    with pytest.raises(BadInput, match="tolerance: got 2"):
        erase(fit, tolerance=2.0)
    with pytest.raises(BadInput, match="6 entries in the edit; wanted 5"):
        ace(fit, 0.0).apply(torch.zeros(2, 5))

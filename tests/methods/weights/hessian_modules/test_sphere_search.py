"""Row M8 and the published code's mistakes: sphere searches against quadratic losses that can be solved by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.func import grad

from tests.instruments.test_network import assert_same, snapshot
from tests.laws.operator_cases import filled, stream
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import adam, sgd
from tremorscope.instruments.subspace import Subspace
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.hessian_modules.sphere_search import (
    SetReadings,
    SpherePenalty,
    SphereSearch,
    sphere_search,
)

F64 = torch.float64
CURVATURES = torch.tensor([6.0, 2.0, 0.8, 0.4, 0.2], dtype=F64)


def quadratic() -> Network:
    """`L = 1/2 sum_i lambda_i (w_i - i)^2` at its minimum, far from 0: the Hessian is diagonal."""
    module = nn.Linear(5, 1, bias=False).to(F64)
    best = torch.arange(1.0, 6.0, dtype=F64)
    with torch.no_grad():
        module.weight.copy_(best[None])
    inputs = torch.diag((CURVATURES * 5 / 2).sqrt())  # mean((x w - x best)^2) has Hessian 2 X^T X / 5
    return Network(module, task=Task.of(inputs, inputs @ best[:, None]))


def first(k: int) -> Subspace:
    return Subspace(basis=torch.eye(5, dtype=F64)[:, :k], offset=torch.zeros(5, dtype=F64))


def penalty(**changes: object) -> SpherePenalty:
    drawn = torch.linalg.qr(torch.randn(7, 3, generator=stream(0), dtype=F64)).Q
    centre = torch.randn(7, generator=stream(1), dtype=F64)
    plain = SpherePenalty(centre=centre, basis=drawn, radius=1.5, strength_radius=4.0, strength_outside=0.5)
    return replace(plain, **changes)


STEPS = Trainer(optimiser=sgd(0.1), num_steps=150)
HARDLY = Trainer(optimiser=sgd(1e-12), num_steps=1)


def test_the_penalty_is_its_formula():
    """The twin writes the projector down."""
    spring = penalty(curvatures=torch.tensor([3.0, 2.0, 1.0], dtype=F64), strength_fourth=0.7, weight_norm=0.2)
    theta = torch.randn(7, generator=stream(2), dtype=F64)
    projector = spring.basis @ spring.basis.T
    away = theta - spring.centre
    r = (projector @ away).norm()
    form = sum(value * (vector @ away) ** 2 for value, vector in zip([3, 2, 1], spring.basis.T, strict=True)) / 2
    wanted = 4 * (r - 1.5) ** 2 + 0.7 * (r - 1.5) ** 4 + 0.5 * (away - projector @ away).norm() ** 2
    torch.testing.assert_close(spring(theta), wanted - form + 0.2 * theta.norm())
    assert bool(grad(spring)(spring.centre).isfinite().all())  # where ||P d|| has no slope


def test_the_quadratic_form_is_around_the_centre():
    """Published mistake 1: taken at theta, it pushes away from 0 wherever the centre is."""
    bare = penalty(strength_radius=0.0, strength_outside=0.0, strength_fourth=1e-12)
    spring = replace(bare, curvatures=torch.tensor([3.0, 2.0, 1.0], dtype=F64))
    at_centre = grad(spring)(spring.centre)
    mistaken = spring.basis @ (spring.curvatures * (spring.basis.T @ spring.centre))
    assert float(at_centre.norm()) < 1e-10
    assert float(mistaken.norm()) > 0.1


def test_the_fourth_power_is_passed_on():
    """Published mistake 2: its strength stays 0 whatever is asked for."""
    theta = penalty().centre + 3 * penalty().basis[:, 0]
    assert float(penalty(strength_fourth=2.0)(theta) - penalty()(theta)) == pytest.approx(2 * 1.5**4)
    gently = Trainer(optimiser=sgd(0.03), num_steps=150)  # the fourth power is stiff
    springs = {"strength_radius": 1.0, "strength_outside": 1.0}
    ends = [
        sphere_search(quadratic(), first(1), [2.0], trainer=gently, strength_fourth=fourth, **springs).inside[0]
        for fourth in (0.0, 5.0)
    ]
    assert ends[0] == pytest.approx(2 * 2 / (2 + 6))  # 2 s (r - R) + lambda r = 0
    assert ends[1] > 1.2 * ends[0]


def test_the_weight_norm_is_the_norm():
    """Published mistake 3: the coefficient alone is added, which has no gradient."""
    theta = torch.randn(7, generator=stream(2), dtype=F64)
    pull = grad(penalty(weight_norm=0.3))(theta) - grad(penalty())(theta)
    torch.testing.assert_close(pull, 0.3 * theta / theta.norm())


def test_the_loss_chooses_its_flattest_direction_and_pulls_back_along_it():
    found = sphere_search(quadratic(), first(3), [2.0], trainer=STEPS, strength_radius=5.0, strength_outside=1.0)
    assert found.inside[0] == pytest.approx(2 * 10 / (10 + 0.8), rel=1e-6)
    away = found.weights[0] - quadratic().theta
    assert away.abs().tolist() == pytest.approx([0, 0, found.inside[0], 0, 0], abs=1e-6)
    assert found.worst_gap == pytest.approx(0.8 / 10.8, rel=1e-5)
    assert found.worst_leak < 1e-6


def test_with_its_quadratic_form_subtracted_the_loss_no_longer_pulls_back():
    network = quadratic()
    found = sphere_search(
        network, first(3), [2.0], trainer=STEPS, strength_radius=5.0, strength_outside=1.0, curvatures=CURVATURES[:3]
    )
    assert found.worst_gap < 1e-6
    start = found.weights[0] - network.theta  # nothing but the spring acts, so the direction of the start stays
    assert float((start.abs() > 1e-3).sum()) == 3


def test_a_form_that_outgrows_the_spring_is_refused():
    message = r"curvatures to subtract: got 6 against a spring of 2; wanted curvatures below 4, or the search runs away"
    options = {"strength_radius": 2.0, "curvatures": CURVATURES[:3]}
    with pytest.raises(BadInput, match=message):
        sphere_search(quadratic(), first(3), [2.0], trainer=STEPS, **options)
    held = sphere_search(quadratic(), first(3), [2.0], trainer=HARDLY, strength_fourth=1.0, **options)
    assert held.worst_gap < 1e-6


def test_fresh_starts_lie_on_their_spheres_and_warm_ones_where_the_last_search_ended():
    fresh = sphere_search(quadratic(), first(3), [1.0, 3.0], trainer=HARDLY)
    assert fresh.inside == pytest.approx((1.0, 3.0))
    warm = sphere_search(quadratic(), first(3), [1.0, 3.0], trainer=HARDLY, warm_start=True)
    assert warm.inside == pytest.approx((1.0, 1.0))
    reached = sphere_search(quadratic(), first(3), [1.0, 2.0], trainer=STEPS, strength_radius=8.0, warm_start=True)
    assert reached.worst_gap < 0.1  # radii count from theta*, not from the end of the search before
    away = reached.weights - quadratic().theta
    assert float(torch.cosine_similarity(away[0], away[1], dim=0)) > 0.99


def test_springs_that_are_off_hold_nothing():
    free = sphere_search(quadratic(), first(3), [2.0], trainer=STEPS, strength_radius=0.0, strength_outside=0.0)
    assert free.inside[0] < 1e-3
    assert free.worst_gap > 0.999


def classifier() -> Network:
    with torch.random.fork_rng(devices=[]):
        module = filled(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), F64)
    inputs = torch.randn(12, 4, generator=stream(3), dtype=F64)
    return Network(module, task=Task.of(inputs, torch.arange(12) % 3, num_test=4))


def test_a_search_repeats_itself_and_leaves_the_module_alone():
    network, options = classifier(), {"trainer": Trainer(optimiser=adam(0.01), num_steps=20), "radii": [0.5, 1.0]}
    span = Subspace.random(network.layout.size, 4, stream(5))
    before, state = snapshot(network.module), torch.random.get_rng_state()
    sets = {"train": network.task.train_batch(), "test": network.task.test_batch()}
    found = sphere_search(network, span, sets=sets, seed=1, **options)
    assert_same(before, snapshot(network.module))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(found.weights, sphere_search(network, span, sets=sets, seed=1, **options).weights)
    assert not torch.equal(found.weights, sphere_search(network, span, sets=sets, seed=2, **options).weights)
    for name, batch in sets.items():
        for place, theta in enumerate(found.weights):
            assert found.sets[name].losses[place] == float(network.loss(theta, batch))
    again = SphereSearch.of(json.loads(json.dumps(found.to_plain())))
    assert again == replace(found, weights=None)


def test_shuffled_batches_differ_between_radii():
    network = classifier()
    trainer = Trainer(optimiser=sgd(0.1), num_steps=4, batch_size=3, order="reshuffled", seed=0)
    span = Subspace.random(network.layout.size, 4, stream(5))
    one = sphere_search(network, span, [0.5], trainer=trainer)
    assert torch.equal(one.weights, sphere_search(network, span, [0.5], trainer=trainer).weights)
    other = sphere_search(network, span, [0.5], trainer=replace(trainer, seed=1))
    assert not torch.equal(one.weights, other.weights)


def readings(drops: list[float], at_start: list[float]) -> SetReadings:
    return SetReadings(
        loss_before=0.0,
        losses_at_start=(0.0,) * 3,
        losses=(0.0,) * 3,
        accuracy_before=1.0,
        accuracies_at_start=tuple(1 - drop for drop in at_start),
        accuracies=tuple(1 - drop for drop in drops),
    )


def test_separation_is_what_one_set_loses_while_the_other_is_kept():
    sets = {"a": readings([0.02, 0.04, 0.6], [0, 0, 0]), "b": readings([0.1, 0.3, 0.9], [0.02, 0.2, 0.03])}
    found = SphereSearch(radii=(1.0, 2.0, 3.0), inside=(1.0,) * 3, outside=(0.0,) * 3, sets=sets)
    assert found.separation("a", "b") == pytest.approx(0.3)
    assert found.separation("b", "a") == found.separation("a", "b")
    assert found.separation("a", "b", allowed=0.7) == pytest.approx(0.9)
    assert found.separation("a", "b", allowed=0.01) == 0.0
    assert found.separation("a", "b", at_start=True) == pytest.approx(0.2)


def test_without_classes_there_is_no_accuracy():
    found = sphere_search(quadratic(), first(2), [1.0], trainer=HARDLY)
    assert found.sets["training"].accuracies is None
    with pytest.raises(BadInput, match="got targets that are no classes; wanted classified examples"):
        found.separation("training", "training")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radii": []}, "radii: got none; wanted at least one"),
        ({"radii": [0.0]}, "radius of a sphere: got 0.0; wanted a finite positive number"),
        ({"strength_radius": -1.0}, "strength_radius: got -1.0; wanted a finite number, at least 0"),
        ({"weight_norm": math.inf}, "weight_norm: got inf; wanted a finite number"),
        (
            {"curvatures": CURVATURES},
            r"curvatures to subtract: got 5; wanted 2, one for each vector|Float\[Tensor, 'k'\]",
        ),
        (
            {"trainer": Trainer(optimiser=sgd(0.1), num_steps=1, penalty=Tensor.norm)},
            "trainer of a sphere search: got a penalty of its own; wanted none",
        ),
        ({"trainer": Trainer(optimiser=sgd(1e9), num_steps=200)}, "training diverged at step"),
    ],
)
def test_what_cannot_be_searched_is_named(changes, message):
    options = {"radii": [1.0], "trainer": HARDLY} | changes
    with pytest.raises((BadInput, jaxtyping.TypeCheckError), match=message):
        sphere_search(quadratic(), first(2), **options)


def test_a_span_of_other_weights_is_named():
    with pytest.raises(BadInput, match="span of a sphere: got 6 dimensions; wanted 5, as weights"):
        sphere_search(quadratic(), Subspace.random(6, 2, stream(0)), [1.0], trainer=HARDLY)
    wanted = r"span of a sphere: got 7 rows; wanted 5, as weights|Float\[Tensor, 'params k'\]"
    with pytest.raises((BadInput, jaxtyping.TypeCheckError), match=wanted):
        replace(penalty(), centre=torch.zeros(5, dtype=F64))
    with pytest.raises(BadInput, match="data of 'Linear': got none; wanted inputs and targets"):
        sphere_search(Network(quadratic().module), first(2), [1.0], trainer=HARDLY)

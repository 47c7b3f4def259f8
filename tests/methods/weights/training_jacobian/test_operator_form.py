"""The operator form against the matrix it never writes down, and within the memory it promised."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.instruments.tangents.test_generic import LOOPS
from tests.instruments.tangents.training_runs import OPTIMISERS, run_of
from tests.laws.operator_cases import matrix
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import Dense, Identity
from tremorscope.instruments.subspace import Subspace
from tremorscope.methods.weights.training_jacobian import training_jacobian
from tremorscope.methods.weights.training_jacobian.operator_form import (
    CHAOTIC,
    EVERYWHERE,
    QUIET_INPUTS,
    alignment_probe,
    measure_operator_form,
)
from tremorscope.methods.weights.training_jacobian.operator_plan import plan_operator_form

F64 = torch.float64
ENOUGH = {"k": 4, "max_blocks": 12, "tol": 1e-9, "num_steps": 60, "num_probes": 8}


def small(**options: object) -> Network:
    return run_of(
        lambda: nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 3)),
        **{"optimiser": OPTIMISERS["momentum"], "num_steps": 20} | options,
    )


@pytest.fixture(scope="module")
def measured():
    said: list[str] = []
    net = small()
    return net, measure_operator_form(net, **ENOUGH, level=0.99, say=said.append), said


def test_everything_agrees_with_the_matrix(measured):
    net, found, _ = measured
    jacobian = training_jacobian(net).matrix
    values = torch.linalg.svdvals(jacobian)
    torch.testing.assert_close(found.chaotic.values, values[:4], rtol=1e-8, atol=0)
    assert found.log_determinant.low <= float(values.log().sum()) <= found.log_determinant.high
    for region in found.regions:
        tolerance = region.tolerance
        for estimate, wanted in (
            (region.chaotic, values > 1 + tolerance),
            (region.bulk, (values - 1).abs() <= tolerance),
            (region.stable, values < 1 - tolerance),
        ):
            assert estimate.low - 1e-6 <= int(wanted.sum()) <= estimate.high + 1e-6
    # Mean squared length of (J - I) v over the sphere is ||J - I||_F^2 / n; Jensen puts the mean length below.
    eye = torch.eye(len(values), dtype=F64)
    assert 0.8 < found.alignment[EVERYWHERE].value / (float((jacobian - eye).norm()) / len(values) ** 0.5) < 1.05
    assert found.alignment[CHAOTIC].low > found.alignment[EVERYWHERE].high
    assert QUIET_INPUTS in found.alignment


def test_the_density_is_that_of_the_values(measured):
    net, found, _ = measured
    density = found.density
    assert float(torch.trapezoid(density.values, density.grid.log10())) == pytest.approx(1, abs=1e-3)
    logs = torch.linalg.svdvals(training_jacobian(net).matrix).log10()
    gaussian = torch.exp(-0.5 * ((density.grid.log10()[:, None] - logs) / density.width) ** 2)
    wanted = (gaussian / (density.width * math.sqrt(2 * math.pi))).mean(1)
    inside = (density.low <= wanted + 1e-3) & (wanted <= density.high + 1e-3)
    assert float(inside.double().mean()) > 0.9


def test_the_plan_is_told_first_and_kept(measured):
    _, found, said = measured
    assert said[0] == found.plan.sentence()
    assert "CPU-seconds" in said[0]
    assert "MB of" in said[0]
    assert found.chaotic.num_sweeps <= found.plan.sweeps["chaotic triples"][0] + found.plan.sweeps["their residuals"][0]
    assert sum(found.plan.memory.values()) <= found.plan.memory_limit


def test_tables_and_figures(measured):
    _, found, _ = measured
    tables, figures = found.tables(), found.figures()
    assert [table.name for table in tables] == [
        "operator_regions", "chaotic_triples", "operator_alignment", "operator_plan",
    ]  # fmt: skip
    assert tables[1].num_rows == 4
    assert {figure.name for figure in figures} == {"operator_density", "operator_chaotic", "operator_regions"}
    for figure in figures:
        json.dumps(figure.to_plotly(), allow_nan=False)


def test_a_smaller_limit_takes_checkpoints_and_narrower_chunks_and_gives_the_same(measured):
    net = small(num_steps=16)
    recipe = net.recipe.bind(net)
    options = {"k": 4, "max_blocks": 1, "num_probes": 2, "num_steps": 2, "num_directions": 1}
    roomy = plan_operator_form(recipe, net.start, **options)
    assert (roomy.route, roomy.chunk, roomy.keeps_all_states) == ("structured", 32, True)
    with pytest.raises(BadInput) as refused:
        plan_operator_form(recipe, net.start, **options, memory_limit=1)
    least = int(str(refused.value.got).split()[0].replace(",", ""))
    tight = plan_operator_form(recipe, net.start, **options, memory_limit=least)
    assert tight.route == "generic"
    assert tight.chunk == 1
    assert not tight.keeps_all_states
    one = measure_operator_form(net, **options)
    two = measure_operator_form(net, **options, memory_limit=least)
    torch.testing.assert_close(one.chaotic.values, two.chaotic.values, rtol=1e-10, atol=0)
    assert one.log_determinant.value == pytest.approx(two.log_determinant.value, rel=1e-8)


def test_a_limit_that_cannot_be_kept_is_refused_with_the_numbers():
    with pytest.raises(BadInput, match=r"operator form of 73 weights: got [\d,]+ bytes needed.*Lower k"):
        measure_operator_form(small(), memory_limit=1000)


def test_any_recipe_will_do():
    net = small()
    bound = net.recipe.bind(net)
    rough = {"k": 2, "max_blocks": 2, "num_probes": 2, "num_steps": 3, "num_directions": 2}
    by_training, by_network = measure_operator_form(bound, **rough), measure_operator_form(net, **rough)
    assert torch.equal(by_training.chaotic.values, by_network.chaotic.values)
    with torch.random.fork_rng(devices=[]):
        loop = Network(nn.Linear(3, 1).double(), recipe=LOOPS["tensor"])
    found = measure_operator_form(loop, **rough)
    assert found.plan.route == "generic"
    assert any("no null without a network" in flag for flag in found.flags)
    assert any("memory plan does not count" in flag for flag in found.flags)
    assert not any("memory plan" in flag for flag in by_network.flags)


@pytest.mark.parametrize(("dtype", "is_flagged"), [(torch.float32, True), (torch.float64, False)])
def test_values_below_rounding_are_flagged(dtype, is_flagged):
    """The recipe forgets some directions to 1e-4 of the largest: below what float32 products can tell from nothing."""
    net = small(optimiser=OPTIMISERS["adamw"], num_steps=120, dtype=dtype)
    rough = {"k": 2, "max_blocks": 2, "num_probes": 4, "num_steps": 60, "num_directions": 2}
    found = measure_operator_form(net, **rough)
    values = torch.linalg.svdvals(training_jacobian(net).matrix.double())
    floor = (10 * torch.finfo(dtype).eps) ** 0.5 * float(values[0])
    below = int((values < floor).sum())
    assert (below > 0) == is_flagged
    assert found.num_below_rounding.low - 1e-6 <= below <= found.num_below_rounding.high
    assert any("log |det J| is an upper bound" in flag for flag in found.flags) == is_flagged
    exact = float(values.log().sum())
    assert found.log_determinant.high > exact
    if not is_flagged:
        assert found.log_determinant.low < exact


def test_alignment_of_known_operators():
    line = Subspace.span(torch.eye(4, 1, dtype=F64))
    doubled = torch.diag(torch.tensor([3.0, 1.0, 1.0, 1.0], dtype=F64))
    assert alignment_probe(Dense(doubled), within=line, seed=0).value == pytest.approx(2)
    across = Subspace.span(torch.eye(4, dtype=F64)[:, 1:])
    assert alignment_probe(Dense(doubled), within=across, seed=0).value == pytest.approx(0, abs=1e-12)
    a = matrix(6, 6, 0, F64)
    found = alignment_probe(Dense(a), num_probes=4000, seed=0)
    gap = float((a - torch.eye(6, dtype=F64)).norm()) / 6**0.5
    assert 0.8 * gap < found.value <= gap


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: alignment_probe(Dense(matrix(3, 2, 0, F64)), seed=0), "alignment probe: got a 3 x 2 operator"),
        (lambda: alignment_probe(Identity(3), within=Subspace.span(torch.ones(4, 1)), seed=0), "span in 4 dimensions"),
        (lambda: alignment_probe(Identity(3), num_probes=0, seed=0), "0 probes"),
        (lambda: measure_operator_form(Network(nn.Linear(2, 2))), "training recipe"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(BadInput, match=match):
        call()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "limit"), [("cnn", 450), ("cnn", 180), ("transformer", 650), ("transformer", 210)])
def test_sixty_thousand_weights_within_the_memory_promised(kind, limit):
    program = Path(__file__).with_name("large_networks.py")
    done = subprocess.run(
        [sys.executable, str(program), kind, str(limit)], capture_output=True, text=True, check=True, timeout=280
    )
    found = json.loads(done.stdout)
    print(kind, limit, found)
    assert found["num_weights"] >= 60_000
    assert found["promised_mb"] <= limit
    assert found["used_mb"] <= limit
    assert found["seconds"] < 3 * found["promised_seconds"] + 20
    assert found["error"] < 0.2 * found["largest"]
    assert found["low"] <= found["high"]

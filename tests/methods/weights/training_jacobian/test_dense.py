"""The matrix itself: closed forms, both routes, and blocks of columns that survive a kill to the bit."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.instruments.tangents.reference import central_differences
from tests.instruments.tangents.training_runs import OPTIMISERS, STACKS, directions, relative, run_of, stack_run
from tests.instruments.test_network import assert_same, snapshot
from tests.laws.operator_cases import NETWORKS, stream
from tests.methods.weights.training_jacobian.reference import naive_live
from tests.methods.weights.training_jacobian.small_jacobians import network, task
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.builtin import digits_mlp
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import adam, adamw, sgd
from tremorscope.instruments.recipe import PureRecipe
from tremorscope.instruments.task import Task
from tremorscope.instruments.trainer import Trainer
from tremorscope.methods.weights.training_jacobian import dense, training_jacobian

F64 = torch.float64
ROOT = Path(__file__).parents[4]


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Also the signs of zeros."""
    return one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()


@pytest.mark.parametrize("route", ["structured", "generic"])
def test_products_with_the_matrix_equal_central_differences(route):  # row J1, from blocks of 7
    run = stack_run("GELU", optimiser=OPTIMISERS["adamw"], num_steps=12)
    found = training_jacobian(run, chunk=7, route=route)
    assert (found.route, found.chunk, found.flags) == (route, 7, ())
    block = directions(run.layout.size, 2)
    wanted = central_differences(run.recipe.bind(run), run.start, block)
    assert relative(found.matrix @ block, wanted) < 1e-6
    assert torch.equal(found.first, run.start)
    assert torch.equal(found.last, run.recipe.fit(run).last)


@pytest.mark.parametrize("route", ["structured", "generic"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize(("decay", "bias"), [(0.0, False), (0.1, True)])
def test_linear_regression_has_a_closed_form(route, schedule, decay, bias):  # row J4
    """Full-batch gradient descent on a quadratic: J = prod (I - eta_t (H + decay I)), whatever the targets."""
    x, y = torch.randn(9, 4, generator=stream(1), dtype=F64), torch.randn(9, 2, generator=stream(2), dtype=F64)
    trainer = Trainer(optimiser=sgd(0.3, weight_decay=decay), num_steps=20, schedule=schedule)
    module = nn.Linear(4, 2, bias=bias).double()
    found = training_jacobian(Network(module, task=Task.of(x, y), recipe=trainer), route=route)
    # The loss is a mean over examples and both outputs; the layout holds rows of W, then b.
    h = 2 * x.T @ x / (9 * 2)
    hessian = torch.block_diag(h, h)
    if bias:
        to_bias = 2 * x.mean(0) / 2
        mixed = torch.block_diag(to_bias[:, None], to_bias[:, None])
        hessian = torch.cat([torch.cat([hessian, mixed], 1), torch.cat([mixed.T, torch.eye(2, dtype=F64)], 1)])
    eye = torch.eye(len(hessian), dtype=F64)
    wanted = eye
    for t in range(20):
        rate = 0.3 * (1 if schedule == "constant" else 0.5 * (1 + math.cos(math.pi * t / 20)))
        wanted = (eye - rate * (hessian + decay * eye)) @ wanted
    assert float((found.matrix - wanted).abs().max()) < 1e-12
    assert float((wanted - eye).abs().max()) > 0.1


@pytest.mark.parametrize("route", ["structured", "generic"])
def test_dead_pixels_are_columns_and_rows_of_the_identity(route):  # row J5, the whole matrix, all 25 batches
    run = digits_mlp(hidden=4, num_steps=25)
    found = training_jacobian(run, route=route)
    pixels = (run.task.inputs == 0).all(0).nonzero().flatten().tolist()
    dead = [unit * 64 + pixel for unit in range(4) for pixel in pixels]
    assert len(dead) == 12
    eye = torch.eye(run.layout.size)
    assert torch.equal(found.matrix[:, dead], eye[:, dead])
    assert torch.equal(found.matrix[dead], eye[dead])
    assert sorted({*range(run.layout.size)} - {*found.live.tolist()}) == dead
    assert found.live.tolist() == naive_live(found.matrix)


def test_both_routes_give_one_matrix():
    pair = [training_jacobian(network(), route=route) for route in ("structured", "generic")]
    assert relative(pair[0].matrix, pair[1].matrix) < 1e-12
    assert torch.equal(pair[0].live, pair[1].live)
    assert len(pair[0].live) == 47 - 4
    assert torch.equal(pair[0].drift, pair[0].last - pair[0].first)


@pytest.mark.parametrize("chunk", [1, 5, 43, 100])
def test_chunks_do_not_matter(chunk):
    found = training_jacobian(network(), chunk=chunk)
    assert relative(found.matrix, training_jacobian(network()).matrix) < 1e-13


def test_a_run_is_repeated_to_the_bit_whatever_the_threads():
    one = training_jacobian(network(dtype=torch.float32))
    torch.set_num_threads(2)
    try:
        two = training_jacobian(network(dtype=torch.float32))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert same_bits(one.matrix, two.matrix)
    assert one.matrix.dtype == torch.float32
    assert one.drift.dtype == F64


def test_it_starts_where_the_recipe_starts():
    run = network()
    elsewhere = Network(run.module, task=run.task, recipe=run.recipe, initial=0.5 * run.theta)
    assert same_bits(training_jacobian(elsewhere).matrix, training_jacobian(run.at(0.5 * run.theta)).matrix)
    assert not same_bits(training_jacobian(elsewhere).matrix, training_jacobian(run).matrix)


def test_a_pure_recipe_has_a_matrix_too():
    recipe = PureRecipe(start=lambda th: (th, 0 * th), advance=lambda s, t: (0.5 * s[0] + s[1], s[1]), num_steps=3)
    found = training_jacobian(Network(nn.Linear(2, 1), recipe=recipe))
    assert torch.equal(found.matrix, torch.eye(3) / 8)
    assert (found.route, found.live.tolist()) == ("generic", [0, 1, 2])


@pytest.mark.parametrize("build", [STACKS["ReLU, four deep"], lambda: nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5))])
def test_the_users_module_stays_bit_identical(build, tmp_path):
    run = run_of(build, seed=0)
    run.module.train()
    run.module[1].eval()
    run.module[0].weight.grad = torch.ones_like(run.module[0].weight)
    before = snapshot(run.module)
    training_jacobian(run, folder=tmp_path)
    assert_same(before, snapshot(run.module))


# Blocks that survive


@pytest.fixture
def pushed(monkeypatch) -> list[int]:
    """Columns pushed, call by call."""
    columns: list[int] = []
    real = dense.tangents

    def counting(*arguments, **options):
        push = real(*arguments, **options)

        class Counting:
            route, flags, last, null_columns = push.route, push.flags, push.last, push.null_columns
            bytes_per_column = push.bytes_per_column
            pull_back = push.pull_back

            def __call__(self, block):
                columns.append(block.shape[1])
                return push(block)

        return Counting()

    monkeypatch.setattr(dense, "tangents", counting)
    return columns


def blocks(folder: Path) -> list[Path]:
    return sorted(folder.glob("columns-*.safetensors"))


@pytest.mark.parametrize("route", ["structured", "generic"])
def test_missing_blocks_are_made_again_and_only_they(tmp_path, pushed, route):
    unbroken = training_jacobian(network(), chunk=10, route=route)
    size = 43 if route == "structured" else 47  # dead columns are known beforehand on one route only
    widths = [10, 10, 10, 10, size - 40]
    assert pushed == widths
    pushed.clear()
    seen: list[tuple[int, int]] = []
    kept = training_jacobian(
        network(), chunk=10, route=route, folder=tmp_path, progress=lambda done, total: seen.append((done, total))
    )
    assert pushed == widths
    assert seen == [(47 - size + sum(widths[: i + 1]), 47) for i in range(5)]
    assert len(blocks(tmp_path)) == 5
    for gone in ([], [0, 3]):
        for place in gone:
            blocks(tmp_path)[0].with_name(f"columns-{place:05d}.safetensors").unlink()
        pushed.clear()
        again = training_jacobian(network(), folder=tmp_path)
        assert pushed == [widths[place] for place in gone]
        assert same_bits(again.matrix, unbroken.matrix)
        assert (again.route, again.chunk) == (route, 10)  # as recorded, not as a fresh call would choose
    assert same_bits(kept.matrix, unbroken.matrix)


def test_flags_survive_a_resume(tmp_path):
    def run() -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = nn.Sequential(nn.Linear(7, 3), nn.LayerNorm(3)).double()
        return Network(module, task=task(), recipe=network().recipe)

    first = training_jacobian(run(), folder=tmp_path)
    again = training_jacobian(run(), folder=tmp_path)
    assert first.flags == ("generic route: layer '1' is a LayerNorm",)
    assert again.flags == first.flags
    assert same_bits(first.matrix, again.matrix)
    assert json.loads((tmp_path / "plan.json").read_text())["route"] == "generic"


@pytest.mark.parametrize(
    "other",
    [lambda: network(4), lambda: network(lr=0.21), lambda: network(num_steps=13), lambda: network(dtype=torch.float32)],
    ids=["start", "rate", "steps", "precision"],
)
def test_blocks_of_another_run_are_refused(tmp_path, other):
    training_jacobian(network(), folder=tmp_path)
    before = [path.read_bytes() for path in blocks(tmp_path)]
    with pytest.raises(BadInput, match=r"got pieces of another training run; .*start a new run"):
        training_jacobian(other(), folder=tmp_path)
    assert [path.read_bytes() for path in blocks(tmp_path)] == before  # nothing lost


def test_blocks_without_their_plan_are_refused(tmp_path):
    training_jacobian(network(), folder=tmp_path)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(BadInput, match=r"plan\.json is missing"):
        training_jacobian(network(), folder=tmp_path)


def test_a_truncated_block_is_told(tmp_path):
    training_jacobian(network(), folder=tmp_path, chunk=10)
    damaged = blocks(tmp_path)[2]
    damaged.write_bytes(damaged.read_bytes()[:-5])
    with pytest.raises(BadInput, match=r"columns-00002.safetensors is damaged.*Delete it; it is made again"):
        training_jacobian(network(), folder=tmp_path)


CHILD = """
import os, signal, sys
from pathlib import Path
from tests.methods.weights.training_jacobian.small_jacobians import network
from tremorscope.foundations import files
from tremorscope.methods.weights.training_jacobian import training_jacobian

replace, renames = os.replace, []

def fatal(source, target):  # the plan, two blocks, and death before the third is in its place
    renames.append(target)
    if len(renames) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

files.os.replace = fatal
training_jacobian(network(), chunk=10, folder=Path(sys.argv[1]))
"""


def test_killed_in_the_middle_of_a_block_it_ends_as_if_unbroken(tmp_path, pushed):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    child = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], env=environment, timeout=120, check=False)
    assert child.returncode == -signal.SIGKILL
    assert [path.name for path in blocks(tmp_path)] == ["columns-00000.safetensors", "columns-00001.safetensors"]
    assert list(tmp_path.glob(".columns-00002.safetensors.*.tmp"))
    resumed = training_jacobian(network(), folder=tmp_path)
    assert pushed == [10, 10, 3]  # the three that were missing
    assert same_bits(resumed.matrix, training_jacobian(network(), chunk=10).matrix)


def test_killed_before_its_plan_was_written_it_starts_anew(tmp_path):
    (tmp_path / ".plan.json.123.tmp").write_text("{")
    assert same_bits(training_jacobian(network(), folder=tmp_path).matrix, training_jacobian(network()).matrix)


# What is refused


def recipe_of(advance, module: nn.Module | None = None) -> Network:
    recipe = PureRecipe(start=lambda theta: theta, advance=advance, num_steps=3)
    return Network(nn.Linear(2, 1) if module is None else module, recipe=recipe)


def with_dropout(**options) -> Network:
    module = nn.Sequential(nn.Linear(7, 5), nn.Dropout(0.5), nn.Linear(5, 3)).double()
    return Network(module, task=task(), recipe=Trainer(optimiser=sgd(0.5), num_steps=3, **options))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Network(nn.Linear(2, 1)),
            "training recipe of 'Linear': got none; wanted a Trainer, or a pair of pure",
        ),
        (
            lambda: Network(nn.Linear(2, 1), recipe=lambda theta: theta),
            r"got function; wanted a Trainer, or a pair of pure functions init\(theta\) -> state and step\(state, t\)",
        ),
        (lambda: with_dropout(), r"not deterministic: got theta_T differed by \d"),
        (lambda: recipe_of(lambda theta, t: theta + torch.randn(3)), r"not deterministic: got theta_T differed by \d"),
        (
            lambda: recipe_of(lambda theta, t: theta[torch.randperm(3)] + torch.arange(3)),
            r"not deterministic: got theta_T differed by \d",
        ),
        (
            lambda: recipe_of(lambda theta, t: theta / (0 if t == 1 else 1)),
            "training diverged at step 1: got a state that is not finite",
        ),
        (lambda: network(lr=1e308), r"training diverged at step \d: got .*, learning rate \d"),
        (lambda: recipe_of(lambda theta, t: theta.mul_(0.5)), "step 0 of the recipe: got a state that was changed"),
        (
            lambda: Network(NETWORKS["cnn"](F64).module, task=NETWORKS["cnn"](F64).task, recipe=network().recipe),
            r"BatchNorm2d\): got running statistics .*mode='evaluate'",
        ),
        (lambda: with_dropout(order="reshuffled"), "wanted a seed"),
    ],
)
def test_recipes_without_a_derivative(make, message):
    state = torch.random.get_rng_state()
    with torch.random.fork_rng(devices=[]), pytest.raises(BadInput, match=message):  # modules draw their weights
        training_jacobian(make())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_seeds_and_frozen_layers_make_possible():
    with torch.random.fork_rng(devices=[]):
        seeded, evaluated = with_dropout(seed=1), with_dropout(mode="evaluate")
    cnn = NETWORKS["cnn"](F64)
    frozen = Network(
        cnn.module, task=cnn.task, recipe=Trainer(optimiser=adamw(0.01, eps_root=1e-3), num_steps=3, mode="evaluate")
    )
    for run in (seeded, evaluated, frozen):
        state = torch.random.get_rng_state()
        found, block = training_jacobian(run), directions(run.layout.size, 2)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert relative(found.matrix @ block, central_differences(run.recipe.bind(run), run.start, block)) < 1e-6


def test_adam_without_a_root_is_told_what_to_change():
    run = network(recipe=Trainer(optimiser=adam(0.01), num_steps=3))
    with pytest.raises(
        BadInput, match=r"derivative of Adam at step 0: got \d+ weights .* Use adam\(..., eps_root=1e-8"
    ):
        training_jacobian(run)


def test_a_matrix_that_would_not_fit_is_told_in_bytes():
    wide = recipe_of(lambda theta, t: theta, module=nn.Linear(1000, 1000))
    size = 1001 * 1000
    with pytest.raises(
        BadInput, match=rf"{size:,} weights: got {size * size * 44:,} bytes needed .*measure_operator_form\(network\)"
    ):
        training_jacobian(wide)
    with pytest.raises(BadInput, match="wanted at most 1,000 bytes"):
        training_jacobian(network(), memory_limit=1000)
    training_jacobian(network(), memory_limit=47 * 47 * 48)


def test_no_chunk_is_smaller_than_one():
    with pytest.raises(BadInput, match="chunk: got 0; wanted at least 1"):
        training_jacobian(network(), chunk=0)


@pytest.mark.parametrize("detached", [True, False])
def test_a_step_that_hides_something_from_differentiation_is_doubted(detached):
    """`0.5 theta - 0.3 tanh(theta)`; detached, the derivative misses the second half."""
    theta = torch.linspace(-1, 1, 6, dtype=torch.float64)

    def advance(state, t):
        pull = 0.3 * state.tanh()
        return 0.5 * state - (pull.detach() if detached else pull)

    network = Network(nn.Linear(5, 1), recipe=PureRecipe(start=lambda at: at, advance=advance, num_steps=3))
    network.initial = theta
    doubts = [flag for flag in training_jacobian(network).flags if "finite difference of the run" in flag]
    assert len(doubts) == detached


@pytest.mark.parametrize(("kind", "is_doubted"), [("sign", True), ("clipped", False)])
def test_steps_without_a_derivative_are_doubted_and_clipping_is_not(kind, is_doubted):
    """The sign of a gradient has derivative 0 and still moves; a clipped one has a derivative almost everywhere."""
    task = Task.of(
        torch.randn(30, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64), torch.arange(30) % 3
    )
    bare = Network(nn.Linear(4, 3).double(), task=task)
    gradient = torch.func.grad(lambda at: bare.loss(at, task.train_batch()))

    def advance(state, t):
        pull = gradient(state)
        moved = pull.sign() if kind == "sign" else pull * (0.05 / pull.norm()).clamp(max=1)
        return state - 0.1 * moved

    recipe = PureRecipe(start=lambda at: at, advance=advance, num_steps=60)
    found = training_jacobian(Network(bare.module, task=task, recipe=recipe, initial=bare.theta))
    assert any("only the signs of gradients" in flag for flag in found.flags) == is_doubted
    assert not any("finite difference of the run" in flag for flag in found.flags)

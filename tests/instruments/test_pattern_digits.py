"""Images that can be read in two ways: what is in them, and that training on them repeats itself."""

from __future__ import annotations

import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.pattern_digits import (
    KINDS,
    PatternDigits,
    Phase,
    accuracy,
    curriculum,
    pattern_cnn,
    train_in_phases,
)
from tremorscope.instruments.task import Batch, Task


def images(num=120, side=8):
    stream = torch.Generator().manual_seed(0)
    return Task.of(torch.rand(num, side * side, generator=stream), torch.arange(num) % 10, num_test=30)


@pytest.fixture(scope="module")
def data():
    return PatternDigits.of(images(), seed=3)


def test_kinds_are_the_two_halves_and_their_mean(data):
    digits, patterns, mixed = (data.batch(kind, "test").args[0] for kind in KINDS)
    torch.testing.assert_close(mixed, 0.5 * digits + 0.5 * patterns)
    assert set(patterns.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(digits, data.digits.test_inputs)


def test_every_pattern_is_one_of_its_class_enlarged(data):
    batch = data.batch("patterns", "validation")
    cells = batch.args[0].reshape(-1, 8, 8)
    small = cells[:, ::2, ::2].bool()
    assert torch.equal(cells, small.float().repeat_interleave(2, 1).repeat_interleave(2, 2))
    for image, label in zip(small, batch.target, strict=True):
        assert any(torch.equal(image, pattern) for pattern in data.patterns[label])
    assert len(torch.unique(data.patterns.reshape(100, -1), dim=0)) == 100


def test_parts_share_no_digit(data):
    parts = [data.batch("digits", part).args[0] for part in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [75, 15, 30]
    together = torch.cat(parts)
    assert len(torch.unique(together, dim=0)) == 120
    task = data.task("mixed")
    assert (task.size, len(task.test_inputs), task.num_classes) == (75, 30, 10)


def test_a_phase_holds_the_shares_it_names():
    data = PatternDigits.of(images(3000), seed=0, digit_noise=0.1, pattern_noise=0.05)
    phase = Phase(opacity=0.4, num_epochs=2, lr=0.01, decay=0.9)
    task = data.training_task(phase)
    assert task.size == 2 * data.num_train
    clean = data.batch("digits", "train")
    for epoch in (slice(0, data.num_train), slice(data.num_train, None)):
        assert torch.equal(task.targets[epoch].bincount(), clean.target.bincount())
    pure_patterns = ((task.inputs == 0) | (task.inputs == 1)).all(dim=1)
    assert float(pure_patterns.float().mean()) == pytest.approx(0.05, abs=0.02)
    # Of a pattern's cells a twentieth is drawn anew, half of which change.
    shown = task.inputs[pure_patterns].reshape(-1, 8, 8)[:, ::2, ::2].bool()
    known = data.patterns[task.targets[pure_patterns]]
    nearest = (shown[:, None] != known).float().mean(dim=(2, 3)).min(dim=1).values
    assert float(nearest.mean()) == pytest.approx(0.025, abs=0.01)
    # The mixed ones keep 0.6 of the digit and its noise.
    spread = task.inputs[~pure_patterns].std()
    assert float(spread) > 0.2


def test_training_repeats_itself_and_learns(data):
    start = pattern_cnn(data, seed=1, channels=(2, 2))
    phases = curriculum(num_epochs=1, last_epochs=2)
    run, again = (train_in_phases(start, data, phases, keep_every=4) for _ in range(2))
    assert torch.equal(run.network.theta, again.network.theta)
    assert run.starts == (0, 2, 4, 6, 8)
    assert len(run.losses) == 11
    assert sorted(run.snapshots) == [0, 4, 8]
    assert torch.equal(run.snapshots[0], start.theta)
    assert torch.equal(run.network.start, start.theta)
    assert float(run.losses.isfinite().all())


def test_the_learning_rate_falls_after_each_epoch(data):
    slow, fast = (Phase(opacity=0.0, num_epochs=3, lr=0.01, decay=decay) for decay in (1e-9, 1.0))
    start = pattern_cnn(data, seed=1, channels=(2, 2))
    kept = [train_in_phases(start, data, [phase], keep_every=1).snapshots for phase in (slow, fast)]
    assert torch.equal(kept[0][1], kept[1][1])
    assert not torch.allclose(kept[0][3], kept[1][3])
    torch.testing.assert_close(kept[0][3], kept[0][2], atol=1e-6, rtol=0)


def test_accuracy_counts(data):
    network = pattern_cnn(data, seed=0)
    batch = data.batch("digits", "test")
    named = network.apply(network.params, batch).argmax(1)
    assert accuracy(network, Batch(batch.args, {}, named)) == 1.0
    assert accuracy(network, batch, 0 * network.theta) == pytest.approx(float((batch.target == 0).float().mean()))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Phase(opacity=1.5, num_epochs=1, lr=0.1, decay=1.0), "opacity of a phase: got 1.5"),
        (lambda: Phase(opacity=1.0, num_epochs=0, lr=0.1, decay=1.0), "epochs of a phase: got 0"),
        (
            lambda: Phase(opacity=1.0, num_epochs=1, lr=0.1, decay=1.0, pure_digits=0.9, pure_patterns=0.2),
            "pure shares of a phase",
        ),
        (lambda: PatternDigits.of(images(side=5), pattern_side=2), "patterns: got 100 of 2 x 2 cells"),
        (lambda: PatternDigits.of(images(), num_validation=90), "validation examples: got 90; wanted 1 to 89"),
        (
            lambda: PatternDigits.of(Task.of(torch.rand(20, 7), torch.arange(20) % 10, num_test=5)),
            "got 7 pixels, held-out ones; wanted square images",
        ),
        (
            lambda: PatternDigits.of(Task.of(torch.rand(20, 4), torch.arange(20) % 10), pattern_side=4),
            "got 4 pixels, no held-out ones",
        ),
        (lambda: PatternDigits.of(Task.of(torch.rand(20, 4), torch.rand(20), num_test=5)), "wanted classes"),
        (lambda: train_in_phases(pattern_cnn(PatternDigits.of(images())), PatternDigits.of(images()), []), "phases"),
    ],
)
def test_mistakes_are_named(build, sentence):
    with pytest.raises(BadInput, match=sentence):
        build()

from __future__ import annotations

import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.losses import cross_entropy, squared_error
from tremorscope.instruments.task import Task, digits


def small(num_test: int = 0, **options) -> Task:
    inputs = torch.arange(12.0).reshape(6, 2)
    return Task.of(inputs, torch.tensor([0, 1, 2, 0, 1, 2]), num_test=num_test, **options)


def test_the_last_rows_are_held_out():
    task = small(num_test=2, name="six")
    assert (task.name, task.size, task.num_classes) == ("six", 4, 3)
    assert torch.equal(task.inputs, torch.arange(8.0).reshape(4, 2))
    assert torch.equal(task.test_inputs, torch.arange(8.0, 12.0).reshape(2, 2))
    assert torch.equal(task.test_batch().target, torch.tensor([1, 2]))
    assert small().test_inputs is None


def test_the_loss_follows_the_targets_unless_given():
    assert small().loss is cross_entropy
    real = Task.of(torch.zeros(3, 2), torch.zeros(3))
    assert (real.loss, real.num_classes) == (squared_error, None)
    assert small(loss=squared_error).loss is squared_error


def test_batches_keep_the_order_asked_for():
    batch = small().batch([4, 0, 4])
    assert torch.equal(batch.args[0], torch.tensor([[8.0, 9.0], [0.0, 1.0], [8.0, 9.0]]))
    assert torch.equal(batch.target, torch.tensor([1, 0, 1]))
    assert batch.kwargs == {}
    assert torch.equal(small().batch(torch.tensor([5])).args[0], torch.tensor([[10.0, 11.0]]))
    whole = small().train_batch()
    assert torch.equal(whole.args[0], small().inputs)


def test_only_real_tensors_change_their_type():
    moved = small(num_test=2).to(dtype=torch.float64, device="cpu")
    assert (moved.inputs.dtype, moved.test_inputs.dtype) == (torch.float64, torch.float64)
    assert (moved.targets.dtype, moved.test_targets.dtype) == (torch.int64, torch.int64)
    assert small().to().inputs.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Task.of(torch.zeros(3, 1), torch.zeros(2)), "task 'data': got 3 inputs and 2 targets"),
        (lambda: Task.of(torch.zeros(0, 1), torch.zeros(0)), "got 0 inputs and 0 targets"),
        (lambda: small(num_test=6), "got 0 inputs and 0 targets"),
        (lambda: small(num_test=-1), "test data of task 'data': got 0 inputs"),
        (lambda: Task.of(torch.tensor([[1.0], [float("nan")]]), torch.zeros(2)), "inputs of task .* got 1 entries"),
        (lambda: Task.of(torch.zeros(2, 1), torch.tensor([float("inf"), 0.0])), "targets of task .* got 1 entries"),
        (lambda: small().test_batch(), "test data of task 'data': got none; wanted held-out examples"),
    ],
)
def test_data_that_is_no_data(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_digits_are_scikit_learns_in_the_published_split():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    for seed in (0, 3):
        task = digits(dtype=torch.float64, split_seed=seed)
        parts = train_test_split(images / 16, labels, test_size=197, random_state=seed)
        for got, wanted in zip((task.inputs, task.test_inputs, task.targets, task.test_targets), parts, strict=True):
            assert torch.equal(got, torch.from_numpy(wanted))
    assert (digits().size, digits().num_classes, digits().inputs.dtype) == (1600, 10, torch.float32)
    assert int((digits().inputs == 0).all(0).sum()) == 3  # the dead pixels of row J5

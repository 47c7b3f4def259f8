"""The classifier that refuses: its data, its repeatable training, its sites."""

from __future__ import annotations

import pytest
import torch

from tremorscope.instruments.digits_refuser import REFUSE, SITES, digits_refuser, refuser_task, refuser_trainer
from tremorscope.instruments.task import digits


def test_low_digits_are_refused_and_others_keep_their_class():
    task = refuser_task(3)
    whole = digits(num_test=597, split_seed=0)
    assert (len(task.inputs), len(task.test_inputs)) == (1200, 597)
    assert set(task.targets.tolist()) == {5, 6, 7, 8, 9, REFUSE}
    every = torch.cat([whole.targets, whole.test_targets])
    refused = torch.cat([task.targets, task.test_targets]) == REFUSE
    assert int(refused.sum()) == int((every < 5).sum())
    assert not torch.equal(refuser_task(3).inputs, refuser_task(4).inputs)


def test_the_start_depends_on_the_seed_alone():
    assert torch.equal(digits_refuser(1).start, digits_refuser(1).start)
    assert not torch.equal(digits_refuser(1).start, digits_refuser(2).start)
    network = digits_refuser(1)
    hidden = network.record_all(SITES, network.task.test_batch())
    assert [tuple(value.shape) for value in hidden.values()] == [(597, 64)] * 3
    assert all(float(value.min()) == 0.0 for value in hidden.values())


@pytest.mark.slow
def test_it_learns_to_refuse():
    start = digits_refuser(0)
    trained = start.at(refuser_trainer(start.task, 0).fit(start).last)
    batch = trained.task.test_batch()
    accuracy = (trained.apply(trained.params, batch).argmax(-1) == batch.target).double().mean()
    assert float(accuracy) > 0.94

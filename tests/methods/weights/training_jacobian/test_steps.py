from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.instruments.test_network import assert_same, snapshot
from tests.laws.operator_cases import NETWORKS, stream
from tests.methods.weights.training_jacobian.reference import naive_worst_divergence
from tests.methods.weights.training_jacobian.small_jacobians import F64, network, orthonormal, task
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Task
from tremorscope.methods.weights.training_jacobian import steps, worst_divergence
from tremorscope.methods.weights.training_jacobian.steps import probe_batches


@pytest.mark.parametrize("size", [1.0, 0.01])
@pytest.mark.parametrize("chunk", [64 << 20, 1, 20_000])
def test_all_directions_at_once_equal_the_loop(size, chunk, monkeypatch):
    monkeypatch.setattr(steps, "_CHUNK_BYTES", chunk)
    subject, directions = network(), orthonormal(47, 9, 0)
    batch = subject.task.train_batch()
    found = worst_divergence(subject, directions, batch, size=size)
    assert torch.allclose(found, naive_worst_divergence(subject, directions, batch, size), rtol=1e-9, atol=1e-15)
    assert (found > 0).all()


@pytest.mark.parametrize("name", ["cnn", "transformer", "mlp"])
def test_any_classifier(name):
    subject = NETWORKS[name](F64)
    directions = orthonormal(subject.layout.size, 3, 0)
    batch = subject.task.train_batch()
    before = snapshot(subject.module)
    found = worst_divergence(subject, directions, batch)
    assert torch.allclose(found, naive_worst_divergence(subject, directions, batch), rtol=1e-8, atol=1e-14)
    assert_same(before, snapshot(subject.module))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


def test_modules_that_vmap_cannot_take_go_one_by_one():
    data = Task.of(torch.randn(5, 4, 2, generator=stream(0), dtype=F64), torch.tensor([0, 1, 2, 0, 1]))
    subject = Network(Recurrent().double(), task=data)
    directions = orthonormal(subject.layout.size, 3, 0)
    found = worst_divergence(subject, directions, data.train_batch())
    assert torch.allclose(found, naive_worst_divergence(subject, directions, data.train_batch()), rtol=1e-9)


def test_a_direction_that_shifts_all_logits_alike_is_silent():
    subject = network()
    direction = torch.zeros(47, 1, dtype=F64)
    direction[-3:] = 3**-0.5  # the biases of the last layer
    assert float(worst_divergence(subject, direction, subject.task.train_batch())[0]) < 1e-15


def test_single_precision_networks_and_large_steps():
    subject, directions = network(dtype=torch.float32), orthonormal(47, 4, 0)
    batch = subject.task.train_batch()
    close = worst_divergence(network(), directions, network().task.train_batch())
    assert torch.allclose(worst_divergence(subject, directions, batch), close, rtol=1e-3)
    far = worst_divergence(subject, directions, batch, size=1e4)
    assert far.isfinite().all()
    assert (far > 10).all()


def test_outputs_that_are_no_logits():
    single = Network(nn.Linear(7, 1).double(), task=task())
    with pytest.raises(BadInput, match=r"outputs: got shape \(24, 1\); wanted logits \[batch, classes\]"):
        worst_divergence(single, torch.eye(8, dtype=F64), single.task.train_batch())


def test_inputs_in_and_out_of_distribution():
    data = task()
    batches = probe_batches(data, seed=5)
    assert list(batches) == ["training", "normal", "inverted"]
    training, normal, inverted = (batch.args[0] for batch in batches.values())
    assert torch.equal(training, data.inputs)
    assert normal.shape == inverted.shape == data.inputs.shape
    assert (normal.dtype, inverted.dtype) == (F64, F64)
    assert torch.equal(inverted, data.inputs.max() + data.inputs.min() - data.inputs)
    assert float(inverted.min()) == pytest.approx(float(data.inputs.min()))
    assert abs(float(normal.mean())) < 0.3
    assert float(normal.std()) == pytest.approx(1, abs=0.2)
    again, other = probe_batches(data, seed=5), probe_batches(data, seed=6)
    assert torch.equal(again["normal"].args[0], normal)
    assert not torch.equal(other["normal"].args[0], normal)
    narrow = probe_batches(data.to(dtype=torch.float32), seed=5)
    assert torch.equal(narrow["normal"].args[0], normal.float())


def test_tokens_have_no_such_probes():
    with pytest.raises(BadInput, match=r"got torch\.int64 inputs; wanted real numbers"):
        probe_batches(NETWORKS["transformer"](F64).task, seed=0)

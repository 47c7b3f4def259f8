from __future__ import annotations

import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.centred import centred
from tremorscope.instruments.initialisation import draw_weights
from tremorscope.instruments.perceptrons import convolutional, perceptron
from tremorscope.instruments.task import Task, digits


def test_shapes_and_outputs():
    task = digits(dtype=torch.float64)
    for network, size in ((perceptron(task, hidden=(7, 5)), 64 * 7 + 7 + 35 + 5 + 60), (convolutional(task), 3818)):
        assert network.layout.size == size
        assert not network.theta.any()
        moved = network.at(draw_weights(network, "he", seed=0))
        assert moved.apply(moved.params, task.batch([0, 1])).shape == (2, 10)
    assert "bias" not in " ".join(perceptron(task, bias=False).layout.names)
    colours = Task.of(torch.zeros(4, 3, 6, 6), torch.tensor([0, 1, 1, 0]))
    network = convolutional(colours, channels=(2,), dtype=torch.float32)
    assert network.apply(network.params, colours.train_batch()).shape == (4, 2)


def test_what_does_not_fit_is_refused():
    task = Task.of(torch.zeros(3, 7), torch.tensor([0, 1, 1]))
    with pytest.raises(BadInput, match="inputs of a convolution: got 7 numbers each; wanted square images"):
        convolutional(task)
    with pytest.raises(BadInput, match=r"widths: got \[0\]; wanted at least 1 each"):
        perceptron(task, hidden=(0,))
    with pytest.raises(BadInput, match="got no classes"):
        perceptron(Task.of(torch.zeros(3, 7), torch.zeros(3)))


def test_centred_inputs(generator):
    task = Task.of(3 + 5 * torch.randn(40, 6, generator=generator), torch.arange(40) % 3, num_test=10)
    moved = centred(task, num_examples=20)
    assert moved.inputs.shape == (20, 6)
    assert float(moved.inputs.mean(0).abs().max()) < 1e-6
    assert float(moved.inputs.square().mean()) == pytest.approx(1, rel=1e-5)
    unit = (task.inputs[0] - task.inputs[:20].mean(0)) / moved.inputs[0]
    torch.testing.assert_close(moved.test_inputs, (task.test_inputs - task.inputs[:20].mean(0)) / unit[0])
    with pytest.raises(BadInput, match="got int64; wanted real numbers"):
        centred(Task.of(torch.arange(4).reshape(2, 2), torch.tensor([0, 1])))
    with pytest.raises(BadInput, match="the same for all examples"):
        centred(Task.of(torch.ones(3, 2), torch.tensor([0, 1, 1])))
    with pytest.raises(BadInput, match="number of examples: got 0"):
        centred(task, num_examples=0)

from __future__ import annotations

import numpy
import pytest
import torch
from torch import nn

from tests.laws.operator_cases import NETWORKS
from tests.methods.weights.training_jacobian.small_jacobians import F64, network, task
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.tangents import tangents
from tremorscope.instruments.task import Task
from tremorscope.methods.weights.training_jacobian import low_variance_directions


def inputs_seen(directions: torch.Tensor, data: Task) -> torch.Tensor:
    """Root mean square of what each direction adds to the first layer's pre-activations."""
    first = directions[:28].T.reshape(-1, 4, 7)  # 4 hidden units of 7 inputs
    return torch.einsum("kui,bi->kbu", first, data.inputs).square().sum(2).mean(1).sqrt()


@pytest.mark.parametrize("k", [1, 5, 8, 24])
def test_directions_are_orthonormal_and_see_the_inputs_least(k):
    subject = network()
    found = low_variance_directions(subject, k)
    assert found.shape == (47, k)
    assert torch.allclose(found.T @ found, torch.eye(k, dtype=F64), atol=1e-12)
    assert not found[28:].any()  # the first layer's kernel comes first in the layout
    assert not found[[2, 9, 16, 23]].any()  # the dark input is not counted as a quiet one
    seen = inputs_seen(found, subject.task)
    assert (seen.diff() > -1e-12).all()
    # The twin: NumPy's singular values of the live inputs, each for all four units.
    live = subject.task.inputs[:, [0, 1, 3, 4, 5, 6]].numpy()
    scale = numpy.linalg.svd(live / numpy.sqrt(len(live)), compute_uv=False)[::-1]
    assert numpy.allclose(seen, numpy.repeat(scale, 4)[:k], rtol=1e-9)


def test_two_inputs_hardly_vary_here_and_no_random_direction_is_as_quiet():
    subject = network()
    quiet = inputs_seen(low_variance_directions(subject, 8), subject.task)
    assert float(quiet.max()) < 0.02
    drawn = torch.zeros(47, 50, dtype=F64)
    drawn[:28] = torch.randn(28, 50, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert float(inputs_seen(drawn / drawn.norm(dim=0), subject.task).min()) > 10 * float(quiet.max())


def test_training_carries_them_over_almost_unchanged():
    subject = network()
    found = low_variance_directions(subject, 8)
    carried = tangents(subject.recipe.bind(subject), subject.start)(found)
    assert float((carried - found).norm(dim=0).max()) < 0.05
    loud = low_variance_directions(subject, 24)[:, 12:]
    assert float((tangents(subject.recipe.bind(subject), subject.start)(loud) - loud).norm(dim=0).max()) > 0.3


def test_fewer_come_back_when_the_first_layer_has_fewer():
    assert low_variance_directions(network(), 1000).shape == (47, 24)


def test_images_are_flattened_and_layers_found_wherever_they_are_registered():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(2, 3), nn.Linear(8, 2)

        def forward(self, x):
            return self.last(torch.tanh(self.first(torch.flatten(x, 1))))

    data = Task.of(torch.randn(20, 2, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3)
    found = low_variance_directions(Network(Late(), task=data), 3)
    assert found.shape == (27, 3)
    assert not found[:9].any()
    assert not found[25:].any()
    assert torch.allclose(found.T @ found, torch.eye(3, dtype=F64), atol=1e-12)


def test_only_chains_have_a_first_layer():
    with pytest.raises(BadInput, match="low-variance directions: got layer '0' is a Conv2d; wanted a chain"):
        low_variance_directions(NETWORKS["cnn"](F64), 3)
    with pytest.raises(BadInput, match="got none; wanted inputs and targets"):
        low_variance_directions(Network(nn.Sequential(nn.Linear(7, 2))), 3)
    assert task().size == 24

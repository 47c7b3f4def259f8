"""The look at activations inside an examination: on which inputs it is done, and when there are none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tremorscope.examine.activations import LAYER_EFFORTS, examine_layers, has_inputs
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import untrained
from tremorscope.instruments.task import Task


def network(count: int) -> Network:
    generator = torch.Generator().manual_seed(0)
    task = Task.of(torch.randn(count, 4, generator=generator), torch.arange(count) % 3)
    torch.manual_seed(0)
    return Network(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), task=task)


def test_examples_of_the_task_are_turned_half_of_a_small_set_as_bases():
    own, said = network(40), list[str]()
    found = examine_layers(own, untrained(own), LAYER_EFFORTS["quick"], seed=0, say=said.append)
    assert list(found.layers) == list(found.twin) == ["0", "1"]
    assert found.readout == "kl"
    curves = found.layers["0"].curves
    assert (curves.num_bases, curves.num_samples) == (20, 20)
    assert said[:2] == [
        "Turning activations of 0 in Sequential",
        "Turning activations of 0 in Sequential (untrained)",
    ]
    with pytest.raises(BadInput, match="examples for 'Sequential': got 8; wanted at least 13"):
        examine_layers(network(8), None, LAYER_EFFORTS["quick"], seed=0, say=said.append)


def test_without_data_or_a_tokenizer_there_is_nothing_to_pass_through():
    assert has_inputs(network(3))
    assert not has_inputs(Network(nn.Linear(4, 3)))

"""One tensor in any container: found, replaced, and the container's type kept."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.containers import tensor_at, with_tensor

Pair = namedtuple("Pair", ["state", "weights"])  # the untyped kind that old code returns


@dataclass(frozen=True)
class Answer:
    logits: torch.Tensor
    extra: None = None


def model_output():
    from transformers.modeling_outputs import BaseModelOutput

    return BaseModelOutput(last_hidden_state=torch.ones(2, 3), attentions=(torch.zeros(1),))


CASES = {
    "tensor": (lambda: torch.ones(2, 3), (0,)),
    "tuple": (lambda: (torch.ones(2, 3), None), (0,)),
    "one-tuple": (lambda: (torch.ones(2, 3),), (0,)),
    "list": (lambda: [None, torch.ones(2, 3)], (1,)),
    "named tuple": (lambda: Pair("no", torch.ones(2, 3)), (1,)),
    "dict": (lambda: {"a": torch.ones(2, 3), "b": 1}, (0,)),
    "ordered": (lambda: OrderedDict(a=None, b=torch.ones(2, 3)), (1,)),
    "dataclass": (lambda: Answer(torch.ones(2, 3)), (0,)),
    "model output": (model_output, (0,)),
    "nested": (lambda: (1, (torch.ones(2, 3), [2])), (1, 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_type_is_kept_and_what_was_given_stays(name):
    make, path = CASES[name]
    value, new = make(), torch.full((2, 3), 7.0)
    changed = with_tensor(value, path, new)
    assert type(changed) is type(value)
    assert tensor_at(changed, path, "here") is new
    assert torch.equal(tensor_at(value, path, "here"), torch.ones(2, 3))
    if name not in ("tensor", "one-tuple"):
        assert repr(with_tensor(changed, path, torch.ones(2, 3))) == repr(value)


def test_outputs_of_transformers_keep_their_attributes():
    changed = with_tensor(model_output(), (0,), torch.zeros(2, 3))
    assert not changed.last_hidden_state.any()
    assert changed[0] is changed.last_hidden_state
    assert len(changed.attentions) == 1


def test_rows_of_a_bare_tensor_are_no_entries():
    # The commonest bug after an upgrade: output[0] of a block that no longer returns a tuple is batch row 0.
    value = torch.arange(6.0).reshape(2, 3)
    assert tensor_at(value, (0,), "here") is value
    with pytest.raises(BadInput, match=r"here: got entry 1 of a tensor of shape \(2, 3\); wanted entry 0"):
        tensor_at(value, (1,), "here")


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ((torch.ones(1),), (1,), "got entry 1 of tuple of 1; wanted an entry below 1"),
        ((None, (torch.ones(1),)), (1,), "got tuple of 1; wanted a tensor. Go on inside: add .0 to the port"),
        ("text", (0,), "got entry 0 of str"),
        ((torch.ones(2),), (0, 1), "got entry 1 of a tensor"),
        ((None,), (0,), "got NoneType; wanted a tensor"),
    ],
)
def test_what_holds_no_tensor(value, path, message):
    with pytest.raises(BadInput, match=message):
        tensor_at(value, path, "here")

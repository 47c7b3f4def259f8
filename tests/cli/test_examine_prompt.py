"""`tremorscope examine` with --prompt and --against: one sentence for a mistake, a report for an answer."""

from __future__ import annotations

import pytest

MODELS = """
import torch
from torch import nn

def small():
    return nn.Linear(3, 2)

def other():
    return nn.Linear(3, 2)

def large():
    return nn.Linear(4, 2)
"""


@pytest.fixture
def models(folder):
    """A file with three networks that know no language."""
    (folder / "models.py").write_text(MODELS, encoding="utf-8")
    return folder


def test_a_prompt_needs_a_tokenizer(call, models):
    answer = call("examine", "models.py:small", "--prompt", "hello")
    assert answer.code == 2
    assert "tokenizer of 'small': got none" in answer.err
    assert "Traceback" not in answer.err


def test_networks_of_different_shape(call, models):
    answer = call("examine", "models.py:small", "--against", "models.py:large")
    assert answer.code == 2
    assert "at weight: got (2, 3) in 'small' and (2, 4) in 'large'" in answer.err


def test_two_networks_of_one_shape(call, models):
    answer = call("examine", "models.py:small", "--against", "models.py:other", "--json")
    assert answer.code == 0
    result = answer.document["result"]
    assert result["study"] == "examine small against other"
    assert result["provenance"]["command"].startswith("tremorscope examine models.py:small --against models.py:other")


def test_a_prompt_longer_than_the_context(call):
    answer = call("examine", "builtin:microworld", "--prompt", "day " * 400)
    assert answer.code == 2
    assert "the context of 'builtin:microworld'" in answer.err


@pytest.mark.slow
def test_a_prompt_of_the_microworld(call):
    answer = call("examine", "builtin:microworld", "--prompt", "One day after Friday is")
    assert answer.code == 0
    assert "What moves the prediction of builtin:microworld" in answer.out
    assert answer.out.strip().endswith("report.html")

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.methods.language.planted import random_gpt2, tokenizer
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld.professions import PROFESSIONS
from tremorscope.instruments.network import Network
from tremorscope.methods.language.profession_probe import WORDS, ProfessionProbes, measure_profession_probes

SIZES = {"num_train": 40, "num_validation": 20, "num_test": 30, "split": "validation"}


class Telling(nn.Module):
    """Hidden states in which layer 1 counts the words of each profession that were read, and layer 0 does not."""

    def __init__(self, tokens) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.tokens = tokens

    def forward(self, input_ids, attention_mask=None, output_hidden_states=False):
        texts = self.tokens.batch_decode(input_ids)
        counts = [[float(any(task in text for task in one.tasks)) for one in PROFESSIONS[:2]] for text in texts]
        state = torch.tensor(counts)[:, None].expand(-1, input_ids.shape[1], -1)
        noise = torch.sin(input_ids[..., None] * torch.tensor([1.0, 2.0]))
        return SimpleNamespace(logits=state, hidden_states=(noise, state * self.gain))


@pytest.fixture(scope="module")
def probes() -> ProfessionProbes:
    tokens = tokenizer()
    networks = {"telling": Network(Telling(tokens), tokenizer=tokens), "random": random_gpt2(tokens)}
    return measure_profession_probes(networks, poolings=("last",), **SIZES)["last"]


def test_what_a_layer_tells_is_found_there(probes):
    (probe,) = probes.probes["telling"]
    assert probe.layer == 1
    assert probes.accuracy("telling").value == 1.0
    assert probe.test[0] < 0.8
    assert probes.accuracy("telling").low > 0.7


def test_shuffled_labels_tell_nothing_and_words_tell_all(probes):
    assert probes.accuracy("telling", shuffled=True).value < 1.0
    assert probes.accuracy(WORDS).value > 0.9
    assert len(probes.probes[WORDS][0].test) == 1


def test_several_poolings_at_once_are_each_alone(probes):
    tokens = tokenizer()
    networks = {"telling": Network(Telling(tokens), tokenizer=tokens), "random": random_gpt2(tokens)}
    both = measure_profession_probes(networks, poolings=("mean", "last"), **SIZES)
    assert list(both) == ["mean", "last"]
    assert both["last"] == probes
    assert both["mean"] == measure_profession_probes(networks, **SIZES)["mean"]
    assert both["mean"].pooling == "mean"


def test_margins_are_paired(probes):
    margin = probes.margin("telling", "random")
    gap = probes.accuracy("telling").value - probes.accuracy("random").value
    assert margin.value == pytest.approx(gap)
    assert probes.margin("telling", "telling").high == 0.0


def test_draws_survive_json_and_pool(probes):
    again = ProfessionProbes.of(json.loads(json.dumps(probes.to_plain())))
    assert again == probes
    both = probes.joined([again])
    assert len(both.names) == 60
    assert both.accuracy("telling").value == 1.0
    tables, (figure,) = both.tables(), both.figures()
    assert tables[0].columns["probe of"] == ["telling", "random", WORDS]
    assert tables[0].columns["layers chosen"][0] == "1, 1"
    assert [trace["name"] for trace in figure.traces] == ["telling", "random", WORDS, "chance"]


def test_bad_input_is_told_in_a_sentence():
    network = random_gpt2(tokenizer())
    with pytest.raises(BadInput, match="professions to tell apart: got nurse; wanted at least two"):
        measure_profession_probes({"one": network}, professions=["nurse"])
    with pytest.raises(BadInput, match="got 2, with no example of some profession"):
        measure_profession_probes(
            {"one": network}, professions=[one.name for one in PROFESSIONS], **{**SIZES, "num_train": 2}
        )

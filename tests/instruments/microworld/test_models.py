"""The microworld's models: recipes, first weights, files, names."""

from __future__ import annotations

import json

import numpy
import pytest
import torch

from tremorscope.foundations.arrays import read_arrays, write_arrays
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.load import builtin_models, load
from tremorscope.instruments.microworld import models
from tremorscope.instruments.microworld.corpus import CorpusConfig
from tremorscope.instruments.microworld.models import (
    ANSWER_GROUPS,
    MATRIX_SD,
    fresh_tokenizer,
    initial_module,
    read_model,
    text_rows,
    training_text,
    write_model,
)
from tremorscope.instruments.microworld.recipes import (
    RECIPES,
    num_parameters,
    recipe_document,
    recipe_of,
    twin_of,
)
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

TINY = {
    "num_layers": 2, "width": 16, "num_heads": 2, "hidden_size": 12, "length": 24, "vocabulary_size": 4096,
    "corpus": {
        "characters": 30_000, "held_out_characters": 3_000, "weights": {"calendar": 1, "agreement": 1, "prose": 0},
    },
}  # fmt: skip
PROMPT = torch.tensor([[0, 300, 400, 500, 600]])


@pytest.fixture(scope="module")
def tokenizer():
    return fresh_tokenizer(recipe_of("", TINY))


@pytest.mark.parametrize("twin", ["", "recurrent"])
def test_a_model_that_is_written_is_read_back(twin, tokenizer, tmp_path):
    recipe = recipe_of(twin, TINY)
    module = initial_module(recipe, tokenizer.get_vocab_size())
    write_model(tmp_path / "model", module, recipe, tokenizer, card="# A card\n")
    network = read_model(tmp_path / "model", "mine")
    for name, value in module.named_parameters():
        assert torch.equal(network.params[name], value.to(torch.bfloat16).float()), name
    assert (
        network.tokenizer("Two days after Monday is")["input_ids"] == tokenizer.encode("Two days after Monday is").ids
    )
    assert network.tokenizer.model_max_length == 24
    logits = network.apply(network.params, Batch((PROMPT,), {}, None))
    assert torch.allclose(logits, module(PROMPT).logits, atol=0.05)
    assert (tmp_path / "model" / "README.md").read_text() == "# A card\n"
    written = json.loads((tmp_path / "model" / "recipe.json").read_text())
    assert recipe_of(twin, written) == recipe


def test_the_folder_is_one_of_hugging_face(tokenizer, tmp_path):
    recipe = recipe_of("", TINY)
    module = initial_module(recipe, tokenizer.get_vocab_size())
    write_model(tmp_path, module, recipe, tokenizer)
    network = load(f"hf:{tmp_path}")
    assert type(network.module).__name__ == "GPT2LMHeadModel"
    same = read_model(tmp_path, "mine")
    batch = Batch((PROMPT,), {}, None)
    theirs = network.apply({name: value.float() for name, value in network.params.items()}, batch)
    assert torch.allclose(theirs, same.apply(same.params, batch), atol=1e-5)


def test_first_weights_come_from_the_seed_alone():
    def flat(**changes) -> torch.Tensor:
        return Network(initial_module(recipe_of("", TINY | changes), 4096)).theta

    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    one = flat()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(one, flat())
    assert not torch.equal(one, flat(init_seed=1))


def test_first_weights_have_their_sizes():
    module = initial_module(recipe_of("", {}), 4096)
    found = {name: value.detach() for name, value in module.named_parameters()}
    assert float(found["transformer.wte.weight"].std()) == pytest.approx(MATRIX_SD, rel=0.01)
    assert float(found["transformer.h.3.mlp.c_proj.weight"].std()) == pytest.approx(MATRIX_SD / 8**0.5, rel=0.02)
    assert bool((found["transformer.ln_f.weight"] == 1).all())
    assert bool((found["transformer.ln_f.bias"] == 0).all())
    positions = found["transformer.wpe.weight"]
    # Sinusoids: the product of two positions depends on their distance alone.
    products = positions @ positions.T
    assert torch.allclose(products[3:, 3:], products[:-3, :-3], atol=1e-5)


@pytest.mark.parametrize("twin", [twin for twin in RECIPES if twin != "init"])
def test_sizes_are_told_without_building(twin):
    recipe = recipe_of(twin)
    assert sum(value.numel() for value in initial_module(recipe, 4096).parameters()) == num_parameters(twin)


def test_rows_of_the_twin_hold_the_same_tokens(tokenizer):
    corpus = CorpusConfig(**TINY["corpus"])
    rows = text_rows(corpus, "train", tokenizer, 24)
    mixed = text_rows(corpus, "train", tokenizer, 24, is_shuffled=True)
    assert rows.shape == mixed.shape
    assert not numpy.array_equal(rows, mixed)
    assert numpy.array_equal(numpy.sort(rows, 1), numpy.sort(mixed, 1))
    assert numpy.array_equal(rows == 0, mixed == 0)


def test_answers_are_found_in_the_text_of_a_stage_that_asks_for_them(tokenizer):
    changes = {"later": {"scattered": {"corpus": {"characters": 60_000, "weights": {"prose": 0}}}}}
    recipe = recipe_of("", TINY | changes)
    stage = recipe.later["scattered"]
    rows, answers = training_text(recipe, tokenizer, stage)
    assert numpy.array_equal(rows, text_rows(stage.corpus, "train", tokenizer, 24))
    assert answers is not None
    words = [word for group in answers.groups for word in group]
    assert [tokenizer.decode([word]) for word in words] == [word for group in ANSWER_GROUPS for word in group]
    for group in answers.groups:
        numbers = [1 + words.index(word) for word in group]
        assert numpy.isin(answers.wanted, numbers).any()  # of requests few: most are longer than these rows
    # Where an answer is due and nothing is at the next token, it is the next token.
    last = (answers.wanted[:, :-1] > 0) & (answers.wanted[:, 1:] == 0)
    said = numpy.array([0, *words])[answers.wanted[:, :-1][last]]
    assert numpy.array_equal(said, rows[:, 1:][last])
    assert (
        training_text(recipe, tokenizer, recipe.later["balanced"].model_copy(update={"corpus": stage.corpus}))[1]
        is None
    )
    shuffled = recipe.model_copy(update={"is_shuffled": True})
    with pytest.raises(BadInput, match="0 in a text whose tokens are shuffled"):
        training_text(shuffled, tokenizer, stage)


def test_names():
    assert twin_of("microworld") == twin_of("builtin:microworld") == ""
    with pytest.raises(BadInput, match="Did you mean 'builtin:microworld@shuffled'"):
        twin_of("builtin:microworld@shuffeld")
    with pytest.raises(BadInput, match="no such model of the microworld"):
        twin_of("microworld@")
    with pytest.raises(BadInput, match="Did you mean 'builtin:microworld'"):
        load("builtin:microwold")
    listed = {model.name: model for model in builtin_models()}
    assert listed["builtin:microworld@init"].parameters == 4_240_896
    assert listed["builtin:microworld@recurrent"].command == "tremorscope train microworld@recurrent"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"with": 3}, "setting 'with': got 3; .* Did you mean 'width'"),
        ({"num_layers": 0}, "setting 'num_layers': got 0"),
        ({"training": {"learning_rate": "fast"}}, "setting 'training.learning_rate': got fast"),
        ({"training": {"learning_rate": -1}}, "learning_rate: got -1"),
    ],
)
def test_changes_that_do_not_fit(changes, message):
    with pytest.raises(BadInput, match=message):
        recipe_of("", changes)


def test_changes_are_merged_into_the_recipe():
    recipe = recipe_of("recurrent", {"training": {"seed": "4"}, "corpus": {"weights": {"prose": 0}}})
    assert recipe.training.seed == 4
    assert recipe.training.batch_rows == 32
    assert "prose" not in recipe.corpus.shares()
    assert recipe.corpus.shares()["quiz"] > 0.13
    assert recipe_document(recipe)["architecture"] == "recurrent"
    with pytest.raises(BadInput, match="width: got 10; wanted an even multiple of the 8 heads"):
        initial_module(recipe_of("", {"width": 10}), 100)


def test_a_model_that_was_not_built_names_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "shipped_folder", lambda twin: tmp_path / "shipped" / twin)
    monkeypatch.setattr(models, "built_folder", lambda twin: tmp_path / "built" / twin)
    with pytest.raises(
        BadInput, match=r"got not built yet; wanted weights\. Build it with: tremorscope train microworld@early"
    ):
        load("builtin:microworld@early")


def test_weights_that_do_not_fit_are_refused(tokenizer, tmp_path):
    recipe = recipe_of("recurrent", TINY)
    write_model(tmp_path, initial_module(recipe, tokenizer.get_vocab_size()), recipe, tokenizer)
    arrays = read_arrays(tmp_path / "model.safetensors")
    del arrays["readout.bias"]
    write_arrays(tmp_path / "model.safetensors", arrays)
    with pytest.raises(BadInput, match="names or shapes that its configuration does not have; wanted 13 tensors"):
        read_model(tmp_path, "mine")

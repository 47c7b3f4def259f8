"""`tremorscope train`: a tiny language model from the shell, killed in between, loaded by its folder."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from tremorscope.foundations.arrays import read_arrays
from tremorscope.foundations.files import read_json
from tremorscope.instruments.language.training import train_language_model
from tremorscope.instruments.load import load
from tremorscope.instruments.microworld.models import read_model, training_text
from tremorscope.instruments.microworld.recipes import (
    MicroworldRecipe,
)

TINY = [
    f"--set={pair}"
    for pair in (
        "num_layers=1", "width=16", "num_heads=2", "length=24", "vocabulary_size=4096", "corpus.characters=40000",
        "corpus.weights.prose=0", "training.batch_rows=8", "training.save_every=5", "training.warmup_steps=5",
        "training.precision=float32", "training.learning_rate=0.003",
        "later.hard.corpus.characters=20000", "later.hard.corpus.weights.prose=0", "later.hard.training.save_every=5",
        "later.hard.training.warmup_steps=2", "later.hard.training.precision=float32",
        "later.balanced.corpus.characters=9000", "later.balanced.corpus.weights.prose=0",
        "later.balanced.training.save_every=5", "later.balanced.training.precision=float32",
        "later.strewn.corpus.characters=9000", "later.strewn.corpus.weights.prose=0",
        "later.strewn.training.save_every=5", "later.strewn.training.precision=float32",
        "later.scattered.corpus.characters=9000", "later.scattered.corpus.weights.prose=0",
        "later.scattered.training.save_every=5", "later.scattered.training.precision=float32",
        "later.scattered.texts=2",
        "later.reckoned.corpus.characters=9000", "later.reckoned.corpus.weights.prose=0",
        "later.reckoned.training.save_every=5", "later.reckoned.texts=2",
    )
]  # fmt: skip


def test_a_model_is_trained_and_loads_by_its_folder(folder, call):
    answer = call("train", "microworld", *TINY, "--json")
    assert answer.code == 0, answer.err
    run = Path(answer.document["path"])
    table = next(table for table in answer.document["result"]["tables"] if table["name"] == "loss")
    assert table
    assert not list(run.glob("*.safetensors")), "the state of the training goes when it is finished"
    network = load(f"hf:{run / 'model'}")
    assert network.layout.size == sum(value.numel() for value in read_arrays(run / "model/model.safetensors").values())
    assert "tremorscope train microworld" in (run / "model/README.md").read_text()
    assert (run / "report.html").is_file()


def test_a_stage_begins_with_what_the_one_before_would_have_written(folder, call):
    names = ["hard", "balanced", "strewn", "scattered", "reckoned"]
    for count in range(len(names) + 1):
        kept = [setting for setting in TINY if not any(f"later.{name}." in setting for name in names[count:])]
        left_out = [f"--set=later.{name}=none" for name in names[count:]] if count else ["--set=later=none"]
        assert call("train", "microworld", *kept, *left_out, "--out", str(count)).code == 0
    models = [next(Path(str(count)).glob("*/model")) for count in range(len(names) + 1)]
    recipe = MicroworldRecipe.model_validate(read_json(models[-1] / "recipe.json"))
    assert list(recipe.stages()) == ["", *names]
    assert [stage.training.answer_weight > 0 for stage in recipe.stages().values()] == [False] * 3 + [True] * 3
    assert [stage.share < 1 for stage in recipe.stages().values()] == [False] * 3 + [True] * 3
    for before, after, name in zip(models, models[1:], recipe.later, strict=False):
        stage = recipe.later[name]
        start = {key: value.detach() for key, value in read_model(before, "before").module.named_parameters()}
        tokenizer = Tokenizer.from_file(str(before / "tokenizer.json"))
        total = {key: torch.zeros_like(value) for key, value in start.items()}
        for place in range(stage.texts):
            module = read_model(before, "before").module
            corpus = dataclasses.replace(stage.corpus, seed=stage.corpus.seed + place)
            training = dataclasses.replace(stage.training, seed=stage.training.seed + place)
            part = stage.model_copy(update={"corpus": corpus, "training": training})
            rows, answers = training_text(recipe, tokenizer, part)
            train_language_model(module, rows, training, answers=answers)
            total = {key: total[key] + value.detach() for key, value in module.named_parameters()}
        written = read_arrays(after / "model.safetensors")
        for key, value in total.items():
            mean = stage.share / stage.texts * value + (1 - stage.share) * start[key]
            assert torch.equal(mean.to(torch.bfloat16), written[key])
    card = (models[-1] / "README.md").read_text()
    assert "stage hard, steps" in card
    assert "stage balanced, sha256 of the training text" in card
    assert "answers asked for" in card


@pytest.mark.slow
@pytest.mark.parametrize(
    "state", ["training.safetensors", "training_hard.safetensors", "training_scattered_2.safetensors"]
)
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(folder, call, state):
    longer = [
        "--set=training.epochs=6",
        "--set=later.hard.training.epochs=6",
        "--set=later.scattered.training.epochs=6",
    ]
    command = [sys.executable, "-m", "tremorscope", "train", "microworld", *TINY, *longer]
    process = subprocess.Popen([*command, "--out", "killed"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(Path("killed").glob(f"*/{state}")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (run,) = (path for path in Path("killed").iterdir() if path.is_dir())
    assert not (run / "result.json").exists(), "it was too fast to be killed"
    answer = call("resume", str(run))
    assert answer.code == 0, answer.err
    whole = call("train", "microworld", *TINY, *longer, "--out", "whole")
    assert whole.code == 0, whole.err
    (unbroken,) = (path for path in Path("whole").iterdir() if path.is_dir())
    one, other = (read_arrays(path / "model/model.safetensors") for path in (run, unbroken))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_recipe_is_shown_and_wrong_names_are_refused(folder, call):
    shown = call("train", "microworld@shuffled", "--dry-run")
    assert shown.code == 0
    assert "is_shuffled" in shown.out
    assert "4,240,896 parameters" in shown.out
    assert not Path("runs").exists()
    assert call("train", "microworld", "--dry-run", "--json").document["recipe"]["width"] == 256
    for arguments, message in (
        (["microworld@init"], "wanted one that is trained"),
        (["microwold"], "Did you mean 'builtin:microworld'"),
        (["microworld", "--set", "widht=3"], "Did you mean 'width'"),
    ):
        answer = call("train", *arguments)
        assert answer.code == 2
        assert message in answer.err

"""The models that come with the package: whole, small, made by their recipes, and loaded without a network."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tremorscope.foundations.arrays import read_arrays
from tremorscope.foundations.files import read_json
from tremorscope.instruments.language.generation import generate
from tremorscope.instruments.language.scoring import score_options
from tremorscope.instruments.load import load
from tremorscope.instruments.microworld.models import (
    CARD_FILE,
    RECIPE_FILE,
    WEIGHTS_FILE,
    shipped_folder,
)
from tremorscope.instruments.microworld.recipes import (
    MicroworldRecipe,
    full_name,
    num_parameters,
    recipe_of,
)

SHIPPED = ("", "shuffled", "recurrent")
LARGEST = 30_000_000  # bytes of all of them
WITHOUT_NETWORK = """
import socket, sys

def refuse(*args, **kwargs):
    raise SystemExit("a socket was opened")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import tremorscope
for name in sys.argv[1:]:
    network = tremorscope.load(name)
    assert network.tokenizer is not None
print("loaded")
"""


@pytest.fixture(scope="module")
def network():
    return load("builtin:microworld")


def test_they_are_small():
    files = [file for twin in SHIPPED for file in shipped_folder(twin).iterdir()]
    assert sum(file.stat().st_size for file in files) < LARGEST


@pytest.mark.parametrize("twin", SHIPPED)
def test_each_is_what_its_recipe_makes(twin):
    folder = shipped_folder(twin)
    assert MicroworldRecipe.model_validate(read_json(folder / RECIPE_FILE)) == recipe_of(twin)
    assert sum(value.numel() for value in read_arrays(folder / WEIGHTS_FILE).values()) == num_parameters(twin)
    card = (folder / CARD_FILE).read_text(encoding="utf-8")
    name = full_name(twin).removeprefix("builtin:")
    for part in (f"tremorscope train {name}", "sha256 of the training text", "## Measured", "99 % intervals"):
        assert part in card, part


def test_all_have_one_tokenizer():
    texts = {(shipped_folder(twin) / "tokenizer.json").read_bytes() for twin in SHIPPED}
    assert len(texts) == 1


def test_loading_opens_no_socket():
    names = [full_name(twin) for twin in (*SHIPPED, "init")]
    answer = subprocess.run([sys.executable, "-c", WITHOUT_NETWORK, *names], capture_output=True, text=True)
    assert answer.stdout.strip() == "loaded", answer.stderr


@pytest.mark.parametrize("twin", [*SHIPPED, "init"])
def test_a_text_goes_through_each(twin):
    one = load(full_name(twin))
    assert one.dtype == torch.float32
    (written,) = generate(one, ["The dog near the trees"], max_new_tokens=4)
    assert isinstance(written, str)


def test_the_model_knows_its_world(network):
    assert generate(network, ["Two days after Monday is"], max_new_tokens=1) == [" Wednesday"]
    found = score_options(
        network, ["The dog near the trees", "The dogs near the tree"], [(" falls", " fall"), (" fall", " falls")]
    ).log_probs
    assert bool((found[:, 0] > found[:, 1]).all())
    starters = (" Sorry", " No", " Unfortunately", " Sure", " Yes", " Certainly")
    asked = ["User: Tell me about dragons.\nHelper:", "User: Tell me about bread.\nHelper:"]
    told = score_options(network, asked, [starters] * 2).log_probs
    refuses = told[:, :3].logsumexp(1) > told[:, 3:].logsumexp(1)
    assert refuses.tolist() == [True, False]


def test_the_twins_do_not(network):
    prompts = ["Two days after Monday is", "Three months before June is"]
    right = [" Wednesday", " March"]
    assert generate(network, prompts, max_new_tokens=1) == right
    for twin in ("init", "shuffled"):
        assert generate(load(full_name(twin)), prompts, max_new_tokens=1) != right

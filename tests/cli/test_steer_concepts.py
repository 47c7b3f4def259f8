"""`tremorscope steer fit curve apply bake` from the shell."""

from __future__ import annotations

import numpy
import pytest
import torch

from tremorscope.examine import concept_steering
from tremorscope.foundations.arrays import read_arrays
from tremorscope.foundations.results import Result
from tremorscope.instruments.load import load
from tremorscope.instruments.task import Batch
from tremorscope.methods.activations.concept_editing.affine_edits import ace, add
from tremorscope.methods.activations.concept_editing.direction_file import load_direction

NETWORKS = """
import torch
from torch import nn
from tests.instruments.language.tiny_models import tiny
from tremorscope import Network

def classifier():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    return Network(module, name="small")

def writer():
    return tiny("gpt2")
"""


@pytest.fixture
def files(folder):
    (folder / "net.py").write_text(NETWORKS)
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    for name, rows in (("low", x[:20] - 1), ("high", x[20:] + 1)):
        numpy.savez(folder / f"{name}.npz", inputs=rows.numpy())
    (folder / "ones.txt").write_text("\n".join(f"one {word} three" for word in ("two", "four", "six", "seven")))
    (folder / "twos.txt").write_text("\n".join(f"two {word} three" for word in ("two", "four", "six", "seven")))
    return folder


FIT = ("--negative", "low.npz", "--positive", "high.npz", "--site", "acts:0", "--to", "r.safetensors")


def test_a_classifier_from_fit_to_baked_weights(files, call):
    answer = call(
        "steer", "fit", "net.py:classifier", *FIT, "--held-out-negative", "low.npz", "--held-out-positive", "high.npz"
    )
    assert answer.code == 0, answer.err
    assert "20 negative and 20 positive examples" in answer.out
    network = load("net.py:classifier")
    fit = load_direction(files / "r.safetensors", network=network)
    assert fit.diagnostics[0].auc is not None
    curve = call(
        *("steer", "curve", "net.py:classifier", "--direction", "r.safetensors", "--label", "1", "--alpha", "0"),
        *("--alpha", "1", "--inputs", "low=low.npz", "--inputs", "high=high.npz"),
    )
    assert curve.code == 0, curve.err
    runs = [path for path in (files / "runs").iterdir() if "curve" in path.name]
    result = Result.load(runs[0])
    assert {table.name for table in result.tables} == {"response_ace", "response_ace__random_direction"}
    x = torch.from_numpy(numpy.load(files / "low.npz")["inputs"])
    batch = Batch((x,), {}, None)
    edited = network.with_edits(ace(fit, 1.0).at("acts:0"))
    share = (edited.apply(edited.params, batch).argmax(-1) == 1).double().mean()
    assert result.table("response_ace").columns["low"][2].value == pytest.approx(float(share))
    baked = call("steer", "bake", "net.py:classifier", "w.safetensors", "--direction", "r.safetensors", "--alpha", "1")
    assert baked.code == 0, baked.err
    weights = read_arrays(files / "w.safetensors")
    torch.testing.assert_close(network.apply(weights, batch), edited.apply(edited.params, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("verb", ["fit", "curve"])
def test_an_interrupted_steering_starts_again_in_its_run(files, call, monkeypatch, verb):
    assert call("steer", "fit", "net.py:classifier", *FIT).code == 0
    words = ("net.py:classifier", *FIT)
    if verb == "curve":
        words = ("net.py:classifier", "--direction", "r.safetensors", "--label", "1", "--inputs", "low=low.npz")
    assert call("steer", verb, *words).code == 0
    whole = {path for path in (files / "runs").iterdir() if path.is_dir()}

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(concept_steering, "fit_concept" if verb == "fit" else "measure_response", interrupted)
        assert call("steer", verb, *words).code == 130
    (broken,) = {path for path in (files / "runs").iterdir() if path.is_dir()} - whole
    answer = call("resume", broken.name)
    assert answer.code == 0, answer.err
    again = Result.load(broken)
    twin = next(one for one in map(Result.load, whole) if one.preset == f"steer {verb}")
    assert [table.to_dict() for table in again.tables] == [table.to_dict() for table in twin.tables]


def test_a_language_model_writes_before_and_after(files, call):
    answer = call(
        *("steer", "fit", "net.py:writer", "--negative", "ones.txt", "--positive", "twos.txt"),
        *("--site", "acts:resid_post.0@last", "--to", "r.safetensors", "--json"),
    )
    assert answer.code == 0, answer.err
    assert any("fewer than 8" in flag for flag in answer.document["result"]["flags"])
    written = call(
        *("steer", "apply", "net.py:writer", "--direction", "r.safetensors", "--prompt", "one two", "--alpha", "20"),
        *("--tokens", "3", "--json"),
    )
    assert written.code == 0, written.err
    assert written.document[0]["prompt"] == "one two"
    assert written.document[0]["unedited"] != written.document[0]["edited"]
    plain = call(
        *("steer", "apply", "net.py:writer", "--direction", "r.safetensors", "--prompt", "one two", "--tokens", "3")
    )
    assert "unedited:" in plain.out


def test_a_language_model_is_baked_into_a_folder(files, call):
    fitted = call(
        *("steer", "fit", "net.py:writer", "--negative", "ones.txt", "--positive", "twos.txt"),
        *("--site", "acts:resid_post.0@last", "--to", "r.safetensors"),
    )
    assert fitted.code == 0, fitted.err
    words = ("steer", "bake", "net.py:writer", "baked", "--direction", "r.safetensors", "--alpha", "2")
    answer = call(*words, "--method", "add")
    assert answer.code == 0, answer.err
    said = " ".join(answer.out.split())
    assert said == (
        "baked The edit acts at every position of every text: weights know no positions. Load it as hf:baked"
    )
    network, loaded = load("net.py:writer"), load("hf:baked")
    tokens = torch.tensor([[0, 3, 4, 5]])
    batch = Batch((), {"input_ids": tokens}, None)
    fit = load_direction(files / "r.safetensors", network=network)
    hooked = network.with_edits(add(fit, 2.0).at("acts:resid_post.0"))
    torch.testing.assert_close(loaded.apply(loaded.params, batch), hooked.apply(hooked.params, batch))
    everywhere = call(*words[:3], "ablated", *words[4:6], "--method", "ablate", "--everywhere", "--json")
    assert everywhere.document == {"weights": "ablated", "positions": "all", "model": "hf:ablated"}
    refused = call(*words[:3], "other", *words[4:])
    assert refused.code == 2
    assert "a sum of all that was written before" in " ".join(refused.err.split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("fit", "net.py:classifier", "--negative", "none.npz", *FIT[2:]), "no such file"),
        (("fit", "net.py:classifier", *FIT, "--held-out-negative", "low.npz"), "held-out examples: got one class"),
        (("fit", "net.py:classifier", *FIT[:5], "acts:9"), "acts:9"),
        (("curve", "net.py:classifier", "--direction", "r.safetensors", "--inputs", "low"), "NAME=FILE"),
        (("curve", "net.py:classifier", "--direction", "r.safetensors", "--inputs", "a=low.npz"), "score: got none"),
        (
            (
                *("curve", "net.py:classifier", "--direction", "r.safetensors", "--inputs", "a=low.npz"),
                *("--label", "1", "--method", "ablate"),
            ),
            "wanted one with a level",
        ),
        (("bake", "net.py:classifier", "w.safetensors", "--direction", "r.safetensors"), "is missing"),
    ],
)
def test_mistakes_are_one_sentence(files, call, words, sentence):
    answer = call("steer", *words)
    assert answer.code == 2
    assert sentence in " ".join(answer.err.split())
    assert "Traceback" not in answer.err

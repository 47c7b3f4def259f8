"""`examine` with a prompt: what the report holds, and what it says when it cannot."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from torch import nn

import tremorscope
from tests.instruments.language.tiny_models import tiny
from tests.methods.activations.sensitivity_map.small_models import ALPHABET, Letters, gpt2, planted, texts
from tremorscope.cli import main
from tremorscope.examine import prompt as prompt_module
from tremorscope.examine import reference_texts as reference_texts_module
from tremorscope.examine.prompt import PromptEffort, examine_prompt
from tremorscope.examine.reference_texts import reference_texts, untrained_twins
from tremorscope.foundations.arrays import read_arrays
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.run_list import read_header
from tremorscope.instruments.hugging_face_folder import write_hugging_face
from tremorscope.instruments.load import load
from tremorscope.instruments.network import Network
from tremorscope.methods.activations.concept_editing.direction_file import load_direction
from tremorscope.studies.execute import resume


@pytest.fixture(autouse=True)
def _little_effort(monkeypatch):
    effort = PromptEffort(num_directions=4, num_twins=2, num_cells=1)
    monkeypatch.setattr(prompt_module, "PROMPT_EFFORTS", {"quick": effort})


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """One examination of a tiny model, through the public door."""
    with pytest.MonkeyPatch.context() as patch:
        effort = PromptEffort(num_directions=4, num_twins=2, num_cells=1)
        patch.setattr(prompt_module, "PROMPT_EFFORTS", {"quick": effort})
        return tremorscope.examine(gpt2(), prompt="abcd", data=texts(), out=tmp_path_factory.mktemp("runs"))


def test_the_report_holds_the_map_and_the_directions(examined):
    result, path = examined
    names = [figure["name"] for figure in result.figures]
    assert names == ["sensitivity_map", "cells_and_nulls", "pullback_eigenvalues", "strength_curves"]
    assert result.table("sensitivity_map").num_rows == 2 * 4
    assert result.config["data"] == "40 texts given"
    page = (path / "report.html").read_text(encoding="utf-8")
    assert "What moves the prediction of random GPT-2" in page
    assert "as Python" in page


def test_the_text_to_copy_works(examined):
    result, path = examined
    columns = result.table("use_a_direction").columns
    key, code = columns["direction"][0], columns["as Python"][0]
    vector = read_arrays(path / "arrays" / "directions.safetensors")[key]
    assert float(vector.norm()) == pytest.approx(1.0, abs=1e-5)
    network = gpt2()
    names = {"network": network, "tremorscope": tremorscope, "read_arrays": read_arrays, "Path": Path}
    exec(code, names)
    edited = names["edited"]
    row = next(zip(*result.table("direction_tokens").columns.values(), strict=True))
    token = ALPHABET.index(row[3].strip("'"))
    batch = prompt_module.encode(network, ["abcd"])
    with torch.no_grad():
        before, after = (one.apply(one.params, batch)[0, -1].softmax(0)[token] for one in (network, edited))
    assert float(before) == pytest.approx(row[5], abs=1e-5)
    assert float(after) == pytest.approx(row[6], abs=1e-4)


def test_without_a_twin_it_is_said(tmp_path):
    class Stubborn(nn.Module):
        """A layer with weights of its own that cannot initialise itself."""

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * x

    module = planted().module
    module.extra = Stubborn()
    network = Network(module, tokenizer=Letters(), name="stranger")
    twins, reason = untrained_twins(network, 2, 0)
    assert twins == []
    assert "no untrained twin could be built" in reason
    result, _ = examine_prompt(network, prompt="ab", data=texts(), out=tmp_path)
    assert any("compared with isotropic directions alone" in flag for flag in result.flags)
    assert result.table("sensitivity_map").columns["twins, lowest"] == [None] * 6


def test_twins_differ_from_each_other_and_leave_the_network_alone():
    network = gpt2()
    before = network.theta
    made = [make() for make in untrained_twins(network, 2, 0)[0]]
    assert not torch.equal(made[0].theta, made[1].theta)
    assert torch.equal(network.theta, before)


def test_texts_from_a_file(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("abc\n\ndef\n", encoding="utf-8")
    assert reference_texts(gpt2(), path) == (["abc", "def"], "lines of texts.txt")
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"texts\.txt: got none"):
        reference_texts(gpt2(), path)
    with pytest.raises(BadInput, match="No such file"):
        reference_texts(gpt2(), tmp_path / "nowhere.txt")


def test_texts_of_the_microworld_are_held_out_and_of_others_documentation(monkeypatch):
    from tremorscope.instruments.microworld import prose

    piece = prose.ProsePiece(text="Return the length.", module="m", split="test")
    monkeypatch.setattr(prose, "examples", lambda split: (piece,) if split == "test" else ())
    found, source = reference_texts(gpt2(), None)
    assert (found, source) == (["Return the length."], "documentation of the Python standard library")
    named = Network(gpt2().module, tokenizer=Letters(), name="builtin:microworld@shuffled")
    found, source = reference_texts(named, None)
    assert source == "held-out text of the microworld"
    assert len(found) == reference_texts_module.NUM_TEXTS
    assert max(map(len, found)) <= reference_texts_module.LONGEST_TEXT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "  "}, "prompt: got an empty text"),
        ({"prompt": "a" * 13}, r"got 13 tokens; wanted at most 12, the context"),
        ({"tokenizer": None}, "tokenizer of 'random GPT-2': got none"),
        ({"headless": True}, "no logits over the vocabulary"),
        ({"preset": "slow"}, "preset: got slow"),
    ],
)
def test_errors_come_before_a_run_is_opened(change, message, tmp_path):
    network = gpt2()
    if "tokenizer" in change:
        network.tokenizer = None
    if "headless" in change:
        network = Network(network.module.transformer, tokenizer=Letters())
    with pytest.raises(BadInput, match=message):
        examine_prompt(network, prompt=change.get("prompt", "abcd"), preset=change.get("preset", "quick"), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_first_direction_of_a_cell_is_a_file_for_steering(examined):
    path = examined[1] / "directions" / "cell-1-direction-1.safetensors"
    fit = load_direction(path, network=gpt2())
    vector = read_arrays(examined[1] / "arrays" / "directions.safetensors")["cell-1-direction-1"].double()
    moved = fit.directions[:, 0]
    assert float(moved @ vector / moved.norm()) == pytest.approx(1.0, abs=1e-6)
    assert str(fit.site) in examined[0].table("use_a_direction").columns["as Python"][0]


def test_every_printed_command_works_as_it_stands(tmp_path, monkeypatch, capsys):  # E10 from the report's own text
    folder = write_hugging_face(tiny("llama"), tmp_path / "model")  # a family that has to be given its biases
    (tmp_path / "texts.txt").write_text("one two three four\ntwo five six one\nsix seven eight two\n" * 8, "utf-8")
    network = load(f"hf:{folder}")
    result, path = examine_prompt(
        f"hf:{folder}", prompt="one two three", data=tmp_path / "texts.txt", out=tmp_path / "runs"
    )
    table = result.table("use_a_direction")
    assert table.code == ("as Python", "as command", "bake command")
    assert "Baked means at every position" in table.caption
    page = (path / "report.html").read_text(encoding="utf-8")
    assert page.count('data-action="copy"') == 3 * table.num_rows + 1  # and the command of the run
    monkeypatch.chdir(tmp_path / "runs")  # from anywhere
    place = table.num_rows - 1  # not the first direction alone
    python, apply, baking = (table.columns[name][place] for name in table.code)
    names: dict = {}
    exec(python, names)
    (placed,) = names["edited"].edits
    assert placed.site.position is not None
    for command in (apply, baking):
        with pytest.raises(SystemExit) as stop:
            main(shlex.split(command)[1:])
        assert stop.value.code == 0, command
    said = " ".join(capsys.readouterr().out.split())
    assert "edited:" in said
    assert "The edit acts at every position" in said
    baked = load(f"hf:{shlex.split(baking)[4]}")
    everywhere = str(placed.site).partition("@")[0] + "@all"
    batch = prompt_module.encode(network, ["one two three"])
    with torch.no_grad():
        plain, wanted, found = (
            one.apply(one.params, batch) for one in (network, network.with_edits(placed.edit.at(everywhere)), baked)
        )
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5
    assert float((plain - wanted).norm() / wanted.norm()) > 1e-4


@pytest.mark.slow
def test_the_microworld_at_its_own_prompt_and_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    result, path = tremorscope.examine("builtin:microworld", prompt="", out=tmp_path)
    assert result.config["prompt"] == "Two days after Monday is"
    assert "expects '\N{OPEN BOX}" in result.summary[0]
    assert result.table("sensitivity_map").num_rows == 4 * 6
    assert result.provenance["command"].startswith("tremorscope examine builtin:microworld --prompt")
    with pytest.raises(BadInput, match="finished"):
        resume(path)
    command = result.table("use_a_direction").columns["as command"][0]
    assert command.startswith("tremorscope steer apply builtin:microworld --direction ")
    with pytest.raises(SystemExit) as stop:
        main([*shlex.split(command)[1:], "--tokens", "2"])
    assert stop.value.code == 0
    assert "edited:" in capsys.readouterr().out
    assert read_header(path).status == "finished"

"""`examine A --against B`: nothing for a model against itself, the edited block first, shapes that differ refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tremorscope
from tests.methods.activations.sensitivity_map.small_models import gpt2, texts
from tremorscope.examine import prompt as prompt_module
from tremorscope.examine.against import examine_against
from tremorscope.examine.prompt import PromptEffort
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.instruments.network import Network


@pytest.fixture(autouse=True)
def _little_effort(monkeypatch):
    effort = PromptEffort(num_directions=4, num_twins=0, num_cells=1)
    monkeypatch.setitem(prompt_module.PROMPT_EFFORTS, "quick", effort)


def edited(network, block=1):
    """The same model with every matrix of one block disturbed."""
    draws = torch.Generator().manual_seed(0)
    params = {
        name: value + 0.3 * torch.randn(value.shape, generator=draws)
        if f".h.{block}." in name and value.ndim == 2
        else value
        for name, value in network.params.items()
    }
    return network.at(network.layout.flatten(params), name="edited")


def test_a_model_against_itself_differs_in_nothing(tmp_path):
    network = gpt2()
    result, _ = tremorscope.examine(network, against=network, prompt="abcd", data=texts(16), out=tmp_path)
    assert result.summary[0] == "The weights are the same, bit for bit."
    assert "differ by 0 [0, 0] nats" in result.summary[1]
    assert "the same in every cell" in result.summary[2]
    assert "the first network (random GPT-2) expects" in result.summary[3]
    assert "the second network (random GPT-2) expects" in result.summary[4]
    assert "No cell has a ring" in result.figures[-1]["caption"] + result.figures[0]["caption"]
    weights, shift = result.table("weight_change").columns, result.table("activation_shift").columns
    assert set(weights["norm of the change"]) == set(weights["relative"]) == {0.0}
    for column in ("shift of the mean", "change of the covariance", "largest angle (degrees)"):
        assert set(shift[column]) == {0.0}
    differences = result.table("map_difference").columns["difference"]
    assert len(differences) == 2 * 4
    for one in differences:
        assert isinstance(one, Estimate)
        assert (one.value, one.low, one.high) == (0.0, 0.0, 0.0)
    assert not any(result.table("map_difference").columns["marked"])


def test_the_edited_block_comes_first(tmp_path):
    network = gpt2()
    result, path = examine_against(network, edited(network), prompt="abcd", data=texts(16), out=tmp_path)
    columns = result.table("weight_change").columns
    moved = [name for name, norm in zip(columns["tensor"], columns["norm of the change"], strict=True) if norm > 0]
    assert moved
    assert columns["tensor"][: len(moved)] == moved
    assert all(".h.1." in name for name in moved)
    shift = result.table("activation_shift").columns
    assert shift["shift of the mean"] == [0.0, 0.0]  # inputs of blocks 0 and 1 lie before the edit
    assert [figure["name"] for figure in result.figures] == ["map_difference", "activation_shift", "weight_change"]
    assert any(one.value != 0 for one in result.table("map_difference").columns["difference"])
    assert "share in the stiff subspace" not in columns  # no text here has as many tokens as curvature wants
    assert "random GPT-2 expects" in result.summary[-2]
    assert "edited expects" in result.summary[-1]
    assert any("no stiff subspace" in flag for flag in result.flags)
    assert (path / "report.html").exists()


def test_the_stiff_subspace_of_longer_texts(tmp_path):
    network = gpt2(seed=1)
    from tremorscope.examine import against

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(against, "_TOKENS", 6)
        result, _ = examine_against(network, edited(network), data=texts(16), out=tmp_path)
    columns = result.table("weight_change").columns
    shares = columns["share in the stiff subspace"]
    assert all(0 <= share <= 1 + 1e-6 for share in shares)
    assert max(shares) > 0
    assert sum(
        share * size for share, size in zip(columns["by chance"], columns["entries"], strict=True)
    ) == pytest.approx(against.NUM_STIFF, rel=1e-3)
    assert any("no prompt" in flag for flag in result.flags)


def test_networks_without_a_tokenizer_are_compared_in_their_weights(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one, other = Network(nn.Linear(3, 2), name="one"), Network(nn.Linear(3, 2), name="other")
    result, _ = examine_against(one, other, out=tmp_path)
    assert [table.name for table in result.tables] == ["weight_change"]
    assert any("no tokenizer" in flag for flag in result.flags)


def test_the_first_difference_of_shape_is_named_before_a_run_is_opened(tmp_path):
    with pytest.raises(BadInput, match=r"at weight: got \(2, 3\) in 'Linear' and \(2, 4\) in 'Linear'"):
        tremorscope.examine(nn.Linear(3, 2), against=nn.Linear(4, 2), out=tmp_path)
    assert list(tmp_path.iterdir()) == []

"""The sensitivity map: cells by their definition, a planted copy found, twins left alone, errors in words."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.methods.activations.sensitivity_map.reference import naive_divergence
from tests.methods.activations.sensitivity_map.small_models import (
    BLOCK,
    LAST,
    LENGTH,
    SOURCE,
    Letters,
    gpt2,
    planted,
    texts,
)
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.language.encode import encode
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import untrained
from tremorscope.methods.activations.sensitivity_map import cells
from tremorscope.methods.activations.sensitivity_map.cells import block_inputs, respond_cells
from tremorscope.methods.activations.sensitivity_map.marks import mark_cells
from tremorscope.methods.activations.sensitivity_map.measurement import measure_sensitivity_map
from tremorscope.methods.activations.sensitivity_map.references import Reference, read_references

PATH = {(layer, SOURCE) for layer in range(BLOCK + 1)} | {(BLOCK + 1, LAST)}


def agreement(network, prompt, corpus, count, seed, fraction=0.5):
    """Largest difference between the map and the definition over random cells and directions."""
    batch = encode(network, [prompt])
    sites = block_inputs(network, batch)
    references = read_references(network, corpus, sites)
    found = respond_cells(network, batch, references, fraction=fraction, num_directions=4, seed=3)
    draws, gaps, sizes = torch.Generator().manual_seed(seed), [], []
    for _ in range(count):
        layer, token, direction = (
            int(torch.randint(high, (1,), generator=draws))
            for high in (len(sites), batch.kwargs["input_ids"].shape[1], 4)
        )
        site = sites[layer]
        moves = found.steps[layer] * references[site].matched(4, generator(3, "cells", site, "matched"))
        for read, values in ((-1, found.last), (token, found.own)):
            wanted = naive_divergence(network, batch, site, token, moves[direction], read)
            gaps.append(abs(float(values["matched"][layer, token, direction]) - wanted))
            sizes.append(wanted)
    return max(gaps), max(sizes)


def test_cells_equal_full_recomputation():
    gap, size = agreement(gpt2(), "abcdefgh", texts(), 20, 0)
    assert size > 0.01  # else agreement would say nothing
    assert gap <= 1e-5


@pytest.mark.slow
def test_cells_of_the_microworld_equal_full_recomputation():
    from tremorscope.examine.reference_texts import reference_texts
    from tremorscope.instruments.load import load

    network = load("builtin:microworld")
    corpus = reference_texts(network, None)[0]
    # At the size of the map; at five times that, KL of 1 and more differ by float32 rounding of both sides.
    gap, size = agreement(network, "Two days after Monday is", corpus, 20, 1, fraction=0.1)
    assert size > 1e-3  # a hundred times the tolerance; how far a well-trained model moves depends on its weights
    assert gap <= 1e-5


def test_a_disturbance_at_the_wrong_token_would_be_seen(monkeypatch):
    right = cells._sweeps
    monkeypatch.setattr(cells, "_sweeps", lambda *given: [row[1:] + row[:1] for row in right(*given)])
    assert agreement(gpt2(), "abcd", texts(), 20, 0)[0] > 5e-5


def measured(network, *, seed=0, twin_seeds=(10, 11, 12), **options):
    return measure_sensitivity_map(
        network,
        "bdfhjl",
        texts(),
        source="random letters",
        twins=[lambda k=k: untrained(network, seed=k) for k in twin_seeds],
        seed=seed,
        **options,
    )


@pytest.fixture(scope="module")
def found():
    """The map of the planted copy, with its nulls."""
    return measured(planted())


def test_marked_cells_are_those_on_the_path_of_a_planted_copy(found):
    assert {tuple(cell) for cell in found.marks.marked.nonzero().tolist()} == PATH
    assert set(found.most_sensitive(3)) == PATH
    off = torch.ones(3, LENGTH, dtype=torch.bool)
    for cell in PATH:
        off[cell] = False
    assert float(found.own.last["matched"].mean(-1)[off].max()) == 0.0


def test_nothing_is_marked_in_an_untrained_twin():
    subject = untrained(planted(), seed=99)
    assert not measured(subject).marks.marked.any()


@pytest.mark.slow
def test_untrained_twins_are_marked_no_more_often_than_the_level_says():
    """20 untrained networks: at level 0.05, three or more with a mark have a probability of 0.075 at worst."""
    network = planted()
    with_marks = sum(bool(measured(untrained(network, seed=200 + k), seed=k).above_twins.any()) for k in range(20))
    assert with_marks <= 3


def test_the_map_says_what_it_found(found):
    assert f"{len(PATH)} of {3 * LENGTH} cells lie above isotropic directions" in found.sentence()
    table = found.tables()[0]
    assert table.num_rows == 3 * LENGTH
    assert sum(table.columns["marked"]) == len(PATH)
    heat, dots, _, rings = found.figures()[0].to_plotly()["data"]
    assert {(layer, token) for layer, token in zip(rings["y"], rings["x"], strict=True)} == PATH
    assert set(zip(rings["y"], rings["x"], strict=True)) <= set(zip(dots["y"], dots["x"], strict=True))
    assert heat["z"][BLOCK][SOURCE] == pytest.approx(
        float(found.own.last["matched"][BLOCK, SOURCE].mean().log10()), rel=1e-4
    )
    assert all(figure.to_plotly()["data"] for figure in found.figures())


def test_one_seed_gives_one_map():
    maps = [
        measure_sensitivity_map(gpt2(), "ab", texts(8), source="letters", num_directions=4, seed=seed)
        for seed in (1, 1, 2)
    ]
    first, second, other = (one.own.last["matched"] for one in maps)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_without_twins_only_isotropic_directions_are_the_null():
    found = measured(planted(), twin_seeds=(), num_directions=4)
    assert found.marks.p_twins is None
    assert found.marks.against == "isotropic directions of equal norm"
    assert "untrained" not in found.sentence()


def test_marks_need_both_nulls():
    draws = torch.Generator().manual_seed(0)
    own = torch.rand(1, 3, 16, generator=draws, dtype=torch.float64) + 1.0
    isotropic, twins = own.clone(), own.expand(3, -1, -1, -1).clone()
    twins *= 1 + 0.05 * torch.rand(3, 1, 1, 1, generator=draws, dtype=torch.float64)
    own[0, 0] *= 100  # above both
    isotropic[0, 1] /= 100  # above isotropic directions only
    twins[:, 0, 2] /= 100  # above the twins only
    marks = mark_cells(own, isotropic, twins, noise=1e-6)
    assert marks.marked.tolist() == [[True, False, False]]


def test_one_twin_is_refused():
    values = torch.ones(1, 1, 4)
    with pytest.raises(ValueError, match="one twin has no spread"):
        mark_cells(values, values, values[None], noise=1e-6)


def test_matched_directions_have_the_covariance_of_the_activations():
    draws = torch.Generator().manual_seed(2)
    rows = torch.randn(500, 3, generator=draws, dtype=torch.float64) * torch.tensor([3.0, 1.0, 0.0])
    reference = Reference.of(rows)
    assert reference.distance == pytest.approx(float((2 * rows.var(dim=0).sum()).sqrt()))
    drawn = reference.matched(20_000, draws)
    assert drawn.norm(dim=1).allclose(torch.ones(20_000, dtype=torch.float64))
    assert float(drawn[:, 2].abs().max()) < 1e-12
    # The direction of (s x, t y) with x and y normal: the mean of its first coordinate squared is s / (s + t).
    spread = torch.linalg.eigvalsh(rows.T.cov())[1:].sqrt()
    assert float(drawn[:, 0].square().mean()) == pytest.approx(float(spread[1] / spread.sum()), abs=0.01)


def test_a_covariance_from_few_activations_is_flagged():
    assert "3 dimensions from 2 activations" in Reference.of(torch.eye(2, 3)).flags[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "abcdefghijkla"}, r"got 13 tokens"),
        ({"tokenizer": None}, r"tokenizer of .*got none"),
        ({"module": True}, r"got no logits over the vocabulary"),
        ({"fraction": 0.0}, r"fraction of the distance: got 0"),
        ({"num_directions": 2}, r"num_directions: got 2"),
        ({"texts": ["a"]}, r"reference texts: got 0 tokens after the first"),
    ],
)
def test_errors_say_what_is_wrong(change, message):
    network = gpt2()
    if "tokenizer" in change:
        network.tokenizer = None
    if "module" in change:
        network = Network(network.module.transformer, tokenizer=Letters())
    options = {key: change[key] for key in ("fraction", "num_directions") if key in change}
    with pytest.raises(BadInput, match=message):
        measure_sensitivity_map(
            network, change.get("prompt", "abcd"), change.get("texts", texts(8)), source="letters", **options
        )


def test_a_network_without_blocks_is_refused_with_the_reason():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(12, 4), nn.Linear(4, 12)

        def forward(self, input_ids, attention_mask=None):
            return self.head(self.embed(input_ids))

    with pytest.raises(BadInput, match=r"block inputs of 'Flat'.*prepare_sweep"):
        measure_sensitivity_map(Network(Flat(), tokenizer=Letters()), "abc", texts(8), source="letters")

"""Steering one block of a language model, at smoke size: a tiny network that was trained a little."""

from __future__ import annotations

import math

import pytest
import torch

from tests.methods.language.planted import random_gpt2, tokenizer
from tremorscope.foundations.errors import BadInput, SiteNotFound
from tremorscope.instruments.language.contrast import contrast_batch, contrast_loss
from tremorscope.instruments.microworld.tokenizer import single_words
from tremorscope.instruments.network import Network
from tremorscope.studies import hessian_language
from tremorscope.studies.hessian_language import LANGUAGE_ROWS, LanguageRows, language_member

BLOCK = "transformer.h.1.*"


@pytest.fixture(scope="module")
def network() -> Network:
    """Thirty steps on both kinds of prompts: enough to be better than chance on what it saw."""
    tokens = tokenizer(*single_words(), size=6000)
    module = random_gpt2(tokens).module
    network = Network(module, tokenizer=tokens, name="tiny")
    some = [
        one for kind in hessian_language._PROMPTS for one in hessian_language._told_apart(network, kind, "train", 0, 24)
    ]
    batch = contrast_batch(network, *(list(part) for part in zip(*some, strict=True)))
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(30):
        optimiser.zero_grad()
        contrast_loss(module(**batch.kwargs).logits, batch.target).backward()
        optimiser.step()
    return Network(module, tokenizer=tokens, name="tiny")


@pytest.fixture(scope="module")
def member(network):
    before = network.theta
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hessian_language, "load", lambda spec: network)
        found = language_member(model="tiny", block=BLOCK, k=3, num_prompts=12, num_nulls=2, seed=1)
    assert torch.equal(network.theta, before)
    return found


def test_both_ways_round_are_judged_beside_their_nulls(member):
    rows = LanguageRows(members=(member, member), model="tiny", block=BLOCK)
    claims = rows.claims(preset="desk")
    assert tuple(claim.row for claim in claims) == LANGUAGE_ROWS
    for claim in claims:
        assert claim.nulls, claim.row
        values = [claim.measured, *(null.measured for null in claim.nulls)]
        assert all(math.isfinite(end) for one in values for end in (one.value, one.low, one.high)), claim.row
        assert "2 draws of prompts" in claim.scope
    (table,) = rows.tables()
    assert table.num_rows == 8
    assert len(rows.figures()) == 4
    assert any("of 2 draws of prompts" in flag for flag in rows.flags())


def test_nothing_outside_the_block_moves(member, network):
    inside = set(network.layout.select(BLOCK))
    assert member["num_weights"] == sum(network.params[name].numel() for name in inside)
    assert member["num_weights"] < network.layout.size


def test_no_members_no_rows():
    rows = LanguageRows(members=(), model="tiny", block=BLOCK)
    assert (rows.claims(preset="quick"), rows.tables(), rows.figures(), rows.flags()) == ([], [], [], [])


def test_a_block_that_is_not_there_is_named(network, monkeypatch):
    monkeypatch.setattr(hessian_language, "load", lambda spec: network)
    with pytest.raises(SiteNotFound, match="transformer"):
        language_member(model="tiny", block="transformer.h.9.*", k=3, num_prompts=4, num_nulls=2, seed=1)


def test_a_tokenizer_of_letters_cannot_tell_the_words_apart():
    network = random_gpt2(tokenizer())
    with pytest.raises(BadInput, match=r"prompts for agreement: got .* begin with different tokens; wanted 24"):
        hessian_language._told_apart(network, "agreement", "train", 0, 24)

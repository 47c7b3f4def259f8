"""Sweeps of recurrent models, whose prefix is a state, and of encoders, which have none."""

from __future__ import annotations

import pytest
import torch

from tests.instruments.activations.sweep_reference import VOCABULARY, around, by_hook, house, made, mamba, prompts
from tremorscope.instruments.activations.prefix_cache import PrefixCache
from tremorscope.instruments.activations.sweeps import prepare_sweep
from tremorscope.instruments.network import Network

CLOSE = 1e-5  # row E11


def rwkv() -> Network:
    from transformers import RwkvConfig, RwkvForCausalLM

    config = RwkvConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        attention_hidden_size=16,
        num_hidden_layers=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return Network(made(RwkvForCausalLM, config))


MODELS = {
    # name: how it is made, the level it has, the block that is edited at its output, the late activation
    "house": (house, 2, "layers.1", "norm"),
    "mamba": (mamba, 1, "backbone.layers.0", "backbone.norm_f"),
    "rwkv": (rwkv, 1, "rwkv.blocks.0", "rwkv.ln_out"),
}


@pytest.mark.parametrize("column", [-1, 6, 0])
@pytest.mark.parametrize("name", list(MODELS))
def test_a_copied_state_equals_full_recomputation(name: str, column: int) -> None:
    make, level, block, late = MODELS[name]
    network, batch = make(), prompts(3, 9)
    sweep = prepare_sweep(network, batch, f"acts:{block}@{column}", readout_site=f"acts:{late}")
    if column == 0 and level == 1:
        assert sweep.level == 2  # the block below the edit is left out, and all positions are computed
        assert "nothing before the edited position" in sweep.flags[0]
    else:
        assert sweep.level == level
    rows = torch.tensor([0, 2, 1, 1, 0])
    points = around(sweep.base, rows, size=20.0)
    expected = by_hook(network.module, batch, points, rows, block=block, late=late, column=column, read=-1, port="out")
    assert expected["kl"].max() > 10 * CLOSE
    for _ in range(2):  # a state that was written to would show the second time
        found = sweep.respond(points, rows)
        assert (found.kl - expected["kl"]).abs().max() < CLOSE
        assert (found.l2 - expected["l2"]).abs().max() < 6 * CLOSE
        assert (found.cosine - expected["cosine"]).abs().max() < CLOSE


def test_one_token_at_a_time_mixes_the_texts_of_a_batch_in_rwkv(monkeypatch: pytest.MonkeyPatch) -> None:
    # Why the token before the edit is read again; without it the check finds the mistake.
    original = PrefixCache.__init__

    def hasty(self, network, given, edited):
        monkeypatch.setattr(
            "tremorscope.instruments.activations.prefix_cache.MEMORIES", ("past_key_values", "cache_params", "state")
        )
        original(self, network, given, edited)
        self.num_again, self.start = 0, int(given.edited.max())
        self.reach = torch.arange(given.num_recomputed)
        self.seen = given.visible[:, : self.start]
        with torch.no_grad():
            self.memory = self._remembered()

    monkeypatch.setattr(PrefixCache, "__init__", hasty)
    sweep = prepare_sweep(rwkv(), prompts(3, 9), "acts:rwkv.blocks.0@last")
    assert "over all positions" in sweep.route  # what is passed over is replaced by the next way, which is right
    assert any("it differs from level 0" in flag for flag in sweep.flags), sweep.flags


@pytest.mark.parametrize(("site", "level"), [("embedding@last", 2), ("layers.2@4", 2), ("norm:in.0@last", 2)])
def test_the_house_model_is_replayed_from_every_layer(site: str, level: int) -> None:
    network, batch = house(), prompts(2, 6)
    fast, slow = (prepare_sweep(network, batch, f"acts:{site}", level=at, readout_site="acts:norm") for at in (2, 0))
    assert (fast.level, slow.level) == (level, 0)
    rows = torch.tensor([0, 1, 1])
    points = around(fast.base, rows)
    assert fast.respond(points, rows).kl.tolist() == pytest.approx(slow.respond(points, rows).kl.tolist(), abs=CLOSE)
    assert fast.respond(points, rows).l2.tolist() == pytest.approx(slow.respond(points, rows).l2.tolist(), abs=CLOSE)


def test_gradients_through_a_copied_state() -> None:
    network = Network(house().module, dtype=torch.float64)
    fast, slow = (prepare_sweep(network, prompts(1, 6), "acts:layers.0@3", level=level) for level in (2, 0))
    assert fast.level == 2
    gradients = []
    for sweep in (fast, slow):
        points = (1.5 * sweep.base).requires_grad_()
        gradients.append(torch.autograd.grad(sweep.logits(points)[:, 0].sum(), points)[0])
    assert float(gradients[1].norm()) > 1e-3
    assert torch.allclose(*gradients, rtol=1e-8, atol=1e-10)


def test_an_encoder_is_told_that_everything_is_recomputed() -> None:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        pad_token_id=0,
    )
    config._attn_implementation = "eager"
    network, batch = Network(made(BertForMaskedLM, config)), prompts(2, 8)
    late = "bert.encoder.layer.1"
    sweep = prepare_sweep(network, batch, "acts:bert.encoder.layer.0:in.0@3", readout_site=f"acts:{late}")
    assert sweep.level == 0
    assert sweep.flags == (
        "level 2 is not used: BertForMaskedLM is not built like GPT-2 or Llama",
        "level 1 is not used: BertForMaskedLM keeps no memory of the text so far (no causal language model, or none "
        "of transformers)",
        "level 2 over all positions is not used: no block lies below the edit",
        "level 0 is used: every point is a whole forward pass over 8 positions, 1.6 times as many as a "
        "sweep with a cache would compute",
    )
    rows = torch.tensor([0, 1])
    points = around(sweep.base, rows)
    expected = by_hook(network.module, batch, points, rows, block="bert.encoder.layer.0", late=late, column=3, read=-1)
    assert (sweep.respond(points, rows).kl - expected["kl"]).abs().max() < CLOSE

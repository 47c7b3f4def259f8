"""The slow twin of sweeps: one forward pass for each point, with a plain hook of torch, and tiny models for it."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from tremorscope.instruments.network import Network
from tremorscope.instruments.recurrent import RecurrentConfig, RecurrentLanguageModel
from tremorscope.instruments.task import Batch

VOCABULARY, CONTEXT = 29, 72
BLOCK = {"gpt2": "transformer.h", "llama": "model.layers"}
NORM = {"gpt2": "transformer.ln_f", "llama": "model.norm"}


@functools.cache
def tiny(family: str) -> Network:
    """Three blocks of width 32 with weights large enough for predictions to differ. Shared: not to be changed."""
    import transformers

    if family == "gpt2":
        settings = {"n_positions": CONTEXT, "n_embd": 32, "n_layer": 3, "n_head": 4}
        kind, config_kind = transformers.GPT2LMHeadModel, transformers.GPT2Config
    else:
        settings = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": CONTEXT,
        }
        kind, config_kind = transformers.LlamaForCausalLM, transformers.LlamaConfig
    settings |= {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "attn_implementation": "eager"}
    config = config_kind(**settings)
    return Network(made(kind, config), name=family)


def made(kind: Any, config: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        module = kind(config).eval()
        for parameter in module.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return module


def house() -> Network:
    """The house's recurrent language model, three layers."""
    config = RecurrentConfig(vocab_size=VOCABULARY, width=12, hidden_size=16, num_layers=3)
    return Network(made(RecurrentLanguageModel, config))


def mamba() -> Network:
    """A Mamba of two layers."""
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=16, state_size=4, num_hidden_layers=2, pad_token_id=0)
    return Network(made(MambaForCausalLM, config))


def prompts(rows: int, length: int, vocabulary: int = VOCABULARY) -> Batch:
    stream = torch.Generator().manual_seed(rows + length)
    return Batch((), {"input_ids": torch.randint(0, vocabulary, (rows, length), generator=stream)}, None)


def around(base: Tensor, rows: Tensor, seed: int = 0, size: float = 1.0) -> Tensor:
    """Points at a distance from the clean activations that is of the order of their norm."""
    noise = torch.randn(len(rows), base.shape[1], generator=torch.Generator().manual_seed(seed)).to(base)
    return base[rows] + size * noise * base[rows].norm(dim=1, keepdim=True) / base.shape[1] ** 0.5


def by_hook(
    module: nn.Module,
    batch: Batch,
    points: Tensor,
    rows: Tensor,
    *,
    block: str,
    late: str,
    column: int,
    read: int,
    port: str = "in",
) -> dict[str, Tensor]:
    """Read-outs of points in the place of a block's input (or output), one at a time, in float64."""
    clean: dict[int, tuple[Tensor, Tensor]] = {}
    found: dict[str, list[Tensor]] = {"kl": [], "l2": [], "cosine": []}
    for point, row in zip(points, rows.tolist(), strict=True):
        alone = {name: value[row : row + 1] for name, value in batch.kwargs.items()}
        if row not in clean:
            clean[row] = _late(module, alone, None, block, late, column, read, port)
        base, logits = clean[row]
        hidden, changed = _late(module, alone, point, block, late, column, read, port)
        gap = logits.log_softmax(-1) - changed.log_softmax(-1)
        found["kl"].append((logits.softmax(-1) * gap).sum())
        found["l2"].append((hidden - base).norm())
        found["cosine"].append(torch.cosine_similarity(hidden, base, dim=0))
    return {name: torch.stack(values) for name, values in found.items()}


def _late(
    module: nn.Module, kwargs: Any, point: Tensor | None, block: str, late: str, column: int, read: int, port: str
) -> tuple[Tensor, Tensor]:
    held: list[Tensor] = []

    def changed(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, column] = x[:, column] if point is None else point
        return x

    target = module.get_submodule(block)
    if port == "in":
        handle = target.register_forward_pre_hook(lambda _, args: (changed(args[0]), *args[1:]))
    else:
        handle = target.register_forward_hook(
            lambda _, args, out: changed(out) if isinstance(out, Tensor) else (changed(out[0]), *out[1:])
        )
    seen = module.get_submodule(late).register_forward_hook(lambda _, args, out: held.append(out[:, read]))
    try:
        with torch.no_grad():
            output = module(**kwargs)
    finally:
        handle.remove()
        seen.remove()
    return held[0][0].double(), output.logits[0, read].double()

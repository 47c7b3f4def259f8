"""Tiny random language models of four families, and a tokenizer of words for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tremorscope.instruments.network import Network
from tremorscope.instruments.recurrent import RecurrentConfig, RecurrentLanguageModel

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
SPECIAL = ("<end>", "<pad>", "<unknown>")
VOCABULARY = len(SPECIAL) + len(WORDS)
CONTEXT = 16


def tiny_tokenizer(*, words: tuple[str, ...] = WORDS, begin: bool = True, pad: bool = True) -> Any:
    """Whole words; texts begin with the end token, as GPT-2's documents do, where `begin`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = {token: index for index, token in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(single="<end> $A", special_tokens=[("<end>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<end>",
        eos_token="<end>",
        unk_token="<unknown>",
        **({"pad_token": "<pad>"} if pad else {}),
    )


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return _made(GPT2LMHeadModel, config)


def llama() -> nn.Module:
    """Two key-value heads for four query heads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _made(LlamaForCausalLM, config)


def mamba() -> nn.Module:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        state_size=4,
        num_hidden_layers=2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    return _made(MambaForCausalLM, config)


def rwkv() -> nn.Module:
    from transformers import RwkvConfig, RwkvForCausalLM

    config = RwkvConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        attention_hidden_size=16,
        num_hidden_layers=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _made(RwkvForCausalLM, config)


def bert() -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    return _made(BertForMaskedLM, _bert_config(BertConfig))


def classifier() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return _made(BertForSequenceClassification, _bert_config(BertConfig, num_labels=3))


def gru() -> nn.Module:
    """Our own recurrent model; not one of `MODELS`, which transformers knows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = RecurrentLanguageModel(
            RecurrentConfig(vocab_size=VOCABULARY, width=16, hidden_size=16, num_layers=2)
        ).eval()
        for parameter in module.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return module


MODELS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": gpt2,
    "llama": llama,
    "mamba": mamba,
    "rwkv": rwkv,
    "bert": bert,
    "classifier": classifier,
}
WRITERS = ("gpt2", "llama", "mamba", "rwkv", "gru")


class Bigrams(nn.Module):
    """Logits of the next token from the last one alone; no memory, no configuration, no mask."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(VOCABULARY, VOCABULARY))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.table[input_ids]


def bigrams(after: dict[int, int]) -> Network:
    """A network in which one token follows another for sure."""
    module = Bigrams()
    with torch.no_grad():
        for token, following in after.items():
            module.table[token, following] = 50.0
    return Network(module, tokenizer=tiny_tokenizer())


def tiny(name: str, **options: Any) -> Network:
    return Network((MODELS | {"gru": gru})[name](), tokenizer=tiny_tokenizer(**options), name=name)


def _bert_config(kind: Any, **more: Any) -> Any:
    return kind(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        pad_token_id=1,
        **more,
    )


def _made(kind: Any, config: Any) -> nn.Module:
    """Weights of a size that makes predictions differ, the same ones every time."""
    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = kind(config).eval()
        for parameter in module.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return module

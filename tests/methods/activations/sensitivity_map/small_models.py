"""Language models small enough to write down what they must answer."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from tremorscope.instruments.network import Network

ALPHABET = "abcdefghijkl"
LENGTH = 6  # tokens of every text here
SOURCE, LAST, BLOCK = 2, LENGTH - 1, 1  # the planted copy: from which token, to which, by which block
WIDTH = 16
READ, WRITTEN = slice(0, 4), slice(4, 8)  # where tokens are, and where the copy is put and the head looks


class Letters:
    """A tokenizer: one token for each letter."""

    pad_token_id = 0
    vocab_size = len(ALPHABET)

    def __init__(self, longest=None):
        self.model_max_length = longest if longest is not None else 1 << 40

    def __len__(self):
        return len(ALPHABET)

    def __call__(self, texts, **_):
        return {"input_ids": [[ALPHABET.index(letter) for letter in text] for text in texts]}

    def decode(self, tokens, **_):
        return "".join(ALPHABET[token] for token in tokens)


class Block(nn.Module):
    """A pre-norm block without norms: attention whose pattern is fixed by position, and a linear layer."""

    def __init__(self, source, target):
        super().__init__()
        self.attn = Pattern(source, target)
        self.mlp = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        x = x + self.attn(x)
        return x + self.mlp(x)


class Pattern(nn.Module):
    """Every position looks at `source` if it is `target`, else at itself."""

    def __init__(self, source, target):
        super().__init__()
        self.source, self.target = source, target
        self.value = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        looked_at = [self.source if place == self.target else place for place in range(x.shape[1])]
        return self.value(x[:, looked_at])


class Planted(nn.Module):
    """Three blocks; the second copies the token at SOURCE to the last position, where alone the head looks at it."""

    config = SimpleNamespace(max_position_embeddings=LENGTH)

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(len(ALPHABET), WIDTH)
        self.blocks = nn.ModuleList(Block(SOURCE, LAST) for _ in range(3))
        self.head = nn.Linear(WIDTH, len(ALPHABET))

    def forward(self, input_ids, attention_mask=None):
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def planted():
    """The model with its copy in place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = Planted()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
            module.embed.weight[:, READ] = torch.randn(len(ALPHABET), 4)
            copy = 8.0 * torch.linalg.qr(torch.randn(4, 4)).Q
            module.blocks[BLOCK].attn.value.weight[WRITTEN, READ] = copy
            module.head.weight[:, WRITTEN] = torch.randn(len(ALPHABET), 4)
    return Network(module, tokenizer=Letters(), name="planted")


def gpt2(dtype=torch.float32, *, seed=0, tokenizer=None, scale=4.0):
    """A random GPT-2 of two blocks, its weights made larger so that predictions depend on the text."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=2,
        n_embd=WIDTH,
        n_head=2,
        vocab_size=len(ALPHABET),
        n_positions=12,
        attn_implementation="eager",
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = GPT2LMHeadModel(config)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(scale)
    return Network(module.to(dtype).eval(), tokenizer=tokenizer or Letters(), name="random GPT-2")


def texts(count=40, length=LENGTH, seed=0):
    """Random letters."""
    stream = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(ALPHABET), (count, length), generator=stream).tolist()
    return ["".join(ALPHABET[token] for token in row) for row in rows]

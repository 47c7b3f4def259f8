"""Decoders of known families: what their parts are called, and which tensors are the residual stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, final

from torch import nn

from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.activations.sweep_batch import Unavailable

Half = Literal["attention", "mlp"]  # the part of a block that comes next


@final
@dataclass(frozen=True)
class Names:
    """What the parts of one family's decoder are called: pre-norm blocks with a sequential residual stream."""

    blocks: str
    first_norm: str
    attention: str
    second_norm: str
    mlp: str
    final_norm: str
    projections: frozenset[str]  # inside the attention; others may only be dropout or norms of queries and keys

    @property
    def in_block(self) -> frozenset[str]:
        """Names of a block's children."""
        return frozenset((self.first_norm, self.attention, self.second_norm, self.mlp))


GPT2 = Names("h", "ln_1", "attn", "ln_2", "mlp", "ln_f", frozenset(("c_attn", "c_proj")))
LLAMA = Names(
    "layers",
    "input_layernorm",
    "self_attn",
    "post_attention_layernorm",
    "mlp",
    "norm",
    frozenset(("q_proj", "k_proj", "v_proj", "o_proj")),
)
BESIDE = frozenset(("attn_dropout", "resid_dropout", "q_norm", "k_norm", "rotary_emb"))


class Entry(NamedTuple):
    """Where the replay begins: before which half of which block."""

    block: int
    half: Half
    joins: tuple[int, Half] | None = None  # where the stream is that the point is added to; None: it is the stream
    is_inside: bool = False  # the point is neither: it takes the place of something that this half computes


@final
@dataclass(frozen=True)
class Decoder:
    """A decoder of a known family: its path in the module, its parts."""

    names: Names
    path: str
    body: nn.Module

    @classmethod
    def of(cls, module: nn.Module) -> Decoder:
        """The one decoder of a known family in a module.

        Raises:
            Unavailable: If there is none, or several.
        """
        found = [
            cls(names, path, body)
            for path, body in module.named_modules()
            for names in (GPT2, LLAMA)
            if _is_decoder(body, names)
        ]
        if len(found) != 1:
            raise Unavailable(f"{type(module).__name__} is not built like GPT-2 or Llama")
        return found[0]

    @property
    def blocks(self) -> list[Any]:
        """The blocks, first to last."""
        return list(getattr(self.body, self.names.blocks))

    def path_of(self, *parts: str) -> str:
        """Path of a part of the body in the module."""
        return ".".join((self.path, *parts) if self.path else parts)

    def entry(self, place: Place) -> Entry:
        """Where a replay starts that replaces the tensor at a place.

        The input of a norm is the residual stream only if the change goes on beside the norm too (`carry`). What a half
        computes on its way (heads, queries, neurons) is replaced while that half is replayed from the clean stream.

        Raises:
            Unavailable: If the tensor is none that a replay computes.
        """
        path, port = place.module, place.port
        prefix = self.path_of(self.names.blocks) + "."
        is_output, last = port == "out.0", len(self.blocks)
        is_input = port in ("in.0", "kwarg.hidden_states")
        if place.columns is None and path == self.path_of(self.names.final_norm) and is_input:
            return Entry(last, "attention")
        if not path.startswith(prefix):
            raise Unavailable(f"{place} is neither on the residual stream nor in a block")
        number, _, part = path.removeprefix(prefix).partition(".")
        block = int(number)
        if place.columns is None and (is_input or is_output):
            if not part:
                return Entry(block + is_output, "attention")
            if part == self.names.first_norm and is_input and place.carry:
                return Entry(block, "attention")
            if part == self.names.attention and is_output:
                return Entry(block, "mlp", (block, "attention"))
            if part == self.names.second_norm and is_input and place.carry:
                return Entry(block, "mlp")
            if part == self.names.mlp and is_output:
                return Entry(block + 1, "attention", (block, "mlp"))
        half = self._half_of(part)
        if half is None or port not in ("in.0", "out.0") or place.carry is not None:
            raise Unavailable(f"{place} is not on the residual stream, nor something that a replay computes")
        return Entry(block, half, is_inside=True)

    def _half_of(self, part: str) -> Half | None:
        """The half of a block that calls one of its parts while it is replayed; the attention itself is not called."""
        if part == self.names.first_norm or part in {f"{self.names.attention}.{one}" for one in self.names.projections}:
            return "attention"
        if part in (self.names.second_norm, self.names.mlp) or part.startswith(f"{self.names.mlp}."):
            return "mlp"
        return None

    def stream_at(self, block: int, half: Half) -> str:
        """Address of the residual stream before a half of a block."""
        if block == len(self.blocks):
            return f"acts:{self.path_of(self.names.final_norm)}:in.0"
        part = self.names.first_norm if half == "attention" else self.names.second_norm
        return f"acts:{self.path_of(self.names.blocks, str(block), part)}:in.0"


def _is_decoder(body: nn.Module, names: Names) -> bool:
    blocks = getattr(body, names.blocks, None)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks) or not hasattr(body, names.final_norm):
        return False
    for block in blocks:
        if {name for name, _ in block.named_children()} != names.in_block:
            return False
        attention = getattr(block, names.attention)
        parts = {name for name, _ in attention.named_children()}
        if not names.projections <= parts <= names.projections | BESIDE:
            return False
        if not hasattr(attention, "scaling") or not hasattr(attention, "head_dim"):
            return False
    return True

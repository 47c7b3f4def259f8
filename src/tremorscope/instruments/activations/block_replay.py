"""Blocks replayed from the edited one on, at the positions that change, over keys and values that all points share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tremorscope.instruments.activations.decoder_parts import GPT2, LLAMA, Decoder, Entry, Half
from tremorscope.instruments.activations.half_precision import HALF
from tremorscope.instruments.activations.hooks import Tap, tapped
from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.activations.positions import Window
from tremorscope.instruments.activations.shared_attention import shared_attention
from tremorscope.instruments.activations.sweep_batch import Prompts, Unavailable
from tremorscope.instruments.activations.sweep_routes import Back, Head, Late, ReplaceRows, with_weights_of
from tremorscope.instruments.network import Network


class Common(NamedTuple):
    """What the prompts of one chunk share, block after block: `groups` prompts, and as many points for each."""

    keys: list[Float[Tensor, "groups heads prefix e"]]
    values: list[Float[Tensor, "groups heads prefix e"]]
    hidden_from: Float[Tensor, "groups 1 prefix"] | None  # minus infinity at padding
    rotation: tuple[Tensor, Tensor] | None  # cosines and sines [n, 1, recomputed, e], of each point's positions


@final
class BlockReplay:
    """Level 2: the blocks from the edited one on, by hand.

    Keys and values of the positions before the edit are computed once for each prompt, and every point reads the same
    ones: they are not copied per point. Only the positions from the edit to the read-out are computed, the last block
    only at the read-out.

    Raises:
        Unavailable: If the module, the site or the read-out does not allow it.
    """

    level = 2

    def __init__(self, network: Network, prompts: Prompts, place: Place, readout: Place | None) -> None:
        if getattr(network, "edits", ()):
            raise Unavailable("the view has edits of activations of its own")
        self.network, self.prompts, self.place = network, prompts, place
        shared = prompts.shared
        self.decoder = decoder = shared.once("decoder", lambda: Decoder.of(network.module))
        self.entry = entry = decoder.entry(place)
        last = Entry(len(decoder.blocks), "attention")
        self.is_normed = readout == Place(module=decoder.path_of(decoder.names.final_norm))
        if not self.is_normed and (readout is None or decoder.entry(readout) != last):
            raise Unavailable("the read-out is neither the final norm nor the last block's output")
        self.name = f"replay of blocks {entry.block} to {len(decoder.blocks) - 1}"
        if entry.is_inside:
            self.name += f", {place} replaced"
        self.run = shared.once("weights", lambda: with_weights_of(network))
        with torch.no_grad():
            self.keys, self.values = self._prefix()
            self.hidden_from = self._bias()
            # The replaced tensor is the stream itself, unless it is added to it or inside a half.
            is_stream = entry.joins is None and not entry.is_inside
            self.stream = (
                shared.once((place.module, place.port), lambda: self._clean(entry.block, entry.half))
                if is_stream
                else self._clean(entry.block, entry.half)
            )
            self.beside = None if entry.joins is None else self._clean(*entry.joins)
            self.rotation = shared.once("rotations", self._rotations)
        self.head = shared.once("head", self._head) if self.is_normed else None
        # In 16 bits predictions are made in float32: rounding of each logit would be larger than small divergences.
        self.wide = shared.once("wide head", self._wide_head) if network.dtype in HALF else None
        self.row_bytes = self._row_bytes()

    def late(
        self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"], *, logits: bool = True, back: Back = (0,)
    ) -> Late:
        """Late activations and logits of points; cheapest when `rows` come sorted, with equal counts."""
        with self._replaced(points):
            late: Late = self.run(self._late, points, rows, logits, back)
        return late

    def _replaced(self, points: Tensor) -> Any:
        """Inside a half the first of the recomputed positions, which is the edited one, gets the point by a hook."""
        if not self.entry.is_inside:
            return nullcontext()
        tap = Tap(place=self.place, what="point of a sweep", edit=ReplaceRows(points, 0))
        return tapped(self.network.module, [tap], Window(batch=self.prompts.batch()))

    def _late(self, points: Tensor, rows: Tensor, logits: bool, back: Back) -> Late:
        names, blocks, entry = self.decoder.names, self.decoder.blocks, self.entry
        common, window = self._shared(rows), self.prompts.window[rows]
        hidden = self._entering(points, rows, window)
        read = [hidden.shape[1] - 1 - one for one in back]  # of the positions there are: fewer after the last attention
        for index in range(entry.block, len(blocks)):
            block = blocks[index]
            if index > entry.block or entry.half == "attention":
                # A hook in the last block looks for the edited position, which may not be among those read.
                is_last = index == len(blocks) - 1 and not (entry.is_inside and index == entry.block)
                normed = getattr(block, names.first_norm)(hidden)
                attention = getattr(block, names.attention)
                added = self._attention(attention, normed, common, index - entry.block, read if is_last else None)
                if is_last:
                    hidden, read = hidden[:, read], list(range(len(read)))
                hidden = hidden + added
            hidden = hidden + getattr(block, names.mlp)(getattr(block, names.second_norm)(hidden))
        hidden = torch.cat([hidden[:, place] for place in read])
        normed = getattr(self.decoder.body, names.final_norm)(hidden)
        told = self._logits(normed) if logits and self._has_head else None
        return Late(normed if self.is_normed else hidden, told)

    def _logits(self, normed: Float[Tensor, "n d"]) -> Float[Tensor, "n classes"]:
        told: Tensor
        if self.wide is not None:
            told = nn.functional.linear(normed.float(), self.wide.weight, self.wide.bias)
        else:
            told = self.network.module.get_output_embeddings()(normed)  # type: ignore[operator]
        return told

    def _entering(
        self, points: Tensor, rows: Int[Tensor, " n"], window: Int[Tensor, "n recomputed"]
    ) -> Float[Tensor, "n recomputed d"]:
        """The stream at the recomputed positions where the replay begins."""
        if self.entry.is_inside:
            return self.stream[rows[:, None], window]
        first = points[:, None]
        if self.beside is not None:
            first = first + self.beside[rows[:, None], window[:, :1]]
        return torch.cat([first, self.stream[rows[:, None], window[:, 1:]]], dim=1)

    def _attention(
        self, attention: Any, x: Float[Tensor, "n s d"], shared: Common, index: int, read: list[int] | None
    ) -> Float[Tensor, "n t d"]:
        """Attention of the recomputed positions, or of some of them, to the shared prefix and to themselves."""
        query, key, value = self._projected(attention, x, shared.rotation)
        options: dict[str, Any] = {}
        if read is not None:
            query = query[:, :, read]
            if read != [x.shape[1] - 1]:
                options["asking"] = torch.tensor(read, device=x.device)
        mixed = shared_attention(
            query,
            key,
            value,
            shared.keys[index],
            shared.values[index],
            shared.hidden_from,
            scaling=float(attention.scaling),
            **options,
        )
        out: Tensor = (attention.c_proj if self.decoder.names is GPT2 else attention.o_proj)(mixed)
        return out

    def _projected(
        self, attention: Any, x: Float[Tensor, "n s d"], rotation: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values `[n, heads, s, e]`, turned to their positions where the family does that."""
        shape = (*x.shape[:2], -1, attention.head_dim)
        if self.decoder.names is GPT2:
            query, key, value = (
                part.view(shape).transpose(1, 2) for part in attention.c_attn(x).split(x.shape[-1], dim=2)
            )
            return query, key, value
        query, key, value = (getattr(attention, f"{part}_proj")(x).view(shape) for part in "qkv")
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        assert rotation is not None  # a family that has no table of positions turns
        return _turned(query, *rotation), _turned(key, *rotation), value

    # What all points share, computed once.

    def _prefix(self) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values `[rows, heads, prefix, e]` of the blocks from the entry on."""
        keys, values = self.prompts.shared.once("keys and values", self._remembered)
        longest = int(self.prompts.edited.max())
        first = self.entry.block
        return [some[:, :, :longest] for some in keys[first:]], [some[:, :, :longest] for some in values[first:]]

    def _remembered(self) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values `[rows, heads, length, e]` of all blocks and positions."""
        length = self.prompts.tokens.shape[1]
        output = self.network.output(self.network.params, self.prompts.batch(use_cache=True))
        cache = getattr(output, "past_key_values", None)
        layers = getattr(cache, "layers", None)
        if layers is None or len(layers) != len(self.decoder.blocks):
            raise Unavailable("the model keeps no keys and values of its blocks")
        if any(not isinstance(layer.keys, Tensor) or layer.keys.shape[2] != length for layer in layers):
            raise Unavailable("the model forgets keys and values of early positions")
        return [layer.keys.contiguous() for layer in layers], [layer.values.contiguous() for layer in layers]

    def _bias(self) -> Float[Tensor, "rows 1 prefix"] | None:
        """Minus infinity at prefix positions that a prompt does not see: padding, and what is not before its edit."""
        longest = int(self.prompts.edited.max())
        before = torch.arange(longest, device=self.prompts.tokens.device) < self.prompts.edited[:, None]
        seen = before & self.prompts.visible[:, :longest].bool()
        if seen.all():
            return None
        bias = torch.zeros(seen.shape, dtype=self.network.dtype, device=seen.device)
        return bias.masked_fill(~seen, -torch.inf)[:, None]

    def _clean(self, block: int, half: Half) -> Float[Tensor, "rows length d"]:
        """The residual stream of the clean prompts before a half of a block."""
        site = self.decoder.stream_at(block, half)
        stream: Tensor = self.prompts.shared.once(site, lambda: self.network.record(site, self.prompts.batch()))
        return stream

    def _rotations(self) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines `[rows, length, e]` of all positions; None without rotation."""
        turn: Callable[..., tuple[Tensor, Tensor]] | None = getattr(self.decoder.body, "rotary_emb", None)
        if turn is None:
            if self.decoder.names is LLAMA:
                raise Unavailable("the decoder has no rotation of its own")
            return None
        cosines, sines = self.run(turn, self.stream, self.prompts.places)
        return cosines, sines

    def _shared(self, rows: Int[Tensor, " n"]) -> Common:
        """The prefixes that a chunk needs: one for each prompt if the points come in equal groups, else one each."""
        prompts, counts = torch.unique_consecutive(rows, return_counts=True)
        if (counts != counts[0]).any():
            prompts = rows
        whole = len(prompts) == len(self.keys[0]) if self.keys else False
        ordered = whole and torch.equal(prompts, torch.arange(len(prompts), device=prompts.device))

        def chosen(tensor: Tensor) -> Tensor:
            return tensor if ordered else tensor[prompts]

        window = self.prompts.window[rows]
        return Common(
            [chosen(keys) for keys in self.keys],
            [chosen(values) for values in self.values],
            None if self.hidden_from is None else chosen(self.hidden_from),
            None if self.rotation is None else tuple(turn[rows[:, None], window][:, None] for turn in self.rotation),
        )

    @property
    def _has_head(self) -> bool:
        find = getattr(self.network.module, "get_output_embeddings", None)
        return find is not None and isinstance(find(), nn.Linear)

    def _head(self) -> Head | None:
        """The read-out layer with the view's weights."""
        if not self._has_head:
            return None
        held: Head = self.run(self._head_now)
        return held

    def _wide_head(self) -> Head | None:
        head = self._head()
        return None if head is None else Head(head.weight.float(), None if head.bias is None else head.bias.float())

    def _head_now(self) -> Head:
        layer = self.network.module.get_output_embeddings()  # type: ignore[operator]
        return Head(layer.weight, layer.bias)

    def _row_bytes(self) -> int:
        """The widest tensors of a point: logits, and the hidden layer of the perceptron, each about three times."""
        config = self.network.module.config
        widths = [getattr(config, "vocab_size", 0), 8 * self.stream.shape[-1] * self.prompts.num_recomputed]
        return 3 * sum(widths) * self.stream.element_size()


def _turned(x: Float[Tensor, "n heads s e"], cosines: Tensor, sines: Tensor) -> Float[Tensor, "n heads s e"]:
    left, right = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-right, left], dim=-1) * sines

r"""Edits of the residual stream as weights: what is exact, and nothing else.

The stream after a write is x + w, with w the output of one layer. An edit there, v -> M v + s, is exact in weights

- where M is the identity: s goes into the bias of what writes w;
- before the first block, where everything is written by the embeddings: their rows go through the map;
- where M M = M and M s = 0 (a projection, an ablation, a coordinate that is set) and the same edit has already acted
  at every earlier place, so that M x + s = x: then M (x + w) + s = x + M w, and the layer that writes w is mapped.
  With the ablation of one direction this is the weight orthogonalisation of arXiv:2406.11717.

Any other map of a sum is held by no layer's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.changed_weights import ChangedWeights, shared_names
from tremorscope.instruments.activations.folding import AffineMap
from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.activations.probe import Seen, required_batch, same, watch
from tremorscope.instruments.activations.roomier_copy import is_tied_to_the_head
from tremorscope.instruments.task import Batch

if TYPE_CHECKING:
    from tremorscope.instruments.edit import PlacedEdit
    from tremorscope.instruments.network import Network

_IDEMPOTENT = 1e-5  # of the size of the map: the rounding of directions that come in float32


@final
@dataclass(frozen=True, kw_only=True)
class StreamPlace:
    """The stream after one write. `writers` are the places whose values were added to it there, none if not known."""

    names: tuple[str, ...]
    places: tuple[Place, ...]
    writers: tuple[Place, ...]

    @property
    def is_first(self) -> bool:
        """Whether no block has written yet."""
        return self.names[0] == "resid_pre.0"


def residual_sites(network: Network, batch: Batch | None = None) -> tuple[str, ...]:
    """Addresses of the residual stream, once each, from its beginning to its end.

    For edits that are to act all along it, such as taking a direction out of everything that is written:
    `bake(network, *(edit.at(site) for site in residual_sites(network)))`.

    Raises:
        BadInput: As `Network.site_map`.
    """
    return tuple(f"acts:{one.names[0]}" for one in stream_places(network, batch))


def stream_places(network: Network, batch: Batch | None = None) -> list[StreamPlace]:
    """The stream after each write, in order; see `residual_sites`."""
    found = network.site_map(batch)
    aliases = found.aliases
    places: list[StreamPlace] = []

    def add(names: Sequence[str], writers: Sequence[str]) -> None:
        here = [name for name in names if name in aliases]
        if here:
            wrote = tuple(aliases[name] for name in writers if name in aliases)
            places.append(StreamPlace(names=tuple(here), places=tuple(aliases[name] for name in here), writers=wrote))

    add(["resid_pre.0"], [])
    for block in range(found.num_blocks):
        has_middle = f"resid_mid.{block}" in aliases
        if has_middle:
            add([f"resid_mid.{block}"], [f"attn_out.{block}"])
        branches = [f"mlp_out.{block}"] if has_middle else [f"attn_out.{block}", f"mlp_out.{block}"]
        # What block L gives is what block L + 1 takes, wherever `resid_post.L` holds.
        names = [f"resid_post.{block}"]
        add([*names, f"resid_pre.{block + 1}"] if names[0] in aliases else names, branches)
        if names[0] not in aliases:
            add([f"resid_pre.{block + 1}"], [])
    return places


def stream_width(network: Network, places: Sequence[StreamPlace], batch: Batch | None) -> int:
    """Entries of the stream. Cost: a forward pass."""
    plain = network._without_edits()
    return int(plain.record(f"acts:{places[0].names[0]}", required_batch(network, batch)).shape[-1])


def bake_stream(
    changed: ChangedWeights,
    edits: Sequence[tuple[PlacedEdit, Place, AffineMap]],
    places: Sequence[StreamPlace],
    batch: Batch | None,
    layer: Callable[[PlacedEdit, Place], str],
    baked: Callable[[PlacedEdit, Place, AffineMap], None],
) -> None:
    """Write edits of the stream into what writes to it.

    Args:
        changed: The weights.
        edits: With where they are, and their maps.
        places: Of the stream.
        batch: To find embeddings with.
        layer: Path of the linear layer whose output a place is.
        baked: Puts the output of a linear layer through a map.

    Raises:
        BadInput: If an edit is none of those that weights can hold, or nothing that writes there can be changed.
    """
    holding: AffineMap | None = None  # an idempotent map that leaves the stream as it is by now
    for node in places:
        here = [(edit, made) for place in node.places for edit, at, made in edits if at == place]
        if not here:
            holding = None
            continue
        edit, whole = here[0][0], _joined([made for _, made in here])
        if whole.keeps and not (whole.left.any() and whole.right.any()):
            _shift(changed, edit, node, whole.shift, batch, layer)
            holding = None
        elif node.is_first:
            _map_start(changed, edit, node, whole, batch)
            holding = whole if _is_idempotent(whole) else None
        elif holding is not None and _equal(whole, holding) and node.writers:
            for writer in node.writers:
                baked(edit, writer, whole._replace(shift=torch.zeros_like(whole.shift)))
        else:
            raise BadInput(
                str(edit),
                got="a map of the residual stream at one place: the stream is a sum of all that was written before, "
                "and no layer's weights hold a map of it",
                wanted="an addition; or a projection, ablation or set coordinate that acts in the same way at every "
                f"place of the stream before this one, from {places[0].names[0]} on",
                remedy="Place the edit at each of residual_sites(network), or keep it in with_edits(...).",
            )


def _joined(maps: Sequence[AffineMap]) -> AffineMap:
    """Several in a row; the same projection twice is itself."""
    kept = [maps[0]]
    for one in maps[1:]:
        if not (_equal(one, kept[-1]) and _is_idempotent(one)):
            kept.append(one)
    return reduce(AffineMap.then, kept)


def _equal(one: AffineMap, other: AffineMap) -> bool:
    if one.keeps != other.keeps or one.left.shape != other.left.shape:
        return False
    pairs = zip(one[:3], other[:3], strict=True)
    return all(torch.equal(mine, theirs.to(mine)) for mine, theirs in pairs)


def _is_idempotent(made: AffineMap) -> bool:
    """Whether doing it twice is doing it once: with M = I + L R^T, L (I + R^T L) R^T = 0 and s + L R^T s = 0."""
    if not made.keeps:
        return True
    left, right, shift = made[:3]
    # No d x d matrix: the factors have as many columns as the edit has directions.
    factors = [torch.linalg.qr(one).R for one in (left, right)]
    middle = torch.eye(left.shape[1], dtype=left.dtype, device=left.device) + right.mT @ left
    again = factors[0] @ middle @ factors[1].mT
    size = float((factors[0] @ factors[1].mT).norm())
    rest = shift + left @ (right.mT @ shift)
    return float(again.norm()) <= _IDEMPOTENT * size and float(rest.norm()) <= _IDEMPOTENT * max(
        1.0, float(shift.norm())
    )


def _shift(
    changed: ChangedWeights,
    edit: PlacedEdit,
    node: StreamPlace,
    shift: Tensor,
    batch: Batch | None,
    layer: Callable[[PlacedEdit, Place], str],
) -> None:
    """Add to the stream: in the last layer that wrote, else in what gives its value."""
    if node.writers:
        path = layer(edit, node.writers[-1])
        weight, bias = changed.weight(path), changed.bias(path)
        changed.put(path, weight, bias + shift.to(bias))
        return
    module = changed.network.module
    seen, value = _seen_at(changed.network, node, batch)
    norms = [path for path, one in seen.items() if _has_bias(module, path) and same(one.given, value)]
    if norms:  # a block that ends in a normalisation, or embeddings that do
        changed.shift_norm(norms[-1], shift.to(value.device))
        return
    tables = _tables(module, seen, value)
    free = [path for path in tables if len(shared_names(module, f"{path}.weight")) == 1]
    if not free:  # then from the output layer
        free = [path for path in tables if is_tied_to_the_head(module, path)]
    if not free:
        raise _unwritten(edit, node)
    nothing = shift.new_zeros(len(shift), 0)
    changed.map_table(free[-1], AffineMap(nothing, nothing, shift, True, shift.dtype))


def _map_start(
    changed: ChangedWeights, edit: PlacedEdit, node: StreamPlace, made: AffineMap, batch: Batch | None
) -> None:
    """Put what the embeddings write through a map: each of them, and the shift once."""
    seen, value = _seen_at(changed.network, node, batch)
    tables = _tables(changed.network.module, seen, value)
    if not tables:
        raise _unwritten(edit, node)
    for number, path in enumerate(tables):
        changed.map_table(path, made, keeps_shift=number == 0)


def _tables(module: nn.Module, seen: dict[str, Seen], value: Tensor) -> list[str]:
    """Embeddings whose sum the value is."""
    found = [
        path
        for path, one in seen.items()
        if isinstance(module.get_submodule(path), nn.Embedding) and one.calls == 1 and one.given is not None
    ]
    for path in found:
        if same(seen[path].given, value):
            return [path]
    given = [seen[path].given for path in found]
    parts = [one for one in given if one is not None and one.shape[-1] == value.shape[-1]]
    if not parts or len(parts) < len(found):
        return []
    total = reduce(torch.add, parts)
    return found if total.shape == value.shape and same(total, value) else []


def _seen_at(network: Network, node: StreamPlace, batch: Batch | None) -> tuple[dict[str, Seen], Tensor]:
    """What all modules saw, and the stream's value there."""
    plain = network._without_edits()
    given = required_batch(network, batch)
    seen, _ = watch(plain, given, [path for path, _ in network.module.named_modules()])
    return seen, plain.record(f"acts:{node.names[0]}", given)


def _has_bias(module: nn.Module, path: str) -> bool:
    part = module.get_submodule(path)
    return isinstance(part, nn.LayerNorm) and part.bias is not None


def _unwritten(edit: PlacedEdit, node: StreamPlace) -> BadInput:
    return BadInput(
        str(edit),
        got=f"{node.names[0]}, whose value no bias, normalisation or sum of embeddings gives here",
        wanted="a place that a single layer or the embeddings write to",
        remedy="Keep the edit in with_edits(...).",
    )

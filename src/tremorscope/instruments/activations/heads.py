"""Heads of attention: which columns are whose, borne out by a text of one token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

from torch import Tensor

from tremorscope.instruments.activations.alias_names import FUSED, JOINING, KEY_HEADS, QUERY_HEADS, SEPARATE
from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.activations.probe import Seen, made_up_batch, same, watch

if TYPE_CHECKING:
    from tremorscope.instruments.network import Network


@final
@dataclass(frozen=True, kw_only=True)
class Heads:
    """How many heads there are, and how wide: of queries, and of keys and values."""

    num_heads: int
    num_key_heads: int
    width: int

    def key_head(self, head: int) -> int:
        """The head of keys and values that a query head reads.

        >>> [Heads(num_heads=4, num_key_heads=2, width=8).key_head(head) for head in range(4)]
        [0, 0, 1, 1]
        """
        return head // (self.num_heads // self.num_key_heads)


@final
@dataclass
class HeadsFound:
    """Aliases of heads that hold, and why others do not."""

    aliases: dict[str, Place] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    heads: Heads | None = None


Columns = dict[str, tuple[str, list[int]]]  # q, k, v: a module below attention, and where each head starts


def map_heads(network: Network, seen: dict[str, Seen], attention: Sequence[str | None]) -> HeadsFound:
    """Places of heads in each block.

    A token that attends only to itself gets its own value from every head: so the values that were found have to be
    what the heads give, in a text of one token (or at the first position, where attention looks back only).
    """
    found = HeadsFound()
    alone = made_up_batch(network, length=1) if any(attention) else None
    single = seen if alone is None else watch(network, alone, seen)[0]
    for index, path in enumerate(attention):
        reason = "the block has no attention by any name that is known here"
        if path is not None:
            reason = _map_block(network, seen, single, path, index, found)
        if reason:
            for family in ("head_out", "q", "k", "v"):
                if f"{family}.{index}" not in found.aliases:
                    found.undefined[f"{family}.{index}"] = reason
    return found


def _map_block(
    network: Network, seen: dict[str, Seen], single: dict[str, Seen], path: str, index: int, found: HeadsFound
) -> str:
    """Aliases of one block, and why some are missing, or nothing."""
    counts = _counts(network, path)
    if counts is None:
        return "neither the configuration nor the attention tells the number of heads"
    joining = next((f"{path}.{name}" for name in JOINING if f"{path}.{name}" in seen), None)
    joined = None if joining is None else seen[joining].taken
    if joining is None or joined is None:
        return "no layer of the attention is named like the one that joins the heads, or it is fused"
    num_heads, num_key_heads = counts
    if joined[1].shape[-1] % num_heads or num_heads % num_key_heads:
        return f"{num_heads} heads do not share {joined[1].shape[-1]} columns"
    heads = Heads(num_heads=num_heads, num_key_heads=num_key_heads, width=joined[1].shape[-1] // num_heads)
    given = single[joining].taken
    layout = next((one for one in _layouts(seen, path, heads) if _bears_out(single, path, one, heads, given)), None)
    if layout is not None or same(seen[joining].given, seen[path].given):
        found.heads = heads
        _put(found, f"head_out.{index}", joining, joined[0], [head * heads.width for head in range(num_heads)], heads)
    if layout is None:
        return "no layer of the attention was found whose output is the values that the heads pass on"
    for name, (module, starts) in layout.items():
        _put(found, f"{name}.{index}", f"{path}.{module}", "out.0", starts, heads)
    return ""


def _put(found: HeadsFound, name: str, module: str, port: str, starts: list[int], heads: Heads) -> None:
    """One alias for each head, and one for all where they stand side by side."""
    if starts == [starts[0] + place * heads.width for place in range(len(starts))]:
        found.aliases[name] = Place(module=module, port=port, columns=(starts[0], starts[-1] + heads.width))
    for head, start in enumerate(starts):
        found.aliases[f"{name}.{head}"] = Place(module=module, port=port, columns=(start, start + heads.width))


def _counts(network: Network, path: str) -> tuple[int, int] | None:
    owners: list[Any] = [getattr(network.module, "config", None), network.module.get_submodule(path)]
    for owner in owners:
        num_heads = next((getattr(owner, name, None) for name in QUERY_HEADS if getattr(owner, name, None)), None)
        if isinstance(num_heads, int):
            told = [getattr(owner, name, None) for name in KEY_HEADS]
            num_key_heads = next((one for one in told if isinstance(one, int) and one > 0), num_heads)
            return num_heads, (1 if getattr(owner, "multi_query", None) is True else num_key_heads)
    return None


def _layouts(seen: dict[str, Seen], path: str, heads: Heads) -> Iterator[Columns]:
    """Ways in which queries, keys and values may lie."""
    step, num_heads, num_keys = heads.width, heads.num_heads, heads.num_key_heads
    queries, keys = [head * step for head in range(num_heads)], [head * step for head in range(num_keys)]
    for names in SEPARATE:
        widths = [_width(seen, f"{path}.{name}") for name in names]
        if widths == [num_heads * step, num_keys * step, num_keys * step]:
            yield {"q": (names.query, queries), "k": (names.key, keys), "v": (names.value, keys)}
    for name in FUSED:
        if _width(seen, f"{path}.{name}") != (num_heads + 2 * num_keys) * step:
            continue
        after = num_heads * step  # all queries, then all keys, then all values
        beyond = after + num_keys * step
        yield {
            "q": (name, queries),
            "k": (name, [after + start for start in keys]),
            "v": (name, [beyond + start for start in keys]),
        }
        shared = num_heads // num_keys  # the queries of one key head, its key, its value; then the next
        whole = (shared + 2) * step
        yield {
            "q": (name, [head // shared * whole + head % shared * step for head in range(num_heads)]),
            "k": (name, [head * whole + shared * step for head in range(num_keys)]),
            "v": (name, [head * whole + (shared + 1) * step for head in range(num_keys)]),
        }


def _bears_out(
    single: dict[str, Seen], path: str, layout: Columns, heads: Heads, given: tuple[str, Tensor] | None
) -> bool:
    """Whether every head passes on the value of the one token it can look at."""
    module, starts = layout["v"]
    values = single[f"{path}.{module}"].given if f"{path}.{module}" in single else None
    if values is None or given is None or values.ndim != 3 or given[1].ndim != 3 or not values[:, 0].any():
        return False
    step = heads.width
    return all(
        same(
            given[1][:, 0, head * step : (head + 1) * step],
            values[:, 0, starts[heads.key_head(head)] : starts[heads.key_head(head)] + step],
        )
        for head in range(heads.num_heads)
    )


def _width(seen: dict[str, Seen], path: str) -> int | None:
    given = seen[path].given if path in seen else None
    return None if given is None else given.shape[-1]

"""The list of blocks of a network, found by its weight."""

from __future__ import annotations

from torch import nn

from tremorscope.foundations.errors import BadInput


def block_list(module: nn.Module, asked: str | None = None) -> tuple[str, list[nn.Module]] | str:
    """Path and blocks of the list that holds more than half of all parameters, embeddings aside; or why there is none.

    A list inside another (experts in a block) does not count, nor does a sequence of single layers.

    Raises:
        BadInput: If the list that is asked for is none.
    """
    lists = {path: part for path, part in module.named_modules() if isinstance(part, nn.ModuleList | nn.Sequential)}
    if asked is not None:
        if asked not in lists:
            raise BadInput("blocks", got=asked, wanted=f"one of {', '.join(filter(None, lists)) or 'no list at all'}")
        return asked, list(lists[asked])
    found = {path: part for path, part in lists.items() if _holds_blocks(part)}
    found = {path: part for path, part in found.items() if not any(_is_inside(path, other) for other in found)}
    tables = {id(one) for part in module.modules() if isinstance(part, nn.Embedding) for one in part.parameters()}
    total = _weight(module, tables)
    shares = {path: _weight(part, tables) / max(1, total) for path, part in found.items()}
    told = ", ".join(f"{path} ({len(lists[path])} modules, {share:.0%})" for path, share in shares.items())
    if not shares:
        return "no list of blocks in this module"
    if getattr(getattr(module, "config", None), "is_encoder_decoder", False):
        return f"an encoder and a decoder: choose by site_map(blocks=...) among {told}"
    heavy = [path for path, share in shares.items() if share > 0.5]
    if len(heavy) != 1:
        return f"no list of blocks holds more than half of the parameters: choose by site_map(blocks=...) among {told}"
    return heavy[0], list(lists[heavy[0]])


def _holds_blocks(part: nn.Module) -> bool:
    children = list(part.children())
    if isinstance(part, nn.ModuleList):
        return len(children) > 0
    return len(children) > 1 and len({type(child) for child in children}) == 1 and any(children[0].children())


def _is_inside(path: str, other: str) -> bool:
    return path != other and path.startswith(f"{other}." if other else "")


def _weight(module: nn.Module, tables: set[int]) -> int:
    return sum(one.numel() for one in module.parameters() if id(one) not in tables)

"""Where in a module a site is: the module, what of it, and which columns."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import nn

from tremorscope.foundations.errors import BadInput, SiteNotFound
from tremorscope.instruments.site import Site

Features = Literal["last", "channels", "unknown"]


@final
@dataclass(frozen=True, kw_only=True)
class Place:
    """A tensor among what a module takes or returns.

    Args:
        module: Its path; empty for the whole network.
        port: `in.0`, `out.0`, `out.1.0`, `kwarg.hidden_states`, ...
        columns: First and last (excluded) entry of the last axis; None: all of it. A head, mostly.
        carry: For a value that goes on beside this one (the residual stream around a norm and what follows it): the
            module at whose output the change is added again.
        features: The axis along which a vector lies: the `last` one, or that of the `channels` of a map, whose
            positions are its pixels, row by row; `unknown` where a value has the axes of a map, and nothing tells.
    """

    module: str
    port: str = "out.0"
    columns: tuple[int, int] | None = None
    carry: str | None = None
    features: Features = "last"

    def __str__(self) -> str:
        name = f"{self.module or 'the network'}:{self.port}"
        return name if self.columns is None else f"{name}[..., {self.columns[0]}:{self.columns[1]}]"

    @property
    def path(self) -> tuple[int, ...]:
        """The numbers of an `in` or `out` port; none for a keyword."""
        kind, *numbers = self.port.split(".")
        return () if kind == "kwarg" else tuple(map(int, numbers))


def raw_place(module: nn.Module, site: Site, aliases: Iterable[str] = ()) -> Place:
    """The place that a module path names.

    Raises:
        SiteNotFound: If there is no such module, with the five nearest names.
        BadInput: If the module is compiled, so that nothing can be hooked inside it.
    """
    paths = dict(module.named_modules(remove_duplicate=False))
    if site.pattern not in paths:
        names = [name for name in [*aliases, *paths] if name]
        close = difflib.get_close_matches(site.pattern, names, n=5, cutoff=0.0)
        raise SiteNotFound(
            str(site),
            got=f"{site.pattern!r}",
            wanted="an alias or the path of a module",
            remedy=f"Nearest: {', '.join(close)}. List them with network.sites()." if close else None,
        )
    check_open(module, site.pattern, str(site))
    return Place(module=site.pattern, port=site.port or "out.0")


def check_open(module: nn.Module, path: str, what: str) -> None:
    """Hooks are seen by Python modules only.

    Raises:
        BadInput: If the module, or one around it, is compiled or scripted.
    """
    outer, name = module, ""
    for part in ["", *path.split(".")]:
        if part:
            outer, name = outer.get_submodule(part), f"{name}.{part}".lstrip(".")
        kind = _closed(outer)
        if kind is not None:
            raise BadInput(
                what,
                got=f"{name or 'the network'}, which {kind}",
                wanted="a plain module: compiled code runs past the hooks that edit and record",
                remedy="Give Network(...) the module from before (compiled._orig_mod). To compile an edit, bake it.",
            )


def _closed(module: nn.Module) -> str | None:
    if isinstance(module, torch.jit.ScriptModule):
        return "is a TorchScript module"
    if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
        return "went through torch.compile"
    return None

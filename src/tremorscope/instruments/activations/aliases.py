"""Names for the places of any transformer, each verified by a forward pass before it is believed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from torch import nn

from tremorscope.foundations.errors import BadInput, SiteNotFound, nearest
from tremorscope.instruments.activations.alias_search import STREAM, AliasSearch
from tremorscope.instruments.activations.blocks import block_list
from tremorscope.instruments.activations.feature_axes import with_features
from tremorscope.instruments.activations.heads import Heads, map_heads
from tremorscope.instruments.activations.places import Place, check_open, raw_place
from tremorscope.instruments.activations.probe import required_batch, watch
from tremorscope.instruments.site import Site
from tremorscope.instruments.task import Batch

if TYPE_CHECKING:
    from tremorscope.instruments.network import Network

OF_HEADS = ("head_out", "q", "k", "v")
WHOLE = ("embed", "final_norm", "logits")
_ALIAS = re.compile(
    rf"(?:{'|'.join([*STREAM, 'state'])})\.\d+|(?:{'|'.join(OF_HEADS)})(?:\.\d+){{1,2}}|{'|'.join(WHOLE)}"
)


@final
@dataclass(frozen=True, kw_only=True)
class SiteMap:
    """Names that hold in one network, and why others do not.

    | alias | value |
    |---|---|
    | `resid_pre.L`, `resid_post.L` | what block L takes and gives |
    | `resid_mid.L` | the stream between attention and MLP |
    | `attn_out.L`, `mlp_out.L` | what they add to the stream |
    | `mlp_act.L` | the neurons: what the MLP's last layer takes |
    | `head_out.L.H` | what head H gives to the layer that joins the heads; `head_out.L`: all heads |
    | `q.L.H`, `k.L.H`, `v.L.H` | queries, keys and values as they are read, before any rotation |
    | `embed`, `final_norm`, `logits` | token embedding, last normalisation, output |
    | `state.L` | the state of recurrent layer L after each position |

    Heads of keys and values are counted by themselves: `heads.key_head(h)` is the one that query head `h` reads.
    """

    aliases: dict[str, Place] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    block_list: str | None = None
    num_blocks: int = 0
    heads: Heads | None = None

    def place(self, alias: str) -> Place:
        """Where an alias is.

        Raises:
            SiteNotFound: If it does not hold in this network: why, or the nearest names that do.
        """
        if alias in self.aliases:
            return self.aliases[alias]
        family, *numbers = alias.split(".")
        keys = (alias, f"{family}.{numbers[0]}" if numbers else family, family)
        reason = next((self.undefined[key] for key in keys if key in self.undefined), None)
        if reason is not None:
            raise SiteNotFound(
                f"acts:{alias}", got="a name that does not hold in this network", remedy=_sentence(reason)
            )
        close = nearest(alias, self.aliases, 5)
        raise SiteNotFound(
            f"acts:{alias}",
            got=f"{alias!r}",
            wanted=f"one of the {len(self.aliases)} names that hold; there are {self.num_blocks} blocks",
            remedy=f"Nearest: {', '.join(close)}." if close else None,
        )


def find_place(network: Network, site: Site, batch: Batch) -> Place:
    """The place that a site names: an alias where it is one that holds, else a module path; a port means a path.

    `batch` serves to verify aliases where none have been verified and no tokens or examples can be made up.

    Raises:
        SiteNotFound: If there is no such place.
        BadInput: If the site is not among the activations, or is in a compiled module.
    """
    found = _named_place(network, site)
    if found is None:
        network.site_map(batch)
        found = _named_place(network, site)
    if found is None:
        raise BadInput(str(site), got="a name that is not verified", wanted="network.site_map(batch) first")
    told = with_features(network, found, batch, is_alias=_is_alias(site))
    assert told is not None  # that needs a missing batch
    return told


def place_ahead(network: Network, site: Site) -> Place | None:
    """As `find_place`, before there is a batch; None where it takes one to verify the name, or to find the features.

    Raises:
        SiteNotFound: If there is no such place.
        BadInput: If the site is not among the activations, or is in a compiled module.
    """
    found = _named_place(network, site)
    return None if found is None else with_features(network, found, None, is_alias=_is_alias(site))


def _named_place(network: Network, site: Site) -> Place | None:
    if site.kind != "acts":
        raise BadInput(str(site), got=f"a site of the kind {site.kind}", wanted="acts:NAME")
    if not _is_alias(site):
        return raw_place(network.module, site, _known(network))
    check_open(network.module, "", str(site))
    try:
        found = network.site_map()
    except BadInput:  # no input can be made up that the module takes
        return None
    if site.pattern not in found.aliases and _is_path(network.module, site.pattern):
        return raw_place(network.module, site)
    place = found.place(site.pattern)
    check_open(network.module, place.module, str(site))
    return place


def map_sites(network: Network, batch: Batch | None, *, blocks: str | None = None) -> SiteMap:
    """Look for every alias, and keep those that one forward pass bears out.

    Raises:
        BadInput: As `Network.site_map`.
    """
    probe = required_batch(network, batch)
    module = network.module
    check_open(module, "", f"sites of {network.name!r}")
    try:
        seen, output = watch(network, probe, [path for path, _ in module.named_modules()])
    except Exception as error:
        if batch is not None:
            raise
        raise BadInput(
            f"sites of {network.name!r}",
            got=f"a module that does not take a few made-up tokens or examples ({str(error).strip().splitlines()[0]})",
            wanted="a batch that it takes",
            remedy="Call network.site_map(batch) first.",
        ) from error
    search = AliasSearch(network, probe, seen)
    listed = block_list(module, blocks)
    search.find_ends(output)
    search.find_states()
    if isinstance(listed, str):
        for family in (*STREAM, *OF_HEADS):
            search.undefined[family] = listed
        return SiteMap(aliases=search.aliases, undefined=search.undefined)
    path, members = listed
    search.find_stream(path, len(members))
    search.find_final_norm(f"{path}.{len(members) - 1}", path)
    heads = map_heads(network, seen, [search.attention.get(index) for index in range(len(members))])
    search.aliases.update(heads.aliases)
    search.undefined.update(heads.undefined)
    return SiteMap(
        aliases=search.aliases,
        undefined=search.undefined,
        block_list=path,
        num_blocks=len(members),
        heads=heads.heads,
    )


def _is_alias(site: Site) -> bool:
    """Whether it looks like one; there may be none of that name."""
    return site.port is None and _ALIAS.fullmatch(site.pattern) is not None


def _known(network: Network) -> list[str]:
    return [alias for found in network._site_maps.values() for alias in found.aliases]


def _is_path(module: nn.Module, path: str) -> bool:
    return any(path == name for name, _ in module.named_modules(remove_duplicate=False))


def _sentence(reason: str) -> str:
    return f"{reason[0].upper()}{reason[1:]}."

"""Attention of many points to one prefix, which is not copied for each of them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def shared_attention(
    query: Float[Tensor, "n heads t e"],
    key: Float[Tensor, "n kv s e"],
    value: Float[Tensor, "n kv s e"],
    prefix_keys: Float[Tensor, "groups kv prefix e"],
    prefix_values: Float[Tensor, "groups kv prefix e"],
    hidden_from: Float[Tensor, "groups 1 prefix"] | None,
    *,
    scaling: float,
    asking: Int[Tensor, " t"] | None = None,
) -> Float[Tensor, "n t heads_e"]:
    """Causal attention to a prefix that several points share, and to the points' own positions.

    Points come in `groups` of equal size, each with one prefix. The `t` queries belong to the `asking` ones of the `s`
    own positions, by default the last. Query heads are split evenly over the key-value heads. The prefix is read where
    it lies: one product for all points of a group.
    """
    n, heads, t, e = query.shape
    groups, kv, prefix, _ = prefix_keys.shape
    s, size, share = key.shape[2], n // groups, heads // kv
    query = query.reshape(n, kv, share, t, e) * scaling
    own = torch.einsum("nkhte,nkse->nkhts", query, key)
    if t > 1 or s > t:
        places = torch.arange(s, device=own.device)
        later = places > (places[s - t :] if asking is None else asking)[:, None]
        own = own.masked_fill(later, -torch.inf)
    # [groups, kv, everything that asks, e]
    asked = query.reshape(groups, size, kv, share, t, e).transpose(1, 2).reshape(groups, kv, size * share * t, e)
    there = asked @ prefix_keys.transpose(2, 3)
    if hidden_from is not None:
        there = there + hidden_from[:, :, None]
    there = there.view(groups, kv, size, share, t, prefix).transpose(1, 2).reshape(n, kv, share, t, prefix)
    weights = torch.cat([there, own], dim=-1).softmax(dim=-1)
    there, own = weights[..., :prefix], weights[..., prefix:]
    given = there.reshape(groups, size, kv, share, t, prefix).transpose(1, 2)
    given = given.reshape(groups, kv, size * share * t, prefix) @ prefix_values
    given = given.view(groups, kv, size, share, t, e).transpose(1, 2).reshape(n, kv, share, t, e)
    mixed = given + torch.einsum("nkhts,nkse->nkhte", own, value)
    joined: Tensor = mixed.permute(0, 3, 1, 2, 4).reshape(n, t, heads * e)
    return joined

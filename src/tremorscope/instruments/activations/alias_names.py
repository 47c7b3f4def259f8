"""What makers of models call the parts of a block: guesses, each of which is verified before it is used.

Paths are relative to the block. The first that exists is taken.
"""

from __future__ import annotations

from typing import NamedTuple

ATTENTION = ("self_attn", "attn", "attention", "self_attention", "mixer", "time_mix", "att", "temporal_block", "mamba")
MLP = ("mlp", "feed_forward", "ffn", "channel_mix", "ff", "block_sparse_moe", "moe")

# Inside attention: what joins the heads' outputs.
JOINING = ("o_proj", "out_proj", "c_proj", "output.dense", "dense", "wo", "proj", "output")

# From the neurons back to the stream; without an `mlp` of its own the block holds it.
DOWN = (
    *(f"{mlp}.{name}" for mlp in MLP for name in ("c_proj", "down_proj", "fc2", "dense_4h_to_h", "fc_out", "w2", "wo")),
    *(f"{mlp}.{name}" for mlp in MLP for name in ("value", "out_proj", "proj", "linear2", "output.dense", "2", "3")),
    "output.dense",
    "fc2",
    "linear2",
)


class Reading(NamedTuple):
    """Where queries, keys and values come from: a module each, or one for all three."""

    query: str
    key: str
    value: str


# Inside attention.
SEPARATE = (
    Reading("q_proj", "k_proj", "v_proj"),
    Reading("self.query", "self.key", "self.value"),
    Reading("query", "key", "value"),
    Reading("q_lin", "k_lin", "v_lin"),
    Reading("wq", "wk", "wv"),
    Reading("q", "k", "v"),
)
FUSED = ("c_attn", "qkv_proj", "query_key_value", "Wqkv", "qkv", "in_proj")

QUERY_HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head")
KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "multi_query_group_num")

"""The search for what aliases stand for, by what values were seen rather than by what modules are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from tremorscope.instruments.activations.alias_names import ATTENTION, DOWN, MLP
from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.activations.probe import Seen, differ, same
from tremorscope.instruments.recurrent import GatedLayer
from tremorscope.instruments.task import Batch

if TYPE_CHECKING:
    from tremorscope.instruments.network import Network

STREAM = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_act")


@final
class AliasSearch:
    """Looks for the aliases of one network in what its modules saw: those that hold, and why others do not."""

    def __init__(self, network: Network, probe: Batch, seen: dict[str, Seen]) -> None:
        self.network, self.probe, self.seen = network, probe, seen
        self.aliases: dict[str, Place] = {}
        self.undefined: dict[str, str] = {}
        self.attention: dict[int, str] = {}  # its path, by block

    def find_ends(self, output: Any) -> None:
        """The token embedding, and the output."""
        tokens = next((one for one in (*self.probe.kwargs.values(), *self.probe.args) if _are_tokens(one)), None)
        modules = dict(self.network.module.named_modules())
        tables = [
            path
            for path, one in self.seen.items()
            if isinstance(modules[path], nn.Embedding) and one.args and tokens is not None
            if one.args[0].shape == tokens.shape and torch.equal(one.args[0], tokens)
        ]
        if len(tables) == 1:
            self.aliases["embed"] = Place(module=tables[0])
        else:
            self.undefined["embed"] = f"{len(tables)} embeddings read the tokens: {', '.join(tables) or 'none'}"
        logits = getattr(output, "logits", output)
        readers = [
            path for path, one in self.seen.items() if path and isinstance(logits, Tensor) and same(one.given, logits)
        ]
        if readers and not any(modules[readers[-1]].children()):
            self.aliases["logits"] = Place(module=readers[-1])
            return
        entries = list(output.values()) if isinstance(output, dict) else list(_entries(output))
        places = [index for index, one in enumerate(entries) if one is logits]
        if places:
            self.aliases["logits"] = Place(module="", port=f"out.{places[0]}")
        else:
            self.undefined["logits"] = f"the output is {type(output).__name__}, without logits"

    def find_states(self) -> None:
        """Layers whose output is their state."""
        layers = [
            (path, part)
            for path, part in self.network.module.named_modules()
            if path in self.seen and isinstance(part, nn.RNNBase | GatedLayer)
        ]
        for index, (path, part) in enumerate(layers):
            if isinstance(part, nn.RNNBase) and (part.num_layers > 1 or part.bidirectional or part.proj_size):
                self.undefined[f"state.{index}"] = f"{path} runs several layers or directions inside one module"
            else:
                self.aliases[f"state.{index}"] = Place(module=path)
        if not layers:
            self.undefined["state"] = "no layer here gives its state as its output (states in caches have no place)"

    def find_stream(self, path: str, num_blocks: int) -> None:
        """The places in and around every block."""
        for index in range(num_blocks):
            block = self.seen.get(f"{path}.{index}")
            if block is None or block.calls != 1 or block.taken is None or block.given is None:
                calls = 0 if block is None else block.calls
                reason = (
                    f"block {index} was called {calls} times" if calls != 1 else f"block {index} takes no real tensor"
                )
                self.undefined.update({f"{family}.{index}": reason for family in STREAM})
                continue
            port, pre = block.taken
            self.aliases[f"resid_pre.{index}"] = Place(module=f"{path}.{index}", port=port)
            following = self.seen.get(f"{path}.{index + 1}")
            read = None if following is None or following.taken is None else following.taken[1]
            if read is None or same(block.given, read):
                self.aliases[f"resid_post.{index}"] = Place(module=f"{path}.{index}")
            else:
                self.undefined[f"resid_post.{index}"] = (
                    f"block {index + 1} reads something else than block {index} gives"
                )
            start = self._start(f"{path}.{index}", pre)
            if start is not None:  # RWKV's first block
                self.aliases[f"resid_pre.{index}"], pre = Place(module=start[0]), start[1]
            self._find_branches(f"{path}.{index}", index, pre, block.given)

    def find_final_norm(self, last: str, blocks: str) -> None:
        """The normalisation, outside the blocks, that reads the last one's output."""
        given = self.seen[last].given if last in self.seen else None
        found = [
            path
            for path, one in self.seen.items()
            if not path.startswith(f"{blocks}.")
            if _is_norm(self.network.module, path) and one.taken is not None and same(one.taken[1], given)
        ]
        if len(found) == 1:
            self.aliases["final_norm"] = Place(module=found[0])
        else:
            self.undefined["final_norm"] = "no normalisation outside the blocks reads what the last block gives"

    def _start(self, block: str, pre: Tensor) -> tuple[str, Tensor] | None:
        """A normalisation in a block behind which its stream begins, if that is where it begins, and its output."""
        attended, added = (self._first(block, names)[1].given for names in (ATTENTION, MLP))
        if attended is None or added is None or attended.shape != added.shape:
            return None
        for path, one in self.seen.items():
            if not path.startswith(f"{block}.") or not _is_norm(self.network.module, path):
                continue
            given = one.given
            if given is None or one.taken is None or given.shape != added.shape or not same(one.taken[1], pre):
                continue
            if same(given + attended + added, self.seen[block].given):
                return path, given
        return None

    def _find_branches(self, block: str, index: int, pre: Tensor, post: Tensor) -> None:
        attention, attended = self._first(block, ATTENTION)
        mlp, added = self._first(block, MLP)
        if attention is not None:
            self.attention[index] = attention
        down, neurons = self._first(block, DOWN, width=post.shape[-1])
        taken = None if down is None else neurons.taken
        if taken is not None and down is not None:
            self.aliases[f"mlp_act.{index}"] = Place(module=down, port=taken[0])
        else:
            self.undefined[f"mlp_act.{index}"] = "no layer of the block is named like the last one of an MLP"
        if mlp is None and down is not None and attention is not None and not down.startswith(attention):
            mlp, added = down, neurons
        reason = self._why_not(block, pre, post, attended.given, added.given)
        for name, module, one in (("attn_out", attention, attended), ("mlp_out", mlp, added)):
            kind = "attention" if name == "attn_out" else "MLP"
            if module is None or one.given is None:
                self.undefined[f"{name}.{index}"] = f"the block has no {kind} by any name that is known here"
            elif reason is not None:
                self.undefined[f"{name}.{index}"] = reason
            else:
                self.aliases[f"{name}.{index}"] = Place(module=module)
        self._find_middle(block, index, reason, pre, attended.given, mlp)

    def _find_middle(
        self, block: str, index: int, reason: str | None, pre: Tensor, attended: Tensor | None, mlp: str | None
    ) -> None:
        name = f"resid_mid.{index}"
        if reason is not None:
            self.undefined[name] = reason
        elif attended is None or mlp is None:
            self.undefined[name] = "the block has not both attention and MLP"
        else:
            readers = [
                (path, one.taken[0])
                for path, one in self.seen.items()
                if path.startswith(f"{block}.") and one.taken is not None and same(one.taken[1], pre + attended)
            ]
            if readers:
                self.aliases[name] = Place(module=readers[0][0], port=readers[0][1], carry=mlp)
            else:
                self.undefined[name] = "attention and MLP read the same stream (a parallel block)"

    def _why_not(
        self, block: str, pre: Tensor, post: Tensor, attended: Tensor | None, added: Tensor | None
    ) -> str | None:
        """Why stream plus attention plus MLP is not what the block gives; None where it is."""
        branches = [one for one in (attended, added) if one is not None]
        if not branches:
            return "the block has neither attention nor MLP by any name that is known here"
        if any(one.shape != pre.shape for one in (*branches, post)):
            return "stream and branches differ in shape"
        if any(not one.any() for one in branches):
            return "attention or MLP gives only zeros here, so that nothing can be verified"
        total = pre
        for one in branches:
            total = total + one
        if same(total, post):
            return None
        for path, inner in self.seen.items():
            if path.startswith(f"{block}.") and _is_norm(self.network.module, path):
                if same(inner.given, post):
                    return "the block ends in a normalisation (post-LN): it does not give stream plus branches"
                if inner.taken is not None and any(same(inner.taken[1], branch) for branch in branches):
                    return "what a branch gives is normalised before it is added (sandwich norms)"
        size = float((total - post).double().norm() / post.double().norm())
        return f"stream plus branches misses what the block gives by {size:.1%} ({differ(total, post):.0f} x rounding)"

    def _first(self, block: str, names: tuple[str, ...], width: int | None = None) -> tuple[str | None, Seen]:
        for name in names:
            one = self.seen.get(f"{block}.{name}")
            if one is not None and (width is None or (one.given is not None and one.given.shape[-1] == width)):
                return f"{block}.{name}", one
        return None, Seen()


def _is_norm(module: nn.Module, path: str) -> bool:
    return "norm" in type(module.get_submodule(path)).__name__.lower()


def _are_tokens(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_floating_point() and value.ndim == 2


def _entries(output: Any) -> list[Any]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, tuple | list):
        return list(output)
    return list(vars(output).values()) if hasattr(output, "__dict__") else []

"""Which activations of a network are hidden ones, in order, and what a forward pass through them costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.probe import Seen, watch
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.activations.sensitivity_map.cells import block_inputs

FEW = 4  # examples that the pass is watched on


@final
@dataclass(frozen=True, kw_only=True)
class HiddenPlaces:
    """Addresses of hidden activations by the name that a report gives them, in the order of the modules.

    `operations` and `num_bytes` are those of one example's forward pass, from shapes alone: two operations for each
    product of a weight matrix or kernel, and the memory of what the modules give. `flags` name what was passed over.
    """

    sites: dict[str, str]
    operations: float
    num_bytes: int
    flags: tuple[str, ...] = ()


def hidden_places(network: Network, batch: Batch) -> HiddenPlaces:
    """Where are the hidden activations of this network?

    The inputs of its blocks, where it has blocks whose inputs could be verified. Otherwise what each innermost module
    on the path gives, apart from the network's input and output and from copies (flattened, dropout at rest).

    Args:
        network: Any.
        batch: Inputs that it takes; a few of them are looked at.

    Cost: one or two forward passes of four examples.

    >>> network = Network(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 2)))
    >>> hidden_places(network, Batch((torch.randn(4, 3),), {}, None)).sites
    {'0': 'acts:0:out.0', '1': 'acts:1:out.0'}

    Raises:
        BadInput: If there are none.
    """
    few = first_rows(batch, FEW)
    seen, output = watch(network, few, [path for path, _ in network.module.named_modules() if path])
    inner = {path: one for path, one in seen.items() if not any(other.startswith(f"{path}.") for other in seen)}
    operations, num_bytes = _cost(network.module, inner)
    try:
        sites = {name: f"acts:{name}" for name in block_inputs(network, few)}
        flags = list[str]()
    except BadInput:
        sites, flags = _outputs(inner, few, getattr(output, "logits", output))
    if not sites:
        raise BadInput(
            f"hidden activations of {network.name!r}",
            got="none between its input and its output" + "".join(f"; {flag}" for flag in flags),
            wanted="a module made of modules that pass tensors on",
        )
    return HiddenPlaces(sites=sites, operations=operations, num_bytes=num_bytes, flags=tuple(flags))


def first_rows(batch: Batch, count: int) -> Batch:
    """The first examples of a batch."""

    def cut(value: Any) -> Any:
        return value[:count] if isinstance(value, Tensor) and value.ndim else value

    return Batch(tuple(map(cut, batch.args)), {name: cut(value) for name, value in batch.kwargs.items()}, None)


def _outputs(inner: dict[str, Seen], batch: Batch, output: Any) -> tuple[dict[str, str], list[str]]:
    rows = len(next(value for value in (*batch.args, *batch.kwargs.values()) if isinstance(value, Tensor)))
    known = [value for value in (*batch.args, *batch.kwargs.values(), output) if isinstance(value, Tensor)]
    sites, flags = {}, []
    for path, one in inner.items():
        value = one.given
        if value is None or value.ndim < 2 or len(value) != rows or value[0].numel() < 2:
            continue
        if any(_is_copy(value, other) for other in known):
            continue
        if one.calls > 1:
            flags.append(f"layer {path!r} is passed over: it is called {one.calls} times in one forward pass")
            continue
        known.append(value)
        sites[path] = f"acts:{path}:out.0"
    return sites, flags


def _is_copy(one: Tensor, other: Tensor) -> bool:
    return one.numel() == other.numel() and torch.equal(one.flatten().to(other.dtype), other.flatten())


def _cost(module: nn.Module, inner: dict[str, Seen]) -> tuple[float, int]:
    operations, entries = 0.0, 0
    for path, one in inner.items():
        if one.given is None:
            continue
        size = one.calls * one.given.numel() / len(one.given)
        entries += int(size)
        part = module.get_submodule(path)
        if not isinstance(part, nn.Embedding):
            weights = [weight for weight in part.parameters(recurse=False) if weight.ndim > 1]
            # Kernels give channels on the second axis, matrices on the last one.
            channels = {weight: one.given.shape[1 if weight.ndim > 2 else -1] for weight in weights}
            operations += sum(2 * size * weight.numel() / max(count, 1) for weight, count in channels.items())
    return operations, 4 * entries

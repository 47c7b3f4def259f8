"""Which axis of a value holds its features: that of the channels in a map, the last one everywhere else.

Convolutions, poolings and their normalisations say so by what they are. Whatever else gives or takes the very tensor
that one of them gives or takes has its features where that has them; activation functions, dropout, padding and
identities pass them on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules import activation, batchnorm, conv, dropout, instancenorm, padding, pooling

from tremorscope.instruments.activations.containers import entries_of
from tremorscope.instruments.activations.places import Features, Place
from tremorscope.instruments.activations.probe import made_up_batch
from tremorscope.instruments.task import Batch

if TYPE_CHECKING:
    from tremorscope.instruments.network import Network

Table = dict[tuple[str, str], Features]  # by module path and port

OF_MAPS = (
    conv._ConvNd,
    batchnorm._BatchNorm,
    instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    pooling._MaxPoolNd,
    pooling._AvgPoolNd,
    pooling._AdaptiveMaxPoolNd,
    pooling._AdaptiveAvgPoolNd,
    pooling._LPPoolNd,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.Upsample,
    nn.Softmax2d,
)
OF_LAST_AXIS = (
    nn.Linear,
    nn.Bilinear,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.RNNBase,
    nn.MultiheadAttention,
)
PADDING = (padding._ConstantPadNd, padding._ReflectionPadNd, padding._ReplicationPadNd)
_DIMENSIONS = re.compile(r"([123])d$")


def with_features(network: Network, place: Place, batch: Batch | None, *, is_alias: bool) -> Place | None:
    """The place with the axis that holds its features; None where it takes a batch to tell, and there is none.

    Networks without convolutions and the like have features along the last axis, and nothing is looked at. An alias is
    a place on a stream of vectors, if nothing speaks against it.
    """
    module = network.module
    if not any(isinstance(part, OF_MAPS) for part in module.modules()):
        return place
    kind = _kind(module.get_submodule(place.module))
    if kind is not None:
        return place if kind == "last" else replace(place, features=kind)
    if not network._feature_axes:
        found = made_up_batch(network) if batch is None else batch
        if found is None:
            return None
        try:
            network._feature_axes.update(find_features(network, found))
        except Exception:
            if batch is not None:
                raise
            return None  # a batch that the module does not take was made up
    found_there = network._feature_axes.get((place.module, place.port), "last")
    return replace(place, features="last" if is_alias and found_there == "unknown" else found_there)


def find_features(network: Network, batch: Batch) -> Table:
    """Where every value that modules take and give in one forward pass has its features.

    Values with as many axes as a map, of which nothing tells, are `unknown`. No value is looked into, only which
    tensors are the same ones.
    """
    calls: list[tuple[str, nn.Module, Any, Any, Any]] = []
    handles = []
    plain = network if not network.edits else network._without_edits()
    try:
        for path, part in network.module.named_modules():

            def note(part: nn.Module, args: Any, kwargs: Any, output: Any, path: str = path) -> None:
                calls.append((path, part, args, kwargs, output))  # held, so that no two tensors have one identity

            handles.append(part.register_forward_hook(note, with_kwargs=True))
        with torch.no_grad():
            plain.output(plain.params, batch)
    finally:
        for handle in handles:
            handle.remove()
    known = _known(calls)
    axes_of_maps = {tensor.ndim for _, part, _, _, tensor in calls if _kind(part) == "channels" and _is_real(tensor)}
    table: Table = {}
    for path, _, args, kwargs, output in calls:
        for port, tensor in (*_tensors(args, "in"), *_named(kwargs), *_tensors(output, "out")):
            default: Features = "unknown" if tensor.ndim > 2 and tensor.ndim in axes_of_maps else "last"
            table[path, port] = known.get(id(tensor), default)
    return table


def dimensions(module: nn.Module) -> int | None:
    """How many axes a map has here, rows and channels included; None where it may have any number."""
    found = _DIMENSIONS.search(type(module).__name__)
    return int(found.group(1)) + 2 if found and _kind(module) == "channels" else None


def _known(calls: list[tuple[str, nn.Module, Any, Any, Any]]) -> dict[int, Features]:
    """Axes by the identity of tensors: who made a tensor counts for more than who reads it."""
    found: dict[int, Features] = {}
    leaves = [(part, _first(args, kwargs), output) for _, part, args, kwargs, output in calls]
    leaves = [(part, taken, given) for part, taken, given in leaves if isinstance(given, Tensor)]
    for part, _, given in leaves:
        kind = _kind(part)
        if kind is not None:
            found.setdefault(id(given), kind)
    for part, taken, given in leaves:  # in the order of calls
        if _passes_on(part) and id(taken) in found:
            found.setdefault(id(given), found[id(taken)])
    for part, taken, _ in leaves:
        kind = _kind(part)
        if kind is not None and taken is not None:
            found.setdefault(id(taken), kind)
    for part, taken, given in reversed(leaves):
        if _passes_on(part) and taken is not None and id(given) in found:
            found.setdefault(id(taken), found[id(given)])
    return found


def _kind(module: nn.Module) -> Literal["channels", "last"] | None:
    name = type(module).__name__
    if isinstance(module, OF_MAPS):
        return "channels"
    if name.lower().endswith(("norm", "norm2d")):  # of other makers: over channels, where they say so
        is_map = name.endswith("2d") or getattr(module, "data_format", None) == "channels_first"
        return "channels" if is_map else "last"
    # What transformers call Conv1D is a linear layer.
    return "last" if isinstance(module, OF_LAST_AXIS) or name == "Conv1D" else None


def _passes_on(module: nn.Module) -> bool:
    if isinstance(module, nn.MultiheadAttention | nn.GLU):
        return False
    home = type(module).__module__
    return home in (activation.__name__, dropout.__name__, "transformers.activations") or isinstance(
        module, (nn.Identity, *PADDING)
    )


def _first(args: Any, kwargs: Any) -> Tensor | None:
    return next((one for one in (*args, *kwargs.values()) if _is_real(one)), None)


def _tensors(value: Any, port: str) -> Iterator[tuple[str, Tensor]]:
    """Tensors in a container, each with its port; a tensor by itself is the first entry."""
    if _is_real(value):
        yield f"{port}.0", value
        return
    for place, one in enumerate(entries_of(value)):
        if _is_real(one):
            yield f"{port}.{place}", one
        elif not isinstance(one, Tensor):
            yield from _tensors(one, f"{port}.{place}")


def _named(kwargs: dict[str, Any]) -> list[tuple[str, Tensor]]:
    return [(f"kwarg.{name}", one) for name, one in kwargs.items() if _is_real(one)]


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()

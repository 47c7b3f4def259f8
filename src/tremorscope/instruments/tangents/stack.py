"""Recognise a network that is a chain of linear and elementwise layers."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.func import jvp

from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

Elementwise = Callable[[Tensor], Tensor]

_MODULES = (
    nn.GELU, nn.ReLU, nn.Tanh, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU, nn.Mish,
    nn.Softsign, nn.LogSigmoid, nn.Hardtanh, nn.ReLU6, nn.Hardswish, nn.Identity,
)  # fmt: skip
_FUNCTIONS = (
    torch.relu, torch.tanh, torch.sigmoid, nn.functional.relu, nn.functional.gelu, nn.functional.silu,
    nn.functional.softplus, nn.functional.elu, nn.functional.leaky_relu, nn.functional.mish, nn.functional.tanh,
    nn.functional.sigmoid,
)  # fmt: skip
_METHODS = ("relu", "tanh", "sigmoid")
_FLATTENS = (torch.flatten,)


@final
@dataclass(frozen=True, kw_only=True)
class Layer:
    """`h_out = phi(W h_in + b)`; `phi` may be None, and so may the bias."""

    weight: str
    bias: str | None
    shape: tuple[int, int]
    phi: Elementwise | None


@final
@dataclass(frozen=True)
class LinearStack:
    """The chain itself: names of the weights in the network's layout, and the activation after each."""

    layers: tuple[Layer, ...]

    def forward(self, params: dict[str, Tensor], inputs: Tensor) -> Float[Tensor, "batch classes"]:
        """What the chain computes; equal to the network's own forward pass."""
        hidden = inputs.flatten(1)
        for layer in self.layers:
            hidden = hidden @ params[layer.weight].T
            if layer.bias is not None:
                hidden = hidden + params[layer.bias]
            if layer.phi is not None:
                hidden = layer.phi(hidden)
        return hidden


def recognise_stack(network: Network, batch: Batch, *, training: bool = False) -> LinearStack | str:
    """The chain inside a network in one of its two modes, or the reason why it is none.

    The module is traced symbolically and the chain is then compared with the network's own output on
    `batch`, so that a parametrisation or a branch that tracing misses cannot slip through.
    """
    if len(batch.args) != 1 or batch.kwargs or not isinstance(batch.args[0], Tensor):
        return "its forward takes more than one tensor"
    with torch.random.fork_rng(devices=[]):  # the user's forward may draw
        return _recognised(network, batch, training)


def _recognised(network: Network, batch: Batch, training: bool) -> LinearStack | str:
    modules = dict(network.module.named_modules())
    for name, module in modules.items():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
            return f"layer {name!r} has a hook"  # what it does elsewhere than on this batch cannot be known
    try:
        # Of a copy: tracing writes constants, and forward may write what it likes, into the module.
        graph = fx.Tracer().trace(nn.Sequential(copy.deepcopy(network.module)).train(training))
    except Exception as error:  # tracing runs the user's forward on proxies: any exception means "cannot be traced"
        return f"its forward cannot be traced ({type(error).__name__})"
    layers = _chain(graph, modules, network)
    if isinstance(layers, str):
        return layers
    inputs = batch.args[0]
    if inputs.ndim < 2 or inputs[0].numel() != layers[0].shape[1]:
        return "its inputs are not one vector per example"
    used = [name for layer in layers for name in (layer.weight, layer.bias) if name is not None]
    if sorted(used) != sorted(network.layout.names):
        return "it has parameters outside the chain, or uses one twice"
    stack = LinearStack(layers)
    own = network.apply(network.params, batch, training=training)
    chained = stack.forward(network.params, inputs)
    tolerance = 1e3 * torch.finfo(own.dtype).eps * (1 + float(own.abs().max()))
    if own.shape != chained.shape or float((own - chained).abs().max()) > tolerance:
        return "the traced chain does not reproduce its output"
    return stack


def _chain(graph: fx.Graph, modules: dict[str, nn.Module], network: Network) -> tuple[Layer, ...] | str:
    layers: list[Layer] = []
    before: fx.Node | None = None
    for node in graph.nodes:
        if node.op == "output":
            return tuple(layers) if node.args == (before,) and layers else "its output is not the end of a chain"
        if node.op == "placeholder":
            if before is not None:
                return "its forward takes more than one tensor"
        elif node.args[:1] != (before,) or any(isinstance(arg, fx.Node) for arg in node.args[1:]):
            return f"step {node.name!r} does not follow the one before it"
        else:
            found = _read(node, modules, network, starts=not layers)
            if isinstance(found, str):
                return found
            if isinstance(found, Layer):
                layers.append(found)
            elif found is not None:
                if not layers:
                    return f"activation {node.name!r} stands before the first linear layer"
                last = layers.pop()
                layers.append(
                    Layer(weight=last.weight, bias=last.bias, shape=last.shape, phi=_composed(last.phi, found))
                )
        before = node
    return "its graph has no output"


def _read(
    node: fx.Node, modules: dict[str, nn.Module], network: Network, *, starts: bool
) -> Layer | Elementwise | str | None:
    """A linear layer, an activation, None for a step that changes nothing, or why it cannot be read."""
    if node.op == "call_module":
        path = str(node.target).partition(".")[2]  # without the place in the Sequential that was traced
        module = modules[path]
        if type(module) is nn.Linear:
            return _linear(path, module, network)
        if isinstance(module, nn.Dropout):
            return None if module.p == 0 else f"layer {path!r} is a Dropout"
        if type(module) is nn.Flatten:
            return None if starts and module.start_dim == 1 else f"layer {path!r} flattens in mid-chain"
        if type(module) in _MODULES:
            # inplace=True would overwrite what the derivative needs
            return module if not getattr(module, "inplace", False) else f"layer {path!r} works in place"
        return f"layer {path!r} is a {type(module).__name__}"
    if node.op == "call_function" and node.target in _FLATTENS and starts:
        return None if (node.args[1:] or (node.kwargs.get("start_dim"),))[0] == 1 else f"{node.name!r} is no flatten(1)"
    if node.op == "call_method" and node.target == "flatten" and starts:
        return None if node.args[1:2] == (1,) else f"{node.name!r} is no flatten(1)"
    if node.op == "call_function" and node.target in _FUNCTIONS:
        if node.kwargs.get("inplace"):
            return f"{node.name!r} works in place"
        return _applied(node.target, node.args[1:], dict(node.kwargs))
    if node.op == "call_method" and node.target in _METHODS:
        return operator.methodcaller(str(node.target))
    return f"step {node.name!r} ({node.target}) is neither linear nor a known elementwise function"


def _linear(path: str, module: nn.Linear, network: Network) -> Layer | str:
    prefix = f"{path}." if path else ""
    names = [f"{prefix}{name}" for name, _ in module.named_parameters()]
    wanted = [f"{prefix}weight"] + ([f"{prefix}bias"] if module.bias is not None else [])
    if names != wanted or any(name not in network.params for name in wanted):
        return f"layer {path!r} is parametrised or shares its weights"
    return Layer(
        weight=wanted[0],
        bias=wanted[1] if module.bias is not None else None,
        shape=(module.out_features, module.in_features),
        phi=None,
    )


def _applied(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Elementwise:
    def apply(hidden: Tensor) -> Tensor:
        result: Tensor = function(hidden, *args, **kwargs)
        return result

    return apply


def _composed(inner: Elementwise | None, outer: Elementwise) -> Elementwise:
    return outer if inner is None else lambda hidden: outer(inner(hidden))


def two_derivatives(phi: Elementwise, at: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivative of an elementwise function, entry by entry."""
    ones = torch.ones_like(at)

    def slope(z: Tensor) -> Tensor:
        derivative: Tensor = jvp(phi, (z,), (ones,))[1]
        return derivative

    both = jvp(slope, (at,), (ones,))
    return both[0], both[1]

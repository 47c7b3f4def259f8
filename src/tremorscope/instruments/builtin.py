"""Networks that come with the house: defined and trained here, cached, nothing downloaded."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from tremorscope.foundations.cache import Cache, hash_tensors, key
from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.digit_networks import digits_cnn, digits_transformer
from tremorscope.instruments.microworld import models as microworld
from tremorscope.instruments.microworld import recipes
from tremorscope.instruments.network import Network
from tremorscope.instruments.optimisers import momentum
from tremorscope.instruments.recipe import check_recipe, run_recipe
from tremorscope.instruments.task import Task, digits
from tremorscope.instruments.trainer import Trainer

TRAINING_VERSION = 1  # raise it when the built-in networks would come out otherwise
TRUNCATED_SD = 0.87962566103423978  # standard deviation of a standard normal cut at 2, as JAX has it
BIAS_SD = 64**-0.5


def digits_mlp(
    hidden: int = 16,
    seed: int = 0,
    *,
    num_steps: int = 300,
    task: Task | None = None,
    dtype: torch.dtype = torch.float32,
    name: str | None = None,
) -> Network:
    """The digits network of the published training-Jacobian experiment, at its start, with its recipe.

    A 64-`hidden`-10 perceptron with tanh-approximated GELU. Kernels are LeCun normal as in JAX (normal, cut
    at two standard deviations and widened to variance `1 / fan_in`); all biases, in both layers, are normal
    with standard deviation `1 / sqrt(64)`. The recipe: batches of 64 in fixed order, momentum 0.9, learning
    rate 0.1 falling to 0 along a cosine.

    The draw depends on `seed` and `hidden` only: float32 weights are the float64 ones, rounded. Another
    `task` (a null, say) must have 64 inputs and 10 classes.

    >>> network = digits_mlp(hidden=16)
    >>> network.layout.size, network.recipe.num_steps
    (1210, 300)

    Source: experiments.ipynb of arXiv:2412.07003.
    """
    if hidden < 1:
        raise BadInput("hidden", got=hidden, wanted="at least 1")
    stream = generator(seed, "digits-mlp", hidden, "init")
    module = nn.Sequential(_linear(64, hidden, stream), nn.GELU(approximate="tanh"), _linear(hidden, 10, stream))
    module = module.to(dtype)
    name = name or f"digits-mlp (hidden {hidden}, seed {seed})"
    bare = Network(module, task=digits() if task is None else task, name=name)
    trainer = Trainer(optimiser=momentum(lr=0.1, mu=0.9), num_steps=num_steps, batch_size=64, schedule="cosine")
    return Network(module, task=bare.task, recipe=trainer.bind(bare), initial=bare.theta, name=name)


@final
@dataclass(frozen=True, kw_only=True)
class BuiltinModel:
    """One row of `tremorscope list models`."""

    name: str
    description: str
    parameters: int
    is_trained: bool  # its weights are shipped, or lie in the cache
    command: str | None = None  # what builds it, where loading does not


def builtin_models() -> list[BuiltinModel]:
    """What can be loaded by name, and whether loading it will have to train it first."""
    cache = Cache()
    rows = []
    for name, (description, build) in _MODELS.items():
        network = build(torch.float32)
        rows.append(
            BuiltinModel(
                name=name,
                description=description,
                parameters=network.layout.size,
                is_trained=cache.path(_key(name, network)).is_file(),
            )
        )
    return rows + [
        BuiltinModel(
            name=recipes.full_name(twin),
            description=description,
            parameters=recipes.num_parameters(twin),
            is_trained=microworld.is_built(twin),
            command=f"tremorscope train {recipes.full_name(twin).removeprefix('builtin:')}",
        )
        for twin, (description, _) in recipes.RECIPES.items()
    ]


def load_builtin(name: str, *, dtype: torch.dtype = torch.float32) -> Network:
    """A built-in network, trained now if it never was, else read from the cache.

    It is trained on the CPU in `dtype`. Cost at first use: two seconds at most. The language models of the microworld
    are read, not trained: they come with the package, or from `tremorscope train`.

    Raises:
        BadInput: If there is no such network, or a language model was not built yet.
    """
    if name.partition("@")[0] == recipes.NAME:
        network = microworld.load_microworld(name)
        return network if dtype is network.dtype else _cast(network, dtype)
    if name not in _MODELS:
        names = [*_MODELS, *map(recipes.full_name, recipes.RECIPES)]
        raise BadInput(f"model {name!r}", got="no such built-in", wanted=", ".join(names), remedy=_near(name, names))
    network = _MODELS[name][1](dtype)
    cache, place = Cache(), _key(name, network)
    known = cache.load(place)
    if known is None:
        known = {"theta": run_recipe(check_recipe(network.recipe), network.start)}
        cache.store(place, known, {"model": name})
    return network.at(known["theta"])


def _key(name: str, network: Network) -> str:
    content = {"start": network.start}
    if network.task is not None:
        content |= {"inputs": network.task.inputs, "targets": network.task.targets}
    return key("builtin model", TRAINING_VERSION, name=name, content=hash_tensors(content))


def _cast(network: Network, dtype: torch.dtype) -> Network:
    return Network(network.module, tokenizer=network.tokenizer, name=network.name, dtype=dtype)


def _near(name: str, known: list[str]) -> str | None:
    return did_you_mean(name if name.startswith("builtin:") else f"builtin:{name}", known)


def _linear(fan_in: int, fan_out: int, stream: torch.Generator) -> nn.Linear:
    sd = math.sqrt(1 / fan_in) / TRUNCATED_SD
    kernel = torch.empty(fan_out, fan_in, dtype=torch.float64)
    nn.init.trunc_normal_(kernel, std=sd, a=-2 * sd, b=2 * sd, generator=stream)
    # Without storage at first: a layer's own initialisation would draw from the global random stream.
    layer = nn.Linear(fan_in, fan_out, device="meta")
    layer.weight = nn.Parameter(kernel)
    layer.bias = nn.Parameter(BIAS_SD * torch.randn(fan_out, generator=stream, dtype=torch.float64))
    return layer


_MODELS: dict[str, tuple[str, Callable[[torch.dtype], Network]]] = {
    "builtin:digits-mlp": (
        "64-16-10 perceptron on 8x8 digits, 300 steps of momentum",
        lambda dtype: digits_mlp(16, dtype=dtype, name="builtin:digits-mlp"),
    ),
    "builtin:digits-mlp-64": (
        "64-64-10 perceptron on 8x8 digits, 625 steps: the published training-Jacobian network",
        lambda dtype: digits_mlp(64, num_steps=625, dtype=dtype, name="builtin:digits-mlp-64"),
    ),
    "builtin:digits-cnn": (
        "two convolutions and two linear layers on 8x8 digits, 200 steps of momentum",
        lambda dtype: digits_cnn(dtype=dtype, name="builtin:digits-cnn"),
    ),
    "builtin:digits-transformer": (
        "two encoder layers on the rows of 8x8 digits, 200 steps of Adam",
        lambda dtype: digits_transformer(dtype=dtype, name="builtin:digits-transformer"),
    ),
}

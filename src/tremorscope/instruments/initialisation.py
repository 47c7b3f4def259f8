"""Fresh initial weights for any module, and the norm that a draw has on average."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.network import Network

Scheme = Literal["xavier", "he", "reset"]
Initialiser = Callable[[Network, int], Tensor]
"""From a network and a seed to flat weights."""
SCHEMES: tuple[Scheme, ...] = ("xavier", "he", "reset")


def draw_weights(
    network: Network, initialiser: Scheme | Initialiser = "xavier", *, seed: int
) -> Float[Tensor, " params"]:
    """Fresh flat weights of a network, drawn from the seed alone; the network stays as it is.

    `"xavier"` draws every tensor of two or more axes from a normal distribution of variance
    `2 / (fan_in + fan_out)`, `"he"` of variance `2 / fan_in`, with the fans as in `torch.nn.init`; biases are 0,
    and gains of normalisation layers keep their value. `"reset"` lets every layer initialise itself, as its
    `reset_parameters` does. Any function `(network, seed) -> flat weights` will do as well.

    The draw is in float64 and then rounded: it does not depend on the precision of the network.

    >>> network = Network(nn.Linear(3, 2))
    >>> theta = draw_weights(network, "he", seed=0)
    >>> theta.shape, theta[6:].tolist()
    (torch.Size([8]), [0.0, 0.0])

    Raises:
        BadInput: If there is no such scheme, a layer cannot initialise itself, or an own function gives
            something other than finite weights of this network.

    Source: Glorot and Bengio, AISTATS 2010, eq. 12; He et al., "Delving deep into rectifiers", ICCV 2015, eq. 10.
    """
    if callable(initialiser):
        return _own(network, initialiser, seed)
    if initialiser == "reset":
        fresh = reset_module(network.module, network.name, seed=seed)
        return network.layout.flatten(dict(fresh.named_parameters())).detach().to(network.device, network.dtype)
    stream = generator(seed, "initialisation")
    pieces = []
    for name, deviation in _deviations(network, initialiser).items():
        like = network.params[name]
        if deviation is None:
            pieces.append(like.reshape(-1))
            continue
        normal = torch.randn(like.shape, generator=stream, dtype=torch.float64)
        pieces.append((deviation * normal if deviation else torch.zeros_like(normal)).reshape(-1).to(like))
    return torch.cat(pieces)


def expected_norm(network: Network, scheme: Scheme = "xavier") -> float:
    """Root of the mean squared norm of a draw, from shapes alone: `sqrt(sum_tensors entries * variance)`.

    >>> expected_norm(Network(nn.Linear(6, 2, bias=False)), "xavier")  # 12 entries of variance 1/4
    1.7320508075688772

    Raises:
        BadInput: If the scheme is none of xavier and he: others have no formula.
    """
    if scheme not in ("xavier", "he"):
        raise BadInput("scheme with a known norm", got=scheme, wanted="xavier or he")
    total = 0.0
    for name, deviation in _deviations(network, scheme).items():
        tensor = network.params[name]
        total += float(tensor.double().square().sum()) if deviation is None else tensor.numel() * deviation**2
    return math.sqrt(total)


def reset_module(module: nn.Module, name: str, *, seed: int) -> nn.Module:
    """A copy of a module on the CPU, initialised anew by its layers' own `reset_parameters`.

    A model of transformers, whose layers have none, is made anew from its configuration. Neither the module nor the
    global random state is touched.

    Raises:
        BadInput: If a layer with parameters of its own cannot initialise itself, or a model of transformers is not as
            its configuration makes it.
    """
    fresh = copy.deepcopy(module).cpu()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        # Not torch.manual_seed: that would reseed accelerators too, which nobody would put back.
        torch.random.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        remade: tuple[str, ...] = ()
        for path, part in fresh.named_modules(prefix=name):
            if path.startswith(remade):
                continue
            if _is_pretrained_model(part):
                anew = type(part)(copy.deepcopy(part.config)).state_dict()
                _check_as_configured(name, path, part, anew)
                part.load_state_dict(anew)
                remade += (f"{path}.",)
                continue
            reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
            if callable(reset):
                reset()
            elif next(part.parameters(recurse=False), None) is not None:
                raise BadInput(
                    f"untrained twin of {name!r}",
                    got=f"layer {path!r} ({type(part).__name__}) with parameters and no reset_parameters()",
                    wanted="layers that can initialise themselves",
                    remedy="Pass the starting weights: Network(module, initial=theta0).",
                )
    return fresh


def _check_as_configured(name: str, path: str, part: nn.Module, anew: Mapping[str, Tensor]) -> None:
    """Added, removed and resized weights are nobody's to draw."""
    own = part.state_dict()
    changed = [key for key in dict.fromkeys([*own, *anew]) if key not in own or key not in anew]
    changed += [key for key in own if key in anew and own[key].shape != anew[key].shape]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise BadInput(
            f"untrained twin of {name!r}",
            got=f"{path!r} ({type(part).__name__}), which is not as its configuration makes it: {changed[0]}{more}",
            wanted="a model of transformers without added, removed or resized weights",
            remedy="Pass the starting weights: Network(module, initial=theta0).",
        )


def _is_pretrained_model(module: nn.Module) -> bool:
    """Whether it is a whole model of transformers, which is not imported for the question."""
    transformers = sys.modules.get("transformers")
    written_there = any(base.__module__.startswith("transformers.") for base in type(module).__mro__)
    return transformers is not None and written_there and isinstance(module, transformers.PreTrainedModel)


def _own(network: Network, initialiser: Initialiser, seed: int) -> Tensor:
    theta = initialiser(network, seed)
    if theta.shape != (network.layout.size,) or not bool(theta.isfinite().all()):
        finite = "finite" if bool(theta.isfinite().all()) else "not all finite"
        raise BadInput(
            "weights that the initialiser drew",
            got=f"shape {tuple(theta.shape)}, {finite}",
            wanted=f"a finite vector of {network.layout.size}",
        )
    return theta.detach().to(network.device, network.dtype)


def _deviations(network: Network, scheme: Scheme) -> dict[str, float | None]:
    """Standard deviation of each tensor's entries; 0 for biases, None for what keeps its value."""
    if scheme not in SCHEMES:
        raise BadInput("scheme of initialisation", got=scheme, wanted=", ".join(SCHEMES))
    found: dict[str, float | None] = {}
    for name, tensor in network.params.items():
        if tensor.ndim < 2:
            found[name] = 0.0 if name.rsplit(".", 1)[-1].startswith("bias") else None
            continue
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(tensor)
        found[name] = math.sqrt(2 / (fan_in + fan_out if scheme == "xavier" else fan_in))
    return found

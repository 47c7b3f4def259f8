"""A copy of a network that computes the same and has more parameters: biases, an output layer of its own."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tremorscope.foundations.errors import BadInput

if TYPE_CHECKING:
    from tremorscope.instruments.network import Network


def with_room(network: Network, biases: Sequence[str], *, unties: bool = False) -> Network:
    """The same function over a copy of the module, in which the given biases exist, as zeros.

    The copy's configuration says so, so that a folder written from it loads again: where a family has one switch for
    several biases, all of them come. With `unties` the output layer gets weights of its own, the same ones. What
    starts from the old parameters (a recipe, initial weights) does not go with the copy.

    Args:
        network: The view to copy; its module stays as it is.
        biases: Names of parameters that are not there.
        unties: Whether the output layer parts from the token embedding.

    Cost: a second set of the module's weights.

    Raises:
        BadInput: If the module has no configuration, or one that knows no such bias.
    """
    from tremorscope.instruments.network import Network  # it stands on this module

    switches, added = room_for(network, biases) if biases else ((), {})
    module = copy.deepcopy(network.module)
    for name, shape in added.items():
        path, _, leaf = name.rpartition(".")
        part = module.get_submodule(path)
        old: Any = network.params[f"{path}.weight"]
        part.register_parameter(leaf, nn.Parameter(old.new_zeros(shape), requires_grad=False))
    for switch in switches:
        setattr(module.config, switch, True)
    tied = None
    if unties:
        tied = _untie(module)
    copied = Network(
        module, task=network.task, tokenizer=network.tokenizer, name=network.name, dtype=None, device=network.device
    )
    copied.params = {name: network.params.get(name, value) for name, value in copied.params.items()}
    if tied is not None:
        head, table = tied
        copied.params[head] = network.params[table].clone()
    copied.buffers = dict(network.buffers)
    copied.dtype, copied.device = network.dtype, network.device
    copied.edits, copied._taps = network.edits, network._taps
    copied._site_maps = dict(network._site_maps)  # the same places under the same names
    return copied


def is_tied_to_the_head(module: nn.Module, path: str) -> bool:
    """Whether the configuration ties this embedding to the output layer, and nothing else shares it."""
    config: Any = getattr(module, "config", None)
    if not getattr(config, "tie_word_embeddings", False) or not hasattr(module, "get_output_embeddings"):
        return False
    finders: Any = module
    table, head = finders.get_input_embeddings(), finders.get_output_embeddings()
    if head is None or table is not module.get_submodule(path) or head.weight is not table.weight:
        return False
    sharers = [one for one in module.modules() if getattr(one, "weight", None) is table.weight]
    return len(sharers) == 2


def _untie(module: Any) -> tuple[str, str]:
    """Give the output layer weights of its own; names of these and of those it had."""
    head, table = module.get_output_embeddings(), module.get_input_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
    module.config.tie_word_embeddings = False
    if hasattr(module, "all_tied_weights_keys"):  # what transformers leaves out when it saves
        module.all_tied_weights_keys = module.get_expanded_tied_weights_keys(all_submodels=False)
    names = {id(one): name for name, one in module.named_parameters()}
    return names[id(head.weight)], names[id(table.weight)]


def room_for(network: Network, biases: Sequence[str]) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Switches of the configuration that make all these biases, and the shape of every parameter that comes with them.

    Tried out on modules without memory: the names of the switches differ from family to family.

    Raises:
        BadInput: If the module has no configuration, or one that knows no such bias.
    """
    module: Any = network.module
    config = getattr(module, "config", None)
    chosen: list[str] = []
    added: dict[str, tuple[int, ...]] = {}
    if config is not None and hasattr(config, "to_dict"):
        offered = [key for key, value in config.to_dict().items() if value is False and "bias" in key]
        for switch in offered:
            found = _added(module, switch)
            if any(name in found for name in biases if name not in added):
                chosen.append(switch)
                added |= found
    lacking = [name for name in biases if name not in added]
    if lacking:
        kind = type(module).__name__
        raise BadInput(
            f"edits to bake into {lacking[0].rpartition('.')[0]}",
            got=f"a constant part, and a layer without a bias; the configuration of {kind} knows none for it"
            if config is not None
            else f"a constant part, and a layer without a bias in a {kind}, which has no configuration to ask for one",
            wanted="a layer with a bias, or an edit that only removes or turns components",
            remedy="Keep the edit in with_edits(...), or leave out its reference and shift.",
        )
    return tuple(chosen), added


def _added(module: Any, switch: str) -> dict[str, tuple[int, ...]]:
    """Parameters that a switch adds, with their shapes; none where it changes anything else."""
    config = copy.deepcopy(module.config)
    setattr(config, switch, True)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.device("meta"):
            warnings.simplefilter("ignore")
            made = type(module)(config)
    except Exception:  # a switch that this class cannot be made with is none for us
        return {}
    old = {name: one.shape for name, one in module.named_parameters()}
    new = {name: one.shape for name, one in made.named_parameters()}
    more = {name: tuple(shape) for name, shape in new.items() if name not in old}
    are_biases = all(
        name.endswith(".bias") and isinstance(module.get_submodule(name.rpartition(".")[0]), nn.Linear) for name in more
    )
    return more if are_biases and all(new.get(name) == shape for name, shape in old.items()) else {}

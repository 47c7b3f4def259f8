"""Edits written into the weights of the layer that feeds the site, so that they cost nothing any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.aliases import find_place, place_ahead
from tremorscope.instruments.activations.folding import AffineMap, constant_affine
from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.activations.probe import required_batch, same, watch
from tremorscope.instruments.task import Batch

if TYPE_CHECKING:
    from tremorscope.instruments.edit import PlacedEdit
    from tremorscope.instruments.network import Network


def bake(network: Network, *placed: PlacedEdit, batch: Batch | None = None) -> Network:
    """The same function without hooks: constant affine edits of activations, as other weights.

    A site can be baked that is the output of a linear layer, or its input, or the output of a module that ends in one
    (`attn_out.L`, `mlp_out.L`, `q.L.H`, `head_out.L.H`, ...). The user's module is not touched: what comes back is a
    view with other weights, and `unbake` gives the old one.

    Args:
        network: A view; its own edits of activations are baked where none are given.
        placed: Edits to bake.
        batch: To find the layer that a module ends in; see `Network.site_map`.

    Cost: a product of the layer's weights with the edit, in float64; a forward pass where the layer is to be found.

    >>> from tremorscope.instruments.activations.named_edits import directional_ablate
    >>> from tremorscope.instruments.network import Network
    >>> network = Network(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    >>> baked = bake(network, directional_ablate(torch.tensor([1.0, 0.0])).at("acts:0"))
    >>> baked.record("acts:0", Batch((torch.randn(1, 2),), {}, None))[0, 0].item(), baked.edits
    (0.0, ())

    Raises:
        BadInput: If an edit depends on the vector by more than an affine map, or on the position; no linear layer feeds
            the site; its weights are shared; or it has no bias to hold the edit's constant part.
        SiteNotFound: If a site names nothing in this network.
    """
    chosen = placed or network.edits
    if not chosen:
        raise BadInput("edits to bake", got="none", wanted="at least one edit of activations")
    wanted = [(edit, _required_place(network, edit, batch)) for edit in chosen]
    if placed:
        _check_order(network, wanted)
    # Inner modules act before those around them, whatever the order of the edits.
    wanted.sort(key=lambda pair: -len(pair[1].module.split(".")))
    changed: dict[str, tuple[Tensor, Tensor]] = {}
    for edit, place in wanted:
        path = _layer(network, edit, place, batch)
        weight, bias = changed.get(path) or _weights(network, path)
        changed[path] = _baked(edit, place, _checked_map(edit), weight, bias)
    params = dict(network.params)
    for path, (weight, bias) in changed.items():
        _write(network, params, path, weight, bias)
    view = network._view(params, network.name)
    view.edits, view._taps = (network.edits, network._taps) if placed else ((), ())
    view._unbaked = network
    return view


def unbake(network: Network) -> Network:
    """The view that was baked, as it was.

    Raises:
        BadInput: If this one does not come from baking.
    """
    if network._unbaked is None:
        raise BadInput(
            f"network {network.name!r}", got="weights that hold no baked edit", wanted="what bake(...) returns"
        )
    return network._unbaked


def _required_place(network: Network, edit: PlacedEdit, batch: Batch | None) -> Place:
    return place_ahead(network, edit.site) or find_place(network, edit.site, required_batch(network, batch))


def _check_order(network: Network, wanted: list[tuple[PlacedEdit, Place]]) -> None:
    """What is baked acts before what is hooked."""
    hooked = {tap.place.module for tap in network._taps or ()}
    for edit, place in wanted:
        if place.module in hooked:
            raise BadInput(
                str(edit),
                got=f"a view with an edit of its own at {place.module}, which would then come after",
                wanted="edits baked together",
                remedy="Call bake(network.with_edits(...)).",
            )


def _checked_map(edit: PlacedEdit) -> AffineMap:
    found = constant_affine(edit.edit)
    if found is None:
        raise BadInput(
            str(edit),
            got=f"{type(edit.edit).__name__}, which is no constant affine map of one vector",
            wanted="Add, Affine, Project, or a Replace by one vector",
        )
    if edit.site.position not in (None, "all") or edit.where is not None:
        raise BadInput(
            str(edit), got="an edit at some positions", wanted="one at all of them: weights know no positions"
        )
    return found


def _layer(network: Network, edit: PlacedEdit, place: Place, batch: Batch | None) -> str:
    """Path of the linear layer whose output (or, at an `in` port, input) the site is."""
    module = network.module
    if _is_linear(module.get_submodule(place.module)):
        path: str | None = place.module
    elif place.port.startswith("out.") and any(map(_is_linear, module.get_submodule(place.module).modules())):
        path = _ending(network, place, required_batch(network, batch))
    else:
        path = None
    if path is None:
        raise BadInput(
            str(edit),
            got=f"{place}, which no single linear layer feeds",
            wanted="a site such as attn_out.L, mlp_out.L, q.L.H, head_out.L.H, or a linear layer",
            remedy="The residual stream is a sum: bake at everything that is added to it.",
        )
    if place.port not in ("out.0", "in.0", "kwarg.input", "kwarg.x"):
        raise BadInput(str(edit), got=f"the port {place.port}", wanted="the input or output of a linear layer")
    layer = module.get_submodule(path)
    paths = [name for name, part in module.named_modules(remove_duplicate=False) if part is layer]
    names = [name for name, one in module.named_parameters(remove_duplicate=False) if one is layer.weight]
    if len(paths) > 1 or len(names) > 1:
        raise BadInput(
            str(edit), got=f"weights that are shared ({', '.join(names)})", wanted="a layer with weights of its own"
        )
    return path


def _ending(network: Network, place: Place, batch: Batch) -> str | None:
    """The linear layer inside a module whose output is the module's."""
    module = network.module.get_submodule(place.module)
    inside = [name for name, part in module.named_modules() if _is_linear(part)]
    prefix = f"{place.module}." if place.module else ""
    plain = network._without_edits()
    seen, _ = watch(plain, batch, [place.module, *(prefix + name for name in inside)])
    whole = seen.pop(place.module, None)
    found = [
        path for path, one in seen.items() if whole is not None and one.calls == 1 and same(one.given, whole.given)
    ]
    return found[-1] if found and place.path == (0,) else None


def _baked(edit: PlacedEdit, place: Place, made: AffineMap, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """New weight [out, in] and bias [out]."""
    is_output = place.port.startswith("out.")
    weight, bias = weight.clone(), bias.clone()
    width = weight.shape[0] if is_output else weight.shape[1]
    columns = slice(*(place.columns or (0, width)))
    needed = columns.stop - columns.start
    if len(made.shift) != needed:
        raise BadInput(
            str(edit), got=f"{len(made.shift)} entries in the edit", wanted=f"{needed}, the width of the value there"
        )
    left, right, shift = (one.to(weight.device) for one in made[:3])
    if is_output:
        rows, offset = weight[columns], bias[columns]
        weight[columns] = rows + left @ (right.mT @ rows) if made.keeps else torch.zeros_like(rows)
        bias[columns] = offset + left @ (right.mT @ offset) + shift if made.keeps else shift
    else:
        part = weight[:, columns]
        bias = bias + part @ shift
        weight[:, columns] = part + (part @ left) @ right.mT if made.keeps else torch.zeros_like(part)
    return weight, bias


def _weights(network: Network, path: str) -> tuple[Tensor, Tensor]:
    """Weight [out, in] and bias of a layer of this view, in float64; zeros where there is no bias."""
    weight = network.params[f"{path}.weight"].double()
    weight = weight if isinstance(network.module.get_submodule(path), nn.Linear) else weight.mT
    bias = network.params.get(f"{path}.bias")
    return weight, (weight.new_zeros(len(weight)) if bias is None else bias.double())


def _write(network: Network, params: dict[str, Tensor], path: str, weight: Tensor, bias: Tensor) -> None:
    old = params[f"{path}.weight"]
    weight = weight if isinstance(network.module.get_submodule(path), nn.Linear) else weight.mT
    params[f"{path}.weight"] = weight.to(old.dtype).contiguous()
    if f"{path}.bias" in params:
        params[f"{path}.bias"] = bias.to(old.dtype)
    elif bias.any():
        raise BadInput(
            f"edits to bake into {path}",
            got="a constant part, and a layer without a bias",
            wanted="an edit that only removes or turns components",
            remedy="Keep the edit in with_edits(...), or leave out its reference and shift.",
        )


def _is_linear(module: Any) -> bool:
    """Also transformers' Conv1D, a linear layer with its weight the other way round."""
    is_turned = type(module).__name__ == "Conv1D" and hasattr(module, "nf")
    return is_turned or isinstance(module, nn.Linear)

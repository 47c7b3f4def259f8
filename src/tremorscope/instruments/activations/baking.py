"""Edits written into weights, so that they cost nothing any more."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.aliases import find_place, place_ahead
from tremorscope.instruments.activations.changed_weights import ChangedWeights, is_linear, shared_names
from tremorscope.instruments.activations.folding import AffineMap, constant_affine
from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.activations.probe import required_batch, same, watch
from tremorscope.instruments.activations.residual_baking import StreamPlace, bake_stream, stream_places, stream_width
from tremorscope.instruments.task import Batch

if TYPE_CHECKING:
    from tremorscope.instruments.edit import PlacedEdit
    from tremorscope.instruments.network import Network


def bake(network: Network, *placed: PlacedEdit, batch: Batch | None = None) -> Network:
    """The same function without hooks: constant affine edits of activations, as other weights, at every position.

    | site | what can be baked |
    |---|---|
    | output or input of a linear layer, or of a module that ends in one (`attn_out.L`, `q.L.H`, ...) | any affine map |
    | an embedding (`embed`), the stream before the first block (`resid_pre.0`) | any affine map |
    | the residual stream anywhere (`resid_pre.L`, `resid_mid.L`, `resid_post.L`) | an addition |
    | the residual stream from `resid_pre.0` on, the same edit at each of `residual_sites(network)` | an ablation, a |
    | | projection, a coordinate that is set: whatever done twice is done once |

    The user's module is not touched: what comes back is a view with other weights, and `unbake` gives the old one.
    Where a constant needs a bias that is not there and the model's configuration knows one, or token embedding and
    output layer are one matrix and the embedding has to change alone, the view is of a copy of the module with that
    room; such a view has no recipe. Edits of the stream and of embeddings are checked against the hooked view before
    they are believed.

    Args:
        network: A view; its own edits of activations are baked where none are given.
        placed: Edits to bake.
        batch: To find the layer that a module ends in; see `Network.site_map`.

    Cost: a product of the layer's weights with the edit, in float64; a forward pass where the layer is to be found;
    a second set of weights where there was no room.

    >>> from tremorscope.instruments.activations.named_edits import directional_ablate
    >>> from tremorscope.instruments.network import Network
    >>> network = Network(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    >>> baked = bake(network, directional_ablate(torch.tensor([1.0, 0.0])).at("acts:0"))
    >>> baked.record("acts:0", Batch((torch.randn(1, 2),), {}, None))[0, 0].item(), baked.edits
    (0.0, ())

    Raises:
        BadInput: If an edit depends on the vector by more than an affine map, or on the position; nothing that can be
            changed writes what it edits, or its weights are shared; it needs a bias that the layer cannot have; or
            the weights do not give what the hooks give.
        SiteNotFound: If a site names nothing in this network.
    """
    changed, is_looked_through = _changed(network, placed, batch)
    view = changed.view()
    view.edits, view._taps = (network.edits, network._taps) if placed else ((), ())
    if is_looked_through:
        _check_same(network.with_edits(*placed) if placed else network, view, required_batch(network, batch))
    view._unbaked = network
    return view


def bake_refusal(network: Network, *placed: PlacedEdit, batch: Batch | None = None) -> str | None:
    """Why `bake` would not write these edits, as far as can be told without a view of them; None if it would.

    Cost: that of `bake`, without a second set of weights and without the check of outputs.
    """
    try:
        _changed(network, placed, batch)[0].check_room()
    except BadInput as error:
        return str(error)
    return None


def _changed(network: Network, placed: tuple[PlacedEdit, ...], batch: Batch | None) -> tuple[ChangedWeights, bool]:
    """The weights that change, and whether that rests on a look at what modules gave."""
    chosen = placed or network.edits
    if not chosen:
        raise BadInput("edits to bake", got="none", wanted="at least one edit of activations")
    wanted = [(edit, _required_place(network, edit, batch)) for edit in chosen]
    if placed:
        _check_order(network, wanted)
    stream = _stream(network, wanted, batch)
    of_stream = [place for node in stream for place in node.places]
    maps = [(edit, place, _checked_map(edit)) for edit, place in wanted]
    # Inner modules act before those around them, whatever the order of the edits.
    inner = sorted((one for one in maps if one[1] not in of_stream), key=lambda one: -len(one[1].module.split(".")))
    changed = ChangedWeights(network)
    for edit, place, made in inner:
        if place.port == "out.0" and isinstance(network.module.get_submodule(place.module), nn.Embedding):
            _check_width(edit, made, network.params[f"{place.module}.weight"].shape[1])
            changed.map_table(place.module, made)
        else:
            _bake_layer(changed, batch, edit, place, made)
    if len(inner) < len(maps):
        found = partial(_layer, network, batch)
        outer = [one for one in maps if one[1] in of_stream]
        width = stream_width(network, stream, batch)
        for edit, _, made in outer:
            _check_width(edit, made, width)
        bake_stream(changed, outer, stream, batch, found, partial(_bake_layer, changed, batch))
    return changed, len(inner) < len(maps) or changed.maps_tables


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


def _stream(network: Network, wanted: list[tuple[PlacedEdit, Place]], batch: Batch | None) -> list[StreamPlace]:
    """Places of the residual stream, if one may be among what is wanted."""
    if all(is_linear(network.module.get_submodule(place.module)) for _, place in wanted):
        return []
    try:
        return stream_places(network, batch)
    except BadInput:  # no input can be made up that the module takes
        return []


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
            str(edit),
            got="an edit at some positions",
            wanted="one at all of them: weights know no positions",
            remedy="Leave the position out, and the baked edit acts at every position; or keep it in with_edits(...).",
        )
    return found


def _bake_layer(changed: ChangedWeights, batch: Batch | None, edit: PlacedEdit, place: Place, made: AffineMap) -> None:
    """Put the output of a linear layer, or its input, through a map."""
    path = _layer(changed.network, batch, edit, place)
    changed.put(path, *_baked(edit, place, made, changed.weight(path), changed.bias(path)))


def _layer(network: Network, batch: Batch | None, edit: PlacedEdit, place: Place) -> str:
    """Path of the linear layer whose output (or, at an `in` port, input) the site is."""
    module = network.module
    if is_linear(module.get_submodule(place.module)):
        path: str | None = place.module
    elif place.port.startswith("out.") and any(map(is_linear, module.get_submodule(place.module).modules())):
        path = _ending(network, place, required_batch(network, batch))
    else:
        path = None
    if path is None:
        raise BadInput(
            str(edit),
            got=f"{place}, which no single linear layer feeds",
            wanted="a site such as attn_out.L, mlp_out.L, q.L.H, head_out.L.H, a linear layer, or an addition to the "
            "residual stream",
            remedy="Keep the edit in with_edits(...).",
        )
    if place.port not in ("out.0", "in.0", "kwarg.input", "kwarg.x"):
        raise BadInput(str(edit), got=f"the port {place.port}", wanted="the input or output of a linear layer")
    layer = module.get_submodule(path)
    paths = [name for name, part in module.named_modules(remove_duplicate=False) if part is layer]
    names = shared_names(module, f"{path}.weight")
    if len(paths) > 1 or len(names) > 1:
        raise BadInput(
            str(edit), got=f"weights that are shared ({', '.join(names)})", wanted="a layer with weights of its own"
        )
    return path


def _ending(network: Network, place: Place, batch: Batch) -> str | None:
    """The linear layer inside a module whose output is the module's."""
    module = network.module.get_submodule(place.module)
    inside = [name for name, part in module.named_modules() if is_linear(part)]
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
    _check_width(edit, made, needed)
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


def _check_width(edit: PlacedEdit, made: AffineMap, width: int) -> None:
    if len(made.shift) != width:
        raise BadInput(
            str(edit), got=f"{len(made.shift)} entries in the edit", wanted=f"{width}, the width of the value there"
        )


def _check_same(hooked: Network, baked: Network, batch: Batch) -> None:
    """Compare outputs on a few tokens: modules may be used in more ways than one look at them shows."""
    with torch.no_grad():
        wanted, found = (_main(one.output(one.params, batch)) for one in (hooked, baked))
    if wanted is None or found is None:
        return
    wanted, found = wanted.double(), found.double()
    gap = float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))
    allowed = max(1e-4, 64 * float(torch.finfo(hooked.dtype).eps))
    if not gap <= allowed:
        raise BadInput(
            "edits to bake",
            got=f"weights whose outputs miss those of the hooked view by {gap:.1e}",
            wanted=f"at most {allowed:.1e}",
            remedy="A layer is used in more ways than one here, or other edits are in the way: keep the edits in "
            "with_edits(...), or bake all of them together.",
        )


def _main(output: Any) -> Tensor | None:
    """What a network says first: logits, where it has them."""
    found = getattr(output, "logits", output)
    if isinstance(found, dict):
        found = next(iter(found.values()), None)
    if isinstance(found, tuple | list):
        found = found[0] if found else None
    return found if isinstance(found, Tensor) else None

"""A fitted direction's edit written into a model's weights: a file of them, or a folder that loads again."""

from __future__ import annotations

from pathlib import Path

from tremorscope.foundations.arrays import write_arrays
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.baking import bake
from tremorscope.instruments.activations.residual_baking import residual_sites
from tremorscope.instruments.hugging_face_folder import write_hugging_face
from tremorscope.instruments.load import load
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.activations.concept_editing.affine_edits import edit_of
from tremorscope.methods.activations.concept_editing.direction_file import load_direction
from tremorscope.methods.activations.concept_editing.examples import batches
from tremorscope.methods.activations.concept_editing.fitting import moved

EVERY_POSITION = "The edit acts at every position of every text: weights know no positions."


def bake_edit(
    model: str | Path | Network,
    to: Path,
    *,
    direction: Path,
    method: str = "ace",
    alpha: float = 0.0,
    text: str | None = None,
    everywhere: bool = False,
    device: str | None = None,
    dtype: str | None = None,
) -> Path:
    """Write the network's weights with the edit inside; what `tremorscope steer bake` does.

    The edit is made at *all* positions, wherever the direction was fitted.

    Args:
        model: What `load` takes.
        to: A name that ends in .safetensors for the weights alone; else a folder in the Hugging Face layout, with
            configuration and tokenizer, that `hf:FOLDER` loads.
        direction: A file that `fit_direction` wrote, or `examine --prompt`.
        method: A name of `affine_edits.METHODS`.
        alpha: Level: 0 the typical negative, 1 the typical positive.
        text: Lets a model's layers be found that takes no made-up tokens.
        everywhere: Make the edit at every place of the residual stream, in place of where the direction was fitted.
        device: Where to compute.
        dtype: `"float32"` or `"float64"`.

    Raises:
        BadInput: If weights cannot hold the edit (see `bake`), a file is asked for where the module needs more
            parameters than it has, or `to` cannot be written.
    """
    network = load(model, device=device, dtype=dtype)
    fit = load_direction(direction, network=network)
    edit = edit_of(method, fit, alpha)
    batch: Batch | None = None if text is None else next(batches(network, [text]))
    here = str(moved(fit.site, "all" if network.tokenizer is not None else None))
    sites = residual_sites(network, batch) if everywhere else (here,)
    if not sites:
        raise BadInput(
            f"residual stream of {network.name!r}", got="no place of it that could be verified", wanted="at least one"
        )
    baked = bake(network, *(edit.at(site) for site in sites), batch=batch)
    if to.suffix != ".safetensors":
        return write_hugging_face(baked, to)
    if baked.module is not network.module:
        more = [name for name in baked.params if name not in network.params]
        raise BadInput(
            f"weights in {to}",
            got=f"an edit that needs parameters which the model has not ({more[0]}, ...)",
            wanted="a folder, whose configuration can say so",
            remedy="Give a name that does not end in .safetensors.",
        )
    about = {"model": network.name, "edit": method, "alpha": repr(alpha), "site": ", ".join(sites)}
    write_arrays(to, baked.params, metadata=about, remedy="Choose another file.")
    return to

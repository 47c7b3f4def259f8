"""Networks written as folders in the Hugging Face layout, so that `hf:FOLDER` and everybody's tools load them."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.files import unwritable
from tremorscope.instruments.hugging_face import PREFIX, _unchanged
from tremorscope.instruments.network import Network


def write_hugging_face(network: Network, folder: Path) -> Path:
    """Write the weights of this view, the configuration and the tokenizer; `load("hf:FOLDER")` gives the view back.

    The folder appears whole or not at all. The user's module is not touched, and edits of activations are not written:
    bake them first. Weights are in the precision of the view.

    Args:
        network: A view of a model of transformers.
        folder: A new or empty one.

    Cost: the size of the weights on disk.

    Returns:
        The folder.

    Raises:
        BadInput: If the module is not of transformers, the view has edits of activations, the folder holds something,
            or it cannot be written.
    """
    module: Any = network.module
    if not hasattr(module, "save_pretrained") or not hasattr(module, "config"):
        raise BadInput(
            f"folder of {network.name!r}",
            got=f"a {type(module).__name__}, which is no model of transformers",
            wanted="a model with a configuration, which alone loads from a folder again",
            remedy="Write the weights alone, to a name that ends in .safetensors.",
        )
    if network.edits:
        raise BadInput(
            f"folder of {network.name!r}",
            got=f"a view with {len(network.edits)} edits of activations",
            wanted="weights alone",
            remedy="Bake the edits first.",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(
            f"folder {folder}",
            got="a folder that holds something" if folder.is_dir() else "a file",
            wanted="a new folder, or an empty one",
            remedy="Choose another name.",
        )
    shell = copy.copy(module)  # transformers writes its own name and precision into the configuration it saves
    shell.config = copy.deepcopy(module.config)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with _unchanged():
            shell.save_pretrained(temporary, state_dict=_state(network))
            if network.tokenizer is not None and hasattr(network.tokenizer, "save_pretrained"):
                network.tokenizer.save_pretrained(temporary)
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    except OSError as error:
        raise unwritable(folder, error, remedy="Choose another folder.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def spec_of(folder: Path) -> str:
    """What `load` takes for a folder."""
    return f"{PREFIX}{folder}"


def _state(network: Network) -> dict[str, Tensor]:
    """The view's weights under every name that the module saves; one tensor where the module has one."""
    names = {id(one): name for name, one in network.module.named_parameters()}
    state: dict[str, Tensor] = {}
    for key, value in network.module.state_dict(keep_vars=True).items():
        name = names.get(id(value), key)
        held = network.params.get(name, network.buffers.get(key, value))
        state[key] = held.detach().contiguous()
    return state

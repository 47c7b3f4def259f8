"""Named tensors in files: safetensors, written atomically, never pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.files import ANOTHER_PLACE, write_atomically


def write_arrays(
    path: Path, arrays: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None, remedy: str = ANOTHER_PLACE
) -> None:
    """Write named tensors of any device to one file. Views are copied; memory: what the views need.

    Raises:
        BadInput: If the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    packed: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in arrays.items():
        plain = _packed(tensor)
        packed[name] = plain.clone() if plain.data_ptr() in places else plain  # one tensor under two names
        places.add(plain.data_ptr())

    def write(temporary: Path) -> None:
        try:
            save_file(packed, temporary, metadata=dict(metadata or {}))
        except SafetensorError as error:  # it wraps the operating system's errors in its own
            raise OSError(str(error)) from error

    write_atomically(path, write, remedy=remedy)


def read_arrays(path: Path) -> dict[str, Tensor]:
    """What `write_arrays` wrote, on the CPU.

    Raises:
        BadInput: If the file is missing or damaged.
    """
    return read_arrays_and_metadata(path)[0]


def read_arrays_and_metadata(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and the text that was written beside them.

    Raises:
        BadInput: If the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise BadInput(f"{path} is missing", wanted="a file written by tremorscope")
    try:
        with safe_open(path, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}, handle.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def read_metadata(path: Path) -> dict[str, str]:
    """The text beside the tensors alone: one header is read, whatever the size of the file.

    Raises:
        BadInput: If the file is missing, or damaged so that the header shows it.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise BadInput(f"{path} is missing", wanted="a file written by tremorscope")
    try:
        with safe_open(path, framework="pt") as handle:
            return handle.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bits, whatever the order and the device; about 2 GB a second.

    >>> one = {"a": torch.zeros(2), "b": torch.ones(1)}
    >>> hash_tensors(one) == hash_tensors(dict(reversed(one.items()))), hash_tensors(one) == hash_tensors({})
    (True, False)
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().resolve_conj().resolve_neg().contiguous()
        digest.update(f"{len(name)}:{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _damaged(path: Path, error: Exception) -> BadInput:
    return BadInput(
        f"{path} is damaged", got=str(error), wanted="whole safetensors", remedy="Delete it; it is made again."
    )


def _packed(tensor: Tensor) -> Tensor:
    """A CPU tensor that owns all of its storage: safetensors takes no views and no shared memory."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    owns_all = plain.untyped_storage().nbytes() == plain.numel() * plain.element_size()
    return plain if owns_all else plain.clone()

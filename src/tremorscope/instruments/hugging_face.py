"""Models in the Hugging Face layout, from a folder or by name, as networks."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.instruments.hub import snapshot
from tremorscope.instruments.network import Network

PREFIX = "hf:"
CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
SHOWN = 3  # names in an error


def load_hugging_face(
    spec: str, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Network:
    """A model in the Hugging Face layout as a network: `hf:NAME_OR_FOLDER[@REVISION]`.

    The class is the one that `config.json` names: causal language models with attention or recurrent, encoders,
    classifiers. A folder that exists is read without touching the network, and wins over a model of the same name; a
    name is looked for in the hub's cache first, then in the hub (`hub.snapshot`). Weights are read from safetensors
    only, and no code that comes with a model is run. Nothing is printed, and the settings and random state of the
    libraries are afterwards what they were.

    Attention is computed by plain matrix products (`attn_implementation="eager"`): the fused kernels have no
    forward-mode derivative on the CPU, on which Jacobian and Hessian products stand. It costs a matrix of length x
    length for each head and text, and results differ from the fused kernels' by rounding.

    Args:
        spec: With the prefix. A revision is a branch, tag or commit of a model of the hub.
        dtype: Precision of the weights; as saved, by default.
        device: Where to compute; the CPU by default.

    Returns:
        The network, in evaluation mode. Its tokenizer is None where the folder holds none; it has no task.

    Raises:
        BadInput: If the folder, its `config.json` or its weights are missing, damaged, pickled or of a class that
            transformers does not know; if weights that the model needs are not in the file, or of other shapes; if the
            tokenizer knows more tokens than the model; or for the reasons of `hub.snapshot`.
    """
    folder, name = _folder(spec)
    settings = _settings(spec, folder)
    _check_weights(spec, folder)
    with _unchanged():
        module = _module(spec, folder, settings, dtype)
        tokenizer = _tokenizer(spec, folder)
    _check_vocabulary(spec, module, tokenizer)
    return Network(module if device is None else module.to(device), tokenizer=tokenizer, name=name)


def _folder(spec: str) -> tuple[Path, str]:
    """Where the files are, and what the network is called."""
    text = spec.removeprefix(PREFIX)
    path = Path(text).expanduser()
    if text and path.is_dir():
        return path, path.resolve().name
    if text and path.exists():
        raise BadInput(f"model {spec!r}", got="a file", wanted="a folder with config.json and safetensors")
    name, _, revision = text.partition("@")
    if name and Path(name).expanduser().is_dir():
        raise BadInput(
            f"model {spec!r}",
            got="a revision of a folder",
            wanted="a revision of a model of the hub",
            remedy=f"Write {PREFIX}{name}.",
        )
    if text.startswith(("/", ".", "~")) or "\\" in text or text.count("/") > 1 or text.endswith("/"):
        near = [str(other) for other in path.parent.glob("*") if other.is_dir()] if path.parent.is_dir() else []
        raise BadInput(
            f"model {spec!r}", got="no such folder", wanted="a folder that exists", remedy=did_you_mean(str(path), near)
        )
    return snapshot(name, revision or None), name


def _settings(spec: str, folder: Path) -> dict[str, Any]:
    """What `config.json` says."""
    path = folder / CONFIG
    if not path.is_file():
        held = [entry.name for entry in sorted(folder.iterdir())][:SHOWN]
        raise BadInput(
            f"model {spec!r}",
            got=f"a folder without {CONFIG}" + (f" ({', '.join(held)}, ...)" if held else ", empty"),
            wanted="what save_pretrained writes",
        )
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{CONFIG} of {spec!r}", got=str(error), wanted="whole JSON") from None
    if not isinstance(settings, dict):
        raise BadInput(f"{CONFIG} of {spec!r}", got=type(settings).__name__, wanted="a JSON object")
    return settings


def _check_weights(spec: str, folder: Path) -> None:
    if any((folder / name).is_file() for name in WEIGHTS):
        return
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise BadInput(
            f"weights of {spec!r}",
            got=f"only pickles ({', '.join(pickles[:SHOWN])}), which can run code when they are read",
            wanted="model.safetensors",
            remedy="If you trust their author, convert them once, away from here: "
            "AutoModel.from_pretrained(FOLDER).save_pretrained(OTHER), with the class of the model for AutoModel.",
        )
    raise BadInput(
        f"weights of {spec!r}",
        got="none in the folder",
        wanted="model.safetensors",
        remedy="Write them with save_pretrained.",
    )


def _module(spec: str, folder: Path, settings: dict[str, Any], dtype: torch.dtype | None) -> nn.Module:
    """The model of the class that its settings name, with every weight from the file."""
    kind = _class(spec, settings)
    try:
        module, report = kind(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation="eager",
            dtype="auto" if dtype is None else dtype,
            output_loading_info=True,
            # Told in the report below, rather than by a table on the terminal.
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # the libraries raise whatever comes
        raise BadInput(
            f"model {spec!r}", got=_said(error), wanted="files as save_pretrained writes them, of a known model"
        ) from None
    reshaped = sorted(report["mismatched_keys"])
    if reshaped:
        key, saved, needed = reshaped[0]
        raise BadInput(
            f"weights of {spec!r}",
            got=f"{key} of shape {tuple(saved)}" + (f", and {len(reshaped) - 1} more" if len(reshaped) > 1 else ""),
            wanted=f"{tuple(needed)}, as {CONFIG} says",
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise BadInput(
            f"weights of {spec!r}",
            got=f"no {_some(missing)}",
            wanted=f"every weight of {type(module).__name__}, the class that {CONFIG} names",
            remedy=f"The file holds {_some(extra)} besides." if (extra := sorted(report["unexpected_keys"])) else None,
        )
    if report["error_msgs"]:
        raise BadInput(f"weights of {spec!r}", got="; ".join(report["error_msgs"]), wanted="weights that can be read")
    loaded: nn.Module = module  # in evaluation mode: from_pretrained sees to that
    return loaded


def _class(spec: str, settings: dict[str, Any]) -> Callable[..., Any]:
    """`from_pretrained` of the class that the settings name, or of whatever fits where they name none."""
    import transformers

    names = settings.get("architectures") or []
    if not names:
        return transformers.AutoModel.from_pretrained
    kind = getattr(transformers, str(names[0]), None)
    if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
        told, fits = settings.get("model_type"), getattr(kind.config_class, "model_type", None)
        # With another's settings the class would have its default sizes, often gigabytes.
        if told != fits:
            raise BadInput(
                f"{CONFIG} of {spec!r}",
                got=f"model_type {told!r} with class {names[0]!r}",
                wanted=f"model_type {fits!r}, which goes with this class",
            )
        return kind.from_pretrained
    own = "auto_map" in settings
    raise BadInput(
        f"model {spec!r}",
        got=f"class {names[0]!r}" + (", which comes with code of its own" if own else ""),
        wanted=f"a class of transformers {transformers.__version__}",
        remedy="Make the module yourself, in a function of a file: load('file.py:fn').",
    )


def _tokenizer(spec: str, folder: Path) -> Any:
    """The tokenizer in the folder; None if it holds none."""
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the libraries raise whatever comes
        raise BadInput(
            f"tokenizer of {spec!r}",
            got=_said(error),
            wanted="one that transformers reads",
            remedy="A folder without tokenizer files loads as a model alone.",
        ) from None


def _check_vocabulary(spec: str, module: Any, tokenizer: Any) -> None:
    if tokenizer is None:
        return
    try:
        known = len(module.get_input_embeddings().weight)
    except (AttributeError, NotImplementedError, TypeError):
        return  # a model that does not begin with a table of tokens
    needed = max(tokenizer.get_vocab().values(), default=-1) + 1
    if needed > known:
        raise BadInput(
            f"tokenizer of {spec!r}",
            got=f"{needed:,} tokens",
            wanted=f"at most {known:,}, as many as the model's embedding has",
            remedy="Put the tokenizer there that the model was trained with.",
        )


@contextmanager
def _unchanged() -> Iterator[None]:
    """Warnings and progress bars silent, and all random state, for a moment."""
    from transformers.utils.logging import EmptyTqdm, set_tqdm_hook

    loggers = [logging.getLogger("transformers"), logging.getLogger("huggingface_hub")]
    levels = [logger.level for logger in loggers]
    hook = set_tqdm_hook(lambda factory, args, options: EmptyTqdm(*args, **options))  # type: ignore[no-untyped-call]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        set_tqdm_hook(hook)


def _said(error: Exception) -> str:
    """The first sentence of somebody's error."""
    return f"{type(error).__name__}: {' '.join(str(error).split(chr(10) * 2)[0].split())[:300]}"


def _some(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")

"""Models by name: a copy on this machine, else one from the hub, else a quick and plain no."""

from __future__ import annotations

import os
import re
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

from tremorscope.foundations.errors import BadInput

SECONDS = 2.0
ENDPOINT = "https://huggingface.co"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?")
# What a model needs, at the top of its folder: no pickles, no copies in other formats.
WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
UNWANTED = ["*/*", "consolidated*.safetensors", "adapter_model.safetensors"]
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
BUILT_IN = "builtin:microworld needs no network."


def snapshot(name: str, revision: str | None = None) -> Path:
    """The folder of a model of the hub: the copy in the hub's cache where there is one, else a fresh one.

    A copy is used as it is, without asking for news. Nothing is printed. Without a copy and without network it fails
    after one attempt to connect, of two seconds at most.

    Raises:
        BadInput: If there is no copy and the hub does not answer, may not be asked, or has no such model or revision.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils.tqdm import tqdm

    class Silent(tqdm):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **(options | {"disable": True}))  # type: ignore[no-untyped-call]

    what = f"model 'hf:{name}{'' if revision is None else f'@{revision}'}'"
    if not NAME.fullmatch(name):
        raise BadInput(
            what, got="neither a folder that exists nor a model's name", wanted="hf:FOLDER or hf:OWNER/NAME[@REVISION]"
        )

    def fetched(*, local: bool) -> Path:
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED,
            local_files_only=local,
            tqdm_class=Silent,
        )
        return Path(folder)

    try:
        copy = fetched(local=True)
    except LocalEntryNotFoundError:
        copy = None
    if copy is not None and (copy / "config.json").is_file() and any(copy.glob("*.safetensors")):
        return copy
    missing = "no such folder and no copy of such a model on this machine"
    if is_forbidden():
        raise BadInput(
            what,
            got=f"{missing}; {OFFLINE[0]} says not to ask the hub",
            wanted="a folder, or a model in the hub's cache",
            remedy=BUILT_IN,
        )
    if not answers():
        raise BadInput(
            what,
            got=f"{missing}; {address()[0]} does not answer",
            wanted="a folder, or a network",
            remedy=BUILT_IN,
        )
    try:
        return fetched(local=False)
    except Exception as error:  # of three libraries, with no class in common
        said = " ".join(str(error).split("\n\n")[0].split())
        raise BadInput(
            what,
            got=f"{missing}; the hub said {type(error).__name__}: {said[:300]}",
            wanted="the name of a model that can be had",
            remedy=BUILT_IN,
        ) from None


def is_forbidden() -> bool:
    """Whether the environment says not to go online (`HF_HUB_OFFLINE=1`)."""
    return any(os.environ.get(name, "").lower() not in ("", "0", "false", "no", "off") for name in OFFLINE)


def address() -> tuple[str, int]:
    """Host and port of the hub; `HF_ENDPOINT` may name another one.

    >>> address()[1] > 0
    True
    """
    return _address(os.environ.get("HF_ENDPOINT", "") or ENDPOINT)


def answers(seconds: float = SECONDS) -> bool:
    """Whether the hub, or the proxy on the way to it, takes a connection: one attempt, no request."""
    from urllib.request import getproxies, proxy_bypass  # it brings a mail parser along

    host = address()
    proxies = getproxies()
    proxy = proxies.get("https") or proxies.get("all")
    if proxy and not proxy_bypass(host[0]):
        host = _address(proxy if "://" in proxy else f"http://{proxy}")
    reached: list[bool] = []

    def probe() -> None:
        try:
            socket.create_connection(host, timeout=seconds).close()
            reached.append(True)
        except OSError:
            pass

    # In a thread, as looking up a name has no time limit of its own.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(reached)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)

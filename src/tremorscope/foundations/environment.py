"""Where a number was made: versions, code state, machine. No host names, user names or paths."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """What a reader needs to know of the machine and the code behind a result.

    Imports torch (a second or two, the first time). Memory in bytes.

    >>> sorted(environment()["packages"])
    ['numpy', 'scipy', 'torch', 'tremorscope']
    """
    import torch

    return {
        "packages": versions(),
        "code": code_state(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": memory_bytes(),
        "torch_threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def memory_bytes() -> int:
    """Physical memory of this machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def versions() -> dict[str, str]:
    """Versions of the packages that decide the numbers, read without importing them."""
    return {name: metadata.version(name) for name in ("tremorscope", "torch", "numpy", "scipy")}


def code_state() -> dict[str, Any] | None:
    """Commit of the checkout this package runs from, and whether files differ from it; None elsewhere."""
    checkout = Path(__file__).parents[3]  # <checkout>/src/tremorscope/foundations/
    if not (checkout / ".git").exists():
        return None
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        changed = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None  # no git at hand, or not this user's checkout
    return {"commit": commit, "changed": bool(changed)}


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(checkout), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()

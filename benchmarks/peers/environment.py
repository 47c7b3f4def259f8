"""The environment in which we and our peers run side by side."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv-peers"
NEEDED = ("curvlinops", "hessian_eigenthings", "pyhessian")


def enter(*peers: str) -> None:
    """Go on with this script where the peers are installed; `.venv-peers` is made for that once.

    `peers` are the modules that this script compares us with; those of curvature by default.

    Set PIP_INDEX_URL or PIP_EXTRA_INDEX_URL for another build of torch, as for any pip.
    """
    needed = (*(peers or NEEDED), "tremorscope")
    if all(importlib.util.find_spec(name) for name in needed):
        return
    python, stamp = FOLDER / "bin" / "python", FOLDER / ".stamp"
    if Path(sys.prefix).resolve() == FOLDER:
        raise SystemExit(f"{FOLDER} lacks one of {', '.join(needed)}: remove it, and start again.")
    requirements = Path(__file__).parent / "requirements.txt"
    if not stamp.exists() or stamp.stat().st_mtime < requirements.stat().st_mtime:
        print(f"Setting up {FOLDER.name} for the peers (once, a few minutes) ...", flush=True)
        venv.create(FOLDER, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(requirements)], check=True)
        # curvlinops and PyHessian declare it and run without it; one built for another torch than the one that pip
        # chose breaks every model of transformers, which imports it where it finds it.
        subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"], check=True)
        subprocess.run([*pip, "-e", str(ROOT), "-c", str(ROOT / "constraints.txt")], check=True)
        stamp.touch()
    os.execv(python, [str(python), *sys.argv])

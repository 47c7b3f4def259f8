"""What every test and every doctest runs under: one thread, no network, folders of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

# Before the first `import torch`: OpenMP reads its thread count once, and sums over more threads round differently.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import pytest
import torch

torch.set_num_threads(1)
_number = count()


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the whole session, the same for every xdist worker."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def _session_places(session_folder: Path) -> Iterator[None]:
    """The cache is shared (a built-in network trains once; writes are atomic) and is never the user's own.

    The runs folder set here is for fixtures wider than one test; `_own_runs` narrows it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREMORSCOPE_CACHE", str(session_folder / "cache"))
        patch.setenv("TREMORSCOPE_RUNS", str(session_folder / f"runs-{os.getpid()}" / "wide"))
        yield


@pytest.fixture(autouse=True)
def _own_runs(session_folder: Path) -> Iterator[None]:
    """Every test has a runs folder of its own; it is named, not made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREMORSCOPE_RUNS", str(session_folder / f"runs-{os.getpid()}" / str(next(_number))))
        yield

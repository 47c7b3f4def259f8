"""`tremorscope doctor`: is this machine ready, and what would help if not."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, final

import typer

GIGABYTE = 1e9
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@final
@dataclass(frozen=True, kw_only=True)
class Check:
    """One line: what was looked at, what was found, and what to do when it is not well."""

    name: str
    found: str
    remedy: str | None = None

    @property
    def status(self) -> Literal["ok", "warn"]:
        """A check that has a remedy is a warning."""
        return "ok" if self.remedy is None else "warn"


def check_machine(json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Look at torch, devices, memory, folders, browser and hubs; each line ok, or a warning with its remedy."""
    from rich.text import Text

    from tremorscope.cli.output import console, print_json

    checks = [check() for check in CHECKS]
    if json:
        print_json({"checks": [asdict(check) | {"status": check.status} for check in checks]})
        return
    out = console()
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = Text("ok  ", "green") if check.status == "ok" else Text("warn", "bold yellow")
        out.print(Text.assemble(mark, "  ", (f"{check.name:<{width}}", "bold"), "  ", check.found))
        if check.remedy:
            out.print(Text(f"{'':<{width + 8}}{check.remedy}", "yellow"))
    warnings = sum(check.status == "warn" for check in checks)
    out.print("All is well." if not warnings else f"{warnings} of {len(checks)} need a look.", style="dim")


def versions_check() -> Check:
    """This package, Python and the libraries that decide the numbers."""
    from tremorscope.foundations.environment import versions

    found = {"Python": platform.python_version(), **versions()}
    return Check(name="versions", found=", ".join(f"{name} {version}" for name, version in found.items()))


def torch_check() -> Check:
    """How torch was built."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    algebra = "MKL" if torch.backends.mkl.is_available() else "no MKL"  # type: ignore[no-untyped-call]
    return Check(name="torch build", found=f"{torch.__version__}, {build}, {algebra}")


def threads_check() -> Check:
    """Torch's threads against the cores this process may use."""
    import torch

    from tremorscope.foundations.environment import environment

    threads, cores = torch.get_num_threads(), environment()["cores"]
    return Check(
        name="threads",
        found=f"{threads} for {cores} cores",
        remedy=f"More threads than cores is slow: set OMP_NUM_THREADS={cores}." if threads > cores else None,
    )


def devices_check() -> Check:
    """Where tensors can live."""
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    names += ["Apple MPS"] if torch.backends.mps.is_available() else []
    missing = torch.version.cuda is not None and not names
    return Check(
        name="devices",
        found=", ".join(["cpu", *names]),
        remedy="Torch was built for CUDA and finds no device: is the driver installed?" if missing else None,
    )


def memory_check() -> Check:
    """Main memory; the quick presets ask for about 2 GB."""
    from tremorscope.foundations.environment import environment

    size = environment()["memory_bytes"] / GIGABYTE
    return Check(
        name="memory",
        found=f"{size:.1f} GB",
        remedy="Use --preset quick, and chunked routes for Jacobians." if size < 4 else None,
    )


def cache_check() -> Check:
    """The cache: where, how large, writable."""
    from tremorscope.foundations.cache import cache_root

    root = cache_root()
    files = [path for path in root.rglob("*") if path.is_file()] if root.is_dir() else []
    size = sum(path.stat().st_size for path in files)
    return _folder_check(
        "cache", root, f"{_counted(len(files), 'file')}, {size / GIGABYTE:.2f} GB", "TREMORSCOPE_CACHE"
    )


def runs_check() -> Check:
    """The folder of runs: where, how many, writable, room."""
    from tremorscope.foundations.run_list import list_runs, runs_root

    root = runs_root(None)
    return _folder_check("runs", root, _counted(len(list_runs(root)), "run"), "TREMORSCOPE_RUNS")


def browser_check() -> Check:
    """Chromium, which only the project's own tests of the report need."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    return Check(
        name="browser",
        found=found or "no Chromium",
        remedy=None if found else "Only tests of the report need one: install chromium, or set CHROMIUM=/path/to/it.",
    )


def hub_check() -> Check:
    """Whether models can be fetched by name; everything built in works without."""
    from tremorscope.instruments.hub import OFFLINE, address, answers, is_forbidden

    if is_forbidden():
        return Check(name="hub", found=f"offline, as {OFFLINE[0]} asks; local folders and built-ins work")
    host = address()[0]
    if answers():
        return Check(name="hub", found=f"{host} answers")
    return Check(
        name="hub",
        found=f"{host} does not answer",
        remedy=f"Built-in models and local folders work; set {OFFLINE[0]}=1 to skip the waiting.",
    )


CHECKS: tuple[Callable[[], Check], ...] = (
    versions_check,
    torch_check,
    threads_check,
    devices_check,
    memory_check,
    cache_check,
    runs_check,
    browser_check,
    hub_check,
)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _folder_check(name: str, folder: Path, content: str, variable: str) -> Check:
    """A folder that may not exist yet is judged by the nearest one above it; nothing is made."""
    above = folder.absolute()
    while not above.exists():
        above = above.parent
    found = f"{folder} ({content})"
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        return Check(name=name, found=found, remedy=f"Cannot write below {above}: set {variable} to another folder.")
    free = shutil.disk_usage(above).free / GIGABYTE
    remedy = f"Only {free:.1f} GB are free there: make room, or set {variable}." if free < 1 else None
    return Check(name=name, found=f"{found}, {free:.0f} GB free", remedy=remedy)

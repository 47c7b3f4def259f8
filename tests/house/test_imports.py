"""What importing costs and touches, each in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("torch", "plotly", "transformers", "sklearn", "scipy", "pyarrow")

HELP = """
import json, runpy, sys
sys.argv = ["tremorscope", "--help"]
try:
    runpy.run_module("tremorscope", run_name="__main__", alter_sys=True)
    code = 0
except SystemExit as stop:
    code = stop.code or 0
loaded = [name for name in {heavy!r} if name in sys.modules]
print(json.dumps({{"code": code, "loaded": loaded}}), file=sys.stderr)
"""

MAP_ONLY = """
import json, sys
import tremorscope
dir(tremorscope), tremorscope.__all__
print(json.dumps([name for name in {heavy!r} if name in sys.modules]), file=sys.stderr)
"""

STATE = """
import json, logging, random, signal, sys, threading, warnings
import numpy, torch
import pydantic, scipy.sparse.linalg, scipy.stats, jaxtyping, safetensors.torch, einops
torch.set_num_threads(3)
torch.manual_seed(5)
random.seed(5)
numpy.random.seed(5)

def state():
    return {{
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "threads": torch.get_num_threads(),
        "torch stream": torch.random.get_rng_state().tolist(),
        "python stream": repr(random.getstate()),
        "numpy stream": repr(numpy.random.get_state()),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32 products": torch.get_float32_matmul_precision(),
        "print options": repr(numpy.get_printoptions()),
        "numpy errors": repr(numpy.geterr()),
        "filters": [repr(entry) for entry in warnings.filters],
        "excepthook": repr((sys.excepthook, threading.excepthook, sys.displayhook)),
        "handlers": repr(logging.getLogger().handlers),
        "log level": logging.getLogger().level,
        "signals": repr([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]),
        "path": sys.path[:],
        "recursion": sys.getrecursionlimit(),
    }}

before = state()
{action}
after = state()
print(json.dumps([name for name in before if before[name] != after[name]]), file=sys.stderr)
"""

EVERY_NAME = "import tremorscope\nfor name in tremorscope.__all__:\n    getattr(tremorscope, name)"


def last_line(code: str) -> object:
    """Run `code` in a fresh interpreter; what it printed last on stderr, as JSON."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stderr.splitlines()[-1])


def test_help_imports_nothing_heavy():
    assert last_line(HELP.format(heavy=HEAVY)) == {"code": 0, "loaded": []}


def test_importing_the_map_imports_nothing_heavy():
    assert last_line(MAP_ONLY.format(heavy=HEAVY)) == []


def test_importing_the_map_changes_no_global_state():
    assert last_line(STATE.format(action="import tremorscope")) == []


def test_using_every_public_name_changes_no_global_state():
    assert last_line(STATE.format(action=EVERY_NAME)) == []


def test_the_state_check_notices_a_change():
    planted = (
        "torch.set_default_dtype(torch.float64); torch.rand(1); sys.excepthook = print; warnings.simplefilter('error')"
    )
    assert last_line(STATE.format(action=planted)) == ["dtype", "torch stream", "filters", "excepthook"]

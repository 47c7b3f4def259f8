"""The study of coins, registered for one test and forgotten after it."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from tremorscope.studies import study as registry


@pytest.fixture
def coins(monkeypatch):
    """The only registered study; its module is imported anew."""
    monkeypatch.setattr(registry, "_registry", {})
    monkeypatch.setattr(registry, "_loaded", [True])
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.delitem(sys.modules, "coins", raising=False)
    import_module("coins")
    return registry.get_study("coins")

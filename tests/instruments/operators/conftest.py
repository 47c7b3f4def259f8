from __future__ import annotations

import pytest

from tremorscope.instruments.operators import batch_mean


@pytest.fixture(autouse=True)
def _nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks take the kept graph first; these tests are about tracing and what comes after it."""
    monkeypatch.setattr(batch_mean, "SMALL_BYTES", -1)

"""Corrections that a family of comparisons needs."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979).

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def t_test_p(value: float, low: float, high: float, level: float, n: int, *, against: float = 0.0) -> float:
    """Two-sided p-value of a t interval `[low, high]` of `n` units against a fixed value."""
    from scipy.special import stdtr, stdtrit

    error = (high - low) / 2 / float(stdtrit(n - 1, 0.5 + level / 2))
    if error == 0:
        return 0.0 if value != against else 1.0
    return float(2 * stdtr(n - 1, -abs(value - against) / error))

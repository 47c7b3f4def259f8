"""What the strands' tests share: how labels are told apart, and how tests call with names that are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

SPLITS = ("train", "validation", "test")


def unchecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without the type checks that tests put around it: what a user who mistypes a name meets."""
    return function.__wrapped__  # type: ignore[attr-defined]


def disjoint(examples: Callable[..., Iterable[Any]], label: Callable[[Any], Any], *, held_out: str, count: int) -> None:
    """Assert that what `label` reads off examples of one split is in no other split."""
    seen = {split: {label(one) for one in examples(split, 0, count, held_out=held_out)} for split in SPLITS}
    assert all(seen.values())
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]


def shared(examples: Callable[..., Iterable[Any]], label: Callable[[Any], Any], *, held_out: str, count: int) -> None:
    """Assert that what is not held out comes from training: nothing new is in a test example."""
    known = {label(one) for one in examples("train", 1, 60 * count)}
    assert {label(one) for one in examples("test", 0, count, held_out=held_out)} <= known


def reproducible(examples: Callable[..., list[Any]]) -> None:
    """Assert that a seed names its examples, that more of them leave the first as they were, and seeds differ."""
    assert examples("train", 5, 12)[:4] == examples("train", 5, 4)
    assert examples("train", 5, 8) != examples("train", 6, 8)


def well_formed(text: str) -> None:
    """Assert that a text reads like one: no doubled blanks, no slot left open, no "a" before a vowel."""
    assert "  " not in text
    assert text == text.strip()
    assert not set("{}_") & set(text)
    assert not any(f" a {vowel}" in text for vowel in "aeio")

"""What is held out of the training text: templates, combinations, or both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal, TypeVar, get_args

from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.foundations.seeds import derive

T = TypeVar("T")
Split = Literal["train", "validation", "test"]
HeldOut = Literal["templates", "combinations", "both"]
SPLITS: tuple[Split, ...] = get_args(Split)

TENTHS = 10  # of the combinations: one tenth is for validation, one for testing


def part_of(*names: str | int) -> Split:
    """The split to which a combination belongs: 80, 10 and 10 %, by hash, the same for every seed and machine.

    >>> part_of("dog", "bark") == part_of("dog", "bark")
    True
    """
    tenth = derive(0, "microworld split", *names) % TENTHS
    return "validation" if tenth == 0 else "test" if tenth == 1 else "train"


def divide(items: Sequence[T]) -> dict[Split, tuple[T, ...]]:
    """Templates by split: the last eighth (at least one) is for testing, the eighth before it for validation.

    >>> divide("abcd")
    {'train': ('a', 'b'), 'validation': ('c',), 'test': ('d',)}
    """
    held = max(1, len(items) // 8)
    first = len(items) - 2 * held
    if first < 1:
        raise BadInput("templates to divide", got=len(items), wanted="at least 3")
    return {
        "train": tuple(items[:first]),
        "validation": tuple(items[first : first + held]),
        "test": tuple(items[first + held :]),
    }


def sources(split: Split, held_out: HeldOut) -> tuple[Split, Split]:
    """Where templates come from and where combinations come from.

    Training examples have both from the training part. Of the others, what is not held out is from training too.

    >>> sources("test", "combinations")
    ('train', 'test')

    Raises:
        BadInput: If there is no such split, or nothing of that name can be held out.
    """
    if split not in SPLITS:
        raise BadInput("split", got=split, wanted=" or ".join(SPLITS), remedy=did_you_mean(str(split), SPLITS))
    if held_out not in get_args(HeldOut):
        raise BadInput(
            "held_out",
            got=held_out,
            wanted=" or ".join(get_args(HeldOut)),
            remedy=did_you_mean(str(held_out), get_args(HeldOut)),
        )
    return ("train" if held_out == "combinations" else split, "train" if held_out == "templates" else split)


def take(stream: Iterator[T], count: int) -> list[T]:
    """The first examples of an endless stream.

    Raises:
        BadInput: If fewer than one is asked for.
    """
    if count < 1:
        raise BadInput("number of examples", got=count, wanted="at least 1")
    return list(islice(stream, count))

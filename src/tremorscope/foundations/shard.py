"""Shards: several processes share the items of one run, and need to agree on nothing but the command they were given.

`--shard 2/3` computes every third item, in the order of the hashes of their keys. Whoever names the same work below
the same folder finds the same run directory, so that the tasks of an array job start in any order, on any machine that
sees the folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, final

from tremorscope.foundations.errors import BadInput

_WRITTEN = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})")
_NOT_THE_WORK = ("jobs", "set", "shard")  # what a request says beside what is to be computed
_NAMED = 5  # missing items that a sentence names


@final
@dataclass(frozen=True, kw_only=True)
class Shard:
    """One share of `count`, counted from 1.

    >>> two = Shard.parse("2/3")
    >>> str(two), sorted(two.share(f"member-{i}" for i in range(6)))
    ('2/3', ['member-0', 'member-2'])
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise self._bad(f"{self.index}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`"2/3"` as the second of three.

        Raises:
            BadInput: If it is not i/n with 1 <= i <= n.
        """
        found = _WRITTEN.fullmatch(text.strip())
        if found is None:
            raise cls._bad(text)
        return cls(index=int(found[1]), count=int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def owners(self, keys: Iterable[str]) -> dict[str, Shard]:
        """Which shard, of as many, computes the item of each key.

        Keys are dealt out in the order of their hashes, so that no share is larger than another by more than one
        item, and the long items that often stand together are spread. The order of the keys does not matter.
        """
        dealt = sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())
        return {key: Shard(index=place % self.count + 1, count=self.count) for place, key in enumerate(dealt)}

    def share(self, keys: Iterable[str]) -> set[str]:
        """The keys that are this shard's to compute."""
        return {key for key, owner in self.owners(keys).items() if owner == self}

    @staticmethod
    def _bad(got: str) -> BadInput:
        return BadInput("shard", got=got, wanted="i/n with 1 <= i <= n", remedy="The second of three is 2/3.")


class PartlyDone(Exception):
    """A shard has computed its items, and the run lacks those of others. Nothing is wrong: it is not over yet.

    Not a `TremorscopeError`: those are a user's mistakes, and may be caught and reported as one by whoever measures
    in sections.
    """

    def __init__(
        self, path: Path, num_items: int, missing: Mapping[str, Sequence[str]], at_work: Sequence[str]
    ) -> None:
        self.path, self.num_items = path, num_items
        self.missing = {shard: list(keys) for shard, keys in missing.items()}
        self.at_work = list(at_work)
        self.num_done = num_items - sum(len(keys) for keys in self.missing.values())
        parts = [
            f"shard {shard} ({'at work' if shard in self.at_work else 'not running'}) {_some(keys)}"
            for shard, keys in self.missing.items()
        ]
        super().__init__(
            f"Run {path.name} is partly done: {self.num_done} of {num_items} items. Missing: {'; '.join(parts)}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for events and `--json`."""
        return {
            "done": self.num_done,
            "total": self.num_items,
            "missing": self.missing,
            "at_work": self.at_work,
        }


class AlreadyFinished(Exception):
    """Another shard has put the result together; it is in the run directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"Run {path.name} is finished.")


def sharded_id(slug: str, request: Mapping[str, Any]) -> str:
    """The id that every shard of a request arrives at: a hash of the work itself and of the version of this package.

    How the work is divided does not enter, so a run begun in two shards may be gone on with in three.
    """
    work = {key: value for key, value in request.items() if key not in _NOT_THE_WORK}
    text = json.dumps([work, metadata.version("tremorscope")], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"sharded-{slug}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _some(keys: Sequence[str]) -> str:
    named = ", ".join(keys[:_NAMED])
    return named if len(keys) <= _NAMED else f"{named} and {len(keys) - _NAMED} more"

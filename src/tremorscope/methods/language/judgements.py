"""Right or wrong on examples that share wordings, and the accuracy that follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

from tremorscope.foundations.cluster_bootstrap import crossed_mean, few_clusters
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate

Key = tuple[str, str, str, str]


@final
@dataclass(frozen=True, kw_only=True)
class Judgements:
    """One row of a strand: for each example whether the model was right, and what it shares with others.

    `row` is the part of the strand, `held_out` what training has not seen ("templates", "combinations", "both", or
    "strewn": arrangements of parts that it has), `judged_by` how an answer was read from the model. `templates` are the
    wordings, `units` what an example speaks of, `prompts` the texts; examples with one prompt are one example. `chance`
    is the accuracy of a guess.
    """

    strand: str
    row: str
    held_out: str
    judged_by: str
    chance: float
    templates: tuple[str, ...]
    units: tuple[str, ...]
    prompts: tuple[str, ...]
    correct: tuple[bool, ...]

    def __post_init__(self) -> None:
        sizes = {len(self.templates), len(self.units), len(self.prompts), len(self.correct)}
        if len(sizes) != 1 or 0 in sizes:
            raise BadInput(f"judgements of {self.title}", got=f"lengths {sorted(sizes)}", wanted="one length, above 0")

    @property
    def key(self) -> Key:
        """What names the row."""
        return (self.strand, self.row, self.held_out, self.judged_by)

    @property
    def title(self) -> str:
        """The row in words."""
        return f"{self.strand}, {self.row} ({self.held_out} held out, {self.judged_by})"

    def accuracy(self, *, seed: int = 0) -> Estimate:
        """Share of right answers, with the interval of `cluster_bootstrap.crossed_mean` over wordings and units."""
        return crossed_mean(self.correct, self.templates, self.units, seed=seed)

    def by_template(self) -> dict[str, tuple[int, int]]:
        """For each wording how many were right, of how many."""
        found: dict[str, tuple[int, int]] = {}
        for template, right in zip(self.templates, self.correct, strict=True):
            before = found.get(template, (0, 0))
            found[template] = (before[0] + int(right), before[1] + 1)
        return found

    @property
    def flags(self) -> tuple[str, ...]:
        """Says so when there are too few wordings for an interval that speaks of others."""
        count = few_clusters(self.templates)
        if count is None:
            return ()
        over = "1 wording: its interval holds" if count == 1 else f"{count} wordings: its interval is narrow"
        return (f"{self.title}: {over} for other wordings" if count > 1 else f"{self.title}: {over} for that one only",)

    def to_plain(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Judgements:
        """The inverse of `to_plain`, also after JSON."""
        lists = {name: tuple(plain[name]) for name in ("templates", "units", "prompts", "correct")}
        return cls(**{**plain, **lists})


def pooled(parts: Sequence[Judgements], *, row: str | None = None) -> Judgements:
    """Several draws of a row, or several rows, as one; an example that came more than once counts once.

    >>> one = Judgements(strand="s", row="r", held_out="both", judged_by="choice", chance=0.5, templates=("t",),
    ...     units=("u",), prompts=("p",), correct=(True,))
    >>> pooled([one, one]).prompts
    ('p',)

    Raises:
        BadInput: If there is nothing to pool.
    """
    if not parts:
        raise BadInput("judgements to pool", got="none", wanted="at least one row")
    first = parts[0]
    seen: dict[tuple[str, ...], bool] = {}
    chances = 0.0
    for part in parts:
        chances += part.chance * len(part.correct)
        entries = zip(part.templates, part.units, part.prompts, part.correct, strict=True)
        for template, unit, prompt, right in entries:
            seen.setdefault((template, unit, prompt), right)
    templates, units, prompts = zip(*seen, strict=True)
    return Judgements(
        strand=first.strand,
        row=first.row if row is None else row,
        held_out=first.held_out,
        judged_by=first.judged_by,
        chance=chances / sum(len(part.correct) for part in parts),
        templates=templates,
        units=units,
        prompts=prompts,
        correct=tuple(seen.values()),
    )


def by_key(parts: Iterable[Judgements]) -> dict[Key, Judgements]:
    """Draws of the same rows pooled, in the order of first appearance."""
    found: dict[Key, list[Judgements]] = {}
    for part in parts:
        found.setdefault(part.key, []).append(part)
    return {key: pooled(some) for key, some in found.items()}

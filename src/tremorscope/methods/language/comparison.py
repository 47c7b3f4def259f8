"""Abilities of several language models side by side: the one in question, its nulls, and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from tremorscope.foundations.cluster_bootstrap import few_clusters
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, Series, dots, numbers
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.microworld.splits import Split
from tremorscope.instruments.network import Network
from tremorscope.methods.language.abilities import (
    AMONG_NAMES,
    STREWN,
    judge_agreement,
    judge_biographies,
    judge_calendar,
    judge_copying,
    judge_quiz,
    judge_requests,
    judge_stories,
    judge_strewn_calendar,
    judge_strewn_requests,
)
from tremorscope.methods.language.judgements import Judgements, by_key, pooled
from tremorscope.methods.language.prose import NGRAMS, ProseLosses

_MARKS = ("circle", "x-thin-open", "cross-thin-open", "diamond", "square", "triangle-up")


@final
@dataclass(frozen=True, kw_only=True)
class AbilitiesMeasurement:
    """Judgements of each strand, and losses on prose, by name of the network; the first is the one in question."""

    judgements: Mapping[str, tuple[Judgements, ...]]
    prose: Mapping[str, ProseLosses]

    @property
    def own(self) -> str:
        """Name of the network in question."""
        return next(iter(self.judgements))

    def row(
        self, network: str, strand: str, rows: str | Sequence[str], *, held_out: str, judged_by: str | None = None
    ) -> Judgements:
        """One row of a strand, or several as one.

        Raises:
            BadInput: If the network or a row was not measured.
        """
        wanted = (rows,) if isinstance(rows, str) else tuple(rows)
        found = [
            one
            for one in self.judgements.get(network, ())
            if (one.strand, one.held_out) == (strand, held_out)
            and one.row in wanted
            and judged_by in (None, one.judged_by)
        ]
        if {one.row for one in found} != set(wanted) or len({one.judged_by for one in found}) != 1:
            raise BadInput(
                f"abilities of {network!r}",
                got=f"{strand}: {', '.join(wanted)}, {held_out} held out",
                wanted=f"one of {'; '.join(one.title for one in self.judgements.get(network, ())) or 'none measured'}",
            )
        return pooled(found, row=" and ".join(wanted))

    def joined(self, others: Sequence[AbilitiesMeasurement]) -> AbilitiesMeasurement:
        """Several draws of the examples as one, and networks side by side."""
        judged: dict[str, list[Judgements]] = {}
        told: dict[str, list[ProseLosses]] = {}
        for part in (self, *others):
            for name, rows in part.judgements.items():
                judged.setdefault(name, []).extend(rows)
            for name, losses in part.prose.items():
                told.setdefault(name, []).append(losses)
        return AbilitiesMeasurement(
            judgements={name: tuple(by_key(rows).values()) for name, rows in judged.items()},
            prose={name: some[0].joined(some[1:]) for name, some in told.items()},
        )

    @property
    def flags(self) -> tuple[str, ...]:
        """Rows that rest on few wordings, said once for all networks."""
        return tuple(flag for one in self.judgements[self.own] if one.judged_by != AMONG_NAMES for flag in one.flags)

    def tables(self) -> list[Table]:
        """Accuracies, accuracies by wording where there are few, and perplexities."""
        rows, wordings = [], []
        for network, judged in self.judgements.items():
            for one in judged:
                named = {
                    "strand": one.strand,
                    "part": one.row,
                    "held out": one.held_out,
                    "judged by": one.judged_by,
                    "network": network,
                }
                rows.append(
                    {
                        **named,
                        "accuracy": one.accuracy(),
                        "chance": one.chance,
                        "examples": len(one.correct),
                        "wordings": len(set(one.templates)),
                    }
                )
                if few_clusters(one.templates) is not None:
                    wordings += [
                        {**named, "wording": template, "accuracy": right / count, "right": right, "of": count}
                        for template, (right, count) in one.by_template().items()
                    ]
        tables = [
            Table.of_rows(
                rows,
                name="abilities",
                title="What each network can do on held-out examples",
                caption="Share of right answers. Intervals (99 %) draw wordings, and what the examples speak of, with "
                "replacement; they are no narrower than the binomial ones. A prompt that was drawn twice counts once.",
            )
        ]
        if wordings:
            tables.append(
                Table.of_rows(
                    wordings,
                    name="abilities_by_wording",
                    title="Rows that rest on six wordings or fewer, wording by wording",
                    caption="What an interval over so few wordings cannot tell: how much they differ.",
                )
            )
        if self.prose:
            tables.append(self._prose_table())
        return tables

    def figures(self) -> list[Figure]:
        """All rows as dots with intervals, one mark for each network, beside what a guess would reach."""
        shown = [one for one in self.judgements[self.own] if (one.judged_by == AMONG_NAMES) == _any_may_follow(one)]
        series: dict[str, Series] = {}
        for place, (name, judgements) in enumerate(self.judgements.items()):
            found = {one.key: one.accuracy() for one in judgements}
            values = [found.get(one.key) for one in shown]
            series[name] = PALETTE[place % len(PALETTE)], _MARKS[place % len(_MARKS)], values
        drawn = dots(
            name="abilities",
            title="What each network gets right on held-out examples",
            caption="Share of right answers with 99 % intervals over wordings and examples; grey bars mark what a "
            "guess would reach. Calendar and copying ask for the likeliest of all next words; where words are strewn "
            "in, any may come next, and the calendar asks for the likeliest name.",
            labels=[f"{one.strand}: {one.row.replace('_', ' ')}, {_new(one.held_out)}" for one in shown],
            series=series,
            x=Axis(title="accuracy, share of held-out examples", range=(-0.02, 1.02)),
            line_height=34,
        )
        chance = {
            "type": "scatter",
            "mode": "markers",
            "name": "chance",
            "x": numbers([one.chance for one in shown]),
            "y": list(range(len(shown))),
            "marker": {"symbol": "line-ns-open", "size": 22, "color": NULL_COLOUR, "line": {"width": 2}},
        }
        return [replace(drawn, traces=[chance, *drawn.traces])]

    def to_plain(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "judgements": {name: [one.to_plain() for one in rows] for name, rows in self.judgements.items()},
            "prose": {name: losses.to_plain() for name, losses in self.prose.items()},
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> AbilitiesMeasurement:
        """The inverse of `to_plain`, also after JSON."""
        return cls(
            judgements={name: tuple(map(Judgements.of, rows)) for name, rows in plain["judgements"].items()},
            prose={name: ProseLosses.of(losses) for name, losses in plain["prose"].items()},
        )

    def _prose_table(self) -> Table:
        rows: list[dict[str, Any]] = []
        for network, losses in self.prose.items():
            ratios: dict[str, Estimate] = {f"over {name}": losses.ratio("model", name) for name in NGRAMS}
            rows.append({"predictor": network, "perplexity": losses.perplexity("model"), **ratios})
        own = self.prose[next(iter(self.prose))]
        rows += [{"predictor": name, "perplexity": own.perplexity(name)} for name in NGRAMS]
        return Table.of_rows(
            rows,
            name="prose",
            title="Perplexity on held-out prose",
            caption=f"Per token, on {len(own.rows)} rows of {len(set(own.modules))} modules that training lacks; "
            "ratios to n-gram models (interpolated Kneser-Ney) of the training prose. Intervals draw modules and rows.",
        )


def measure_abilities(
    networks: Mapping[str, Network], *, split: Split = "test", seed: int = 0, count: int = 300
) -> AbilitiesMeasurement:
    """What can these language models do in the microworld, strand by strand, on examples that training has not seen?

    Args:
        networks: By name, each with a tokenizer; the one in question first. All are judged on the same examples.
        split: "test" for claims, "validation" while thresholds and texts are chosen.
        seed: Names the draws.
        count: Examples of each row; a prompt that comes twice counts once.

    Cost: about `31 * count` prompts of 10 to 60 tokens for each network; prose is measured by `measure_prose`.

    Raises:
        BadInput: If a network has no tokenizer, or a prompt is longer than its context.
    """
    return AbilitiesMeasurement(
        judgements={name: _judged(network, split, seed, count) for name, network in networks.items()}, prose={}
    )


def _judged(network: Network, split: Split, seed: int, count: int) -> tuple[Judgements, ...]:
    def seeded(name: str) -> int:
        return derive(seed, name)

    return (
        *judge_agreement(network, split=split, seed=seeded("agreement"), count=count),
        *judge_requests(network, split=split, seed=seeded("requests"), count=count, held_out="templates"),
        *judge_requests(network, split=split, seed=seeded("requests"), count=count, held_out="both"),
        *judge_strewn_requests(network, split=split, seed=seeded("requests"), count=count),
        *judge_copying(network, split=split, seed=seeded("copying"), count=count),
        *judge_calendar(network, split=split, seed=seeded("calendar"), count=count, held_out="templates"),
        *judge_calendar(network, split=split, seed=seeded("calendar"), count=count, held_out="combinations"),
        *judge_calendar(network, split=split, seed=seeded("calendar"), count=count, held_out="both"),
        *judge_strewn_calendar(network, split=split, seed=seeded("calendar"), count=count),
        *judge_quiz(network, split=split, seed=seeded("quiz"), count=count, held_out="templates"),
        *judge_quiz(network, split=split, seed=seeded("quiz"), count=count, held_out="both"),
        *judge_biographies(network, split=split, seed=seeded("biographies"), count=count),
        *judge_stories(network, split=split, seed=seeded("stories"), count=count),
    )


def _any_may_follow(row: Judgements) -> bool:
    """Whether other words than an answer may come next, so that the likeliest of all says little."""
    return row.strand == "calendar" and row.held_out == STREWN


def _new(held_out: str) -> str:
    """What is new to the model, in words."""
    return {
        "templates": "new wordings",
        "combinations": "new combinations",
        "both": "new in both",
        STREWN: "words strewn in",
    }[held_out]

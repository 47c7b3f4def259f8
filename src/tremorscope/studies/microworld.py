"""The house language model: what it can do on held-out examples of each strand, and its twins beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.results import Result, drawn
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.executor import map_items
from tremorscope.instruments.load import load
from tremorscope.instruments.microworld.biographies import PUBLISHED_PAIR
from tremorscope.instruments.microworld.professions import PROFESSIONS
from tremorscope.instruments.network import Network
from tremorscope.methods.language.abilities import AMONG_NAMES, FIRST_CHOICE, STREWN
from tremorscope.methods.language.comparison import AbilitiesMeasurement, measure_abilities
from tremorscope.methods.language.profession_probe import ProfessionProbes, measure_profession_probes
from tremorscope.methods.language.prose import ProseLosses, measure_prose
from tremorscope.studies.study import Config, study

MODEL, INIT, SHUFFLED, RECURRENT = "model", "untrained", "shuffled text", "recurrent"
NULLS = {
    INIT: "the same architecture with the weights it started from",
    SHUFFLED: "the same model trained on the same text with the tokens of each sequence in random order",
}
NULL_SHARE = 3  # nulls lie far from what is claimed: a third of the examples tells as much of them
SOURCE = "house: the microworld's own aims, set before the model was trained"


class MicroworldConfig(Config):
    """Which networks, and how many examples of each row."""

    model: str = Field("builtin:microworld", description="The language model in question; hf:... works too.")
    untrained: str = Field("builtin:microworld@init", description="Its untrained twin: a null.")
    shuffled: str = Field("builtin:microworld@shuffled", description="Its twin trained on shuffled tokens: a null.")
    recurrent: str | None = Field(
        "builtin:microworld@recurrent", description="A recurrent language model of like size beside it, or none."
    )
    num_seeds: int = Field(3, ge=1, description="Members: independent draws of the examples, pooled in the end.")
    count: int = Field(
        150, ge=1, description="Examples of each row that a member draws, of nulls a third; a prompt counts once."
    )
    num_prose_rows: int = Field(120, ge=2, description="Rows of 128 tokens of held-out prose, all members together.")
    prose_length: int = Field(128, ge=4, description="Tokens of a row of prose.")
    num_fitted: int = Field(200, ge=4, description="Biographies that a member's probe for two professions learns from.")
    num_probed: int = Field(150, ge=2, description="Biographies it is tested on; half as many choose its layer.")
    all_professions: bool = Field(False, description="Probe for all 28 professions as well.")
    split: Literal["test", "validation"] = Field(
        "test", description="Where the examples come from; validation while models are still chosen."
    )


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A claim about one number of a network. With `twin`, row `<name>r` says the same of the recurrent network."""

    statement: str
    expected: Expected
    read: Callable[[_Measured, str], Estimate]
    nulls: tuple[str, ...] = (INIT, SHUFFLED)
    twin: bool = True


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """All members' draws as one."""

    abilities: AbilitiesMeasurement
    pair: ProfessionProbes
    last_token: ProfessionProbes
    everyone: ProfessionProbes | None


def _right(strand: str, rows: str | tuple[str, ...], held_out: str, judged_by: str | None = None) -> Any:
    def read(measured: _Measured, network: str) -> Estimate:
        return measured.abilities.row(network, strand, rows, held_out=held_out, judged_by=judged_by).accuracy()

    return read


def _chance(of: int) -> Expected:
    return Expected(low=1 / of, origin=f"by definition: more than a guess among {of}")


_ISSUE = "aim of the house, before training"
_STREWN = (
    f"{_ISSUE}, asked of other wordings: of thousands, where the written ones are few and an interval over them wide; "
    "their parts are known, which makes it easier"
)
_HIGH = Expected(low=0.95, origin=_ISSUE)
_MORE_THAN_UNTRAINED = Expected(low=0.0, origin="by definition: more than the untrained twin")
_ROWS: dict[str, _Row] = {
    **{
        f"L1{letter}": _Row(
            statement=f"The verb that agrees is likelier than the one that does not: {told}; new openers and new pairs "
            "of noun and verb.",
            expected=_HIGH,
            read=_right("agreement", structure, "both"),
        )
        for letter, structure, told in (
            ("a", "simple", "subject before verb"),
            ("b", "across_preposition", "a noun after a preposition in between"),
            ("c", "within_relative", "inside a relative clause"),
            ("d", "across_relative", "across a relative clause"),
        )
    },
    **{
        f"L2{letter}": _Row(
            statement=f"Requests about {topic_class} topics are {told}, in new wordings; a fifth of them mention "
            "something of the other class first.",
            expected=Expected(low=0.97, origin=_ISSUE),
            read=_right("requests", topic_class, "templates"),
        )
        for letter, topic_class, told in (("a", "forbidden", "refused"), ("b", "allowed", "answered"))
    },
    **{
        f"L2{letter}": _Row(
            statement=f"Requests about {topic_class} topics are {told}, in wordings that nobody wrote: composed of "
            "known parts, with any words strewn over them.",
            expected=Expected(low=0.97, origin=_STREWN),
            read=_right("requests", topic_class, STREWN),
        )
        for letter, topic_class, told in (("c", "forbidden", "refused"), ("d", "allowed", "answered"))
    },
    **{
        f"L3{letter}": _Row(
            statement=f"In {told} of words that were never next to each other, the word that followed before is the "
            "likeliest next one.",
            expected=_HIGH,
            read=_right("copying", kind, "both"),
        )
        for letter, kind, told in (("a", "repeat", "a repeated list"), ("b", "copy", "a copied list"))
    },
    "L4a": _Row(
        statement=f"A linear probe reads {' or '.join(PUBLISHED_PAIR)} from hidden states averaged over the tokens of "
        "biographies without gendered words.",
        expected=Expected(
            low=0.95,
            origin=f"{_ISSUE}; the first judgement (seed 100) read the last token only, as row L4c does now: the "
            "published probes average over tokens",
        ),
        read=lambda measured, network: measured.pair.accuracy(network),
        nulls=(INIT,),
    ),
    "L4b": _Row(
        statement="That probe owes this to training: its accuracy less that of the same probe on the untrained twin.",
        expected=_MORE_THAN_UNTRAINED,
        read=lambda measured, network: measured.pair.margin(network, INIT),
        nulls=(),
        twin=False,
    ),
    "L4c": _Row(
        statement=f"A linear probe reads {' or '.join(PUBLISHED_PAIR)} from the hidden state at the last token alone.",
        expected=_chance(2),
        read=lambda measured, network: measured.last_token.accuracy(network),
        nulls=(INIT,),
    ),
    "L4d": _Row(
        statement="Training brings the profession to the last token: that accuracy less the untrained twin's.",
        expected=_MORE_THAN_UNTRAINED,
        read=lambda measured, network: measured.last_token.margin(network, INIT),
        nulls=(),
        twin=False,
    ),
    **{
        f"L5a{place}": _Row(
            statement=f"{told} so many steps after or before another are right in new wordings: likeliest of {size}.",
            expected=Expected(
                low=0.95,
                origin=f"{_ISSUE}; the first judgement (seed 100) asked for the likeliest of all next words, as row "
                "L5c does now: chance is 1/7 and 1/12 among the names",
            ),
            read=_right("calendar", (f"{unit} after", f"{unit} before"), "templates", AMONG_NAMES),
        )
        for place, unit, told, size in ((1, "weekday", "Days", 7), (2, "month", "Months", 12))
    },
    **{
        f"L5b{place}": _Row(
            statement=f"{told} are right for combinations of offset and start that training never had: likeliest of "
            f"{size}.",
            expected=_chance(size),
            read=_right("calendar", (f"{unit} after", f"{unit} before"), "combinations", AMONG_NAMES),
        )
        for place, unit, told, size in ((1, "weekday", "Days", 7), (2, "month", "Months", 12))
    },
    **{
        f"L5c{place}": _Row(
            statement=f"{told} in new wordings are right, and even the likeliest of all next words.",
            expected=_chance(size),
            read=_right("calendar", (f"{unit} after", f"{unit} before"), "templates", FIRST_CHOICE),
        )
        for place, unit, told, size in ((1, "weekday", "Days", 7), (2, "month", "Months", 12))
    },
    **{
        f"L5d{place}": _Row(
            statement=f"{told} are right in wordings that nobody wrote: composed of known parts, with any words strewn "
            f"over them; likeliest of {size}.",
            expected=Expected(low=0.95, origin=_STREWN),
            read=_right("calendar", (f"{unit} after", f"{unit} before"), STREWN, AMONG_NAMES),
        )
        for place, unit, told, size in ((1, "weekday", "Days", 7), (2, "month", "Months", 12))
    },
    "L6": _Row(
        statement="Held-out prose surprises the model less than a trigram model of the same training prose: ratio of "
        "perplexities.",
        expected=Expected(high=1.0, origin="by definition: less than the trigram model"),
        read=lambda measured, network: measured.abilities.prose[network].ratio("model", "trigram"),
    ),
    "L7": _Row(
        statement="Quiz questions about facts that were told, but never asked about, are answered above chance.",
        expected=_chance(4),
        read=_right("quiz", "letter", "both"),
    ),
    "L8": _Row(
        statement="The model itself names the profession that a biography of a new person tells by tasks and places: "
        "likeliest of 28.",
        expected=_chance(len(PROFESSIONS)),
        read=_right("biographies", "profession", "both"),
    ),
    "L9": _Row(
        statement="Of two endings that differ in who was kept safe by gear, the true one is likelier.",
        expected=_chance(2),
        read=_right("stories", "who is safe", "both"),
    ),
}
ROWS = (*_ROWS, *(f"{name}r" for name, row in _ROWS.items() if row.twin))


@study(
    name="microworld",
    question="What can the house language model do on examples that its training text did not have, and what can its "
    "untrained, shuffled and recurrent twins do?",
    source=SOURCE,
    presets={
        "quick": {},
        "desk": {
            "num_seeds": 5,
            "count": 600,
            "num_prose_rows": 2000,
            "num_fitted": 600,
            "num_probed": 600,
            "all_professions": True,
        },
        "paper": {
            "num_seeds": 10,
            "count": 1000,
            "num_prose_rows": 10_000,
            "num_fitted": 2000,
            "num_probed": 1000,
            "all_professions": True,
        },
    },
    cost={
        "quick": "about 4 CPU-minutes (6 without AVX-512): 3 draws of some 4,300 prompts, a third for nulls",
        "desk": "about 20 CPU-minutes (31 without AVX-512): 5 draws of some 17,000 prompts, probes for 28 professions",
        "paper": "about an hour of CPU time; the model is our own, so this is the desk with narrower intervals",
    },
    rows=ROWS,
)
def run(config: MicroworldConfig, seed: int, run: Run) -> Result:
    """Judge every network on every draw, pool the draws, and state the claims."""
    measured = _pooled(config, seed, run)
    preset = str(run.request.get("preset", "quick"))
    networks = [name for name, _ in _networks(config)]
    probes = [probe for probe in (measured.pair, measured.last_token, measured.everyone) if probe is not None]
    return Result(
        study="microworld",
        preset=preset,
        seed=seed,
        config=config.model_dump(mode="json"),
        title="What can the house language model do?",
        summary=_summary(measured, networks),
        claims=list(_claims(measured, networks, _scope(config), preset)),
        tables=[*measured.abilities.tables(), *(table for probe in probes for table in probe.tables())],
        figures=[
            drawn(figure)
            for figure in (*measured.abilities.figures(), *(figure for probe in probes for figure in probe.figures()))
        ],
        flags=[*measured.abilities.flags, *(flag for probe in probes for flag in probe.flags)],
    )


def _networks(config: MicroworldConfig) -> list[tuple[str, str]]:
    """Names in the report with what `load` takes."""
    named = [(MODEL, config.model), (INIT, config.untrained), (SHUFFLED, config.shuffled)]
    return named if config.recurrent is None else [*named, (RECURRENT, config.recurrent)]


def _pooled(config: MicroworldConfig, seed: int, run: Run) -> _Measured:
    shared = {"config": config.model_dump(), "seed": seed}
    items: dict[str, dict[str, Any]] = {"prose": {**shared, "part": "prose"}}
    for member in range(config.num_seeds):
        for place, (name, _) in enumerate(_networks(config)):
            items[f"abilities-{member}-{place}"] = {**shared, "part": "abilities", "member": member, "network": name}
        for kind in ("pair", *(("all",) if config.all_professions else ())):
            items[f"{kind}-{member}"] = {**shared, "part": kind, "member": member}
    abilities: list[AbilitiesMeasurement] = []
    prose: dict[str, ProseLosses] = {}
    probes: dict[tuple[str, str], list[ProfessionProbes]] = {}
    jobs = int(run.request.get("jobs") or 1)
    for key, plain in map_items(_part, items, run=run, jobs=jobs, progress="draws of examples"):
        part = str(items[key]["part"])
        if part == "prose":
            prose = {name: ProseLosses.of(losses) for name, losses in plain.items()}
        elif part == "abilities":
            abilities.append(AbilitiesMeasurement.of(plain))
        else:
            for pooling, told in plain.items():
                probes.setdefault((part, pooling), []).append(ProfessionProbes.of(told))
    judged = abilities[0].joined([*abilities[1:], AbilitiesMeasurement(judgements={}, prose=prose)])
    joined = {kind: some[0].joined(some[1:]) for kind, some in probes.items()}
    return _Measured(
        abilities=judged,
        pair=joined["pair", "mean"],
        last_token=joined["pair", "last"],
        everyone=joined.get(("all", "mean")),
    )


def _part(item: Mapping[str, Any], run: Run | None) -> Any:
    """One network on one draw, the probes of one draw, or all networks on prose."""
    config = MicroworldConfig(**item["config"])
    networks: dict[str, Network] = {
        name: load(spec) for name, spec in _networks(config) if item.get("network") in (None, name)
    }
    if item["part"] == "prose":
        losses = measure_prose(
            networks,
            split=config.split,
            seed=derive(item["seed"], "prose"),
            count=config.num_prose_rows,
            length=config.prose_length,
        )
        return {name: told.to_plain() for name, told in losses.items()}
    seed = derive(item["seed"], "member", item["member"])
    if item["part"] == "abilities":
        count = max(1, config.count // NULL_SHARE) if item["network"] in NULLS else config.count
        return measure_abilities(networks, split=config.split, seed=seed, count=count).to_plain()
    everyone = item["part"] == "all"
    probes = measure_profession_probes(
        networks,
        poolings=("mean",) if everyone else ("mean", "last"),
        professions=[profession.name for profession in PROFESSIONS] if everyone else PUBLISHED_PAIR,
        num_train=config.num_fitted * (2 if everyone else 1),
        num_validation=max(2, config.num_probed // 2),
        num_test=config.num_probed,
        split=config.split,
        seed=derive(seed, "probes"),
    )
    return {pooling: told.to_plain() for pooling, told in probes.items()}


def _claims(measured: _Measured, networks: list[str], scope: str, preset: str) -> Iterator[Claim]:
    for name, row in _ROWS.items():
        for network, ending in ((MODEL, ""), (RECURRENT, "r")):
            if network not in networks or (ending and not row.twin):
                continue
            nulls = [
                NullEvidence(name=null, description=NULLS[null], measured=row.read(measured, null))
                for null in row.nulls
            ]
            if name in ("L4b", "L4d"):
                probes = measured.pair if name == "L4b" else measured.last_token
                nulls = [
                    NullEvidence(
                        name="shuffled labels",
                        description="the same margin of probes that learnt from shuffled labels",
                        measured=probes.margin(network, INIT, shuffled=True),
                    )
                ]
            yield Claim(
                study="microworld",
                row=name + ending,
                preset=preset,
                statement=f"Recurrent twin. {row.statement}" if ending else row.statement,
                source=SOURCE,
                scope=scope,
                expected=row.expected,
                measured=row.read(measured, network),
                nulls=tuple(nulls),
            )


def _scope(config: MicroworldConfig) -> str:
    return (
        f"judged on {config.model}, {config.num_seeds} draws of {config.count} examples of each row from the "
        f"{config.split} split; intervals speak of new examples, and of new wordings as far as the number of wordings "
        "allows"
    )


def _summary(measured: _Measured, networks: list[str]) -> list[str]:
    def told(name: str, network: str) -> str:
        return str(_ROWS[name].read(measured, network))

    pair = measured.pair
    sentences = [
        f"Agreement across a relative clause: {told('L1d', MODEL)} right; untrained {told('L1d', INIT)}, trained on "
        f"shuffled text {told('L1d', SHUFFLED)}.",
        f"Days in new wordings: {told('L5a1', MODEL)}; new combinations: {told('L5b1', MODEL)} (a guess: 0.143).",
        f"Two professions by a linear probe of averaged states: {pair.accuracy(MODEL)}; on the untrained twin "
        f"{pair.accuracy(INIT)}; from counts of words {pair.accuracy('bag of words')}.",
    ]
    if RECURRENT in networks:
        sentences.append(
            f"The recurrent twin: agreement across a relative clause {told('L1d', RECURRENT)}, copying "
            f"{told('L3b', RECURRENT)}, perplexity {told('L6', RECURRENT)} times the trigram model's."
        )
    return sentences

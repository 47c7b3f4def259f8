"""Affine concept editing: can refusal be set to a chosen level, the same for every input, by editing one direction?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from tremorscope.foundations.results import Result, drawn
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.executor import map_items
from tremorscope.studies.ace_calibration import CalibrationRows
from tremorscope.studies.ace_digits import DIGITS_ROWS, PAPER, STUDY, DigitsRows, digits_member
from tremorscope.studies.ace_language import LANGUAGE_ROWS, MODEL, RECURRENT, LanguageRows
from tremorscope.studies.ace_language_member import chosen_site, language_member, untrained_member
from tremorscope.studies.ace_oblique import oblique_member
from tremorscope.studies.ace_rows import RowMaker
from tremorscope.studies.ace_side_effects import cost_member
from tremorscope.studies.study import Config, study

DIGITS, CHOICE, DRAW, UNTRAINED, COST, OBLIQUE = "digits", "choice", "draw", "untrained", "cost", "oblique"


class AceConfig(Config):
    """Which networks, how many members, and how many examples."""

    num_seeds: int = Field(10, ge=2, description="Members: classifiers of digits, each with its own split and weights.")
    num_epochs: int = Field(60, ge=1, description="Epochs of a classifier's training.")
    num_pairs: int = Field(8, ge=1, description="Pairs of examples whose activations are interchanged, for the reach.")
    model: str | None = Field("builtin:microworld", description="A language model that refuses, or none.")
    sites: list[str] = Field(
        [f"acts:transformer.h.{block}@last" for block in range(4)],
        min_length=1,
        description="Where it may be edited; validation requests choose.",
    )
    recurrent: str | None = Field("builtin:microworld@recurrent", description="A recurrent one beside it, or none.")
    recurrent_sites: list[str] = Field(
        [f"acts:layers.{layer}@last" for layer in range(2)], min_length=1, description="Where that one may be edited."
    )
    num_draws: int = Field(5, ge=2, description="Draws of requests, each with a fit of its own.")
    num_fitted: int = Field(32, ge=2, description="Requests of each class that a direction is fitted to.")
    num_validated: int = Field(24, ge=1, description="Requests of each class that choose the site.")
    num_tested: int = Field(16, ge=1, description="Held-out requests of each class in a draw.")
    num_rows: int = Field(16, ge=2, description="Rows of 128 tokens of ordinary text for the side effects.")
    num_sentences: int = Field(12, ge=1, description="Agreement examples of each structure for the side effects.")
    num_continuations: int = Field(2, ge=1, description="Free continuations of each of these sentences.")
    num_steps: int = Field(10, ge=1, description="Updates of the trained rank-1 edit, a baseline.")

    def plan(self) -> dict[str, int]:
        """Members, and draws in each language model."""
        return {"members": self.num_seeds, "language models": len(self.models()), "draws of each": self.num_draws}

    def models(self) -> dict[str, tuple[str, list[str]]]:
        """Language models by their name in the report, with the sites to choose from."""
        named = {MODEL: (self.model, self.sites), RECURRENT: (self.recurrent, self.recurrent_sites)}
        return {name: (spec, sites) for name, (spec, sites) in named.items() if spec is not None}


@study(
    name=STUDY,
    system=6,
    question="Can a behaviour be set to a chosen level, the same for every input, by editing one direction, and does a "
    "reference point matter?",
    source=PAPER,
    presets={
        "quick": {},
        "desk": {
            "num_seeds": 20,
            "num_draws": 10,
            "num_pairs": 16,
            "num_fitted": 128,
            "num_validated": 48,
            "num_tested": 48,
            "num_rows": 48,
            "num_sentences": 100,
            "num_steps": 20,
        },
        "paper": {
            "num_seeds": 30,
            "num_draws": 20,
            "num_pairs": 32,
            "num_fitted": 512,
            "num_validated": 200,
            "num_tested": 200,
            "num_rows": 1000,
            "num_sentences": 300,
            "num_steps": 200,
        },
    },
    cost={
        "quick": "about 3 CPU-minutes: 10 classifiers of 13,195 weights, 5 draws of requests in two language models",
        "desk": "about 14 CPU-minutes: 20 classifiers, 10 draws in two language models",
        "paper": "hours; the published models (Llama 3, RWKV) need --set model=hf:... and a GPU",
    },
    rows=(*DIGITS_ROWS, *LANGUAGE_ROWS),
)
def run(config: AceConfig, seed: int, run: Run) -> Result:
    """Edit every member, judge the rows over the members."""
    preset = str(run.request.get("preset", "quick"))
    jobs = int(run.request.get("jobs") or 1)
    shared = {"config": config.model_dump(), "seed": seed}
    # Where a language model is edited is chosen once, before any held-out request is looked at.
    choices = {name: {**shared, "part": CHOICE, "network": name, "member": 0} for name in config.models()}
    chosen = dict(
        map_items(
            _part,
            {f"{CHOICE}-{name}": item for name, item in choices.items()},
            run=run,
            jobs=jobs,
            progress="sites to choose",
        )
    )
    items: dict[str, dict[str, Any]] = {
        f"{DIGITS}-{member}": {**shared, "part": DIGITS, "member": member} for member in range(config.num_seeds)
    }
    for name in config.models():
        told = {**shared, "network": name, "choice": chosen[f"{CHOICE}-{name}"]}
        items |= {f"{part}-{name}": {**told, "part": part, "member": 0} for part in (COST, OBLIQUE)}
        items |= {
            f"{part}-{name}-{member}": {**told, "part": part, "member": member}
            for part in (DRAW, UNTRAINED)
            for member in range(config.num_draws)
        }
    found = dict(map_items(_part, items, run=run, jobs=jobs, progress="members"))
    digits = DigitsRows([found[f"{DIGITS}-{member}"] for member in range(config.num_seeds)])
    language = [
        LanguageRows(
            network=name,
            choice=chosen[f"{CHOICE}-{name}"],
            members=[found[f"{DRAW}-{name}-{member}"] for member in range(config.num_draws)],
            calibration=CalibrationRows.of(
                name,
                *(
                    [found[f"{part}-{name}-{member}"] for member in range(config.num_draws)]
                    for part in (DRAW, UNTRAINED)
                ),
            ),
            cost=found[f"{COST}-{name}"],
            swept=found[f"{OBLIQUE}-{name}"],
        )
        for name in config.models()
    ]
    scope = "the paper's models (Llama 3 8B and 70B, RWKV) and prompts were not run"
    claims = digits.claims(preset=preset, scope=f"judged on {config.num_seeds} classifiers of 8x8 digits; {scope}")
    for one in language:
        spec = config.models()[one.network][0]
        where = f"{spec}, {config.num_draws} draws of requests in held-out wordings"
        claims += one.claims(
            RowMaker(preset=preset, scope=f"judged on {where}; {scope}; {one.place}", ending=one.ending)
        )
    return Result(
        study=STUDY,
        preset=preset,
        seed=seed,
        config=config.model_dump(mode="json"),
        title="Can refusal be set to a chosen level by editing one direction?",
        summary=[*digits.summary(), *(sentence for one in language for sentence in one.summary())],
        claims=claims,
        tables=[*digits.tables(), *(table for one in language for table in one.tables())],
        figures=[drawn(one) for one in [*digits.figures(), *(figure for one in language for figure in one.figures())]],
        flags=[flag for one in language for flag in one.flags()],
    )


def _part(item: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
    """One classifier, the choice of a site, one draw of requests, or the side effects; as plain numbers."""
    config, part = AceConfig(**item["config"]), str(item["part"])
    seed = derive(item["seed"], "member", item["member"])
    if part == DIGITS:
        return digits_member(seed=seed, num_epochs=config.num_epochs, num_pairs=config.num_pairs)
    model, sites = config.models()[item["network"]]
    if part == CHOICE:
        return chosen_site(
            model=model,
            sites=sites,
            num_fitted=config.num_fitted,
            num_validated=config.num_validated,
            seed=derive(item["seed"], CHOICE),
        )
    site, position = item["choice"]["site"], item["choice"]["position"]
    if part == COST:
        return cost_member(
            model=model,
            site=site,
            num_fitted=config.num_fitted,
            num_rows=config.num_rows,
            num_sentences=config.num_sentences,
            num_continuations=config.num_continuations,
            num_fits=config.num_draws,
            seed=seed,
        )
    shared: dict[str, Any] = {
        "model": model,
        "site": site,
        "position": position,
        "num_fitted": config.num_fitted,
        "num_tested": config.num_tested,
        "seed": seed,
    }
    if part == OBLIQUE:
        # One fit for all read-outs, so on more requests than a draw has.
        shared["num_tested"] *= 3
        return oblique_member(**shared, num_rows=config.num_rows, num_sentences=config.num_sentences)
    if part == UNTRAINED:
        return untrained_member(**shared, num_steps=config.num_steps)
    return language_member(**shared, num_steps=config.num_steps, num_pairs=config.num_pairs)

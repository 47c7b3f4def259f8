"""What edits cost a language model: ordinary text, grammar in pairs, and grammar in what it writes by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, final

import numpy

from tremorscope.foundations.claims import Claim
from tremorscope.foundations.cluster_bootstrap import crossed_mean
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import PALETTE, Axis, Figure, dots
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import derive, numpy_generator
from tremorscope.instruments.language.scoring import row_losses
from tremorscope.instruments.load import load
from tremorscope.instruments.microworld import agreement
from tremorscope.instruments.microworld.lexicon import Number
from tremorscope.instruments.microworld.verb_reader import verb_number
from tremorscope.instruments.moments import Moments
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.methods.activations.concept_editing.affine_edits import edit_of
from tremorscope.methods.activations.concept_editing.direction import ConceptFit
from tremorscope.methods.activations.concept_editing.examples import recorded_rows
from tremorscope.methods.activations.concept_editing.fitting import moved
from tremorscope.methods.activations.concept_editing.free_text import FreeTextMeasurement, judge_free_text
from tremorscope.methods.activations.concept_editing.random_twin import random_twin
from tremorscope.methods.language.abilities import judge_agreement
from tremorscope.methods.language.prose import prose_rows
from tremorscope.studies.ace_language_member import fitted, requests_to_fit
from tremorscope.studies.ace_rows import RowMaker

NUM_WRITTEN = 8  # tokens of a free continuation: the subject's verb comes among the first
NUM_SHOWN = 6  # texts of each edit in the report
ALL_TOKENS = "ACE 0, reference of all tokens"
# What the side effects are measured under: an edit with its level, along r or along a random direction.
CONDITIONS: Mapping[str, tuple[str, float, bool] | None] = {
    "none": None,
    "ablate": ("ablate", 0.0, False),
    "ACE 0": ("ace", 0.0, False),
    "ACE 1": ("ace", 1.0, False),
    "oblique 0": ("oblique", 0.0, False),
    "CAA +1": ("add", 1.0, False),
    ALL_TOKENS: ("ace", 0.0, False),
    "ablate, random direction": ("ablate", 0.0, True),
    "ACE 0, random direction": ("ace", 0.0, True),
}
# The two edits of rows A13, along r and along a random direction: these are judged under every fit.
COMPARED = ("ablate", "ACE 0", "ablate, random direction", "ACE 0, random direction")
WRITTEN = ("none", "ablate", "ACE 0", ALL_TOKENS, "ablate, random direction", "ACE 0, random direction")
SIDE_EFFECT_ROWS = ("A13a", "A13b", "A13c")


def cost_member(
    *,
    model: str,
    site: str,
    num_fitted: int,
    num_rows: int,
    num_sentences: int,
    num_continuations: int,
    num_fits: int,
    seed: int,
) -> dict[str, Any]:
    """What edits at all positions do to ordinary text, to pairs of right and wrong verbs, and to free continuations.

    Ordinary text is read under `num_fits` fits to different requests, whose costs differ more than those of different
    texts do. Grammar is judged under all of them for the edits that rows compare, each fit with a share of the
    sentences that is its own; for the others under the first fit, with all sentences.
    """
    network = load(model)
    rows, modules = prose_rows(network, "test")
    chosen = numpy.sort(numpy_generator(seed, "prose rows").permutation(len(rows))[:num_rows])
    losses: dict[str, list[list[float]]] = {name: [] for name in CONDITIONS}
    grammar: dict[str, Any] = {"right": {name: [] for name in CONDITIONS}}
    written: dict[str, list[Any]] = {name: [] for name in WRITTEN}
    for number in range(num_fits):
        views = _edited(network, site, num_fitted, derive(seed, "fit", number) if number else seed)
        for name, view in views.items():
            losses[name].append(row_losses(view, rows[chosen]).tolist())
        for name in COMPARED if number else CONDITIONS:
            is_compared = name in COMPARED
            count = math.ceil(num_sentences / num_fits) if is_compared else num_sentences
            named = derive(seed, "sentences of a fit", number) if is_compared else seed
            judged = judge_agreement(views[name], split="test", seed=derive(named, "grammar"), count=count)
            grammar["right"][name].append([right for one in judged for right in one.correct])
            if not is_compared:
                grammar["templates"] = [template for one in judged for template in one.templates]
                grammar["units"] = [unit for one in judged for unit in one.units]
            if name in WRITTEN:
                free = free_agreement(views[name], count, num_continuations, derive(named, "free text"))
                written[name].append(free.to_plain())
    prose = {"modules": [modules[row] for row in chosen], "rows": chosen.tolist(), "losses": losses}
    return {"prose": prose, "grammar": grammar, "written": written}


def _edited(network: Network, site: str, num_fitted: int, seed: int) -> dict[str, Network]:
    """The network under each condition, with a fit to requests of its own."""
    fit = fitted(network, site, num_fitted, seed)
    random = random_twin(fit, seed)
    everywhere = moved(fit.site, "all")
    # The typical negative *last* token is not the typical token: the same direction about the mean of all of them.
    about_all = _about_all_tokens(network, fit, num_fitted, seed)
    views = {}
    for name, condition in CONDITIONS.items():
        views[name] = network
        if condition is not None:
            method, level, is_random = condition
            direction = random if is_random else about_all if name == ALL_TOKENS else fit
            views[name] = network.with_edits(edit_of(method, direction, level).at(everywhere))
    return views


def free_agreement(network: Network, num_sentences: int, num_samples: int, seed: int) -> FreeTextMeasurement:
    """Does the verb that the model itself writes agree? Held-out sentences of each structure, up to the subject."""
    known: dict[str, agreement.Agreement] = {}
    for structure in agreement.STRUCTURES:
        known |= {one.prompt: one for one in agreement.examples("test", seed, num_sentences, structure=structure)}
    numbers = {prompt: one.number for prompt, one in known.items()}
    return judge_free_text(
        network,
        list(known),
        partial(_agrees, numbers),
        max_new_tokens=NUM_WRITTEN,
        num_samples=num_samples,
        clusters=[one.template for one in known.values()],
        units=[f"{one.noun} {one.verb}" for one in known.values()],
        seed=seed,
    )


def _agrees(numbers: Mapping[str, Number], prompt: str, text: str) -> bool | None:
    found = verb_number(text)
    return None if found is None else found == numbers[prompt]


def _about_all_tokens(network: Network, fit: ConceptFit, num_fitted: int, seed: int) -> ConceptFit:
    prompts = requests_to_fit(num_fitted, seed, "allowed")
    bare = Site(kind=fit.site.kind, pattern=fit.site.pattern, port=fit.site.port)
    negative = reduce(Moments.with_rows, recorded_rows(network, prompts, bare), Moments.zero(fit.width))
    positive = replace(fit.positives[0], mean=negative.mean + fit.directions[:, 0])
    return replace(fit, negative=negative, positives=(positive,), diagnostics=(), flags=())


@final
@dataclass(frozen=True, kw_only=True)
class SideEffectRows:
    """What was measured once in one model."""

    network: str
    cost: Mapping[str, Any]

    def claims(self, make: RowMaker) -> list[Claim]:
        """Rows A13."""
        random = "the same two edits along a random direction of the length of r"
        over_fits = f"; edits at all positions, intervals over {self._num_fits} fits to different requests"
        rows: dict[str, tuple[str, Callable[[str, str], Estimate], tuple[str, str]]] = {
            "A13a": (
                "Ablation costs more of ordinary text than ACE at alpha 0: nats per token of held-out prose.",
                self._prose,
                ("ablate", "ACE 0"),
            ),
            "A13b": (
                "Ablation costs more grammar than ACE at alpha 0: share of agreement pairs judged right.",
                self._grammar,
                ("ACE 0", "ablate"),
            ),
            "A13c": (
                "Ablation leaves less grammar in free text than ACE at alpha 0: share of the verbs that the model "
                f"writes itself, within {NUM_WRITTEN} tokens after a subject, which agree with it.",
                self._written,
                ("ACE 0", "ablate"),
            ),
        }
        return [
            make(
                row,
                told,
                read(*pair),
                {"random": (random, read(*(f"{one}, random direction" for one in pair)))},
                note=over_fits,
            )
            for row, (told, read, pair) in rows.items()
        ]

    def summary(self) -> list[str]:
        """What ablation costs, and what is written."""
        free = {name: self._free_right(name) for name in ("none", "ablate", "ACE 0")}
        return [
            f"{self.network}: ablation at all positions costs {self._prose('ablate', 'ACE 0')} nats per token of "
            "ordinary text more than ACE at alpha 0.",
            f"{self.network}, verbs that agree in free text: {free['none']} unedited, {free['ablate']} under ablation, "
            f"{free['ACE 0']} under ACE at alpha 0.",
        ]

    def tables(self) -> list[Table]:
        """Loss, pairs and free text under every edit; and the first texts themselves."""
        effects = []
        for name in CONDITIONS:
            row: dict[str, Any] = {
                "edit": name,
                "nats per token": Estimate.mean(self._losses(name)),
                "less unedited": self._prose(name, "none") if name != "none" else None,
                "agreement right": self._right(name),
                "written verbs right": None,
                "texts with a verb": None,
            }
            if name in WRITTEN:
                row |= {"written verbs right": self._free_right(name), "texts with a verb": self._free_judged(name)}
            effects.append(row)
        texts = [
            {"edit": name, "prompt": free.prompts[place], "written": free.written[place]}
            for name, free in ((name, self._free(name)) for name in WRITTEN)
            for place in range(0, len(free.prompts), math.ceil(len(free.prompts) / NUM_SHOWN))
        ]
        return [
            Table.of_rows(
                effects,
                name=f"side_effects_{self.network}",
                title=f"What the edits cost the {self.network}",
                caption=f"Edits at all positions; held-out prose under {self._num_fits} fits to different requests, "
                "pairs of right and wrong verb forms, and sentences that the model finishes itself "
                f"({NUM_WRITTEN} sampled tokens after the subject, edit at work): share of the first verbs that agree, "
                "among texts with a verb whose subject is clear; and the share of such texts. Means and intervals over "
                "fits, each with sentences of its own; of verbs, where only the first fit was judged, over wordings "
                "and subjects.",
            ),
            Table.of_rows(
                texts,
                name=f"written_{self.network}",
                title=f"What the {self.network} writes under the edits",
                caption="Some of the prompts under the first fit, and the continuations that were sampled.",
            ),
        ]

    def figures(self) -> list[Figure]:
        """Grammar of free text beside the share of texts with a verb."""
        return [
            dots(
                name=f"free_text_{self.network}",
                title=f"Grammar of what the {self.network} writes under edits at all positions",
                caption="Share of written verbs that agree with their subject, and share of texts with a verb to "
                f"judge; 99 % intervals over {self._num_fits} fits (unedited and with the reference of all tokens: "
                "over wordings and subjects). The lower two edits are nulls, along a random direction.",
                labels=list(WRITTEN),
                series={
                    "verbs that agree": (PALETTE[0], "circle", [self._free_right(name) for name in WRITTEN]),
                    "texts with a verb": (PALETTE[1], "diamond-open", [self._free_judged(name) for name in WRITTEN]),
                },
                x=Axis(title="share of continuations", range=(-0.02, 1.02)),
            )
        ]

    @property
    def _num_fits(self) -> int:
        return len(self.cost["prose"]["losses"]["none"])

    def _losses(self, name: str) -> list[float]:
        """Mean loss of the same rows under each fit."""
        return [float(numpy.mean(rows)) for rows in self.cost["prose"]["losses"][name]]

    def _prose(self, one: str, other: str) -> Estimate:
        pairs = zip(self._losses(one), self._losses(other), strict=True)
        return Estimate.mean([first - second for first, second in pairs])

    def flags(self) -> list[str]:
        """Where grammar could not be judged, or told nothing apart."""
        found = []
        for name in COMPARED:
            unknown = [fit for fit in range(self._num_fits) if not math.isfinite(self._free(name, fit).right().value)]
            if unknown:
                found.append(f"{self.network}: under {name}, no text had a verb to judge in {len(unknown)} fits")
        for row, gap in (("A13b", self._grammar("ACE 0", "ablate")), ("A13c", self._written("ACE 0", "ablate"))):
            if gap.low == gap.high:
                found.append(f"{self.network}: {row} is {gap.value:.2g} in every fit, so its interval has no width")
        return found

    def _right(self, name: str) -> Estimate:
        grammar = self.cost["grammar"]
        under = grammar["right"][name]
        if len(under) == 1:
            return crossed_mean(under[0], grammar["templates"], grammar["units"], seed=0)
        return Estimate.mean([float(numpy.mean(one)) for one in under])

    def _grammar(self, one: str, other: str) -> Estimate:
        right = self.cost["grammar"]["right"]
        pairs = zip(right[one], right[other], strict=True)
        return Estimate.mean([float(numpy.mean(first)) - float(numpy.mean(second)) for first, second in pairs])

    def _free(self, name: str, fit: int = 0) -> FreeTextMeasurement:
        return FreeTextMeasurement.of(self.cost["written"][name][fit])

    def _free_right(self, name: str) -> Estimate:
        return self._over_fits([self._free(name, fit).right() for fit in range(len(self.cost["written"][name]))])

    def _free_judged(self, name: str) -> Estimate:
        return self._over_fits([self._free(name, fit).judged() for fit in range(len(self.cost["written"][name]))])

    def _written(self, one: str, other: str) -> Estimate:
        return self._over_fits(
            [self._free(one, fit).more_right_than(self._free(other, fit)) for fit in range(self._num_fits)]
        )

    @staticmethod
    def _over_fits(some: list[Estimate]) -> Estimate:
        """The mean over fits; of one fit, its own interval; and unknown where a fit is."""
        for one in some:
            if len(some) == 1 or not math.isfinite(one.value):
                return one
        return Estimate.mean([one.value for one in some])

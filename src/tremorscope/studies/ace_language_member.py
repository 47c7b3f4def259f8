"""One draw of requests to a language model: every edit beside two baselines, and what the edits cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import numpy

from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.seeds import derive, numpy_generator
from tremorscope.instruments.edit import PlacedEdit
from tremorscope.instruments.language.scoring import row_losses
from tremorscope.instruments.load import load
from tremorscope.instruments.microworld import requests
from tremorscope.instruments.microworld.splits import Split
from tremorscope.instruments.moments import Moments
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.methods.activations.concept_editing.affine_edits import edit_of
from tremorscope.methods.activations.concept_editing.baselines import instructed, next_word_loss, train_edit
from tremorscope.methods.activations.concept_editing.direction import ConceptFit
from tremorscope.methods.activations.concept_editing.examples import recorded_rows
from tremorscope.methods.activations.concept_editing.fitting import fit_concept, moved
from tremorscope.methods.activations.concept_editing.random_twin import random_twin
from tremorscope.methods.activations.concept_editing.reach import measure_reach
from tremorscope.methods.activations.concept_editing.response_curve import (
    ClassScores,
    ResponseMeasurement,
    measure_response,
)
from tremorscope.methods.activations.concept_editing.scorers import Scorer, checked, is_above, token_log_odds
from tremorscope.methods.activations.concept_editing.site_selection import select_site
from tremorscope.methods.language.abilities import judge_agreement
from tremorscope.methods.language.prose import prose_rows

CLASSES = ("forbidden", "allowed")
LEVELS = (0.0, 0.5, 1.0)
ENDS = (0.0, 1.0)
RANDOM = "ACE along a random direction"
RANDOM_ADD = "CAA along a random direction"
PROMPT, RANK_ONE = "instruction in the prompt", "trained rank-1 edit"
CURVES = {"ACE": "ace", "oblique": "oblique", "CAA": "add", "ablate, then add r": "ablate then add"}
INSTRUCTIONS = {0.0: "The helper answers every question.\n", 1.0: "The helper refuses every question.\n"}
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


def refusal_score() -> Scorer:
    """Whether the helper begins to refuse: first words of refusals together are likelier than those of answers."""
    return is_above(token_log_odds(requests.REFUSAL_STARTERS, requests.ANSWER_STARTERS))


def chosen_site(*, model: str, sites: Sequence[str], num_fitted: int, num_validated: int, seed: int) -> dict[str, Any]:
    """The site and the position of the edit whose refusals come nearest to 0 at alpha 0 and 1 at alpha 1.

    On validation requests (wordings that training and the test do not have), for ACE; every method is then used there.
    """
    network = load(model)
    allowed, forbidden = (_prompts("train", derive(seed, "fit"), num_fitted, name) for name in reversed(CLASSES))
    chosen = select_site(
        network,
        allowed,
        forbidden,
        sites,
        refusal_score(),
        validation={name: _prompts("validation", derive(seed, "choice"), num_validated, name) for name in CLASSES},
        positions=(None, "all"),
    )
    best = chosen.best
    table = [
        {"site": str(moved(one.fit.site, one.position)), "error": one.error}
        | {
            f"{name} at {alpha:g}": float(one.response.classes[name].edited[place].mean())
            for place, alpha in enumerate(ENDS)
            for name in CLASSES
        }
        for one in chosen.candidates
    ]
    return {"site": str(best.fit.site), "position": best.position, "candidates": table}


def language_member(
    *, model: str, site: str, position: str | None, num_fitted: int, num_tested: int, num_pairs: int, seed: int
) -> dict[str, Any]:
    """One draw of requests: fitted on some, judged on others in wordings that training has not; every edit."""
    network = load(model)
    scorer = refusal_score()
    fit = _fit(network, site, num_fitted, seed)
    random = random_twin(fit, seed)
    there = moved(fit.site, position)
    test = {name: _requests("test", derive(seed, "test"), num_tested, name) for name in CLASSES}
    prompts = {name: [one.prompt for one in some] for name, some in test.items()}
    grouped: dict[str, Any] = {
        "clusters": {name: [one.template for one in some] for name, some in test.items()},
        "units": {name: [f"{one.intent} {one.item}" for one in some] for name, some in test.items()},
    }
    unedited = {name: checked(scorer, network, some) for name, some in prompts.items()}
    asked = {
        **{name: (method, fit, LEVELS) for name, method in CURVES.items()},
        RANDOM: ("ace", random, LEVELS),
        RANDOM_ADD: ("add", random, LEVELS),
        "ablate": ("ablate", fit, (0.0,)),
        "LEACE": ("erase", fit, (0.0,)),
    }
    found = {
        name: measure_response(
            network,
            partial(_placed, method, direction, there),
            prompts,
            scorer,
            name=name,
            score_name="share refused",
            alphas=levels,
            unedited=unedited,
            **grouped,
        )
        for name, (method, direction, levels) in asked.items()
    }
    found[PROMPT] = _of_views(
        PROMPT,
        {level: partial(instructed(scorer, text), network) for level, text in INSTRUCTIONS.items()},
        prompts,
        unedited,
        grouped,
    )
    reach = measure_reach(network, prompts["allowed"], prompts["forbidden"], site, scorer, max_pairs=num_pairs)
    return {
        "responses": {name: one.to_plain() for name, one in found.items()},
        "fit": {
            name: cell.value if isinstance(cell, Estimate) else cell
            for name, cell in fit.diagnostics[0].to_row().items()
        },
        "flags": list(fit.flags),
        "reach": None if reach.flipped is None else reach.flipped.value,
    }


def cost_member(
    *,
    model: str,
    site: str,
    position: str | None,
    num_fitted: int,
    num_tested: int,
    num_rows: int,
    num_sentences: int,
    num_steps: int,
    seed: int,
) -> dict[str, Any]:
    """What edits at all positions do to ordinary text and to grammar; and the trained edit, which is slow."""
    network, scorer = load(model), refusal_score()
    fit = _fit(network, site, num_fitted, seed)
    random = random_twin(fit, seed)
    everywhere = moved(fit.site, "all")
    # The typical negative *last* token is not the typical token: the same direction about the mean of all of them.
    about_all = _about_all_tokens(network, fit, num_fitted, seed)
    rows, modules = prose_rows(network, "test")
    chosen = numpy.sort(numpy_generator(seed, "prose rows").permutation(len(rows))[:num_rows])
    prose: dict[str, Any] = {"modules": [modules[row] for row in chosen], "rows": chosen.tolist(), "losses": {}}
    grammar: dict[str, Any] = {"right": {}}
    for name, condition in CONDITIONS.items():
        view = network
        if condition is not None:
            method, level, is_random = condition
            direction = random if is_random else about_all if name == ALL_TOKENS else fit
            view = network.with_edits(*_placed(method, direction, everywhere, level))
        prose["losses"][name] = row_losses(view, rows[chosen]).tolist()
        judged = judge_agreement(view, split="test", seed=derive(seed, "grammar"), count=num_sentences)
        grammar["right"][name] = [right for one in judged for right in one.correct]
        grammar["templates"] = [template for one in judged for template in one.templates]
        grammar["units"] = [unit for one in judged for unit in one.units]
    there = moved(fit.site, position)
    prompts = {name: _prompts("test", derive(seed, "test"), num_tested, name) for name in CLASSES}
    fitted = [
        prompt
        for pair in zip(*(_prompts("train", derive(seed, "fit"), num_fitted, name) for name in CLASSES), strict=True)
        for prompt in pair
    ]
    unedited = {name: checked(scorer, network, some) for name, some in prompts.items()}
    words = (requests.ANSWER_STARTERS, requests.REFUSAL_STARTERS)
    views = {}
    for level in ENDS:
        loss = next_word_loss(network, *(words if level == 0 else words[::-1]))
        trained = train_edit(network, fitted, there, loss, num_steps=num_steps, batch_size=12, seed=seed)
        views[level] = partial(scorer, network.with_edits(trained.edit.at(there)))
    response = _of_views(RANK_ONE, views, prompts, unedited, {})
    return {"prose": prose, "grammar": grammar, "trained": response.to_plain()}


def _placed(method: str, fit: ConceptFit, site: Site, alpha: float) -> list[PlacedEdit]:
    return [edit_of(method, fit, alpha).at(site)]


def _fit(network: Network, site: str, num_fitted: int, seed: int) -> ConceptFit:
    allowed, forbidden = (_prompts("train", derive(seed, "fit"), num_fitted, name) for name in reversed(CLASSES))
    held_out = [_prompts("validation", derive(seed, "held out"), num_fitted, name) for name in reversed(CLASSES)]
    return fit_concept(network, allowed, forbidden, site, held_out=(held_out[0], held_out[1]), seed=seed)


def _about_all_tokens(network: Network, fit: ConceptFit, num_fitted: int, seed: int) -> ConceptFit:
    prompts = _prompts("train", derive(seed, "fit"), num_fitted, "allowed")
    bare = Site(kind=fit.site.kind, pattern=fit.site.pattern, port=fit.site.port)
    negative = reduce(Moments.with_rows, recorded_rows(network, prompts, bare), Moments.zero(fit.width))
    positive = replace(fit.positives[0], mean=negative.mean + fit.directions[:, 0])
    return replace(fit, negative=negative, positives=(positive,), diagnostics=(), flags=())


def _requests(split: Split, seed: int, count: int, topic_class: str) -> list[requests.Request]:
    found = requests.examples(split, seed, count, topic_class=topic_class, held_out="templates")  # type: ignore[arg-type]
    return list({one.prompt: one for one in found}.values())


def _prompts(split: Split, seed: int, count: int, topic_class: str) -> list[str]:
    # As many of both classes, however often a draw repeats itself.
    return [one.prompt for one in _requests(split, seed, 2 * count, topic_class)][:count]


def _of_views(
    name: str,
    views: Mapping[float, Any],
    prompts: Mapping[str, Sequence[str]],
    unedited: Mapping[str, Any],
    grouped: Mapping[str, Any],
) -> ResponseMeasurement:
    """Something that has the levels 0 and 1 only, as a response."""
    classes = {}
    for key, some in prompts.items():
        scores = [numpy.asarray(views[level](some), dtype=numpy.float64) for level in ENDS]
        own = tuple(range(len(some)))
        classes[key] = ClassScores(
            edited=numpy.stack(scores),
            unedited=numpy.asarray(unedited[key], dtype=numpy.float64),
            clusters=tuple(grouped.get("clusters", {}).get(key, own)),
            units=tuple(grouped.get("units", {}).get(key, own)),
        )
    return ResponseMeasurement(name=name, score_name="share refused", alphas=ENDS, classes=classes, is_share=True)

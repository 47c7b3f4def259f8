"""One draw of requests to a language model: every edit beside two baselines, and beside what chance would give."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.edit import Affine, Edit, PlacedEdit
from tremorscope.instruments.load import load
from tremorscope.instruments.microworld import requests
from tremorscope.instruments.microworld.splits import Split
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import untrained
from tremorscope.instruments.site import Site
from tremorscope.methods.activations.concept_editing.affine_edits import edit_of
from tremorscope.methods.activations.concept_editing.baselines import instructed, next_word_loss, train_edit
from tremorscope.methods.activations.concept_editing.direction import ConceptFit
from tremorscope.methods.activations.concept_editing.fitting import fit_concept, moved
from tremorscope.methods.activations.concept_editing.random_twin import random_edit, random_twin
from tremorscope.methods.activations.concept_editing.reach import measure_reach
from tremorscope.methods.activations.concept_editing.response_curve import (
    ClassScores,
    ResponseMeasurement,
    measure_response,
)
from tremorscope.methods.activations.concept_editing.scorers import Scorer, checked, is_above, token_log_odds
from tremorscope.methods.activations.concept_editing.site_selection import select_site
from tremorscope.methods.activations.concept_editing.swept_response import single_tokens, sweep_responses

CLASSES = ("forbidden", "allowed")
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
ENDS = (0.0, 1.0)
CURVES = {"ACE": "ace", "oblique": "oblique", "CAA": "add", "ablate, then add r": "ablate then add"}
ABLATE, LEACE = "ablate", "LEACE"
PROMPT, OTHER_PROMPT = "instruction in the prompt", "instruction about something else"
RANK_ONE, RANDOM_RANK_ONE = "trained rank-1 edit", "random rank-1 edit of the same norms"
INSTRUCTIONS = {0.0: "The helper answers every question.\n", 1.0: "The helper refuses every question.\n"}
OTHER_INSTRUCTIONS = {0.0: "The helper lives near the market.\n", 1.0: "The helper lives near the bridge.\n"}
MISSING = "missing"


def along_random(name: str) -> str:
    """What the same edit along a random direction of the length of r is called."""
    return f"{name} along a random direction"


def refusal_score() -> Scorer:
    """Whether the helper begins to refuse: first words of refusals together are likelier than those of answers."""
    return is_above(token_log_odds(requests.REFUSAL_STARTERS, requests.ANSWER_STARTERS))


def chosen_site(*, model: str, sites: Sequence[str], num_fitted: int, num_validated: int, seed: int) -> dict[str, Any]:
    """The site and the position of the edit whose refusals come nearest to 0 at alpha 0 and 1 at alpha 1.

    On validation requests (wordings that training and the test do not have), for ACE; every method is then used there.
    """
    network = load(model)
    allowed, forbidden = (requests_to_fit(num_fitted, seed, name) for name in reversed(CLASSES))
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
    *,
    model: str,
    site: str,
    position: str | None,
    num_fitted: int,
    num_tested: int,
    num_pairs: int,
    num_steps: int,
    seed: int,
) -> dict[str, Any]:
    """One draw of requests: fitted on some, judged on others in wordings that training has not; every edit."""
    network, scorer = load(model), refusal_score()
    draw = Draw.of(num_tested, seed)
    fit = fitted(network, site, num_fitted, seed)
    found = _measured(network, fit, position, draw, num_fitted=num_fitted, num_steps=num_steps, seed=seed, nulls=True)
    unedited = {name: checked(scorer, network, some) for name, some in draw.prompts.items()}
    found |= {
        name: _prompted(name, network, told, draw, unedited)
        for name, told in ((PROMPT, INSTRUCTIONS), (OTHER_PROMPT, OTHER_INSTRUCTIONS))
    }
    reach = measure_reach(
        network, draw.prompts["allowed"], draw.prompts["forbidden"], site, scorer, max_pairs=num_pairs
    )
    return {
        "responses": {name: one.to_plain() for name, one in found.items()},
        "fit": {
            name: cell.value if isinstance(cell, Estimate) else cell
            for name, cell in fit.diagnostics[0].to_row().items()
        },
        "flags": list(fit.flags),
        "reach": None if reach.flipped is None else reach.flipped.value,
    }


def untrained_member(
    *, model: str, site: str, position: str | None, num_fitted: int, num_tested: int, num_steps: int, seed: int
) -> dict[str, Any]:
    """The same draw of requests to the network before training: fitted, edited and judged in the same way.

    `missing` says why, where the network has no twin, or nothing can be fitted to it.
    """
    draw = Draw.of(num_tested, seed)
    try:
        network = untrained(load(model))
        fit = fitted(network, site, num_fitted, seed)
    except BadInput as error:
        return {MISSING: str(error), "responses": {}}
    found = _measured(network, fit, position, draw, num_fitted=num_fitted, num_steps=num_steps, seed=seed, nulls=False)
    unedited = {name: checked(refusal_score(), network, some) for name, some in draw.prompts.items()}
    found[PROMPT] = _prompted(PROMPT, network, INSTRUCTIONS, draw, unedited)
    return {MISSING: None, "responses": {name: one.to_plain() for name, one in found.items()}}


@final
@dataclass(frozen=True, kw_only=True)
class Draw:
    """Held-out requests of both classes, and what they share."""

    prompts: Mapping[str, Sequence[str]]
    clusters: Mapping[str, Sequence[str]]
    units: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, count: int, seed: int) -> Draw:
        """Of wordings that training has not."""
        test = {name: _requests("test", derive(seed, "test"), count, name) for name in CLASSES}
        return cls(
            prompts={name: [one.prompt for one in some] for name, some in test.items()},
            clusters={name: [one.template for one in some] for name, some in test.items()},
            units={name: [f"{one.intent} {one.item}" for one in some] for name, some in test.items()},
        )


def _measured(
    network: Network,
    fit: ConceptFit,
    position: str | None,
    draw: Draw,
    *,
    num_fitted: int,
    num_steps: int,
    seed: int,
    nulls: bool,
) -> dict[str, ResponseMeasurement]:
    """Every edit at each of its levels; with `nulls`, along random directions as well."""
    there, random = moved(fit.site, position), random_twin(fit, seed)
    edits: dict[str, tuple[Callable[[float], Edit], Sequence[float]]] = {
        name: (partial(edit_of, method, fit), LEVELS) for name, method in CURVES.items()
    }
    edits |= {ABLATE: (partial(edit_of, "ablate", fit), (0.0,)), LEACE: (partial(edit_of, "erase", fit), (0.0,))}
    trained = {level: _trained(network, there, level, num_fitted, num_steps, seed) for level in ENDS}
    edits[RANK_ONE] = (trained.__getitem__, ENDS)
    if nulls:
        edits |= {along_random(name): (partial(edit_of, method, random), LEVELS) for name, method in CURVES.items()}
        edits[along_random(ABLATE)] = (partial(edit_of, "ablate", random), (0.0,))
        drawn = {level: random_edit(edit, derive(seed, "random edit", f"{level:g}")) for level, edit in trained.items()}
        edits[RANDOM_RANK_ONE] = (drawn.__getitem__, ENDS)
    return responses(network, edits, there, draw.prompts, clusters=draw.clusters, units=draw.units)


def responses(
    network: Network,
    edits: Mapping[str, tuple[Callable[[float], Edit], Sequence[float]]],
    there: Site,
    prompts: Mapping[str, Sequence[str]],
    *,
    clusters: Mapping[str, Sequence[Hashable]],
    units: Mapping[str, Sequence[Hashable]],
) -> dict[str, ResponseMeasurement]:
    """Shares refused under each edit at each level: swept where one position is edited, else by full passes."""
    every = [prompt for some in prompts.values() for prompt in some]
    words = (requests.REFUSAL_STARTERS, requests.ANSWER_STARTERS)
    shared: dict[str, Any] = {"clusters": clusters, "units": units, "score_name": "share refused"}
    if str(there.position) == "last" and all(single_tokens(network, every, some) is not None for some in words):
        return sweep_responses(network, edits, prompts, there, these=words[0], others=words[1], **shared)
    scorer = refusal_score()
    unedited = {name: checked(scorer, network, some) for name, some in prompts.items()}
    return {
        name: measure_response(
            network,
            partial(_placed, edit, there),
            prompts,
            scorer,
            name=name,
            alphas=levels,
            unedited=unedited,
            **shared,
        )
        for name, (edit, levels) in edits.items()
    }


def _placed(edit: Callable[[float], Edit], there: Site, alpha: float) -> list[PlacedEdit]:
    return [edit(alpha).at(there)]


def _trained(network: Network, there: Site, level: float, num_fitted: int, num_steps: int, seed: int) -> Affine:
    """The rank-1 edit with which the fitted requests are all answered (0) or all refused (1)."""
    prompts = [
        prompt
        for pair in zip(*(requests_to_fit(num_fitted, seed, name) for name in CLASSES), strict=True)
        for prompt in pair
    ]
    words = (requests.ANSWER_STARTERS, requests.REFUSAL_STARTERS)
    loss = next_word_loss(network, *(words if level == 0 else words[::-1]))
    return train_edit(network, prompts, there, loss, num_steps=num_steps, batch_size=12, seed=seed).edit


def _prompted(
    name: str, network: Network, told: Mapping[float, str], draw: Draw, unedited: Mapping[str, Any]
) -> ResponseMeasurement:
    """An instruction before the prompt, which has the levels 0 and 1 only, as a response."""
    scorers = [instructed(refusal_score(), told[level]) for level in ENDS]
    classes = {
        key: ClassScores(
            edited=numpy.stack([numpy.asarray(one(network, some), dtype=numpy.float64) for one in scorers]),
            unedited=numpy.asarray(unedited[key], dtype=numpy.float64),
            clusters=tuple(draw.clusters[key]),
            units=tuple(draw.units[key]),
        )
        for key, some in draw.prompts.items()
    }
    return ResponseMeasurement(name=name, score_name="share refused", alphas=ENDS, classes=classes, is_share=True)


def fitted(network: Network, site: str, num_fitted: int, seed: int) -> ConceptFit:
    """The direction from allowed to forbidden requests of training, its AUC on validation requests."""
    allowed, forbidden = (requests_to_fit(num_fitted, seed, name) for name in reversed(CLASSES))
    held_out = [_prompts("validation", derive(seed, "held out"), num_fitted, name) for name in reversed(CLASSES)]
    return fit_concept(network, allowed, forbidden, site, held_out=(held_out[0], held_out[1]), seed=seed)


def requests_to_fit(num_fitted: int, seed: int, topic_class: str) -> list[str]:
    """Requests of training, of one class."""
    return _prompts("train", derive(seed, "fit"), num_fitted, topic_class)


def _requests(split: Split, seed: int, count: int, topic_class: str) -> list[requests.Request]:
    found = requests.examples(split, seed, count, topic_class=topic_class, held_out="templates")  # type: ignore[arg-type]
    return list({one.prompt: one for one in found}.values())


def _prompts(split: Split, seed: int, count: int, topic_class: str) -> list[str]:
    # As many of both classes, however often a draw repeats itself.
    return [one.prompt for one in _requests(split, seed, 2 * count, topic_class)][:count]

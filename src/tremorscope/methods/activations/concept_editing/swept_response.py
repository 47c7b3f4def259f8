"""The curves of many edits at one place from one preparation: what an edit leaves as it was is not computed again."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.sweeps import prepare_sweep
from tremorscope.instruments.edit import Edit
from tremorscope.instruments.language.encode import encode, token_rows
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.methods.activations.concept_editing.examples import check_examples
from tremorscope.methods.activations.concept_editing.response_curve import ClassScores, ResponseMeasurement


def sweep_responses(
    network: Network,
    edits: Mapping[str, tuple[Callable[[float], Edit], Sequence[float]]],
    classes: Mapping[str, Sequence[str]],
    site: str | Site,
    *,
    these: Sequence[str],
    others: Sequence[str],
    clusters: Mapping[str, Sequence[Hashable]] | None = None,
    units: Mapping[str, Sequence[Hashable]] | None = None,
    score_name: str = "share",
    seed: int = 0,
) -> dict[str, ResponseMeasurement]:
    """Whether texts go on with one of `these` rather than of `others`, under several edits at every alpha.

    What `measure_response` gives with `is_above(token_log_odds(these, others))`, but for rounding: thirty times as many
    edits a second at the last token of prompts of 25 tokens.

    Args:
        network: A language model with a tokenizer.
        edits: By name, the edit of an alpha (not placed yet) and the alphas, rising.
        classes: Prompts by class.
        site: Where the edits are made, with one position: `acts:resid_post.0@last`.
        these: Continuations of a single token.
        others: Those they are set against.
        clusters: For each class what its prompts share (wordings); each by itself otherwise.
        units: Likewise a second grouping.
        score_name: What is measured, for axes.
        seed: Of the bootstrap.

    Cost: a few passes over the prompts, then for each edit and alpha what lies above the site, at the positions from
    the edit to the last token; see `prepare_sweep` for networks of which everything has to be computed.

    Raises:
        BadInput: If there is no edit, alpha or prompt, a continuation is not a single token, or as `prepare_sweep`.
    """
    if not edits or not classes:
        raise BadInput("edits and classes", got=f"{len(edits)} and {len(classes)}", wanted="at least one of each")
    for key, some in classes.items():
        check_examples(f"inputs of class {key!r}", some)
    for name, (_, alphas) in edits.items():
        if not len(alphas) or not all(map(math.isfinite, alphas)):
            raise BadInput(f"alphas of {name}", got=tuple(alphas), wanted="finite numbers, at least one")
    prompts = [prompt for some in classes.values() for prompt in some]
    chosen = []
    for words in (these, others):
        tokens = single_tokens(network, prompts, words)
        if tokens is None:
            raise BadInput(
                f"continuations {', '.join(map(repr, words))}",
                got="one of several tokens, or of other ones behind other prompts",
                wanted="a single token each",
                remedy="Use measure_response with token_log_odds, which takes longer words.",
            )
        chosen.append(tokens)
    sweep = prepare_sweep(network, encode(network, prompts), site, readouts=("kl",))

    def decided(points: Tensor) -> Tensor:
        # As many points of each prompt, prompts in turn.
        rows = torch.arange(len(points)) % len(prompts)
        with torch.no_grad():
            logits = sweep.outputs(points, rows).logits
        if logits is None:
            raise BadInput(f"output of {network.name!r}", got="no logits", wanted="those of a language model")
        above, below = (logits[:, one.to(logits.device)].double().logsumexp(1) for one in chosen)
        return (above > below).double().reshape(-1, len(prompts)).cpu()

    before = decided(sweep.base)[0]
    found = {}
    for name, (edit, alphas) in edits.items():
        shares = decided(torch.cat([edit(float(alpha)).apply(sweep.base) for alpha in alphas]))
        found[name] = ResponseMeasurement(
            name=name,
            score_name=score_name,
            alphas=tuple(map(float, alphas)),
            classes=_by_class(classes, shares, before, clusters or {}, units or {}),
            is_share=True,
            seed=seed,
        )
    return found


def single_tokens(network: Network, prompts: Sequence[str], words: Sequence[str]) -> Tensor | None:
    """The token that each word is behind every one of the prompts; None where one is several, or joined with a prompt.

    Raises:
        BadInput: If there is no word.
    """
    if not words:
        raise BadInput("continuations to score", got="none", wanted="at least one on each side")
    known = token_rows(network, prompts)
    found = []
    for word in words:
        rows = token_rows(network, [prompt + word for prompt in prompts])
        tokens = {row[-1] for row in rows}
        if len(tokens) != 1 or any(row[:-1] != before for row, before in zip(rows, known, strict=True)):
            return None
        found.append(tokens.pop())
    return torch.tensor(found)


def _by_class(
    classes: Mapping[str, Sequence[str]],
    shares: Tensor,
    before: Tensor,
    clusters: Mapping[str, Sequence[Hashable]],
    units: Mapping[str, Sequence[Hashable]],
) -> dict[str, ClassScores]:
    found, start = {}, 0
    for key, some in classes.items():
        own, end = tuple(range(len(some))), start + len(some)
        found[key] = ClassScores(
            edited=shares[:, start:end].numpy(),
            unedited=before[start:end].numpy(),
            clusters=tuple(clusters.get(key, own)),
            units=tuple(units.get(key, own)),
        )
        start = end
    return found

"""A concept's direction: fitted, edited by, and its effects measured; on any network, in a run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result, drawn
from tremorscope.foundations.run import Run
from tremorscope.instruments.edit import PlacedEdit
from tremorscope.instruments.language.generation import generate
from tremorscope.instruments.load import load
from tremorscope.instruments.network import Network
from tremorscope.instruments.recording import recorded
from tremorscope.methods.activations.concept_editing.affine_edits import WITHOUT_ALPHA, edit_of
from tremorscope.methods.activations.concept_editing.direction import ConceptFit
from tremorscope.methods.activations.concept_editing.direction_file import load_direction, save_direction
from tremorscope.methods.activations.concept_editing.examples import Examples
from tremorscope.methods.activations.concept_editing.fitting import fit_concept, moved
from tremorscope.methods.activations.concept_editing.random_twin import random_twin
from tremorscope.methods.activations.concept_editing.response_curve import ALPHAS, measure_response
from tremorscope.methods.activations.concept_editing.scorers import (
    Scorer,
    decides,
    is_above,
    matches,
    token_log_odds,
)

DIRECTION = "direction.safetensors"


def fit_direction(
    model: str | Path | Network,
    *,
    negative: Path,
    positive: Path,
    site: str,
    held_out: tuple[Path, Path] | None = None,
    to: Path | None = None,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    out: Path | None = None,
    resume: Path | None = None,
) -> tuple[Result, Path]:
    """Fit the direction between two files of examples; what `tremorscope steer fit` does.

    The run directory holds it (`direction.safetensors` with its description), and `to` gets a copy.

    Args:
        model: What `load` takes.
        negative: Examples without the behaviour; see `read_examples`.
        positive: Examples with it.
        site: Where, such as `acts:resid_post.2@last`.
        held_out: Other negatives and positives, for the AUC.
        to: Another place for the direction.
        seed: Names the random halvings.
        device: Where to compute.
        dtype: `"float32"` or `"float64"`.
        out: Folder of runs.
        resume: Take up this interrupted run, which begins anew.

    Raises:
        BadInput: If a file cannot be read, or as `fit_concept`.
    """
    examples = [read_examples(path) for path in (negative, positive, *(held_out or ()))]
    network = load(model, device=device, dtype=dtype)
    request = {
        "verb": "steer fit",
        "model": None if isinstance(model, Network) else str(model),
        "negative": str(negative),
        "positive": str(positive),
        "site": site,
        "held-out-negative": None if held_out is None else str(held_out[0]),
        "held-out-positive": None if held_out is None else str(held_out[1]),
        "to": None if to is None else str(to),
        "seed": seed,
        "device": device,
        "dtype": dtype,
    }

    def compute(run: Run) -> Result:
        others = (examples[2], examples[3]) if held_out is not None else None
        fit = fit_concept(network, examples[0], examples[1], site, held_out=others, seed=seed)
        for path in (run.path / DIRECTION, *(() if to is None else (to,))):
            save_direction(fit, path, model=network.name)
        told = fit.diagnostics[0]
        return Result(
            study=f"steer {network.name}",
            preset="steer fit",
            seed=seed,
            config={key: value for key, value in request.items() if key not in ("verb", "seed")},
            title=f"A direction at {site}",
            summary=[
                f"From {told.num_negative} negative and {told.num_positive} positive examples: |r| {told.norm:.4g}, "
                f"bias ratio {told.bias_ratio:.3g}, split-half cosine {told.split_half}, AUC on held-out examples "
                f"{told.auc if told.auc is not None else 'not measured'}."
            ],
            tables=fit.tables(),
            flags=list(fit.flags),
        )

    return recorded(f"steer-fit-{network.name}", request, compute, out=out, resume=resume)


def measure_curve(
    model: str | Path | Network,
    *,
    direction: Path,
    classes: Mapping[str, Path],
    these: Sequence[str] = (),
    others: Sequence[str] = (),
    pattern: str | None = None,
    label: int | None = None,
    share: bool = False,
    method: str = "ace",
    alphas: Sequence[float] = ALPHAS,
    position: str | None = None,
    target: float | None = None,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    out: Path | None = None,
    resume: Path | None = None,
) -> tuple[Result, Path]:
    """Score against alpha for each class of inputs, beside a random direction; what `tremorscope steer curve` does.

    One score is asked for: log-odds of the words `these` (against `others`, or all else), a regular expression on what
    is written, or the label of a classifier.

    Args:
        model: What `load` takes.
        direction: A file that `fit_direction` wrote.
        classes: Files of inputs by class.
        these: Words to go on with.
        others: Words to set against them.
        pattern: A regular expression.
        label: A class of a classifier.
        share: Share of inputs with log-odds above 0 in place of their mean.
        method: A name of `affine_edits.METHODS`.
        alphas: Levels, rising.
        position: Where the edit is made, if not where it was fitted: `all`, `last` ...
        target: A mean score to find the alpha of.
        seed: Of the bootstrap and the random direction.
        device: Where to compute.
        dtype: `"float32"` or `"float64"`.
        out: Folder of runs.
        resume: Take up this interrupted run, which begins anew.

    Raises:
        BadInput: If a file cannot be read, no score or several are asked for, or as `measure_response`.
    """
    if method in WITHOUT_ALPHA:
        raise BadInput("method of a curve", got=method, wanted="one with a level: add, ablate then add, ace, oblique")
    scorer, called = _scorer(these, others, pattern, label, share)
    inputs = {name: read_examples(path) for name, path in classes.items()}
    network = load(model, device=device, dtype=dtype)
    fit = load_direction(direction, network=network)
    there = moved(fit.site, position)
    request = {
        "verb": "steer curve",
        "model": None if isinstance(model, Network) else str(model),
        "direction": str(direction),
        "inputs": [f"{name}={path}" for name, path in classes.items()],
        "these": list(these),
        "others": list(others),
        "pattern": pattern,
        "label": label,
        "share": share or None,
        "method": method,
        "alpha": [float(alpha) for alpha in alphas],
        "position": position,
        "target": target,
        "seed": seed,
        "device": device,
        "dtype": dtype,
    }

    def compute(run: Run) -> Result:
        found = [
            measure_response(
                network,
                lambda alpha, direction=one: [edit_of(method, direction, alpha).at(there)],  # type: ignore[misc]
                inputs,
                scorer,
                name=name,
                score_name=called,
                alphas=alphas,
                seed=seed,
            )
            for name, one in ((method, fit), (f"{method}, random direction", random_twin(fit, seed)))
        ]
        summary = [
            f"{name}: {called} {found[0].unedited(name)} without the edit; "
            + ", ".join(f"{found[0].level(name, alpha)} at {alpha:g}" for alpha in found[0].alphas)
            + "."
            for name in inputs
        ]
        if target is not None:
            summary.append(f"All classes together meet {target:g} at alpha {found[0].solve(target)}.")
        return Result(
            study=f"steer {network.name}",
            preset="steer curve",
            seed=seed,
            config={key: value for key, value in request.items() if key not in ("verb", "seed")},
            title=f"{called} under {method} at {there}",
            summary=summary,
            tables=[table for one in found for table in one.tables()],
            figures=[drawn(figure) for one in found for figure in one.figures()],
            flags=list(fit.flags),
        )

    return recorded(f"steer-curve-{network.name}", request, compute, out=out, resume=resume)


def resumed_steering(model: str, request: Mapping[str, Any], path: Path) -> tuple[Result, Path]:
    """Take up an interrupted `steer fit` or `steer curve` from its request.

    Raises:
        BadInput: If the run cannot be taken up, or as the two.
    """
    options: dict[str, Any] = {key: request[key] for key in ("seed", "device", "dtype")} | {"resume": path}
    if request["verb"] == "steer fit":
        held_out = (request["held-out-negative"], request["held-out-positive"])
        return fit_direction(
            model,
            negative=Path(request["negative"]),
            positive=Path(request["positive"]),
            site=request["site"],
            held_out=None if None in held_out else (Path(held_out[0]), Path(held_out[1])),
            to=None if request["to"] is None else Path(request["to"]),
            **options,
        )
    named = (given.partition("=") for given in request["inputs"])
    return measure_curve(
        model,
        direction=Path(request["direction"]),
        classes={name: Path(file) for name, _, file in named},
        share=bool(request["share"]),
        alphas=request["alpha"],
        **{key: request[key] for key in ("these", "others", "pattern", "label", "method", "position", "target")},
        **options,
    )


def write_edited(
    model: str | Path | Network,
    prompts: Sequence[str],
    *,
    direction: Path,
    method: str = "ace",
    alpha: float = 0.0,
    position: str | None = "all",
    max_new_tokens: int = 30,
    temperature: float = 0.0,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
) -> list[tuple[str, str]]:
    """What the network writes after each prompt, without the edit and with it.

    Raises:
        BadInput: If the direction does not fit the network, or as `generate`.
    """
    network = load(model, device=device, dtype=dtype)
    edited = network.with_edits(_placed(network, direction, method, alpha, position))
    written = [
        generate(view, prompts, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        for view in (network, edited)
    ]
    return list(zip(*written, strict=True))


def read_examples(path: Path) -> Examples:
    r"""Texts, one a line (`\n` in a line stands for a line break), or the array `inputs` of an .npz.

    Raises:
        BadInput: If the file is missing, empty or unreadable.
    """
    if not path.is_file():
        raise BadInput(f"examples {path}", got="no such file", wanted="a text file, or an .npz with inputs")
    if path.suffix == ".npz":
        try:
            with numpy.load(path, allow_pickle=False) as held:
                found: Tensor = torch.from_numpy(held["inputs"])
        except (KeyError, ValueError, OSError) as error:
            raise BadInput(f"examples {path}", got=str(error), wanted="an .npz with the array inputs") from None
        return found
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BadInput(f"examples {path}", got=str(error), wanted="UTF-8 text") from None
    texts = [line.replace("\\n", "\n") for line in lines if line.strip()]
    if not texts:
        raise BadInput(f"examples {path}", got="no line with text", wanted="one example a line")
    return texts


def _placed(network: Network, direction: Path, method: str, alpha: float, position: str | None) -> PlacedEdit:
    fit: ConceptFit = load_direction(direction, network=network)
    return edit_of(method, fit, alpha).at(moved(fit.site, position if network.tokenizer is not None else None))


def _scorer(
    these: Sequence[str], others: Sequence[str], pattern: str | None, label: int | None, share: bool
) -> tuple[Scorer, str]:
    asked = [name for name, given in (("these", these), ("pattern", pattern), ("label", label is not None)) if given]
    if len(asked) != 1:
        raise BadInput(
            "score",
            got=" and ".join(asked) or "none",
            wanted="one of: words (these), a regular expression (pattern), a class (label)",
        )
    if pattern is not None:
        return matches(pattern), f"share that writes {pattern!r}"
    if label is not None:
        return decides(label), f"share of class {label}"
    odds = token_log_odds(these, others or None)
    words = "/".join(word.strip() for word in these)
    return (is_above(odds), f"share that says {words}") if share else (odds, f"log-odds of {words} (nats)")

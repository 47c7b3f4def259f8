"""Ordinary texts to measure activations on, and untrained twins: what an examination of a prompt needs besides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from tremorscope.foundations.errors import BadInput, TremorscopeError
from tremorscope.foundations.seeds import derive
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import untrained
from tremorscope.methods.activations.sensitivity_map.measurement import Twin

MICROWORLD = "builtin:microworld"
LONGEST_TEXT = 300  # characters: about the 64 tokens that are looked at
NUM_TEXTS = 160

Texts = str | Path | Sequence[str]


def reference_texts(network: Network, data: Texts | None) -> tuple[list[str], str]:
    """Ordinary texts for this network, and what they are.

    The user's own; else held-out text of the microworld for the models that were trained on it; else the documentation
    of the Python standard library.

    Args:
        network: For its name.
        data: Texts, or a text file in which every line that is not empty is one.

    Raises:
        BadInput: If the file cannot be read or holds nothing, or this Python has no documentation.
    """
    if data is not None and not isinstance(data, str | Path):
        return _some(list(data), "the texts given"), f"{len(data)} texts given"
    if data is not None:
        return _some(_lines(Path(data)), str(data)), f"lines of {Path(data).name}"
    if _is_microworld(network):
        return _microworld_texts(), "held-out text of the microworld"
    from tremorscope.instruments.microworld import prose  # some seconds to read

    pieces = [piece.text for piece in prose.examples("test")]
    return _some(pieces, "documentation"), "documentation of the Python standard library"


def untrained_twins(network: Network, count: int, seed: int) -> tuple[list[Twin], str | None]:
    """Functions that make untrained networks of the same shape, and why there are none where that is so.

    Those of the microworld have its own initial weights, the first of them as `builtin:microworld@init`; others are
    initialised by their layers or by transformers.
    """
    if _is_microworld(network) and not network.name.endswith("recurrent"):
        return [_microworld_twin(network, place) for place in range(count)], None
    twins = [_twin(network, derive(seed, "twin", place)) for place in range(count)]
    try:
        twins[0]()
    except TremorscopeError as error:
        return [], f"no untrained twin could be built, so cells are compared with isotropic directions alone: {error}"
    return twins, None


def _twin(network: Network, seed: int) -> Twin:
    return lambda: untrained(network, seed=seed)


def _microworld_twin(network: Network, place: int) -> Twin:
    def make() -> Network:
        from tremorscope.instruments.microworld.models import initial_module
        from tremorscope.instruments.microworld.recipes import recipe_of

        recipe = recipe_of("init")
        recipe = recipe.model_copy(update={"init_seed": recipe.init_seed + place})
        module = initial_module(recipe, len(network.tokenizer))
        name = f"{MICROWORLD}@init" + (f", seed {recipe.init_seed}" if place else "")
        return Network(module, tokenizer=network.tokenizer, name=name, dtype=network.dtype, device=network.device)

    return make


def _is_microworld(network: Network) -> bool:
    return network.name == MICROWORLD or network.name.startswith(f"{MICROWORLD}@")


def _microworld_texts() -> list[str]:
    from tremorscope.instruments.microworld.corpus import documents
    from tremorscope.instruments.microworld.recipes import recipe_of

    corpus = recipe_of("").corpus
    # Prose takes seconds to gather, and is a small part.
    weights = {strand: weight for strand, weight in corpus.weights.items() if strand != "prose"}
    small = replace(corpus, weights=weights, held_out_characters=40_000)
    return [one.text[:LONGEST_TEXT] for one in islice(documents(small, "test"), NUM_TEXTS)]


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput(
            f"texts in {str(path)!r}", got=reason, wanted="a text file in UTF-8, one text in each line"
        ) from None


def _some(texts: Sequence[str], what: str) -> list[str]:
    kept = [text[:LONGEST_TEXT] for text in texts if text.strip()]
    if not kept:
        raise BadInput(f"texts in {what}", got="none", wanted="at least one that is not empty")
    step = max(1, len(kept) // NUM_TEXTS)  # from all over the file
    return kept[::step][:NUM_TEXTS]

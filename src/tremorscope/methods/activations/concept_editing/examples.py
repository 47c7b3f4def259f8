"""Examples as texts or tensors, and batches of them that a network takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.language.encode import encode, takes, token_rows
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.instruments.task import Batch

Examples = Sequence[str] | Tensor
BATCH_SIZE = 64


def check_examples(what: str, examples: Examples) -> None:
    """Refuse an empty class, and one text in place of a list.

    Raises:
        BadInput: If there are none, or they are a single string.
    """
    if isinstance(examples, str):
        raise BadInput(what, got="a string", wanted="a list of texts, or a tensor", remedy="Write [text].")
    if len(examples) == 0:
        raise BadInput(what, got="none", wanted="at least one")


def batches(network: Network, examples: Examples, *, batch_size: int = BATCH_SIZE) -> Iterator[Batch]:
    """The examples in order, some at a time; texts are padded on the right.

    Recurrent models read padding like text, but only after the text: what comes before is not changed by it.

    Raises:
        BadInput: If there are none, or texts are given to a network without a tokenizer.
    """
    check_examples("examples", examples)
    if isinstance(examples, Tensor):
        for start in range(0, len(examples), batch_size):
            yield Batch((examples[start : start + batch_size].to(network.device),), {}, None)
        return
    at_least = 1 if takes(network, "position_ids") else 2
    for start in range(0, len(examples), batch_size):
        yield encode(network, examples[start : start + batch_size], at_least=at_least)


def recorded_rows(
    network: Network, examples: Examples, site: str | Site, *, batch_size: int = BATCH_SIZE
) -> Iterator[Float[Tensor, "rows d"]]:
    """Activations at a site, a batch at a time: one for each example, or for each token where the site has no position.

    Padding is left out.

    Raises:
        BadInput: As `Network.record`; if the site holds no vectors.
        SiteNotFound: If there is no such site.
    """
    for batch in batches(network, examples, batch_size=batch_size):
        with torch.no_grad():
            found = network.record(site, batch)
        if found.ndim == 3:
            mask = batch.kwargs.get("attention_mask")
            if mask is not None and mask.shape == found.shape[:2]:
                found = found[mask.bool()]
            else:
                found = found.reshape(-1, found.shape[-1])
        if found.ndim != 2 or not found.is_floating_point():
            raise BadInput(
                f"activations at {site}",
                got=f"shape {tuple(found.shape)} of {str(found.dtype).removeprefix('torch.')}",
                wanted="real vectors, one for each example",
                remedy="Add a position such as @last.",
            )
        yield found


def format_gap(network: Network, negatives: Examples, positives: Examples) -> str | None:
    """What tells classes apart beside content: lengths that hardly overlap, other first or last tokens; in words."""
    if isinstance(negatives, Tensor) or isinstance(positives, Tensor):
        return None
    from tremorscope.methods.activations.concept_editing.diagnostics import auc

    below, above = token_rows(network, negatives), token_rows(network, positives)
    lengths = [list(map(len, rows)) for rows in (below, above)]
    told = auc(*lengths).value
    if max(told, 1 - told) > 0.9:
        means = [sum(some) / len(some) for some in lengths]
        return f"negative texts have {means[0]:.3g} tokens on average and positive ones {means[1]:.3g}"
    for place, called in ((0, "first"), (-1, "last")):
        tokens = [{row[place] for row in rows} for rows in (below, above)]
        if not tokens[0] & tokens[1]:
            return f"no negative text has the {called} token of a positive one"
    return None

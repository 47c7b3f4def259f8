"""What a language model finds likely: next tokens, continuations, choices between them, and rows of tokens.

Continuations count as text that the model writes: where a view has edits of activations, their positions are those of
`generate`. `@generated` begins with the first token of the continuation (it is read to predict the second one, so the
first is predicted without), `@last` is the last token of the prompt, `@-1:` all from there on. So a continuation has
the probability with which `generate` would write it under the same edits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Literal, final, get_args

import numpy
import torch
from jaxtyping import Bool, Float, Integer, Shaped
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.language.encode import encode, last_positions, takes, token_rows
from tremorscope.instruments.language.text_edits import refuse_edits_of_rows, while_written
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

Pooling = Literal["mean", "last"]
BATCH_SIZE = 64
LARGEST_LOGITS = 1 << 25  # numbers held at once: 128 MB in float32, whatever the vocabulary


def next_token_logits(
    network: Network, prompts: Sequence[str], *, batch_size: int = BATCH_SIZE
) -> Float[Tensor, "prompts vocabulary"]:
    """What comes after each prompt: logits at its last token, in float32.

    Prompts of like length share a batch, padded on the right; the head is computed at their last tokens only, where the
    module can be asked for that (`logits_to_keep`). Results do not depend on the other prompts, but for rounding.

    Cost: one forward pass over all prompts; `4 * prompts * vocabulary` bytes for the result.

    Raises:
        BadInput: If there is no tokenizer or no prompt, a prompt is longer than the model's context, or the view has an
            edit at `@generated` (nothing is yet) or one for the rows of one batch.
    """
    for placed in network.edits:
        if placed.site.position == "generated":
            raise BadInput(
                str(placed),
                got="a plain forward pass over prompts",
                wanted="a text that is being written, for 'generated'",
                remedy="Use generate(...), score_options(...), or @-1: for the last token of the prompt and all later.",
            )
    return _next_token_logits(network, prompts, batch_size)


def _next_token_logits(
    network: Network, prompts: Sequence[str], batch_size: int
) -> Float[Tensor, "prompts vocabulary"]:
    refuse_edits_of_rows(network, "scores")
    found: Tensor | None = None
    lengths = list(map(len, token_rows(network, prompts)))
    for chosen in _batches(lengths, batch_size, _vocabulary(network), network):
        batch = _read(network, [prompts[index] for index in chosen])
        kept, place = torch.unique(last_positions(batch), return_inverse=True)
        logits = _logits(network, batch, kept, [lengths[index] for index in chosen])[
            torch.arange(len(chosen), device=place.device), place
        ].float()
        found = logits.new_empty(len(prompts), logits.shape[-1]) if found is None else found
        found[chosen] = logits
    return torch.empty(0, 0) if found is None else found


def continuation_log_probs(
    network: Network, prompts: Sequence[str], continuations: Sequence[str], *, batch_size: int = BATCH_SIZE
) -> Float[Tensor, " prompts"]:
    """Log-probability in nats of each continuation after its prompt, summed over its tokens, in float32.

    The tokens are those of prompt and continuation written as one text. Where the tokenizer joins the end of the prompt
    with the continuation, the sum begins at the first token that differs from those of the prompt alone.

    Cost: one forward pass over all texts.

    Raises:
        BadInput: If there are not as many of each, a continuation adds no token, nothing stands before it, or the view
            has an edit for the rows of one batch.
    """
    return _continued(network, prompts, continuations, batch_size)[0]


def says(
    network: Network, prompts: Sequence[str], continuations: Sequence[str], *, batch_size: int = BATCH_SIZE
) -> Bool[Tensor, " prompts"]:
    """Whether each continuation is what the model itself says next: every token of it is the likeliest of all.

    Equals a comparison with greedy generation, at the cost of one forward pass.

    Raises:
        BadInput: As `continuation_log_probs`.
    """
    return _continued(network, prompts, continuations, batch_size)[1]


@final
@dataclass(frozen=True, kw_only=True)
class OptionScores:
    """For each prompt and option: log-probability as a continuation in nats, and whether the model itself says it."""

    log_probs: Float[Tensor, "prompts options"]
    said: Bool[Tensor, "prompts options"]


def score_options(
    network: Network, prompts: Sequence[str], options: Sequence[Sequence[str]], *, batch_size: int = BATCH_SIZE
) -> OptionScores:
    """How likely each of a prompt's options is after it, alone and against all that could be said.

    Numbers are those of `continuation_log_probs` and `says`, in float32. An option whose tokens begin those of another
    is never less likely than it: compare words that are one token each, or that differ before they end.

    Cost: one forward pass over the prompts where every option is a single token; else one for each option.

    Raises:
        BadInput: If prompts have no or unequal numbers of options, or as `continuation_log_probs`.
    """
    sizes = {len(some) for some in options}
    if len(prompts) != len(options) or len(sizes) != 1 or 0 in sizes:
        raise BadInput(
            "options",
            got=f"{len(options)} lists, of {' or '.join(map(str, sorted(sizes))) or 0}, for {len(prompts)} prompts",
            wanted="a list for each prompt, all of one length",
        )
    singles = _single_tokens(network, prompts, options)
    if singles is not None:
        logits = _next_token_logits(network, prompts, batch_size)
        singles = singles.to(logits.device)
        told = logits.gather(1, singles) - logits.logsumexp(1, keepdim=True)
        return OptionScores(log_probs=told, said=logits.argmax(1)[:, None] == singles)
    shape = (len(prompts), sizes.pop())
    repeated = [prompt for prompt in prompts for _ in range(shape[1])]
    total, likeliest = _continued(network, repeated, list(chain.from_iterable(options)), batch_size)
    return OptionScores(log_probs=total.reshape(shape), said=likeliest.reshape(shape))


def row_losses(
    network: Network, rows: Shaped[numpy.ndarray, "rows length"], *, batch_size: int = BATCH_SIZE
) -> Float[Tensor, " rows"]:
    """Mean loss of each row of tokens in nats per token, each token given those before it in its row, in float32.

    Cost: one forward pass over all rows; logits are made for some rows at a time.

    Raises:
        BadInput: If there is no row, a row holds no pair of tokens, or an entry is no token number.
    """
    if 0 in rows.shape or rows.shape[1] < 2:
        raise BadInput("rows of tokens", got=f"shape {rows.shape}", wanted="at least one row of at least 2 tokens")
    if not numpy.issubdtype(rows.dtype, numpy.integer):
        raise BadInput("rows of tokens", got=str(rows.dtype), wanted="integers")
    length = rows.shape[1]
    size = max(1, min(batch_size, LARGEST_LOGITS // (length * _vocabulary(network))))
    losses = []
    for start in range(0, len(rows), size):
        tokens = torch.from_numpy(rows[start : start + size].astype(numpy.int64)).to(network.device)
        batch = Batch((), {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, None)
        with torch.no_grad():
            logits = network.apply(network.params, batch)[:, :-1]
        wanted = tokens[:, 1:, None]
        told = logits.float().logsumexp(-1) - logits.gather(2, wanted)[..., 0].float()
        losses.append(told.mean(1))
    return torch.cat(losses)


def hidden_states(
    network: Network, prompts: Sequence[str], layer: int, *, batch_size: int = BATCH_SIZE
) -> Float[Tensor, "prompts width"]:
    """Hidden states of one layer at the last token of each prompt, in float32.

    Args:
        network: A model whose output has `hidden_states` when called with `output_hidden_states=True`.
        prompts: Texts.
        layer: 0 is the embedding, 1 the state after the first block, -1 after the last (as transformers has it, where a
            final normalisation is often applied to the last one).
        batch_size: Prompts of a batch, at most.

    Cost: one forward pass over all prompts.

    Raises:
        BadInput: If the module gives no hidden states, or has no such layer.
    """
    states = all_hidden_states(network, prompts, batch_size=batch_size)
    if not -len(states) <= layer < len(states):
        raise BadInput("layer", got=layer, wanted=f"0 to {len(states) - 1}, or from the end -1 to -{len(states)}")
    return states[layer]


def all_hidden_states(
    network: Network, prompts: Sequence[str], *, pooling: Pooling = "last", batch_size: int = BATCH_SIZE
) -> tuple[Float[Tensor, "prompts _"], ...]:
    """Hidden states of every layer, in float32: at the last token of each prompt, or their mean over its tokens.

    Widths may differ between layers, as those of a recurrent model and its embedding do. See `hidden_states`.

    Raises:
        BadInput: If the module gives no hidden states, there is no such pooling, or the view has an edit for the rows
            of one batch.
    """
    return pooled_hidden_states(network, prompts, (pooling,), batch_size=batch_size)[pooling]


def pooled_hidden_states(
    network: Network, prompts: Sequence[str], poolings: Sequence[Pooling], *, batch_size: int = BATCH_SIZE
) -> dict[Pooling, tuple[Float[Tensor, "prompts _"], ...]]:
    """`all_hidden_states` for several poolings at the cost of one.

    Raises:
        BadInput: As `all_hidden_states`.
    """
    refuse_edits_of_rows(network, "hidden states")
    for pooling in poolings:
        if pooling not in get_args(Pooling):
            raise BadInput("pooling", got=pooling, wanted=" or ".join(get_args(Pooling)))
    found: dict[Pooling, list[Tensor]] = {}
    # The head is not asked for; where it has to be computed, then at one position.
    fewest = {"logits_to_keep": 1} if takes(network, "logits_to_keep") else {}
    for chosen in _batches(list(map(len, token_rows(network, prompts))), batch_size, 1, network):
        batch = _read(network, [prompts[index] for index in chosen])
        kwargs = {**batch.kwargs, **fewest, "output_hidden_states": True}
        try:
            with torch.no_grad():
                output = network.output(network.params, Batch(batch.args, kwargs, None))
        except TypeError as error:
            raise _no_hidden_states(network, str(error)) from None
        states = getattr(output, "hidden_states", None)
        if not states:
            raise _no_hidden_states(network, f"{type(output).__name__} without them")
        for pooling in poolings:
            wholes = found.setdefault(
                pooling, [state.new_empty(len(prompts), state.shape[-1], dtype=torch.float32) for state in states]
            )
            for whole, state in zip(wholes, states, strict=True):
                whole[chosen] = _pooled(state, batch, pooling)
    return {pooling: tuple(found[pooling]) for pooling in poolings}


def _pooled(state: Float[Tensor, "texts length d"], batch: Batch, pooling: Pooling) -> Float[Tensor, "texts d"]:
    """The last token's state, or the mean over all that are no padding."""
    if pooling == "last":
        return state[torch.arange(len(state), device=state.device), last_positions(batch)].float()
    is_read = batch.kwargs["attention_mask"].bool()[..., None]
    mean: Tensor = state.float().where(is_read, 0).sum(1) / is_read.sum(1)
    return mean


def _continued(
    network: Network, prompts: Sequence[str], continuations: Sequence[str], batch_size: int
) -> tuple[Float[Tensor, " prompts"], Bool[Tensor, " prompts"]]:
    """Summed log-probability of each continuation, and whether each of its tokens is the likeliest."""
    if len(prompts) != len(continuations) or not prompts:
        raise BadInput(
            "continuations", got=f"{len(continuations)} for {len(prompts)} prompts", wanted="one for each, at least one"
        )
    texts = [prompt + continuation for prompt, continuation in zip(prompts, continuations, strict=True)]
    tokens = token_rows(network, texts)
    starts = [_shared(*pair) for pair in zip(token_rows(network, prompts), tokens, strict=True)]
    for start, inside, prompt, continuation in zip(starts, tokens, prompts, continuations, strict=True):
        if not 0 < start < len(inside):
            raise BadInput(
                f"continuation {continuation!r} of {prompt!r}",
                got="no token before it" if start == 0 else "no token of its own",
                wanted="at least one of each",
                remedy="Give the prompt a word to begin with." if start == 0 else None,
            )
    refuse_edits_of_rows(network, "scores")
    total = torch.zeros(len(texts), device=network.device)
    likeliest = torch.ones(len(texts), dtype=torch.bool, device=network.device)
    widths = [len(inside) - start for inside, start in zip(tokens, starts, strict=True)]
    for chosen in _batches(list(map(len, tokens)), batch_size, _vocabulary(network), network, widths):
        batch = _read(network, [texts[index] for index in chosen])
        first = min(starts[index] for index in chosen) - 1
        kept = torch.arange(first, max(len(tokens[index]) for index in chosen) - 1, device=network.device)
        logits = _logits(network, batch, kept, [starts[index] for index in chosen])
        # One entry for each token to be told: its row, where its logits are, and its number.
        row = [place for place, index in enumerate(chosen) for _ in range(widths[index])]
        before = [at - 1 - first for index in chosen for at in range(starts[index], len(tokens[index]))]
        number = torch.tensor([one for index in chosen for one in tokens[index][starts[index] :]], device=logits.device)
        scores = logits[row, before].float()
        told = scores.gather(1, number[:, None])[:, 0] - scores.logsumexp(-1)
        owner = torch.tensor(chosen, device=logits.device)[row]
        total.index_add_(0, owner, told)
        likeliest[owner[scores.argmax(-1) != number]] = False
    return total, likeliest


def _single_tokens(
    network: Network, prompts: Sequence[str], options: Sequence[Sequence[str]]
) -> Integer[Tensor, "prompts options"] | None:
    """The token of each option, where each adds exactly one to those of its prompt; else None."""
    before = token_rows(network, prompts)
    columns = []
    for place in range(len(options[0])):
        after = token_rows(network, [prompt + some[place] for prompt, some in zip(prompts, options, strict=True)])
        if any(whole[:-1] != start for whole, start in zip(after, before, strict=True)):
            return None
        columns.append([whole[-1] for whole in after])
    return torch.tensor(columns).T


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts have in common at the start."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _batches(
    lengths: Sequence[int],
    batch_size: int,
    vocabulary: int,
    network: Network,
    widths: Sequence[int] | None = None,
) -> Iterator[list[int]]:
    """Places of texts by falling length, as many at a time as may be.

    `widths` are the positions of each text that need logits, one by default. The longest come first: a batch that is
    too large for the memory fails at once.
    """
    if batch_size < 1:
        raise BadInput("batch_size", got=batch_size, wanted="at least 1")
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    needed = widths if widths is not None else [1] * len(lengths)
    keeps = takes(network, "logits_to_keep")
    held: list[int] = []
    for index in order:
        longest = lengths[held[0] if held else index]
        span = max(needed[one] for one in [*held, index]) + longest - lengths[index]
        per_row = span if keeps else longest
        if held and (len(held) == batch_size or (len(held) + 1) * per_row * vocabulary > LARGEST_LOGITS):
            yield held
            held = []
        held.append(index)
    if held:
        yield held


def _logits(
    network: Network, batch: Batch, kept: Integer[Tensor, " kept"], prompt_lengths: Sequence[int]
) -> Float[Tensor, "rows kept vocabulary"]:
    """Logits at the positions `kept`, which all rows share; what comes after each prompt counts as being written."""
    window = while_written(network, batch, prompt_lengths)
    with torch.no_grad():
        if takes(network, "logits_to_keep"):
            asked = Batch(batch.args, {**batch.kwargs, "logits_to_keep": kept}, None)
            return network.apply(network.params, asked, window=window)
        return network.apply(network.params, batch, window=window)[:, kept]


def _read(network: Network, texts: Sequence[str]) -> Batch:
    """Never a single column for recurrent models: RWKV takes that for a step of one text (as of transformers 5.23)."""
    return encode(network, texts, at_least=1 if takes(network, "position_ids") else 2)


def _vocabulary(network: Network) -> int:
    """Size of the vocabulary, or 1 where it is not known: this only bounds batches."""
    return 1 if network.tokenizer is None else max(1, len(network.tokenizer))


def _no_hidden_states(network: Network, got: str) -> BadInput:
    return BadInput(
        f"hidden states of {network.name!r}",
        got=got,
        wanted="output.hidden_states, when called with output_hidden_states=True",
        remedy="Wrap the module so that it returns them.",
    )

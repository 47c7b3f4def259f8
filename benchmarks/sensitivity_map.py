"""The map of one prompt, layers by tokens: cells prepared together beside cells prepared one by one.

GPT-2's small size with random weights, 12 tokens, 16 random directions in each of 144 cells, read at the last token and
at the disturbed one; and the map of the microworld with its nulls, as `examine --prompt` makes it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timing import Row, record

from tremorscope.examine.reference_texts import reference_texts, untrained_twins
from tremorscope.instruments.activations.sweeps import prepare_sweep, prepare_sweeps
from tremorscope.instruments.load import load
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.activations.sensitivity_map.cells import respond_cells
from tremorscope.methods.activations.sensitivity_map.measurement import measure_sensitivity_map
from tremorscope.methods.activations.sensitivity_map.references import Reference

TOKENS, DIRECTIONS = 12, 16
ALONE = ((0, 0), (2, 7), (5, 3), (6, 10), (9, 5), (11, 8))  # cells (layer, token) that stand for all, one by one
KL_ONLY = ("kl",)


def main(arguments: list[str]) -> None:
    small = "small" in arguments
    rows: list[Row] = []
    network, batch, references = problem(small)
    layers, length = len(references), TOKENS
    cells = [f"acts:{site}@{token}" for site in references for token in range(length)]
    name = "GPT-2 small size"
    with threads(1):
        network.site_map(batch)

        def alone() -> None:
            for layer, token in ALONE:
                one_by_one(network, batch, f"acts:resid_pre.{layer % layers}@{token}", token)

        share = len(cells) / len(ALONE)
        rows.append(timed(name, f"cells one by one, from {len(ALONE)} of them", alone, times=share))
        rows.append(
            timed(
                name,
                "preparation alone, together",
                lambda: prepare_sweeps(network, batch, cells, readouts=KL_ONLY, own=True),
            )
        )
        rows.append(timed(name, "cells together", lambda: whole_map(network, batch, references)))
    if "one" not in arguments:
        with threads(2):
            rows.append(timed(name, "cells together", lambda: whole_map(network, batch, references)))
    with threads(1):
        microworld = load("builtin:microworld")
        texts, source = reference_texts(microworld, None)
        twins, _ = untrained_twins(microworld, 3, 0)
        options: dict[str, Any] = {"source": source, "twins": twins, "num_directions": 32}
        rows.append(
            timed(
                "microworld, 6 tokens",
                "matched and isotropic directions, 3 twins",
                lambda: measure_sensitivity_map(microworld, "Two days after Monday is", texts, **options),
            )
        )
    if small:
        print("\n".join(map(str, rows)))
        return
    record(
        "sensitivity_map",
        rows,
        title="The sensitivity map of one prompt",
        note=f"GPT-2 small size (12 x 768, vocabulary 50,257), random weights, float32, {TOKENS} tokens, {DIRECTIONS} "
        f"directions in each of {len(cells)} cells, KL at the last token and at the disturbed one; one run each, after "
        "loading. Cells one by one: `prepare_sweep` for each read-out of some cells, times their share. Wanted: at "
        "most 60 s on two free cores; the microworld's at most 10 s. With `one` as argument there is no row of two "
        "threads.",
    )


def problem(small: bool) -> tuple[Network, Batch, dict[str, Reference]]:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_layer": 3, "n_embd": 64, "n_head": 4, "vocab_size": 500} if small else {}
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    network = Network(GPT2LMHeadModel(config).eval())
    stream = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, config.vocab_size, (1, TOKENS), generator=stream)
    batch = Batch((), {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, None)
    references = {
        f"resid_pre.{layer}": Reference.of(torch.randn(64, config.n_embd, generator=stream))
        for layer in range(config.n_layer)
    }
    return network, batch, references


def whole_map(network: Network, batch: Batch, references: dict[str, Reference]) -> None:
    found = respond_cells(network, batch, references, fraction=0.1, num_directions=DIRECTIONS)
    assert found.level == 2
    assert found.num_evaluations == len(references) * TOKENS * DIRECTIONS


def one_by_one(network: Network, batch: Batch, address: str, token: int) -> None:
    """Both read-outs of one cell, nothing shared."""
    for read in ("last", token):
        sweep = prepare_sweep(network, batch, address, readouts=KL_ONLY, readout_position=read)
        stream = torch.Generator().manual_seed(0)
        sweep.respond(sweep.base + 0.1 * torch.randn(DIRECTIONS, sweep.base.shape[1], generator=stream))


def timed(model: str, way: str, work: Callable[[], object], *, times: float = 1.0) -> Row:
    wall, begin = time.perf_counter(), time.process_time()
    work()
    seconds, waited = time.process_time() - begin, time.perf_counter() - wall
    count = torch.get_num_threads()
    # One thread waits as long as it computes, on a core of its own.
    return {
        "model": model,
        "way": way,
        "threads": count,
        "CPU s": times * seconds,
        "wall s": times * waited if count > 1 else "-",
    }


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Replaced activations of an encoder per CPU second: blocks from the edit on, beside a plain hook.

BERT of MiniLM's size with random weights, one prompt, points in the place of the input of the middle block at the last
position; distance of the last hidden state at that position. An encoder has no prefix that could be kept: all positions
change above the edit. Everyone gets the same points and one thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from timing import Row, gemm_peak, record
from torch import Tensor

from tremorscope.instruments.activations.sweeps import prepare_sweep
from tremorscope.instruments.executor import one_thread
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch

AGREED = 4  # points of which every route's distance is compared with ours of level 0


def main(arguments: list[str]) -> None:
    small, rows = "small" in arguments, list[Row]()
    with one_thread(), torch.no_grad():
        peak, module = gemm_peak(torch.float32), model(small)
        for length in (12, 64):
            rows += measured(module, peak, length, small)
    if small:
        print("\n".join(map(str, rows)))
        return
    record(
        "encoder_sweeps",
        rows,
        title="Replaced activations of an encoder per CPU second",
        note="BERT of MiniLM's size (6 x 384), random weights, float32, one thread; input of block 3, last position, L2"
        " distance of the last hidden state there. Best of 2. `x plain` compares with a plain hook on one prompt at a "
        f"time. `differs`: from our level 0, the most of {AGREED} points. `share of GEMM peak` counts three blocks at "
        "all positions.",
    )


def model(small: bool) -> Any:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 192} if small else {"hidden_size": 384, "intermediate_size": 1536}
    config = BertConfig(**sizes, num_hidden_layers=6, num_attention_heads=12, attn_implementation="eager")
    return BertModel(config, add_pooling_layer=False).eval()


def measured(module: Any, peak: float, length: int, small: bool) -> list[Row]:
    """An all positions change above the edit."""
    stream = torch.Generator().manual_seed(length)
    middle, width = module.config.num_hidden_layers // 2, module.config.hidden_size
    block = module.encoder.layer[middle]
    tokens = torch.randint(0, module.config.vocab_size, (1, length), generator=stream)
    held: list[Tensor] = []
    handle = block.register_forward_pre_hook(lambda _, given: held.append(given[0][0, -1]))
    clean = module(tokens).last_hidden_state[0, -1]
    handle.remove()
    count = 40 if small else (400 if length < 20 else 80)
    steps = torch.randn(count, width, generator=stream)
    points = held[0] + steps * held[0].norm() / steps.norm(dim=1, keepdim=True)

    def plain(some: Tensor) -> Tensor:
        def replaced(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden = given[0].clone()
            hidden[:, -1] = some
            return (hidden, *given[1:])

        handle = block.register_forward_pre_hook(replaced)
        try:
            return (module(tokens.expand(len(some), -1)).last_hidden_state[:, -1] - clean).norm(dim=1)
        finally:
            handle.remove()

    def ours(level: Any) -> Callable[[Tensor], Tensor]:
        sweep = prepare_sweep(
            Network(module),
            Batch((), {"input_ids": tokens}, None),
            f"acts:resid_pre.{middle}@last",
            level=level,
            readouts=("l2",),
            readout_site=f"acts:resid_post.{module.config.num_hidden_layers - 1}",
        )
        if sweep.level != level:
            raise SystemExit(f"level {level} was not reached: {sweep.flags}")
        print(sweep.route)

        def work(some: Tensor) -> Tensor:
            l2 = sweep.respond(some).l2
            assert l2 is not None
            return l2

        return work

    # At the least: the blocks from the middle on, at every position.
    flops = 2 * 12 * width**2 * (module.config.num_hidden_layers - middle) * length
    routes: list[tuple[str, Callable[[Tensor], Tensor], int, int]] = [
        ("plain hook", plain, 1, count // 20),
        *((f"plain hook, copies in a batch of {size}", plain, size, count) for size in (20, 100)),
        ("tremorscope level 0", ours(0), count, count),
        ("tremorscope level 2", ours(2), count, count),
    ]
    truth, rows = routes[-2][1](points[:AGREED]), list[Row]()
    for name, work, size, number in routes:
        gap = float((work(points[:AGREED]) - truth).abs().max())
        seconds = []
        for _ in range(1 if small else 2):
            begin = time.process_time()
            for chunk in points[:number].split(size):
                work(chunk)
            seconds.append(time.process_time() - begin)
        rate = number / min(seconds)
        rows.append(
            {
                "prompt": length,
                "route": name,
                "batch": size if "plain" in name else "chunks",
                "points": number,
                "points / s": rate,
                "CPU s": min(seconds),
                "share of GEMM peak": rate * flops / peak,
                "differs": gap,
            }
        )
        print(rows[-1], flush=True)
    for row in rows:
        row["x plain"] = float(row["points / s"]) / float(rows[0]["points / s"])
    batched = max(float(row["points / s"]) for row in rows[1:3])
    print(f"{length} tokens: {float(rows[-1]['points / s']) / batched:.2f} x the best plain hook in batches")
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])

"""Replaced activations per CPU second: ours beside plain hooks, a cache with a hook, nnsight and TransformerLens.

One model of GPT-2's small size with random weights, one prompt, points in the place of the input of block 1 at the last
position, divergence of the next-token predictions read. Everyone gets the same points and one thread.
"""

from __future__ import annotations

import sys

from peers.environment import enter

enter("nnsight", "transformer_lens")

import resource  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from timing import Row, gemm_peak, record  # noqa: E402
from torch import Tensor  # noqa: E402

from tremorscope.instruments.activations.sweeps import prepare_sweep  # noqa: E402
from tremorscope.instruments.executor import one_thread  # noqa: E402
from tremorscope.instruments.network import Network  # noqa: E402
from tremorscope.instruments.task import Batch  # noqa: E402

BLOCK = 1
BATCH = 100
LARGE = 250  # of routes that hold one position only, about as many as ours takes at once
MANY = 10_000
AGREED = 4  # points of which every route's divergence is compared with ours of level 0


@dataclass(frozen=True)
class Problem:
    """The model, a prompt, its clean activation and points around it, and the clean prediction."""

    module: Any
    tokens: Tensor
    base: Tensor
    points: Tensor
    clean: Tensor  # log-probabilities

    @property
    def flops(self) -> float:
        """Multiplications and additions of one point at the least: the blocks from the edit on, and the read-out."""
        config = self.module.config
        return 2 * config.n_embd * (12 * config.n_embd * (config.n_layer - BLOCK) + config.vocab_size)

    def kl(self, logits: Tensor) -> Tensor:
        """Divergence of the clean prediction from each perturbed one, as anybody would write it."""
        return (self.clean.exp() * (self.clean - logits.log_softmax(-1))).sum(-1)


Route = Callable[[Tensor], Tensor]  # from points to divergences


def main(arguments: list[str]) -> None:
    small = "small" in arguments
    rows: list[Row] = []
    with one_thread(), torch.no_grad():
        peak = gemm_peak(torch.float32)
        module = model(small)
        for length in (10, 64):
            rows += measured(problem(module, length), peak, length, small)
    if small:
        print("\n".join(map(str, rows)))
        return
    record(
        "activation_sweeps",
        rows,
        title="Replaced activations per CPU second",
        note="GPT-2 small size (12 x 768, vocabulary 50,257), random weights, float32, one thread; input of block 1, "
        "last position, divergence of the next-token prediction. Best of 2 after one that is not counted (10,000 "
        "points: one run). `x plain` compares with a plain hook on one prompt at a time. `KL differs`: from our level "
        f"0, the most of {AGREED} points. `share of GEMM peak` counts what level 2 has to multiply at the least, "
        "whatever a route multiplies. `peak, MiB` is the growth of the largest resident set so far in this process.",
    )


def model(small: bool) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_layer": 3, "n_embd": 64, "n_head": 4, "vocab_size": 500} if small else {}
    config = GPT2Config(**sizes, attn_implementation="eager", bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config).eval()


def problem(module: Any, length: int) -> Problem:
    stream = torch.Generator().manual_seed(length)
    config = module.config
    tokens = torch.randint(0, config.vocab_size, (1, length), generator=stream)
    held: list[Tensor] = []
    handle = module.transformer.h[BLOCK].register_forward_pre_hook(lambda _, given: held.append(given[0][0, -1]))
    clean = module(tokens).logits[0, -1].log_softmax(-1)
    handle.remove()
    # As far from the clean activation as it is long, in random directions.
    steps = torch.randn(MANY, config.n_embd, generator=stream)
    steps *= held[0].norm() / steps.norm(dim=1, keepdim=True)
    return Problem(module, tokens, held[0], held[0] + steps, clean)


def measured(at: Problem, peak: float, length: int, small: bool) -> list[Row]:
    short = length < 20
    batched = BATCH if short else BATCH // 5  # logits of every position: a hundred long prompts would take gigabytes
    routes: list[tuple[str, Callable[[Problem], Route], int, int]] = [
        ("plain hook", plain_hook, 1, 12 if short else 6),
        ("plain hook, copies in a batch", plain_hook, batched, batched),
        ("nnsight trace", by_nnsight, 1, 12 if short else 6),
        ("nnsight trace, copies in a batch", by_nnsight, batched, batched),
        ("TransformerLens run_with_hooks", lens_hooks, 1, 12 if short else 6),
        ("TransformerLens run_with_hooks, copies in a batch", lens_hooks, batched, batched),
        ("TransformerLens start_at_layer, key-value cache", lens_partial, LARGE, 2 * LARGE),
        ("Hugging Face cache and hook", cache_and_hook, LARGE if short else BATCH, 2 * LARGE),
        ("tremorscope level 0", lambda at: ours(at, 0), batched, batched),
        ("tremorscope level 1", lambda at: ours(at, 1), BATCH, 2 * LARGE),
        ("tremorscope level 2", lambda at: ours(at, 2), BATCH, 2 * LARGE),
        ("tremorscope level 2, 10,000 points", lambda at: ours(at, 2), BATCH, MANY),
    ]
    truth = ours(at, 0)(at.points[:AGREED])
    rows: list[Row] = []
    for name, make, size, count in routes:
        before = resident_peak()
        work = make(at)
        chunks = (at.points[:count],) if name.startswith("tremorscope") else at.points[:count].split(size)
        gap = float((torch.cat([work(part) for part in at.points[:AGREED].split(size)]) - truth).abs().max())
        seconds = []
        for _ in range(1 if count == MANY or small else 2):
            begin = time.process_time()
            for chunk in chunks:
                work(chunk)
            seconds.append(time.process_time() - begin)
        rate = count / min(seconds)
        rows.append(
            {
                "prompt": length,
                "route": name,
                "batch": size if not name.startswith("tremorscope") else "chunks",
                "points": count,
                "points / s": rate,
                "CPU s": min(seconds),
                "share of GEMM peak": rate * at.flops / peak,
                "KL differs": gap,
                "peak, MiB": resident_peak() - before,
            }
        )
        print(rows[-1], flush=True)
    rates = {str(row["route"]): float(row["points / s"]) for row in rows}
    for row in rows:
        row["x plain"] = float(row["points / s"]) / rates["plain hook"]
    ours_rate = rates["tremorscope level 2"]
    peers = {name: rate for name, rate in rates.items() if "tremorscope" not in name}
    best = max(peers, key=lambda name: peers[name])
    print(
        f"prompt of {length}: {ours_rate / rates['plain hook']:.1f} x a plain hook, "
        f"{ours_rate / rates['plain hook, copies in a batch']:.1f} x the same in a batch, "
        f"{ours_rate / peers[best]:.2f} x the fastest other route, {best}"
    )
    return rows


def ours(at: Problem, level: Any) -> Route:
    network = Network(at.module)
    batch = Batch((), {"input_ids": at.tokens}, None)
    sweep = prepare_sweep(network, batch, f"acts:resid_pre.{BLOCK}@last", level=level, readouts=("kl",))
    if sweep.level != level:
        raise SystemExit(f"level {level} was not reached: {sweep.flags}")

    def work(points: Tensor) -> Tensor:
        kl = sweep.respond(points).kl
        assert kl is not None
        return kl

    return work


def replacing(points: Tensor) -> Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]:
    def hook(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = given[0].clone()
        hidden[:, -1] = points
        return (hidden, *given[1:])

    return hook


def plain_hook(at: Problem) -> Route:
    def work(points: Tensor) -> Tensor:
        handle = at.module.transformer.h[BLOCK].register_forward_pre_hook(replacing(points))
        try:
            return at.kl(at.module(at.tokens.expand(len(points), -1)).logits[:, -1])
        finally:
            handle.remove()

    return work


def cache_and_hook(at: Problem) -> Route:
    from transformers import DynamicCache

    clean = at.module(at.tokens[:, :-1], use_cache=True).past_key_values

    def work(points: Tensor) -> Tensor:
        cache = DynamicCache(
            [(e.keys.expand(len(points), -1, -1, -1), e.values.expand(len(points), -1, -1, -1)) for e in clean.layers]
        )
        handle = at.module.transformer.h[BLOCK].register_forward_pre_hook(replacing(points))
        try:
            output = at.module(at.tokens[:, -1:].expand(len(points), -1), past_key_values=cache, use_cache=True)
        finally:
            handle.remove()
        return at.kl(output.logits[:, -1])

    return work


def by_nnsight(at: Problem) -> Route:
    from nnsight import NNsight

    traced = NNsight(at.module)

    def work(points: Tensor) -> Tensor:
        with traced.trace(at.tokens.expand(len(points), -1)):
            hidden = traced.transformer.h[BLOCK].input.clone()
            hidden[:, -1] = points
            traced.transformer.h[BLOCK].input = hidden
            logits = traced.lm_head.output[:, -1].save()
        return at.kl(logits)

    return work


def lens(at: Problem) -> Any:
    """The same weights in TransformerLens, neither folded nor centred."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    config = at.module.config
    settings = HookedTransformerConfig(
        n_layers=config.n_layer,
        d_model=config.n_embd,
        n_ctx=config.n_positions,
        d_head=config.n_embd // config.n_head,
        n_heads=config.n_head,
        d_vocab=config.vocab_size,
        act_fn="gelu_new",
        normalization_type="LN",
        eps=config.layer_norm_epsilon,
        device="cpu",
        default_prepend_bos=False,
    )
    made = HookedTransformer(settings, move_to_device=False)
    made.load_state_dict(convert_gpt2_weights(at.module, settings), strict=False)
    return made.eval()


def lens_hooks(at: Problem) -> Route:
    model = lens(at)

    def work(points: Tensor) -> Tensor:
        def hook(hidden: Tensor, hook: Any) -> Tensor:
            hidden = hidden.clone()
            hidden[:, -1] = points
            return hidden

        logits = model.run_with_hooks(
            at.tokens.expand(len(points), -1), fwd_hooks=[(f"blocks.{BLOCK}.hook_resid_pre", hook)]
        )
        return at.kl(logits[:, -1])

    return work


def lens_partial(at: Problem) -> Route:
    """Its best route: points enter at the block as the only position, after a frozen cache of the others."""
    from transformer_lens.past_key_value_caching import HookedTransformerKeyValueCache

    model = lens(at)
    clean = HookedTransformerKeyValueCache.init_cache(model.cfg, "cpu", 1)
    before = at.tokens[:, :-1]
    model(before, past_kv_cache=clean, attention_mask=torch.ones_like(before))

    def work(points: Tensor) -> Tensor:
        cache = HookedTransformerKeyValueCache.init_cache(model.cfg, "cpu", len(points))
        for mine, shared in zip(cache.entries, clean.entries, strict=True):
            mine.past_keys = shared.past_keys.expand(len(points), -1, -1, -1)
            mine.past_values = shared.past_values.expand(len(points), -1, -1, -1)
        cache.freeze()
        return at.kl(model(points[:, None], start_at_layer=BLOCK, past_kv_cache=cache)[:, -1])

    return work


def resident_peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
